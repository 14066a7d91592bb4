"""Sums of the last pass of a fit from which the fit is judged: regions, sampled bins, and moments of the maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy import sparse

from scalehsi.arrays import Bool, Float, Int
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.statistics.row_groups import add_up_groups
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

    def _coordinates(self, index: Int) -> tuple[Int, Int, Int]:
        """Frame, row and column of pixels."""
        ny, nx = self._plane
        return index // (ny * nx), index // nx % ny, index % nx

    def region(self, index: Int) -> Int:
        """The region of each pixel, shape (P,)."""
        _, y, x = self._coordinates(index)
        (ny, nx), (rows, columns) = self._plane, self.regions
        return np.asarray(y * rows // ny * columns + x * columns // nx)

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
        frame, y, x = self._coordinates(index)
        rows, columns, high, wide = self._bins(width)
        row, column = y // high, x // wide
        number = (frame * rows + row) * columns + column
        whole = (row < rows) & (column < columns)
        bins, runs = self.number_of_bins(width), self.samples(width, wanted)
        run = number * runs // bins
        first, end = -(-run * bins // runs), -(-(run + 1) * bins // runs)
        drawn = (splitmix64(run, 0) % np.maximum(end - first, 1).astype(np.uint64)).astype(np.int64)
        return np.where(whole & (number - first == drawn), run, -1)

    def neighbour(self, index: Int) -> Int:
        """The number of the sampled pixel whose neighbour each pixel is, -1 for others: the next along x, or along y
        where the map has one column."""
        ny, nx = self._plane
        step, inside = (1, index % nx > 0) if nx > 1 else (nx, index // nx % ny > 0)
        return np.where(inside, self.sample(np.maximum(index - step, 0), 1, self.sampled), -1)


def fit_sums(
    x: np.ndarray[Any, Any] | Counts, c: Float, *, index: Int, s: Float, offset: Float, grid: Grid
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
    named = {"judge_regions": grid.region(index), "judge_neighbours": grid.neighbour(index)}
    named |= {f"judge_bins_{w}": grid.sample(index, w, grid.sampled) for w in grid.widths()}
    local = {name: _compressed(group) for name, group in named.items()}
    groups = [(group, len(numbers)) for numbers, group in local.values()]
    added, totals = add_up_groups(x, groups, fill=(c, s, offset))
    sums: dict[str, Any] = {}
    for (name, (numbers, group)), data in zip(local.items(), added, strict=True):
        if len(numbers):
            kept = data if name == "judge_regions" else data.astype(np.float32)
            first = np.full(len(numbers), np.iinfo(np.int64).max)
            np.minimum.at(first, group[group >= 0], index[group >= 0])
            pixels = np.bincount(group[group >= 0], minlength=len(numbers))
            sums[name] = [(numbers, first, pixels, kept, _grouped(c, group, len(numbers)))]
    share = c / np.where(c.sum(axis=1) > 0, c.sum(axis=1), 1.0)[:, None]
    columns = np.concatenate([c, share, totals[:, None], np.ones((len(c), 1))], axis=1)
    for w in grid.widths():
        numbers, group = _compressed(grid.sample(index, w, MAP_BINS))
        if len(numbers):
            sums[f"judge_maps_{w}"] = [(numbers, _grouped(columns, group, len(numbers)))]
    model = c @ s.sum(axis=1) + offset.sum()
    sums["judge_moments"] = np.concatenate([totals @ c, model @ c, np.sum(c * c, axis=0), [totals.sum(), model.sum()]])
    strongest = np.argmax(c * c, axis=0)
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


def _grouped(rows: Float, group: Int, n: int) -> Float:
    """Sum of rows (P, M) by group (P,), shape (n, M); pixels of group -1 stay out."""
    inside = np.flatnonzero(group >= 0)
    place = sparse.coo_array((np.ones(len(inside)), (group[inside], inside)), shape=(n, len(group))).tocsr()
    return np.asarray(place @ rows)


def used_rows(core: Bool, c: Float) -> Int:
    """The pixels of a block that count: its own, in use, with finite abundances."""
    return np.flatnonzero(core & np.isfinite(c).all(axis=1))
