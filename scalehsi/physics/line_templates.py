"""What a spectrum is taken apart into: the lines of each shell of each element, and smooth shapes of the continuum.

The lines of one shell keep their ratios, which atomic physics knows well. Different shells of an element are fitted
apart: their balance hangs on cross sections and on the absorption of soft X-rays, which are known far less well, and a
wrong Fe L beside O Ka would change the oxygen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from scalehsi.arrays import Float
from scalehsi.physics.line_choice import WINDOW, Peak
from scalehsi.physics.lines import emission_lines
from scalehsi.physics.xray_spectra import (
    LOWEST_KEV,
    beyond_ends,
    channel_edges,
    detector_efficiency,
    detector_response,
    foil_transmission,
    linear_fwhm,
    mass_attenuation,
    mass_fractions,
    reach_kev,
)

Width = Callable[[ArrayLike], Float]

CONTINUUM: Final = 3
"""Smooth shapes whose sum is the continuum: fewer bend too little over two decades of energy, more follow peaks."""
BELOW: Final = 1.3
"""The fit starts so many peak widths below the lowest line: what lies deeper (noise, soft L lines) is not modelled."""
WORTH: Final = 0.01
"""A shell is left out of the fit when less than this part of its lines falls onto the fitted range."""
SIDES: Final = (0.8, 1.2)
"""Side windows on both sides of a peak, in peak widths from its middle: near, so that the continuum is straight."""

TABLES_KEV: Final = 0.0003
"""Tables of line energies differ by so much. A channel whose centre is that near to the end of a window is inside, or
k-factors that were measured with another table would be off by a whole channel."""

MN_KA_KEV: Final = 5.8951
FANO: Final = 2.33e-3
"""Growth of the squared width with energy, keV: 8 ln 2, Fano's factor 0.115, and 3.65 eV for a pair in silicon."""


class Foil(NamedTuple):
    """The sample and how it is seen; a thickness of zero stands for no absorption.

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
        """Grams a cm^2 that a photon born at the far side passes on its way out."""
        return self.thickness_nm * 1e-7 * self.density / math.sin(math.radians(self.takeoff_deg))


class Columns(NamedTuple):
    """Templates for one composition. C shells, B continuum shapes, E channels, n quantified peaks.

    Attributes
    ----------
    shells : array (C, E)
        Counts of a shell for one photon generated per atom and cm^2 of cross section, as the detector sees them.
    continuum : array (B, E)
    yields : array (n,)
        Counts of each peak (inside its window, or its whole family) for the same.
    content : array (n,)
        Those inside its window.
    """

    shells: Float
    continuum: Float
    yields: Float
    content: Float


def width_of(resolution_ev: float) -> Width:
    """Peak width (keV) as a function of energy (keV) for a detector of a given resolution at Mn Ka in eV.

    Examples
    --------
    >>> width_of(130.0)([5.8951, 0.525]).round(4).tolist()
    [0.13, 0.0662]
    """

    def width(energy_kev: ArrayLike) -> Float:
        energy = np.asarray(energy_kev, dtype=np.float64)
        return np.sqrt(np.maximum((resolution_ev * 1e-3) ** 2 + FANO * (energy - MN_KA_KEV), 0.03**2))

    return width


def scaled_width(factor: float) -> Width:
    """The usual peak width, 0.01 E + 0.065 keV, times a factor."""
    return lambda energy_kev: factor * linear_fwhm(energy_kev)


@dataclass(frozen=True, eq=False)
class Templates:
    """All lines of some elements on one energy axis, ready to be dressed with the absorption of any composition.

    Attributes
    ----------
    elements : tuple of str
        Quantified ones first, in their order, then those that are only fitted.
    peaks : tuple of Peak, length n
        What stands for each quantified element.
    shells : tuple of (str, str), length C
        Element and shell of each template.
    own : array of int (n,)
        Number of the shell that holds each peak.
    windows : array of bool (n, E)
        Whole channels whose centres lie within 0.6 peak widths of a peak.
    used : array of bool (E,)
        Channels that are fitted.
    """

    energies: Float
    elements: tuple[str, ...]
    peaks: tuple[Peak, ...]
    shells: tuple[tuple[str, str], ...]
    centres: Float
    own: np.ndarray[Any, np.dtype[np.int64]]
    windows: np.ndarray[Any, np.dtype[np.bool_]]
    used: np.ndarray[Any, np.dtype[np.bool_]]
    foil: Foil
    width: Width
    counted: str
    _lines: tuple[_Lines, ...]
    _axis: _Photons

    def columns(self, atomic_percent: Mapping[str, float] | None = None) -> Columns:
        """Templates as a foil of this composition and the detector make them; without one, as without absorption."""
        fractions = None
        if atomic_percent and self.foil.mass_path > 0:
            fractions = mass_fractions(atomic_percent)
        edges = channel_edges(self.energies)
        shells = np.zeros((len(self.shells), self.energies.size))
        family = np.zeros(len(self.peaks))
        for number, lines in enumerate(self._lines):
            counted = lines.weights * self._seen(lines.photons, fractions)
            shells[number] = detector_response(lines.photons.energies, counted, edges, self.width)
            for i in np.flatnonzero(self.own == number):
                family[i] = counted[np.array(lines.families) == self.peaks[i].family].sum()
        content = (shells[self.own] * self.windows).sum(axis=1)
        yields = content if self.counted == "window" else family
        return Columns(shells, self._continuum(fractions, edges), yields, content)

    def attenuation(self) -> Float:
        """Mass attenuation in cm^2/g of each peak (rows) in each quantified element (columns)."""
        energies = [peak.energy_kev for peak in self.peaks]
        return np.stack([mass_attenuation({peak.element: 1.0}, energies) for peak in self.peaks], axis=1)

    def _seen(self, photons: _Photons, fractions: Mapping[str, float] | None) -> Float:
        """Share of photons that leave the foil and are counted."""
        if fractions is None:
            return photons.efficiency
        weights = np.array([fractions.get(element, 0.0) for element in self.elements])
        return photons.efficiency * foil_transmission(weights @ photons.attenuation * self.foil.mass_path)

    def _continuum(self, fractions: Mapping[str, float] | None, edges: Float) -> Float:
        """Kramers' shape, absorbed and counted, cut softly into parts along the logarithm of the energy."""
        photons = self._axis
        kramers = np.maximum(1 / photons.energies - 1 / self.foil.beam_kev, 0.0)
        seen = kramers * self._seen(photons, fractions) * np.gradient(photons.energies)
        smooth = detector_response(photons.energies, seen, edges, self.width)
        low, high = self.energies[self.used][[0, -1]]
        place = np.log(np.clip(self.energies, low, high) / low) / np.log(high / low)
        knots = np.linspace(0, 1, CONTINUUM)
        shapes: Float = np.maximum(0.0, 1 - np.abs(place - knots[:, None]) * (CONTINUUM - 1)) * smooth
        return shapes


class _Photons(NamedTuple):
    """Photons of some energies (N,): what the detector counts of them, and what elements (n, N) take away."""

    energies: Float
    efficiency: Float
    attenuation: Float


class _Lines(NamedTuple):
    """The lines of one shell: weights (N,) are cross sections in cm^2 per atom."""

    photons: _Photons
    weights: Float
    families: tuple[str, ...]


def make_templates(
    peaks: Sequence[Peak],
    energies: Float,
    *,
    extra: Sequence[str] = (),
    foil: Foil = Foil(),  # noqa: B008 - a NamedTuple cannot change
    width: Width = linear_fwhm,
    counted: str = "window",
    fitted_kev: tuple[float, float] | None = None,
) -> Templates:
    """Collect the lines of the elements and everything about them that does not hang on the composition.

    Parameters
    ----------
    peaks : sequence of Peak
        One for each quantified element.
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
        Range that is fitted; by default from 1.5 peak widths below the lowest line to the end of the axis.

    Returns
    -------
    Templates

    Examples
    --------
    >>> from scalehsi.physics.line_choice import choose_peaks
    >>> energies = np.linspace(0.2, 20, 1980)
    >>> made = make_templates(choose_peaks(["O", "Fe"], energy_range=(0.2, 20)), energies)
    >>> made.shells
    (('O', 'K'), ('Fe', 'K'), ('Fe', 'L'))
    """
    elements = tuple(dict.fromkeys([*(peak.element for peak in peaks), *extra]))
    lowest = min(peak.energy_kev for peak in peaks)
    start, end = fitted_kev or (lowest - BELOW * float(width(lowest)), float(energies[-1]))
    used = (energies >= start) & (energies <= end)
    shells, lines, centres = [], [], []
    for element in elements:
        for shell in "KLM":
            found = _lines_of(element, shell, energies, elements, foil.beam_kev, width)
            quantified = any(peak.element == element and peak.family[0] == shell for peak in peaks)
            if found is not None and (quantified or _worthwhile(found, start, end)):
                shells.append((element, shell))
                lines.append(found)
                centres.append(_centre(found))
    own = np.array([shells.index((peak.element, peak.family[0])) for peak in peaks])
    for peak, number in zip(peaks, own, strict=True):
        centres[number] = peak.energy_kev
    middle = np.array([peak.energy_kev for peak in peaks])
    half = WINDOW / 2 * width(middle)
    photons = beyond_ends(energies, reach_kev(energies, width))
    return Templates(
        energies=energies,
        elements=elements,
        peaks=tuple(peaks),
        shells=tuple(shells),
        centres=np.array(centres),
        own=own,
        windows=np.abs(energies - middle[:, None]) <= half[:, None] + TABLES_KEV,
        used=used,
        foil=foil,
        width=width,
        counted=counted,
        _lines=tuple(lines),
        _axis=_photons(photons, elements),
    )


def _photons(energies: Float, elements: Sequence[str]) -> _Photons:
    attenuation = np.stack([mass_attenuation({element: 1.0}, energies) for element in elements])
    return _Photons(energies, detector_efficiency(energies), attenuation)


def _lines_of(
    element: str, shell: str, energies: Float, elements: Sequence[str], beam_kev: float, width: Width
) -> _Lines | None:
    """The lines of a shell that reach the axis, by rising energy; None where there are none."""
    reach = reach_kev(energies, width)
    low, high = max(LOWEST_KEV, energies[0] - reach), energies[-1] + reach
    found = [x for x in emission_lines(element, beam_kev) if x.family[0] == shell and low < x.energy_kev < high]
    if not found:
        return None
    found.sort(key=lambda line: line.energy_kev)
    at = np.array([line.energy_kev for line in found])
    return _Lines(
        _photons(at, elements), np.array([line.intensity for line in found]), tuple(line.family for line in found)
    )


def _strengths(lines: _Lines) -> Float:
    return lines.weights * lines.photons.efficiency


def _centre(lines: _Lines) -> float:
    """Mean energy of the family of a shell from which most counts come."""
    strength, families = _strengths(lines), np.array(lines.families)
    main = max(set(lines.families), key=lambda family: (strength[families == family].sum(), family))
    here = families == main
    return float(np.average(lines.photons.energies[here], weights=strength[here]))


def _worthwhile(lines: _Lines, start: float, end: float) -> bool:
    """Whether a shell that nobody quantifies shows on the fitted range.

    One whose main line lies below shows with its least known lines only, and is left out.
    """
    inside = (lines.photons.energies >= start) & (lines.photons.energies <= end)
    strength = _strengths(lines)
    return _centre(lines) >= start and float(strength[inside].sum()) > WORTH * float(strength.sum())
