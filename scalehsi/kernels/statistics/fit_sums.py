"""Sums of the last pass of a fit from which the fit is judged: regions, sampled bins, and moments of the maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from scalehsi.arrays import Bool, Float, Int
from scalehsi.kernels.compiled import lean
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.statistics.row_groups import Visitor, add_up_groups
from scalehsi.kernels.statistics.survey import splitmix64

WIDTHS: Final = (1, 2, 4, 8)
"""Pixels of a bin along y and x."""
SAMPLED_BYTES: Final = 8 * 2**20
"""Largest size of the sampled bins of one width, in float32."""
MOST_SAMPLED: Final = 1024
LEAST_SAMPLED: Final = 128
"""Sampled bins of each width whose spectra are kept."""
MAP_BINS: Final = 16384
"""Sampled bins of each width whose abundances are kept: their moments are right to one percent."""
REGIONS: Final = 8
LINE_REGIONS: Final = 25
"""Regions along y and along x, and along the line of a line scan."""


@dataclass(frozen=True)
class Grid:
    """Regions and bins of a map; all by absolute pixel numbers, so that no chunking changes them.

    Attributes
    ----------
    shape : tuple of int
        Sizes of the pixel dims, (..., y, x).
    channels : int
    """

    shape: tuple[int, ...]
    channels: int

    @property
    def sampled(self) -> int:
        """Sampled bins of a width, at most."""
        return int(np.clip(SAMPLED_BYTES // (4 * self.channels), LEAST_SAMPLED, MOST_SAMPLED))

    @property
    def sampled_bytes(self) -> int:
        """Bytes of all sampled bins, and of the neighbours of those of one pixel, at most."""
        widths = self.widths()
        bins = sum(self.samples(w, self.sampled) for w in widths) + self.samples(widths[0], self.sampled)
        return 4 * self.channels * bins

    @property
    def regions(self) -> tuple[int, int]:
        """Regions along y and along x."""
        ny, nx = self._plane
        if min(ny, nx) == 1:
            return (1, min(nx, LINE_REGIONS)) if ny == 1 else (min(ny, LINE_REGIONS), 1)
        return min(ny, REGIONS), min(nx, REGIONS)

    @property
    def _plane(self) -> tuple[int, int]:
        ny, nx = (1, *self.shape)[-2:]
        return ny, nx

    def region(self, index: Int) -> Int:
        """The region of each pixel, shape (P,)."""
        (ny, nx), (rows, columns) = self._plane, self.regions
        line, x = np.divmod(index, nx)
        return np.asarray(line % ny * rows // ny * columns + (np.arange(nx) * columns // nx)[x])

    def widths(self) -> tuple[int, ...]:
        """The widths of bins that fit into the map; along a line scan a bin has one row."""
        ny, nx = self._plane
        least = min(ny, nx) if min(ny, nx) > 1 else max(ny, nx)
        return tuple(w for w in WIDTHS if w <= least)

    def number_of_bins(self, width: int) -> int:
        """Whole bins of a width in all frames."""
        rows, columns, _, _ = self._bins(width)
        ny, nx = self._plane
        return math.prod(self.shape) // (ny * nx) * rows * columns

    def _bins(self, width: int) -> tuple[int, int, int, int]:
        """Whole bins along y and x, and pixels of a bin along y and x; a line scan has bins of one row."""
        ny, nx = self._plane
        high, wide = min(width, ny), min(width, nx)
        return ny // high, nx // wide, high, wide

    def samples(self, width: int, wanted: int) -> int:
        """Sampled bins: all of them, or as many as are wanted."""
        return min(self.number_of_bins(width), wanted)

    def sample(self, index: Int, width: int, wanted: int) -> Int:
        """The number of the sampled bin that each pixel belongs to, shape (P,); -1 for pixels of no sampled bin.

        The bins are cut into as many runs as are wanted, and a random one of each run is taken: a regular stride would
        coincide with lattices and scan lines.
        """
        ny, nx = self._plane
        bins, runs = self.number_of_bins(width), self.samples(width, wanted)
        found = np.full(len(index), -1)
        if runs:
            _sampled(np.ascontiguousarray(index), (ny, nx, *self._bins(width)[2:]), _drawn(bins, runs), bins, found)
        return found

    def neighbour(self, index: Int) -> Int:
        """The number of the sampled pixel whose neighbour each pixel is, -1 for others: the next along x, or along y
        where the map has one column."""
        ny, nx = self._plane
        step, inside = (1, index % nx > 0) if nx > 1 else (nx, index // nx % ny > 0)
        return np.where(inside, self.sample(np.maximum(index - step, 0), 1, self.sampled), -1)


def fit_sums(
    x: np.ndarray[Any, Any] | Counts,
    c: Float,
    *,
    index: Int,
    s: Float,
    offset: Float,
    grid: Grid,
    each: Visitor | None = None,
) -> tuple[dict[str, Any], Float]:
    """Sums of one block for the judgement of a fit.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        The pixels in use.
    c : array, shape (P, K)
        Their abundances.
    index : array, shape (P,)
        Absolute pixel numbers.
    s : array, shape (K, E)
        Endmembers.
    offset : array, shape (E,)
        What the model adds to ``c s``.
    grid : Grid
    each : callable, optional
        Called for each strip of rows, see `add_up_groups`.

    Returns
    -------
    sums : dict
        ``judge_regions``, ``judge_neighbours`` and, for each width, ``judge_bins_1``: lists of (numbers, first pixels,
        pixels, data, abundances), one entry for each block. ``judge_maps_1``: lists of (numbers, sums of abundances,
        of fractions, of totals). ``judge_moments`` (3 K + 2,): ``c' x_total``, ``c' y_total``, ``sum c^2``, and the
        totals of data and model. ``judge_peaks``: list of (largest c^2, its pixel).
    totals : array, shape (P,)
        Of each pixel.
    """
    region = _compressed(grid.region(index))
    named = {"judge_neighbours": grid.neighbour(index)}
    named |= {f"judge_bins_{w}": grid.sample(index, w, grid.sampled) for w in grid.widths()}
    local = {name: _compressed(group) for name, group in named.items()}
    ends = np.cumsum([0, *(len(numbers) for numbers, _ in local.values())])
    stacked = np.stack([np.where(g < 0, -1, g + e) for (_, g), e in zip(local.values(), ends, strict=False)])
    regions, bins, totals = add_up_groups(
        x, (region[1], len(region[0])), (stacked, int(ends[-1])), fill=(c, s, offset), each=each
    )
    sums: dict[str, Any] = {}
    for name, (numbers, group), data in zip(
        ("judge_regions", *local), (region, *local.values()), (regions, *np.split(bins, ends[1:-1])), strict=True
    ):
        if len(numbers):
            first, pixels, abundances = _added_up(c, group, len(numbers), index)
            sums[name] = [(numbers, first, pixels, data, abundances)]
    for w in grid.widths():
        numbers, group = _compressed(grid.sample(index, w, MAP_BINS))
        if len(numbers):
            added = np.zeros((len(numbers), 2 * c.shape[1] + 2))
            _add_maps(c, totals, group, added)
            sums[f"judge_maps_{w}"] = [(numbers, added)]
    model = c @ s.sum(axis=1) + offset.sum()
    squares = c * c
    moments = [totals @ c, model @ c, np.ones(len(c)) @ squares, [totals.sum(), model.sum()]]
    sums["judge_moments"] = np.concatenate(moments)
    strongest = np.argmax(squares, axis=0)
    sums["judge_peaks"] = [(c[strongest, np.arange(c.shape[1])] ** 2, index[strongest])]
    return sums, totals


def _compressed(group: Int) -> tuple[Int, Int]:
    """The group numbers that occur, and the position of each pixel's group among them (-1 for none)."""
    there = np.zeros(int(group.max(initial=-1)) + 2, dtype=bool)
    there[group] = True  # -1 is the last entry
    there[-1] = False
    numbers = np.flatnonzero(there)
    position = np.full(len(there), -1)
    position[numbers] = np.arange(len(numbers))
    return numbers, position[group]


@lru_cache(maxsize=64)
def _drawn(bins: int, runs: int) -> Int:
    """The sampled bin of each run, ascending, shape (runs,)."""
    first = -(-np.arange(runs + 1) * bins // runs)
    drawn = splitmix64(np.arange(runs), 0) % np.diff(first).astype(np.uint64)
    return np.asarray(first[:-1] + drawn.astype(np.int64))


@lean
def _sampled(index: Any, sizes: Any, drawn: Any, bins: int, out: Any) -> None:
    """Write to out (P,) the run whose sampled bin each pixel belongs to; nothing for pixels of no sampled bin.

    index (P,): absolute numbers. sizes: of the map along y and x, of a bin along y and x. drawn (runs,): the bin of
    each run. bins: in all.
    """
    ny, nx, high, wide = sizes
    rows, columns, runs = ny // high, nx // wide, len(drawn)
    start, line, run = 0, -1, -1
    last, end = -1, -1
    for p in range(len(index)):
        x = index[p] - start
        if line < 0 or x < 0 or x >= nx:
            # Another row of the map: divisions take most of the time, so there is one for each row and each bin.
            line = index[p] // nx
            start, end = line * nx, -1
            x = index[p] - start
        if x < end and x >= last:
            out[p] = run
            continue
        column, y = x // wide, line % ny
        last, end = column * wide, column * wide + wide
        run = -1
        if column < columns and y // high < rows:
            number = (line // ny * rows + y // high) * columns + column
            of = number * runs // bins
            if drawn[of] == number:
                run = of
        out[p] = run


def _added_up(rows: Float, group: Int, n: int, index: Int) -> tuple[Int, Int, Float]:
    """First pixel, number of pixels, and sum of the rows of each group, shapes (n,), (n,) and (n, M).

    rows (P, M). group (P,): -1 for pixels of none. n: groups. index (P,): absolute numbers of the pixels.
    """
    first, pixels = np.full(n, np.iinfo(np.int64).max), np.zeros(n, dtype=np.int64)
    out = np.zeros((n, rows.shape[1]))
    _add_up(np.ascontiguousarray(rows), group, np.ascontiguousarray(index), first, pixels, out)
    return first, pixels, out


@lean
def _add_up(rows: Any, group: Any, index: Any, first: Any, pixels: Any, out: Any) -> None:
    """Do it; first (n,), pixels (n,) and out (n, M) are changed in place."""
    for p in range(len(group)):
        g = group[p]
        if g >= 0:
            first[g] = min(first[g], index[p])
            pixels[g] += 1
            for j in range(rows.shape[1]):
                out[g, j] += rows[p, j]


@lean
def _add_maps(c: Any, totals: Any, group: Any, out: Any) -> None:
    """Add abundances, fractions, total and one of each pixel to ``out[group[p]]``, where that is not negative.

    c (P, K). totals, group (P,). out (n, 2 K + 2): changed in place.
    """
    k = c.shape[1]
    for p in range(len(group)):
        g = group[p]
        if g >= 0:
            whole = 0.0
            for j in range(k):
                whole += c[p, j]
            part = 1.0 / whole if whole > 0 else 1.0
            for j in range(k):
                out[g, j] += c[p, j]
                out[g, k + j] += c[p, j] * part
            out[g, 2 * k] += totals[p]
            out[g, 2 * k + 1] += 1.0


def used_rows(core: Bool, c: Float) -> Int:
    """The pixels of a block that count: its own, in use, with finite abundances."""
    return np.flatnonzero(core & np.isfinite(c).all(axis=1))
