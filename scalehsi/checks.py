"""Checks of settings and arguments that raise an `InputError`: conditions, numbers, and words from a list."""

from __future__ import annotations

import math
import numbers
from typing import Any

import xarray as xr

from scalehsi.schema import InputError, suggest


def require(condition: object, message: str) -> None:
    """Raise an `InputError` unless the condition holds."""
    if not condition:
        raise InputError(message)


def is_number(value: Any, kind: type) -> bool:
    """True for Python's and numpy's numbers of a kind (`numbers.Integral`, `numbers.Real`), but not for booleans."""
    return isinstance(value, kind) and not isinstance(value, bool)


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse a value of the setting ``name`` that is not allowed, and name the nearest allowed one."""
    if value not in allowed:
        raise InputError(f"{name}={value!r} is not known; {suggest(str(value), allowed)}")


def is_hyperspy(value: Any) -> bool:
    """Whether a value is a signal of HyperSpy; HyperSpy is not imported for it."""
    return any(f"{kind.__module__}.".startswith("hyperspy.") for kind in type(value).__mro__)


def hyperspy_hint(value: Any, otherwise: str) -> str:
    """What to type for a wrong value: for a signal of HyperSpy its conversion, and ``otherwise`` for others."""
    return "type scalehsi.from_hyperspy(signal)" if is_hyperspy(value) else otherwise


def check_components(n_components: Any, cube: xr.DataArray | None = None) -> None:
    """Refuse a number of components that is no whole number, below one, or more than the channels or pixels."""
    if not is_number(n_components, numbers.Integral):
        raise InputError(f"n_components is a whole number, got {n_components!r}")
    require(n_components >= 1, f"n_components is at least 1, got {n_components}")
    if cube is None:
        return
    channels, pixels = int(cube.shape[-1]), math.prod(cube.shape[:-1])
    require(
        n_components <= channels,
        f"n_components={n_components} is more than the {channels} channels of the cube; take {channels} or fewer",
    )
    require(
        n_components <= pixels,
        f"n_components={n_components} is more than the {pixels} pixels of the cube; take {pixels} or fewer",
    )


def check_weighting(weighting: Any) -> None:
    """Refuse a weighting other than None and "poisson"."""
    require(weighting in (None, "poisson"), f"weighting={weighting!r} is not known; it is None or 'poisson'")
