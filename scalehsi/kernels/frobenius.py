"""Least squares: ``1/2 sum_p v_p sum_e w_e (x - c s)^2`` over non-negative ``c`` and ``s``.

``v`` and ``w`` are one, or the weights of Keenan and Kotula (2004, doi:10.1002/sia.1657) that make counting noise
uniform: one over the mean of the pixel, one over the mean of the channel.

An iteration is a function of ``s`` alone. The pass solves ``c`` exactly and adds up ``N = sum v c' x`` (K, E) and
``M = sum v c' c`` (K, K); from these come both the objective, without another pass, and the best ``s`` for that ``c``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from scalehsi import arrays
from scalehsi.kernels.nnls import nnls

Float = np.ndarray[Any, np.dtype[np.float64]]

STRIP: Final = 256
"""Pixels a strip: its float32 copy stays in cache, and float32 partial sums are added to float64 before they round."""


def strips(x: arrays.Array) -> Iterator[tuple[slice, arrays.Array]]:
    """Give slices of rows and the rows themselves as floats: counts stay integers until here."""
    xp = arrays.array_namespace(x)
    single = x.dtype != xp.float64
    for start in range(0, x.shape[0], STRIP):
        part = slice(start, min(start + STRIP, x.shape[0]))
        yield part, xp.astype(x[part, :], xp.float32, copy=False) if single else x[part, :]


def pixel_weight(xp: Any, strip: arrays.Array) -> arrays.Array:
    """One over the mean of each pixel, shape (P, 1); an empty pixel weighs nothing (its residual is zero anyway)."""
    mean = xp.mean(strip, axis=1, keepdims=True)
    return xp.where(mean > 0, 1 / xp.where(mean > 0, mean, xp.ones_like(mean)), xp.zeros_like(mean))


def update(
    x: arrays.Array, *, s: Float, w: Float | None = None, weigh_pixels: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One pass over a block: the sums that the next ``s`` and the objective need.

    Parameters
    ----------
    x : array, shape (P, E)
        Any real dtype.
    s : array, shape (K, E)
    w : array, shape (E,), optional
        Weight of each channel.
    weigh_pixels : bool
        Divide by the mean of each pixel.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``N`` (K, E), ``M`` (K, K), ``norm`` = sum v w x^2.
    """
    xp = arrays.array_namespace(x)
    total: dict[str, Any] = {}
    for _, strip, c, v in _solved(xp, x, s, w, weigh_pixels=weigh_pixels):
        cv = c if v is None else c * v
        square = strip * strip if v is None else strip * strip * v
        norm = xp.sum(square, axis=0, dtype=xp.float64)
        # The objective is a small difference of these three: the small ones are added in float64.
        parts = {
            "N": xp.matrix_transpose(cv) @ strip,
            "M": xp.astype(xp.matrix_transpose(cv), xp.float64) @ xp.astype(c, xp.float64),
            "norm": xp.sum(norm if w is None else norm * xp.asarray(w, dtype=xp.float64)),
        }
        for key, value in parts.items():
            host = arrays.to_host(value).astype(np.float64)
            total[key] = host if key not in total else total[key] + host
    return {}, total


def abundances(
    x: arrays.Array, *, s: Float, w: Float | None = None, weigh_pixels: bool = False, residual: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last pass over a block: exact abundances, and what the model leaves.

    Parameters
    ----------
    x, s, w, weigh_pixels
        As in `update`. The weight of a whole pixel does not change its abundances.
    residual : bool
        False leaves out the residuals and their cost, 2 P E K flops.

    Returns
    -------
    pixels : dict
        ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the channels.
    sums : dict
        ``residual_spectrum`` (E,) sum of data minus model, ``objective``.
    """
    xp = arrays.array_namespace(x)
    found, left = [], []
    total: dict[str, Any] = {}
    for _, strip, c, v in _solved(xp, x, s, w, weigh_pixels=weigh_pixels):
        found.append(xp.astype(c, xp.float32, copy=False))
        if not residual:
            continue
        rest = strip - xp.asarray(found[-1], dtype=strip.dtype) @ xp.asarray(s, dtype=strip.dtype)
        square = rest * rest
        left.append(xp.sqrt(xp.mean(square, axis=1)))
        weighted = square if w is None else square * xp.asarray(w, dtype=square.dtype)
        parts = {
            "residual_spectrum": xp.sum(rest, axis=0),
            "objective": 0.5 * xp.sum(weighted if v is None else weighted * v),
        }
        for key, value in parts.items():
            host = arrays.to_host(value).astype(np.float64)
            total[key] = host if key not in total else total[key] + host
    pixels = {"abundances": xp.concat(found, axis=0)}
    return (pixels | {"residual": xp.concat(left, axis=0)} if residual else pixels), total


def _solved(
    xp: Any, x: arrays.Array, s: Float, w: Float | None, *, weigh_pixels: bool
) -> Iterator[tuple[slice, Any, Any, Any]]:
    """Strips with their exact abundances (P, K) and the weights of their pixels."""
    dtype = xp.float64 if x.dtype == xp.float64 else xp.float32
    ends = xp.asarray(s, dtype=dtype)
    weighted = ends if w is None else ends * xp.asarray(w, dtype=dtype)
    # In float64: rounded to float32, the Gram matrix of similar spectra is no longer positive, and Cholesky makes NaN.
    wide = xp.astype(ends, xp.float64, copy=False)
    gram = (wide if w is None else wide * xp.asarray(w, dtype=xp.float64)) @ xp.matrix_transpose(wide)
    for part, strip in strips(x):
        c = xp.astype(nnls(gram, strip @ xp.matrix_transpose(weighted)), dtype, copy=False)
        yield part, strip, c, pixel_weight(xp, strip) if weigh_pixels else None


def improve(sums: dict[str, Float], s: Float) -> Float:
    """From the sums of a pass at ``s``: the best ``s`` for the abundances it found.

    Channels are independent given the abundances, so channel weights do not enter.

    Parameters
    ----------
    sums : dict
        As `update` gives, added up over all blocks.
    s : array, shape (K, E)

    Returns
    -------
    array, shape (K, E)
        A component that no pixel uses keeps its spectrum.
    """
    n, m = sums["N"], sums["M"]
    new = nnls(m, np.ascontiguousarray(n.T)).T
    unused = np.diag(m) <= 0
    new[unused] = s[unused]
    return np.ascontiguousarray(new)


def objective(sums: dict[str, Float], s: Float, w: Float | None = None) -> float:
    """``1/2 (norm - 2 <N, s w> + <M, s w s'>)``: the loss at the point of the pass, from its sums alone."""
    weighted = s if w is None else s * w
    fit = float(np.sum(sums["N"] * weighted))
    return 0.5 * float(sums["norm"] - 2 * fit + np.sum(sums["M"] * (weighted @ s.T)))
