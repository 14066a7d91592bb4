"""Crop, bin and mask a cube. Each step is lazy, keeps counts as integers, and adds a line to the history."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.blocks import add_up_windows
from scalehsi.cube import check_cube, navigation_dims, same_axis, with_history
from scalehsi.kernels.preparation.outlier_pixels import outlier_pixels
from scalehsi.kernels.resampling.pixel_windows import window_sums
from scalehsi.schema import ENERGY, MASK, InputError, suggest

Range = tuple[float | None, float | None]


def crop(cube: xr.DataArray, **ranges: Range) -> xr.DataArray:
    """Keep a range of one or more axes.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    **ranges : (low, high)
        By dim: ``energy=(200, 900)``, ``y=(0, 50)``, in the units of the axis (nm, eV, keV), both ends included. None
        leaves an end open.

    Returns
    -------
    xarray.DataArray
        The range, with its mask and coordinates; a view of the cube.

    Raises
    ------
    InputError
        When the cube has no such dim, or a range is empty or outside the axis.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.ones((2, 2, 5), "u1"), energy=[1, 2, 3, 4, 5], energy_units="keV")
    >>> crop(cube, energy=(2, 4)).sizes["energy"]
    3
    """
    check_cube(cube)
    out = cube
    for dim, given in ranges.items():
        if dim not in cube.dims:
            raise InputError(f"crop: the cube has no axis {dim!r}; {suggest(dim, map(str, cube.dims))}")
        keep = np.flatnonzero(_in_range("crop", out[dim], given))
        out = out.isel({dim: slice(int(keep[0]), int(keep[-1]) + 1)})
    return with_history(out, f"crop({_arguments_text(ranges)})")


def bin(cube: xr.DataArray, **factors: int) -> xr.DataArray:
    """Sum neighbouring pixels or channels.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    **factors : int
        Pixels or channels of a bin by dim, from 1 to the size of the axis: ``y=2, x=2``, ``energy=4``. An incomplete
        last bin is omitted.

    Returns
    -------
    xarray.DataArray
        Sums, for counts in the smallest unsigned dtype that cannot overflow; coordinates are bin centres. With a mask
        only used pixels are summed, and a bin is used if any of its pixels is.

    Raises
    ------
    InputError
        When the cube has no such dim, or a factor is out of range.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.full((4, 4, 2), 255, "u1"), energy=[1, 2], energy_units="keV")
    >>> binned = bin(cube, y=2, x=2)
    >>> binned.dtype, int(binned[0, 0, 0])
    (dtype('uint16'), 1020)
    """
    check_cube(cube)
    for dim, factor in factors.items():
        if dim not in cube.dims:
            raise InputError(f"bin: the cube has no axis {dim!r}; {suggest(dim, map(str, cube.dims))}")
        whole = isinstance(factor, numbers.Real) and not isinstance(factor, bool) and float(factor).is_integer()
        if not whole or not 1 <= factor <= cube.sizes[dim]:
            raise InputError(f"bin: {dim}={factor!r}; a whole number from 1 to {cube.sizes[dim]} is expected")
    sizes: dict[Any, int] = {d: int(f) for d, f in factors.items()}
    coords: Any = xr.Dataset(coords=cube.drop_vars(MASK, errors="ignore").coords)
    known = {dim: f for dim, f in sizes.items() if dim in coords.dims}
    if known:
        coords = coords.coarsen(known, boundary="trim", coord_func={c: _of_bin(c) for c in coords.coords}).sum()
    out = xr.DataArray(_window_sums(cube, sizes), dims=cube.dims, coords=coords.coords, name=cube.name)
    out.attrs = dict(cube.attrs)
    for dim in map(str, cube.dims):
        if dim in out.coords:
            out[dim].attrs = dict(cube[dim].attrs)
    pixel_sizes = {d: f for d, f in sizes.items() if d != ENERGY}
    if MASK in cube.coords:
        used: Any = cube[MASK]
        out = out.assign_coords({MASK: used.coarsen(pixel_sizes, boundary="trim").any() if pixel_sizes else used})
    return with_history(out, f"bin({_arguments_text(sizes)})")


def _of_bin(name: Any) -> str:
    """How a coordinate of a bin follows from those of its pixels."""
    return "sum" if name in ("spikes", "background_counts") else "mean"


def _window_sums(cube: xr.DataArray, sizes: dict[Any, int]) -> Any:
    """The sums of `bin`, lazy for a lazy cube; ``sizes`` are the factors by dim."""
    factors = [sizes.get(dim, 1) for dim in cube.dims]
    wide = _sum_dtype(cube.dtype, math.prod(factors))
    used = cube[MASK] if MASK in cube.coords else None
    if cube.chunks is None:
        return window_sums(cube.values, None if used is None else used.values, factors=factors, dtype=wide)
    if used is not None:
        used = used.chunk(dict(zip(used.dims, cube.chunks[:-1], strict=True))).data
    return add_up_windows(cube.data, used, factors=factors, dtype=wide)


def mask(
    cube: xr.DataArray,
    *,
    where: xr.DataArray | np.ndarray[Any, Any] | None = None,
    min_counts: float | None = None,
    max_counts: float | None = None,
    outliers: float | None = None,
    **ranges: Range,
) -> xr.DataArray:
    """Choose the pixels that a fit uses; the values of the cube do not change.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    where : array of bool, shape (..., y, x), optional
        True = use.
    min_counts, max_counts : float, optional
        Exclude pixels whose total is below or above. The cube is read once for it, block by block, when the mask is
        computed.
    outliers : float, optional
        Exclude pixels whose total stands out from their neighbours' by this many times the spread of those; 5 is usual.
        The totals are read at the call.
    **ranges : (low, high)
        Use pixels in a range, by dim: ``y=(0, 50)``, in the units of the axis, both ends included.

    Returns
    -------
    xarray.DataArray
        With the coordinate ``mask``: True where all conditions and an earlier mask are true.

    Raises
    ------
    InputError
        When a condition has the wrong shape or type, a range is empty or outside the axis, or no pixel remains.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.arange(8, dtype="u1").reshape(2, 2, 2), energy=[1, 2], energy_units="keV")
    >>> mask(cube, min_counts=5).mask.values.tolist()
    [[False, True], [True, True]]
    """
    check_cube(cube)
    dims = navigation_dims(cube)
    used = cube[MASK] if MASK in cube.coords else xr.ones_like(cube.isel({ENERGY: 0}, drop=True), dtype=bool)
    if where is not None:
        used = used & _given_mask(cube, where)
    for name, limit in (("min_counts", min_counts), ("max_counts", max_counts)):
        if limit is None:
            continue
        if not isinstance(limit, numbers.Real) or math.isnan(limit):
            raise InputError(f"mask: {name}={limit!r}; a number is expected")
        total = cube.sum(ENERGY)
        used = used & (total >= float(limit) if name == "min_counts" else total <= float(limit))
    if outliers is not None:
        used = used & ~_outliers(cube, used, outliers)
    for dim, given in ranges.items():
        if dim not in dims:
            raise InputError(f"mask: the cube has no pixel axis {dim!r}; {suggest(dim, dims)}")
        used = used & xr.DataArray(_in_range("mask", cube[dim], given), dims=dim)
    used = used.drop_vars(MASK, errors="ignore").transpose(*dims)
    used.attrs = {"long_name": "pixels to use"}
    arguments = {
        "where": "array" if where is not None else None,
        "min_counts": min_counts,
        "max_counts": max_counts,
        "outliers": outliers,
        **ranges,
    }
    marked = cube.drop_vars(MASK, errors="ignore").assign_coords({MASK: used})
    return with_history(check_cube(marked), f"mask({_arguments_text(arguments)})")


def _outliers(cube: xr.DataArray, used: xr.DataArray, limit: Any) -> xr.DataArray:
    """True for the pixels that stand out by the ``limit`` of `mask`, among those that are used so far."""
    if not isinstance(limit, numbers.Real) or isinstance(limit, bool) or not float(limit) > 0:
        raise InputError(f"mask: outliers={limit!r}; a number above 0 is expected, such as 5")
    dims = navigation_dims(cube)
    read = xr.Dataset({"total": cube.drop_vars(MASK, errors="ignore").sum(ENERGY), "used": used}).compute()
    totals, looked_at = (np.asarray(read[name].transpose(*dims).values) for name in ("total", "used"))
    return xr.DataArray(outlier_pixels(totals, looked_at, float(limit)), dims=dims)


def _given_mask(cube: xr.DataArray, where: Any) -> xr.DataArray:
    """The argument ``where`` of `mask` over the pixel dims of the cube, checked."""
    dims = navigation_dims(cube)
    if isinstance(where, xr.DataArray):
        sizes = {d: cube.sizes[d] for d in dims}
        if dict(where.sizes) != sizes:
            raise InputError(
                f"mask: a map over {sizes} is expected, got {dict(where.sizes)}; "
                "type where.broadcast_like(cube.isel(energy=0))"
            )
        for dim in dims:
            if dim in where.coords and not same_axis(where[dim], cube[dim]):
                raise InputError(
                    f"mask: the {dim} axis of the map has other values than the cube's; "
                    f"crop both alike, or type where.drop_vars({dim!r})"
                )
        values = where.transpose(*dims).data
    else:
        values = np.asarray(where)
        if values.shape != cube.shape[:-1]:
            raise InputError(f"mask: an array of shape {cube.shape[:-1]} is expected, got {values.shape}")
    # By position: coordinates that differ by rounding would exclude pixels.
    found = xr.DataArray(values, dims=dims)
    if found.dtype != bool:
        raise InputError(f"mask: booleans are expected (True = use), got {found.dtype}; type array.astype(bool)")
    return found


def _in_range(step: str, axis: xr.DataArray, given: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which values of an axis are in the ``given`` range, ends included; ``step`` begins the messages."""
    low, high = _limits(step, str(axis.name), given)
    if low > high:
        raise InputError(f"{step}: {axis.name}={low:g}:{high:g} is empty; the lower end comes first")
    values = np.asarray(axis.values, dtype=np.float64)
    # A limit of 0.3 includes the axis value 0.30000000000000004.
    slack = 1e-3 * float(np.abs(np.diff(values)).min()) if values.size > 1 else 0.0
    inside = (values >= low - slack) & (values <= high + slack)
    if not inside.any():
        ends = f"{values.min():g} to {values.max():g} {axis.attrs.get('units', '')}".strip()
        raise InputError(f"{step}: {axis.name}={low:g}:{high:g} leaves nothing; the axis runs from {ends}")
    return np.asarray(inside)


def _limits(step: str, dim: str, given: Any) -> tuple[float, float]:
    """The range of a ``dim`` as two numbers, infinite for an open end; ``step`` begins the message."""
    try:
        low, high = given
        return (-math.inf if low is None else float(low), math.inf if high is None else float(high))
    except (TypeError, ValueError) as error:
        raise InputError(f"{step}: {dim}={given!r}; a range (low, high) is expected, None for an open end") from error


def _sum_dtype(dtype: np.dtype[Any], factor: int) -> np.dtype[Any]:
    """The smallest dtype that holds sums of this many values, or else the largest dtype."""
    if dtype.kind == "f":
        return np.result_type(dtype, np.float32)
    low, high = np.iinfo(dtype).min * factor, np.iinfo(dtype).max * factor
    for bits in (8, 16, 32, 64):
        wide = np.dtype(f"{dtype.kind}{bits // 8}")
        if np.iinfo(wide).min <= low and high <= np.iinfo(wide).max:
            return wide
    return np.dtype(f"{dtype.kind}8")


def _arguments_text(arguments: dict[str, Any]) -> str:
    """The arguments of a step as the history has them, a range as ``low:high``; without those that are None."""
    words = []
    for name, value in arguments.items():
        if isinstance(value, (tuple, list)):
            low, high = ("" if v is None else f"{float(v):.10g}" for v in value)
            words.append(f"{name}={low}:{high}")
        elif value is not None:
            words.append(f"{name}={value}")
    return ", ".join(words)
