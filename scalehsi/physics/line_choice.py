"""Which line family an element is quantified with: the choice of an analyst who looks at the list of elements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from scalehsi.physics.lines import Line, atomic_number, line_table
from scalehsi.physics.xray_spectra import detector_efficiency, linear_fwhm
from scalehsi.schema import InputError, suggest

WINDOW: Final = 1.2
"""Width of the window about a line, in widths of the peak at half maximum."""

TRUST: Final[dict[str, float]] = {"K": 1.0, "L": 0.7, "M": 0.4}
"""How far cross sections and yields of a shell are believed: they are worse for the outer ones."""

SOFT_KEV: Final = 1.0
SOFT_TRUST: Final = 0.3
"""L and M lines below `SOFT_KEV` come from valence electrons and are absorbed in nanometres: taken only in need."""

GREEK: Final = str.maketrans("αβγζηℓ", "abgznl")

MAIN: Final[dict[str, tuple[str, ...]]] = {"K": ("Ka",), "L": ("La", "Ll"), "M": ("Ma", "Mz")}
"""The main family of a shell; the second where the tables have no first (Ca has no La, lanthanides no Ma)."""


class Peak(NamedTuple):
    """The line family that stands for an element.

    Attributes
    ----------
    element, family : str
        Such as ``"Fe"`` and ``"Ka"``.
    energy_kev : float
        Mean energy of the family in keV.
    """

    element: str
    family: str
    energy_kev: float

    @property
    def name(self) -> str:
        """Element and family, such as ``"Fe Ka"``."""
        return f"{self.element} {self.family}"


def split_name(name: str) -> tuple[str, str]:
    """Element and family of a line's name, in our spelling; the family is empty where only an element is named.

    Examples
    --------
    >>> split_name("Fe_Ka"), split_name("Nd Lβ1"), split_name("Pt-LA"), split_name("Si")
    (('Fe', 'Ka'), ('Nd', 'Lb1'), ('Pt', 'La'), ('Si', ''))
    """
    element, _, family = name.strip().replace("_", " ").replace("-", " ").partition(" ")
    return element, _spelled(family)


def _spelled(family: str) -> str:
    """``Kα``, ``KA`` and ``ka`` are ``Ka``; a transition keeps its name, such as ``M5O3``."""
    plain = family.strip().translate(GREEK)
    return plain if plain[1:2].isdigit() else plain[:1].upper() + plain[1:].lower()


def choose_peaks(
    elements: Iterable[str],
    *,
    energy_range: tuple[float, float],
    beam_kev: float = 200.0,
    lines: Sequence[str] | Mapping[str, str] = (),
    beside: Iterable[str] = (),
) -> list[Peak]:
    """Choose the family of each element that is strong, well known and least covered by the other elements.

    Parameters
    ----------
    elements : iterable of str
        Symbols; what comes twice counts once.
    energy_range : (float, float), keV
        A family counts when its whole window of 1.2 peak widths is in it.
    beam_kev : float
        Beam energy in keV: shells that it does not ionise have no lines.
    lines : sequence of str, or mapping of str to str
        Choices of one's own: ``["Fe_Ka", "Nd_La"]`` or ``{"Fe": "Ka"}``.
    beside : iterable of str
        Further elements in the spectrum; their lines cover others too.

    Returns
    -------
    list of Peak
        In the order of the elements.

    Raises
    ------
    InputError
        If an element is unknown, has no line in the range, or a line is asked for that it has not.

    Examples
    --------
    >>> peaks = choose_peaks(["O", "Cu", "Nd", "U"], energy_range=(0.2, 20))
    >>> [peak.name for peak in peaks]
    ['O Ka', 'Cu Ka', 'Nd La', 'U Ma']
    """
    wanted = list(dict.fromkeys(elements))
    others = [e for e in dict.fromkeys([*wanted, *beside])]
    asked = _asked(lines, others)
    tables = {e: _families(e, beam_kev) for e in others}
    everything = [line for table in tables.values() for line in table]
    peaks = []
    for element in wanted:
        table = {line.family: line for line in tables[element]}
        if element in asked:
            chosen = _named(element, asked[element], table, energy_range)
        else:
            chosen = _best(element, table, everything, energy_range)
        peaks.append(Peak(element, chosen.family, chosen.energy_kev))
    return peaks


def window_kev(energy_kev: float) -> tuple[float, float]:
    """The ends of the window about a line at this energy in keV, for the usual detector.

    Examples
    --------
    >>> [round(end, 3) for end in window_kev(1.74)]
    [1.691, 1.789]
    """
    half = WINDOW / 2 * float(linear_fwhm(energy_kev))
    return energy_kev - half, energy_kev + half


def _asked(lines: Sequence[str] | Mapping[str, str], elements: Sequence[str]) -> dict[str, str]:
    """The families that were asked for, by element."""
    if isinstance(lines, str):
        lines = [lines]
    pairs = (
        [(element, split_name(line)[1] or _spelled(line)) for element, line in lines.items()]
        if isinstance(lines, Mapping)
        else [split_name(line) for line in lines]
    )
    for element, family in pairs:
        if element not in elements:
            raise InputError(
                f"the line {element} {family} is of no element that is asked for; {suggest(element, elements)}"
            )
        if not family:
            raise InputError(f"lines has {element!r} without a family; type something like '{element}_Ka'")
    return dict(pairs)


def _families(element: str, beam_kev: float) -> list[Line]:
    """The families of an element with their intensities as generated (the strongest is one)."""
    atomic_number(element)
    return line_table([element], energy_range=(0.05, beam_kev), beam_kev=beam_kev, minimum=1e-3)


def _inside(line: Line, energy_range: tuple[float, float]) -> bool:
    low, high = window_kev(line.energy_kev)
    return energy_range[0] <= low and high <= energy_range[1]


def _named(element: str, family: str, table: Mapping[str, Line], energy_range: tuple[float, float]) -> Line:
    if family not in table:
        raise InputError(f"{element} has no line {family!r}; {suggest(family, table)}")
    line = table[family]
    if not _inside(line, energy_range):
        raise InputError(
            f"{element} {family} lies at {line.energy_kev:.3f} keV, outside the energy axis of "
            f"{energy_range[0]:.3f} to {energy_range[1]:.3f} keV; choose another line of {element}, or leave lines out"
        )
    return line


def _best(
    element: str, table: Mapping[str, Line], everything: Sequence[Line], energy_range: tuple[float, float]
) -> Line:
    mains = [next((table[f] for f in names if f in table), None) for names in MAIN.values()]
    candidates = [line for line in mains if line is not None and _inside(line, energy_range)]
    if not candidates:
        at = ", ".join(f"{line.family} at {line.energy_kev:.3f} keV" for line in mains if line is not None)
        raise InputError(
            f"{element} has no main line on the energy axis of {energy_range[0]:.3f} to {energy_range[1]:.3f} keV "
            f"({at or 'it has none at all'}); leave {element} out"
        )
    return max(candidates, key=lambda line: _worth(line, everything))


def _worth(line: Line, everything: Sequence[Line]) -> float:
    """Counts to expect, times the trust in the shell, times the squared own part of the window."""
    low, high = window_kev(line.energy_kev)
    sigma = float(linear_fwhm(line.energy_kev)) / 2.355
    own = sum(x.intensity for x in everything if x.element == line.element and low <= x.energy_kev <= high)
    covering = 0.0
    for other in everything:
        if other.element != line.element:
            # How much of a line at that distance falls into the window, roughly.
            apart = max(abs(other.energy_kev - line.energy_kev) - (high - low) / 2, 0.0)
            covering += other.intensity * float(np.exp(-0.5 * (apart / sigma) ** 2))
    trust = SOFT_TRUST if line.family[0] != "K" and line.energy_kev < SOFT_KEV else TRUST[line.family[0]]
    return line.intensity * trust * float(detector_efficiency([line.energy_kev])[0]) * (own / (own + covering)) ** 2
