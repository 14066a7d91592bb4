"""Smooth one tile of the maps by a Gaussian process, and measure the seams between tiles."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import array_namespace, to_host
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.models.gp.engines import Engine, Smoothed, smooth
from scalehsi.models.gp.input_maps import refuse_infinite
from scalehsi.models.gp.upsampling import Upsampling
from scalehsi.schema import ABUNDANCES, ABUNDANCES_STD, X, Y

SEAM: Final = "seam_difference"
SEAM_REACH_PIXELS: Final = 24
"""Pixels on each side of a corner of tiles that are computed again to measure the seams."""


def smooth_tile(
    x: Any, *, hyper: Hyper, upsampling: Upsampling, extent: tuple[int, int], clip: bool, engine: Engine, tile: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compute mean and deviation of a tile, one row a pixel, and the steps and residual of its solver.

    Parameters
    ----------
    x : array, shape (P, T)
        The maps in the tile and its halo; NaN where a pixel is missing.
    hyper : Hyper
    upsampling : Upsampling
    extent : (int, int)
        Pixels of the whole maps along y and x.
    clip : bool
        Whether the mean is clipped at zero.
    engine : Engine
    tile : object
        Shape and pixel indices of the tile, as `scalehsi.blocks` passes it.
    """
    xp = array_namespace(x)
    frames = xp.reshape(xp.asarray(x, copy=True), (-1, *tile.shape[-2:], x.shape[-1]))
    first = int(tile.index[0])
    start = divmod(first % math.prod(extent), extent[1])
    if bool(xp.any(xp.isinf(frames))):
        refuse_infinite(to_host(frames), start)
    found = [
        smooth_frame(frames[n], hyper, upsampling, engine, start=start, first=(first, n))
        for n in range(frames.shape[0])
    ]
    mean = xp.stack([f.mean for f in found])
    if clip:
        mean = xp.where(mean > 0, mean, xp.zeros_like(mean))
    rows = {ABUNDANCES: mean, ABUNDANCES_STD: xp.stack([f.std for f in found])}
    return (
        {name: upsampling.rows(xp.astype(values, xp.float32, copy=False)) for name, values in rows.items()},
        {"steps": max(f.steps for f in found), "residual": max(f.residual for f in found)},
    )


def smooth_frame(
    y: Any, hyper: Hyper, upsampling: Upsampling, engine: Engine, *, start: tuple[int, int], first: tuple[int, int]
) -> Smoothed:
    """Smooth maps ``y`` (H, W, T), NaN where one is missing, on the slots of the upsampled grid.

    ``start`` is the first pixel (y, x) in the whole maps, and ``first`` identifies the tile; see
    `scalehsi.models.gp.engines.smooth`.
    """
    xp = array_namespace(y)
    observed = xp.isfinite(y)
    here = xp.where(observed, y, xp.zeros_like(y))
    upsample = upsampling.kernel_points(start, (int(y.shape[0]), int(y.shape[1])))
    return smooth(here, observed, hyper, engine, upsample=upsample, first=first)


def seam_difference(
    cube: xr.DataArray,
    made: xr.DataArray,
    shared: dict[str, Any],
    *,
    halo: int,
    grid: tuple[tuple[int, ...], ...],
) -> xr.DataArray:
    """Difference of the tiled maps, around the most central corner of tiles, from those of one tile around that corner.

    The largest over the components, in standard deviations of the posterior. Costs one tile.

    Parameters
    ----------
    cube : xarray.DataArray, shape (..., y, x, T)
        The maps before.
    made : xarray.DataArray, dims (component, ..., y, x)
        The tiled maps.
    shared : dict
        Keyword arguments of `smooth_tile`.
    halo : int
        Of the tiles, in pixels.
    grid : tuple of tuple of int
        Sizes of the tiles along each pixel dim.
    """
    upsampling: Upsampling = shared["upsampling"]
    windows, outer, corner = [], [], []
    for sizes in grid[-2:]:
        edges, size = np.cumsum(sizes), int(sum(sizes))
        edge = int(edges[:-1][np.argmin(np.abs(edges[:-1] - size / 2))]) if len(sizes) > 1 else size // 2
        low, high = max(0, edge - SEAM_REACH_PIXELS), min(size, edge + SEAM_REACH_PIXELS)
        windows.append((low, high))
        outer.append((max(0, low - 2 * halo), min(size, high + 2 * halo)))
        corner.append(edge)
    frame = {d: 0 for d in cube.dims[:-3]}
    y = np.array(cube.isel({**frame, Y: slice(*outer[0]), X: slice(*outer[1])}).values, order="C")
    start = (outer[0][0], outer[1][0])
    whole = smooth_frame(y, shared["hyper"], upsampling, shared["engine"], start=start, first=(0, 0))
    slots = [s.used_slots(b - a, a) for s, (a, b) in zip(upsampling.axes, outer, strict=True)]
    inner = [s.points_in(a, b) for s, (a, b) in zip(upsampling.axes, windows, strict=True)]
    skipped = [int(s.first_point(a)) for s, (a, _) in zip(upsampling.axes, outer, strict=True)]
    index = np.ix_(*(k[w.start - p : w.stop - p] for k, w, p in zip(slots, inner, skipped, strict=True)))
    mean, std = (np.moveaxis(values[index], -1, 0) for values in (whole.mean, whole.std))
    if shared["clip"]:
        mean = np.maximum(mean, 0.0)
    own = dict(zip((Y, X), inner, strict=True))
    difference = np.abs(made.isel({**frame, **own}).values - mean)
    least = 1e-12 * max(float(np.abs(mean).max()), 1e-300)
    coords = {
        f"seam_{d}": (f"seam_{d}", s.points(size)[at] - edge + 0.5, {"units": "px"})
        for d, s, size, at, edge in zip((Y, X), upsampling.axes, cube.shape[-3:-1], inner, corner, strict=True)
    }
    long_name = "difference of the tiled maps from one tile around a corner, pixels counted from the corner"
    return xr.DataArray(
        (difference / np.maximum(std, least)).max(axis=0),
        dims=tuple(coords),
        coords=coords,
        attrs={"long_name": long_name, "units": "standard deviations of the posterior", "halo": halo},
    )
