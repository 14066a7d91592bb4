"""Residual of a block of pixels: data minus abundances times endmembers, dense or sparse."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.pixel_rows.strips import strips


def residual_of_block(x: arrays.Array | Counts, c: arrays.Array, *, s: Float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Residual of given abundances and endmembers, for each pixel and for each channel.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
    c : array, shape (P, K)
    s : array, shape (K, E)

    Returns
    -------
    pixels : dict
        ``residual`` (P,), root mean square over the channels.
    sums : dict
        ``residual_spectrum`` (E,), sum over the pixels.
    """
    if isinstance(x, Counts):
        return _residual_of_counts(x, np.asarray(c, dtype=np.float64), np.asarray(s, dtype=np.float64))
    xp = arrays.array_namespace(x)
    rms, spectrum = [], np.zeros(x.shape[1])
    for part, strip in strips(x):
        residual = strip - xp.astype(c[part, :], strip.dtype) @ arrays.to_device_like(s, x, strip.dtype)
        rms.append(xp.sqrt(xp.mean(residual * residual, axis=1)))
        spectrum += arrays.to_host(xp.sum(residual, axis=0))
    return {"residual": xp.concat(rms, axis=0)}, {"residual_spectrum": spectrum}


def _residual_of_counts(x: Counts, c: Float, s: Float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Expand the square to ``|x|^2 - 2 x m + |m|^2``: the model m is evaluated only in channels with counts.

    x is (P, E), c (P, K), s (K, E); the rest as in `residual_of_block`.
    """
    squares, spectrum = np.einsum("pk,kj,pj->p", c, s @ s.T, c, optimize=True), -(c.sum(axis=0) @ s)
    st = np.ascontiguousarray(s.T)
    for part, indptr, channel, value in sparse_counts.strips(x):
        _add_count_terms(indptr, channel, value, st, c[part], squares[part], spectrum)
    residual = np.sqrt(np.maximum(squares, 0.0) / x.shape[1])
    return {"residual": residual.astype(np.float32)}, {"residual_spectrum": spectrum}


@numba.njit(cache=True, nogil=True)
def _add_count_terms(indptr: Any, channel: Any, value: Any, st: Any, c: Any, squares: Any, spectrum: Any) -> None:
    """Add ``x^2 - 2 x m`` to ``squares`` (P,), and the counts to ``spectrum`` (E,), in place.

    indptr (P + 1,), channel and value (filled,) are a strip of `sparse_counts`; st is (E, K), c (P, K).
    """
    for p in range(len(squares)):
        for i in range(indptr[p], indptr[p + 1]):
            e, v = channel[i], value[i]
            m = 0.0
            for k in range(c.shape[1]):
                m += c[p, k] * st[e, k]
            squares[p] += v * (v - 2.0 * m)
            spectrum[e] += v
