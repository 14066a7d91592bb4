"""Priors on abundances and endmembers: automatic relevance determination, orthogonality, and prior maps."""
