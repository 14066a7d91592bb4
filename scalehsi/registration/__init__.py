"""Register two acquisitions of one region: their rasters, and the shift and scale between them."""
