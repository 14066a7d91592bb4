"""Subspaces of spectra: moments, singular vectors, projections, and NNDSVD starts."""
