"""Where a factorisation starts: non-negative double singular value decomposition of a sample of pixels.

NNDSVD: Boutsidis and Gallopoulos 2008 (doi:10.1016/j.patcog.2007.09.010). Its zeros are kept: on counts they lead to
the side of the flat valley where the major phase does not take a share of the minor ones, which random starts do not.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.sparse.linalg import svds

Float = np.ndarray[Any, np.dtype[np.float64]]

SWEEPS: Final = 200


def sampled_endmembers(sample: np.ndarray[Any, Any], n_components: int, *, weighted: bool, seed: int) -> Float:
    """Endmembers of a small set of pixels, by NNDSVD and alternating least squares.

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
    row, column = (_root_mean(x, 1), _root_mean(x, 0)) if weighted else (np.ones(len(x)), np.ones(x.shape[1]))
    scaled = (x / row[:, None].astype(x.dtype)) / column.astype(x.dtype)
    _, s = alternate(scaled, *nndsvd(scaled, n_components, seed=seed), iterations=SWEEPS)
    s = s.astype(np.float64) * column
    total = s.sum(axis=1, keepdims=True)
    mean = x.mean(axis=0, dtype=np.float64)
    even = mean / mean.sum() if mean.sum() > 0 else np.full(x.shape[1], 1 / x.shape[1])
    filled: Float = np.where(total > 0, s / np.where(total > 0, total, 1.0), even)
    return filled


def _root_mean(x: Float, axis: int) -> Float:
    """Square root of the mean along an axis relative to the whole, floored so that empty channels do not explode."""
    mean = x.mean(axis=axis, dtype=np.float64)
    return np.asarray(np.sqrt(np.maximum(mean / max(float(x.mean()), 1e-300), 1e-6)))


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


def alternate(x: Float, c: Float, s: Float, *, iterations: int) -> tuple[Float, Float]:
    """Hierarchical alternating least squares in memory: one sweep of each factor an iteration.

    Cichocki and Phan 2009 (doi:10.1587/transfun.E92.A.708). Single sweeps keep the zeros of
    the start longer than exact solves do, which is what the start is for.
    """
    c, s = c.copy(), s.copy()
    for _ in range(iterations):
        _sweep(c, x @ s.T, s @ s.T)
        columns = np.ascontiguousarray(s.T)
        _sweep(columns, x.T @ c, c.T @ c)
        s = np.ascontiguousarray(columns.T)
    return c, s


def _sweep(factor: Float, b: Float, gram: Float) -> None:
    for k in range(factor.shape[1]):
        if gram[k, k] > 0:
            step = (b[:, k] - factor @ gram[:, k]) / gram[k, k]
            factor[:, k] = np.maximum(factor[:, k] + step, 0.0)
