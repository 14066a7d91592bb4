"""Describe one block for a kernel: where it lies, its pixels as rows, and the conversion of rows to maps."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalehsi import arrays
from scalehsi.kernels.pixel_rows.sparse_counts import Counts


@dataclass(frozen=True)
class Place:
    """Where a block lies: its own pixels (the core), and the halo of pixels around them.

    Attributes
    ----------
    navigation : tuple of int
        Number of pixels of the whole cube along each navigation dim.
    start, shape : tuple of int
        First pixel and size of the core.
    before, after : tuple of int
        Halo pixels on each side; fewer at the edge of the cube.
    has_halo : bool
        True when a halo was requested, even where the cube has no pixels for one: the tile then keeps its shape.
    """

    navigation: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    has_halo: bool = False

    @property
    def outer(self) -> tuple[int, ...]:
        """Size of the tile, halo included."""
        return tuple(b + n + a for b, n, a in zip(self.before, self.shape, self.after, strict=True))

    @property
    def window(self) -> tuple[slice, ...]:
        """Where the tile, halo included, lies in the cube."""
        ends = zip(self.start, self.before, self.outer, strict=True)
        return tuple(slice(start - before, start - before + size) for start, before, size in ends)

    def index(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the absolute row-major number of every pixel of the tile, shape (P,)."""
        total = np.zeros((1,) * len(self.shape), dtype=np.int64)
        for axis, (start, before, size) in enumerate(zip(self.start, self.before, self.outer, strict=True)):
            stride = math.prod(self.navigation[axis + 1 :])
            offsets = (np.arange(size, dtype=np.int64) + (start - before)) * stride
            total = total + offsets.reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return total.reshape(-1)

    def core(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return True for the pixels of the core and False for those of the halo, shape (P,)."""
        inside = np.zeros(self.outer, dtype=bool)
        inside[tuple(slice(b, b + n) for b, n in zip(self.before, self.shape, strict=True))] = True
        return inside.reshape(-1)


@dataclass(frozen=True)
class Tile:
    """The pixels of one block as rows of a kernel's input; Dask does not look inside, so they may be on a GPU.

    Attributes
    ----------
    x : array, shape (P, E), or Counts
        Without a halo the used pixels only. With a halo every pixel of the tile, so that its rows can be reshaped to
        the tile's shape.
    index : array, shape (P,)
        Absolute row-major pixel numbers, on which random numbers are counted.
    core : array of bool, shape (P,)
        True for the used pixels of the block itself. Sums must include these only.
    used : array of bool, shape (P,)
        True for the used pixels of the tile, those of the halo included.
    shape : tuple of int
        Size of the tile along the navigation dims, halo included.
    beside : tuple of arrays, shape (P, E'), or Counts
        The same pixels of the cubes beside the first one.
    """

    x: Any
    index: np.ndarray[Any, Any]
    core: np.ndarray[Any, Any]
    used: np.ndarray[Any, Any]
    shape: tuple[int, ...]
    beside: tuple[Any, ...] = ()

    def __sizeof__(self) -> int:
        own = self.x.nbytes + self.index.nbytes + self.core.nbytes + self.used.nbytes
        return int(own + sum(each.nbytes for each in self.beside))


def make_tile(place: Place, device: arrays.Device, values: Any, mask: Any = None, beside: Sequence[Any] = ()) -> Tile:
    """Return the tile at ``place``, on ``device``, from its ``values`` (..., y, x, E) or Counts and its mask.

    beside: values of the cubes beside the first one; not with a halo and not with Counts.
    """
    x = values if isinstance(values, Counts) else np.asarray(values).reshape(-1, np.shape(values)[-1])
    used = np.ones(x.shape[0], dtype=bool) if mask is None else np.asarray(mask).reshape(-1)
    index = place.index()
    if isinstance(x, Counts):
        return Tile(x, index, place.core() & used, used, place.outer)
    if place.has_halo:
        return Tile(arrays.to_device(x, device), index, place.core() & used, used, place.outer)
    rows = [x, *(np.asarray(each).reshape(-1, np.shape(each)[-1]) for each in beside)]
    if not used.all():
        rows, index = [each[used] for each in rows], index[used]
    x, *others = (arrays.to_device(np.ascontiguousarray(each), device) for each in rows)
    own = np.ones(x.shape[0], dtype=bool)
    return Tile(x, index, own, own, place.outer, tuple(others))


def rows_of_maps(n_pixel_dims: int, device: arrays.Device, maps: Any, mask: Any = None) -> Any:
    """Convert the maps of one block, whose first ``n_pixel_dims`` dims are pixel dims, to a row for each used pixel."""
    values = np.asarray(maps)
    flat = values.reshape((-1, *values.shape[n_pixel_dims:]))
    return arrays.to_device(flat if mask is None else flat[np.asarray(mask).reshape(-1)], device)


def crop(inside: tuple[slice, ...], values: Any) -> np.ndarray[Any, Any]:
    """Copy the part of a block that lies in a neighbour's halo; a view would keep the whole block in memory."""
    return np.asarray(values)[inside].copy()


def join(shape: tuple[int, ...], targets: Sequence[tuple[slice, ...]], *pieces: Any) -> np.ndarray[Any, Any]:
    """Assemble a tile of ``shape`` from ``pieces`` of the blocks that it overlaps; ``targets`` says where each goes."""
    first = np.asarray(pieces[0])
    out = np.empty((*shape, *first.shape[len(shape) :]), dtype=first.dtype)
    for target, piece in zip(targets, pieces, strict=True):
        out[target] = piece
    return out


def pack(values: Any) -> Counts:
    """Convert a stored chunk (..., y, x, E) to `Counts`, which have no zeros."""
    values = np.asarray(values)
    return Counts.from_dense(values.reshape(-1, values.shape[-1]))


def crop_packed(shape: tuple[int, ...], inside: tuple[slice, ...], packed: Counts) -> Counts:
    """Do the same as `crop` for a packed chunk with ``shape`` pixels along the navigation dims."""
    return packed.take(np.arange(math.prod(shape)).reshape(shape)[inside].reshape(-1))


def join_packed(shape: tuple[int, ...], targets: Sequence[tuple[slice, ...]], *pieces: Counts) -> Counts:
    """Do the same as `join` for packed pieces."""
    number = np.arange(math.prod(shape)).reshape(shape)
    order = np.argsort(np.concatenate([number[target].reshape(-1) for target in targets]))
    return Counts.concatenate(pieces).take(order)


def overlaps(edges: Sequence[int], start: int, stop: int) -> list[tuple[int, slice, slice]]:
    """Find the blocks along one dim that contain the pixels from ``start`` to ``stop``.

    Parameters
    ----------
    edges : sequence of int
        Where each block begins, and where the last one ends.
    start, stop : int
        First pixel, and the one after the last.

    Returns
    -------
    list of (int, slice, slice)
        The number of the block, the range of its pixels, and the same range counted from ``start``.

    Examples
    --------
    >>> overlaps((0, 4, 8, 10), 3, 9)
    [(0, slice(3, 4, None), slice(0, 1, None)), (1, slice(0, 4, None), slice(1, 5, None)), \
(2, slice(0, 1, None), slice(5, 6, None))]
    """
    found = []
    for i in range(bisect.bisect_right(edges, start) - 1, bisect.bisect_left(edges, stop)):
        low, high = max(start, edges[i]), min(stop, edges[i + 1])
        found.append((i, slice(low - edges[i], high - edges[i]), slice(low - start, high - start)))
    return found


def maps_of_rows(
    shape: tuple[int, ...], tail: tuple[int, ...], dtype: np.dtype[Any], fill: float, rows: Any, mask: Any = None
) -> np.ndarray[Any, Any]:
    """Convert the rows of one block to maps, shape (*tail, *shape).

    ``shape`` is that of the block, ``tail`` that of one row, ``dtype`` the type of the maps, and ``fill`` the value of
    the pixels that the mask leaves out. ``rows`` is None for a block without a used pixel.
    """
    out = np.full((math.prod(shape), *tail), fill, dtype=dtype)
    if rows is not None:
        values = arrays.to_host(rows)
        used = slice(None) if mask is None else np.asarray(mask).reshape(-1)
        out[used] = values.reshape((-1, *tail))
    return np.ascontiguousarray(np.moveaxis(out.reshape((*shape, *tail)), range(len(shape)), range(-len(shape), 0)))


def halo_sizes(shape: tuple[int, ...], halo: int) -> tuple[int, ...]:
    """Return the halo along each navigation dim: ``halo`` for y and x, 0 for the others."""
    return tuple(halo if axis >= len(shape) - 2 else 0 for axis in range(len(shape)))
