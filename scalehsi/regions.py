"""A lazy cube read region by region, so that memory never holds more than one of them: its range, and its writing.

A region is a few storage chunks of the store to be written. Each is a slice of the cube, and slices reach down to the
file, so that what lies outside of a region is not read with it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.chunks import StorageLayout, smallest_unsigned, work_chunks
from scalehsi.stores import laid_out, mark_complete

Listener = Callable[[int, int], None]
Region = tuple[slice, ...]

CHUNKS_AT_ONCE: Final = 4
"""Storage chunks of one region: enough to keep a few threads busy, few enough to be held."""
_EXACT: Final = {2: 2**11, 4: 2**24, 8: 2**53}
"""Up to here a float of so many bytes holds every whole number."""


class Count:
    """Tells a listener how many of the regions are done, over all passes."""

    def __init__(self, listener: Listener | None, total: int) -> None:
        self.listener, self.total, self.done = listener, total, 0

    def step(self, n: int = 1) -> None:
        self.done = min(self.total, self.done + n)
        if self.listener is not None:
            self.listener(self.done, self.total)


def regions_of(
    cube: xr.DataArray, layout: StorageLayout, *, blocks: tuple[tuple[int, ...], ...] | None = None
) -> list[Region]:
    """Slices over the whole cube, whole multiples of the files to be written, in the order of the store.

    Parameters
    ----------
    cube : xarray.DataArray
    layout : StorageLayout
        What is to be written.
    blocks : tuple of tuple of int, optional
        Dask chunks that are dear to compute: a region then spans whole ones, as near as the files allow.

    Examples
    --------
    >>> cube = xr.DataArray(np.ones((4, 4, 10), "u1"), dims=("y", "x", "energy"))
    >>> [region[:2] for region in regions_of(cube, StorageLayout((2, 2, 10), None))]
    [(slice(0, 4, None), slice(0, 4, None))]
    """
    files = layout.shards or layout.chunks
    unit = list(files[:-1])
    if blocks is not None:
        unit = [math.ceil(max(b) / f) * f for b, f in zip(blocks[:-1], unit, strict=True)]
    size = math.prod(layout.chunks) * cube.dtype.itemsize * _at_once()
    smallest = math.prod(unit) * cube.shape[-1] * cube.dtype.itemsize
    grid = work_chunks(cube.shape, cube.dtype.itemsize, storage=unit, block_bytes=max(size, smallest))
    edges = [list(itertools.accumulate(sizes, initial=0)) for sizes in grid]
    spans = [[slice(a, b) for a, b in itertools.pairwise(e)] for e in edges]
    return [(*nav, slice(0, cube.shape[-1])) for nav in itertools.product(*spans)]


def _at_once() -> int:
    """More chunks at a time where there are more threads to write them, as on a cluster."""
    client: Any = getattr(dask.base.get_scheduler(), "__self__", None)
    threads = sum(client.nthreads().values()) if hasattr(client, "nthreads") else 0
    return max(CHUNKS_AT_ONCE, 2 * threads)


def narrowest(data: Any, regions: Sequence[Region], count: Count) -> np.dtype[Any]:
    """Give the smallest unsigned dtype that holds the values, or their own dtype where that would lose something.

    Reads the data once, region by region; floats only up to the first region that holds a fraction, a negative number
    or a NaN. Whole non-negative floats, as detectors' software likes to store counts, are counts.
    """
    if data.dtype == np.uint8:
        count.step(len(regions))
        return np.dtype(np.uint8)
    largest = 0
    limit = _EXACT.get(data.dtype.itemsize, 0) if data.dtype.kind == "f" else None
    for done, region in enumerate(regions):
        low, high, whole = _range(data[region], floats=limit is not None)
        largest = max(largest, int(high)) if math.isfinite(high) else largest
        if low < 0 or not whole or (limit is not None and largest > limit):
            count.step(len(regions) - done)
            own: np.dtype[Any] = np.dtype(data.dtype)
            return own
        count.step()
    return smallest_unsigned(largest)


def _range(part: Any, *, floats: bool) -> tuple[float | int, float | int, bool]:
    low, high, whole = part.min(), part.max(), True
    if floats:
        # NaN and Inf are not equal to what they leave behind the point.
        whole = ((part - da.floor(part)) == 0).all() if isinstance(part, da.Array) else _whole(part)
    low, high, whole = dask.compute(low, high, whole)
    return low.item(), high.item(), bool(whole)


def _whole(part: np.ndarray[Any, Any]) -> bool:
    with np.errstate(invalid="ignore"):
        return bool(((part - np.floor(part)) == 0).all())


def write_regions(
    dataset: xr.Dataset,
    name: str,
    folder: Path,
    *,
    dtype: np.dtype[Any],
    chunk_bytes: int,
    regions: Sequence[Region],
    count: Count,
) -> None:
    """Write a Dataset with one large variable as a store, that variable region by region.

    Parameters
    ----------
    dataset : xarray.Dataset
    name : str
        The large variable; it is stored as ``dtype``.
    folder : Path
        Empty.
    dtype : numpy.dtype
    chunk_bytes : int
    regions : sequence of tuple of slice
    count : Count
    """
    import zarr

    data = dataset[name].data
    # The same store with nothing in its large variable yet: one dask chunk, which is never computed.
    empty = dataset.assign({name: dataset[name].copy(data=da.empty(data.shape, dtype=dtype, chunks=-1))})
    ready, encoding = laid_out(empty, chunk_bytes=chunk_bytes)
    ready[name].data = ready[name].data.rechunk(-1)
    ready.to_zarr(
        folder, mode="w", zarr_format=3, consolidated=False, write_empty_chunks=True, encoding=encoding, compute=False
    )
    target = zarr.open_array(folder / name, mode="r+", config={"write_empty_chunks": True})
    files = encoding[name]["shards"] or encoding[name]["chunks"]
    for region in regions:
        part = data[region]
        if isinstance(part, da.Array):
            # One task a file: no two tasks write to the same one.
            part.astype(dtype).rechunk(files).store(target, regions=region, lock=False)
        else:
            target[region] = part.astype(dtype, copy=False)
        count.step()
    mark_complete(folder, kind="cube", variables=[str(v) for v in ready.variables])
