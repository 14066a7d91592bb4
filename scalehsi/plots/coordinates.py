"""Read the coordinates and attributes of a result: component names, energies, shown positions and pixel size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.result import names_of_components
from scalehsi.schema import ABUNDANCES, COMPONENT, ENERGY, ITERATION, LENGTH_UNITS, OBJECTIVE, InputError, X, Y

MAX_POSITIONS: Final = 4
"""Number of positions along leading dims (time, tilt ...) that are shown."""


def shown_positions(result: xr.Dataset) -> tuple[list[dict[str, int]], tuple[str, ...]]:
    """Choose up to MAX_POSITIONS positions, evenly over the leading dims; return their indices and descriptions."""
    leading = [str(dim) for dim in result[ABUNDANCES].dims[1:-2]]
    count = math.prod(result.sizes[dim] for dim in leading)
    chosen = np.unique(np.linspace(0, count - 1, min(count, MAX_POSITIONS)).round().astype(int))
    shape = [result.sizes[dim] for dim in leading]
    places = [dict(zip(leading, map(int, np.unravel_index(flat, shape)), strict=True)) for flat in chosen]
    return places, tuple(", ".join(_position_text(result, dim, at) for dim, at in place.items()) for place in places)


def _position_text(result: xr.Dataset, dim: str, index: int) -> str:
    """Describe an index along a leading dim, such as ``time = 5 s``."""
    if dim not in result.coords:
        return f"{dim} {index}"
    value = result[dim].values[index]
    text = f"{value:.5g}" if np.issubdtype(result[dim].dtype, np.number) else str(value)
    units = str(result[dim].attrs.get("units", ""))
    return f"{dim} = {text} {units}".rstrip()


def component_names(result: xr.Dataset) -> tuple[str, ...]:
    """Names of the components in the result; without names they are numbered from 1."""
    count = result.sizes[COMPONENT]
    own = names_of_components(result.attrs)
    if len(own) == count:
        return own
    if COMPONENT in result.coords and result[COMPONENT].dtype.kind in "OUST":
        return tuple(str(name) for name in result[COMPONENT].values)
    return tuple(f"Component {number + 1}" for number in range(count))


def numbers_of(names: Sequence[str], chosen: Sequence[int | str] | None) -> list[int]:
    """Positions, from 0, of components that are given by their numbers, from 1, or names; of all for None.

    Examples
    --------
    >>> numbers_of(("matrix", "oxide"), ["oxide", 1]), numbers_of(("matrix", "oxide"), None)
    ([1, 0], [0, 1])
    """
    found = []
    for one in range(1, len(names) + 1) if chosen is None else chosen:
        number = names.index(one) + 1 if one in names else int(one) if str(one).isdecimal() else 0
        if not 1 <= number <= len(names):
            listed = ", ".join(names)
            raise InputError(f"there is no component {one!r}; there are {len(names)}, counted from 1: {listed}")
        found.append(number - 1)
    if not found:
        raise InputError(f"no component is chosen; there are {len(names)}: {', '.join(names)}")
    return found


def energy_axis(result: xr.Dataset) -> NumpyArray:
    """The energies (E,); channel numbers when the result has none."""
    if ENERGY in result.coords:
        return np.asarray(result[ENERGY].values, dtype=np.float64)
    return np.arange(result.sizes[ENERGY], dtype=np.float64)


def iteration_axis(result: xr.Dataset) -> NumpyArray | None:
    """The iteration number of each objective value; None when the result has no objective."""
    if OBJECTIVE not in result:
        return None
    if ITERATION in result.coords:
        return np.asarray(result[ITERATION].values, dtype=np.float64)
    return np.arange(1, result.sizes[ITERATION] + 1, dtype=np.float64)


def drawn_pixel_nm(result: xr.Dataset, block: int) -> tuple[float, float] | None:
    """Height and width in nm of ``block`` pixels; None when the result has no lengths."""
    steps: dict[str, float] = {}
    for dim in (Y, X):
        if dim in result.coords:
            scale = LENGTH_UNITS.get(str(result[dim].attrs.get("units", "")))
            values = np.asarray(result[dim].values, dtype=np.float64)
            if scale and values.size > 1 and np.isfinite(values).all() and values[-1] != values[0]:
                steps[dim] = abs(values[-1] - values[0]) / (values.size - 1) * scale * block
    if not steps:
        return None
    # A line scan has a single pixel along one axis and no step there; its pixels are drawn square.
    return steps.get(Y, steps.get(X, 1.0)), steps.get(X, steps.get(Y, 1.0))


def word_list(value: Any) -> tuple[str, ...]:
    """Words of an attribute that may be a list, an array or text, such as element symbols."""
    if value is None:
        return ()
    parts = value.replace(",", " ").split() if isinstance(value, str) else np.asarray(value).ravel().tolist()
    return tuple(str(part) for part in parts if str(part))
