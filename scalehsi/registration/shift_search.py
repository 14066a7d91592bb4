"""The best shift of one map on another: on grids that get finer, then down to a small part of a pixel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
from scipy.optimize import minimize

from scalehsi.arrays import Float
from scalehsi.registration.rasters import Pair

NEAR: Final = 0.02
"""What a shift by the whole reach must gain in score: among places that are alike the nearest wins."""
AROUND: Final = 2
"""Steps to each side that are tried on every grid but the first."""

Score = Callable[[Pair], float]


def searched(levels: Iterable[tuple[Score, Sequence[float]]], *, reach: Sequence[float]) -> Pair:
    """The best shift on the last of some grids.

    Parameters
    ----------
    levels : iterable of (callable, (float, float))
        A score of shifts, and the steps of a grid along y and x. All within the reach is tried on the first grid, and
        what is around the best so far on each of the next.
    reach : (float, float)
        Largest shifts along y and x.

    Examples
    --------
    >>> def hill(shift):
    ...     return -((shift[0] - 1.2) ** 2) - (shift[1] + 0.4) ** 2
    >>> searched([(hill, (1.0, 1.0)), (hill, (0.2, 0.2))], reach=(3.0, 3.0))
    (1.2, -0.4)
    """
    best: Pair = (0.0, 0.0)
    for number, (score, steps) in enumerate(levels):
        counts = [math.floor(r / s) if number == 0 else AROUND for r, s in zip(reach, steps, strict=True)]
        moves = [np.arange(-n, n + 1) * s for n, s in zip(counts, steps, strict=True)]
        tries = [(best[0] + float(y), best[1] + float(x)) for y in moves[0] for x in moves[1]]
        found = [score(shift) - NEAR * _far(shift, reach) for shift in tries]
        best = tries[int(np.argmax(found))]
    return best


def _far(shift: Pair, reach: Sequence[float]) -> float:
    return math.hypot(*(s / r if r else 0.0 for s, r in zip(shift, reach, strict=True)))


def polished(score: Callable[[Float], float], start: Float, steps: Sequence[float]) -> Float:
    """Where a smooth score is largest near a start, by the simplex method of Nelder and Mead.

    Parameters
    ----------
    score : callable
        Of an array (n,).
    start : array, shape (n,)
    steps : sequence of float
        How far it first looks along each, and it ends at a thousandth of that.
    """
    scale = np.asarray(steps, dtype=np.float64)

    def fall(v: Any) -> float:
        return -score(start + scale * v)

    corners = np.vstack([np.zeros(len(scale)), np.eye(len(scale))])
    options = {"initial_simplex": corners, "xatol": 1e-3, "fatol": 1e-10, "maxiter": 150 * len(scale)}
    return np.asarray(start + scale * minimize(fall, corners[0], method="Nelder-Mead", options=options).x)
