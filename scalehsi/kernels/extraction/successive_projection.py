"""Successive projection: the rows of a matrix that are farthest apart, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from scalehsi.arrays import Float, Int


def successive_projection(x: np.ndarray[Any, Any], n: int) -> Int:
    """Choose rows that are nearly pure: the longest row, then the longest of what no chosen row explains, and so on.

    Parameters
    ----------
    x : array, shape (P, E)
        Rows of unit sum, of rank n but for noise.
    n : int
        Number of rows, at most P.

    Returns
    -------
    array of int, shape (n,)

    References
    ----------
    Araujo et al. 2001, doi:10.1016/S0169-7439(01)00119-8. Gillis and Vavasis 2014, doi:10.1109/TPAMI.2013.226.

    Examples
    --------
    >>> successive_projection(np.array([[0.5, 0.5], [1.0, 0.0], [0.1, 0.9]]), 2).tolist()
    [1, 2]
    """
    rest = np.array(x, dtype=np.float64)
    chosen: list[int] = []
    for _ in range(n):
        length = (rest**2).sum(axis=1)
        length[chosen] = -1.0
        best = int(np.argmax(length))
        chosen.append(best)
        norm = float(np.linalg.norm(rest[best]))
        if norm > 0:
            direction: Float = rest[best] / norm
            rest -= np.outer(rest @ direction, direction)
    return np.array(chosen, dtype=np.int64)
