"""Apply a function of neighbouring pixels to every block of a cube, lazily: the result is a cube again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from scalehsi.blocks import graph
from scalehsi.blocks.reading import window_readers
from scalehsi.chunks import MiB, work_chunks
from scalehsi.cube import navigation_dims
from scalehsi.schema import ENERGY

HALO_BLOCK_BYTES: Final = 8 * MiB
"""Blocks of chunks that are smaller are joined to this size where neighbours are read with a block."""


def map_cube(
    fn: Callable[..., Any],
    cube: xr.DataArray,
    *maps: xr.DataArray | np.ndarray[Any, Any],
    halo: Mapping[str, int] | None = None,
    dtype: Any = None,
    shared: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Return the cube of ``fn(x, *maps, **shared)`` of each block: lazy for a lazy cube, else computed at once.

    Parameters
    ----------
    fn : callable
        Takes ``x`` (..., y, x, E), with the pixels of the halo where the cube has them, and the same part of each map
        (..., y, x). Returns an array of the shape of ``x``. Pure: it depends on what it gets alone.
    cube : xarray.DataArray
        Its energy axis becomes one chunk.
    *maps : array or DataArray, shape (..., y, x)
        Values of each pixel, numpy or dask; with a halo they are computed at the call.
    halo : mapping of str to int, optional
        Neighbours that ``fn`` needs, by pixel dim. Each block reads them again, so that no block waits for another in
        memory: small chunks are joined to 8 MiB, and chunks at the borders of a block are read for each block.
    dtype : dtype, optional
        Of the result; by default that of the cube.
    shared : mapping, optional
        Keyword arguments of every call.

    Returns
    -------
    xarray.DataArray
        With the coordinates, name and attributes of the cube.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.ones((4, 5, 3)), energy=[1, 2, 3], energy_units="eV").chunk({"y": 2})
    >>> half = map_cube(lambda x, m: x * m[..., None], cube, np.full((4, 5), 0.5))
    >>> float(half.sum()), half.chunks[0]
    (30.0, (2, 2))
    """
    call = partial(_apply, fn, dict(shared or {}))
    dtype = np.dtype(cube.dtype if dtype is None else dtype)
    given = [m.data if isinstance(m, xr.DataArray) else m for m in maps]
    if not isinstance(cube.data, da.Array):
        return cube.copy(data=call(cube.values, *(np.asarray(m)[..., None] for m in given)))
    data = graph.rechunked(cube.data, {cube.get_axis_num(ENERGY): -1})
    reach = [int((halo or {}).get(dim, 0)) for dim in navigation_dims(cube)]
    if any(reach) and (made := _with_neighbours(call, data, given, reach=reach, dtype=dtype)) is not None:
        return cube.copy(data=made)
    columns = []
    for m in given:
        # Maps are cut here: a whole one would travel with every task.
        lazy = m if isinstance(m, da.Array) else da.from_array(np.asarray(m), chunks=data.chunks[:-1])
        columns.append(lazy.rechunk(data.chunks[:-1])[..., None])
    meta = np.empty((0,) * data.ndim, dtype=dtype)
    if not any(reach):
        return cube.copy(data=da.map_blocks(call, data, *columns, dtype=dtype, meta=meta, chunks=data.chunks))
    depth = dict(enumerate([*reach, 0]))
    made = da.map_overlap(
        call, data, *columns, depth=depth, boundary="none", dtype=dtype, meta=meta, align_arrays=False
    )
    return cube.copy(data=made)


def _with_neighbours(
    call: Callable[..., Any], data: da.Array, maps: Sequence[Any], *, reach: Sequence[int], dtype: np.dtype[Any]
) -> da.Array | None:
    """Apply `_apply` to blocks that each read their halo themselves; None where ``data`` is in workers' memory.

    call: with the function. data (..., y, x, E): one chunk along the energy. maps (..., y, x): numpy or dask; those of
    dask are computed. reach: pixels of the halo along each navigation dim. dtype: of the result.
    """
    # Small chunks are joined, because the borders of a block are read twice; no chunk is divided.
    stored = data.chunks[:-1]
    spectrum = data.shape[-1] * data.dtype.itemsize
    block_bytes = max(HALO_BLOCK_BYTES, spectrum * math.prod(map(max, stored)))
    grid = work_chunks(data.shape, data.dtype.itemsize, storage=stored, block_bytes=block_bytes, compact=True)
    edges = [[0, *itertools.accumulate(sizes)] for sizes in grid]
    cells = list(itertools.product(*(range(len(sizes)) for sizes in grid)))
    cores = [tuple(slice(e[i], e[i + 1]) for e, i in zip(edges, cell, strict=True)) for cell in cells]
    windows = [
        tuple(
            slice(max(0, s.start - n), min(size, s.stop + n))
            for s, n, size in zip(core, reach, data.shape[:-1], strict=True)
        )
        for core in cores
    ]
    token = tokenize(call, data.name, *maps, reach, dtype)
    readers = window_readers(f"around-{token}", data, windows)
    if readers is None:
        return None
    arrays = [np.asarray(m) for m in maps]
    name = f"neighbours-{token}"
    calls: dict[Any, graph.Call] = {}
    for cell, core, window, reader in zip(cells, cores, windows, readers, strict=True):
        inside = tuple(slice(c.start - w.start, c.stop - w.start) for c, w in zip(core, window, strict=True))
        columns = [m[window][..., None].copy() for m in arrays]
        calls[(name, *cell, 0)] = (partial(_read_and_apply, call, columns, inside, reader.read), reader.takes)
    meta = np.empty((0,) * data.ndim, dtype=dtype)
    return da.Array(graph.layer_of_tasks(name, calls), name, chunks=(*grid, data.chunks[-1]), meta=meta)


def _read_and_apply(
    call: Callable[..., Any], columns: Sequence[Any], inside: tuple[slice, ...], read: Callable[..., Any], *given: Any
) -> Any:
    """Apply ``call`` to a block that ``read`` reads with its halo, and return the part ``inside`` of it."""
    out: Any = call(read(*given), *columns)
    return np.ascontiguousarray(out[inside])


def _apply(fn: Callable[..., Any], shared: Mapping[str, Any], x: Any, *columns: Any) -> Any:
    """Call ``fn`` with the maps of a block, which came with an energy axis of length one."""
    return fn(x, *(column[..., 0] for column in columns), **shared)
