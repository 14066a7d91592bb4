"""Start endmembers for NMF from a sample of pixels in memory: NNDSVD, random pixels, and short fits from these.

NNDSVD, non-negative double singular value decomposition: Boutsidis and Gallopoulos 2008
(doi:10.1016/j.patcog.2007.09.010).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels import least_squares
from scalehsi.kernels.subspace.singular_vectors import leading_pairs

MAX_SAMPLE_ITERATIONS: Final = 50
"""Iterations of a fit to a sample; with more, the fit would follow the noise of the sample."""
SAMPLE_TOLERANCE: Final = 1e-7
"""A fit to a sample ends when five iterations lower the objective by less than this fraction of it."""
OBJECTIVE_ROUNDING: Final = 2e-9
"""Rounding of an objective relative to the square of the data: it is a small difference of float32 sums."""
EQUAL_COSINE_GAP: Final = 1e-12
"""Spectra whose cosine is nearer to one than this are equal."""


def sampled_endmembers(sample: np.ndarray[Any, Any], n_components: int, *, weighted: bool, seed: int) -> Float:
    """Estimate the endmembers of a sample of pixels by NNDSVD and a short fit from there.

    Parameters
    ----------
    sample : array, shape (P, E)
        Converted to float32; memory must hold several copies.
    n_components : int
        K.
    weighted : bool
        Weigh pixels and channels for counting noise (Keenan and Kotula 2004, doi:10.1002/sia.1657).
    seed : int
        Seed of the start vector of the Lanczos iteration.

    Returns
    -------
    array, shape (K, E), each row with unit sum
    """
    x: Any = np.maximum(sample.astype(np.float32, copy=False), np.float32(0))
    scaled, column = weigh(x, weighted=weighted)
    _, first = nndsvd(scaled, n_components, seed=seed)
    _, s = descend(scaled, first, iterations=MAX_SAMPLE_ITERATIONS, tol=SAMPLE_TOLERANCE)
    return unit_sums(s * column, x.mean(axis=0, dtype=np.float64))


def weigh(x: Any, *, weighted: bool) -> tuple[Any, Float]:
    """Weigh pixels and channels (P, E) for counting noise; also returns the divisor of each channel, shape (E,)."""
    if not weighted:
        return x, np.ones(x.shape[1])
    column = root_mean(x.mean(axis=0, dtype=np.float64))
    return weigh_rows(x, weighted=True) / column.astype(x.dtype), column


def weigh_rows(x: Any, *, weighted: bool) -> Any:
    """Divide each pixel (P, E) by the root of its mean; unchanged if ``weighted`` is False."""
    return x / root_mean(x.mean(axis=1, dtype=np.float64))[:, None].astype(x.dtype) if weighted else x


def root_mean(mean: Float) -> Float:
    """Square root of means relative to their mean, with a floor so that division by it does not amplify empty channels.

    Examples
    --------
    >>> root_mean(np.array([1.0, 9.0, 2.0])).tolist()
    [0.5, 1.5, 0.7071067811865476]
    """
    return np.asarray(np.sqrt(np.maximum(mean / max(float(mean.mean()), 1e-300), 1e-6)))


def unit_sums(s: Float, mean: Float) -> Float:
    """Clip rows (K, E) at zero and scale them to unit sum; a row of zeros becomes the mean spectrum (E,).

    If the mean spectrum is zero too, the row becomes constant.
    """
    clipped = np.maximum(s, 0.0)
    total = clipped.sum(axis=1, keepdims=True)
    level = np.maximum(mean, 0.0)
    even = level / level.sum() if level.sum() > 0 else np.full(level.size, 1 / level.size)
    return np.asarray(np.where(total > 0, clipped / np.where(total > 0, total, 1.0), even))


def distinct(s: Float, mean: Float, *, seed: int) -> Float:
    """Scale rows to unit sum, and replace a row that repeats an earlier one by noise on the mean spectrum.

    Equal endmembers would stay equal in every iteration, as each iteration depends on the endmembers only.

    Parameters
    ----------
    s : array, shape (K, E)
    mean : array, shape (E,)
        Mean spectrum.
    seed : int
        Seed of the noise.

    Examples
    --------
    >>> s = distinct(np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]), np.array([1.0, 1.0]), seed=0)
    >>> len(np.unique(s.round(3), axis=0)), s.sum(axis=1).round(9).tolist()
    (3, [1.0, 1.0, 1.0])
    """
    filled = unit_sums(s, mean)
    noise = np.random.default_rng([seed, 1]).uniform(0.0, 2.0, size=s.shape)
    # Channels without signal stay empty, unless only one channel has signal.
    base = unit_sums(np.zeros_like(s), mean if np.count_nonzero(mean > 0) > 1 else np.zeros_like(mean))
    length = np.linalg.norm(filled, axis=1)
    for k in range(len(s)):
        near = filled[:k] @ filled[k] > (1 - EQUAL_COSINE_GAP) * length[:k] * length[k]
        if near.any():
            filled[k] = unit_sums((base * noise)[k : k + 1], mean)[0]
            length[k] = np.linalg.norm(filled[k])
    return filled


def nndsvd(x: Float, n_components: int, *, seed: int) -> tuple[Float, Float]:
    """Compute the non-negative parts of the leading singular pairs.

    Parameters
    ----------
    x : array, shape (P, E)
    n_components : int
        K; pairs beyond the rank of ``x`` become small random numbers.
    seed : int
        Seed of these numbers and of the start vector of the Lanczos iteration.

    Returns
    -------
    c : array, shape (P, K)
    s : array, shape (K, E)
    """
    rng = np.random.default_rng(seed)
    u, sigma, vt = leading_pairs(x, n_components, rng)
    scale = float(np.sqrt(max(x.mean(), 1e-300) / n_components))
    c = scale * rng.uniform(0.0, 1e-2, size=(x.shape[0], n_components))
    s = scale * rng.uniform(0.0, 1e-2, size=(n_components, x.shape[1]))
    for k in range(len(sigma)):
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
    """Fit pixels in memory by exact alternating least squares with extrapolation, as a fit of a whole cube does.

    Ang and Gillis 2019 (doi:10.1162/neco_a_01157). About 30 iterations converge as far as 400 single sweeps.

    Parameters
    ----------
    x : array, shape (P, E)
        float32 or float64.
    s : array, shape (K, E)
        Start; rows of zeros become the mean spectrum.
    iterations : int
        Maximum number.
    tol : float
        The fit ends when five iterations lower the objective by less than this fraction of it.

    Returns
    -------
    objective : float
        ``1/2 ||x - c s||^2`` at the best point visited.
    s : array, shape (K, E)
        Endmembers at this point or one update further, which is not worse; rows of unit sum.
    """
    mean = x.mean(axis=0, dtype=np.float64)
    point = kept = unit_sums(np.asarray(s, dtype=np.float64), mean)
    values, norm, beta, cap = [np.inf], 0.0, 0.5, 1.0
    for i in range(iterations):
        _, sums = least_squares.update(x, s=point, norm=i == 0)
        norm = float(sums.get("norm", norm))
        value = least_squares.objective({**sums, "norm": np.asarray(norm)}, point)
        if value > values[-1] + OBJECTIVE_ROUNDING * norm:
            # Extrapolated too far: return to the last plain update; if this is one, it cannot be improved.
            if point is kept:
                break
            point, cap, beta = kept, beta, beta / 1.5
            continue
        better = _unit_rows(least_squares.improve(sums, point), point)
        extrapolated = better + beta * (better - kept) if i else better
        point, kept = _unit_rows(np.maximum(extrapolated, 0.0), better), better
        beta, cap = min(cap, beta * 1.1), min(1.0, cap * 1.05)
        values.append(min(value, values[-1]))
        if len(values) > 6 and values[-6] - values[-1] <= tol * abs(values[-1]):
            break
    return float(values[-1]), kept


def _unit_rows(s: Float, fallback: Float) -> Float:
    """Scale rows (K, E) to unit sum; a row of zeros is replaced by that of ``fallback`` (K, E)."""
    filled = np.where(s.any(axis=1, keepdims=True), s, fallback)
    return np.asarray(filled / filled.sum(axis=1, keepdims=True))


def pixel_endmembers(x: Any, n_components: int, *, seed: Any, neighbours: int = 1) -> Float:
    """Draw random pixels without repetition, and average each with those nearest in spectral angle.

    Parameters
    ----------
    x : array, shape (P, E)
    n_components : int
        K.
    seed : int or sequence of int
    neighbours : int
        Pixels in an average, including the drawn one.

    Returns
    -------
    array, shape (N, E)
        N is K, or P if that is smaller; not normalised, clipped at zero.
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
