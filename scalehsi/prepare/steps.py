"""Preparation steps written as text, for the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import xarray as xr

from scalehsi.prepare.crop_bin_mask import bin, crop, mask
from scalehsi.schema import InputError, suggest

STEPS: Final[dict[str, Callable[..., xr.DataArray]]] = {"crop": crop, "bin": bin, "mask": mask}
"""Steps of the command line by name."""


def apply_step(cube: xr.DataArray, text: str) -> xr.DataArray:
    """Apply one step that is written as text, such as ``crop:energy=200:900``.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    text : str
        ``name:key=value,key=value``, with a name of `STEPS` and the arguments of its function; a range is ``low:high``.

    Returns
    -------
    xarray.DataArray
        The cube after the step.

    Raises
    ------
    InputError
        When the step or an argument is unknown, or a value is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.ones((4, 4, 5), "u1"), energy=[1, 2, 3, 4, 5], energy_units="keV")
    >>> apply_step(apply_step(cube, "crop:energy=2:4"), "bin:y=2,x=2").shape
    (2, 2, 3)
    """
    name, _, rest = text.partition(":")
    if name not in STEPS:
        raise InputError(f"there is no step {name!r}; {suggest(name, STEPS)}")
    arguments = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InputError(f"step {text!r}: key=value is expected, got {part!r}; for example crop:energy=200:900")
        if key.strip() in arguments:
            raise InputError(f"step {text!r}: {key.strip()} is given twice; write two steps")
        arguments[key.strip()] = _value(text, value.strip())
    if not arguments:
        raise InputError(f"step {text!r} has no arguments; key=value is expected, for example crop:energy=200:900")
    known = [p for p in inspect.signature(STEPS[name]).parameters if p not in ("cube", "ranges", "factors")]
    allowed = {*known, *map(str, cube.dims)}
    for key in arguments:
        if key not in allowed:
            raise InputError(f"step {text!r}: {name} has no setting {key!r}; {suggest(key, allowed)}")
    return STEPS[name](cube, **arguments)


def _value(text: str, value: str) -> Any:
    """A number, or a range as two of them; ``text`` is the whole step, for the messages."""

    def number(word: str) -> float | None:
        if not word:
            return None
        try:
            return float(word)
        except ValueError:
            raise InputError(f"step {text!r}: a number is expected, got {word!r}") from None

    if ":" in value:
        low, _, high = value.partition(":")
        return number(low), number(high)
    found = number(value)
    if found is None:
        raise InputError(f"step {text!r}: a value is missing after '='")
    return int(found) if found.is_integer() else found
