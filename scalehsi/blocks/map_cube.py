"""Apply a function of neighbouring pixels to every block of a cube, lazily: the result is a cube again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.cube import navigation_dims
from scalehsi.schema import ENERGY


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
        Values of each pixel, numpy or dask.
    halo : mapping of str to int, optional
        Neighbours that ``fn`` needs, by pixel dim.
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
    depth = {i: int((halo or {}).get(dim, 0)) for i, dim in enumerate(navigation_dims(cube))}
    data = cube.data.rechunk({cube.get_axis_num(ENERGY): -1})
    if any(depth.values()):
        # Chunks smaller than the halo are joined, so that a block needs its direct neighbours alone.
        data = data.rechunk({i: _at_least(data.chunks[i], n) for i, n in depth.items()})
    columns = []
    for m in given:
        array = m if isinstance(m, da.Array) else da.from_array(np.asarray(m), chunks=-1)
        columns.append(array.rechunk(data.chunks[:-1])[..., None])
    meta = np.empty((0,) * data.ndim, dtype=dtype)
    if not any(depth.values()):
        made = da.map_blocks(call, data, *columns, dtype=dtype, meta=meta, chunks=data.chunks)
    else:
        made = da.map_overlap(
            call, data, *columns, depth=depth, boundary="none", dtype=dtype, meta=meta, align_arrays=False
        )
    return cube.copy(data=made)


def _apply(fn: Callable[..., Any], shared: Mapping[str, Any], x: Any, *columns: Any) -> Any:
    """Call ``fn`` with the maps of a block, which came with an energy axis of length one."""
    return fn(x, *(column[..., 0] for column in columns), **shared)


def _at_least(chunks: tuple[int, ...], least: int) -> tuple[int, ...]:
    """Join chunks until each has ``least`` pixels.

    Examples
    --------
    >>> _at_least((1, 1, 1, 5, 1), 2)
    (2, 7)
    """
    made: list[int] = []
    pending = 0
    for n in chunks:
        pending += n
        if pending >= least:
            made.append(pending)
            pending = 0
    if pending:
        made[-1:] = [made[-1] + pending] if made else [pending]
    return tuple(made)
