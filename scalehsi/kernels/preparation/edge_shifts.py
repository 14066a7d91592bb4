"""Shift of each spectrum against a reference: weighted least squares of height, slope and shift.

The model is ``x ~ a r(E - s) + b L r`` with the reference r, weights 1/r, and L the energy scaled to -1 .. 1, which
takes up what thickness changes in the background. Letters: P pixels, E channels of the reference, W of the window.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.preparation.normal_equations import solve_three

STEPS: Final = 8
LARGEST_STEP: Final = 1.5
"""Channels that the shift changes by in one step."""
SMOOTHING: Final = 0.7
"""Standard deviation, in channels, of the Gaussian that takes the noise out of the reference."""


class Reference(NamedTuple):
    """A reference spectrum as a cubic spline.

    Attributes
    ----------
    coefficients : array, shape (4, E - 1)
        Of each interval between channels, the highest power first.
    values : array, shape (E,)
    """

    coefficients: Float
    values: Float


def make_reference(mean: Float) -> Reference:
    """The reference of a mean spectrum (E,)."""
    from scipy.interpolate import CubicSpline
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(np.asarray(mean, dtype=np.float64), SMOOTHING, mode="nearest")
    smooth = np.maximum(smooth, 1e-6 * max(float(smooth.max()), 1e-30))
    return Reference(np.ascontiguousarray(CubicSpline(np.arange(smooth.size), smooth).c), smooth)


def shift_bound(reference: Reference, window: tuple[int, int], counts: float, gain: float) -> float:
    """Smallest possible standard deviation of a shift, in channels.

    window: first channel, and the one behind the last. counts: in the window. gain: variance over mean.
    """
    r = reference.values
    slope = np.gradient(r)[slice(*window)]
    r = r[slice(*window)]
    scale = counts / r.sum()
    information = scale * ((slope**2 / r).sum() - slope.sum() ** 2 / r.sum())
    return float(np.sqrt(gain / information)) if information > 0 else float("inf")


def find_shifts(x: Any, start: Float, reference: Reference, *, first: int, last: int, limit: float) -> Float:
    """Shifts (P,) in channels of the spectra x (P, E), positive where a feature lies too high; NaN without counts.

    start (P,): where to begin. first, last: the window's first channel, and the one behind its last. limit: the
    largest shift.
    """
    out = np.array(start, dtype=np.float64)
    _find(np.asarray(x), reference.coefficients, reference.values, first, last, limit, out)
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _find(x: Any, c: Any, r: Any, first: int, last: int, limit: float, out: Any) -> None:
    intervals = c.shape[1]
    for p in range(x.shape[0]):
        total = 0.0
        for e in range(first, last):
            total += x[p, e]
        if not total > 0:
            out[p] = np.nan
            continue
        shift = out[p] if np.isfinite(out[p]) else 0.0
        for _ in range(STEPS):
            # Normal equations of (a, b, t) of a r(e - s) + b L r + t r'(e - s); the step of the shift is -t / a.
            a00 = a01 = a02 = a11 = a12 = a22 = b0 = b1 = b2 = 0.0
            for e in range(first, last):
                place = min(max(e - shift, 0.0), float(intervals))
                i = min(int(place), intervals - 1)
                h = place - i
                value = ((c[0, i] * h + c[1, i]) * h + c[2, i]) * h + c[3, i]
                slope = (3.0 * c[0, i] * h + 2.0 * c[1, i]) * h + c[2, i]
                level = (2.0 * (e - first) / max(last - 1 - first, 1) - 1.0) * r[e]
                weight = 1.0 / r[e]
                data = float(x[p, e])
                a00 += weight * value * value
                a01 += weight * value * level
                a02 += weight * value * slope
                a11 += weight * level * level
                a12 += weight * level * slope
                a22 += weight * slope * slope
                b0 += weight * value * data
                b1 += weight * level * data
                b2 += weight * slope * data
            height, _, tilt, good = solve_three(a00, a01, a02, a11, a12, a22, b0, b1, b2)
            if not (good and height > 0.0):
                break
            step = min(max(-tilt / height, -LARGEST_STEP), LARGEST_STEP)
            shift = min(max(shift + step, -limit), limit)
            if abs(step) < 1e-5:
                break
        out[p] = shift
