"""Scenes that tests and benchmarks share."""

from __future__ import annotations

import xarray as xr

import scalehsi as hsi


def diode(size: int = 32, channels: int = 256, seed: int = 0) -> tuple[xr.DataArray, xr.Dataset]:
    """Three phases that lie apart and share most of their spectra: the case that soft orthogonality was made for."""
    lazy, truth = hsi.simulate.chequerboard(
        (size, size), n_channels=channels, n_components=3, squares=(1, 3), seed=seed,
        counts_per_pixel=2e4, background=0.5, mixing=0.0, border=0.02,
    )  # fmt: skip
    return lazy.compute(), truth
