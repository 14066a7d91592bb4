"""Position of the zero-loss peak of each pixel: a Gaussian, fitted within one width of the peak.

Letters: P pixels, E energies.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.preparation.normal_equations import solve_three

STEPS: Final = 12
LEAST_COUNTS: Final = 20.0
"""Counts of a peak below which it has no position of its own."""
SIGMA: Final = 2.354820045
FLOOR: Final = 0.02
"""The noise of a channel is at least that of this part of the height: losses and tails are no Gaussian."""


def zero_loss_positions(x: Any, *, fwhm: float, width: float, gain: float, low: int, high: int) -> Float:
    """Centre of the peak in channels, its standard deviation in channels, and counts at its maximum (P, 3).

    NaN where a pixel has too few counts or the fit leaves the peak.

    x (P, E): low losses. fwhm: of the mean peak, in channels. width: the fit uses this many FWHM to each side. gain:
    data units per electron. low, high: channels in which the maximum is sought.
    """
    out = np.full((x.shape[0], 3), np.nan)
    _positions(np.asarray(x), fwhm, width, gain, low, high, out)
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _positions(x: Any, fwhm: float, width: float, gain: float, low: int, high: int, out: Any) -> None:
    channels = x.shape[1]
    half = max(fwhm * width, 1.0)
    for p in range(x.shape[0]):
        best, top = -1, -np.inf
        for e in range(max(low, 1), min(high, channels - 1)):
            three = float(x[p, e - 1]) + float(x[p, e]) + float(x[p, e + 1])
            if three > top:
                best, top = e, three
        if best < 0 or not top > LEAST_COUNTS * gain:
            continue
        first, last = max(int(best - fwhm + 0.5), 0), min(int(best + fwhm + 0.5) + 1, channels)
        total = moment = 0.0
        for e in range(first, last):
            value = max(float(x[p, e]), 0.0)
            total += value
            moment += value * e
        if not total > LEAST_COUNTS * gain:
            continue
        centre = moment / total
        sigma = max(fwhm / SIGMA, 0.3)
        height = top / 3.0
        first, last = max(int(np.ceil(centre - half)), 0), min(int(np.floor(centre + half)) + 1, channels)
        if last - first < 3:
            first, last = max(best - 1, 0), min(best + 2, channels)
        good = True
        for _ in range(STEPS):
            # Normal equations of (height, centre, sigma): a symmetric 3 x 3 matrix.
            a = b = c = d = f = g = u = v = w = 0.0
            for e in range(first, last):
                z = (e - centre) / sigma
                shape = np.exp(-0.5 * z * z)
                model = height * shape
                weight = 1.0 / max(model, FLOOR * height + gain)
                residual = float(x[p, e]) - model
                j0, j1, j2 = shape, model * z / sigma, model * z * z / sigma
                a += weight * j0 * j0
                b += weight * j0 * j1
                c += weight * j0 * j2
                d += weight * j1 * j1
                f += weight * j1 * j2
                g += weight * j2 * j2
                u += weight * j0 * residual
                v += weight * j1 * residual
                w += weight * j2 * residual
            g *= 1.0 + 1e-9
            dh, dc, ds, good = solve_three(a, b, c, d, f, g, u, v, w)
            if not good:
                break
            height = max(height + dh, 0.1 * height)
            centre += min(max(dc, -0.5 * fwhm), 0.5 * fwhm)
            sigma = min(max(sigma + ds, 0.5 * sigma), 2.0 * sigma)
            if abs(dc) < 1e-6 and abs(ds) < 1e-6:
                break
        if (
            good
            and np.isfinite(centre)
            and abs(centre - best) <= max(1.5 * fwhm, 2.0)
            and 0.2 * fwhm < sigma * SIGMA < 4.0 * fwhm
        ):
            out[p, 0], out[p, 1], out[p, 2] = centre, sigma, height


def peak_width(spectrum: Float) -> tuple[int, float]:
    """Channel of the maximum of a mean spectrum (E,), and the full width at half of it, by straight lines.

    Examples
    --------
    >>> position, fwhm = peak_width(np.exp(-0.5 * ((np.arange(50) - 20.0) / 2.0) ** 2))
    >>> position, round(fwhm, 1)
    (20, 4.8)
    """
    top = int(np.argmax(spectrum))
    half = 0.5 * float(spectrum[top])

    def crossing(step: int) -> float:
        e = top
        while 0 <= e + step < len(spectrum) and spectrum[e + step] > half:
            e += step
        if not 0 <= e + step < len(spectrum):
            return float(abs(e - top)) + 0.5
        inside, outside = float(spectrum[e]), float(spectrum[e + step])
        return abs(e - top) + (inside - half) / max(inside - outside, 1e-30)

    return top, crossing(-1) + crossing(1)
