"""A small board of three phases with blurred borders, for tests of the networks' mechanics."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.ndimage import uniform_filter

from scalehsi.cube import make_cube

ENERGY = np.linspace(200.0, 500.0, 64)


def board(side: int = 32, *, counts: float = 2e4, seed: int = 0) -> tuple[xr.DataArray, xr.Dataset]:
    """Counts (side, side, 64) of power laws with an edge each, and their truth."""
    rng = np.random.default_rng(seed)
    power = (ENERGY / 200.0) ** -np.array([[2.4], [2.9], [3.2]])
    edges = 0.3 / (1 + np.exp(-(ENERGY - np.array([[260.0], [330.0], [400.0]])) / 4))
    spectra = power + edges
    tiles = np.arange(16).reshape(4, 4) % 3
    labels = np.kron(tiles, np.ones((side // 4, side // 4)))
    maps = np.stack([uniform_filter((labels == k).astype(float), 3) for k in range(3)], axis=-1)
    model = maps @ spectra
    scale = counts / model.sum(axis=-1).mean()
    cube = make_cube(rng.poisson(model * scale).astype("u2"), energy=ENERGY, energy_units="eV", signal="EELS")
    truth = xr.Dataset(
        {
            "endmembers": (("component", "energy"), spectra * scale),
            "abundances": (("component", "y", "x"), np.moveaxis(maps, -1, 0)),
        },
        coords={"energy": cube["energy"], "component": [1, 2, 3]},
    )
    return cube, truth
