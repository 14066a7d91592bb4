"""Make the cube of a file of events, a band of rows at a time: as a lazy array, or as a store.

Counts are stored in the smallest unsigned integers that hold them. They are not known beforehand, so a store begins
with uint8; when a count exceeds it, what is stored is copied to a wider store once, and the rest is added up in the
wider dtype.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import get_scheduler
from dask.system import CPU_COUNT

from scalehsi.chunks import MAX_CHUNKS_PER_SHARD, MIN_CHUNKS_FOR_SHARDS, MiB, StorageLayout
from scalehsi.cube import with_history
from scalehsi.io.by_region import Listener
from scalehsi.io.events.file import EventFile, Report
from scalehsi.io.events.selection import DETECTOR, FRAME, Plan
from scalehsi.io.zarr_layout import with_layout
from scalehsi.io.zarr_store import Target, create_arrays, mark_complete
from scalehsi.schema import InputError

logger = logging.getLogger("scalehsi")

BAND_BYTES: Final = 32 * MiB
"""Of a band in memory; each thread has one."""
MOST_THREADS: Final = 8
DTYPES: Final = (np.uint8, np.uint16, np.uint32)
LAZY_DTYPE: Final = np.uint16

Region = tuple[slice, slice, slice]
"""Detectors, frames and rows of the cube."""


@dataclass(frozen=True)
class Bands:
    """The bands of a cube: detectors are apart, several frames share a band where each is small.

    Attributes
    ----------
    size : tuple of int
        Detectors, frames, y, x and channels of the cube.
    frames, rows : int
        Of a band.
    """

    size: tuple[int, int, int, int, int]
    frames: int
    rows: int

    def __iter__(self) -> Iterator[Region]:
        detectors, frames, rows, _, _ = self.size
        steps = ((detectors, 1), (frames, self.frames), (rows, self.rows))
        yield from itertools.product(*([slice(a, min(n, a + s)) for a in range(0, n, s)] for n, s in steps))


def bands_of(plan: Plan, itemsize: int, *, most: int = 2**62) -> Bands:
    """Bands of `BAND_BYTES`, of at most this many rows; those of a wider dtype are whole parts of the narrower ones."""
    _, frames, rows, columns, channels = plan.size
    row_bytes = columns * channels
    whole = max(1, min(rows, BAND_BYTES // row_bytes, most))
    while whole % 2 == 0 and whole * row_bytes * itemsize > BAND_BYTES:
        whole //= 2
    together = max(1, min(frames, BAND_BYTES // 4 // (rows * row_bytes * itemsize))) if whole == rows else 1
    return Bands(plan.size, together, whole)


def layout_of_bands(plan: Plan, bands: Bands, itemsize: int, chunk_bytes: int) -> StorageLayout:
    """Storage chunks as high as a band, so that each band is whole files."""
    _, _, _, columns, channels = plan.size
    across = max(1, chunk_bytes // (bands.frames * bands.rows * channels * itemsize))
    across = math.ceil(columns / math.ceil(columns / min(columns, across)))
    lead = (*((1,) if plan.keep_detectors else ()), *((bands.frames,) if plan.keep_frames else ()), bands.rows)
    files = sum(1 for _ in bands) * math.ceil(columns / across)
    if files < MIN_CHUNKS_FOR_SHARDS:
        return StorageLayout((*lead, across, channels), None)
    together = min(math.ceil(columns / across), MAX_CHUNKS_PER_SHARD)
    return StorageLayout((*lead, across, channels), (*lead, across * together, channels))


def make_band(events: EventFile, plan: Plan, region: Region, out: np.ndarray[Any, Any], report: Report) -> bool:
    """Add up a band (frames, rows, columns, channels) of zeros; True when a count is too large for its dtype."""
    detectors, frames, rows = region
    bin_y = plan.tables[0]
    wanted = plan.frames[frames] if plan.keep_frames else plan.frames
    read = range(rows.start * bin_y, rows.stop * bin_y)
    return any(
        events.add(out, detector, wanted, read, plan.tables, report)
        for group in plan.detectors[detectors]
        for detector in group
    )


# Lazy ----------------------------------------------------------------------------------------------------------------


class LazyBands:
    """The cube of a file of events as an array that is added up where it is read; Dask makes blocks of it."""

    def __init__(self, events: EventFile, plan: Plan) -> None:
        self.events, self.plan = events, plan
        self.shape, self.dtype, self.ndim = plan.cube.shape, np.dtype(LAZY_DTYPE), plan.cube.ndim

    def __getitem__(self, key: Any) -> np.ndarray[Any, Any]:
        """A part of the cube; Dask hands on what the user takes of a block: ranges with any step, numbers, lists."""
        plan = self.plan
        chosen = [_indices(k, n) for k, n in zip(key, self.shape, strict=True)]
        *lead, rows = (_bounds(c) for c in chosen[:-2])
        detectors = lead.pop(0) if plan.keep_detectors else slice(0, 1)
        frames = lead.pop(0) if plan.keep_frames else slice(0, 1)
        shape = (frames.stop - frames.start, rows.stop - rows.start, *self.shape[-2:])
        made = np.zeros((detectors.stop - detectors.start, *shape), self.dtype)
        for number, out in enumerate(made):
            detector = slice(detectors.start + number, detectors.start + number + 1)
            if make_band(self.events, plan, (detector, frames, rows), out, lambda _: None):
                raise InputError(
                    f"{self.events.path.name!r} has more than 65535 counts in a channel of a pixel; "
                    "scalehsi.convert stores them as larger integers"
                )
        read = made.reshape(tuple(_bounds(c).stop - _bounds(c).start for c in chosen[:-2]) + self.shape[-2:])
        starts = [_bounds(c).start for c in chosen[:-2]] + [0, 0]
        for axis in reversed(range(self.ndim)):  # a number removes its axis, so the last one comes first
            read = read[(slice(None),) * axis + (_as_slice(chosen[axis] - starts[axis]),)]
        return np.ascontiguousarray(read)


def _indices(key: Any, size: int) -> np.ndarray[Any, Any]:
    """The places that a key of one axis takes: an array, of no dims for a number."""
    return np.arange(size)[key]


def _as_slice(indices: np.ndarray[Any, Any]) -> Any:
    """A slice where the places follow each other, which takes no copy; the places themselves otherwise."""
    if indices.ndim and indices.size:
        first = int(indices[0])
        if np.array_equal(indices, np.arange(first, first + indices.size)):
            return slice(first, first + indices.size)
    return indices


def _bounds(indices: np.ndarray[Any, Any]) -> slice:
    """The smallest range with these places."""
    return slice(int(indices.min()), int(indices.max()) + 1) if indices.size else slice(0, 0)


def lazy_cube(events: EventFile, plan: Plan) -> xr.DataArray:
    """The cube of a file of events, in blocks of a band each; the stream is indexed when the first of them is read."""
    bands = bands_of(plan, np.dtype(LAZY_DTYPE).itemsize)
    lead = {DETECTOR: 1, FRAME: bands.frames}
    chunks = (*(lead[str(d)] for d in plan.cube.dims[:-3]), bands.rows, *plan.cube.shape[-2:])
    meta = np.empty((0,) * plan.cube.ndim, LAZY_DTYPE)
    data = da.from_array(LazyBands(events, plan), chunks=chunks, meta=meta, name=False)
    return plan.cube.copy(data=data)


# Stored --------------------------------------------------------------------------------------------------------------


class WordProgress:
    """Reports the words that were read and their total, from several threads; each word counts once in a pass."""

    def __init__(self, listener: Listener | None, total: int) -> None:
        self._listener, self._total, self._done, self._lock = listener, total, 0, threading.Lock()

    def step(self, words: int) -> None:
        with self._lock:
            self._done = min(self._total, self._done + words)
            if self._listener is not None:
                self._listener(self._done, self._total)


def write_events(
    events: EventFile, plan: Plan, folder: Path, *, chunk_bytes: int, progress: Listener | None = None
) -> None:
    """Write the cube of a file of events as a store, band by band, by the threads of this process.

    Parameters
    ----------
    events : EventFile
    plan : Plan
    folder : Path
        Empty.
    chunk_bytes : int
        Intended size of a storage chunk before compression.
    progress : callable, optional
        Called with the words done and their total: each counts once for the index, unless there is one, and once for
        the bands.
    """
    done = WordProgress(progress, events.words * (1 if events.starts else 2))
    events.index(done.step)
    cube = plan.cube
    for note in events.notes:
        logger.warning("%s: %s", events.path.name, note)
        cube = with_history(cube, f"convert: {note}")
    most = max(1, math.isqrt(chunk_bytes // cube.shape[-1]))
    written: set[tuple[int, int, int]] = set()
    before: tuple[Bands, Target] | None = None
    for dtype in map(np.dtype, DTYPES):
        bands = bands_of(plan, dtype.itemsize, most=most)
        layout = layout_of_bands(plan, bands, dtype.itemsize, chunk_bytes)
        target, variables, made = _create(cube, dtype, layout, folder / dtype.name)
        writer = _Writer(events, plan, target, dtype, (layout.shards or layout.chunks)[-2], before, written, done.step)
        written = writer.write(bands)
        if before is not None:
            shutil.rmtree(before[1].store)
        if not writer.too_large.is_set():
            for part in made.iterdir():
                part.rename(folder / part.name)
            made.rmdir()
            mark_complete(folder, kind="cube", variables=variables)
            return
        before = bands, target
    raise InputError(f"{events.path.name!r} has more than {2**32 - 1} counts in a channel; choose fewer frames")


def _create(
    cube: xr.DataArray, dtype: np.dtype[Any], layout: StorageLayout, folder: Path
) -> tuple[Target, list[str], Path]:
    """A store without the values of the cube: the array for them, the names of all variables, and its folder."""
    folder.mkdir()
    values = da.empty(cube.shape, dtype=dtype, chunks=-1)
    name = str(cube.name)
    ready, encoding = with_layout(cube.copy(data=values).to_dataset(), chunk_bytes=MiB)
    encoding[name] |= {"chunks": layout.chunks, "shards": layout.shards}
    return create_arrays(ready, folder, encoding, later=[name])[name], [str(v) for v in ready.variables], folder


@dataclass
class _Writer:
    """Writes the bands of one dtype; bands that ``before`` has are copied from there."""

    events: EventFile
    plan: Plan
    target: Target
    dtype: np.dtype[Any]
    columns: int
    """Of a file."""
    before: tuple[Bands, Target] | None
    copied: set[tuple[int, int, int]]
    report: Report

    def __post_init__(self) -> None:
        self.too_large, self._kept = threading.Event(), threading.local()

    def write(self, bands: Bands) -> set[tuple[int, int, int]]:
        """Write all bands, unless a count is too large; returns the places of those that were written."""
        regions = list(bands)
        written: set[tuple[int, int, int]] = set()
        if threads() == 1:
            for region in regions:
                if self._one(region):
                    written.add(_place(region))
            return written
        pool = ThreadPoolExecutor(threads())
        try:
            waiting = {pool.submit(self._one, region): region for region in regions}
            for future in as_completed(waiting):
                if future.result():
                    written.add(_place(waiting[future]))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return written

    def _one(self, region: Region) -> bool:
        """Write a band; False when a count was too large here or elsewhere."""
        if self.too_large.is_set():
            return False
        detectors, frames, rows = region
        _, _, _, columns, channels = self.plan.size
        lead = (*((detectors,) if self.plan.keep_detectors else ()), *((frames,) if self.plan.keep_frames else ()))
        place = (*lead, rows, slice(0, columns), slice(0, channels))
        if self.before is not None:
            bands, source = self.before
            corner = (
                detectors.start,
                frames.start // bands.frames * bands.frames,
                rows.start // bands.rows * bands.rows,
            )
            if corner in self.copied:
                self.target[place] = source.array[place].astype(self.dtype)
                return True
        out = self._zeros((frames.stop - frames.start, rows.stop - rows.start, columns, channels))
        if make_band(self.events, self.plan, region, out, self.report):
            self.too_large.set()
            return False
        band = out.reshape(tuple(s.stop - s.start for s in place))
        for file in range(0, columns, self.columns):  # one after the other: each is copied while it is compressed
            part = slice(file, min(columns, file + self.columns))
            self.target[(*place[:-2], part, place[-1])] = band[..., part, :]
        return True

    def _zeros(self, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """A band of zeros in the memory that the thread keeps."""
        size = math.prod(shape)
        room = getattr(self._kept, "band", None)
        if room is None or room.size < size:
            room = self._kept.band = np.empty(size, self.dtype)
        room[:size] = 0
        return room[:size].reshape(shape)


def _place(region: Region) -> tuple[int, int, int]:
    return region[0].start, region[1].start, region[2].start


def threads() -> int:
    """Threads of this process that add up bands: those of Dask's scheduler, one where that is synchronous.

    HDF5 reads for one thread at a time, so many more do not help, and each needs memory for its band.
    """
    get = get_scheduler()
    if get is not None and getattr(get, "__name__", "") == "get_sync":
        return 1
    return min(MOST_THREADS, int(dask.config.get("num_workers", None) or CPU_COUNT))
