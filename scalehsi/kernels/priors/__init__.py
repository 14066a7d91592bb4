"""Priors on abundances and endmembers."""
