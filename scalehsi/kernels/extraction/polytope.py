"""Corners of a polytope that inequalities describe: VCA on infinitely many points, as linear programmes.

The polytope ``{c : V c >= 0, t' c = 1}`` holds all combinations of the subspace that are nowhere negative. VCA takes
the point farthest along a direction; on all points of the polytope that is a linear programme.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy

from scalehsi.arrays import Float, Int
from scalehsi.kernels.extraction.simplex import simplex_volume
from scalehsi.kernels.extraction.vca import corners
from scalehsi.schema import InputError

FIRST_CONSTRAINTS: Final = 5000
"""Rows of V in the first programme, those farthest from the mean. Violated ones are added; most never are."""
MAX_ROUNDS: Final = 20
VIOLATION: Final = 1e-7
"""A row counts as violated below minus this share of its length times that of the point."""
DRAWS: Final = 20000
AMPLITUDES: Final = (1.0, 2.0, 4.0, 8.0)


def far_corners(v: Float, total: Float, *, restarts: int, seed: int) -> Float:
    """Corners (K, K), one a row, of the largest simplex of several runs of VCA on the polytope of ``v`` (N, K).

    Parameters
    ----------
    v : array, shape (N, K)
        Each row is a value that must not be negative.
    total : array, shape (K,)
        ``total . c = 1`` cuts the cone to a polytope.
    restarts : int
        Runs with other random directions.
    seed : int
        Of the directions.

    Raises
    ------
    InputError
        When the polytope is empty or has no end: no combination, or any, is nowhere negative.
    """
    rows = _farthest_rows(v, FIRST_CONSTRAINTS)
    for _ in range(MAX_ROUNDS):
        found = _best_run(v[rows], total, restarts=restarts, seed=seed)
        values = v @ found.T
        allowed = VIOLATION * np.linalg.norm(v, axis=1, keepdims=True) * np.linalg.norm(found, axis=1)
        bad = np.setdiff1d(np.flatnonzero((values < -allowed).any(axis=1)), rows)
        if not bad.size:
            return found
        rows = np.union1d(rows, bad[np.argsort(values[bad].min(axis=1), kind="stable")[:FIRST_CONSTRAINTS]])
    return found


def _farthest_rows(v: Float, count: int) -> Int:
    """Numbers of the rows of ``v`` (N, K) with the largest Mahalanobis distance from their mean, at most ``count``."""
    if len(v) <= count:
        return np.arange(len(v))
    centred = v - v.mean(axis=0)
    distance = np.einsum("pi,ij,pj->p", centred, np.linalg.pinv(centred.T @ centred, hermitian=True), centred)
    return np.sort(np.argsort(-distance, kind="stable")[:count])


def _best_run(v: Float, total: Float, *, restarts: int, seed: int) -> Float:
    """As `far_corners`, with all rows as constraints."""
    best, largest = np.zeros((0, 0)), -1.0
    for run in range(restarts):
        found = _one_run(v, total, np.random.default_rng([seed, run]))
        volume = simplex_volume(found)
        if volume > largest * (1 + 1e-9):
            best, largest = found, volume
    return best


def _one_run(v: Float, total: Float, rng: np.random.Generator) -> Float:
    """One run of VCA on the polytope: the farthest point along directions orthogonal to the corners before."""
    n = v.shape[1]
    found = np.zeros((0, n))
    for _ in range(n):
        drawn = rng.standard_normal(n)
        # At first orthogonal to the cut, along which all points are alike.
        spanned = found.T if len(found) else total[:, None]
        direction = drawn - spanned @ (np.linalg.pinv(spanned) @ drawn)
        ends = [_extreme(v, total, sign * direction) for sign in (1.0, -1.0)]
        found = np.vstack([found, max(ends, key=lambda c: abs(float(c @ direction)))])
    return found


def _extreme(v: Float, total: Float, direction: Float) -> Float:
    """The point (K,) of the polytope that is farthest along a direction (K,)."""
    solved = scipy.optimize.linprog(
        -direction, A_ub=-v, b_ub=np.zeros(len(v)), A_eq=total[None], b_eq=[1.0], bounds=(None, None)
    )
    if solved.x is None:
        why = (
            "no combination of the components is nowhere negative" if solved.status == 2 else "the polytope has no end"
        )
        raise InputError(
            f"the sources cannot be separated by zeros ({why}): none has a place where it alone vanishes; "
            "fit with VCA, or with the other side"
        )
    return np.asarray(solved.x)


def sampled_corners(v: Float, total: Float, spread: Float, *, restarts: int, seed: int) -> Float:
    """Corners (K, K) among random points of the polytope, as the method was published.

    v (N, K), total (K,): as in `far_corners`. spread (K, K): covariance of the scores, from which directions are drawn.
    restarts: runs of VCA. seed: of all draws.
    """
    rng = np.random.default_rng([seed, len(v)])
    n = v.shape[1]
    values, vectors = np.linalg.eigh(spread)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    middle = np.linalg.lstsq(total[None], np.ones(1), rcond=None)[0]
    kept = []
    for amplitude in AMPLITUDES:
        drawn = middle + amplitude * (rng.standard_normal((DRAWS // len(AMPLITUDES), n)) @ root.T)
        size = drawn @ total
        drawn = drawn[np.abs(size) > 1e-12] / size[np.abs(size) > 1e-12, None]
        kept.append(drawn[(drawn @ v.T >= 0).all(axis=1)])
    points = np.concatenate(kept)
    if len(points) < n:
        raise InputError(f"only {len(points)} of {DRAWS} random spectra are nowhere negative; fit with method='lp'")
    best, largest = points[:n], -1.0
    for run in range(restarts):
        found = points[corners(points, n, seed=np.random.SeedSequence([seed, run]).generate_state(1)[0])]
        volume = simplex_volume(found)
        if volume > largest * (1 + 1e-9):
            best, largest = found, volume
    return best
