"""Add up the rows of a block in groups of pixels, dense or sparse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from scalehsi.arrays import Float, Int
from scalehsi.kernels.compiled import lean
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.pixel_rows.strips import strips

Visitor = Callable[[slice, Any, Float], None]


def add_up_groups(
    x: np.ndarray[Any, Any] | Counts,
    regions: tuple[Int, int],
    bins: tuple[Int, int],
    *,
    fill: tuple[Float, Float, Float],
    each: Visitor | None = None,
) -> tuple[Float, np.ndarray[Any, Any], Float]:
    """Add up the rows of a block by region and by bin, in one reading.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
    regions : (array of int, shape (P,); number of regions R)
        The region of each pixel.
    bins : (array of int, shape (G, P); number of bins n)
        The bins of each pixel, for several kinds of bins; -1 for none.
    fill : (c, s, offset), arrays of shape (P, K), (K, E), (E,)
        A value that is not finite is replaced by the model ``c s + offset``.
    each : callable, optional
        ``each(part, rows, totals)`` is called for each strip: a slice of the block; its rows as `strips` or
        `sparse_counts.strips` give them, which are overwritten by the next strip; and the totals of its pixels.

    Returns
    -------
    regions : array, shape (R, E)
    bins : array of float32, shape (n, E)
    totals : array, shape (P,)
        Sum over the channels of each pixel.

    Examples
    --------
    >>> x, none = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.zeros((3, 1))
    >>> fill = (none, np.zeros((1, 2)), np.zeros(2))
    >>> regions, bins, totals = add_up_groups(x, (np.array([0, 0, 1]), 2), (np.array([[0, -1, 0]]), 1), fill=fill)
    >>> regions.tolist(), bins.tolist(), totals.tolist()
    ([[4.0, 6.0], [5.0, 6.0]], [[6.0, 8.0]], [3.0, 7.0, 11.0])
    """
    region, few = regions[0], np.ascontiguousarray(bins[0].T)
    added, sampled = np.zeros((regions[1], x.shape[1])), np.zeros((bins[1], x.shape[1]), dtype=np.float32)
    if isinstance(x, Counts):
        totals = x.totals
        for part, indptr, channel, value in sparse_counts.strips(x):
            _add_counts(indptr, channel, value, region[part], few[part], added, sampled)
            if each is not None:
                each(part, (indptr, channel, value), totals[part])
        return added, sampled, totals
    totals = np.zeros(len(x))
    c, s, offset = fill
    buffer = np.empty(x.shape[1], dtype=np.float64 if x.dtype == np.float64 else np.float32)
    ones = np.ones(x.shape[1], dtype=buffer.dtype)
    for part, given in strips(x):
        strip, total = given, given @ ones
        if not np.isfinite(total).all():
            strip = np.where(np.isfinite(strip), strip, (c[part] @ s + offset).astype(strip.dtype))
            total = strip @ ones
        totals[part] = total
        if each is not None:
            each(part, given, totals[part])
        _add_rows(np.ascontiguousarray(strip, dtype=buffer.dtype), region[part], few[part], buffer, added, sampled)
    return added, sampled, totals


@lean
def _add_rows(x: Any, region: Any, few: Any, buffer: Any, added: Any, sampled: Any) -> None:
    """Add the rows of a strip x (P, E) to ``added[region[p]]``, and to ``sampled[few[p]]`` where that is not negative.

    region (P,). few (P, G). buffer (E,): overwritten; runs of one region are added up in it. added (R, E): float64.
    sampled (n, E): float32.
    """
    run = -1
    for p in range(x.shape[0]):
        if region[p] != run:
            if run >= 0:
                for e in range(x.shape[1]):
                    added[run, e] += buffer[e]
            run = region[p]
            buffer[:] = 0.0
        for e in range(x.shape[1]):
            buffer[e] += x[p, e]
        for j in range(few.shape[1]):
            g = few[p, j]
            if g >= 0:
                for e in range(x.shape[1]):
                    sampled[g, e] += x[p, e]
    if run >= 0:
        for e in range(x.shape[1]):
            added[run, e] += buffer[e]


@lean
def _add_counts(indptr: Any, channel: Any, value: Any, region: Any, few: Any, added: Any, sampled: Any) -> None:
    """Do the same for a strip of `sparse_counts`: indptr (P + 1,), channel and value (filled,)."""
    for p in range(len(region)):
        for i in range(indptr[p], indptr[p + 1]):
            added[region[p], channel[i]] += value[i]
        for j in range(few.shape[1]):
            g = few[p, j]
            if g >= 0:
                for i in range(indptr[p], indptr[p + 1]):
                    sampled[g, channel[i]] += value[i]
