"""Convert any readable file to a chunked Zarr cube in bounded memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import xarray as xr

from scalehsi.cube import check_cube, with_history
from scalehsi.io.atomic import check_destination, replacing
from scalehsi.io.by_region import CHUNKS_AT_ONCE, Count, Listener, narrowest, regions_of, write_regions
from scalehsi.io.open import LARGE_PIECE_BYTES, PathLike, logger, open_raw
from scalehsi.io.save import as_dataset, chunk_bytes_of, destination_path
from scalehsi.io.zarr_layout import layout_of


def convert(
    src: PathLike | xr.DataArray,
    dst: PathLike,
    *,
    chunk_mb: float = 16,
    overwrite: bool = False,
    signal: str | None = None,
    dataset: int | str | None = None,
    reader_options: Mapping[str, Any] | None = None,
    progress: Listener | None = None,
) -> Path:
    """Write any spectrum image as a chunked cube, in bounded memory.

    Parameters
    ----------
    src : path or xarray.DataArray
        What `open_cube` opens, or a cube.
    dst : path
        The store to make.
    chunk_mb : float, default 16
        Uncompressed MiB of a storage chunk to aim at.
    overwrite : bool, default False
        Replace a store that is there. What is no Zarr store is never replaced.
    signal, dataset, reader_options
        As for `open_cube`.
    progress : callable, optional
        Called with the number of pixels done and their total, each counted once read and once written.

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
    Counts are stored in the smallest unsigned integer that holds them. Float that are all whole and not negative are
    counts too (DigitalMicrograph writes counts as float32): they become integers, without loss, and the history says
    so. Everything else keeps its dtype. This takes a first reading for the largest value, region by region; it ends
    early at the first fraction or negative number.

    Memory: a region of two storage chunks (one shard in a store of more than a thousand chunks), a few times over. It
    grows, to 512 MiB at most, for a source that is stored or computed in larger blocks than that. A file whose reader
    decodes it whole is held whole, and the log of ``scalehsi`` says how much that is. A lazy cube of several steps is
    computed twice, once for its largest value, and region by region, so that what all its parts share is computed each
    time; `save` computes it once, and keeps its dtype.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.full((2, 3, 4), 300.0), energy=[1, 2, 3, 4], energy_units="eV")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     str(open_cube(convert(cube, folder + "/map.zarr")).dtype)
    'uint16'
    """
    chunk_bytes = chunk_bytes_of(chunk_mb)
    destination = destination_path(dst)
    check_destination(destination, overwrite=overwrite)  # before a long reading, not after it
    if isinstance(src, xr.DataArray):
        cube = check_cube(src)
        grid, blocks = cube.chunks, None if cube.chunks is None else tuple(max(c) for c in cube.chunks)
    else:
        cube = open_raw(src, signal=signal, dataset=dataset, reader_options=reader_options)
        cube = _hold_if_whole(cube, Path(src).name, chunk_bytes)
        grid, blocks = None, cube.encoding.get("chunks")
    dims = tuple(map(str, cube.dims))
    layout = layout_of(dims, cube.shape, cube.dtype.itemsize, chunk_bytes, blocks=grid)
    regions = regions_of(cube, layout, blocks=blocks)
    count = Count(progress, 2 * math.prod(cube.shape[:-1]))
    dtype = narrowest(cube.data, regions, count)
    if dtype != cube.dtype:
        lossless = ", all values are whole and not negative" if cube.dtype.kind == "f" else ""
        cube = with_history(cube, f"convert: {cube.dtype} to {dtype}{lossless}")
        layout = layout_of(dims, cube.shape, dtype.itemsize, chunk_bytes, blocks=grid)
        regions = regions_of(cube, layout, blocks=blocks)
    data = as_dataset(cube)
    name = str(next(iter(data.data_vars)))
    with replacing(destination, overwrite=overwrite) as partial:
        write_regions(data, name, partial, dtype=dtype, layout=layout, regions=regions, count=count)
    return destination


def _hold_if_whole(cube: xr.DataArray, name: str, chunk_bytes: int) -> xr.DataArray:
    """Read a file once that its reader decodes whole anyway, rather than once for each region."""
    if not isinstance(cube.data, da.Array) or cube.data.npartitions > 1 or cube.nbytes <= CHUNKS_AT_ONCE * chunk_bytes:
        return cube
    logger.log(
        logging.WARNING if cube.nbytes > LARGE_PIECE_BYTES else logging.INFO,
        "%s cannot be read in parts: converting it needs %.1f MB of memory",
        name,
        cube.nbytes / 1e6,
    )
    return cube.compute()
