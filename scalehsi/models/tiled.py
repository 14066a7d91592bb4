"""Maps made tile by tile, each with what lies around it, on the pixels or on a finer grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.arrays import array_namespace
from scalehsi.blocks import BlockFunction, Blocks, Pixels, map_fold, map_pixels, open_tiles
from scalehsi.schema import COMPONENT, X, Y

FINE_Y, FINE_X = "fine_y", "fine_x"


@dataclass(frozen=True)
class Finer:
    """A grid with ``factor`` points a pixel along y and x, that has the extent of the pixels.

    Examples
    --------
    >>> Finer(2).points(3).tolist()
    [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25]
    """

    factor: int = 1

    def points(self, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Where the points of an axis of so many pixels lie, in pixels."""
        return np.asarray((np.arange(size * self.factor) + 0.5) / self.factor - 0.5)

    def along(self, axis: xr.DataArray) -> xr.DataArray:
        """The coordinate of the points, from that of the pixels; straight on beyond the first and the last one."""
        values = np.asarray(axis.values, dtype=np.float64)
        places = self.points(values.size)
        if self.factor == 1:
            return axis
        if values.size == 1:  # the size of its pixel is not known: one of the axis' unit
            return xr.DataArray(values + places, dims=axis.dims, attrs=axis.attrs)
        left = np.clip(np.floor(places).astype(np.int64), 0, values.size - 2)
        found = values[left] + (places - left) * (values[left + 1] - values[left])
        return xr.DataArray(found, dims=axis.dims, attrs=axis.attrs)

    def coords(self, cube: xr.DataArray) -> dict[str, xr.DataArray]:
        """Coordinates of the finer grid of a cube's pixels."""
        found = {str(d): cube.coords[d] for d in cube.dims[:-1] if d in cube.coords}
        return {d: self.along(axis) if d in (Y, X) else axis for d, axis in found.items()}

    def columns(self) -> dict[str, int]:
        """Columns of a pixel, for `Pixels.to_dataarray`."""
        return {FINE_Y: self.factor, FINE_X: self.factor}

    def rows(self, values: Any) -> Any:
        """Maps on the points of a tile (..., H r, W r, T) as one row a pixel (P, T, r, r)."""
        r, xp = self.factor, array_namespace(values)
        *_, height, width, maps = values.shape
        split = xp.reshape(values, (-1, height // r, r, width // r, r, maps))
        return xp.reshape(xp.permute_dims(split, (0, 1, 3, 5, 2, 4)), (-1, maps, r, r))

    def unfold(self, maps: xr.DataArray) -> xr.DataArray:
        """What `Pixels.to_dataarray` gives, dims (component, fine_y, fine_x, ..., y, x), with the points in y and x."""
        leading = [d for d in maps.dims if d not in (COMPONENT, FINE_Y, FINE_X, Y, X)]
        dims = (COMPONENT, *leading, Y, X)
        if self.factor == 1:
            return maps.isel({FINE_Y: 0, FINE_X: 0}).transpose(*dims)
        data, r = maps.data, self.factor
        if hasattr(data, "map_blocks"):
            chunks = (data.chunks[0], *data.chunks[3:-2], *(tuple(n * r for n in c) for c in data.chunks[-2:]))
            data = data.map_blocks(_unfold, dtype=data.dtype, chunks=chunks, drop_axis=[1, 2])
        else:
            data = _unfold(data)
        kept = {d: maps.coords[d] for d in leading if d in maps.coords}
        return xr.DataArray(data, dims=dims, coords=kept)


def _unfold(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(T, r, r, ..., H, W) to (T, ..., H r, W r)."""
    maps, r, _, *leading, height, width = values.shape
    n = len(leading)
    order = (0, *range(3, 3 + n), 3 + n, 1, 4 + n, 2)
    return values.transpose(order).reshape(maps, *leading, height * r, width * r)


def tile_grid(shape: Sequence[int], core: float) -> tuple[tuple[int, ...], ...]:
    """Sizes of tiles along each pixel dim: one along leading dims, some ``core`` and all alike along y and x.

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
    finer: Finer,
    home: bool,
    name: str,
) -> tuple[dict[str, xr.DataArray], dict[str, Any]]:
    """Run a function on tiles with their halo and put its maps together.

    Parameters
    ----------
    fn : callable
        ``fn(x, tile=, **shared) -> (rows (P, T, r, r) by name, numbers)``, of which the largest are kept.
    view : Blocks
    grid : tuple of tuple of int
        Of `tile_grid`.
    halo : int
        Pixels around a tile, at least 1 so that ``x`` keeps its shape.
    shared, names, components, finer
    home : bool
        True: computed now. False: lazy, and no numbers.
    name : str
        What the dashboard shows.
    """
    tiles = open_tiles(view.cube, grid, device=view.device)
    tiles.report = view.report
    columns = {COMPONENT: components, **finer.columns()}
    numbers: dict[str, Any] = {}
    how: dict[str, Any] = {"shared": shared, "keep": names, "halo": halo, "tile": True, "name": name}
    if home:
        handles, numbers = map_fold(fn, tiles, combine=_largest, **how)
    else:
        handles = map_pixels(fn, tiles, **how)
    coords = finer.coords(view.cube)

    def maps(handle: Pixels) -> xr.DataArray:
        lazy = finer.unfold(handle.to_dataarray(columns)).assign_coords(coords)
        return lazy.compute() if home else lazy

    return {key: maps(handle) for key, handle in handles.items()}, numbers


def _largest(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    return {key: max(left[key], right[key]) for key in left}
