"""Smooth spectra over windows that match the width of their peaks, which the sum of many spectra shows."""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy
from scipy.ndimage import maximum_filter1d

from scalehsi.arrays import Bool, Float, Int

POLYNOMIAL_ORDER: Final = 4
"""Order of the polynomial, which follows a Gaussian peak over a window a little wider than the peak."""
LARGEST_CHANGE: Final = 0.01
"""Largest change of the sum spectrum by a window, root mean square over it, as a fraction of the maximum in it. Windows
of 1.3, 1.6 and 1.9 peak widths change a Gaussian peak by 0.004, 0.010 and 0.018."""
TESTED_WINDOW: Final = 1.2
"""Tested windows are this many times as long as those used: that change is reached at 1.6, and 1.3 is wanted."""
SIGNIFICANCE: Final = 5.0
"""Standard deviations of the noise by which the change may exceed that."""
WINDOW_RATIO: Final = 2**-0.125
"""Ratio of one tested window to the next."""
MISSED_COUNTS: Final = 12.0
"""A run of channels without counts is no chance if this many are expected in it."""


def smooth_spectra(spectra: Float, *, total: Float, widths: Float, factor: float = 1.0, measure: bool = True) -> Float:
    """Smooth spectra with `smooth_peaks`, over windows in proportion to the width of the peaks in their sum.

    Channels in which nothing can be counted keep their values, and windows do not reach across them. Each spectrum
    keeps its sum between them.

    Parameters
    ----------
    spectra : array, shape (K, E)
        Not negative, on evenly spaced channels.
    total : array, shape (E,)
        Counts of all pixels.
    widths : array, shape (E,)
        1.3 widths of a peak at each channel, in channels, for peaks of the expected width.
    factor : float, default 1
        Multiplies the windows.
    measure : bool, default True
        Shorten windows where the peaks are narrower (`following_widths`). False for data that are not counts.

    Returns
    -------
    array, shape (K, E)
    """
    out = np.array(spectra, dtype=np.float64)
    edges = np.flatnonzero(np.diff(~empty_channels(total, widths=widths), prepend=False, append=False))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        part = slice(first, last)
        window = following_widths(total[part], widths=widths[part]) if measure else widths[part]
        smooth = smooth_peaks(out[:, part], widths=factor * window)
        before, after = out[:, part].sum(axis=1, keepdims=True), smooth.sum(axis=1, keepdims=True)
        out[:, part] = smooth * np.where(after > 0, before / np.where(after > 0, after, 1.0), 1.0)
    return out


def following_widths(total: Float, *, widths: Float) -> Float:
    """Measure windows of 1.3 to 1.6 peak widths in a spectrum, none longer than ``widths``.

    A window is too long for the peaks in it if one that is a fifth longer changes the spectrum by more than its noise
    and 1 % of its height. So narrow peaks get short windows, in proportion to their width. Where the counts are too few
    to show a change, it is smaller than the noise, and the windows are longer.

    Parameters
    ----------
    total : array, shape (E,)
        Counts, of variance equal to their expectation.
    widths : array, shape (E,)
        Channels.

    Returns
    -------
    array, shape (E,)

    Examples
    --------
    >>> e = np.arange(400.0)
    >>> peaks = [1e6 * np.exp(-4 * np.log(2) * ((e - 200) / fwhm) ** 2) + 1e3 for fwhm in (10, 20, 40)]
    >>> [float(following_widths(peak, widths=np.full(400, 52.0))[200].round()) for peak in peaks]
    [14.0, 28.0, 52.0]
    """
    total = np.asarray(total, dtype=np.float64)
    found, rest = np.asarray(widths, dtype=np.float64).copy(), np.ones(len(total), dtype=bool)
    while rest.any() and found[rest].max() > POLYNOMIAL_ORDER + 1:
        window = _odd(TESTED_WINDOW * found, len(total))
        smooth = smooth_peaks(total[None], widths=window.astype(np.float64))[0]
        noise = np.maximum(smooth, 1.0) * _kept_variance(window)
        change = _window_means((total - smooth) ** 2 - noise, window)
        chance = np.sqrt(2.0 * _window_means(noise**2, window) / window)
        height = _window_maxima(smooth, window)
        rest &= change > (LARGEST_CHANGE * height) ** 2 + SIGNIFICANCE * chance
        found[rest] *= WINDOW_RATIO
    return found


def empty_channels(total: Float, *, widths: Float) -> Bool:
    """Find channels (E,) in which nothing can be counted, by runs of zeros in the counts ``total`` (E,).

    A run is no chance if it is as long as ``widths`` (E,), or if channels on both sides let expect many counts in it.

    Examples
    --------
    >>> total = np.array([40, 50, 0, 45, 40, 2, 0, 1, 2, 0, 0, 0, 0])
    >>> np.flatnonzero(empty_channels(total, widths=np.full(13, 3.0))).tolist()
    [2, 9, 10, 11, 12]
    """
    out = np.zeros(len(total), dtype=bool)
    edges = np.flatnonzero(np.diff(np.asarray(total) == 0, prepend=False, append=False))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        length = last - first
        beside = [side for side in (total[max(0, first - length) : first], total[last : last + length]) if side.size]
        expected = length * min((float(side.mean()) for side in beside), default=0.0)
        out[first:last] = length >= widths[first:last].max() or expected > MISSED_COUNTS
    return out


def smooth_peaks(spectra: Float, *, widths: Float) -> Float:
    """Fit a polynomial of fourth order to a window around each channel (Savitzky and Golay), clipped at zero.

    Parameters
    ----------
    spectra : array, shape (K, E)
        Not negative, on evenly spaced channels.
    widths : array, shape (E,)
        Length of the window at each channel, in channels. A window of 1.3 times the width of a peak (full width at half
        maximum) halves the variance of the noise and changes the peak by less than 1 %. Windows below 7 channels do
        nothing.

    Returns
    -------
    array, shape (K, E)

    References
    ----------
    Savitzky and Golay 1964, doi:10.1021/ac60214a047.

    Examples
    --------
    >>> e = np.arange(200.0)
    >>> peak = np.exp(-np.log(2) * ((e - 100) / 5) ** 2)[None]
    >>> bool(np.abs(smooth_peaks(peak, widths=np.full(200, 13.0)) - peak).max() < 0.01)
    True
    """
    odd = _odd(widths, spectra.shape[1])
    out = np.array(spectra, dtype=np.float64)
    for width in np.unique(odd):
        if width > POLYNOMIAL_ORDER + 1:
            here = odd == width
            out[:, here] = scipy.signal.savgol_filter(spectra, int(width), POLYNOMIAL_ORDER, axis=1)[:, here]
    return np.maximum(out, 0.0)


def _odd(widths: Float, channels: int) -> Int:
    """Lengths of windows (E,): odd numbers, none above the number of channels."""
    odd = 2 * np.round((np.asarray(widths, dtype=np.float64) - 1) / 2).astype(np.int64) + 1
    return np.asarray(np.clip(odd, 1, channels - (1 - channels % 2)))


def _kept_variance(window: Int) -> Float:
    """Variance that remains of white noise when the smoothed values are subtracted, for windows (E,)."""
    out = np.zeros(len(window))
    for width in np.unique(window):
        if width > POLYNOMIAL_ORDER + 1:
            out[window == width] = 1.0 - scipy.signal.savgol_coeffs(int(width), POLYNOMIAL_ORDER)[width // 2]
    return out


def _window_means(values: Float, window: Int) -> Float:
    """Mean of ``values`` (E,) over the window (E,) around each channel."""
    first = np.maximum(np.arange(len(values)) - window // 2, 0)
    last = np.minimum(np.arange(len(values)) + window // 2 + 1, len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((sums[last] - sums[first]) / (last - first))


def _window_maxima(values: Float, window: Int) -> Float:
    """Largest of ``values`` (E,) in the window (E,) around each channel."""
    out = np.empty(len(values))
    for width in np.unique(window):
        here = window == width
        out[here] = maximum_filter1d(values, int(width), mode="nearest")[here]
    return out
