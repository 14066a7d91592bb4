"""Find the range of a lazy cube and write it region by region, with one region in memory at a time.

A region is a slice of the cube: a few storage chunks of the store to be written. Only this slice is read from the file.
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

from scalehsi.blocks.compute import capacity
from scalehsi.blocks.graph import rechunked
from scalehsi.chunks import MiB, StorageLayout, smallest_unsigned, work_chunks
from scalehsi.io.zarr_layout import with_layout
from scalehsi.io.zarr_store import create_arrays, mark_complete

Listener = Callable[[int, int], None]
Region = tuple[slice, ...]

CHUNKS_PER_REGION: Final = 2
"""Storage chunks of one region; memory holds several copies of a region between reading and writing."""
MAX_REGION_BYTES: Final = 512 * MiB
"""Largest region, where smaller ones would read or compute the same values several times."""
COPIES_OF_REGION: Final = 4
"""Of a region in memory, at most: as it is read, joined, converted and cut into files."""
_LARGEST_EXACT_INTEGER: Final = {2: 2**11, 4: 2**24, 8: 2**53}
"""By the bytes of a float: up to this value it holds every whole number."""


class PixelProgress:
    """Reports to a listener the number of pixels done, each counted once when read and once when written."""

    def __init__(self, listener: Listener | None, total: int) -> None:
        self.listener, self.total, self.done = listener, total, 0

    def step(self, n: int) -> None:
        self.to(self.done + n)

    def to(self, done: int) -> None:
        self.done = min(self.total, max(self.done, done))
        if self.listener is not None:
            self.listener(self.done, self.total)


def regions_of(cube: xr.DataArray, layout: StorageLayout, *, blocks: Sequence[int] | None) -> list[Region]:
    """Cut the cube into slices of whole files of the store, in the order of the store.

    Parameters
    ----------
    cube : xarray.DataArray
    layout : StorageLayout
        Of the store to be written.
    blocks : sequence of int, optional
        Size along each dim of a unit of reading (a compressed chunk) or of computing (a dask block), which is read or
        computed whole even for a part of it. A region then spans whole blocks, up to `largest_region`.

    Examples
    --------
    >>> cube = xr.DataArray(np.ones((4, 4, 10), "u1"), dims=("y", "x", "energy"))
    >>> [region[:2] for region in regions_of(cube, StorageLayout((2, 4, 10), None), blocks=None)]
    [(slice(0, 4, None), slice(0, 4, None))]
    """
    pixel_bytes = cube.shape[-1] * cube.dtype.itemsize
    unit = tuple(layout.shards or layout.chunks)[:-1]
    least = max(math.prod(layout.chunks[:-1]) * _chunks_per_region(), math.prod(unit)) * pixel_bytes
    if blocks is not None:
        whole = tuple(math.ceil(size / n) * n for size, n in zip(blocks[:-1], unit, strict=True))
        most = largest_region()
        if math.prod(whole) * pixel_bytes <= most:
            unit = whole
        least = max(least, min(most, math.prod(whole) * pixel_bytes))
    grid = work_chunks(cube.shape, cube.dtype.itemsize, storage=unit, block_bytes=least)
    return [(*pixels, slice(0, cube.shape[-1])) for pixels in _slices(grid)]


def largest_region() -> int:
    """Largest number of bytes of a region, such that its copies fit in the memory of this process or of a worker."""
    here = capacity()
    return min(MAX_REGION_BYTES, here.memory // here.workers // COPIES_OF_REGION)


def _slices(grid: Sequence[Sequence[int]]) -> Iterator[Region]:
    edges = [list(itertools.accumulate(sizes, initial=0)) for sizes in grid]
    yield from itertools.product(*([slice(a, b) for a, b in itertools.pairwise(e)] for e in edges))


def _chunks_per_region() -> int:
    """Storage chunks of a region: at least two for each thread of a cluster, which writes them."""
    client: Any = getattr(dask.base.get_scheduler(), "__self__", None)
    threads = sum(client.nthreads().values()) if hasattr(client, "nthreads") else 0
    return max(CHUNKS_PER_REGION, 2 * threads)


def smallest_dtype(data: Any, regions: Sequence[Region], progress: PixelProgress) -> np.dtype[Any]:
    """The smallest unsigned dtype that holds the values without loss, or their own dtype.

    Floats that are whole and not negative are counts, as some detector software stores them.

    Parameters
    ----------
    data : array
        Read once: a lazy array by its own blocks, an array in memory by ``regions``, and so a lazy one whose blocks
        are larger than a region may be. Floats are read up to the first part with a fraction, a negative number or a
        NaN.
    regions : sequence of tuple of slice
    progress : PixelProgress
        Advanced to half of its total.
    """
    own: np.dtype[Any] = np.dtype(data.dtype)
    half = progress.total // 2
    if own == np.uint8:
        progress.to(half)
        return own
    parts = list(_slices(data.chunks)) if isinstance(data, da.Array) and not _large(data) else list(regions)
    largest = 0
    limit = _LARGEST_EXACT_INTEGER.get(own.itemsize, 0) if own.kind == "f" else None
    step = _chunks_per_region()
    for first in range(0, len(parts), step):
        batch = parts[first : first + step]
        for low, high, whole in dask.compute(*(_range(data[part], floats=limit is not None) for part in batch)):
            if not whole or low < 0 or (limit is not None and high > limit):
                progress.to(half)
                return own
            largest = max(largest, int(high))
        progress.to(half * (first + len(batch)) // len(parts))
    return smallest_unsigned(largest)


def _large(data: da.Array) -> bool:
    return math.prod(map(max, data.chunks)) * data.dtype.itemsize > largest_region()


def _range(part: Any, *, floats: bool) -> tuple[Any, Any, Any]:
    """Smallest value, largest value, and whether all are whole numbers; lazy for a lazy part. Integers always are."""
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
    progress: PixelProgress,
) -> None:
    """Write a Dataset as a store, one large variable of it region by region.

    Parameters
    ----------
    dataset : xarray.Dataset
    name : str
        The large variable, stored as ``dtype`` in this ``layout``.
    folder : Path
        Empty.
    dtype : numpy.dtype
    layout : StorageLayout
    regions : sequence of tuple of slice
        Whole multiples of the layout's files.
    progress : PixelProgress
        Advanced by each region.
    """
    data = dataset[name].data
    placeholder = da.empty(data.shape, dtype=dtype, chunks=-1)
    ready, encoding = with_layout(dataset.assign({name: dataset[name].copy(data=placeholder)}), chunk_bytes=MiB)
    encoding[name] |= {"chunks": layout.chunks, "shards": layout.shards}
    target = create_arrays(ready, folder, encoding, later=[name])[name]
    files = layout.shards or layout.chunks
    for region in regions:
        part = data[region]
        if isinstance(part, da.Array):
            # One task for each file: no two tasks write to the same one.
            rechunked(part.astype(dtype), files).store(target, regions=region, lock=False)
        else:
            target[region] = part.astype(dtype, copy=False)
        progress.step(math.prod(s.stop - s.start for s in region[:-1]))
    mark_complete(folder, kind="cube", variables=[str(v) for v in ready.variables])
