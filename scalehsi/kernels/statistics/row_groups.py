"""Add up the rows of a block in groups of pixels, dense or sparse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scalehsi.arrays import Float, Int
from scalehsi.kernels.compiled import lean
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.pixel_rows.strips import strips


def add_up_groups(
    x: np.ndarray[Any, Any] | Counts, groups: Sequence[tuple[Int, int]], *, fill: tuple[Float, Float, Float]
) -> tuple[list[Float], Float]:
    """Add up rows that belong to one group, for several groupings at once, in one reading of the block.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
    groups : sequence of (array of int, shape (P,); number of groups)
        The group of each pixel; -1 for pixels of none.
    fill : (c, s, offset), arrays of shape (P, K), (K, E), (E,)
        A value that is not finite is replaced by the model ``c s + offset``.

    Returns
    -------
    sums : list of array, shape (n, E)
        For each grouping, in float64.
    totals : array, shape (P,)
        Sum over the channels of each pixel.

    Examples
    --------
    >>> x, none = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.zeros((3, 1))
    >>> (sums,), totals = add_up_groups(x, [(np.array([0, -1, 0]), 1)], fill=(none, np.zeros((1, 2)), np.zeros(2)))
    >>> sums.tolist(), totals.tolist()
    ([[6.0, 8.0]], [3.0, 7.0, 11.0])
    """
    sums = [np.zeros((n, x.shape[1])) for _, n in groups]
    if isinstance(x, Counts):
        for part, indptr, channel, value in sparse_counts.strips(x):
            for (group, _), out in zip(groups, sums, strict=True):
                _add_counts(indptr, channel, value, group[part], out)
        return sums, x.totals
    totals = np.zeros(len(x))
    c, s, offset = fill
    for part, strip in strips(x):
        ones = np.ones(x.shape[1], dtype=strip.dtype)
        total = strip @ ones
        if not np.isfinite(total).all():
            strip = np.where(np.isfinite(strip), strip, (c[part] @ s + offset).astype(strip.dtype))
            total = strip @ ones
        totals[part], strip = total, np.ascontiguousarray(strip)
        for (group, _), out in zip(groups, sums, strict=True):
            _add_rows(strip, group[part], out)
    return sums, totals


@lean
def _add_rows(x: Any, group: Any, out: Any) -> None:
    """Add row p of x (P, E) to row ``group[p]`` of out (n, E), unless that is negative."""
    for p in range(x.shape[0]):
        g = group[p]
        if g >= 0:
            for e in range(x.shape[1]):
                out[g, e] += x[p, e]


@lean
def _add_counts(indptr: Any, channel: Any, value: Any, group: Any, out: Any) -> None:
    """Do the same for a strip of `sparse_counts`: indptr (P + 1,), channel and value (filled,)."""
    for p in range(len(group)):
        g = group[p]
        if g >= 0:
            for i in range(indptr[p], indptr[p + 1]):
                out[g, channel[i]] += value[i]
