"""Bins of pixels, footprints of one raster on another, energy axes and smoothing."""
