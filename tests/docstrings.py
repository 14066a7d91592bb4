"""Check the docstrings of all public names with numpydoc: sections, parameters, types, returns.

Run with: python -m tests.docstrings [part of a name ...]
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import ModuleType

from numpydoc.validate import validate

import scalehsi as hsi

CHECKS = {"GL01", "GL02", "GL08", "SS01", "SS03", "SS04", "SS05", "PR01", "PR02", "PR04", "PR07", "RT01", "RT03"}
"""What each code means: the table of checks in numpydoc's documentation of its validation."""


def public_names() -> Iterator[str]:
    """The names of `scalehsi`, and those of its public modules, that are functions or classes."""
    for name in hsi.__all__:
        value = getattr(hsi, name)
        if isinstance(value, ModuleType) and hasattr(value, "__all__"):
            module = value.__name__
            yield from (f"{module}.{each}" for each in value.__all__ if callable(getattr(value, each)))
        elif inspect.isclass(value) or inspect.isfunction(value):
            yield f"{value.__module__}.{value.__qualname__}"


def faults(name: str) -> list[str]:
    """What numpydoc objects to, and a missing section on errors where the function raises them itself."""
    found = [f"{code} {text}" for code, text in validate(name)["errors"] if code in CHECKS]
    module, _, own = name.rpartition(".")
    value = getattr(sys.modules[module], own)
    if inspect.isfunction(value) and "raise InputError" in inspect.getsource(value) and "Raises\n" not in value.__doc__:
        found.append("no section Raises")
    return found


def main(wanted: list[str]) -> int:
    """Print the faults of all public names, or of those that contain one of the words."""
    bad = 0
    for name in sorted(set(public_names())):
        if not wanted or any(word in name for word in wanted):
            for fault in faults(name):
                print(f"{name}: {fault}")
                bad += 1
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
