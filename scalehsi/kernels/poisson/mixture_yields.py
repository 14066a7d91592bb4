"""Counts of a pixel that consists of one component, which abundances that sum to one need beside the spectra.

The mixture gives the fraction ``theta`` (K,) of the counts of a bin that each component contributes. If the abundances
of its w pixels sum to one, the bin has ``w / (theta . u)`` counts, where ``u = 1 / d`` and d are the counts of a pure
pixel. The totals n of all bins give u by the gamma likelihood, ``sum n (theta . u) - w log(theta . u)``. It is convex,
and at its minimum ``sum theta_k (n - w / (theta . u)) = 0`` for each component: the model has the counts of the data,
in all and by component. Weighted least squares of ``n (theta . u)`` against w does not have this property: it weighs
bins by the square of their counts, so one bright pixel decides, and a single component gets ``sum n^2 / sum n``.

Reference: McCullagh and Nelder 1989, Generalized Linear Models, chapter 8 (gamma errors, reciprocal link).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.special import pdtr

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.poisson.mixture import blurred

EMPTY_RATE: Final = 0.05
"""A pixel of fewer counts than this fraction of the faintest pure one holds no specimen."""
EMPTY_CHANCE: Final = 1e-9
"""Probability that the faintest pure pixel has so few counts, below which a pixel holds no specimen."""
NEIGHBOUR_WIDTH: Final = 1.25
"""Standard deviation in pixels of the Gaussian over the neighbours, which decide where a pixel has few counts."""
BRIGHT_RATE: Final = 10.0
"""Bins of more than this many times the counts of the model have no effect on it."""
LARGEST_YIELD: Final = 10.0
"""If a pure pixel would have this many times the counts of the bins in which a component is found, there is none."""
PUREST_SHARE: Final = 0.01
"""The endmember of such a component is the mean of this fraction of the bins, those that hold most of it."""
TYPICAL_WEIGHT: Final = 1e-5
"""Weight of the typical counts of each component, relative to all pixels. It decides where the totals do not."""
ROUNDS: Final = 8
"""Largest number of fits, each without the empty and bright bins of the last one."""
NEWTON_STEPS: Final = 50
NEWTON_TOLERANCE: Final = 1e-10


def pure_pixel_counts(
    theta: Float, totals: Float, pixels: Float, *, group: tuple[int, int] = (1, 1)
) -> tuple[Float, Bool]:
    """Estimate the counts of pure pixels from bins, so that the abundances of a bin sum to one.

    Parameters
    ----------
    theta : array, shape (..., y, x, K)
        Fractions of the counts of each bin by component. NaN in bins that are not used.
    totals : array, shape (..., y, x)
        Counts of the bins.
    pixels : array, shape (..., y, x)
        Used pixels of the bins.
    group : (int, int)
        Bins along y and x that are added up before the fit. The noise of fractions makes the counts of the components
        more alike than they are, and that of large bins does less; but the rarest component must fill one.

    Returns
    -------
    counts : array, shape (K, K)
        Counts of a pixel of each endmember (row) by component of the mixture (column). It is diagonal, unless the
        totals say that no pixel can consist of a component alone: if the total rises by as much as a component adds,
        the component covers the others instead of replacing them. Its endmember then is the mean of the bins that hold
        most of it.
    empty : array of bool, shape (..., y, x)
        Bins without specimen. They have no effect on the counts, and neither have their neighbours, of which a part may
        be empty, nor bins that are many times too bright.

    Examples
    --------
    >>> theta = np.array([[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]])
    >>> counts, empty = pure_pixel_counts(theta, np.array([[400.0, 320.0, 266.7]]), np.full((1, 3), 4.0))
    >>> counts.round(1).tolist(), empty.any()
    ([[100.0, 0.0], [0.0, 66.7]], np.False_)
    """
    grid = totals.shape
    given = np.isfinite(theta).all(axis=-1) & np.isfinite(totals) & (pixels > 0)
    rate = np.where(given, totals, 0.0) / np.maximum(pixels, 1)
    empty = np.zeros(grid, dtype=bool)
    use = given & (rate > 0)
    if not use.any():
        return np.eye(theta.shape[-1]), given
    typical = _typical(theta[use], rate[use], pixels[use])
    inverse = 1.0 / typical
    counts = np.diag(typical)
    flat = np.where(given[..., None], theta, 0.0)
    for _ in range(ROUNDS):
        empty = given & (rate < EMPTY_RATE * counts.sum(axis=1).min())
        relative = rate * (flat @ inverse)
        kept = given & ~_beside(empty) & (relative > 0) & (relative < BRIGHT_RATE)
        if not kept.any():
            kept = given & ~empty & (rate > 0)
        if np.array_equal(kept, use) and _ > 0:
            break
        use = kept
        parts = np.where(use[..., None], flat * np.where(use, totals, 0.0)[..., None], 0.0)
        inverse = _inverse_counts(*_added(parts, np.where(use, pixels, 0.0), group), typical)
        counts = _endmember_counts(inverse, theta[use], rate[use], typical)
    return counts, empty


def empty_pixels(totals: Float, faintest: float, *, shape: tuple[int, ...], used: Bool | None) -> Bool:
    """Find the pixels without specimen.

    Parameters
    ----------
    totals : array, shape (P,)
        Counts of the pixels of a tile, row by row.
    faintest : float
        Counts of a pure pixel of the faintest component.
    shape : tuple of int
        Shape of the tile; its product is P. Neighbours lie along the last two dims.
    used : array of bool, shape (P,), or None
        Pixels that are not used have no effect on their neighbours. None: no pixel has an effect on another.

    Returns
    -------
    array of bool, shape (P,)
        True where a pixel has less than a twentieth of these counts, and so few cannot be chance: in the pixel itself,
        or together with its neighbours.

    Examples
    --------
    >>> empty_pixels(np.array([0.0, 2.0, 40.0, 90.0]), 80.0, shape=(1, 4), used=None).tolist()
    [True, True, False, False]
    """
    few = totals < EMPTY_RATE * faintest
    found = pdtr(totals, faintest) < EMPTY_CHANCE
    if used is not None and few.any():
        weight = np.asarray(used, dtype=np.float64).reshape(shape)
        level = blurred(weight, NEIGHBOUR_WIDTH)
        # The weights of a Gaussian are those of this many equal pixels.
        number = 4.0 * np.pi * NEIGHBOUR_WIDTH**2 * level
        near = blurred(totals.reshape(shape) * weight, NEIGHBOUR_WIDTH) / np.maximum(level, 1e-12)
        together = (near < EMPTY_RATE * faintest) & (pdtr(number * near, number * faintest) < EMPTY_CHANCE)
        found |= together.reshape(-1)
    return np.asarray(few & found)


def _typical(theta: Float, rate: Float, pixels: Float) -> Float:
    """Median counts of a pixel of the bins in which each component is found (K,).

    theta (B, K): fractions. rate (B,): counts of a pixel, above 0. pixels (B,): of each bin.
    """
    # Faint bins count less, so that a large empty field does not decide; bright ones count as the others.
    weight = np.minimum(rate, np.quantile(rate, 0.95, method="lower")) * pixels
    order = np.argsort(rate)
    level = np.cumsum((theta**2 * weight[:, None])[order], axis=0)
    level += np.cumsum(weight[order])[:, None] * 1e-9
    return np.array([rate[order][np.searchsorted(part, 0.5 * part[-1])] for part in level.T])


def _beside(empty: Bool) -> Bool:
    """Empty bins (..., y, x) and their eight neighbours."""
    return np.asarray(maximum_filter(empty, size=(1,) * (empty.ndim - 2) + (3, 3)))


def _added(parts: Float, pixels: Float, group: tuple[int, int]) -> tuple[Float, Float]:
    """Add up ``parts`` (..., y, x, K) and ``pixels`` (..., y, x) of neighbouring bins; return (B, K) and (B,).

    group: bins along y and x. Groups without pixels are left out.
    """
    for axis, size in zip((-2, -1), group, strict=True):
        starts = np.arange(0, pixels.shape[axis], size)
        parts, pixels = np.add.reduceat(parts, starts, axis=axis - 1), np.add.reduceat(pixels, starts, axis=axis)
    filled = pixels > 0
    return parts[filled], pixels[filled]


def _inverse_counts(parts: Float, pixels: Float, typical: Float) -> Float:
    """Minimise the gamma likelihood by Newton's method; return u (K,), which may be negative.

    parts (B, K): counts of bins by component. pixels (B,): of the bins. typical (K,): start, and what decides where the
    totals do not.
    """
    scale = 1.0 / typical
    design = parts * scale
    slope = design.sum(axis=0)
    weight = TYPICAL_WEIGHT * float(pixels.sum()) / len(typical)

    def value(a: Float) -> Any:
        v = design @ a
        if v.min() <= 0:
            return np.inf
        return float(slope @ a - pixels @ np.log(v) + 0.5 * weight * ((a - 1.0) ** 2).sum())

    a = np.ones(len(typical))
    here = value(a)
    for _ in range(NEWTON_STEPS):
        v = design @ a
        gradient = slope - (pixels / v) @ design + weight * (a - 1.0)
        hessian = (design * (pixels / v**2)[:, None]).T @ design + weight * np.eye(len(a))
        step = np.linalg.solve(hessian, gradient)
        decrement, size = float(gradient @ step), 1.0
        while size > 1e-8 and not value(a - size * step) <= here - 0.25 * size * decrement + 1e-12 * abs(here):
            size *= 0.5
        if size <= 1e-8:
            break
        a = a - size * step
        here = value(a)
        if decrement < NEWTON_TOLERANCE * float(pixels.sum()):
            break
    return a * scale


def _endmember_counts(inverse: Float, theta: Float, rate: Float, typical: Float) -> Float:
    """Counts of a pixel of each endmember by component (K, K); see `pure_pixel_counts`.

    inverse (K,): u. theta (B, K), rate (B,): fractions, and counts of a pixel, of the bins. typical (K,): counts of
    the bins in which each component is found.
    """
    pure = inverse * typical * LARGEST_YIELD > 1.0
    counts = np.diag(np.where(pure, 1.0 / np.where(pure, inverse, 1.0), typical))
    number = max(1, round(PUREST_SHARE * len(theta)))
    for k in np.flatnonzero(~pure):
        most = np.argpartition(-theta[:, k], number - 1)[:number]
        row = (theta[most] * rate[most, None]).mean(axis=0)
        level = float(row @ inverse)
        counts[k] = row / level if level > 0 else row
    return counts
