"""Preparation steps written as text, for the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, Final

import xarray as xr

from scalehsi.prepare.align import align
from scalehsi.prepare.background import remove_background
from scalehsi.prepare.crop_bin_mask import bin, crop, mask
from scalehsi.prepare.gain import correct_gain, subtract_dark
from scalehsi.prepare.scaling import anscombe, normalise
from scalehsi.prepare.spikes import remove_spikes
from scalehsi.schema import InputError, suggest

STEPS: Final[dict[str, Callable[..., xr.DataArray]]] = {
    "crop": crop,
    "bin": bin,
    "mask": mask,
    "dark": subtract_dark,
    "gain": correct_gain,
    "spikes": remove_spikes,
    "align": align,
    "background": remove_background,
    "normalise": normalise,
    "anscombe": anscombe,
}
"""Steps of the command line by name."""
NUMBER_OR_RANGE: Final = r"(?:[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|:)+"
NUMBERS_ALONE: Final = ("crop", "bin", "mask")
"""Steps whose values are numbers and ranges, and which do nothing without any."""


def apply_step(cube: xr.DataArray, text: str) -> xr.DataArray:
    """Apply one step that is written as text, such as ``crop:energy=200:900``.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    text : str
        ``name:key=value,key=value``, with a name of `STEPS` and the arguments of its function; a range is ``low:high``,
        other values are numbers, words, ``true``, ``false`` and paths of files.

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
        arguments[key.strip()] = _value(text, value.strip(), words=name not in NUMBERS_ALONE)
    if not arguments and name in NUMBERS_ALONE:
        raise InputError(f"step {text!r} has no arguments; key=value is expected, for example crop:energy=200:900")
    parameters = inspect.signature(STEPS[name]).parameters
    allowed = {p for p in parameters if p not in ("cube", "ranges", "factors")}
    if {"ranges", "factors"} & set(parameters):
        allowed |= set(map(str, cube.dims))
    for key in arguments:
        if key not in allowed:
            raise InputError(f"step {text!r}: {name} has no setting {key!r}; {suggest(key, allowed)}")
    try:
        return STEPS[name](cube, **arguments)
    except TypeError as error:
        if "required" not in str(error):
            raise
        raise InputError(f"step {text!r} lacks a setting: {_needed(parameters, arguments)}") from None


def _needed(parameters: Any, arguments: dict[str, Any]) -> str:
    """The settings without a default that are not given."""
    empty = inspect.Parameter.empty
    names = [n for n, p in parameters.items() if p.default is empty and n != "cube" and n not in arguments]
    return f"type {', '.join(f'{n}=...' for n in names)}"


def _value(text: str, value: str, *, words: bool) -> Any:
    """A number, a range as two of them, or with ``words`` a truth value or a text.

    text: the whole step, for the messages. value: what stands behind the sign.
    """
    if words and value:
        if value in ("true", "True", "false", "False"):
            return value.lower() == "true"
        if not re.fullmatch(NUMBER_OR_RANGE, value):
            return value

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
