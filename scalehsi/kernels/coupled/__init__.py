"""Signals that share their abundances: one problem a pixel from all of them, and the sums that their spectra need."""
