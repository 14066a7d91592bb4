"""A number that stands for all values of a cube and their places: equal for equal data, whatever the chunks."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.statistics.survey import splitmix64

ROWS_PER_STRIP: Final = 64


def fingerprint(x: np.ndarray[Any, Any] | Counts, *, index: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Sum over the pixels of a random number that follows from the pixel's number and its values, modulo 2^64.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        Any real dtype; a value counts as the same number in all of them.
    index : array, shape (P,)
        Absolute pixel numbers.

    Returns
    -------
    array of int64, shape (1,)
        Those of the blocks are added.

    Examples
    --------
    >>> x, index = np.arange(12.0).reshape(4, 3), np.arange(4)
    >>> whole = fingerprint(x, index=index)
    >>> parts = fingerprint(x[:1], index=index[:1]) + fingerprint(x[1:].astype("u1"), index=index[1:])
    >>> bool(whole == parts), bool(whole == fingerprint(x[::-1], index=index))
    (True, False)
    """
    factors = splitmix64(np.arange(x.shape[1]), 1) | np.uint64(1)
    rows = np.empty(len(index), dtype=np.uint64)
    for start in range(0, len(index), ROWS_PER_STRIP):
        part = slice(start, start + ROWS_PER_STRIP)
        strip = x[part].to_dense() if isinstance(x, Counts) else x[part]
        # Adding zero turns -0.0 into 0.0; all NaN are one.
        values = np.asarray(strip, dtype=np.float64) + 0.0
        values[np.isnan(values)] = np.nan
        bits = values.view(np.uint64)
        # The lower half of a small whole number is zero, and a product would leave it so.
        rows[part] = ((bits ^ (bits >> np.uint64(32))) * factors).sum(axis=1)
    drawn = splitmix64(rows ^ splitmix64(index, 2), 3)
    return np.asarray(drawn.sum(keepdims=True).view(np.int64))
