"""Small quadratic programmes, one a pixel."""
