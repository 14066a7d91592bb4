"""Scenes that tests and benchmarks share."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

import scalehsi as hsi


def diode(size: int = 32, channels: int = 256, seed: int = 0) -> tuple[xr.DataArray, xr.Dataset]:
    """Three phases that lie apart and share most of their spectra: the case that soft orthogonality was made for."""
    lazy, truth = hsi.simulate.chequerboard(
        (size, size), n_channels=channels, n_components=3, squares=(1, 3), seed=seed,
        counts_per_pixel=2e4, background=0.5, mixing=0.0, border=0.02,
    )  # fmt: skip
    return lazy.compute(), truth


def smooth_scene(
    n_components: int, *, counts: float, seed: int = 0, size: int = 24, channels: int = 80, kind: str = "EDS"
) -> tuple[xr.DataArray, np.ndarray]:
    """Smooth mixtures of phases as whole counts, and the spectra (K, E) of a pure pixel.

    counts: of a pixel, on average; thickness varies by +-30 %. kind: "EDS", peaks on a background; "EELS", edges on a
    power law.
    """
    rng, e = np.random.default_rng(seed), np.arange(channels)
    s = np.stack([_peaks(e, rng) if kind == "EDS" else _edges(e, rng) for _ in range(n_components)])
    s *= counts / s.sum(axis=1, keepdims=True)
    maps = np.stack([gaussian_filter(rng.standard_normal((size, size)), 3.0) for _ in s], axis=-1)
    maps = np.exp(2 * maps / maps.std())
    maps *= rng.uniform(0.7, 1.3, (size, size, 1)) / maps.sum(axis=-1, keepdims=True)
    coords = {"energy": ("energy", 0.2 + 0.01 * e if kind == "EDS" else 100.0 + e)}
    cube = xr.DataArray(rng.poisson(maps @ s).astype("u2"), dims=("y", "x", "energy"), coords=coords)
    cube["energy"].attrs["units"] = "keV" if kind == "EDS" else "eV"
    cube.attrs["signal"] = kind
    return cube, s


def _peaks(e: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    at = rng.uniform(0.05 * e.size, 0.95 * e.size, 4)
    return 0.15 * np.exp(-e / (0.4 * e.size)) + rng.uniform(0.2, 1, 4) @ np.exp(-0.5 * ((e - at[:, None]) / 2.5) ** 2)


def _edges(e: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    found = rng.uniform(0.8, 1.2) * (1 + e / (0.25 * e.size)) ** -2.2
    for onset in rng.uniform(0.1 * e.size, 0.85 * e.size, 2):
        edge = np.where(e > onset, np.exp(-(e - onset) / (0.3 * e.size)), 0.0)
        found = found + rng.uniform(0.3, 1) * 0.25 * edge + 0.1 * np.exp(-0.5 * ((e - onset - 4) / 3) ** 2)
    return found
