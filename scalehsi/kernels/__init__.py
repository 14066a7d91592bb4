"""Arrays in, arrays out: no dask, no xarray. Letters: P pixels, E energies, K components."""
