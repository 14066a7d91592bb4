"""Voxels and pixels of a block that stand out: the largest values, spikes, and pixels brighter than all around them."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Bool, Float, Int
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.statistics.outlier_loops import CANDIDATE, TOP_VALUES, floor_of, scan_counts, scan_dense
from scalehsi.kernels.statistics.variance_index import variance_index_of_sums

MOST: Final = 100
"""Spikes, and bright pixels, that a block reports."""
BRIGHT: Final = 2.3
"""A bright pixel has more than this many times the total of each neighbour."""
PAIRS: Final = 256
"""Pairs of neighbours from which the noise of a block is estimated."""
PENDING: Final = 65536
"""Candidates that are collected before they are compared with their neighbours."""
NEGATIVE_SHARE: Final = 0.01
"""From this share of negative values on, a background was taken off the data, and its noise is still there."""
MEDIAN_OF_SQUARES: Final = 0.4549
"""Median of the square of a standard normal number."""


class Outliers(NamedTuple):
    """What stands out in one block. n is another number for each group of arrays.

    Attributes
    ----------
    top_values, top_counts : array, shape (n,)
        The largest different values, at most 256 and within two standard deviations of the largest, and how many voxels
        have each; values that are not above zero are left out.
    voxels, negative : int
        Voxels that are finite, and those of them below zero.
    least : float
        The smallest value; inf without any.
    pixel, channel, value, expected, model : array, shape (n,)
        Candidates for spikes, the 100 strongest: pixel, channel, value, the largest of the predictions, the fitted
        model.
    outside : array of bool, shape (n, 4)
        Where a candidate has a neighbour in another block: left, right, above, below.
    number : int
        Candidates in all.
    bright_index, bright_total, bright_neighbour : array, shape (n,)
        The 100 brightest pixels whose neighbours are all in the block and have less than 1 / 2.3 of their total: number
        of the pixel, its total, and the largest of those of its neighbours.
    border_index, border_total, border_neighbour : array, shape (n,)
        The same of every pixel with a neighbour in another block; -inf without a neighbour in the block.
    """

    top_values: Float
    top_counts: Int
    voxels: int
    negative: int
    least: float
    pixel: Int
    channel: Int
    value: Float
    expected: Float
    model: Float
    component: Int
    outside: Bool
    number: int
    bright_index: Int
    bright_total: Float
    bright_neighbour: Float
    border_index: Int
    border_total: Float
    border_neighbour: Float


class _Noise(NamedTuple):
    """phi: variance index. removed (E,): intensity that was taken off the data, but not its noise."""

    phi: float
    removed: Float

    def above(self, channel: Int, value: Float, expected: Float) -> Float:
        """By how many standard deviations values are above what is expected, by the Anscombe transform."""
        return standard_deviations(value, expected, self.phi, self.removed[channel])


class _Found(NamedTuple):
    """Voxels: row of the block, channel, value, prediction; each of shape (n,)."""

    row: Int
    channel: Int
    value: Float
    expected: Float

    def take(self, chosen: Any) -> _Found:
        return _Found(*(column[chosen] for column in self))


class Search:
    """Search a block for what stands out of its surroundings, strip by strip.

    A voxel is a candidate for a spike when it is 5 standard deviations above each of three predictions: its pixel's
    total times the mean spectrum, the same spectrum 4 to 7 channels away, and the 4 neighbouring pixels. The noise is
    estimated from pairs of neighbours in the block, so candidates near the limit depend on the blocks; so do the
    neighbours at a block's border. Largest values and bright pixels do not, once the blocks are joined.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        The pixels in use, of any real dtype, at least one; NaN is skipped.
    c : array, shape (P, K)
        Their abundances.
    index : array, shape (P,)
        Absolute row-major pixel numbers; the block is a box of the map.
    shape : tuple of int
        Sizes of the map's pixel dims, (..., y, x). Pixels are neighbours along y and x.
    mean : array, shape (E,)
        Mean spectrum of the whole map, in any unit.
    s : array, shape (K, E)
        Endmembers.
    offset : array, shape (E,)
        What the model adds to ``c s``.
    """

    def __init__(
        self,
        x: np.ndarray[Any, Any] | Counts,
        c: Float,
        *,
        index: Int,
        shape: tuple[int, ...],
        mean: Float,
        s: Float,
        offset: Float,
    ) -> None:
        self.x, self.c, self.index = x, np.asarray(c, dtype=np.float64), np.asarray(index)
        self.s, self.offset = s, offset
        self.beside, self.outside = neighbours(self.index, shape)
        self.noise = _rough_noise(x, self.c, self.beside, s=s, offset=offset)
        share = np.maximum(np.nan_to_num(np.asarray(mean, dtype=np.float64)), 0.0)
        self.share = share / max(float(share.sum()), 1e-300)
        self.scanned, self.number = _Scanned(), 0
        self.waiting: list[_Found] = []
        self.found = _Found(*(np.zeros(0, dtype=t) for t in "qqdd"))
        wide = x.dtype.itemsize > 4 or (x.dtype.kind in "iu" and x.dtype.itemsize > 2)
        self.dtype = np.dtype(np.float64 if wide else np.float32)
        self.spectra = np.stack([self.share, self.noise.removed])
        self.typed = np.stack([self.share, self.noise.removed + 0.375 * self.noise.phi]).astype(self.dtype)
        self.out = tuple(np.zeros(0, dtype=t) for t in "qqdd")

    def strip(self, part: slice, rows: Any, totals: Float) -> None:
        """Search some rows of the block.

        part: of the block. rows: as `strips` gives them, or `sparse_counts.strips` without the slice. totals: sums over
        the channels of these pixels.
        """
        counts = isinstance(self.x, Counts)
        values = rows[-1] if counts else rows
        if values.size > self.out[0].size:
            self.out = tuple(np.empty(values.size, dtype=t) for t in "qqdd")
        given: tuple[Any, ...] = (*self.scanned.arrays, *self.out)
        if counts:
            indptr, channel, value = rows
            buffer = np.zeros((1, self.x.shape[1]))
            n = scan_counts(indptr, channel, value, totals, self.share, buffer, self.noise.phi, *given)
        else:
            # Rows of wide types have come in single precision, unless they are float64 themselves.
            rows = np.ascontiguousarray(rows if rows.dtype == self.dtype else self.x[part], dtype=self.dtype)
            n = scan_dense(rows, totals, self.spectra, self.typed, self.noise.phi, *given)
        if n:
            row, *columns = (column[:n].copy() for column in self.out)
            self.waiting.append(_Found(row + part.start, *columns))
            if sum(len(each.row) for each in self.waiting) >= PENDING:
                self._compare()

    def _compare(self) -> None:
        """Compare the candidates that wait with their neighbours, and keep the strongest."""
        fresh = _above_neighbours(self.x, _joined(self.waiting), self.beside, self.noise)
        self.waiting, self.number = [], self.number + len(fresh.row)
        self.found = _strongest(self.found, fresh, self.noise)

    def result(self, totals: Float) -> dict[str, Any]:
        """``judge_outliers``: a list with one `Outliers`; lists of blocks are concatenated by ``+``.

        totals: sums over the channels of all pixels of the block, whose strips were all searched.
        """
        if self.waiting:
            self._compare()
        sums = self.scanned.sums
        if isinstance(self.x, Counts):
            sums[1] = self.x.shape[0] * self.x.shape[1]
            sums[3] = 0.0 if len(self.x.value) < sums[1] else sums[3]
        found = self.found
        parts = self.c[found.row] * self.s[:, found.channel].T
        part = Outliers(
            *self.scanned.top(self.noise.phi),
            voxels=int(sums[1]),
            negative=int(sums[2]),
            least=float(sums[3]),
            pixel=self.index[found.row],
            channel=found.channel,
            value=found.value,
            expected=found.expected,
            model=parts.sum(axis=1) + self.offset[found.channel],
            component=parts.argmax(axis=1),
            outside=self.outside[found.row],
            number=self.number,
            **_bright(self.index, np.asarray(totals, dtype=np.float64), self.beside, self.outside),
        )
        return {"judge_outliers": [part]}


class _Scanned:
    """What the compiled loops count. sums: entries of the table, finite values, negative ones, least value."""

    def __init__(self) -> None:
        self.values, self.counts = np.zeros(TOP_VALUES), np.zeros(TOP_VALUES, dtype=np.int64)
        self.sums = np.array([0.0, 0.0, 0.0, np.inf])

    @property
    def arrays(self) -> tuple[Float, Int, Float]:
        return self.values, self.counts, self.sums

    def top(self, phi: float) -> tuple[Float, Int]:
        """The largest different values, ascending, and the number of each. phi: variance index."""
        n = int(self.sums[0])
        first = np.searchsorted(self.values[:n], floor_of(self.values[n - 1], phi)) if n else 0
        return self.values[first:n], self.counts[first:n]


def neighbours(index: Int, shape: tuple[int, ...]) -> tuple[Int, Bool]:
    """The neighbours of the pixels of a block: left, right, above, below.

    Parameters
    ----------
    index : array, shape (P,)
        Absolute row-major pixel numbers.
    shape : tuple of int
        Sizes of the map's pixel dims, (..., y, x).

    Returns
    -------
    rows : array, shape (P, 4)
        Their rows in the block; -1 where there is none.
    outside : array of bool, shape (P, 4)
        True where the map goes on beyond the box of these pixels.

    Examples
    --------
    >>> rows, outside = neighbours(np.array([0, 1, 3, 4]), (2, 3))
    >>> rows.tolist()
    [[-1, 1, -1, 2], [0, -1, -1, 3], [-1, 3, 0, -1], [2, -1, 1, -1]]
    >>> outside[:, 1].tolist()
    [False, True, False, True]
    """
    ny, nx = (1, *shape)[-2:]
    place = np.stack([index // (ny * nx), index // nx % ny, index % nx])
    low, high = place.min(axis=1), place.max(axis=1)
    frame, y, x = place - low[:, None]
    table = np.full(high - low + (1, 3, 3), -1, dtype=np.int64)
    table[frame, y + 1, x + 1] = np.arange(len(index))
    rows = np.stack(
        [table[frame, y + 1, x], table[frame, y + 1, x + 2], table[frame, y, x + 1], table[frame, y + 2, x + 1]]
    )
    _, y, x = place
    ends = (
        (x == low[2]) & (x > 0),
        (x == high[2]) & (x < nx - 1),
        (y == low[1]) & (y > 0),
        (y == high[1]) & (y < ny - 1),
    )
    return rows.T, np.stack(ends, axis=1)


def standard_deviations(value: Float, expected: Float, phi: float, removed: Float | float = 0.0) -> Float:
    """By how many standard deviations values are above what is expected, by the Anscombe transform.

    Parameters
    ----------
    value, expected : array, shape (n,)
    phi : float
        Variance index.
    removed : array, shape (n,), or float
        Background that was taken off the data, whose noise is still there.

    Examples
    --------
    >>> standard_deviations(np.array([200.0]), np.array([100.0]), 1.0).round(1).tolist()
    [8.3]
    """
    high, low = (np.sqrt(np.maximum(v + removed, 0.0) / phi + 0.375) for v in (value, np.maximum(expected, 0.0)))
    return np.asarray(2.0 * (high - low))


def _rough_noise(x: np.ndarray[Any, Any] | Counts, c: Float, beside: Int, *, s: Float, offset: Float) -> _Noise:
    """Noise of a block from at most 256 pairs of neighbours: of the data, or of the residual where that is smaller.

    Without neighbours from the residual alone. x, c, s and offset as in `outliers`; beside (P, 4) from `neighbours`.
    """
    right = 1 if (beside[:, 1] >= 0).any() else 3
    first = np.flatnonzero(beside[:, right] >= 0)
    first = first[np.linspace(0, len(first) - 1, min(PAIRS, len(first))).astype(int)]
    alone = not len(first)
    a, b = (np.arange(min(PAIRS, len(c))),) * 2 if alone else (first, beside[first, right])
    data, left = [], []
    single = s.astype(np.float32)  # half the time; the rounding is far below the noise
    for rows in (a, b):
        values = _rows(x, rows)
        residual = values - (c[rows].astype(np.float32) @ single + offset.astype(np.float32))
        finite = np.isfinite(residual)
        data.append(np.where(finite, values, 0.0))
        left.append(np.where(finite, residual, 0.0))
    means, level = 0.5 * (data[0] + data[1]), 0.5 * abs(data[0] + data[1]).mean()
    squares = left[0] ** 2 if alone else 0.5 * (left[0] - left[1]) ** 2
    known = [variance_index_of_sums(squares.sum(axis=0), means.sum(axis=0))]
    known.append(variance_index_of_sums(0.5 * ((data[0] - data[1]) ** 2).sum(axis=0), means.sum(axis=0)))
    lit = means.sum(axis=1) > 0
    # The median over pairs does not grow with a few bright pixels.
    known.append(float(np.median(squares[lit].sum(axis=1) / means[lit].sum(axis=1))) if lit.any() else math.nan)
    known = [each for each in known if np.isfinite(each) and each > 0]
    phi = max(min(known, default=1.0), 1e-9 * level, 1e-300)
    removed = np.zeros(x.shape[1])
    if np.mean(data[0] < 0) >= NEGATIVE_SHARE:
        removed = np.maximum(np.median(squares, axis=0) / MEDIAN_OF_SQUARES / phi - means.mean(axis=0), 0.0)
    return _Noise(float(phi), removed)


def _rows(x: np.ndarray[Any, Any] | Counts, rows: Int) -> Float:
    """Some rows of a block, dense, in float32."""
    return np.asarray(x.take(rows).to_dense(np.float32) if isinstance(x, Counts) else x[rows], dtype=np.float32)


def _joined(found: list[_Found]) -> _Found:
    return _Found(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _above_neighbours(x: np.ndarray[Any, Any] | Counts, found: _Found, beside: Int, noise: _Noise) -> _Found:
    """The candidates that stand out of their neighbours too. x: the block. beside (P, 4): from `neighbours`."""
    expected = found.expected.copy()
    for rows in beside[found.row].T:
        there = np.flatnonzero(rows >= 0)
        expected[there] = np.fmax(expected[there], _values(x, rows[there], found.channel[there]))
    high = noise.above(found.channel, found.value, expected) >= CANDIDATE
    return found._replace(expected=expected).take(high)


def _values(x: np.ndarray[Any, Any] | Counts, row: Int, channel: Int) -> Float:
    """Single voxels, shape (n,); of sparse counts by bisection, all at once. row, channel (n,): where."""
    if not isinstance(x, Counts):
        values = np.asarray(x[row, channel], dtype=np.float64)
        return np.where(np.isfinite(values), values, np.nan)
    if not len(x.value):
        return np.zeros(len(row))
    low, high = x.indptr[row], x.indptr[row + 1]
    end = high.copy()
    while (low < high).any():
        middle = (low + high) // 2
        below = (x.channel[np.minimum(middle, len(x.value) - 1)] < channel) & (low < high)
        low, high = np.where(below, middle + 1, low), np.where(below, high, np.minimum(middle, high))
    at = np.minimum(low, len(x.value) - 1)
    return np.where((low < end) & (x.channel[at] == channel), x.value[at].astype(np.float64), 0.0)


def _strongest(found: _Found, fresh: _Found, noise: _Noise) -> _Found:
    """The 100 strongest of two sets of candidates, strongest first."""
    both = _joined([found, fresh])
    z = noise.above(both.channel, both.value, both.expected)
    return both.take(np.lexsort((both.channel, both.row, -z))[:MOST])


def _bright(index: Int, totals: Float, beside: Int, outside: Bool) -> dict[str, Any]:
    """Pixels brighter than their neighbours, and all at the border of the block.

    index, totals (P,): of the pixels. beside, outside (P, 4): from `neighbours`.
    """
    around = np.where(beside >= 0, totals[beside], -np.inf).max(axis=1)
    border = outside.any(axis=1)
    high = np.flatnonzero(~border & (totals > BRIGHT * around) & (totals > 0) & np.isfinite(around))
    rise = np.sqrt(totals[high]) - np.sqrt(np.maximum(around[high], 0.0))
    high = high[np.lexsort((index[high], -rise))[:MOST]]
    rows = {"bright": high, "border": np.flatnonzero(border)}
    return {
        f"{name}_{what}": values[each]
        for name, each in rows.items()
        for what, values in (("index", index), ("total", totals), ("neighbour", around))
    }
