"""Checks of settings and arguments that raise an `InputError`: conditions, numbers, and words from a list."""

from __future__ import annotations

from typing import Any

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
