"""Leading singular vectors of a cube of any size, and their non-negative parts, from sums over blocks.

NNDSVD (Boutsidis and Gallopoulos 2008, doi:10.1016/j.patcog.2007.09.010) is defined with the left vectors, which have
one value per pixel. It uses only the norms of their positive and negative parts, and these are sums over pixels.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from scipy.sparse.linalg import ArpackError, svds

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.strips import pixel_weight, strips

RELATIVE_EIGENVALUE_FLOOR: Final = 1e-8
"""Eigenvalues below this fraction of the largest are rounding: the rows of a cube are multiplied in float32."""
RELATIVE_ZERO: Final = 1e-6
"""A value of a non-negative row below this fraction of the largest counts as zero."""


def leading_pairs(x: np.ndarray[Any, Any], n: int, rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Compute the leading singular pairs of rows in memory by the Lanczos method, largest first.

    Parameters
    ----------
    x : array, shape (P, E)
    n : int
        N, the number of pairs; fewer are returned if P or E is smaller, and none for a matrix of zeros.
    rng : Generator
        Source of the start vector.

    Returns
    -------
    u : array, shape (P, N)
    sigma : array, shape (N,)
    vt : array, shape (N, E)
    """
    rank = min(n, *x.shape) if x.any() else 0
    if rank == 0:
        return np.zeros((x.shape[0], 0)), np.zeros(0), np.zeros((0, x.shape[1]))
    if rank == min(x.shape):
        return np.linalg.svd(x, full_matrices=False)
    try:
        u, sigma, vt = svds(x, k=rank, v0=rng.uniform(0.5, 1.5, size=min(x.shape)).astype(x.dtype))
    except ArpackError:
        # Equal rows: there are fewer pairs than were asked for.
        u, sigma, vt = np.linalg.svd(x, full_matrices=False)
        return u[:, :rank], sigma[:rank], vt[:rank]
    return u[:, ::-1], sigma[::-1], vt[::-1]


def leading_vectors(x: np.ndarray[Any, Any], n: int, *, seed: int) -> Float:
    """Right singular vectors of `leading_pairs`, shape (E, n); columns of zeros if ``x`` (P, E) has fewer.

    seed is that of the start vector.
    """
    _, _, right = leading_pairs(x, n, np.random.default_rng(seed))
    vectors = np.zeros((x.shape[1], n))
    vectors[:, : len(right)] = right.T
    return vectors


def nystrom(moment: Float, probe: Float, n_components: int) -> tuple[Float, Float]:
    """Compute the leading eigenpairs of ``X' X`` from its product with a few columns, which takes one pass.

    ``A ~ (A W) (W' A W)^+ (A W)'`` for a positive semi-definite ``A`` (Tropp, Yurtsever, Udell and Cevher 2017,
    https://arxiv.org/abs/1706.05736). It is as accurate as one step of subspace iteration, without a second product.

    Parameters
    ----------
    moment : array, shape (E, R)
        ``X' X probe``.
    probe : array, shape (E, R)
        Orthonormal columns.
    n_components : int
        K.

    Returns
    -------
    values : array, shape (N,)
        Descending; N is K, or the rank if that is smaller.
    vectors : array, shape (E, N)
    """
    small = probe.T @ moment
    inner, rotation = np.linalg.eigh((small + small.T) / 2)
    kept = inner > RELATIVE_EIGENVALUE_FLOOR * max(inner[-1], 0.0)
    if not kept.any():
        return np.zeros(0), np.zeros((len(probe), 0))
    root = moment @ (rotation[:, kept] / np.sqrt(inner[kept]))
    vectors, sigma, _ = np.linalg.svd(root, full_matrices=False)
    values = sigma**2
    n = min(n_components, int(np.count_nonzero(values > RELATIVE_EIGENVALUE_FLOOR * values[0])))
    return values[:n], vectors[:, :n]


def sign_parts(
    x: arrays.Array, *, vectors: Float, column: Float, weigh_pixels: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sum the squares of the positive and negative parts of the left singular vectors over a block.

    Parameters
    ----------
    x : array, shape (P, E)
    vectors : array, shape (E, K)
        Right singular vectors of the weighted data.
    column : array, shape (E,)
        Divisor of each channel.
    weigh_pixels : bool
        Divide by the root of the mean of each pixel.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``positive`` and ``negative`` (K,), squared norms of the two parts of ``X v``; ``total``, the sum of the
        weighted data; ``pixels``, P.
    """
    xp = arrays.array_namespace(x)
    sums: dict[str, Any] = {"positive": 0.0, "negative": 0.0, "total": 0.0, "pixels": x.shape[0]}
    right = arrays.to_host(vectors)
    with_ones = np.concatenate([right, np.ones((len(right), 1))], axis=1) / arrays.to_host(column)[:, None]
    for _, strip in strips(x):
        scores = strip @ arrays.to_device_like(with_ones, strip, strip.dtype)
        if weigh_pixels:
            scores = scores * xp.sqrt(pixel_weight(xp, strip))
        on_host = arrays.to_host(scores).astype(np.float64)
        sums["positive"] += (np.maximum(on_host[:, :-1], 0.0) ** 2).sum(axis=0)
        sums["negative"] += (np.minimum(on_host[:, :-1], 0.0) ** 2).sum(axis=0)
        sums["total"] += on_host[:, -1].sum()
    return {}, sums


def nonnegative_rows(vectors: Float, positive: Float, negative: Float, *, fill: float) -> Float:
    """Compute the endmembers of NNDSVD from the right singular vectors and the parts of the left ones.

    Parameters
    ----------
    vectors : array, shape (E, N)
        Right singular vectors.
    positive, negative : array, shape (N,)
        As returned by `sign_parts`; their sum is the squared singular value.
    fill : float
        Replaces zeros (NNDSVDa: the mean of the data); 0 keeps them.

    Returns
    -------
    array, shape (N, E)
    """
    rows: list[Float] = []
    for v, plus, minus in zip(vectors.T, positive, negative, strict=True):
        parts = np.maximum(v, 0.0), np.maximum(-v, 0.0)
        # Norms of the left parts times sigma, times norms of the right parts.
        sizes = [float(np.sqrt(left) * np.linalg.norm(right)) for left, right in zip((plus, minus), parts, strict=True)]
        if not rows:
            # The leading pair has one sign if the data are not negative.
            row, size = np.abs(v), float(np.sqrt(plus + minus))
        else:
            row, size = (parts[0], sizes[0]) if sizes[0] >= sizes[1] else (parts[1], sizes[1])
        length = float(np.linalg.norm(row))
        row = np.sqrt(size) * row / length if length > 0 else row
        rows.append(np.where(row > RELATIVE_ZERO * row.max(initial=0.0), row, fill))
    return np.asarray(rows).reshape(len(rows), len(vectors))
