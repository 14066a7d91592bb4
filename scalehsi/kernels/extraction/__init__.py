"""Endmembers picked among the measured spectra."""
