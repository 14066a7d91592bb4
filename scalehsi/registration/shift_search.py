"""Search the shift between two maps: first on ever finer grids, then to a small fraction of a pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import scipy

from scalehsi.arrays import Float
from scalehsi.registration.rasters import Pair

SHIFT_PENALTY: Final = 0.02
"""Subtracted from the score at the largest shift, so that of equally good shifts the smallest is found."""
NEIGHBOUR_STEPS: Final = 2
"""Grid steps to each side of the best shift that are tried on every grid after the first."""

Score = Callable[[Pair], float]


def search_grids(levels: Iterable[tuple[Score, Sequence[float]]], *, reach: Sequence[float]) -> Pair:
    """Search the shift of the highest score on a sequence of grids.

    Parameters
    ----------
    levels : iterable of (callable, (float, float))
        For each grid a function from a shift (y, x) to a score, and the steps along y and x. The first grid covers the
        reach; each further grid covers the surroundings of the best shift so far.
    reach : (float, float)
        Largest shifts along y and x.

    Examples
    --------
    >>> def hill(shift):
    ...     return -((shift[0] - 1.2) ** 2) - (shift[1] + 0.4) ** 2
    >>> search_grids([(hill, (1.0, 1.0)), (hill, (0.2, 0.2))], reach=(3.0, 3.0))
    (1.2, -0.4)
    """
    best: Pair = (0.0, 0.0)
    for number, (score, steps) in enumerate(levels):
        counts = [math.floor(r / s) if number == 0 else NEIGHBOUR_STEPS for r, s in zip(reach, steps, strict=True)]
        moves = [np.arange(-n, n + 1) * s for n, s in zip(counts, steps, strict=True)]
        tries = [(best[0] + float(y), best[1] + float(x)) for y in moves[0] for x in moves[1]]
        found = [score(shift) - SHIFT_PENALTY * _relative_distance(shift, reach) for shift in tries]
        best = tries[int(np.argmax(found))]
    return best


def _relative_distance(shift: Pair, reach: Sequence[float]) -> float:
    """Length of a shift in units of the reach."""
    return math.hypot(*(s / r if r else 0.0 for s, r in zip(shift, reach, strict=True)))


def refine(score: Callable[[Float], float], start: Float, steps: Sequence[float]) -> Float:
    """Maximise a smooth score from a start by the simplex method of Nelder and Mead; returns an array (n,).

    Parameters
    ----------
    score : callable
        From an array (n,) to a float.
    start : array, shape (n,)
    steps : sequence of float
        Size of the first simplex along each axis. The search ends at a thousandth of it.
    """
    scale = np.asarray(steps, dtype=np.float64)

    def fall(v: Any) -> float:
        return -score(start + scale * v)

    corners = np.vstack([np.zeros(len(scale)), np.eye(len(scale))])
    options = {"initial_simplex": corners, "xatol": 1e-3, "fatol": 1e-10, "maxiter": 150 * len(scale)}
    return np.asarray(
        start + scale * scipy.optimize.minimize(fall, corners[0], method="Nelder-Mead", options=options).x
    )
