"""Spatial layouts, map patterns and spectra of which simulated scenes are made."""
