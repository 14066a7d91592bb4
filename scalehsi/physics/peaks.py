"""Peaks of an X-ray spectrum and onsets of an EELS spectrum that stand above the noise. Arrays in, arrays out."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks as find_maxima
from scipy.signal import peak_prominences

from scalehsi.arrays import NumpyArray

SIGNIFICANCE: Final = 6.0
"""A peak must rise this many standard deviations of the noise above its surroundings."""

LEAST_OF_CONTINUUM: Final = 0.15
LEAST_OF_MAXIMUM: Final = 5e-4
LOWEST_KEV: Final = 0.1
"""Below lies the zero-strobe peak of the electronics."""

MANGANESE_KEV: Final = 5.895
MANGANESE_WIDTH: Final = 0.130
STATISTICAL_WIDTH: Final = 2.43e-3
"""keV: (2 sqrt(2 ln 2))^2 times Fano factor 0.12 times 3.65 eV for an electron-hole pair in silicon."""


class Peaks(NamedTuple):
    """Peaks in order of rising energy.

    Attributes
    ----------
    energy : array (n,), keV
    net : array (n,)
        Height above the surroundings, in the spectrum's unit.
    tolerance : array (n,), keV
        How far from a peak its line may lie.
    axis : array (E,), keV
    least : array (E,)
        Net height that a peak needs to be seen, for each channel.
    """

    energy: NumpyArray
    net: NumpyArray
    tolerance: NumpyArray
    axis: NumpyArray
    least: NumpyArray

    def nearest(self, energy: float) -> int | None:
        """Index of the peak that a line at this energy (keV) would make; None when there is none."""
        if not self.energy.size:
            return None
        index = int(np.argmin(np.abs(self.energy - energy)))
        return index if abs(self.energy[index] - energy) <= self.tolerance[index] else None

    def in_range(self, energy: float) -> bool:
        """Whether the axis reaches this energy (keV)."""
        return bool(max(self.axis[0], LOWEST_KEV) < energy < self.axis[-1])

    def visible(self, energy: float, net: float) -> bool:
        """Whether a peak of this net height would be seen at this energy (keV) beyond doubt."""
        return self.in_range(energy) and net > 2.0 * float(np.interp(energy, self.axis, self.least))


def width_kev(energy_kev: Any) -> NumpyArray:
    """Full width at half maximum in keV of a line on a usual silicon drift detector (130 eV at Mn Kα)."""
    square = MANGANESE_WIDTH**2 + STATISTICAL_WIDTH * (np.asarray(energy_kev, dtype=np.float64) - MANGANESE_KEV)
    width: NumpyArray = np.sqrt(np.maximum(square, 0.04**2))
    return width


def smooth(energy_kev: NumpyArray, spectrum: NumpyArray) -> tuple[NumpyArray, float]:
    """Smooth with a bit less than the detector's width; gives the spectrum and the part of the noise that is left."""
    step = _step(energy_kev)
    sigma = 0.4 * float(width_kev(2.0)) / 2.355 / step
    if sigma < 0.4:
        return spectrum, 1.0
    return gaussian_filter1d(spectrum, sigma, mode="nearest"), min(1.0, (2.0 * np.sqrt(np.pi) * sigma) ** -0.5)


def noise(energy_kev: NumpyArray, spectrum: NumpyArray, intensity: NumpyArray | None = None) -> NumpyArray:
    """Standard deviation of the noise of each channel (E,), whatever the gain.

    Noise is taken to grow with the square root of the intensity, as counting does; by how much, the second differences
    of the spectrum say. Peaks are few among the channels, so a median is not moved by them.

    Parameters
    ----------
    energy_kev : array (E,)
    spectrum : array (E,)
        What is noisy.
    intensity : array (E,), optional
        What was counted, when it is not the spectrum itself: the mean spectrum, for a residual.
    """
    counted = np.maximum(spectrum if intensity is None else intensity, 0.0)
    level = gaussian_filter1d(counted, max(0.1 / _step(energy_kev), 2.0), mode="nearest")
    filled = level > 1e-6 * level.max(initial=0.0)
    inner = filled[1:-1]
    if not inner.any():
        return np.zeros_like(level)
    differences = np.diff(spectrum, 2)[inner] / np.sqrt(6.0 * level[1:-1][inner])
    # Sparse counts are mostly zeros, where the median sees nothing: the mean square of the lower 95 % does.
    size = np.abs(differences)
    kept = size[size <= np.quantile(size, 0.95)]
    factor = max(1.4826 * float(np.median(size)), float(np.sqrt(np.mean(kept**2))))
    deviation: NumpyArray = factor * np.sqrt(level)
    return deviation


def find_peaks(energy_kev: NumpyArray, spectrum: NumpyArray) -> Peaks:
    """Find the peaks that stand above noise and continuum.

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
    flat, left = smooth(energy_kev, spectrum)
    step = _step(energy_kev)
    window = max(5, round(6 * float(width_kev(5.0)) / step) | 1)
    least = SIGNIFICANCE * left * noise(energy_kev, spectrum) + LEAST_OF_MAXIMUM * flat.max(initial=0.0)
    places, _ = find_maxima(flat)
    places = places[energy_kev[places] > LOWEST_KEV]
    net = peak_prominences(flat, places, wlen=window)[0]
    keep = (net > least[places]) & (net > LEAST_OF_CONTINUUM * (flat[places] - net))
    places, net = places[keep], net[keep]
    energy = _refine(energy_kev, flat, places)
    tolerance = 0.35 * width_kev(energy) + 0.5 * step + 1e-3 * energy
    return Peaks(energy, net, tolerance, energy_kev, least)


def rise_at(energy_ev: NumpyArray, spectrum: NumpyArray, onset: float) -> float:
    """How far an EELS spectrum rises behind an onset (eV) above the trend before it; 0 when no rise is certain.

    A straight line in the logarithm of the energy, fitted to the 40 eV (or 8 channels) before the onset, is carried on
    over as much behind it; the rise is the mean difference there, in the spectrum's unit.
    """
    step = _step(energy_ev)
    width, guard = max(40.0, 8 * step), max(3.0, step)
    before = (energy_ev > onset - width - guard) & (energy_ev < onset - guard)
    after = (energy_ev > onset) & (energy_ev < onset + width)
    if before.sum() < 4 or after.sum() < 3:
        return 0.0
    fit = np.polynomial.Polynomial.fit(np.log(energy_ev[before]), spectrum[before], 1)
    rest = spectrum[before] - fit(np.log(energy_ev[before]))
    # A falling trend is not carried below zero, where it would call any tail an edge.
    trend = np.maximum(fit(np.log(energy_ev[after])), 0.0)
    rise = float(np.mean(spectrum[after] - trend))
    scatter = float(np.std(rest)) * float(np.sqrt(1.0 / after.sum() + 1.0 / before.sum()))
    level = float(np.mean(np.abs(spectrum[before])))
    enough = max(SIGNIFICANCE * scatter, 0.1 * level, 0.02 * float(np.max(spectrum)))
    return rise if rise > enough else 0.0


def _step(axis: NumpyArray) -> float:
    return float(abs(axis[-1] - axis[0]) / max(axis.size - 1, 1)) or 1.0


def _refine(energy_kev: NumpyArray, flat: NumpyArray, places: NumpyArray) -> NumpyArray:
    """Top of the parabola through a maximum and its two neighbours."""
    below, top, above = flat[places - 1], flat[places], flat[places + 1]
    bend = below - 2.0 * top + above
    shift = np.where(bend < 0, 0.5 * (below - above) / np.where(bend < 0, bend, 1.0), 0.0)
    energies: NumpyArray = energy_kev[places] + np.clip(shift, -0.5, 0.5) * _step(energy_kev)
    return energies
