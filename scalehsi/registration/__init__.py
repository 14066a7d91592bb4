"""Rasters of acquisitions, and the shift and scale between them."""
