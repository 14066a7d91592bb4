"""Leading singular vectors of a cube of any size, and their non-negative parts, from sums over blocks.

NNDSVD (Boutsidis and Gallopoulos 2008, doi:10.1016/j.patcog.2007.09.010) wants the left vectors, which are as long as
the cube has pixels. But of each it asks only which of its signs is the larger part, and that is a sum over pixels.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.strips import pixel_weight, strips

NOTHING: Final = 1e-8
"""Eigenvalues below this share of the largest are rounding: the rows of a cube are multiplied in float32."""
ZERO: Final = 1e-6
"""Below this share of the largest, a value of a singular vector is zero."""


def leading_vectors(x: np.ndarray[Any, Any], n: int, *, seed: int, sweeps: int = 4) -> Float:
    """The first right singular vectors of rows in memory, shape (E, N), by subspace iteration.

    Halko, Martinsson and Tropp 2011 (doi:10.1137/090771806). Cost: ``8 sweeps P E (N + 8)`` flops.
    """
    channels = x.shape[1]
    if min(x.shape) <= n + 8:
        full = np.zeros((channels, n))
        _, _, right = np.linalg.svd(x.astype(np.float64), full_matrices=channels <= 2 * n + 16)
        full[:, : min(n, len(right))] = right[:n].T
        return full
    basis = np.random.default_rng(seed).standard_normal((channels, n + 8))
    for _ in range(sweeps):
        basis, _ = np.linalg.qr(x.T @ (x @ basis.astype(x.dtype)))
    small = (x @ basis.astype(x.dtype)).astype(np.float64)
    _, turn = np.linalg.eigh(small.T @ small)
    return np.asarray(basis @ turn[:, ::-1][:, :n], dtype=np.float64)


def nystrom(moment: Float, probe: Float, n_components: int) -> tuple[Float, Float]:
    """Leading eigenpairs of ``X' X`` from its product with a few columns: one pass over the data.

    ``A ~ (A W) (W' A W)^+ (A W)'`` for a positive semi-definite ``A`` (Tropp, Yurtsever, Udell and Cevher 2017,
    https://arxiv.org/abs/1706.05736). As exact as one step of subspace iteration, without a second product.

    Parameters
    ----------
    moment : array, shape (E, R)
        ``X' X probe``.
    probe : array, shape (E, R)
        Orthonormal columns.
    n_components : int

    Returns
    -------
    values : array, shape (N,)
        Falling; N is K, or the rank where that is smaller.
    vectors : array, shape (E, N)
    """
    small = probe.T @ moment
    inner, turn = np.linalg.eigh((small + small.T) / 2)
    kept = inner > NOTHING * max(inner[-1], 0.0)
    if not kept.any():
        return np.zeros(0), np.zeros((len(probe), 0))
    half = moment @ (turn[:, kept] / np.sqrt(inner[kept]))
    vectors, sigma, _ = np.linalg.svd(half, full_matrices=False)
    values = sigma**2
    n = min(n_components, int(np.count_nonzero(values > NOTHING * values[0])))
    return values[:n], vectors[:, :n]


def halves(
    x: arrays.Array, *, vectors: Float, column: Float, weigh_pixels: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One pass over a block: how much of every left singular vector is positive, and how much negative.

    NNDSVD asks of the left vectors for these two norms alone, and they are sums over pixels.

    Parameters
    ----------
    x : array, shape (P, E)
    vectors : array, shape (E, K)
        Right singular vectors of the weighted data.
    column : array, shape (E,)
        What channels are divided by.
    weigh_pixels : bool
        Divide by the root of the mean of each pixel.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``positive`` and ``negative`` (K,), squared lengths of the two parts of ``X v``; ``total``, the sum of the
        weighted data; ``pixels``.
    """
    xp = arrays.array_namespace(x)
    sums: dict[str, Any] = {"positive": 0.0, "negative": 0.0, "total": 0.0, "pixels": x.shape[0]}
    right = arrays.to_host(vectors)
    both = np.concatenate([right, np.ones((len(right), 1))], axis=1) / arrays.to_host(column)[:, None]
    for _, strip in strips(x):
        scores = strip @ arrays.to_device_like(both, strip, strip.dtype)
        if weigh_pixels:
            scores = scores * xp.sqrt(pixel_weight(xp, strip))
        here = arrays.to_host(scores).astype(np.float64)
        sums["positive"] += (np.maximum(here[:, :-1], 0.0) ** 2).sum(axis=0)
        sums["negative"] += (np.minimum(here[:, :-1], 0.0) ** 2).sum(axis=0)
        sums["total"] += here[:, -1].sum()
    return {}, sums


def nonnegative_rows(vectors: Float, positive: Float, negative: Float, *, fill: float) -> Float:
    """The endmembers of NNDSVD, from the right singular vectors and the parts of the left ones.

    Parameters
    ----------
    vectors : array, shape (E, N)
    positive, negative : array, shape (N,)
        As `halves` gives; their sum is the squared singular value.
    fill : float
        What zeros become (NNDSVDa: the mean of the data); 0 leaves them.

    Returns
    -------
    array, shape (N, E)
    """
    rows: list[Float] = []
    for v, plus, minus in zip(vectors.T, positive, negative, strict=True):
        parts = np.maximum(v, 0.0), np.maximum(-v, 0.0)
        # Lengths of the left parts times sigma, and of the right parts.
        sizes = [float(np.sqrt(left) * np.linalg.norm(right)) for left, right in zip((plus, minus), parts, strict=True)]
        if not rows:
            # The leading pair has one sign where no value of the data is negative.
            row, size = np.abs(v), float(np.sqrt(plus + minus))
        else:
            row, size = (parts[0], sizes[0]) if sizes[0] >= sizes[1] else (parts[1], sizes[1])
        length = float(np.linalg.norm(row))
        row = np.sqrt(size) * row / length if length > 0 else row
        rows.append(np.where(row > ZERO * row.max(initial=0.0), row, fill))
    return np.asarray(rows).reshape(len(rows), len(vectors))
