"""Names for X-ray peaks: from the elements that are known, and, with care, from those that are not.

A name is given only to a peak that is there. A weak line (Kβ, Lβ ...) counts only beside the strong line of its shell,
and an unknown element only when the lines that it would have to show besides are there too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from scalehsi.physics.peaks import Peaks, width_kev
from scalehsi.physics.xray_spectra import line_table

SYMBOLS: Final = (
    *(
        "B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb Mo Tc"
    ).split(),
    *(
        "Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au"
    ).split(),
    *("Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U").split(),
)
"""Elements Z = 5 to 92, those with lines that EDS sees."""

COMMON: Final = frozenset(
    "C N O F Na Mg Al Si P S Cl K Ca Ti Cr Mn Fe Co Ni Cu Zn Ga As Sr Y Zr Mo Ag In Sn Ba La W Pt Au Pb Bi".split()
)
RARE: Final = frozenset("Ne Kr Tc Xe Pm Po At Rn Fr Ra Ac Pa".split())

GREEK: Final = {"a": "α", "b": "β", "g": "γ", "l": "ℓ", "z": "ζ", "n": "η"}
LEAST_WEIGHT: Final = 0.04
"""Lines weaker than this part of the strongest line of their shell are not looked for."""

FAINT_WEIGHT: Final = 0.01
"""... of an element that is known to be there, for peaks that no stronger line explains."""

LEAST_ENERGY: Final = {"K": 0.15, "L": 0.33, "M": 0.8}
"""keV. Softer lines of a shell are too weak and too broad to be told from others (Ca Lα is the first L line kept)."""

GUESS_NEEDS: Final = 1.5
"""A peak is given to an element that nobody mentioned only when it is this much higher than a peak must be."""

MERGED: Final = 0.8
"""Lines nearer than this part of the detector's width make one peak."""


class Line(NamedTuple):
    """A line as it is looked for.

    Attributes
    ----------
    element, name : str
        Such as ``"Fe"`` and ``"Kα"``.
    energy : float
        In keV.
    weight : float
        Intensity relative to the strongest line of its shell.
    intensity : float
        Intensity relative to the strongest line of the element, as generated in the sample.
    """

    element: str
    name: str
    energy: float
    weight: float
    intensity: float

    @property
    def shell(self) -> str:
        """The shell of the hole: K, L or M."""
        return self.name[0]

    @property
    def label(self) -> str:
        """Element and line as microscopists write them, such as ``Fe Kα``."""
        return f"{self.element} {self.name}"


class Mark(NamedTuple):
    """A name to write over a spectrum, at an energy in keV; `net` is the height of its peak, 0 for an edge."""

    energy: float
    label: str
    net: float
    certain: bool


def lines_of(elements: Sequence[str], *, beam_kev: float = 200.0, least: float = LEAST_WEIGHT) -> dict[str, list[Line]]:
    """Give the lines of each element that are strong enough to look for; what is no element is left out."""
    table: dict[str, list[Line]] = {}
    for element in dict.fromkeys(elements):
        if element not in SYMBOLS:
            continue
        found = line_table([element], energy_range=(0.05, 120.0), beam_kev=beam_kev, minimum=1e-4)
        strongest = {}
        for raw in sorted(found, key=lambda raw: raw.intensity):
            strongest[raw.family[0]] = raw
        # A shell whose strongest line is too soft is left out as a whole: its other lines would hang in the air.
        kept = {shell for shell, raw in strongest.items() if raw.energy_kev >= LEAST_ENERGY.get(shell, math.inf)}
        # The tables have no Mα of the lanthanides, and without it the weights of their M lines mean nothing.
        if not any(raw.family == "Ma" for raw in found):
            kept.discard("M")
        table[element] = [
            Line(element, pretty_family(raw.family), raw.energy_kev, raw.intensity / most, raw.intensity)
            for raw in found
            if raw.family[0] in kept and raw.intensity >= least * (most := strongest[raw.family[0]].intensity)
        ]
    return table


def name_peaks(
    peaks: Peaks, elements: Sequence[str], *, likely: Sequence[str] = (), beam_kev: float = 200.0
) -> list[Mark]:
    """Name the peaks of a spectrum.

    Parameters
    ----------
    peaks : Peaks
    elements : sequence of str
        Those known to be there; may be empty. Peaks that they leave unexplained are named from all elements
        Z 5 to 92, as marks that are not `certain`.
    likely : sequence of str
        Elements seen elsewhere in the same data, which are preferred to new ones.
    beam_kev : float
        Beam energy in keV: it decides which shells are excited, and how strongly.

    Returns
    -------
    list of Mark
        In order of rising energy.
    """
    table = lines_of([*elements, *likely], beam_kev=beam_kev)
    named = _explain(peaks, {element: table[element] for element in elements if element in table})
    for index, mark in _explain(peaks, lines_of(elements, beam_kev=beam_kev, least=FAINT_WEIGHT)).items():
        named.setdefault(index, mark)
    for index, mark in _explain(peaks, table).items():
        named.setdefault(index, mark._replace(certain=False))
    if len(named) < peaks.energy.size:
        everything = lines_of(SYMBOLS, beam_kev=beam_kev)
        for index in sorted(range(peaks.energy.size), key=lambda i: -peaks.net[i]):
            guess = None if index in named or _beside(index, peaks, table, named) else _guess(index, peaks, everything)
            if guess is None:
                continue
            best, label = guess
            named[index] = Mark(best.energy, label, float(peaks.net[index]), certain=False)
            # What the new element explains besides needs no element of its own.
            table[best.element] = everything[best.element]
            for other, mark in _explain(peaks, table).items():
                named.setdefault(other, mark._replace(certain=False))
    return sorted(named.values())


def _explain(peaks: Peaks, table: Mapping[str, Sequence[Line]]) -> dict[int, Mark]:
    """The peaks that the lines of a table explain, by index."""
    scores: dict[int, list[tuple[float, Line]]] = {}
    for lines in table.values():
        for line in lines:
            index = peaks.nearest(line.energy)
            if index is not None:
                score = _closeness(peaks, index, line) * line.weight * _minor(peaks, index, line, lines)
                if score > 0.003:
                    scores.setdefault(index, []).append((score, line))
    marks = {}
    for index, candidates in scores.items():
        candidates.sort(reverse=True)
        top, best = candidates[0]
        # Two elements whose strong lines fall into one peak are both named.
        second = next((x for s, x in candidates[1:] if x.element != best.element and s > 0.4 * top), None)
        label = best.label if second is None else f"{best.label} / {second.label}"
        marks[index] = Mark(best.energy, label, float(peaks.net[index]), certain=True)
    return marks


def _guess(index: int, peaks: Peaks, table: Mapping[str, Sequence[Line]]) -> tuple[Line, str] | None:
    """The most plausible strong line for a peak, and its label; two names where the second is nearly as plausible."""
    if not peaks.visible(float(peaks.energy[index]), float(peaks.net[index]) * 2.0 / GUESS_NEEDS):
        return None
    scored = []
    for element, lines in table.items():
        prior = 1.0 if element in COMMON else 0.1 if element in RARE else 0.5
        for line in lines:
            if line.weight == 1.0 and peaks.nearest(line.energy) == index:
                scored.append((prior * _closeness(peaks, index, line) * _company(peaks, index, line, lines), line))
    scored = sorted((pair for pair in scored if pair[0] > 0.05), reverse=True)
    if not scored:
        return None
    top, best = scored[0]
    second = next((x for s, x in scored[1:] if x.element != best.element and s > 0.6 * top), None)
    return best, best.label if second is None else f"{best.label} or {second.label}"


def _beside(index: int, peaks: Peaks, table: Mapping[str, Sequence[Line]], named: Mapping[int, Mark]) -> bool:
    """Whether a peak is the shoulder of a strong line that has a peak of its own: unmixing bends those easily.

    A line of a listed element that shows no peak does not count, or Hf in the list would hide the Cu of the grid.
    """
    energy = float(peaks.energy[index])
    reach = float(width_kev(energy)) + 0.5 * float(peaks.tolerance[index])
    lines = (line for row in table.values() for line in row if line.weight == 1.0)
    near = (peaks.nearest(line.energy) for line in lines if abs(line.energy - energy) < reach)
    return any(other is not None and other != index and other in named for other in near)


def _closeness(peaks: Peaks, index: int, line: Line) -> float:
    return math.exp(-0.5 * ((line.energy - peaks.energy[index]) / (0.6 * peaks.tolerance[index])) ** 2)


def _minor(peaks: Peaks, index: int, line: Line, lines: Sequence[Line]) -> float:
    """How far a weak line is believable: its strong line must be there, and high enough to account for it."""
    if line.weight == 1.0:
        return 1.0
    strong = next(x for x in lines if x.shell == line.shell and x.weight == 1.0)
    main = peaks.nearest(strong.energy)
    if main is None:
        return 0.3 if not peaks.in_range(strong.energy) else 0.0
    if main == index:
        return 1.0
    # Absorption in the sample bends ratios by some factor; by more than four it is another line.
    return 1.0 if peaks.net[index] < 4.0 * line.weight * peaks.net[main] else 0.1


def _company(peaks: Peaks, index: int, line: Line, lines: Sequence[Line]) -> float:
    """How well the other lines that an element would have to show are there: above 1 if they are, far below if not."""
    net, factor = float(peaks.net[index]), {"K": 1.0, "L": 0.8, "M": 0.6}.get(line.shell, 0.3)
    for other in lines:
        if other == line:
            continue
        apart = abs(other.energy - line.energy) > MERGED * float(width_kev(other.energy))
        if other.shell == line.shell:
            if apart and peaks.visible(other.energy, other.weight * net):
                factor *= 1.5 if peaks.nearest(other.energy) is not None else 0.1
        elif (
            other.weight == 1.0
            and other.energy > line.energy
            and peaks.visible(other.energy, _deeper(line, other, net))
        ):
            # The same atom seen through its deeper shell, whose line is the less absorbed one.
            factor *= 2.0 if peaks.nearest(other.energy) is not None else 0.15
    return factor


def _deeper(line: Line, other: Line, net: float) -> float:
    """Height to expect of another shell's line, halved because a thick detector is needed to stop hard X-rays."""
    return 0.5 * net * other.intensity / line.intensity * float(width_kev(line.energy) / width_kev(other.energy))


def pretty_family(family: str) -> str:
    """A family such as Ka, Lb1 or Ll with its Greek letter and without its number; of M2N4 only the shell."""
    if not family[1:2].islower():
        return family[0]
    return family[0] + "".join(GREEK.get(letter, letter) for letter in family[1:] if not letter.isdigit())
