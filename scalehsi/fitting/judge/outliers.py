"""Join what stands out in the blocks of a map; pixels at the border of a block have their neighbours in another one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float, Int
from scalehsi.fitting.judge.evidence import Bright, Extremes, Voxels
from scalehsi.kernels.statistics.outlier_loops import CANDIDATE, TOP_VALUES, floor_of
from scalehsi.kernels.statistics.outliers import BRIGHT, MOST, Outliers, standard_deviations

LOOKED_UP: Final = 400
"""Candidates at the borders of blocks whose neighbours are read from the cube, at most."""
SAID: Final = 7.0
"""Standard deviations below which a candidate is not said, and its neighbours need not be read."""

Reader = Callable[[Int, Int], Float]


def joined(
    sums: Mapping[str, Any], *, shape: Sequence[int], phi: float = float("nan"), read: Reader | None = None
) -> dict[str, Any]:
    """The largest values, spikes and bright pixels of a map, from those of its blocks.

    Parameters
    ----------
    sums : mapping
        ``judge_outliers``: the list of all blocks' `Outliers`. Without it there is nothing.
    shape : sequence of int
        Sizes of the map's pixel dims.
    phi : float
        Variance index, for the order of the spikes; 1 when it is not known.
    read : callable, optional
        ``read(index, channel)`` returns these voxels of the cube, NaN for pixels that are not in use. Spikes at the
        border of a block are compared with their neighbours in other blocks; without it they are not.

    Returns
    -------
    dict
        ``extremes``, ``spikes`` and ``bright``, of `Evidence`. They are the same for all chunkings, except: spikes, and
        their number, below about 6 standard deviations, as the noise is estimated in each block; and if one block has
        more than 100.
    """
    parts: list[Outliers] = list(sums.get("judge_outliers", ()))
    phi = phi if math.isfinite(phi) and phi > 0 else 1.0
    return {"extremes": _extremes(parts), "spikes": _spikes(parts, shape, phi, read), "bright": _bright(parts, shape)}


def _column(parts: Sequence[Outliers], name: str, dtype: str = "d") -> np.ndarray[Any, Any]:
    return np.concatenate([np.zeros(0, dtype=dtype), *(getattr(part, name) for part in parts)]).astype(dtype)


def _extremes(parts: Sequence[Outliers]) -> Extremes:
    values, place = np.unique(_column(parts, "top_values"), return_inverse=True)
    counts = np.bincount(place, weights=_column(parts, "top_counts"), minlength=len(values)).astype(np.int64)
    values, counts = values[-TOP_VALUES:], counts[-TOP_VALUES:]
    voxels, negative = sum(part.voxels for part in parts), sum(part.negative for part in parts)
    least = min((part.least for part in parts), default=math.inf)
    if not len(values):
        # Nothing is above zero, so that no value is counted.
        return Extremes(0.0, 0, 0, negative, voxels, least)
    largest = float(values[-1])
    inside = values >= floor_of(largest)
    inside[-1] = False
    whole = bool((values == np.rint(values)).all())
    steps = math.sqrt(largest) if whole else max(1.0, float(inside.sum()))
    return Extremes(largest, int(counts[-1]), int(counts[inside].sum()), negative, voxels, least, steps)


def _spikes(parts: Sequence[Outliers], shape: Sequence[int], phi: float, read: Reader | None) -> Voxels:
    """shape, phi and read as in `joined`."""
    index, channel = _column(parts, "pixel", "q"), _column(parts, "channel", "q")
    value, expected, model = (_column(parts, name) for name in ("value", "expected", "model"))
    z = standard_deviations(value, expected, phi)
    number = sum(part.number for part in parts)
    if read is not None and len(index):
        outside = np.concatenate([part.outside for part in parts])
        looked = np.flatnonzero(outside.any(axis=1) & (z >= SAID))
        looked = looked[np.argsort(-z[looked], kind="stable")[:LOOKED_UP]]
        row, direction = np.nonzero(outside[looked])
        row = looked[row]
        if len(row):
            beside = read(_step(index[row], direction, shape), channel[row])
            np.fmax.at(expected, row, np.asarray(beside, dtype=np.float64))
            z = standard_deviations(value, expected, phi)
            fell = np.isin(np.arange(len(z)), looked) & (z < CANDIDATE)
            number -= int(fell.sum())
            z[fell] = -np.inf
    order = np.lexsort((channel, index, -z))[:MOST]
    order = order[z[order] > -np.inf]
    return Voxels(index[order], channel[order], value[order], expected[order], model[order], number)


def _step(index: Int, direction: Int, shape: Sequence[int]) -> Int:
    """The pixel beside each pixel: left, right, above or below."""
    return np.asarray(index + np.array([-1, 1, -shape[-1], shape[-1]])[direction])


def _bright(parts: Sequence[Outliers], shape: Sequence[int]) -> Bright:
    """shape as in `joined`."""
    index, total, around = (_column(parts, f"border_{name}") for name in ("index", "total", "neighbour"))
    index = index.astype(np.int64)
    order = np.argsort(index)
    index, total, around = index[order], total[order], around[order]
    nx, pixels = shape[-1], math.prod(tuple(shape)[-2:])
    x, y = index % nx, index % pixels // nx
    ends = x > 0, x < nx - 1, y > 0, y < pixels // nx - 1
    for direction, inside in enumerate(ends):
        beside = _step(index, np.full(len(index), direction), shape)
        at = np.minimum(np.searchsorted(index, beside), max(len(index) - 1, 0))
        known = inside & (index[at] == beside) if len(index) else inside
        around[known] = np.fmax(around[known], total[at[known]])
    high = (total > BRIGHT * around) & (total > 0) & np.isfinite(around)
    index = np.concatenate([index[high], _column(parts, "bright_index", "q")])
    total = np.concatenate([total[high], _column(parts, "bright_total")])
    around = np.concatenate([around[high], _column(parts, "bright_neighbour")])
    rise = np.sqrt(total) - np.sqrt(np.maximum(around, 0.0))
    order = np.lexsort((index, -rise))[:MOST]
    return Bright(index[order], total[order], around[order])
