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


def leftover(x: arrays.Array | Counts, c: arrays.Array, *, s: Float) -> tuple[dict[str, Any], dict[str, Any]]:
    """What given maps and spectra leave: ``residual`` (P,) root mean square, and ``residual_spectrum`` (E,) summed."""
    if isinstance(x, Counts):
        return _leftover_of_counts(x, np.asarray(c, dtype=np.float64), np.asarray(s, dtype=np.float64))
    xp = arrays.array_namespace(x)
    left, spectrum = [], np.zeros(x.shape[1])
    for part, strip in strips(x):
        rest = strip - xp.astype(c[part, :], strip.dtype) @ arrays.to_device_like(s, x, strip.dtype)
        left.append(xp.sqrt(xp.mean(rest * rest, axis=1)))
        spectrum += arrays.to_host(xp.sum(rest, axis=0))
    return {"residual": xp.concat(left, axis=0)}, {"residual_spectrum": spectrum}


def _leftover_of_counts(x: Counts, c: Float, s: Float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The square written out, ``|x|^2 - 2 x m + |m|^2``: the model is needed where there are counts alone."""
    squares, spectrum = np.einsum("pk,kj,pj->p", c, s @ s.T, c, optimize=True), -(c.sum(axis=0) @ s)
    st = np.ascontiguousarray(s.T)
    for part, indptr, channel, value in sparse_counts.strips(x):
        _less_model(indptr, channel, value, st, c[part], squares[part], spectrum)
    residual = np.sqrt(np.maximum(squares, 0.0) / x.shape[1])
    return {"residual": residual.astype(np.float32)}, {"residual_spectrum": spectrum}


@numba.njit(cache=True, nogil=True)
def _less_model(indptr: Any, channel: Any, value: Any, st: Any, c: Any, squares: Any, spectrum: Any) -> None:
    """Add ``x^2 - 2 x m`` to the squares of each pixel, and the counts to the spectrum."""
    for p in range(len(squares)):
        for i in range(indptr[p], indptr[p + 1]):
            e, v = channel[i], value[i]
            m = 0.0
            for k in range(c.shape[1]):
                m += c[p, k] * st[e, k]
            squares[p] += v * (v - 2.0 * m)
            spectrum[e] += v
