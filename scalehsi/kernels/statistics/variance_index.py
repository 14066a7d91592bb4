"""Variance index: how many times the variance of single counts the noise of a cube has, from neighbouring pixels."""

from __future__ import annotations

from typing import Any, Final

import array_api_compat
import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float, Int

LEAST_SHARE_OF_MEAN: Final = 0.05
"""Channels below this share of the mean channel are left out: a constant offset or electronic noise decides them."""
ROWS_AT_ONCE: Final = 64
"""Pairs that are converted to float64 together."""


def variance_index(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Variance divided by mean, phi: 1 for single counts, the gain for counts times a gain, below 1 for smoothed ones.

    Differences of neighbours cancel what both have in common, so that composition and thickness count only where they
    change from one pixel to the next. Where they change much, phi is too large; the residual of a fit has less of it.

    Parameters
    ----------
    first, second : array, shape (n, E)
        Spectra of a pixel and of its neighbour, in each row. Voxels that are NaN in one of them are left out.

    Returns
    -------
    float
        Median over the channels. NaN where it cannot be estimated: no pair, or no intensity.

    Examples
    --------
    >>> counts = np.random.default_rng(0).poisson(5.0, (2, 400, 60))
    >>> round(variance_index(*counts), 1), round(variance_index(*(3.0 * counts)), 1)
    (1.0, 3.0)
    """
    number = np.arange(len(first))
    return variance_index_of_sums(*pair_sums(np.concatenate([first, second]), number, number + len(first)))


def pair_sums(x: arrays.Array, first: Int, second: Int) -> tuple[Float, Float]:
    """The sums of `variance_index_of_sums` over pairs of rows of one array.

    x (P, E): spectra; NaN in one of a pair leaves a voxel out. first, second (n,): numbers of the rows.
    """
    squares, means = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for start in range(0, len(first), ROWS_AT_ONCE):
        a, b = (_float64_rows(x, rows[start : start + ROWS_AT_ONCE]) for rows in (first, second))
        both = np.isfinite(a) & np.isfinite(b)
        a, b = np.where(both, a, 0.0), np.where(both, b, 0.0)
        squares += 0.5 * ((a - b) ** 2).sum(axis=0)
        means += 0.5 * (a + b).sum(axis=0)
    return squares, means


def _float64_rows(x: arrays.Array, rows: Int) -> Float:
    """Some rows of an array (P, E), on the host."""
    where = arrays.array_namespace(x).asarray(rows, device=array_api_compat.device(x))
    return np.asarray(arrays.to_host(arrays.array_namespace(x).take(x, where, axis=0)), dtype=np.float64)


def variance_index_of_sums(squares: Float, means: Float) -> float:
    """The variance index from sums over pairs of neighbours.

    squares: ``sum (a - b)^2 / 2`` of data or residuals of each channel, shape (E,). means: ``sum (x + y) / 2`` of the
    data of the same pairs, shape (E,).
    """
    level = float(means.mean()) if means.size else 0.0
    if not np.isfinite(level) or level <= 0:
        return float("nan")
    used = means >= LEAST_SHARE_OF_MEAN * level
    return float(np.median(squares[used] / means[used]))
