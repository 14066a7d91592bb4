"""Resample maps between rasters: means over pixel footprints, and splines with given means over footprints.

A pixel of a coarse map is the mean over its footprint, not the value at its centre. The upsampled map is therefore the
cubic spline on the coarse raster whose means over the footprints are the coarse values; the mean of a cubic spline over
a footprint is a quartic spline. An interpolation between the centres would be blurred by one more footprint.

Positions are in pixels of the raster that is sampled: 0 is the centre of the first pixel.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from scalehsi.arrays import Float
from scalehsi.kernels.compiled import lean

SPLINE_MEANS: Final = (1 / 384, 76 / 384, 230 / 384, 76 / 384, 1 / 384)
"""Means of a cubic B-spline over the five nearest footprints: the quartic B-spline at whole numbers."""
MIN_COVERED: Final = 1e-9
"""A footprint covered by less than this fraction has no mean."""


def spline_of_means(means: Float) -> Float:
    """Coefficients of the cubic spline with given means over the pixels, mirrored at the edges.

    Parameters
    ----------
    means : array, shape (rows, columns, K)

    Returns
    -------
    array, shape (rows, columns, K)
        For `spline_at`. Variations from pixel to pixel, noise included, are amplified up to 4.8 times along each axis.

    References
    ----------
    Unser 1999, doi:10.1109/79.799930 (B-splines and their filters).

    Examples
    --------
    >>> means = np.random.default_rng(0).random((6, 5, 1))
    >>> coefficients = spline_of_means(means)
    >>> fine = (np.arange(6 * 32) + 0.5) / 32 - 0.5
    >>> v, u = np.meshgrid(fine, fine[: 5 * 32], indexing="ij")
    >>> values = spline_at(coefficients, v.ravel(), u.ravel()).reshape(6, 32, 5, 32)
    >>> bool(np.abs(values.mean(axis=(1, 3)) - means[..., 0]).max() < 1e-3)
    True
    """
    found = np.asarray(means, dtype=np.float64)
    for axis in (0, 1):
        moved = np.moveaxis(found, axis, 0)
        flat = np.ascontiguousarray(moved.reshape(len(moved), -1))
        found = np.moveaxis(splu(_means_matrix(len(moved))).solve(flat).reshape(moved.shape), 0, axis)
    return np.ascontiguousarray(found)


def _means_matrix(n: int) -> Any:
    """Sparse matrix (n, n) from the coefficients along an axis of n pixels to the means."""
    rows, columns, values = [], [], []
    for offset, weight in zip(range(-2, 3), SPLINE_MEANS, strict=True):
        rows.append(np.arange(n))
        columns.append(np.array([_mirrored(i + offset, n) for i in range(n)]))
        values.append(np.full(n, weight))
    where = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csc_matrix((np.concatenate(values), where), shape=(n, n))


@lean
def _mirrored(i: int, n: int) -> int:
    """Number of the pixel that mirrors pixel i, which may lie beyond the edges of n pixels."""
    period = 2 * n
    i = i % period
    return i if i < n else period - 1 - i


def spline_at(coefficients: Float, y: Float, x: Float) -> Float:
    """Values of a spline at P points, shape (P, K).

    Parameters
    ----------
    coefficients : array, shape (rows, columns, K)
        From `spline_of_means`.
    y, x : array, shape (P,)
        Positions in pixels.
    """
    out = np.zeros((len(y), coefficients.shape[2]))
    _spline_rows(np.ascontiguousarray(coefficients), np.asarray(y, dtype="f8"), np.asarray(x, dtype="f8"), out)
    return out


@lean
def _weights(t: float, w: Any) -> None:
    """Write the four nonzero cubic B-splines at the fraction ``t`` between two coefficients into ``w`` (4,)."""
    u = 1.0 - t
    w[0] = u * u * u / 6.0
    w[1] = (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0
    w[2] = (4.0 - 6.0 * u * u + 3.0 * u * u * u) / 6.0
    w[3] = t * t * t / 6.0


@numba.njit(cache=True, nogil=True)
def _spline_rows(coefficients: Any, y: Any, x: Any, out: Any) -> None:
    """Write the values of `spline_at` into ``out`` (P, K), which is zero at first."""
    rows, columns, n = coefficients.shape
    wy, wx = np.empty(4), np.empty(4)
    for p in range(y.shape[0]):
        i, j = int(np.floor(y[p])), int(np.floor(x[p]))
        _weights(y[p] - i, wy)
        _weights(x[p] - j, wx)
        for a in range(4):
            row = coefficients[_mirrored(i + a - 1, rows)]
            for b in range(4):
                weight, value = wy[a] * wx[b], row[_mirrored(j + b - 1, columns)]
                for k in range(n):
                    out[p, k] += weight * value[k]


def summed_area(values: Float) -> Float:
    """Summed-area table for `box_sums`: sums over all pixels above and to the left, after a row and a column of zeros.

    Parameters
    ----------
    values : array, shape (rows, columns, ...)

    Returns
    -------
    array, shape (rows + 1, columns + 1, ...)
    """
    table = np.zeros((values.shape[0] + 1, values.shape[1] + 1, *values.shape[2:]))
    table[1:, 1:] = values.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    return table


def box_sums(table: Float, y: Float, x: Float, *, height: float, width: float) -> Float:
    """Sums over boxes centred on a raster of points; a pixel counts by the fraction of it that lies in the box.

    Parameters
    ----------
    table : array, shape (rows + 1, columns + 1, ...)
        From `summed_area`.
    y, x : array, shape (M,) and (N,)
        Centres of the boxes, in pixels.
    height, width : float
        Sides of the boxes in pixels, above 0.

    Returns
    -------
    array, shape (M, N, ...)

    Examples
    --------
    >>> table = summed_area(np.arange(12.0).reshape(3, 4))
    >>> box_sums(table, np.array([0.5]), np.array([0.5, 2.5]), height=2, width=2).tolist()
    [[10.0, 18.0]]
    """
    low, high = (_rows_at(table, np.asarray(y) + 0.5 + side * height / 2) for side in (-1, 1))
    strip = np.moveaxis(high - low, 1, 0)
    low, high = (_rows_at(strip, np.asarray(x) + 0.5 + side * width / 2) for side in (-1, 1))
    return np.asarray(np.moveaxis(high - low, 0, 1))


def _rows_at(table: Float, edge: Float) -> Float:
    """Rows of a summed-area table at any positions ``edge`` (M,): linear between its rows, constant beyond."""
    place = np.clip(edge, 0.0, len(table) - 1.0)
    low = np.minimum(np.floor(place).astype(np.int64), len(table) - 2)
    part = (place - low).reshape((-1,) + (1,) * (table.ndim - 1))
    return np.asarray((1.0 - part) * table[low] + part * table[low + 1])


def box_means(table: Float, filled: Float, y: Float, x: Float, *, height: float, width: float) -> tuple[Float, Float]:
    """Means over boxes, and the fraction of each box that is covered by pixels.

    Parameters
    ----------
    table : array, shape (rows + 1, columns + 1, ...)
        `summed_area` of values times weights.
    filled : array, shape (rows + 1, columns + 1)
        `summed_area` of the weights: 1 for a measured pixel, 0 for none.
    y, x, height, width
        As in `box_sums`.

    Returns
    -------
    means : array, shape (M, N, ...)
        Zero where a box has no pixels.
    covered : array, shape (M, N)
        Fraction from 0 to 1.
    """
    total = box_sums(filled, y, x, height=height, width=width)
    values = box_sums(table, y, x, height=height, width=width)
    there = total > MIN_COVERED * height * width
    scale = np.where(there, 1.0 / np.where(there, total, 1.0), 0.0)
    return values * scale.reshape(scale.shape + (1,) * (values.ndim - 2)), total / (height * width)
