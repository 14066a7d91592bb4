"""Small EELS cubes with a known truth, which the tests of background, edges and spikes share."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from scalehsi.cube import make_cube

ENERGY = 400.0 + np.arange(300.0)


def law(exponent: float = 3.0, height: float = 200.0) -> Any:
    """A power law (300,) with this height at 400 eV."""
    return height * (ENERGY / 400.0) ** -exponent


def edge_cube(
    shape: tuple[int, int] = (16, 12), *, gain: float = 1.0, seed: int = 0, dtype: Any = "u2", **more: Any
) -> xr.DataArray:
    """Counts over a power law with a thickness wedge, and an edge at 532 eV in the right half."""
    wedge = np.linspace(0.7, 1.3, shape[0])[:, None, None]
    jump = 30.0 * (ENERGY > 532.0) * (ENERGY / 532.0) ** -4.0
    half = (np.arange(shape[1]) >= shape[1] // 2)[None, :, None]
    mean = wedge * (law() + half * jump)
    counts = gain * np.random.default_rng(seed).poisson(mean / gain)
    return make_cube(
        counts.astype(dtype),
        energy=ENERGY,
        energy_units="eV",
        pixel_size=0.5,
        signal="EELS",
        attrs={"elements": ["O"], "title": "a title"},
        **more,
    )
