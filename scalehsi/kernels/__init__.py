"""Numerical kernels: pure functions of arrays, without dask or xarray. Letters: P pixels, E energies, K components."""
