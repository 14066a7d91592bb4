"""Small quadratic programmes, one per pixel: non-negative, on the simplex, or with an asymmetric matrix."""
