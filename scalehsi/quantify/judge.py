"""Judge the fit of an X-ray spectrum: which peaks are there, and what the residual still holds.

Pure functions of small arrays. All thresholds are in units of counting noise times the variance index of the data.
The rates were measured on simulated sums of 1e5 counts with planted faults, and on measured maps.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float, NumpyArray
from scalehsi.physics.line_templates import Templates
from scalehsi.physics.net_counts import MIN_EXPECTED, PeakFit
from scalehsi.physics.peaks import peak_areas
from scalehsi.physics.resolution import Width

FOUND_SIGMAS: Final = 3.0
MISFIT: Final = 3.0
"""Mean squared residual of a window, in units of its noise, above which the peak has another shape than the data."""
LIKENESS: Final = 0.8
"""Squared cosine between data and fitted lines below which a misfit means that the peak belongs to another line."""
WINDOW_FWHM: Final = 0.75
"""Half width of the window of these two, in peak widths."""
HIDDEN_RATIO: Final = 3.0
HIDDEN_FWHM: Final = 0.6
REDUCED_CHI_SQUARE: Final = 3.0

BUMP_SIGMAS: Final = 6.0
BUMP_SHARE: Final = 0.01
CENTRAL_SHARE: Final = 0.4
"""Part of a bump's counts that must lie within half a peak width of it; a Gaussian has 0.76 there."""
EXPLAINED_FWHM: Final = 1.3
EXPLAINED_SHARE: Final = 1.0
FAINT_SHARE: Final = 0.05
WING_FWHM: Final = 2.0
WING_RATIO: Final = 10.0


class Verdict(NamedTuple):
    """What the fit says about each quantified peak, arrays (n,).

    Attributes
    ----------
    sigmas : array
        Net counts in standard errors.
    misfit : array
        Mean squared residual within 0.75 peak widths, in units of the noise.
    likeness : array
        Squared cosine between the data above the continuum and the fitted lines there.
    others : array
        Counts of other elements' lines within 0.6 peak widths, relative to the peak's own.
    limit : array
        Net counts that the data do not exclude: three standard errors above those found.
    """

    sigmas: Float
    misfit: Float
    likeness: Float
    others: Float
    limit: Float

    @property
    def foreign(self) -> NumpyArray:
        """Peaks that have another shape than the data: the counts belong to the flank of another line."""
        return (self.sigmas >= FOUND_SIGMAS) & (self.misfit > MISFIT) & (self.likeness < LIKENESS)

    @property
    def missing(self) -> NumpyArray:
        """Peaks that were not found (`element_not_found`).

        Threshold: net counts below 3 standard errors, or `foreign`. Rate: Hf listed where Cu has 1 % or more of 1e5
        counts: 20 of 20, 0.5 %: 18 of 20. False: 0 of 128 clean sums of 1e4 to 1e7 counts (bench `composition`).
        """
        return ~(self.sigmas >= FOUND_SIGMAS) | self.foreign

    @property
    def hidden(self) -> NumpyArray:
        """Peaks under those of other elements (`element_hidden`).

        Threshold: the others have more than 3 times the counts. Rate: Hf in a measured map of minerals (5.1). False: 0
        of 128 clean sums.
        """
        return ~self.missing & (self.others > HIDDEN_RATIO)

    @property
    def shown(self) -> NumpyArray:
        """Peaks whose net counts are a number; the others have an upper limit."""
        return ~(self.missing | self.hidden)


def judge_peaks(x: Float, fit: PeakFit, templates: Templates, unit: float) -> Verdict:
    """Judge the peaks of a fit.

    Parameters
    ----------
    x : array (E,)
        The spectrum.
    fit : PeakFit
    templates : Templates
    unit : float
        Variance of the noise relative to the expected value: 1 for counts.
    """
    centres = np.array([peak.energy_kev for peak in templates.peaks])
    std = np.sqrt(np.maximum(np.diag(fit.covariance), 0.0) * unit)
    with np.errstate(divide="ignore", invalid="ignore"):
        sigmas = np.where(std > 0, fit.intensity / std, 0.0)
    misfit, likeness = window_misfit(x, fit, templates.energies, centres, templates.width, unit)
    total, others = fit.parts.sum(axis=0), []
    for peak, centre in zip(templates.peaks, centres, strict=True):
        inside = np.abs(templates.energies - centre) <= HIDDEN_FWHM * float(templates.width(centre))
        mine = [number for number, (element, _) in enumerate(templates.shells) if element == peak.element]
        own = float(fit.parts[mine][:, inside].sum())
        others.append((float(total[inside].sum()) - own) / max(own, 1e-12 * max(float(x.sum()), 1e-300)))
    return Verdict(sigmas, misfit, likeness, np.array(others), np.maximum(fit.intensity, 0.0) + FOUND_SIGMAS * std)


def window_misfit(
    x: Float, fit: PeakFit, energies: Float, centres: Float, width: Width, unit: float
) -> tuple[Float, Float]:
    """Misfit and likeness (see `Verdict`) in windows about some energies.

    Parameters
    ----------
    x, energies : array (E,)
    fit : PeakFit
    centres : array (n,), keV
    width : callable
        Full width at half maximum in keV as a function of energy in keV.
    unit : float
        As in `judge_peaks`.
    """
    misfit, likeness = np.zeros(len(centres)), np.ones(len(centres))
    lines, above, off = fit.model - fit.background, x - fit.background, x - fit.model
    step, floor = float(np.diff(energies).max()), _floor(x)
    for number, centre in enumerate(centres):
        half = max(WINDOW_FWHM * float(width(centre)), step)
        inside = (np.abs(energies - centre) <= half) & np.isfinite(fit.model)
        if not inside.any():
            continue
        noise = unit * np.maximum(fit.model[inside], floor)
        misfit[number] = float(np.mean(off[inside] ** 2 / noise))
        norm = float((above[inside] ** 2).sum() * (lines[inside] ** 2).sum())
        likeness[number] = float(above[inside] @ lines[inside]) ** 2 / norm if norm > 0 else 0.0
    return misfit, likeness


class Bump(NamedTuple):
    """A peak in the residual.

    Attributes
    ----------
    energy : float, keV
    area : float
        Its counts.
    sigmas : float
        The same in standard deviations of the noise.
    share : float
        Relative to the strongest fitted line.
    explained : bool
        Whether a fitted line is near enough: then it is a wrong shape of that line.
    beside : bool
        Whether it is not explained, but a faint fitted line is near: it is another element's only if one fits.
    """

    energy: float
    area: float
    sigmas: float
    share: float
    explained: bool
    beside: bool


def residual_bumps(
    x: Float, parts: Float, background: Float, templates: Templates, unit: float, *, least_share: float = BUMP_SHARE
) -> list[Bump]:
    """The peaks in the residual of a fit, strongest first (`unexplained_peak` and `peak_shape`).

    Threshold: 6 standard deviations, and 1 % of the strongest fitted line. A bump is explained by a line within 1.3
    peak widths that has at least its counts, or within 2 widths of one that has 10 times as many: wings of
    real peaks are wider than a Gaussian. Rate: a grid of Cu in 1 % of 1e5 counts 20 of 20, in 0.5 % none, as it stays
    below 1 % of the strongest line there. False: 0 of 128 clean sums of 1e4 to 1e7 counts; wrong shapes of the lines of
    Ga L, whose absorption is not in the model, in 6 of 128 (`tests/bench/composition.py`).

    Parameters
    ----------
    x, background : array (E,)
    parts : array (C, E)
        Counts of each shell in the fit.
    templates : Templates
    unit : float
        As in `judge_peaks`.
    least_share : float
        Smallest size of a bump relative to the strongest fitted line.
    """
    model = parts.sum(axis=0) + background
    inside = templates.fitted
    residual = np.where(inside, x - model, np.nan)
    area, sigmas = peak_areas(templates.energies, residual, unit * np.maximum(model, _floor(x)), templates.width)
    lines = templates.fitted_lines(parts)
    at, counts = np.array([line.energy_kev for line in lines]), np.array([line.intensity for line in lines])
    strongest = strongest_line(parts, templates)
    centre = np.r_[False, (area[1:-1] >= area[:-2]) & (area[1:-1] > area[2:]), False]
    wanted = np.flatnonzero(inside & centre & (sigmas >= BUMP_SIGMAS) & (area >= least_share * strongest))
    found: list[Bump] = []
    for channel in sorted(wanted, key=lambda channel: -area[channel]):
        energy, size = float(templates.energies[channel]), float(area[channel])
        width = float(templates.width(energy))
        if any(abs(other.energy - energy) < width for other in found):
            continue
        # The filter also rises beside a negative residual, where no counts are.
        middle = np.abs(templates.energies - energy) <= 0.5 * width
        if float(np.nansum(residual[middle])) < CENTRAL_SHARE * size:
            continue
        near, wing = (
            float(counts[np.abs(at - energy) <= reach * width].sum()) for reach in (EXPLAINED_FWHM, WING_FWHM)
        )
        explained = near >= EXPLAINED_SHARE * size or wing >= WING_RATIO * size
        share = size / strongest if strongest > 0 else np.inf
        beside = not explained and near >= FAINT_SHARE * size
        found.append(Bump(energy, size, float(sigmas[channel]), share, explained, beside))
    return found


def strongest_line(parts: Float, templates: Templates) -> float:
    """Counts of the strongest line of a fit whose shells have the counts `parts` (C, E)."""
    tops = parts.argmax(axis=1)
    half = HIDDEN_FWHM * templates.width(templates.energies[tops])
    windows = np.abs(templates.energies - templates.energies[tops][:, None]) <= half[:, None]
    return float((parts * windows).sum(axis=1).max(initial=0.0))


def line_shift(x: Float, fit: PeakFit, energies: Float, centre: float, half: float) -> tuple[float, float]:
    """Distance in keV of a peak above its line, and the part of the misfit that this distance explains.

    `x` and `energies` are arrays (E,); the window reaches `half` keV to both sides of the line's energy `centre`.
    """
    inside = (np.abs(energies - centre) <= half) & np.isfinite(fit.model)
    if inside.sum() < 3:
        return 0.0, 0.0
    slope = -np.gradient(fit.model - fit.background, energies)[inside]
    weight = 1 / np.maximum(fit.model[inside], _floor(x))
    off = (x - fit.model)[inside]
    power = float((weight * slope**2).sum())
    if power <= 0:
        return 0.0, 0.0
    along = float((weight * slope * off).sum())
    whole = float((weight * off**2).sum())
    return along / power, along**2 / power / whole if whole > 0 else 0.0


def _floor(x: Float) -> float:
    """Smallest expected counts of a channel: it prevents a division by zero."""
    return max(MIN_EXPECTED * float(x.mean()), 1e-300)
