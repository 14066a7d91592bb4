"""Names of elements and X-ray lines: read those that users type (``Fe_Ka``), write those of papers (``Fe Kα``)."""

from __future__ import annotations

from typing import Any, Final

GREEK: Final = {"a": "α", "b": "β", "g": "γ", "l": "ℓ", "z": "ζ", "n": "η"}
_LATIN: Final = {ord(greek): latin for latin, greek in GREEK.items()}


def split_symbols(elements: Any) -> list[str]:
    """Symbols of a list, or of one string with commas or blanks between them, as files store them.

    Examples
    --------
    >>> split_symbols("Mg, Si O"), split_symbols(("Mg", "Si"))
    (['Mg', 'Si', 'O'], ['Mg', 'Si'])
    """
    return elements.replace(",", " ").split() if isinstance(elements, str) else list(map(str, elements))


def split_name(name: str) -> tuple[str, str]:
    """Element and family of a line's name in the spelling of this package; the family is empty for a bare element.

    Examples
    --------
    >>> split_name("Fe_Ka"), split_name("Nd Lβ1"), split_name("Pt-LA"), split_name("Si")
    (('Fe', 'Ka'), ('Nd', 'Lb1'), ('Pt', 'La'), ('Si', ''))
    """
    element, _, family = name.strip().replace("_", " ").replace("-", " ").partition(" ")
    return element, plain_family(family)


def plain_family(family: str) -> str:
    """Spell a family in this package's way: ``Kα``, ``KA`` and ``ka`` are ``Ka``; ``M5O3`` keeps its name."""
    plain = family.strip().translate(_LATIN)
    return plain if plain[1:2].isdigit() else plain[:1].upper() + plain[1:].lower()


def pretty_family(family: str) -> str:
    """Write a family with its Greek letter and without its number: Kα for Ka, Lβ for Lb1, M for the transition M2N4."""
    if not family[1:2].islower():
        return family[0]
    return family[0] + "".join(GREEK.get(letter, letter) for letter in family[1:] if not letter.isdigit())
