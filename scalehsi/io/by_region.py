"""A lazy cube read region by region, so that memory never holds more than one of them: its range, and its writing.

A region is a few storage chunks of the store to be written. Each is a slice of the cube, and slices reach down to the
file, so that what lies outside of a region is not read with it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.chunks import MiB, StorageLayout, smallest_unsigned, work_chunks
from scalehsi.io.zarr_layout import laid_out
from scalehsi.io.zarr_store import create, mark_complete

Listener = Callable[[int, int], None]
Region = tuple[slice, ...]

CHUNKS_AT_ONCE: Final = 2
"""Storage chunks of one region, of which several copies exist on the way from file to file."""
MOST_HELD: Final = 512 * MiB
"""A region grows up to here where smaller ones would read or compute the same thing many times."""
_EXACT: Final = {2: 2**11, 4: 2**24, 8: 2**53}
"""Up to here a float of so many bytes holds every whole number."""


class Count:
    """Tells a listener how many pixels are done, each counted once for the reading and once for the writing."""

    def __init__(self, listener: Listener | None, total: int) -> None:
        self.listener, self.total, self.done = listener, total, 0

    def step(self, n: int) -> None:
        self.to(self.done + n)

    def to(self, done: int) -> None:
        self.done = min(self.total, max(self.done, done))
        if self.listener is not None:
            self.listener(self.done, self.total)


def regions_of(cube: xr.DataArray, layout: StorageLayout, *, blocks: Sequence[int] | None) -> list[Region]:
    """Slices over the whole cube, whole multiples of the files to be written, in the order of the store.

    Parameters
    ----------
    cube : xarray.DataArray
    layout : StorageLayout
        What is to be written.
    blocks : sequence of int, optional
        Size along each dim of what is read (a compressed chunk) or computed (a dask block) as one, even for a part of
        it. A region then spans whole blocks as far as `MOST_HELD` allows.

    Examples
    --------
    >>> cube = xr.DataArray(np.ones((4, 4, 10), "u1"), dims=("y", "x", "energy"))
    >>> [region[:2] for region in regions_of(cube, StorageLayout((2, 4, 10), None), blocks=None)]
    [(slice(0, 4, None), slice(0, 4, None))]
    """
    pixel_bytes = cube.shape[-1] * cube.dtype.itemsize
    unit = tuple(layout.shards or layout.chunks)[:-1]
    least = max(math.prod(layout.chunks[:-1]) * _at_once(), math.prod(unit)) * pixel_bytes
    if blocks is not None:
        whole = tuple(math.ceil(size / n) * n for size, n in zip(blocks[:-1], unit, strict=True))
        if math.prod(whole) * pixel_bytes <= MOST_HELD:
            unit = whole
        least = max(least, min(MOST_HELD, math.prod(whole) * pixel_bytes))
    grid = work_chunks(cube.shape, cube.dtype.itemsize, storage=unit, block_bytes=least)
    return [(*pixels, slice(0, cube.shape[-1])) for pixels in _spans(grid)]


def _spans(grid: Sequence[Sequence[int]]) -> Iterator[Region]:
    edges = [list(itertools.accumulate(sizes, initial=0)) for sizes in grid]
    yield from itertools.product(*([slice(a, b) for a, b in itertools.pairwise(e)] for e in edges))


def _at_once() -> int:
    """More chunks at a time where there are more threads to write them, as on a cluster."""
    client: Any = getattr(dask.base.get_scheduler(), "__self__", None)
    threads = sum(client.nthreads().values()) if hasattr(client, "nthreads") else 0
    return max(CHUNKS_AT_ONCE, 2 * threads)


def narrowest(data: Any, regions: Sequence[Region], count: Count) -> np.dtype[Any]:
    """Give the smallest unsigned dtype that holds the values, or their own dtype where that would lose something.

    Reads the data once, a lazy cube block by block as it comes, an array in memory by ``regions``; floats only up to
    the first part with a fraction, a negative number or a NaN. Whole non-negative floats, as detectors' software likes
    to store counts, are counts. ``count`` is told of half of its total.
    """
    own: np.dtype[Any] = np.dtype(data.dtype)
    half = count.total // 2
    if own == np.uint8:
        count.to(half)
        return own
    parts = list(_spans(data.chunks)) if isinstance(data, da.Array) else list(regions)
    largest = 0
    limit = _EXACT.get(own.itemsize, 0) if own.kind == "f" else None
    together = _at_once()
    for first in range(0, len(parts), together):
        batch = parts[first : first + together]
        for low, high, whole in dask.compute(*(_range(data[part], floats=limit is not None) for part in batch)):
            if not whole or low < 0 or (limit is not None and high > limit):
                count.to(half)
                return own
            largest = max(largest, int(high))
        count.to(half * (first + len(batch)) // len(parts))
    return smallest_unsigned(largest)


def _range(part: Any, *, floats: bool) -> tuple[Any, Any, Any]:
    """Smallest value, largest value, and whether all are whole numbers; lazy for a lazy part."""
    whole = ((part == np.floor(part)) & np.isfinite(part)).all() if floats else True
    return part.min(), part.max(), whole


def write_regions(
    dataset: xr.Dataset,
    name: str,
    folder: Path,
    *,
    dtype: np.dtype[Any],
    layout: StorageLayout,
    regions: Sequence[Region],
    count: Count,
) -> None:
    """Write a Dataset with one large variable as a store, that variable region by region.

    Parameters
    ----------
    dataset : xarray.Dataset
    name : str
        The large variable; it is stored as ``dtype`` in this ``layout``.
    folder : Path
        Empty.
    dtype : numpy.dtype
    layout : StorageLayout
    regions : sequence of tuple of slice
        Whole multiples of the layout's files.
    count : Count
        Told of each region.
    """
    data = dataset[name].data
    placeholder = da.empty(data.shape, dtype=dtype, chunks=-1)
    ready, encoding = laid_out(dataset.assign({name: dataset[name].copy(data=placeholder)}), chunk_bytes=MiB)
    encoding[name] |= {"chunks": layout.chunks, "shards": layout.shards}
    target = create(ready, folder, encoding, later=[name])[name]
    files = layout.shards or layout.chunks
    for region in regions:
        part = data[region]
        if isinstance(part, da.Array):
            # One task a file: no two tasks write to the same one.
            part.astype(dtype).rechunk(files).store(target, regions=region, lock=False)
        else:
            target[region] = part.astype(dtype, copy=False)
        count.step(math.prod(s.stop - s.start for s in region[:-1]))
    mark_complete(folder, kind="cube", variables=[str(v) for v in ready.variables])
