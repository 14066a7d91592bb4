"""Search the corners of the cloud of scores: the largest simplex whose corners are pixels.

Points are lifted: their last coordinate is one constant for all, so that the determinant of K points is proportional to
the volume of their simplex.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.ndimage import uniform_filter

from scalehsi.arrays import Bool, Float, Int
from scalehsi.kernels.extraction.vca import corners

MAX_SWEEPS: Final = 50
RELATIVE_GAIN: Final = 1e-9
"""A replacement must enlarge the volume by this fraction, so that rounding never exchanges equal pixels."""
MANY_DEVIATIONS: Final = 5.0
LEAST_OUTSIDE: Final = 0.05
"""A pixel is outside of the simplex where a fraction is below zero by this much, and this many standard deviations."""


def best_vca(points: Float, n: int, *, restarts: int, seed: int) -> Int:
    """Run VCA from several random directions and return the corners with the largest simplex.

    points (P, n): lifted scores. n: number of corners. restarts: runs. seed: of the directions. Of equal volumes the
    first is kept.
    """
    best, largest = np.arange(min(n, len(points))), -1.0
    for run in range(restarts):
        found = corners(points, n, seed=np.random.SeedSequence([seed, run]).generate_state(1)[0])
        volume = simplex_volume(points[found])
        if volume > largest * (1 + RELATIVE_GAIN):
            best, largest = found, volume
    return best


def simplex_volume(corner_points: Float) -> float:
    """Absolute determinant of the lifted corners (K, K): the volume of their simplex, up to a constant factor."""
    square = corner_points.shape[0] == corner_points.shape[1]
    return float(abs(np.linalg.det(corner_points))) if square else 0.0


def nfindr(points: Float, start: Int) -> Int:
    """Exchange one corner after the other for the pixel that enlarges the simplex most, until none does.

    The determinant is linear in one corner, so its cofactors give the volume for every pixel in one product. Winter
    1999, doi:10.1117/12.366289.

    Parameters
    ----------
    points : array, shape (P, K)
        Lifted scores.
    start : array of int, shape (K,)
        Rows of the first corners.

    Returns
    -------
    array of int, shape (K,)
        Of equally good pixels the first is taken.
    """
    found = np.array(start)
    if len(found) != points.shape[1]:
        return found
    for _ in range(MAX_SWEEPS):
        changed = False
        for k in range(len(found)):
            volume = simplex_volume(points[found])
            sizes = np.abs(points @ cofactors(points[found], k))
            best = int(np.argmax(sizes))
            if sizes[best] > volume * (1 + RELATIVE_GAIN) and best not in found:
                found[k], changed = best, True
        if not changed:
            break
    return found


def cofactors(matrix: Float, row: int) -> Float:
    """Cofactors (K,) of a row of a square matrix; right also where the matrix is singular."""
    others = np.delete(matrix, row, axis=0)
    signs = (-1.0) ** (row + np.arange(matrix.shape[1]))
    return np.array([sign * np.linalg.det(np.delete(others, j, axis=1)) for j, sign in enumerate(signs)])


def smooth_maps(maps: Float, used: Bool, size: int) -> Float:
    """Mean of each map over ``size`` x ``size`` used pixels around each; pixels that are not used stay out.

    maps (..., y, x, D): values of the used pixels; others may be anything. used (..., y, x). size: odd; 0 for none.
    """
    if size <= 1:
        return maps
    window = [1] * (maps.ndim - 3) + [min(size, 2 * n - 1) if n > 1 else 1 for n in maps.shape[-3:-1]]
    weight = uniform_filter(used.astype(np.float64), size=window, mode="constant")
    filled = np.where(used[..., None], maps, 0.0).astype(np.float64)
    total = uniform_filter(filled, size=[*window, 1], mode="constant")
    return np.asarray(total / np.maximum(weight, 1e-12)[..., None])


def share_outside(points: Float, corner_points: Float, noise: float) -> float:
    """Share of the pixels that lie outside of a simplex by more than their noise.

    points (P, K): lifted scores. corner_points (K, K). noise: standard deviation of a score. Without pure pixels the
    simplex of the extreme pixels cuts off those between them.
    """
    if simplex_volume(corner_points) <= 0.0 or np.linalg.cond(corner_points) > 1e12:
        return 0.0
    inverse = np.linalg.inv(corner_points)
    limit = np.maximum(MANY_DEVIATIONS * noise * np.linalg.norm(inverse[:-1], axis=0), LEAST_OUTSIDE)
    return float((points @ inverse < -limit).any(axis=1).mean())
