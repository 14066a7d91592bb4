"""Templates to fit an EDX spectrum with: the lines of each shell of each element, and smooth shapes of the continuum.

The lines of one shell keep their ratios, which atomic physics knows well. Different shells of an element are fitted
independently: their ratio depends on cross sections and on the absorption of soft X-rays, which are known far less
well, and a wrong Fe L beside O Ka would change the oxygen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.physics.composition import mass_fractions
from scalehsi.physics.line_choice import WINDOW_FWHM
from scalehsi.physics.lines import Line, emission_lines
from scalehsi.physics.resolution import Width, detector_fwhm
from scalehsi.physics.xray_spectra import (
    LOWEST_KEV,
    beyond_ends,
    channel_edges,
    detector_efficiency,
    detector_response,
    foil_transmission,
    mass_attenuation,
    reach_kev,
)

CONTINUUM_SHAPES: Final = 3
"""Smooth shapes whose sum is the continuum: fewer bend too little over two decades of energy, more follow peaks."""
MARGIN_FWHM: Final = 1.3
"""The fit starts this many peak widths below the lowest line: noise and soft L lines below are not modelled."""
MIN_SHELL_FRACTION: Final = 0.01
"""A shell is omitted from the fit when less than this fraction of its lines lies on the fitted range."""
LINE_TOLERANCE_KEV: Final = 0.0003
"""Difference between tables of line energies. A channel whose centre is this close to the end of a window is inside:
else k-factors that were measured with another table would be wrong by a whole channel."""


class Foil(NamedTuple):
    """Thickness and density of the sample, beam energy and take-off angle; zero thickness means no absorption.

    Attributes
    ----------
    beam_kev : float
    thickness_nm, density : float
        Thickness in nm and density in g/cm^3.
    takeoff_deg : float
        Elevation of the detector above the foil, in degrees.
    """

    beam_kev: float = 200.0
    thickness_nm: float = 0.0
    density: float = 0.0
    takeoff_deg: float = 35.0

    @property
    def mass_path(self) -> float:
        """Mass in g/cm^2 that a photon from the far side passes on its way out."""
        return self.thickness_nm * 1e-7 * self.density / math.sin(math.radians(self.takeoff_deg))


class Columns(NamedTuple):
    """Templates for one composition. C shells, B continuum shapes, E channels, n quantified peaks.

    Attributes
    ----------
    shells : array (C, E)
        Counts of a shell for one electron and one atom per cm^2, as the detector records them.
    continuum : array (B, E)
    yields : array (n,)
        Counts of each peak (inside its window, or of its whole family) for the same.
    content : array (n,)
        Counts inside its window for the same.
    """

    shells: Float
    continuum: Float
    yields: Float
    content: Float


@dataclass(frozen=True, eq=False)
class Templates:
    """All lines of some elements on one energy axis; `columns` adds the absorption of a composition.

    Attributes
    ----------
    elements : tuple of str
        Quantified elements first, in their order, then those that are only fitted.
    peaks : tuple of Line, length n
        The line of each quantified element.
    shells : tuple of (str, str), length C
        Element and shell of each template.
    centres : array (C,), keV
        Energy of the main line of each shell.
    peak_shell : array of int (n,)
        Number of the shell to which each peak belongs.
    windows : array of bool (n, E)
        Whole channels whose centres lie within 0.6 peak widths of a peak.
    fitted : array of bool (E,)
        Channels that are fitted.
    counted : {"window", "family"}
        Whether the intensity of a peak means counts in its window or in all lines of its family.
    """

    energies: Float
    elements: tuple[str, ...]
    peaks: tuple[Line, ...]
    shells: tuple[tuple[str, str], ...]
    centres: Float
    peak_shell: np.ndarray[Any, np.dtype[np.int64]]
    windows: np.ndarray[Any, np.dtype[np.bool_]]
    fitted: np.ndarray[Any, np.dtype[np.bool_]]
    foil: Foil
    width: Width
    counted: str
    _lines: tuple[_Lines, ...]
    _axis: _Photons

    def columns(self, atomic_percent: Mapping[str, float] | None = None) -> Columns:
        """Templates for a foil of this composition, seen by the detector; without a composition nothing is absorbed."""
        fractions = None
        if atomic_percent and self.foil.mass_path > 0:
            fractions = mass_fractions(atomic_percent)
        edges = channel_edges(self.energies)
        shells = np.zeros((len(self.shells), self.energies.size))
        family = np.zeros(len(self.peaks))
        for number, lines in enumerate(self._lines):
            counted = lines.weights * self._detected(lines.photons, fractions)
            shells[number] = detector_response(lines.photons.energies, counted, edges, self.width)
            for i in np.flatnonzero(self.peak_shell == number):
                family[i] = counted[np.array(lines.families) == self.peaks[i].family].sum()
        content = (shells[self.peak_shell] * self.windows).sum(axis=1)
        yields = content if self.counted == "window" else family
        return Columns(shells, self._continuum(fractions, edges), yields, content)

    def attenuation(self) -> Float:
        """Mass attenuation in cm^2/g of each peak (rows) in each quantified element (columns)."""
        energies = [peak.energy_kev for peak in self.peaks]
        return np.stack([mass_attenuation({peak.element: 1.0}, energies) for peak in self.peaks], axis=1)

    def fitted_lines(self, parts: Float) -> list[Line]:
        """All lines, with their counts as intensity, where the shells have the counts `parts` (C, E) in a fit."""
        found = []
        for (element, _), lines, total in zip(self.shells, self._lines, parts.sum(axis=1), strict=True):
            strength = _strengths(lines)
            counts = total * strength / strength.sum()
            found += [Line(element, *each) for each in zip(lines.families, lines.photons.energies, counts, strict=True)]
        return found

    def _detected(self, photons: _Photons, fractions: Mapping[str, float] | None) -> Float:
        """Fraction of photons that leave the foil and are counted."""
        if fractions is None:
            return photons.efficiency
        weights = np.array([fractions.get(element, 0.0) for element in self.elements])
        return photons.efficiency * foil_transmission(weights @ photons.attenuation * self.foil.mass_path)

    def _continuum(self, fractions: Mapping[str, float] | None, edges: Float) -> Float:
        """Kramers' continuum after absorption and detection, divided by overlapping triangles in log energy."""
        photons = self._axis
        kramers = np.maximum(1 / photons.energies - 1 / self.foil.beam_kev, 0.0)
        detected = kramers * self._detected(photons, fractions) * np.gradient(photons.energies)
        smooth = detector_response(photons.energies, detected, edges, self.width)
        low, high = self.energies[self.fitted][[0, -1]]
        place = np.log(np.clip(self.energies, low, high) / low) / np.log(high / low)
        knots = np.linspace(0, 1, CONTINUUM_SHAPES)
        shapes: Float = np.maximum(0.0, 1 - np.abs(place - knots[:, None]) * (CONTINUUM_SHAPES - 1)) * smooth
        return shapes


class _Photons(NamedTuple):
    """Photons of some energies (N,): the detector's efficiency, and the attenuation by each element (n, N)."""

    energies: Float
    efficiency: Float
    attenuation: Float


class _Lines(NamedTuple):
    """The lines of one shell: weights (N,) are cross sections in cm^2 per atom."""

    photons: _Photons
    weights: Float
    families: tuple[str, ...]


def make_templates(
    peaks: Sequence[Line],
    energies: Float,
    *,
    extra: Sequence[str] = (),
    foil: Foil = Foil(),  # noqa: B008 - a NamedTuple cannot change
    width: Width = detector_fwhm,
    counted: str = "window",
    fitted_kev: tuple[float, float] | None = None,
) -> Templates:
    """Collect the lines of the elements and everything about them that does not depend on the composition.

    Parameters
    ----------
    peaks : sequence of Line
        One for each quantified element, of `scalehsi.physics.line_choice.choose_lines`.
    energies : array, shape (E,), keV
        Rising channel centres.
    extra : sequence of str
        Elements that are fitted but not quantified.
    foil : Foil
    width : callable
        Full width at half maximum in keV as a function of energy in keV.
    counted : {"window", "family"}
        What the intensity of a peak means: counts in its window of 1.2 widths, or of its whole family.
    fitted_kev : (float, float), keV, optional
        Range that is fitted; by default from 1.3 peak widths below the lowest line to the end of the axis.

    Returns
    -------
    Templates

    Examples
    --------
    >>> from scalehsi.physics.line_choice import choose_lines
    >>> energies = np.linspace(0.2, 20, 1980)
    >>> made = make_templates(choose_lines(["O", "Fe"], energy_range=(0.2, 20)), energies)
    >>> made.shells
    (('O', 'K'), ('Fe', 'K'), ('Fe', 'L'))
    """
    elements = tuple(dict.fromkeys([*(peak.element for peak in peaks), *extra]))
    lowest = min(peak.energy_kev for peak in peaks)
    start, end = fitted_kev or (lowest - MARGIN_FWHM * float(width(lowest)), float(energies[-1]))
    fitted = (energies >= start) & (energies <= end)
    shells, lines, centres = [], [], []
    for element in elements:
        for shell in "KLM":
            found = _lines_of(element, shell, energies, elements, foil, width)
            quantified = any((peak.element, peak.shell) == (element, shell) for peak in peaks)
            if found is not None and (quantified or _is_visible(found, start, end)):
                shells.append((element, shell))
                lines.append(found)
                centres.append(_centre(found))
    peak_shell = np.array([shells.index((peak.element, peak.shell)) for peak in peaks])
    for peak, number in zip(peaks, peak_shell, strict=True):
        centres[number] = peak.energy_kev
    middle = np.array([peak.energy_kev for peak in peaks])
    # On a coarse axis a window would lie between two channels, and hold no counts at all.
    half = np.maximum(WINDOW_FWHM / 2 * width(middle), 0.5 * np.diff(energies).max())
    axis = beyond_ends(energies, reach_kev(energies, width))
    return Templates(
        energies=energies,
        elements=elements,
        peaks=tuple(peaks),
        shells=tuple(shells),
        centres=np.array(centres),
        peak_shell=peak_shell,
        windows=np.abs(energies - middle[:, None]) <= half[:, None] + LINE_TOLERANCE_KEV,
        fitted=fitted,
        foil=foil,
        width=width,
        counted=counted,
        _lines=tuple(lines),
        _axis=_photons(axis, elements, foil),
    )


def _photons(energies: Float, elements: Sequence[str], foil: Foil) -> _Photons:
    """Look up efficiency, and attenuation by the elements where the foil has a thickness, at some energies in keV."""
    if foil.mass_path > 0:
        attenuation = np.stack([mass_attenuation({element: 1.0}, energies) for element in elements])
    else:
        attenuation = np.zeros((len(elements), energies.size))
    return _Photons(energies, detector_efficiency(energies), attenuation)


def _lines_of(
    element: str, shell: str, energies: Float, elements: Sequence[str], foil: Foil, width: Width
) -> _Lines | None:
    """The lines of a shell of an element that reach an axis of these energies, by rising energy; None without any.

    `elements` are those whose attenuation is needed; `foil` gives the beam energy; `width` is the peak width, which
    decides how far lines reach.
    """
    reach = reach_kev(energies, width)
    low, high = max(LOWEST_KEV, energies[0] - reach), energies[-1] + reach
    found = [x for x in emission_lines(element, foil.beam_kev) if x.shell == shell and low < x.energy_kev < high]
    if not found:
        return None
    found.sort(key=lambda line: line.energy_kev)
    at = np.array([line.energy_kev for line in found])
    return _Lines(
        _photons(at, elements, foil), np.array([line.intensity for line in found]), tuple(line.family for line in found)
    )


def _strengths(lines: _Lines) -> Float:
    return lines.weights * lines.photons.efficiency


def _centre(lines: _Lines) -> float:
    """Mean energy of the family of a shell from which most counts come."""
    strength, families = _strengths(lines), np.array(lines.families)
    main = max(set(lines.families), key=lambda family: (strength[families == family].sum(), family))
    here = families == main
    return float(np.average(lines.photons.energies[here], weights=strength[here]))


def _is_visible(lines: _Lines, start: float, end: float) -> bool:
    """Whether a shell that is not quantified has enough lines on the fitted range from `start` to `end` in keV.

    A shell whose main line lies below would contribute its least known lines only, and is omitted.
    """
    inside = (lines.photons.energies >= start) & (lines.photons.energies <= end)
    strength = _strengths(lines)
    return _centre(lines) >= start and float(strength[inside].sum()) > MIN_SHELL_FRACTION * float(strength.sum())
