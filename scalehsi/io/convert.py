"""Convert a file of any format that can be opened to a chunked Zarr cube, in bounded memory."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import xarray as xr

from scalehsi.cube import check_cube, with_history
from scalehsi.io.atomic import check_destination, local_path, replacing
from scalehsi.io.by_region import (
    CHUNKS_PER_REGION,
    Listener,
    PixelProgress,
    largest_region,
    regions_of,
    smallest_dtype,
    write_regions,
)
from scalehsi.io.events import event_file
from scalehsi.io.events.bands import write_events
from scalehsi.io.events.selection import Selection, plan_of
from scalehsi.io.open import LARGE_BLOCK_BYTES, PathLike, check_no_axes, logger, open_raw
from scalehsi.io.repairs import Repairs
from scalehsi.io.save import as_dataset, chunk_bytes_of, destination_path
from scalehsi.io.zarr_layout import layout_of
from scalehsi.schema import InputError


def convert(
    src: PathLike | xr.DataArray,
    dst: PathLike,
    *,
    chunk_mb: float = 16,
    overwrite: bool = False,
    signal: str | None = None,
    dataset: int | str | None = None,
    reader_options: Mapping[str, Any] | None = None,
    axes: str | None = None,
    energy: str | tuple[float, float] | None = None,
    pixel: str | None = None,
    mask: str | None = None,
    frames: str | tuple[Any, ...] = "sum",
    bin: Mapping[str, int] | None = None,
    detectors: str | Sequence[int] = "sum",
    progress: Listener | None = None,
) -> Path:
    """Write any spectrum image as a chunked Zarr cube, in bounded memory.

    Parameters
    ----------
    src : path or xarray.DataArray
        A path that `open_cube` opens, or a cube of dims ``(..., "y", "x", "energy")``.
    dst : path
        The store to write; its folder exists.
    chunk_mb : float, default 16
        Intended size of a storage chunk before compression, in MiB, above 0.
    overwrite : bool, default False
        Replace an existing store. A file, or a folder that is no Zarr store, is never replaced.
    signal : {"EDS", "EELS"} or str, optional
        As for `open_cube`.
    dataset : int or str, optional
        As for `open_cube`.
    reader_options : mapping, optional
        As for `open_cube`.
    axes, energy, pixel, mask : str, optional
        As for `open_cube`: what is known of a file that does not say it.
    energy : (low, high), optional
        Of an event stream: the range of energies to keep, in the unit of the file (keV), both ends included.
    frames : {"sum", "keep"}, (a, b) or ("keep", a, b), default "sum"
        Of an event stream: add up all frames, or those from a to b (from 0, b not included), or keep them as the
        leading dim "frame", which takes as many times the disk.
    bin : dict, optional
        Of an event stream: pixels and channels to join, such as ``{"y": 2, "x": 2, "energy": 4}``. The rest that fills
        no bin is left out.
    detectors : {"sum", "keep"} or list of int, default "sum"
        Of an event stream: add up all detectors or those of a list, or keep them as the leading dim "detector".
    progress : callable, optional
        Called with the number of pixels done and their total. Each pixel counts once when read and once when written.
        Of an event stream: words in place of pixels, once for the index and once for the bands.

    Returns
    -------
    pathlib.Path
        The store.

    Raises
    ------
    InputError
        As `open_cube` and `save` do.
    OSError
        When the disk or the quota is full.

    Notes
    -----
    Counts are stored in the smallest unsigned integer that holds them. Floats that are all whole and not negative are
    counts too (DigitalMicrograph writes counts as float32): they become integers, without loss, and the history says
    so. Other values keep their dtype. The largest value is found in a first reading, region by region, which ends at
    the first fraction or negative number.

    Memory: several copies of a region of two storage chunks (of one shard in a store of more than a thousand chunks).
    The region grows, to 512 MiB or a quarter of a worker's memory, for a source that is stored or computed in larger
    blocks. Blocks above that are read by this process, not by workers. A file whose reader decodes it whole stays in
    memory whole, and the log of ``scalehsi`` names its size. A lazy cube is computed twice,
    once for its largest value, and region by region, so that intermediate results that several regions need are
    computed again for each; `save` computes a lazy cube once, and keeps its dtype.

    Event streams (Velox .emd, Bruker .bcf, JEOL .pts) are read twice: once to find the rows of each frame, then band by
    band; each thread has one band of 32 MiB in memory. The file's rules about frames hold, and the history says what
    was left out.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from scalehsi import make_cube, open_cube
    >>> cube = make_cube(np.full((2, 3, 4), 300.0), energy=[1, 2, 3, 4], energy_units="eV")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     str(open_cube(convert(cube, folder + "/map.zarr")).dtype)
    'uint16'
    """
    chunk_bytes = chunk_bytes_of(chunk_mb)
    destination = destination_path(dst)
    check_destination(destination, overwrite=overwrite)  # before the long reading
    selection = Selection(frames, None if isinstance(energy, str) else energy, bin, detectors)
    repairs = Repairs(axes, energy if isinstance(energy, str) else None, pixel, mask)
    source = None if isinstance(src, xr.DataArray) or reader_options else local_path(src)
    if source is not None and (events := event_file(source, signal=signal, dataset=dataset)) is not None:
        check_no_axes(repairs, source)
        plan = plan_of(events, selection, signal=signal, repairs=repairs)
        with replacing(destination, overwrite=overwrite) as partial:
            write_events(events, plan, partial, chunk_bytes=chunk_bytes, progress=progress)
        return destination
    _check_no_selection(selection, src)
    with contextlib.ExitStack() as closing:
        if isinstance(src, xr.DataArray):
            cube = check_cube(src)
            grid, blocks = cube.chunks, None if cube.chunks is None else tuple(max(c) for c in cube.chunks)
        else:
            how: dict[str, Any] = {"dataset": dataset, "reader_options": reader_options}
            opened = open_raw(src, signal=signal, repairs=repairs, **how)
            cube = _load_if_undivided(opened, Path(src).name, chunk_bytes)
            grid, blocks = None, cube.encoding.get("chunks")
            closing.callback(opened.close)
        closing.enter_context(_near(cube))
        dims = tuple(map(str, cube.dims))
        layout = layout_of(dims, cube.shape, cube.dtype.itemsize, chunk_bytes, blocks=grid)
        regions = regions_of(cube, layout, blocks=blocks)
        done = PixelProgress(progress, 2 * math.prod(cube.shape[:-1]))
        dtype = smallest_dtype(cube.data, regions, done)
        if dtype != cube.dtype:
            lossless = ", all values are whole and not negative" if cube.dtype.kind == "f" else ""
            cube = with_history(cube, f"convert: {cube.dtype} to {dtype}{lossless}")
            layout = layout_of(dims, cube.shape, dtype.itemsize, chunk_bytes, blocks=grid)
            regions = regions_of(cube, layout, blocks=blocks)
        data = as_dataset(cube)
        name = str(next(iter(data.data_vars)))
        with replacing(destination, overwrite=overwrite) as partial:
            write_regions(data, name, partial, dtype=dtype, layout=layout, regions=regions, progress=done)
        return destination


def _check_no_selection(selection: Selection, src: PathLike | xr.DataArray) -> None:
    """Refuse the settings of event streams for anything else."""
    given = [f.name for f in dataclasses.fields(selection) if getattr(selection, f.name) != f.default]
    if given:
        what = "a cube" if isinstance(src, xr.DataArray) else repr(Path(src).name)
        raise InputError(
            f"{given[0]}={getattr(selection, given[0])!r} is for event streams, and {what} is none; crop and bin it "
            "afterwards, such as scalehsi prepare SRC DST --step bin:y=2,x=2"
        )


def _load_if_undivided(cube: xr.DataArray, name: str, chunk_bytes: int) -> xr.DataArray:
    """Read a large file now if its reader decodes it whole, so that it is not decoded again for each region.

    A file that is smaller than a region stays lazy. ``name`` is for the log; a storage chunk has ``chunk_bytes``.
    """
    undivided = isinstance(cube.data, da.Array) and cube.data.npartitions == 1
    if not undivided or cube.nbytes <= CHUNKS_PER_REGION * chunk_bytes:
        return cube
    logger.log(
        logging.WARNING if cube.nbytes > LARGE_BLOCK_BYTES else logging.INFO,
        "%s cannot be read in parts: converting it needs %.1f MB of memory",
        name,
        cube.nbytes / 1e6,
    )
    return cube.compute(scheduler="synchronous")  # here: a worker may have less memory


def _near(cube: xr.DataArray) -> contextlib.AbstractContextManager[Any]:
    """A context in which blocks that are too large for a worker are read by this process."""
    if cube.chunks is None or math.prod(map(max, cube.chunks)) * cube.dtype.itemsize <= largest_region():
        return contextlib.nullcontext()
    return dask.config.set(scheduler="synchronous")
