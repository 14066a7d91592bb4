"""Where a factorisation starts, from pixels that lie in memory: singular vectors, random pixels, and fits to them.

NNDSVD, non-negative double singular value decomposition: Boutsidis and Gallopoulos 2008
(doi:10.1016/j.patcog.2007.09.010).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.sparse.linalg import svds

from scalehsi.arrays import Float
from scalehsi.kernels import least_squares

ITERATIONS: Final = 50
"""Of a fit to a sample: the noise of a sample is not worth more of them."""
SETTLED: Final = 1e-7
"""It ends before when the objective gains less, relative, in five of them."""
ROUNDING: Final = 2e-9
"""Of an objective, relative to the square of the data: a small difference of sums of float32 products."""
SAME: Final = 1e-12
"""Spectra whose cosine is so near to one are the same."""


def sampled_endmembers(sample: np.ndarray[Any, Any], n_components: int, *, weighted: bool, seed: int) -> Float:
    """Endmembers of a small set of pixels, by NNDSVD and a fit from there.

    Parameters
    ----------
    sample : array, shape (P, E)
        Fits in memory a few times over as float32, which is what is worked in.
    n_components : int
        K.
    weighted : bool
        Weigh pixels and channels as counts ask for (Keenan and Kotula 2004, doi:10.1002/sia.1657).
    seed : int
        Of the start vector of the Lanczos iteration.

    Returns
    -------
    array, shape (K, E), each row with unit sum
    """
    x: Any = np.maximum(sample.astype(np.float32, copy=False), np.float32(0))
    scaled, column = weigh(x, weighted=weighted)
    _, first = nndsvd(scaled, n_components, seed=seed)
    _, s = descend(scaled, first, iterations=ITERATIONS, tol=SETTLED)
    return unit_sums(s * column, x.mean(axis=0, dtype=np.float64))


def weigh(x: Any, *, weighted: bool) -> tuple[Any, Float]:
    """Pixels in memory, divided as counts ask for, and what their channels were divided by, shape (E,)."""
    if not weighted:
        return x, np.ones(x.shape[1])
    column = root_mean(x.mean(axis=0, dtype=np.float64))
    return weigh_rows(x, weighted=True) / column.astype(x.dtype), column


def weigh_rows(x: Any, *, weighted: bool) -> Any:
    """Pixels in memory, divided by the root of their mean."""
    return x / root_mean(x.mean(axis=1, dtype=np.float64))[:, None].astype(x.dtype) if weighted else x


def root_mean(mean: Float) -> Float:
    """Square root of means relative to their mean, floored so that empty channels do not explode.

    Examples
    --------
    >>> root_mean(np.array([1.0, 9.0, 2.0])).tolist()
    [0.5, 1.5, 0.7071067811865476]
    """
    return np.asarray(np.sqrt(np.maximum(mean / max(float(mean.mean()), 1e-300), 1e-6)))


def unit_sums(s: Float, mean: Float) -> Float:
    """Rows clipped at zero and of unit sum; a row of nothing becomes the mean spectrum, or even where that is empty."""
    clipped = np.maximum(s, 0.0)
    total = clipped.sum(axis=1, keepdims=True)
    level = np.maximum(mean, 0.0)
    even = level / level.sum() if level.sum() > 0 else np.full(level.size, 1 / level.size)
    return np.asarray(np.where(total > 0, clipped / np.where(total > 0, total, 1.0), even))


def distinct(s: Float, mean: Float, *, seed: int) -> Float:
    """Rows of unit sum of which no two agree: a row that repeats an earlier one becomes noise on the mean spectrum.

    Equal endmembers would stay equal in every iteration that is a function of them.

    Parameters
    ----------
    s : array, shape (K, E)
    mean : array, shape (E,)
    seed : int

    Examples
    --------
    >>> s = distinct(np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]), np.array([1.0, 1.0]), seed=0)
    >>> len(np.unique(s.round(3), axis=0)), s.sum(axis=1).round(9).tolist()
    (3, [1.0, 1.0, 1.0])
    """
    filled = unit_sums(s, mean)
    noise = np.random.default_rng([seed, 1]).uniform(0.0, 2.0, size=s.shape)
    # Channels without signal stay empty, unless there is one with signal only.
    base = unit_sums(np.zeros_like(s), mean if np.count_nonzero(mean > 0) > 1 else np.zeros_like(mean))
    length = np.linalg.norm(filled, axis=1)
    for k in range(len(s)):
        near = filled[:k] @ filled[k] > (1 - SAME) * length[:k] * length[k]
        if near.any():
            filled[k] = unit_sums((base * noise)[k : k + 1], mean)[0]
            length[k] = np.linalg.norm(filled[k])
    return filled


def nndsvd(x: Float, n_components: int, *, seed: int) -> tuple[Float, Float]:
    """Non-negative parts of the leading singular pairs.

    Parameters
    ----------
    x : array, shape (P, E)
    n_components : int
        K; pairs beyond the rank of ``x`` are given small random numbers.
    seed : int

    Returns
    -------
    c : array, shape (P, K)
    s : array, shape (K, E)
    """
    rng = np.random.default_rng(seed)
    rank = min(n_components, min(x.shape)) if x.any() else 0
    if rank == 0:
        u, sigma, vt = np.zeros((x.shape[0], 0)), np.zeros(0), np.zeros((0, x.shape[1]))
    elif rank < min(x.shape):
        u, sigma, vt = svds(x, k=rank, v0=rng.uniform(0.5, 1.5, size=min(x.shape)).astype(x.dtype))
        u, sigma, vt = u[:, ::-1], sigma[::-1], vt[::-1]
    else:
        u, sigma, vt = np.linalg.svd(x, full_matrices=False)
    scale = float(np.sqrt(max(x.mean(), 1e-300) / n_components))
    c = scale * rng.uniform(0.0, 1e-2, size=(x.shape[0], n_components))
    s = scale * rng.uniform(0.0, 1e-2, size=(n_components, x.shape[1]))
    for k in range(rank):
        positive = [np.maximum(u[:, k], 0), np.maximum(vt[k], 0)]
        negative = [np.maximum(-u[:, k], 0), np.maximum(-vt[k], 0)]
        sizes = [float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in (positive, negative)]
        left, right = positive if sizes[0] >= sizes[1] else negative
        size = max(sizes)
        if size <= 0 or sigma[k] <= 1e-12 * sigma[0]:
            continue
        root = np.sqrt(sigma[k] * size)
        c[:, k] = root * left / np.linalg.norm(left)
        s[k] = root * right / np.linalg.norm(right)
    return c.astype(x.dtype, copy=False), s.astype(x.dtype, copy=False)


def descend(x: Any, s: Float, *, iterations: int, tol: float = 0.0) -> tuple[float, Float]:
    """Exact alternating least squares of pixels in memory, extrapolated: as the fit of a whole cube goes.

    Ang and Gillis 2019 (doi:10.1162/neco_a_01157). Some 30 iterations come as near as 400 single sweeps.

    Parameters
    ----------
    x : array, shape (P, E)
        float32, or float64.
    s : array, shape (K, E)
        Rows of zeros become the mean spectrum.
    iterations : int
    tol : float
        Ends when the objective gains less, relative, in five iterations.

    Returns
    -------
    objective : float
        ``1/2 ||x - c s||^2`` at the best point visited.
    s : array, shape (K, E)
        At least as good; rows of unit sum.
    """
    mean = x.mean(axis=0, dtype=np.float64)
    point = kept = unit_sums(np.asarray(s, dtype=np.float64), mean)
    values, norm, beta, cap = [np.inf], 0.0, 0.5, 1.0
    for i in range(iterations):
        _, sums = least_squares.update(x, s=point, norm=i == 0)
        norm = float(sums.get("norm", norm))
        value = least_squares.objective({**sums, "norm": np.asarray(norm)}, point)
        if value > values[-1] + ROUNDING * norm:
            # Too far: back to the last point that was not extrapolated; if that was this one, there is no better.
            if point is kept:
                break
            point, cap, beta = kept, beta, beta / 1.5
            continue
        better = _same_rows(least_squares.improve(sums, point), point)
        far = better + beta * (better - kept) if i else better
        point, kept = _same_rows(np.maximum(far, 0.0), better), better
        beta, cap = min(cap, beta * 1.1), min(1.0, cap * 1.05)
        values.append(min(value, values[-1]))
        if len(values) > 6 and values[-6] - values[-1] <= tol * abs(values[-1]):
            break
    return float(values[-1]), kept


def _same_rows(s: Float, fallback: Float) -> Float:
    """Rows of unit sum; one that vanished is the fallback's."""
    filled = np.where(s.any(axis=1, keepdims=True), s, fallback)
    return np.asarray(filled / filled.sum(axis=1, keepdims=True))


def pixel_endmembers(x: Any, n_components: int, *, seed: Any, neighbours: int = 1) -> Float:
    """Random pixels, none twice, each averaged with those nearest in spectral angle.

    Parameters
    ----------
    x : array, shape (P, E)
    n_components : int
        K.
    seed : int or sequence of int
    neighbours : int
        Pixels in an average, itself included.

    Returns
    -------
    array, shape (N, E)
        N is K, or P where that is smaller; not normalised, and clipped at zero.
    """
    chosen = np.random.default_rng(seed).permutation(len(x))[:n_components]
    count = min(neighbours, len(x))
    length = np.linalg.norm(x, axis=1)
    inverse = np.where(length > 0, 1 / np.where(length > 0, length, 1.0), 0.0).astype(x.dtype)
    rows = np.empty((len(chosen), x.shape[1]))
    for k, p in enumerate(chosen):
        cosine = (x @ x[p]) * inverse
        cosine[p] = np.inf
        near = np.sort(np.argpartition(-cosine, count - 1)[:count])
        rows[k] = np.maximum(x[near].mean(axis=0, dtype=np.float64), 0.0)
    return rows
