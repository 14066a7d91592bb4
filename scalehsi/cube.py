"""Make, check and describe a cube, an `xarray.DataArray` of dims ``(..., "y", "x", "energy")``.

Only metadata are examined; `check_finite` alone reads the values of a lazy cube.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.checks import hyperspy_hint
from scalehsi.schema import ENERGY, ENERGY_UNITS, LENGTH_UNITS, MASK, InputError, X, Y


def make_cube(
    data: Any,
    *,
    energy: Sequence[float] | np.ndarray[Any, Any],
    energy_units: str,
    pixel_size: float = 1.0,
    pixel_units: str = "nm",
    signal: str = "",
    mask: np.ndarray[Any, Any] | None = None,
    attrs: dict[str, Any] | None = None,
) -> xr.DataArray:
    """Wrap an array as a cube, with coordinates and units on every axis.

    Parameters
    ----------
    data : array, shape (..., y, x, E)
        Counts or intensities; numpy or dask.
    energy : array, shape (E,)
        Channel centres in ``energy_units``.
    energy_units : {"eV", "keV", "meV", "MeV"} or free text
        Free text is for channels that are no energies (stacked 4D-STEM).
    pixel_size : float, default 1.0
        Step of y and x in ``pixel_units``.
    pixel_units : str, default "nm"
        A unit of length, or ``"px"``.
    signal : str, default ""
        "EELS", "EDS", or free text.
    mask : array of bool, shape (..., y, x), optional
        True = use.
    attrs : dict, optional
        Further attributes (beam energy, title, elements ...).

    Returns
    -------
    xarray.DataArray
        Dims ``(..., "y", "x", "energy")``; one leading dim is named ``frame``, several ``frame_0``, ``frame_1`` ...

    Raises
    ------
    InputError
        When the shapes of data, energy and mask do not agree, or the metadata are wrong as in `check_cube`.

    Examples
    --------
    >>> cube = make_cube(np.ones((2, 3, 4), "u1"), energy=[1, 2, 3, 4], energy_units="keV", pixel_size=0.5)
    >>> cube.sizes["energy"], float(cube.x[-1]), cube.x.attrs["units"]
    (4, 1.0, 'nm')
    """
    if data.ndim < 3:
        raise InputError(f"a cube has dims (..., y, x, energy), got an array of shape {tuple(data.shape)}")
    extra = data.ndim - 3
    leading = ["frame"] if extra == 1 else [f"frame_{i}" for i in range(extra)]
    dims = (*leading, Y, X, ENERGY)
    ny, nx, channels = data.shape[-3:]
    axis = np.asarray(energy, dtype=np.float64)
    if axis.shape != (channels,):
        raise InputError(f"the energy axis has shape {axis.shape}, the data have {channels} channels")
    coords: dict[str, Any] = {
        Y: (Y, np.arange(ny) * pixel_size, {"units": pixel_units}),
        X: (X, np.arange(nx) * pixel_size, {"units": pixel_units}),
        ENERGY: (ENERGY, axis, {"units": energy_units}),
    }
    if mask is not None:
        if np.shape(mask) != tuple(data.shape[:-1]):
            raise InputError(f"the mask has shape {np.shape(mask)}, the pixels have {tuple(data.shape[:-1])}")
        coords[MASK] = (dims[:-1], np.asarray(mask, dtype=bool))
    merged = {"signal": signal, "history": [], **(attrs or {})}
    return check_cube(xr.DataArray(data, dims=dims, coords=coords, attrs=merged, name="counts"))


def check_cube(cube: Any) -> xr.DataArray:
    """Return the cube if its metadata are correct; read no values.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``, real numbers, an increasing or decreasing energy coordinate, an optional
        boolean coordinate ``mask`` over the pixel dims.

    Returns
    -------
    xarray.DataArray
        The same object.

    Raises
    ------
    InputError
        When dims, dtype, energy axis or mask are wrong, with the line that repairs the cube.

    Examples
    --------
    >>> check_cube(xr.DataArray(np.ones((2, 2, 5)), dims=("energy", "y", "x")))
    Traceback (most recent call last):
    ...
    scalehsi.schema.InputError: a cube ends in the dims ('y', 'x', 'energy'), got ('energy', 'y', 'x'); \
type cube.transpose(..., 'y', 'x', 'energy')
    """
    if isinstance(cube, xr.Dataset):
        names = ", ".join(map(repr, cube.data_vars)) or "none"
        raise InputError(
            f"a cube is an xarray.DataArray, got a Dataset; pick one of its variables ({names}) with ds[name]"
        )
    if not isinstance(cube, xr.DataArray):
        make = (
            "open a file with scalehsi.open_cube(path) or wrap an array with scalehsi.make_cube(array, energy=..., ...)"
        )
        raise InputError(f"a cube is an xarray.DataArray, got {type(cube).__name__}; {hyperspy_hint(cube, make)}")
    _check_dims(cube)
    if cube.dtype.kind not in "uif":
        raise InputError(f"a cube holds real numbers, got dtype {cube.dtype}; type cube.astype('float32')")
    _check_energy(cube)
    for dim in (Y, X):
        if dim in cube.coords and cube[dim].dtype.kind not in "uif":
            raise InputError(
                f"the coordinate of {dim} holds {cube[dim].dtype}, numbers are expected; type cube.drop_vars({dim!r})"
            )
    if MASK in cube.coords:
        _check_mask(cube)
    return cube


def _check_dims(cube: xr.DataArray) -> None:
    want = (Y, X, ENERGY)
    dims = tuple(str(d) for d in cube.dims)
    others = [d for d in dims if d not in want]
    if ENERGY not in dims:
        repair = f"rename({{{others[-1]!r}: 'energy'}})" if others else "expand_dims(energy=[0.0], axis=-1)"
        raise InputError(f"the cube has no 'energy' axis, its dims are {dims}; type cube.{repair}")
    missing = [d for d in want if d not in dims]
    if missing:
        named = dict(zip(others[-len(missing) :], missing, strict=False))
        repair = f"rename({named!r})" if len(named) == len(missing) else f"expand_dims({missing!r})"
        raise InputError(
            f"a cube ends in the dims {want}, got {dims}; type cube.{repair}.transpose(..., 'y', 'x', 'energy')"
        )
    if dims[-3:] != want:
        raise InputError(f"a cube ends in the dims {want}, got {dims}; type cube.transpose(..., 'y', 'x', 'energy')")
    empty = [d for d in dims if cube.sizes[d] == 0]
    if empty:
        raise InputError(f"the cube is empty along {empty}: its shape is {cube.shape}")


def _check_energy(cube: xr.DataArray) -> None:
    if ENERGY not in cube.coords:
        raise InputError(
            "the energy axis has no coordinate values; "
            "type cube.assign_coords(energy=('energy', values, {'units': 'keV'}))"
        )
    axis = cube[ENERGY]
    if axis.dtype.kind not in "uif":
        raise InputError(f"the energy coordinate holds {axis.dtype}, numbers are expected; assign it again as floats")
    values = np.asarray(axis.values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError("the energy coordinate holds NaN or Inf; assign it again with cube.assign_coords(energy=...)")
    steps = np.diff(values)
    if values.size > 1 and not ((steps > 0).all() or (steps < 0).all()):
        raise InputError(
            "the energy coordinate goes up and down or repeats itself; "
            "type cube.sortby('energy').drop_duplicates('energy')"
        )


def _check_mask(cube: xr.DataArray) -> None:
    mask = cube[MASK]
    pixel_dims = cube.dims[:-1]
    if mask.dtype != bool:
        raise InputError(
            f"the mask holds {mask.dtype}, booleans are expected (True = use); "
            "type cube.assign_coords(mask=cube['mask'].astype(bool))"
        )
    if tuple(mask.dims) != tuple(pixel_dims):
        raise InputError(
            f"the mask has dims {mask.dims}, the pixel dims {pixel_dims} are expected; type "
            f"cube.assign_coords(mask=cube['mask'].broadcast_like(cube.isel(energy=0)).transpose{pixel_dims})"
        )
    if isinstance(mask.data, np.ndarray) and not mask.data.any():
        raise InputError("the mask leaves no pixel (True = use); invert it: cube.assign_coords(mask=~cube['mask'])")


def navigation_dims(cube: xr.DataArray) -> tuple[str, ...]:
    """Return the pixel dims, all but energy.

    Examples
    --------
    >>> navigation_dims(make_cube(np.ones((2, 3, 4)), energy=range(4), energy_units="eV"))
    ('y', 'x')
    """
    return tuple(str(d) for d in cube.dims[:-1])


def with_history(cube: xr.DataArray, line: str) -> xr.DataArray:
    """Return a copy that shares the values and whose history has one more line."""
    out = cube.copy(deep=False)
    out.attrs = {**cube.attrs, "history": [*history_of(cube.attrs), line]}
    return out


def history_of(attrs: Any) -> list[str]:
    """The history lines of some attributes: of a cube, which has a list, or of a result, which has one text."""
    lines = attrs.get("history", [])
    return lines.splitlines() if isinstance(lines, str) else [str(line) for line in lines]


def energy_factor(units: str) -> float | None:
    """Electronvolts in one unit, or None for units that are no energy."""
    return ENERGY_UNITS.get(units)


def length_factor(units: str) -> float | None:
    """Nanometres in one unit, or None for units that are no length."""
    return LENGTH_UNITS.get(units)


def energy_kev(cube: xr.DataArray | xr.Dataset) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """The energy axis in keV, or None when its units are no energy.

    Examples
    --------
    >>> energy_kev(make_cube(np.ones((1, 1, 2)), energy=[100, 200], energy_units="eV")).tolist()
    [0.1, 0.2]
    """
    if ENERGY not in cube.coords:
        return None
    factor = energy_factor(str(cube[ENERGY].attrs.get("units", "")))
    return None if factor is None else np.asarray(cube[ENERGY].values, dtype=np.float64) * (factor / 1000.0)


def same_axis(a: Any, b: Any) -> bool:
    """Whether two axes in one unit have the same points, up to a tenth of the mean step of the second.

    Coordinates that were stored and rounded differ by far less, other calibrations by more. Axes of a single point
    may differ by one part in a million.

    Parameters
    ----------
    a, b : array or DataArray, shape (E,)
        For example channel centres.

    Returns
    -------
    bool
        False also where the lengths differ.

    Examples
    --------
    >>> same_axis([1.0, 2.0, 3.0], [1.0, 2.01, 3.0]), same_axis([1.0, 2.0], [1.0, 2.0, 3.0])
    (True, False)
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        return False
    steps = np.abs(np.diff(second))
    tolerance = 0.1 * steps.mean() if steps.size else 1e-6 * np.abs(second)
    return bool((np.abs(first - second) <= tolerance).all())


def pixel_size_nm(cube: xr.DataArray | xr.Dataset, dim: str = X) -> float | None:
    """Step of a pixel axis in nanometres, or None without calibration.

    Examples
    --------
    >>> pixel_size_nm(make_cube(np.ones((2, 3, 4)), energy=range(4), energy_units="eV", pixel_units="µm"))
    1000.0
    """
    if dim not in cube.coords or cube.sizes[dim] < 2:
        return None
    factor = length_factor(str(cube[dim].attrs.get("units", "")))
    values = np.asarray(cube[dim].values, dtype=np.float64)
    return None if factor is None else float(abs(values[-1] - values[0]) / (values.size - 1) * factor)


def check_finite(cube: xr.DataArray) -> xr.DataArray:
    """Read the whole cube once and return it if every value is finite.

    Values of pixels that the mask excludes are ignored. Cubes of integers are always finite and are not read.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.

    Returns
    -------
    xarray.DataArray
        The same object.

    Raises
    ------
    InputError
        When a value is NaN or Inf, with their number, the pixel and energy of the first, and the line that masks them.

    Examples
    --------
    >>> bad = make_cube(np.full((1, 2, 3), np.nan), energy=[1, 2, 3], energy_units="eV")
    >>> check_finite(bad)
    Traceback (most recent call last):
    ...
    scalehsi.schema.InputError: 6 values are NaN or Inf, the first at y=0, x=0, energy=1 eV; ...
    """
    check_cube(cube)
    if cube.dtype.kind != "f":
        return cube
    bad: xr.DataArray = cube.isnull() | (abs(cube) == np.inf)
    if MASK in cube.coords:
        bad = bad & cube[MASK]
    count = int(bad.sum())
    if count:
        raise InputError(_finite_message(cube, bad, count))
    return cube


def _finite_message(cube: xr.DataArray, bad: xr.DataArray, count: int) -> str:
    first = int(bad.any(ENERGY).data.reshape(-1).argmax())
    where = np.unravel_index(first, cube.shape[:-1])
    pixel = dict(zip(navigation_dims(cube), (int(i) for i in where), strict=True))
    channel = int(bad.isel(pixel).argmax(ENERGY))
    units = cube[ENERGY].attrs.get("units", "")
    place = ", ".join(f"{d}={i}" for d, i in pixel.items())
    energy = f"{float(cube[ENERGY][channel]):g} {units}".strip()
    return (
        f"{count} values are NaN or Inf, the first at {place}, energy={energy}; "
        "repair them with cube.where(np.isfinite(cube), 0), or leave those pixels out with "
        "cube.assign_coords(mask=np.isfinite(cube).all('energy'))"
    )


def describe_axes(data: xr.DataArray | xr.Dataset, dims: Iterable[Hashable]) -> dict[str, dict[str, Any]]:
    """Size of each of these dims, with first and last coordinate, step and unit where it has coordinates."""
    axes: dict[str, dict[str, Any]] = {}
    for dim in map(str, dims):
        axis, entry = data.coords.get(dim), axes.setdefault(dim, {"size": data.sizes[dim]})
        if axis is not None and axis.dtype.kind in "uif":
            entry |= {"first": float(axis[0]), "last": float(axis[-1]), "units": str(axis.attrs.get("units", ""))}
            if axis.size > 1:
                step = (entry["last"] - entry["first"]) / (axis.size - 1)
                even = np.allclose(np.diff(np.asarray(axis.values, dtype=float)), step, rtol=1e-3)
                entry["step"] = step if even else None
    return axes


def describe(cube: xr.DataArray) -> dict[str, Any]:
    """Metadata of a cube as a dict: shape, dtype, bytes, axes with units, chunks, mask, attributes, history."""
    check_cube(cube)
    return {
        "shape": list(cube.shape),
        "dtype": str(cube.dtype),
        "bytes": math.prod(cube.shape) * cube.dtype.itemsize,
        "axes": describe_axes(cube, cube.dims),
        "chunks": None if cube.chunks is None else [max(c) for c in cube.chunks],
        "mask": MASK in cube.coords,
        "attrs": {k: v for k, v in cube.attrs.items() if k != "history"},
        "history": history_of(cube.attrs),
    }
