"""Compositions given as a mapping from element to atomic per cent: check them, and convert them to mass fractions."""

from __future__ import annotations

from collections.abc import Mapping

from scalehsi.physics.lines import atomic_weight
from scalehsi.schema import InputError


def check_composition(atomic_percent: Mapping[str, float]) -> float:
    """Return the sum of a composition; refuse one that is empty, negative or zero."""
    total = sum(atomic_percent.values())
    if min(atomic_percent.values(), default=-1) < 0 or total <= 0:
        raise InputError(
            f"a composition needs at least one element and no negative share, got {dict(atomic_percent)}; "
            'type something like {"Mg": 50, "O": 50}'
        )
    return total


def mass_fractions(atomic_percent: Mapping[str, float]) -> dict[str, float]:
    """Mass fractions, summing to one, of a composition in atomic per cent (of any positive sum).

    Examples
    --------
    >>> {element: round(w, 3) for element, w in mass_fractions({"Mg": 50, "O": 50}).items()}
    {'Mg': 0.603, 'O': 0.397}
    """
    check_composition(atomic_percent)
    masses = {e: atoms * atomic_weight(e) for e, atoms in atomic_percent.items() if atoms > 0}
    total = sum(masses.values())
    return {element: mass / total for element, mass in masses.items()}
