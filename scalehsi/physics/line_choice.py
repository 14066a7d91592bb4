"""The X-ray line that stands for an element: one table of main lines, and one choice for each of two purposes.

To *quantify* an element its net counts are converted to atoms, and overlaps are solved. To *show* an element the counts
in a window become a map, and nothing is corrected. See `choose_line`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal, NoReturn

import numpy as np

from scalehsi.physics.line_names import plain_family, split_name
from scalehsi.physics.lines import Line, line_table
from scalehsi.physics.resolution import FWHM_PER_SIGMA, detector_fwhm
from scalehsi.physics.xray_spectra import detector_efficiency
from scalehsi.schema import InputError, suggest

MAIN_FAMILIES: Final[dict[str, tuple[str, ...]]] = {"K": ("Ka",), "L": ("La", "Ll"), "M": ("Ma", "Mz")}
"""The main family of each shell. The second name counts where xraylib lacks the first (Ca La, Ma of lanthanides)."""

WINDOW_FWHM: Final = 1.2
"""Width of the window about a line whose counts are quantified, in peak widths."""
SHELL_TRUST: Final[dict[str, float]] = {"K": 1.0, "L": 0.7, "M": 0.4}
"""Reliability of the cross sections and yields of a shell: it decreases outwards."""
SOFT_KEV: Final = 1.0
SOFT_TRUST: Final = 0.3
"""Reliability of L and M lines below `SOFT_KEV`: they involve valence electrons and are absorbed within nanometres."""
HARD_KEV: Final = 10.0
"""A map prefers lines below this energy: above, detectors lose photons and heavy elements add L lines."""

Purpose = Literal["quantify", "show"]


def choose_line(
    element: str,
    energy_range: tuple[float, float],
    purpose: Purpose,
    *,
    beam_kev: float = 200.0,
    others: Iterable[str] = (),
) -> Line | None:
    """Choose among the main K, L and M lines of an element; None where none of them is on the axis.

    Parameters
    ----------
    element : str
    energy_range : (float, float), keV
        Ends of the energy axis.
    purpose : {"quantify", "show"}
        - "quantify": the result must become a number of atoms. The line has many detected counts, well-known cross
          sections (K better than L, L better than M), and little overlap with other elements: solved overlaps still
          add noise. Its whole window of 1.2 peak widths lies on the axis.
        - "show": counts in a window become a map without any correction, so the choice does not depend on the other
          elements of the sample. It is the line of highest energy below 10 keV: peaks are sparser and absorption is
          weaker there than at low energy. Only its centre lies on the axis: part of a peak still makes a map. Ll and Mz
          lines are too faint. As, and Yb to Re, are the elements for which the purposes differ on a usual axis.
    beam_kev : float
        Beam energy in keV: shells that it does not ionise have no lines.
    others : iterable of str
        Other elements in the spectrum, to quantify: their lines may overlap.

    Returns
    -------
    Line or None

    Raises
    ------
    InputError
        If an element is unknown.

    Examples
    --------
    >>> [choose_line("W", (0.2, 20.0), purpose).name for purpose in ("quantify", "show")]
    ['W Ma', 'W La']
    """
    low, high = energy_range
    main = main_lines(_families(element, beam_kev))
    if purpose == "show":
        usual = [line for line in main if line.family.endswith("a") and low <= line.energy_kev <= high]
        return max(usual, key=_clearness, default=None)
    everything = [line for e in dict.fromkeys([element, *others]) for line in _families(e, beam_kev)]
    inside = [line for line in main if _inside(line, energy_range)]
    return max(inside, key=lambda line: _worth(line, everything), default=None)


def choose_lines(
    elements: Iterable[str],
    *,
    energy_range: tuple[float, float],
    beam_kev: float = 200.0,
    lines: Sequence[str] | Mapping[str, str] = (),
    others: Iterable[str] = (),
) -> list[Line]:
    """Choose the line of each element to quantify, unless the user names it.

    Parameters
    ----------
    elements : iterable of str
        Symbols; repeated ones count once.
    energy_range : (float, float), keV
        A line counts when its whole window of 1.2 peak widths is inside.
    beam_kev : float
        Beam energy in keV: shells that it does not ionise have no lines.
    lines : sequence of str, or mapping of str to str
        Lines that the user chose: ``["Fe_Ka", "Nd_La"]`` or ``{"Fe": "Ka"}``.
    others : iterable of str
        Further elements in the spectrum; their lines may overlap too.

    Returns
    -------
    list of Line
        In the order of the elements.

    Raises
    ------
    InputError
        If an element is unknown or has no line in the range, or a requested line does not exist.

    Examples
    --------
    >>> [line.name for line in choose_lines(["O", "Cu", "Nd", "U"], energy_range=(0.2, 20))]
    ['O Ka', 'Cu Ka', 'Nd La', 'U Ma']
    """
    wanted = list(dict.fromkeys(elements))
    everything = list(dict.fromkeys([*wanted, *others]))
    asked = _asked(lines, everything)
    chosen = []
    for element in wanted:
        if element in asked:
            line = _named(element, asked[element], beam_kev, energy_range)
        else:
            found = choose_line(element, energy_range, "quantify", beam_kev=beam_kev, others=everything)
            line = found or _refuse(element, beam_kev, energy_range)
        chosen.append(line)
    return chosen


def main_lines(table: Iterable[Line]) -> list[Line]:
    """The main line of each shell among the lines of one element: K, then L, then M."""
    families = {line.family: line for line in table}
    mains = (next((families[name] for name in names if name in families), None) for names in MAIN_FAMILIES.values())
    return [line for line in mains if line is not None]


def window_kev(energy_kev: float) -> tuple[float, float]:
    """Ends of the window about a line at this energy in keV, for the usual detector.

    Examples
    --------
    >>> [round(end, 3) for end in window_kev(1.74)]
    [1.691, 1.789]
    """
    half = WINDOW_FWHM / 2 * float(detector_fwhm(energy_kev))
    return energy_kev - half, energy_kev + half


def _asked(lines: Sequence[str] | Mapping[str, str], elements: Sequence[str]) -> dict[str, str]:
    """The families that the user chose, by element."""
    if isinstance(lines, str):
        lines = [lines]
    pairs = (
        [(element, split_name(line)[1] or plain_family(line)) for element, line in lines.items()]
        if isinstance(lines, Mapping)
        else [split_name(line) for line in lines]
    )
    for element, family in pairs:
        if element not in elements:
            raise InputError(
                f"the line {element} {family} belongs to none of the elements; {suggest(element, elements)}"
            )
        if not family:
            raise InputError(f"lines has {element!r} without a family; type something like '{element}_Ka'")
    return dict(pairs)


@lru_cache(maxsize=1024)
def _families(element: str, beam_kev: float) -> tuple[Line, ...]:
    """The families of an element with their intensities as generated, relative to the strongest."""
    return tuple(line_table([element], energy_range=(0.05, beam_kev), beam_kev=beam_kev, minimum=1e-3))


def _inside(line: Line, energy_range: tuple[float, float]) -> bool:
    low, high = window_kev(line.energy_kev)
    return energy_range[0] <= low and high <= energy_range[1]


def _named(element: str, family: str, beam_kev: float, energy_range: tuple[float, float]) -> Line:
    """The line of an element that the user chose, by family; refused where it is unknown or outside the axis."""
    table = {line.family: line for line in _families(element, beam_kev)}
    if family not in table:
        raise InputError(f"{element} has no line {family!r}; {suggest(family, table)}")
    line = table[family]
    if not _inside(line, energy_range):
        raise InputError(
            f"{element} {family} lies at {line.energy_kev:.3f} keV, outside the energy axis of "
            f"{energy_range[0]:.3f} to {energy_range[1]:.3f} keV; choose another line of {element}, or leave lines out"
        )
    return line


def _refuse(element: str, beam_kev: float, energy_range: tuple[float, float]) -> NoReturn:
    """Say where the main lines of an element lie, when none is on the axis of this range in keV."""
    main = main_lines(_families(element, beam_kev))
    at = ", ".join(f"{line.family} at {line.energy_kev:.3f} keV" for line in main)
    raise InputError(
        f"{element} has no main line on the energy axis of {energy_range[0]:.3f} to {energy_range[1]:.3f} keV "
        f"({at or 'it has none at all'}); leave {element} out"
    )


def _clearness(line: Line) -> tuple[bool, float]:
    """Order of lines to show: below 10 keV the hardest is best, above it the softest."""
    below = line.energy_kev <= HARD_KEV
    return below, line.energy_kev if below else -line.energy_kev


def _worth(line: Line, everything: Sequence[Line]) -> float:
    """Order of lines to quantify: expected counts times the trust in the shell times the squared purity of the window.

    `everything` holds the lines of all elements in the spectrum, including that of `line`.
    """
    low, high = window_kev(line.energy_kev)
    sigma = float(detector_fwhm(line.energy_kev)) / FWHM_PER_SIGMA
    own = sum(x.intensity for x in everything if x.element == line.element and low <= x.energy_kev <= high)
    overlapping = 0.0
    for other in everything:
        if other.element != line.element:
            # A rough estimate of the part of a line at that distance that falls into the window.
            distance = max(abs(other.energy_kev - line.energy_kev) - (high - low) / 2, 0.0)
            overlapping += other.intensity * float(np.exp(-0.5 * (distance / sigma) ** 2))
    trust = SOFT_TRUST if line.shell != "K" and line.energy_kev < SOFT_KEV else SHELL_TRUST[line.shell]
    purity = own / (own + overlapping)
    return line.intensity * trust * float(detector_efficiency([line.energy_kev])[0]) * purity**2
