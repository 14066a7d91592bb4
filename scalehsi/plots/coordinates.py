"""What the coordinates and attributes of a result say: names, energies, places and the size of a pixel."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.schema import ABUNDANCES, COMPONENT, ENERGY, ITERATION, LENGTH_UNITS, OBJECTIVE, X, Y

MAX_POSITIONS: Final = 4
"""How many places along leading dims (time, tilt ...) are shown."""


def places_of(result: xr.Dataset) -> tuple[list[dict[str, int]], tuple[str, ...]]:
    """Up to MAX_POSITIONS places, evenly over the leading dims, as indices and in words."""
    leading = [str(dim) for dim in result[ABUNDANCES].dims[1:-2]]
    count = math.prod(result.sizes[dim] for dim in leading)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_POSITIONS)).round().astype(int))
    shape = [result.sizes[dim] for dim in leading]
    places = [dict(zip(leading, map(int, np.unravel_index(flat, shape)), strict=True)) for flat in chosen]
    return places, tuple(", ".join(_place_words(result, dim, at) for dim, at in place.items()) for place in places)


def _place_words(result: xr.Dataset, dim: str, index: int) -> str:
    if dim not in result.coords:
        return f"{dim} {index}"
    value = result[dim].values[index]
    text = f"{value:.5g}" if np.issubdtype(result[dim].dtype, np.number) else str(value)
    units = str(result[dim].attrs.get("units", ""))
    return f"{dim} = {text} {units}".rstrip()


def names_of(result: xr.Dataset) -> tuple[str, ...]:
    """Names of the components: their own where the result knows them, else counted from 1."""
    count = result.sizes[COMPONENT]
    own = words_of(result.attrs.get("components"))
    if len(own) == count:
        return own
    if COMPONENT in result.coords and result[COMPONENT].dtype.kind in "OUST":
        return tuple(str(name) for name in result[COMPONENT].values)
    return tuple(f"Component {number + 1}" for number in range(count))


def energy_of(result: xr.Dataset) -> NumpyArray:
    if ENERGY in result.coords:
        return np.asarray(result[ENERGY].values, dtype=np.float64)
    return np.arange(result.sizes[ENERGY], dtype=np.float64)


def iterations_of(result: xr.Dataset) -> NumpyArray | None:
    if OBJECTIVE not in result:
        return None
    if ITERATION in result.coords:
        return np.asarray(result[ITERATION].values, dtype=np.float64)
    return np.arange(1, result.sizes[ITERATION] + 1, dtype=np.float64)


def pixel_nm_of(result: xr.Dataset, block: int) -> tuple[float, float] | None:
    """Step of y and x in nm, times the block; None when the result does not say."""
    steps: dict[str, float] = {}
    for dim in (Y, X):
        if dim in result.coords:
            scale = LENGTH_UNITS.get(str(result[dim].attrs.get("units", "")))
            values = np.asarray(result[dim].values, dtype=np.float64)
            if scale and values.size > 1 and np.isfinite(values).all() and values[-1] != values[0]:
                steps[dim] = abs(values[-1] - values[0]) / (values.size - 1) * scale * block
    if not steps:
        return None
    # A line scan has one pixel along an axis, and so no step there: it is drawn square.
    return steps.get(Y, steps.get(X, 1.0)), steps.get(X, steps.get(Y, 1.0))


def words_of(value: Any) -> tuple[str, ...]:
    """A list of element names from an attribute that may be a list, an array, or text."""
    if value is None:
        return ()
    parts = value.replace(",", " ").split() if isinstance(value, str) else np.asarray(value).ravel().tolist()
    return tuple(str(part) for part in parts if str(part))
