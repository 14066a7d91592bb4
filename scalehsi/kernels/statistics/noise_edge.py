"""Largest squared singular value that a matrix of noise reaches: the limit above which a component is signal."""

from __future__ import annotations

from typing import Final

import numpy as np

TAIL: Final = 3.3
"""Widths of the Tracy-Widom distribution above its centre that noise exceeds about once in 1000 matrices."""


def noise_edge(rows: float, columns: float) -> float:
    """Squared singular value that white noise of variance one exceeds about once in 1000 matrices.

    Parameters
    ----------
    rows, columns : float
        Size of the matrix, at least 1; their order does not matter.

    Returns
    -------
    float
        ``mu + 3.3 sigma`` with ``mu = (sqrt(n - 1) + sqrt(m))^2`` and
        ``sigma = (sqrt(n - 1) + sqrt(m)) (1 / sqrt(n - 1) + 1 / sqrt(m))^(1/3)`` for n rows and m columns, n >= m.
        Counts of few events have longer tails than the Gaussian noise for which this holds.

    References
    ----------
    Johnstone 2001, doi:10.1214/aos/1009210544.

    Examples
    --------
    >>> round(noise_edge(1024, 300))
    2504
    >>> noise_edge(300, 1024) == noise_edge(1024, 300)
    True
    """
    n, m = max(rows, columns), max(1.0, min(rows, columns))
    first, second = np.sqrt(max(n - 1.0, 1.0)), np.sqrt(m)
    centre = first + second
    return float(centre**2 + TAIL * centre * (1.0 / first + 1.0 / second) ** (1.0 / 3.0))
