"""Smooth a map of energy shifts: by the median of neighbours, or along the scan as drift goes."""

from __future__ import annotations

from typing import Final

import numpy as np

from scalehsi.arrays import Float

LAMBDA: Final = 1e4
ROUNDS: Final = 6


def fill_from_neighbours(shifts: Float) -> Float:
    """Replace NaN in maps (..., y, x) by the mean of what lies nearest: of 3 x 3 pixels, then of what these got."""
    filled = shifts.copy()
    while np.isnan(filled).any() and np.isfinite(filled).any():
        good = np.isfinite(filled)
        total, count = np.zeros(filled.shape), np.zeros(filled.shape)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                values = _rolled(np.where(good, filled, 0.0), down, right)
                total += values
                count += _rolled(good.astype(np.float64), down, right)
        new = ~good & (count > 0)
        if not new.any():
            # Another frame, which has no good pixel.
            filled[~good] = 0.0
            break
        filled[new] = total[new] / count[new]
    return np.nan_to_num(filled)


def smooth_median(shifts: Float) -> Float:
    """Median of 3 x 3 pixels, then a Gaussian of 2 pixels; shifts (..., y, x), finite."""
    from scipy.ndimage import gaussian_filter, median_filter

    lead = (1,) * (shifts.ndim - 2)
    sizes = tuple(3 if n > 1 else 1 for n in shifts.shape[-2:])
    middle = median_filter(shifts, size=(*lead, *sizes), mode="nearest")
    return np.asarray(gaussian_filter(middle, (0,) * (shifts.ndim - 2) + (2.0, 2.0), mode="nearest"))


def smooth_scan(shifts: Float) -> Float:
    """A smooth curve in scan order (robust Whittaker smoother) plus an offset a column; shifts (..., y, x), finite."""
    frames = shifts.reshape(-1, *shifts.shape[-2:])
    return np.stack([_smooth_frame(frame) for frame in frames]).reshape(shifts.shape)


def _smooth_frame(shifts: Float) -> Float:
    """`smooth_scan` of one frame (y, x)."""
    columns = np.zeros(shifts.shape[1])
    curve = np.full(shifts.shape, float(np.median(shifts)))
    weights = np.ones(shifts.shape)
    for _ in range(ROUNDS):
        curve = _whittaker((shifts - columns).ravel(), weights.ravel()).reshape(shifts.shape)
        left = shifts - curve
        columns = (weights * left).sum(axis=0) / weights.sum(axis=0)
        columns -= columns.mean()
        left = left - columns
        spread = 1.4826 * float(np.median(np.abs(left))) or 1e-12
        weights = 1.0 / np.maximum(1.0, np.abs(left) / (2.0 * spread)) ** 2
    return curve + columns


def _whittaker(y: Float, w: Float) -> Float:
    """Minimise ``sum w (y - z)^2 + lambda sum (second differences of z)^2``; y, w (n,)."""
    from scipy.linalg import solveh_banded

    n = y.size
    if n < 3:
        return np.full(n, float((w * y).sum() / w.sum()))
    bands = np.zeros((3, n))
    for k, value in enumerate((1.0, -2.0, 1.0)):
        for other, second in enumerate((1.0, -2.0, 1.0)):
            if other >= k:
                bands[other - k, k : n - 2 + k] += LAMBDA * value * second
    bands[0] += w
    return np.asarray(solveh_banded(bands, w * y, lower=True))


def _rolled(values: Float, down: int, right: int) -> Float:
    """The values of neighbours; zero beyond the edges."""
    out = np.zeros(values.shape)
    ny, nx = values.shape[-2:]
    to = [slice(max(-k, 0), min(n - k, n)) for k, n in ((down, ny), (right, nx))]
    of = [slice(max(k, 0), min(n + k, n)) for k, n in ((down, ny), (right, nx))]
    out[..., to[0], to[1]] = values[..., of[0], of[1]]
    return out
