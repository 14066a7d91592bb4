"""Open the arrays of a checked Zarr store lazily, as dask arrays that follow the stored chunks."""

from __future__ import annotations

import math
import numbers
from pathlib import Path
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.chunks import MiB, work_chunks
from scalehsi.io.attributes import usable_attrs
from scalehsi.io.chunk_guard import guarded
from scalehsi.io.zarr_limits import Layout
from scalehsi.schema import ENERGY, InputError, X, Y

MANY_CHUNKS: Final = 1000
TINY_CHUNK_BYTES: Final = MiB // 4
JOINED_BYTES: Final = 4 * MiB
"""Cubes of this many chunks, of less than a quarter of a MiB, are read in blocks of 4 MiB."""


def open_named(path: Path) -> xr.Dataset:
    """The variables of a store, as xarray reads them; texts and axes in memory."""
    # Masking would turn counts into floats in a store with a fill value; times are plain numbers here.
    options: dict[str, Any] = {"chunks": {}, "consolidated": False, "decode_times": False, "mask_and_scale": False}
    with guarded():
        data = xr.open_zarr(path, **options)
        packed = [name for name, v in data.data_vars.items() if _is_packed(v)]
        if packed:
            # A missing value becomes NaN; other variables stay the integers that they are.
            options["mask_and_scale"] = True
            data = data.assign({n: xr.open_zarr(path, **options)[n] for n in packed})
        tiny = {n: cuts for n, v in data.data_vars.items() if (cuts := _joined_chunks(v))}
        for scaled in {n in packed for n in tiny}:
            lazy = xr.open_zarr(path, **{**options, "chunks": None, "mask_and_scale": scaled})
            data = data.assign({n: lazy[n].chunk(cuts) for n, cuts in tiny.items() if (n in packed) == scaled})
    data.attrs = usable_attrs(data.attrs, of=path.name)
    for variable in data.variables.values():
        variable.attrs.pop("_FillValue", None)
        variable.attrs = usable_attrs(variable.attrs, of=path.name)
    text = {k: v for k, v in data.variables.items() if v.dtype.kind in "OT"}
    fixed = {k: (v.dims, np.array(v.values.tolist(), dtype=str), v.attrs) for k, v in text.items()}
    coords = {k: v for k, v in fixed.items() if k in data.coords}
    out: xr.Dataset = data.assign({k: v for k, v in fixed.items() if k not in coords}).assign_coords(coords)
    return out


def open_unnamed(layout: Layout, path: Path, axes: tuple[str, ...]) -> xr.Dataset:
    """The arrays of a store that have as many dims as ``axes`` has names, lazily."""
    import zarr

    names = [""] if layout.bare is not None else [n for n, a in layout.arrays.items() if len(a.shape) == len(axes)]
    with guarded():
        arrays = {name: zarr.open_array(path / name if name else path, mode="r") for name in names}
    found = {
        name or path.stem: xr.DataArray(da.from_array(a, chunks=a.chunks), dims=axes, attrs=dict(a.attrs))
        for name, a in arrays.items()
    }
    if not found:
        listed = ", ".join(f"{n!r} {a.shape}" for n, a in layout.arrays.items())
        raise InputError(f"{str(path)!r} has no array of {len(axes)} dims; it holds {listed}")
    for variable in found.values():
        variable.attrs = usable_attrs(variable.attrs, of=path.name)
    # Arrays of several shapes cannot share the names of their dims.
    sizes = {array.shape for array in found.values()}
    largest = max(sizes, key=math.prod)
    return xr.Dataset({n: a for n, a in found.items() if a.shape == largest})


def _joined_chunks(variable: xr.DataArray) -> dict[str, Any]:
    """Blocks of several stored chunks for a cube of many tiny ones, where a task for each costs more than reading."""
    if variable.dims[-3:] != (Y, X, ENERGY) or variable.chunks is None or 0 in variable.shape:
        return {}
    count = math.prod(len(sizes) for sizes in variable.chunks)
    if count < MANY_CHUNKS or variable.nbytes > count * TINY_CHUNK_BYTES:
        return {}
    storage = [sizes[0] for sizes in variable.chunks[:-1]]
    grid = work_chunks(variable.shape, variable.dtype.itemsize, storage=storage, block_bytes=JOINED_BYTES, compact=True)
    return dict(zip(map(str, variable.dims), (*grid, -1), strict=True))


def _is_packed(variable: xr.DataArray) -> bool:
    """Whether stored numbers are scaled, or one of them stands for a missing value.

    A fill value of 0 is no mark of missing values: Zarr v2 writes it for every array, and counts of 0 are counts.
    """
    if {"scale_factor", "add_offset", "missing_value"} & set(variable.attrs):
        return True
    fill = variable.attrs.get("_FillValue")
    return variable.dtype.kind in "iuf" and isinstance(fill, numbers.Real) and math.isfinite(fill) and fill != 0
