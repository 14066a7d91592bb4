"""One block as a kernel sees it: where it lies, its pixels, and the way back from rows to maps."""

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
    """Where a block lies: its pixels (the core), and the halo around them that is read along.

    Attributes
    ----------
    navigation : tuple of int
        Pixels of the whole cube along each navigation dim.
    start, shape : tuple of int
        First pixel and size of the core.
    before, after : tuple of int
        Halo pixels on each side; fewer at the edge of the cube.
    has_halo : bool
        True when a halo was asked for, even where the cube leaves no room for one: neighbours must stay neighbours.
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
        """Absolute row-major number of every pixel of the tile, shape (P,)."""
        total = np.zeros((1,) * len(self.shape), dtype=np.int64)
        for axis, (start, before, size) in enumerate(zip(self.start, self.before, self.outer, strict=True)):
            stride = math.prod(self.navigation[axis + 1 :])
            along = (np.arange(size, dtype=np.int64) + (start - before)) * stride
            total = total + along.reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return total.reshape(-1)

    def core(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """True for the pixels of the tile that are its own, shape (P,)."""
        inside = np.zeros(self.outer, dtype=bool)
        inside[tuple(slice(b, b + n) for b, n in zip(self.before, self.shape, strict=True))] = True
        return inside.reshape(-1)


@dataclass(frozen=True)
class Tile:
    """The pixels of one block as a kernel wants them; opaque to Dask, so that it may live on a GPU.

    Attributes
    ----------
    x : array, shape (P, E), or Counts
        Without a halo the used pixels only; with a halo every pixel of the tile, so that neighbours stay neighbours.
    index : array, shape (P,)
        Absolute row-major pixel numbers: the counter for random numbers.
    core : array of bool, shape (P,)
        True for the used pixels of the block itself. Sums must count these alone.
    used : array of bool, shape (P,)
        True for the used pixels of the tile, those of the halo too.
    shape : tuple of int
        Size of the tile along the navigation dims, halo included.
    """

    x: Any
    index: np.ndarray[Any, Any]
    core: np.ndarray[Any, Any]
    used: np.ndarray[Any, Any]
    shape: tuple[int, ...]

    def __sizeof__(self) -> int:
        return int(self.x.nbytes + self.index.nbytes + self.core.nbytes + self.used.nbytes)


def load(place: Place, device: arrays.Device, raw: Any, mask: Any = None) -> Tile:
    x = raw if isinstance(raw, Counts) else np.asarray(raw).reshape(-1, np.shape(raw)[-1])
    used = np.ones(x.shape[0], dtype=bool) if mask is None else np.asarray(mask).reshape(-1)
    index = place.index()
    if isinstance(x, Counts):
        return Tile(x, index, place.core() & used, used, place.outer)
    if place.has_halo:
        return Tile(arrays.to_device(x, device), index, place.core() & used, used, place.outer)
    if not used.all():
        x, index = x[used], index[used]
    own = np.ones(x.shape[0], dtype=bool)
    return Tile(arrays.to_device(np.ascontiguousarray(x), device), index, own, own, place.outer)


def rows(navigation: int, device: arrays.Device, raw: Any, mask: Any = None) -> Any:
    """Maps of one block, its first ``navigation`` dims the pixels, as one row a used pixel."""
    values = np.asarray(raw)
    flat = values.reshape((-1, *values.shape[navigation:]))
    return arrays.to_device(flat if mask is None else flat[np.asarray(mask).reshape(-1)], device)


def crop(inside: tuple[slice, ...], raw: Any) -> np.ndarray[Any, Any]:
    """The part of a block that its neighbour reads along; a copy, lest it keep the whole block in memory."""
    return np.asarray(raw)[inside].copy()


def join(shape: tuple[int, ...], targets: Sequence[tuple[slice, ...]], *pieces: Any) -> np.ndarray[Any, Any]:
    """A tile put together from its block and the crops of the blocks around it."""
    first = np.asarray(pieces[0])
    out = np.empty((*shape, *first.shape[len(shape) :]), dtype=first.dtype)
    for target, piece in zip(targets, pieces, strict=True):
        out[target] = piece
    return out


def pack(raw: Any) -> Counts:
    """A stored chunk, pixels by channels, without its zeros."""
    values = np.asarray(raw)
    return Counts.from_dense(values.reshape(-1, values.shape[-1]))


def crop_packed(shape: tuple[int, ...], inside: tuple[slice, ...], packed: Counts) -> Counts:
    """As `crop`, of a packed chunk of that many pixels along each navigation dim."""
    return packed.take(np.arange(math.prod(shape)).reshape(shape)[inside].reshape(-1))


def join_packed(shape: tuple[int, ...], targets: Sequence[tuple[slice, ...]], *pieces: Counts) -> Counts:
    """As `join`, of packed pieces."""
    number = np.arange(math.prod(shape)).reshape(shape)
    order = np.argsort(np.concatenate([number[target].reshape(-1) for target in targets]))
    return Counts.concatenate(pieces).take(order)


def cover(edges: Sequence[int], start: int, stop: int) -> list[tuple[int, slice, slice]]:
    """Which blocks along one dim hold the pixels from ``start`` to ``stop``.

    Parameters
    ----------
    edges : sequence of int
        Where each block begins, and where the last one ends.
    start, stop : int

    Returns
    -------
    list of (int, slice, slice)
        The block, its pixels, and where these lie counted from ``start``.

    Examples
    --------
    >>> cover((0, 4, 8, 10), 3, 9)
    [(0, slice(3, 4, None), slice(0, 1, None)), (1, slice(0, 4, None), slice(1, 5, None)), \
(2, slice(0, 1, None), slice(5, 6, None))]
    """
    found = []
    for i in range(bisect.bisect_right(edges, start) - 1, bisect.bisect_left(edges, stop)):
        low, high = max(start, edges[i]), min(stop, edges[i + 1])
        found.append((i, slice(low - edges[i], high - edges[i]), slice(low - start, high - start)))
    return found


def maps(
    shape: tuple[int, ...], tail: tuple[int, ...], dtype: np.dtype[Any], fill: float, part: Any, mask: Any = None
) -> np.ndarray[Any, Any]:
    out = np.full((math.prod(shape), *tail), fill, dtype=dtype)
    if part is not None:
        values = arrays.to_host(part)
        used = slice(None) if mask is None else np.asarray(mask).reshape(-1)
        out[used] = values.reshape((-1, *tail))
    return np.ascontiguousarray(np.moveaxis(out.reshape((*shape, *tail)), range(len(shape)), range(-len(shape), 0)))


def reach(shape: tuple[int, ...], halo: int) -> tuple[int, ...]:
    """Halo along each navigation dim: y and x alone."""
    return tuple(halo if axis >= len(shape) - 2 else 0 for axis in range(len(shape)))
