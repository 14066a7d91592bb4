"""Name the peaks of an X-ray spectrum, from a list of elements where there is one, else from all elements.

A name is given only to a peak that was found. A weak line (Kβ, Lβ ...) counts only beside the main line of its shell,
and an element that nobody listed only when its other strong lines are found too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from scalehsi.physics.line_choice import main_lines
from scalehsi.physics.lines import Line, line_table, symbols
from scalehsi.physics.peaks import Peaks, usual_fwhm

COMMON: Final = frozenset(
    "C N O F Na Mg Al Si P S Cl K Ca Ti Cr Mn Fe Co Ni Cu Zn Ga As Sr Y Zr Mo Ag In Sn Ba La W Pt Au Pb Bi".split()
)
FOREIGN: Final = {
    "Cu": "grid",
    "Ga": "ion beam",
    "Au": "grid",
    "Mo": "grid",
    "Ni": "grid",
    "Ti": "holder",
    "Si": "membrane",
    "C": "film",
}
"""Elements that often come from elsewhere than the sample, and from where: the first candidates for a peak that no
listed element explains."""
RARE: Final = frozenset("Ne Kr Tc Xe Pm Po At Rn Fr Ra Ac Pa".split())
"""Elements that are likely and unlikely in a sample, where none are listed."""

MIN_WEIGHT: Final = 0.04
"""Lines below this fraction of the main line of their shell are ignored."""
MIN_WEIGHT_FAINT: Final = 0.01
"""The same for a listed element and for peaks that no stronger line explains."""
MIN_ENERGY_KEV: Final = {"K": 0.15, "L": 0.33, "M": 0.8}
"""Softer lines of a shell are too weak and too broad to be distinguished (Ca Lα is the first L line above)."""
GUESS_MARGIN: Final = 1.5
"""A peak is given to an unlisted element only when it exceeds the detection threshold by this factor."""
MERGED_FWHM: Final = 0.8
"""Lines nearer than this, in peak widths, make one peak."""


class ShellLine(NamedTuple):
    """A line, and its intensity relative to the main line of its shell; `weight` is one for the main line itself."""

    line: Line
    weight: float


class Mark(NamedTuple):
    """A name over a spectrum, at an energy in keV; `net` is the height of its peak, 0 for an edge."""

    energy: float
    label: str
    net: float
    certain: bool


def lines_of(
    elements: Sequence[str], *, beam_kev: float = 200.0, min_weight: float = MIN_WEIGHT
) -> dict[str, list[ShellLine]]:
    """Lines of each element that are strong enough to make a peak; unknown symbols are omitted.

    Parameters
    ----------
    elements : sequence of str
    beam_kev : float
        Beam energy in keV.
    min_weight : float
        Lines below this fraction of the main line of their shell are omitted.
    """
    table: dict[str, list[ShellLine]] = {}
    for element in dict.fromkeys(elements):
        if element not in symbols():
            continue
        found = line_table([element], energy_range=(0.05, 120.0), beam_kev=beam_kev, minimum=1e-4)
        # A shell whose main line is too soft is omitted as a whole. So are the M lines of the lanthanides: xraylib has
        # no Ma for them, and the other lines alone have no meaningful weights.
        main = {
            line.shell: line.intensity
            for line in main_lines(found)
            if line.energy_kev >= MIN_ENERGY_KEV[line.shell] and line.family != "Mz"
        }
        weighted = [ShellLine(line, line.intensity / main[line.shell]) for line in found if line.shell in main]
        table[element] = [line for line in weighted if line.weight >= min_weight]
    return table


def name_peaks(
    peaks: Peaks, elements: Sequence[str], *, likely: Sequence[str] = (), beam_kev: float = 200.0
) -> list[Mark]:
    """Name the peaks of a spectrum.

    Parameters
    ----------
    peaks : Peaks
    elements : sequence of str
        Elements of the sample; may be empty. Peaks that they do not explain are named from all elements Z 5 to 92, as
        marks that are not `certain`.
    likely : sequence of str
        Elements found elsewhere in the same data, which are preferred to others.
    beam_kev : float
        Beam energy in keV: it decides which shells are excited, and how strongly.

    Returns
    -------
    list of Mark
        In order of rising energy.
    """
    table = lines_of([*elements, *likely], beam_kev=beam_kev)
    named = _explain(peaks, {element: table[element] for element in elements if element in table})
    for index, mark in _explain(peaks, lines_of(elements, beam_kev=beam_kev, min_weight=MIN_WEIGHT_FAINT)).items():
        named.setdefault(index, mark)
    for index, mark in _explain(peaks, table).items():
        named.setdefault(index, mark._replace(certain=False))
    if len(named) < peaks.energy.size:
        everything = _all_lines(beam_kev)
        for index in sorted(range(peaks.energy.size), key=lambda i: -peaks.net[i]):
            if index in named or _is_shoulder(index, peaks, table, named):
                continue
            guess = _guess(index, peaks, everything)
            if guess is None:
                continue
            best, label = guess
            named[index] = Mark(best.energy_kev, label, float(peaks.net[index]), certain=False)
            # Other peaks that the new element explains need no further element.
            table[best.element] = everything[best.element]
            for other, mark in _explain(peaks, table).items():
                named.setdefault(other, mark._replace(certain=False))
    return sorted(named.values())


class Candidate(NamedTuple):
    """An element whose main line may be a peak; `prior` is above 0 and at most 1."""

    line: Line
    prior: float


def candidates_at(
    energy_kev: float, tolerance_kev: float, *, excluded: Sequence[str] = (), beam_kev: float = 200.0
) -> list[Candidate]:
    """List the elements that a peak at an energy may belong to, most likely first.

    Parameters
    ----------
    energy_kev, tolerance_kev : float
        Of the peak, and the largest distance of a main line from it.
    excluded : sequence of str
        Elements that it does not belong to.
    beam_kev : float
        Beam energy in keV: it decides which shells are excited.

    Examples
    --------
    >>> [candidate.line.name for candidate in candidates_at(8.05, 0.03)]
    ['Cu Ka']
    """
    found = []
    for element, lines in _all_lines(beam_kev).items():
        for line, weight in lines:
            if weight == 1.0 and abs(line.energy_kev - energy_kev) <= tolerance_kev and element not in excluded:
                usual = 0.7 if element in COMMON else 0.1 if element in RARE else 0.4
                found.append(Candidate(line, 1.0 if element in FOREIGN else usual))
    return sorted(found, key=lambda each: (-each.prior, abs(each.line.energy_kev - energy_kev)))


@lru_cache(maxsize=4)
def _all_lines(beam_kev: float) -> dict[str, list[ShellLine]]:
    return lines_of(symbols(), beam_kev=beam_kev)


def _explain(peaks: Peaks, table: Mapping[str, Sequence[ShellLine]]) -> dict[int, Mark]:
    """The peaks that the lines of a table explain, by index."""
    scores: dict[int, list[tuple[float, Line]]] = {}
    for lines in table.values():
        for each in lines:
            index = peaks.nearest(each.line.energy_kev)
            if index is not None:
                score = _closeness(peaks, index, each.line) * each.weight * _plausibility(peaks, index, each, lines)
                if score > 0.003:
                    scores.setdefault(index, []).append((score, each.line))
    marks = {}
    for index, candidates in scores.items():
        # Two elements whose strong lines fall into one peak are both named.
        best, label = _best_two(candidates, 0.4, " / ")
        marks[index] = Mark(best.energy_kev, label, float(peaks.net[index]), certain=True)
    return marks


def _best_two(scored: list[tuple[float, Line]], nearly: float, joined: str) -> tuple[Line, str]:
    """The line of the highest score, and a label that names a second element whose score is above `nearly` of it."""
    (top, best), *others = sorted(scored, reverse=True)
    second = next((x for score, x in others if x.element != best.element and score > nearly * top), None)
    return best, best.label if second is None else f"{best.label}{joined}{second.label}"


def _guess(index: int, peaks: Peaks, table: Mapping[str, Sequence[ShellLine]]) -> tuple[Line, str] | None:
    """The most plausible main line for a peak, and its label; two names where the second is nearly as plausible."""
    if not peaks.visible(float(peaks.energy[index]), float(peaks.net[index]) * 2.0 / GUESS_MARGIN):
        return None
    scored = []
    for element, lines in table.items():
        prior = 1.0 if element in COMMON else 0.1 if element in RARE else 0.5
        for line, weight in lines:
            if weight == 1.0 and peaks.nearest(line.energy_kev) == index:
                score = prior * _closeness(peaks, index, line) * _other_lines(peaks, index, line, lines)
                if score > 0.05:
                    scored.append((score, line))
    return _best_two(scored, 0.6, " or ") if scored else None


def _is_shoulder(index: int, peaks: Peaks, table: Mapping[str, Sequence[ShellLine]], named: Mapping[int, Mark]) -> bool:
    """Whether a peak is the shoulder of a main line of the table that has a named peak of its own.

    Unmixing distorts strong peaks easily. A line of a listed element that shows no peak does not count, or Hf in the
    list would hide the Cu of the grid.
    """
    energy = float(peaks.energy[index])
    reach = float(usual_fwhm(energy)) + 0.5 * float(peaks.tolerance[index])
    main = (line.energy_kev for lines in table.values() for line, weight in lines if weight == 1.0)
    near = (peaks.nearest(at) for at in main if abs(at - energy) < reach)
    return any(other is not None and other != index and other in named for other in near)


def _closeness(peaks: Peaks, index: int, line: Line) -> float:
    """A Gaussian of the distance between a line and a peak."""
    return math.exp(-0.5 * ((line.energy_kev - peaks.energy[index]) / (0.6 * peaks.tolerance[index])) ** 2)


def _plausibility(peaks: Peaks, index: int, candidate: ShellLine, lines: Sequence[ShellLine]) -> float:
    """How plausible a line is for a peak: the main line of its shell must have a peak, and a high enough one.

    `lines` are all lines of the element.
    """
    line, weight = candidate
    if weight == 1.0:
        return 1.0
    strong = next(x for x, relative in lines if x.shell == line.shell and relative == 1.0)
    main = peaks.nearest(strong.energy_kev)
    if main is None:
        return 0.3 if not peaks.in_range(strong.energy_kev) else 0.0
    if main == index:
        return 1.0
    # Absorption in the sample changes ratios by some factor; a peak that is four times too high is another line.
    return 1.0 if peaks.net[index] < 4.0 * weight * peaks.net[main] else 0.1


def _other_lines(peaks: Peaks, index: int, line: Line, lines: Sequence[ShellLine]) -> float:
    """Factor for the other visible lines of an element: above 1 where their peaks are found, far below where not.

    The peak of this index is supposed to be `line`, a main line; `lines` are all lines of the element.
    """
    net, factor = float(peaks.net[index]), {"K": 1.0, "L": 0.8, "M": 0.6}[line.shell]
    for other, weight in lines:
        if other == line:
            continue
        found = peaks.nearest(other.energy_kev) is not None
        separate = abs(other.energy_kev - line.energy_kev) > MERGED_FWHM * float(usual_fwhm(other.energy_kev))
        if other.shell == line.shell:
            if separate and peaks.visible(other.energy_kev, weight * net):
                factor *= 1.5 if found else 0.1
        elif weight == 1.0 and other.energy_kev > line.energy_kev:
            # The line of a deeper shell is absorbed less. Half its height is expected: thin detectors miss hard X-rays.
            width = float(usual_fwhm(line.energy_kev) / usual_fwhm(other.energy_kev))
            if peaks.visible(other.energy_kev, 0.5 * net * other.intensity / line.intensity * width):
                factor *= 2.0 if found else 0.15
    return factor
