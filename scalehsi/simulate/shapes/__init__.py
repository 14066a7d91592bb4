"""Compute the spatial layouts, map patterns and plasmon spectra of simulated scenes."""
