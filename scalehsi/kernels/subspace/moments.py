"""Kernels of PCA: moments of blocks, as an E x E matrix or a sketch of it, scores, and Malinowski's indicator."""

from __future__ import annotations

from typing import Any

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.strips import add_sums, pixel_weight, strips


@np.errstate(invalid="ignore", over="ignore")  # the caller detects NaN and Inf in ``power``
def moments(
    x: arrays.Array, *, weigh_pixels: bool, probe: Float | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sum the moments of a block for PCA.

    Parameters
    ----------
    x : array, shape (P, E)
    weigh_pixels : bool
        Divide ``x x'`` by the mean of each pixel (Keenan and Kotula 2004, doi:10.1002/sia.1657). The weights of the
        channels are applied to the sums afterwards, so one pass suffices although it also yields the channel means.
    probe : array, shape (E, R), optional
        Return the product of the moment matrix ``X' V X`` with this matrix, at 4 P E R flops, instead of the matrix.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``moment`` (E, E) or (E, R), ``spectrum`` (E,) = sum x, ``weighted_spectrum`` (E,) = sum v x,
        ``weight`` = sum v, ``power`` (E,) = sum v x^2, ``pixels``, P.
    """
    xp = arrays.array_namespace(x)
    total: dict[str, Any] = {}
    for _, strip in strips(x):
        v = pixel_weight(xp, strip) if weigh_pixels else xp.ones_like(strip[:, :1])
        weighted = strip * v
        if probe is None:
            moment = xp.matrix_transpose(weighted) @ strip
        else:
            moment = xp.matrix_transpose(weighted) @ (strip @ xp.asarray(probe, dtype=strip.dtype))
        parts = {
            "moment": moment,
            "spectrum": xp.sum(strip, axis=0),
            "weighted_spectrum": xp.sum(weighted, axis=0),
            "weight": xp.sum(v),
            "power": xp.sum(weighted * strip, axis=0),
        }
        add_sums(total, parts)
    total["pixels"] = x.shape[0]
    return {}, total


def scores(
    x: arrays.Array, *, loadings: Float, offset: Float, basis: Float, residual: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compute the scores ``(x - offset) loadings`` of a block, and the residuals of ``scores basis + offset``.

    Parameters
    ----------
    x : array, shape (P, E)
    loadings : array, shape (E, K)
        Projects a spectrum onto the components, including the weights.
    offset : array, shape (E,)
        Mean spectrum to subtract, or zeros.
    basis : array, shape (K, E)
        The components in the intensity unit of the cube.
    residual : bool
        False skips the residuals.

    Returns
    -------
    pixels : dict
        ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the channels.
    sums : dict
        ``residual_spectrum`` (E,), sum over the pixels.
    """
    xp = arrays.array_namespace(x)
    found, rms, spectrum = [], [], np.zeros(x.shape[1])
    for _, strip in strips(x):
        centred = strip - xp.asarray(offset, dtype=strip.dtype)
        c = centred @ xp.asarray(loadings, dtype=strip.dtype)
        found.append(xp.astype(c, xp.float32, copy=False))
        if residual:
            residuals = centred - c @ xp.asarray(basis, dtype=strip.dtype)
            rms.append(xp.sqrt(xp.mean(residuals * residuals, axis=1)))
            spectrum += arrays.to_host(xp.sum(residuals, axis=0)).astype(np.float64)
    pixels = {"abundances": xp.concat(found, axis=0)}
    if not residual:
        return pixels, {}
    return pixels | {"residual": xp.concat(rms, axis=0)}, {"residual_spectrum": spectrum}


def malinowski(eigenvalues: Float, *, pixels: int, channels: int) -> Float:
    """Compute Malinowski's indicator for each number of components; it is smallest at the number of real components.

    ``IND(n) = RE(n) / (c - n)^2`` with the real error ``RE(n) = sqrt(sum_{j > n} lambda_j / (r (c - n)))``, ``r`` the
    larger and ``c`` the smaller size of the data matrix. Malinowski 1977, doi:10.1021/ac50012a027.

    Parameters
    ----------
    eigenvalues : array, shape (N,)
        Eigenvalues of the moment matrix, descending. If N is below ``c``, the last entry is the sum of the others.
    pixels, channels : int
        Size of the data matrix, without channels that are zero in all pixels.

    Returns
    -------
    array, shape (N - 1,)
        For 1, 2, ... components.
    """
    small, large = min(pixels, channels), max(pixels, channels)
    n = np.arange(1, min(eigenvalues.size, small))
    tail = np.cumsum(eigenvalues[::-1])[::-1][1 : n.size + 1]
    error = np.sqrt(np.maximum(tail, 0.0) / (large * (small - n)))
    return np.asarray(error / (small - n) ** 2)
