"""Maps that are computed tile by tile, each tile with its halo, on the pixels or on an upsampled grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.blocks import BlockFunction, Blocks, Pixels, map_fold, map_pixels, open_tiles
from scalehsi.models.gp.upsampling import Upsampling
from scalehsi.schema import COMPONENT


def tile_grid(shape: Sequence[int], core: float) -> tuple[tuple[int, ...], ...]:
    """Sizes of the tiles along each pixel dim: 1 along leading dims, equal ones of about ``core`` pixels along y and x.

    Examples
    --------
    >>> tile_grid((2, 100, 64), 64)
    ((1, 1), (50, 50), (64,))
    """

    def even(size: int) -> tuple[int, ...]:
        count = max(1, round(size / core)) if math.isfinite(core) else 1
        edges = np.linspace(0, size, count + 1).round().astype(int)
        return tuple(int(n) for n in np.diff(edges))

    return (*((1,) * n for n in shape[:-2]), *map(even, shape[-2:]))


def tiled_maps(
    fn: BlockFunction,
    view: Blocks,
    grid: tuple[tuple[int, ...], ...],
    *,
    halo: int,
    shared: Mapping[str, Any],
    names: Sequence[str],
    components: int,
    upsampling: Upsampling,
    compute: bool,
    name: str,
) -> tuple[dict[str, xr.DataArray], dict[str, Any]]:
    """Run a function on tiles with their halo and assemble its maps.

    Parameters
    ----------
    fn : callable
        ``fn(x, tile=, **shared) -> (rows (P, T, slots along y, along x) by name, numbers)``.
    view : Blocks
        Of the maps (..., y, x, T).
    grid : tuple of tuple of int
        Of `tile_grid`.
    halo : int
        Pixels around a tile, at least 1 so that ``x`` keeps its shape.
    shared : mapping
        Keyword arguments of ``fn``.
    names : sequence of str
        Of the maps that ``fn`` returns.
    components : int
        T.
    upsampling : Upsampling
    compute : bool
        True: compute the maps now. False: lazy maps, and no numbers.
    name : str
        Name of the tasks on the dashboard.

    Returns
    -------
    maps : dict of str to xarray.DataArray, dims (component, ..., y, x)
    numbers : dict
        The largest value over all tiles of each of the numbers of ``fn``.
    """
    tiles = open_tiles(view.cube, grid, device=view.device)
    tiles.report = view.report
    columns = {COMPONENT: components, **upsampling.columns()}
    numbers: dict[str, Any] = {}
    how: dict[str, Any] = {"shared": shared, "keep": names, "halo": halo, "tile": True, "name": name}
    if compute:
        handles, numbers = map_fold(fn, tiles, combine=_largest, **how)
    else:
        handles = map_pixels(fn, tiles, **how)
    coords = upsampling.coords(view.cube)

    def maps(handle: Pixels) -> xr.DataArray:
        lazy = upsampling.unfold(handle.to_dataarray(columns)).assign_coords(coords)
        return lazy.compute() if compute else lazy

    return {key: maps(handle) for key, handle in handles.items()}, numbers


def _largest(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    return {key: max(left[key], right[key]) for key in left}
