"""A tile of a Gaussian process, and a look at the seams between tiles."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import array_namespace
from scalehsi.kernels.gaussian.profile import Hyper
from scalehsi.models import gp_engines as engines
from scalehsi.models.tiled import Finer
from scalehsi.schema import ABUNDANCES, ABUNDANCES_STD, X, Y

SEAM: Final = "seam_difference"
SEAM_REACH: Final = 24
"""Pixels on each side of a corner of tiles that are made again to look for seams."""


def smoothed(
    x: Any, *, hyper: Hyper, finer: Finer, nonnegative: bool, how: engines.How, tile: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Mean and deviation of a tile, one row a pixel, and how far its solver came; where the tile lies."""
    xp = array_namespace(x)
    frames = xp.reshape(xp.asarray(x, copy=True), (-1, *tile.shape[-2:], x.shape[-1]))
    found = [smooth_frame(frames[n], hyper, finer, how, first=(int(tile.index[0]), n)) for n in range(frames.shape[0])]
    mean = xp.stack([f.mean for f in found])
    if nonnegative:
        mean = xp.where(mean > 0, mean, xp.zeros_like(mean))
    rows = {ABUNDANCES: mean, ABUNDANCES_STD: xp.stack([f.std for f in found])}
    return (
        {name: finer.rows(xp.astype(values, xp.float32, copy=False)) for name, values in rows.items()},
        {"steps": max(f.steps for f in found), "leftover": max(f.residual for f in found)},
    )


def smooth_frame(y: Any, hyper: Hyper, finer: Finer, how: engines.How, *, first: tuple[int, int]) -> engines.Smoothed:
    """Maps (H, W, T) with NaN where a pixel is missing; random numbers are counted on the first pixel."""
    xp = array_namespace(y)
    observed = xp.all(xp.isfinite(y), axis=-1)
    here = xp.where(observed[..., None], y, xp.zeros_like(y))
    return engines.smooth(here, observed, hyper, how, upsample=finer.factor, first=first)


def seam_difference(
    cube: xr.DataArray,
    made: xr.DataArray,
    shared: dict[str, Any],
    *,
    halo: int,
    grid: tuple[tuple[int, ...], ...],
) -> xr.DataArray:
    """How far the maps around the most central corner of tiles are from those of one tile around it.

    Largest over the components, in standard deviations of the posterior. Costs one tile.

    Parameters
    ----------
    cube : xarray.DataArray, shape (..., y, x, T)
    made : xarray.DataArray, dims (component, ..., y, x)
        The maps, tiled.
    shared : dict
        Keyword arguments of `smoothed`.
    halo, grid
        Of the tiles.
    """
    finer: Finer = shared["finer"]
    windows, outer, corner = [], [], []
    for sizes in grid[-2:]:
        edges, size = np.cumsum(sizes), int(sum(sizes))
        edge = int(edges[:-1][np.argmin(np.abs(edges[:-1] - size / 2))]) if len(sizes) > 1 else size // 2
        low, high = max(0, edge - SEAM_REACH), min(size, edge + SEAM_REACH)
        windows.append((low, high))
        outer.append((max(0, low - 2 * halo), min(size, high + 2 * halo)))
        corner.append(edge)
    frame = {d: 0 for d in cube.dims[:-3]}
    y = np.array(cube.isel({**frame, Y: slice(*outer[0]), X: slice(*outer[1])}).values, order="C")
    whole = smooth_frame(y, shared["hyper"], finer, shared["how"], first=(0, 0))
    r = finer.factor
    cut = tuple(slice((a - o) * r, (b - o) * r) for (a, b), (o, _) in zip(windows, outer, strict=True))
    mean, std = (np.moveaxis(values[cut], -1, 0) for values in (whole.mean, whole.std))
    if shared["nonnegative"]:
        mean = np.maximum(mean, 0.0)
    own = {d: slice(a * r, b * r) for d, (a, b) in zip((Y, X), windows, strict=True)}
    off = np.abs(made.isel({**frame, **own}).values - mean)
    least = 1e-12 * max(float(np.abs(mean).max()), 1e-300)
    coords = {
        f"seam_{d}": (f"seam_{d}", a + finer.points(b - a) - edge + 0.5, {"units": "px"})
        for d, (a, b), edge in zip((Y, X), windows, corner, strict=True)
    }
    said = "difference of the tiled maps from one tile around a corner, pixels counted from the corner"
    return xr.DataArray(
        (off / np.maximum(std, least)).max(axis=0),
        dims=tuple(coords),
        coords=coords,
        attrs={"long_name": said, "units": "standard deviations of the posterior", "halo": halo},
    )
