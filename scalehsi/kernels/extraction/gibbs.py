"""Gibbs sampling of mixtures in their signal subspace: fractions on the simplex, endmembers, and one noise variance.

Dobigeon, Moussaoui, Coulon, Tourneret and Hero 2009 (doi:10.1109/TSP.2009.2025797). The likelihood depends on a
spectrum through its K - 1 scores and the energy outside of them alone, so a sweep costs a few truncated normal numbers
for each fraction of each pixel.

Random numbers are counted: those of a pixel follow from the seed, the number of the sweep and the number of the pixel.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

INNER_SWEEPS: Final = 5
"""Coordinate-wise draws of the fractions of a pixel in one sweep, as in the reference."""
FACE: Final = 1e-3
"""The prior is level nearer than this to a face: below 1 its density has no end there, and chains would stick."""
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


@numba.njit(cache=True, nogil=True)
def _mix(z: Any) -> Any:
    """Scramble a 64-bit number (the finaliser of splitmix64)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True, nogil=True)
def position(seed: Any, sweep: Any, pixel: Any) -> Any:
    """The state of the generator for a pixel in a sweep."""
    z = _mix(np.uint64(seed) + _GOLDEN)
    z = _mix(z ^ (np.uint64(sweep) * _GOLDEN + np.uint64(1)))
    return _mix(z ^ (np.uint64(pixel) * _GOLDEN + np.uint64(2)))


@numba.njit(cache=True, nogil=True)
def _uniform(state: Any) -> Any:
    """The next number above 0 and below 1; ``state`` (1,) is advanced."""
    state[0] += _GOLDEN
    return (float(_mix(state[0]) >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@numba.njit(cache=True, nogil=True)
def _normal(state: Any) -> Any:
    """The next standard normal number, by Box and Muller."""
    return np.sqrt(-2.0 * np.log(_uniform(state))) * np.cos(2.0 * np.pi * _uniform(state))


@numba.njit(cache=True, nogil=True)
def _tail(a: float, b: float, state: Any) -> Any:
    """A standard normal number between a >= 0 and b, by rejection (Robert 1995, doi:10.1007/BF00143942)."""
    rate = 0.5 * (a + np.sqrt(a * a + 4.0))
    if (b - a) * rate < 1.5:
        while True:
            z = a + (b - a) * _uniform(state)
            if _uniform(state) <= np.exp(0.5 * (a * a - z * z)):
                return z
    while True:
        z = a - np.log(_uniform(state)) / rate
        if z <= b and _uniform(state) <= np.exp(-0.5 * (z - rate) ** 2):
            return z


@numba.njit(cache=True, nogil=True)
def truncated_normal(mean: float, deviation: float, low: float, high: float, state: Any) -> Any:
    """A normal number between ``low`` and ``high``; the middle of the two where they are not in order."""
    if not low < high:
        return 0.5 * (low + high)
    a, b = (low - mean) / deviation, (high - mean) / deviation
    if a > 0.0:
        z = _tail(a, b, state)
    elif b < 0.0:
        z = -_tail(-b, -a, state)
    elif b - a > 2.0:
        z = _normal(state)
        while z < a or z > b:
            z = _normal(state)
    else:
        z = a + (b - a) * _uniform(state)
        while _uniform(state) > np.exp(-0.5 * z * z):
            z = a + (b - a) * _uniform(state)
    return min(max(mean + deviation * z, low), high)


@numba.njit(cache=True, nogil=True)
def draw_fractions(
    y: Any,
    corners: Any,
    variance: float,
    dropped: int,
    concentration: float,
    a: Any,
    pixels: Any,
    seed: Any,
    sweep: Any,
) -> None:
    """Draw the fractions of all pixels once, in place.

    y (P, D): scores minus those of the mean. corners (K, D): of the endmembers. variance: of the noise. dropped: the
    component that the sum determines. concentration: of the Dirichlet prior, 1 for a uniform one. a (P, K): fractions
    before and after. pixels (P,): their numbers. seed, sweep: place in the random numbers.
    """
    k, d = corners.shape
    rows = np.empty((k, d))
    gram = np.empty((k, k))
    state = np.empty(1, np.uint64)
    right = np.empty(k)
    for i in range(k):
        for j in range(d):
            rows[i, j] = corners[i, j] - corners[dropped, j]
    for i in range(k):
        for j in range(k):
            gram[i, j] = 0.0
            for m in range(d):
                gram[i, j] += rows[i, m] * rows[j, m]
    for p in range(len(y)):
        state[0] = position(seed, sweep, pixels[p])
        for i in range(k):
            right[i] = 0.0
            for m in range(d):
                right[i] += (y[p, m] - corners[dropped, m]) * rows[i, m]
        for _ in range(INNER_SWEEPS):
            for i in range(k):
                if i == dropped:
                    continue
                mean, room = right[i], 1.0
                for j in range(k):
                    if j != i and j != dropped:
                        mean -= gram[i, j] * a[p, j]
                        room -= a[p, j]
                if gram[i, i] <= 0.0:
                    a[p, i] = room * _uniform(state)
                else:
                    size = np.sqrt(variance / gram[i, i])
                    new = truncated_normal(mean / gram[i, i], size, 0.0, max(room, 0.0), state)
                    if concentration != 1.0:
                        # The draw is a proposal, which the prior accepts or not.
                        old = max(a[p, i], FACE) * max(room - a[p, i], FACE)
                        ratio = max(new, FACE) * max(room - new, FACE) / old
                        if np.log(_uniform(state)) > (concentration - 1.0) * np.log(ratio):
                            continue
                    a[p, i] = new
        rest = 1.0
        for i in range(k):
            if i != dropped:
                rest -= a[p, i]
        a[p, dropped] = max(rest, 0.0)


@numba.njit(cache=True, nogil=True)
def draw_corners(
    corners: Any, squares: Any, products: Any, variance: float, prior: Any, prior_variance: float, basis: Any,
    mean: Any, state: Any,
) -> None:  # fmt: skip
    """Draw the scores of the endmembers once, coordinate by coordinate, in place.

    corners (K, D): before and after. squares (K, K) = a' a and products (K, D) = a' y of all pixels. variance: of the
    noise. prior (K, D) and prior_variance: of the endmembers. basis (E, D) and mean (E,): no channel of
    ``basis t + mean`` may be negative. state (1,): of the generator.
    """
    k, d = corners.shape
    for r in range(k):
        for i in range(d):
            right = products[r, i]
            for j in range(k):
                if j != r:
                    right -= squares[r, j] * corners[j, i]
            precision = squares[r, r] / variance + 1.0 / prior_variance
            centre = (right / variance + prior[r, i] / prior_variance) / precision
            low, high = -np.inf, np.inf
            for e in range(len(mean)):
                rest = mean[e]
                for m in range(d):
                    if m != i:
                        rest += basis[e, m] * corners[r, m]
                if basis[e, i] > 1e-12:
                    low = max(low, -rest / basis[e, i])
                elif basis[e, i] < -1e-12:
                    high = min(high, -rest / basis[e, i])
            # Rounding may leave the point a little outside of its own bounds.
            low, high = min(low, corners[r, i]), max(high, corners[r, i])
            corners[r, i] = truncated_normal(centre, 1.0 / np.sqrt(precision), low, high, state)


@numba.njit(cache=True, nogil=True)
def posterior_fractions(
    y: Any,
    draws: Any,
    variances: Any,
    dropped: Any,
    concentration: float,
    pixels: Any,
    seed: Any,
    skip: int,
    mean: Any,
    square: Any,
) -> None:
    """Mean and mean square (P, K) of the fractions of pixels, over the draws (S, K, D) of the endmembers.

    y (P, D): scores. variances (S,): of the noise. dropped (S,): components that the sum determines. concentration: of
    the prior. pixels (P,): their numbers. seed: of the random numbers. skip: draws before the mean begins.
    """
    count = len(draws) - skip
    a = np.full(mean.shape, 1.0 / mean.shape[1])
    mean[:] = 0.0
    square[:] = 0.0
    for s in range(len(draws)):
        draw_fractions(
            y, draws[s], variances[s], dropped[s], concentration, a, pixels, seed, np.uint64(1 << 40) + np.uint64(s)
        )
        if s >= skip:
            for p in range(len(y)):
                for k in range(mean.shape[1]):
                    mean[p, k] += a[p, k] / count
                    square[p, k] += a[p, k] * a[p, k] / count
