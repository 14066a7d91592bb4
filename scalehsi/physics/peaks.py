"""Find the peaks of an X-ray spectrum, and the onsets of an EELS spectrum, that stand above the noise."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d

from scalehsi.arrays import NumpyArray
from scalehsi.physics.resolution import FWHM_PER_SIGMA, USUAL_RESOLUTION_EV, Width, detector_fwhm

SIGNIFICANCE: Final = 6.0
"""A peak must rise this many standard deviations of the noise above its surroundings."""
MIN_PEAK_TO_CONTINUUM: Final = 0.15
MIN_PEAK_TO_MAXIMUM: Final = 5e-4
FILTER_FWHM: Final = 1.5
"""The filter that finds peaks in a residual reaches this many peak widths to both sides."""
LOWEST_PEAK_KEV: Final = 0.1
"""Below lies the zero-strobe peak of the electronics."""


class Peaks(NamedTuple):
    """Peaks in order of rising energy.

    Attributes
    ----------
    energy : array (n,), keV
    net : array (n,)
        Height above the surroundings, in the spectrum's unit.
    tolerance : array (n,), keV
        Largest distance of a line from its peak.
    axis : array (E,), keV
    threshold : array (E,)
        Net height that a peak needs to be detected, for each channel.
    """

    energy: NumpyArray
    net: NumpyArray
    tolerance: NumpyArray
    axis: NumpyArray
    threshold: NumpyArray

    def nearest(self, energy: float) -> int | None:
        """Index of the peak that a line at this energy (keV) would make, or None."""
        if not self.energy.size:
            return None
        index = int(np.argmin(np.abs(self.energy - energy)))
        return index if abs(self.energy[index] - energy) <= self.tolerance[index] else None

    def in_range(self, energy: float) -> bool:
        """Whether the axis reaches this energy (keV)."""
        return bool(max(self.axis[0], LOWEST_PEAK_KEV) < energy < self.axis[-1])

    def visible(self, energy: float, net: float) -> bool:
        """Whether a peak of this net height at this energy (keV) would exceed twice the threshold."""
        return self.in_range(energy) and net > 2.0 * float(np.interp(energy, self.axis, self.threshold))


def usual_fwhm(energy_kev: ArrayLike) -> NumpyArray:
    """Full width at half maximum in keV of a line on a usual silicon drift detector."""
    return detector_fwhm(energy_kev, USUAL_RESOLUTION_EV)


def smooth(energy_kev: NumpyArray, spectrum: NumpyArray) -> tuple[NumpyArray, float]:
    """Smooth with 0.4 of the detector's width; return the spectrum and the fraction of the noise that remains."""
    sigma = 0.4 * float(usual_fwhm(2.0)) / FWHM_PER_SIGMA / _step(energy_kev)
    if sigma < 0.4:
        return spectrum, 1.0
    return gaussian_filter1d(spectrum, sigma, mode="nearest"), min(1.0, (2.0 * np.sqrt(np.pi) * sigma) ** -0.5)


def noise(energy_kev: NumpyArray, spectrum: NumpyArray, intensity: NumpyArray | None = None) -> NumpyArray:
    """Standard deviation of the noise of each channel (E,), for any gain.

    Noise is assumed to grow with the square root of the intensity, as counting noise does; the second differences of
    the spectrum give the factor. Few channels belong to peaks, so these do not affect the median.

    Parameters
    ----------
    energy_kev : array (E,)
    spectrum : array (E,)
        The noisy values.
    intensity : array (E,), optional
        Counted intensity, where this is not the spectrum itself: the mean spectrum, for a residual.
    """
    counted = np.maximum(spectrum if intensity is None else intensity, 0.0)
    level = gaussian_filter1d(counted, max(0.1 / _step(energy_kev), 2.0), mode="nearest")
    filled = level > 1e-6 * level.max(initial=0.0)
    inner = filled[1:-1]
    if not inner.any():
        return np.zeros_like(level)
    differences = np.diff(spectrum, 2)[inner] / np.sqrt(6.0 * level[1:-1][inner])
    # Sparse counts are mostly zeros, and so is their median; the mean square of the lower 95 % is not.
    size = np.abs(differences)
    kept = size[size <= np.quantile(size, 0.95)]
    factor = max(1.4826 * float(np.median(size)), float(np.sqrt(np.mean(kept**2))))
    deviation: NumpyArray = factor * np.sqrt(level)
    return deviation


def find_peaks(energy_kev: NumpyArray, spectrum: NumpyArray) -> Peaks:
    """Find the peaks of an X-ray spectrum above noise and continuum.

    Parameters
    ----------
    energy_kev : array (E,)
        Rising, evenly spaced.
    spectrum : array (E,)
        Any unit; NaN counts as zero.

    Returns
    -------
    Peaks
    """
    spectrum = np.nan_to_num(np.asarray(spectrum, dtype=np.float64))
    smoothed, remaining = smooth(energy_kev, spectrum)
    step = _step(energy_kev)
    window = max(5, round(6 * float(usual_fwhm(5.0)) / step) | 1)
    threshold = SIGNIFICANCE * remaining * noise(energy_kev, spectrum)
    threshold += MIN_PEAK_TO_MAXIMUM * smoothed.max(initial=0.0)
    places, net = _maxima(smoothed, window)
    keep = (net > threshold[places]) & (net > MIN_PEAK_TO_CONTINUUM * (smoothed[places] - net))
    keep &= energy_kev[places] > LOWEST_PEAK_KEV
    places, net = places[keep], net[keep]
    energy = _refine(energy_kev, smoothed, places)
    tolerance = 0.35 * usual_fwhm(energy) + 0.5 * step + 1e-3 * energy
    return Peaks(energy, net, tolerance, energy_kev, threshold)


def peak_areas(
    energy_kev: NumpyArray, residual: NumpyArray, variance: NumpyArray, width: Width
) -> tuple[NumpyArray, NumpyArray]:
    """Area and significance of a peak of the detector's width that a residual may hold, for each channel.

    The residual is multiplied by a Gaussian less its mean over 1.5 widths to both sides, so a wrong level of the
    continuum counts as no peak.

    Parameters
    ----------
    energy_kev : array (E,)
        Rising, evenly spaced.
    residual : array (E,)
        Data less model; NaN counts as not measured.
    variance : array (E,)
        Variance of the noise of each channel.
    width : callable
        Full width at half maximum in keV as a function of energy in keV.

    Returns
    -------
    area, z : array (E,)
        Counts in the peak, and these in standard deviations.
    """
    step = _step(energy_kev)
    fwhm = width(energy_kev)
    half = max(math.ceil(FILTER_FWHM * float(fwhm.max()) / step), 2)
    away = np.arange(-half, half + 1) * step
    measured = np.isfinite(residual)

    def around(values: NumpyArray) -> NumpyArray:
        """The values of the neighbours of each channel (E, W), zero beyond the ends."""
        return np.lib.stride_tricks.sliding_window_view(np.pad(values, half), away.size)

    inside = around(measured.astype(np.float64)) * (np.abs(away) <= np.maximum(FILTER_FWHM * fwhm, 2 * step)[:, None])
    sigma2 = (fwhm / FWHM_PER_SIGMA) ** 2 + step**2 / 12
    shape = np.exp(-0.5 * away**2 / sigma2[:, None]) * step / np.sqrt(2 * np.pi * sigma2[:, None])
    count = np.maximum(inside.sum(axis=1, keepdims=True), 1.0)
    kernel = (shape - (shape * inside).sum(axis=1, keepdims=True) / count) * inside
    scale = np.maximum((kernel * shape).sum(axis=1), 1e-300)
    area = (kernel * around(np.where(measured, residual, 0.0))).sum(axis=1) / scale
    noise = np.sqrt((kernel**2 * around(np.where(measured, variance, 0.0))).sum(axis=1)) / scale
    return area, np.where(noise > 0, area / np.where(noise > 0, noise, 1.0), 0.0)


def rise_at(energy_ev: NumpyArray, spectrum: NumpyArray, onset: float) -> float:
    """Rise of an EELS spectrum above the trend before an edge; 0 when the rise is not significant.

    A straight line in the logarithm of the energy is fitted to the 40 eV (or 8 channels) before the onset and
    extrapolated over the same range after it. The rise is the mean difference there.

    Parameters
    ----------
    energy_ev, spectrum : array (E,)
    onset : float, eV

    Returns
    -------
    float
        In the spectrum's unit.
    """
    step = _step(energy_ev)
    width, guard = max(40.0, 8 * step), max(3.0, step)
    before = (energy_ev > onset - width - guard) & (energy_ev < onset - guard)
    after = (energy_ev > onset) & (energy_ev < onset + width)
    if before.sum() < 4 or after.sum() < 3:
        return 0.0
    fit = np.polynomial.Polynomial.fit(np.log(energy_ev[before]), spectrum[before], 1)
    residual = spectrum[before] - fit(np.log(energy_ev[before]))
    # A falling trend is not extrapolated below zero, where any tail would look like an edge.
    trend = np.maximum(fit(np.log(energy_ev[after])), 0.0)
    rise = float(np.mean(spectrum[after] - trend))
    scatter = float(np.std(residual)) * float(np.sqrt(1.0 / after.sum() + 1.0 / before.sum()))
    level = float(np.mean(np.abs(spectrum[before])))
    enough = max(SIGNIFICANCE * scatter, 0.1 * level, 0.02 * float(np.max(spectrum)))
    return rise if rise > enough else 0.0


def _step(axis: NumpyArray) -> float:
    """Mean step of an axis, 1 for a single channel."""
    return float(abs(axis[-1] - axis[0]) / max(axis.size - 1, 1)) or 1.0


def _maxima(values: NumpyArray, window: int) -> tuple[NumpyArray, NumpyArray]:
    """Local maxima (N,), the middle of level ones, and their prominences (N,) within a window of channels.

    By hand, as importing `scipy.signal` for its `find_peaks`, which this equals, takes half a second of every command.
    """
    ends = np.append(np.flatnonzero(np.diff(values)), values.size - 1)
    starts = np.append(0, ends[:-1] + 1)
    level = values[starts]
    top = np.flatnonzero((level[1:-1] > level[:-2]) & (level[1:-1] > level[2:])) + 1
    places = (starts[top] + ends[top]) // 2
    prominences = [
        values[at]
        - max(_lowest(values[max(at - window // 2, 0) : at + 1][::-1]), _lowest(values[at : at + window // 2 + 1]))
        for at in places
    ]
    return places, np.array(prominences, dtype=np.float64)


def _lowest(values: NumpyArray) -> float:
    """The lowest value before one is higher than the first."""
    higher = np.flatnonzero(values > values[0])
    return float(values[: higher[0] if higher.size else values.size].min())


def _refine(energy_kev: NumpyArray, spectrum: NumpyArray, places: NumpyArray) -> NumpyArray:
    """Energies of the maxima at these channels: the top of the parabola through each and its two neighbours."""
    below, top, above = spectrum[places - 1], spectrum[places], spectrum[places + 1]
    bend = below - 2.0 * top + above
    shift = np.where(bend < 0, 0.5 * (below - above) / np.where(bend < 0, bend, 1.0), 0.0)
    energies: NumpyArray = energy_kev[places] + np.clip(shift, -0.5, 0.5) * _step(energy_kev)
    return energies
