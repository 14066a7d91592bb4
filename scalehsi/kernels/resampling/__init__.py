"""Resample pixels and spectra: bins, footprints of one raster on another, energy axes, and smoothing."""
