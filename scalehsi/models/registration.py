"""Where a coarse acquisition lies on a fine one: shift and scale at which the footprints' means agree best.

Both are seen as maps of components, found without bounds and weighted so that noise is alike in all of them: they have
the contrast of the whole spectrum, where total intensities may have none. A coarse pixel is compared with the mean of
the fine map over its footprint; gain and offset of each map are free.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize

from scalehsi.blocks import Blocks, Tile, map_fold
from scalehsi.kernels.bins import bin_sums, merge_bins
from scalehsi.kernels.frobenius import strips
from scalehsi.kernels.grids import box_means, summed
from scalehsi.kernels.statistics import in_sample
from scalehsi.models.rasters import Float, Pair, Placing, Raster

CELLS: Final = 2**20
"""Cells of the fine map that come home, at most."""
SAMPLE: Final = 4096
"""Pixels of the sample."""
FINER: Final = 6.0
"""Cells a footprint at which the fine map need not be finer."""
SOFT: Final = 0.7
"""Blur of the fine map in cells: without it the means of noisy cells prefer footprints that cut cells in half."""
COVERED: Final = 0.5
"""Part of a footprint that the fine map must cover."""
REACH: Final = 0.25
"""Largest shift that is tried, in lengths of the smaller field."""
PYRAMID: Final = 24
"""Coarse pixels along a side in the first search."""
STRETCH: Final = 0.05
"""Largest deviation of the scale from one."""
NEAR: Final = 0.02
"""What a shift by the whole reach must gain in correlation: among places that are alike the nearest wins."""
LEAST: Final = 6
"""Coarse pixels along each side from which on a scale can be told."""


class Images(NamedTuple):
    """Maps of components, and where they have pixels.

    Attributes
    ----------
    values : array, shape (rows, columns, K)
    filled : array, shape (rows, columns)
        Share of each pixel that was measured.
    raster : Raster
    """

    values: Float
    filled: Float
    raster: Raster


class Found(NamedTuple):
    """A registration.

    Attributes
    ----------
    placing : Placing
    error : (float, float)
        Standard error of the shift.
    residual : float
        Root mean square difference of the maps, relative to their own variation: 0 for perfect agreement, 1 for none.
    gain : float
        Intensity of the fine map in units of the coarse one.
    """

    placing: Placing
    error: Pair
    residual: float
    gain: float


def cells_of(fine: Raster, coarse: Raster) -> int:
    """Fine pixels along a side of the cells on which the fine map is compared."""
    footprint = min(abs(c / f) for c, f in zip(coarse.step, fine.step, strict=True))
    return max(1, math.floor(footprint / FINER), math.ceil(math.sqrt(math.prod(fine.shape) / CELLS)))


class Look(NamedTuple):
    """What one reading of the fine cube tells: its maps over cells, and a sample of pixels with their numbers."""

    images: Images
    sample: Float
    numbers: np.ndarray[Any, Any]


def look(view: Blocks, raster: Raster, back: Float, factor: int, *, channels: slice, seed: int) -> Look:
    """Maps of a cube as ``x @ back`` over cells of so many pixels along a side, and pixels spread over it."""
    stride = max(1, math.prod(raster.shape) // SAMPLE)
    shared = {"back": back, "shape": raster.shape, "factor": factor, "stride": stride, "seed": seed}
    shared["channels"] = channels
    _, sums = map_fold(_cells, view, shared=shared, combine=_together, tile=True, name="pansharpen-look")
    numbers = np.concatenate(sums["numbers"])
    order = np.argsort(numbers)
    sample = np.concatenate(sums["sample"])[order].astype(np.float64)
    small = raster.binned(factor)
    table = np.zeros((math.prod(small.shape), back.shape[1] + 1))
    table[sums["number"][0]] = sums["bins"][0]
    table = table.reshape(*small.shape, -1)
    filled = table[..., -1]
    values = table[..., :-1] / np.maximum(filled, 1.0)[..., None]
    return Look(Images(values, filled / factor**2, small), sample, numbers[order])


def _cells(
    x: Any, *, tile: Tile, back: Float, shape: tuple[int, int], factor: int, channels: slice, stride: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    rows = np.ones((x.shape[0], back.shape[1] + 1))
    for part, strip in strips(x[:, channels]):
        rows[part, :-1] = strip @ back
    pixels, sums = bin_sums(rows, index=tile.index, shape=shape, sides=(factor, factor))
    chosen = np.flatnonzero(in_sample(tile.index, stride=stride, seed=seed))
    return pixels, {**sums, "sample": [x[chosen, channels]], "numbers": [tile.index[chosen]]}


def _together(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    joined = {name: left[name] + right[name] for name in ("sample", "numbers")}
    return {**merge_bins(left, right), **joined}


def register(fine: Images, coarse: Images, *, whitening: Float, given: Placing | None = None) -> Found:
    """Find the place of a coarse acquisition on a fine one, or judge one that is given.

    Parameters
    ----------
    fine, coarse : Images
        Of the same components.
    whitening : array, shape (K, K)
        ``values @ whitening`` has noise alike in all columns.
    given : Placing, optional
    """
    fine = fine._replace(values=fine.values @ whitening)
    coarse = coarse._replace(values=coarse.values @ whitening)
    placing = given
    if placing is None:
        start = _searched(fine, coarse)
        placing = _refined(fine, coarse, start)
    predicted, use = predict(fine, coarse.raster, placing)
    use = use & (coarse.filled > 0)
    if not use.any():
        return Found(placing, (math.nan, math.nan), 1.0, math.nan)
    p, g = _centred(predicted[use]), _centred(coarse.values[use])
    slope = float((p * g).sum() / max(float((p * p).sum()), 1e-300))
    left = slope * p - g
    whole = float(np.square(g).sum())
    residual = math.sqrt(float(np.square(left).sum()) / whole) if whole > 0 else 1.0
    # Totals, not variations, say how much longer a pixel was looked at: they are the least noisy.
    back = np.linalg.inv(whitening)
    totals = [float((v[use] @ back).sum()) for v in (predicted, coarse.values)]
    error = _error(fine, coarse, placing, use, slope, left)
    return Found(placing, error, residual, totals[0] / totals[1] if totals[1] else math.nan)


def predict(fine: Images, coarse: Raster, placing: Placing) -> tuple[Float, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Means of the fine map over the footprints of coarse pixels, and which of these it covers."""
    return _predictor(fine)(coarse, placing)


Predictor = Callable[[Raster, Placing], tuple[Float, np.ndarray[Any, np.dtype[np.bool_]]]]


def _predictor(fine: Images, soft: float = SOFT) -> Predictor:
    """The same with the sums over the fine map made once."""
    weighted = fine.values * fine.filled[..., None]
    if soft:
        weighted = gaussian_filter(weighted, soft, axes=(0, 1), mode="constant")
        filled = gaussian_filter(fine.filled, soft, mode="constant")
    else:
        filled = fine.filled
    table, weights = summed(weighted), summed(filled)

    def means(coarse: Raster, placing: Placing) -> tuple[Float, np.ndarray[Any, np.dtype[np.bool_]]]:
        at, sides = [], []
        for axis in (0, 1):
            step = fine.raster.step[axis]
            at.append((placing.place(coarse, coarse.centres(axis), axis) - fine.raster.origin[axis]) / step)
            sides.append(abs(placing.scale * coarse.step[axis] / step))
        values, covered = box_means(table, weights, at[0], at[1], height=sides[0], width=sides[1])
        return values, covered >= COVERED

    return means


def _centred(rows: Float) -> Float:
    return np.asarray(rows - rows.mean(axis=0))


def _score(means: Predictor, coarse: Images, placing: Placing, least: float) -> float:
    """Correlation of all maps together; below -1 where too little overlaps."""
    predicted, use = means(coarse.raster, placing)
    use = use & (coarse.filled > 0)
    if use.sum() < max(3.0, least):
        return -2.0
    p, g = _centred(predicted[use]), _centred(coarse.values[use])
    scale = float(np.square(p).sum() * np.square(g).sum())
    return float((p * g).sum()) / math.sqrt(scale) if scale > 0 else 0.0


def _searched(fine: Images, coarse: Images) -> Placing:
    """The best shift on a grid of half coarse pixels, on ever smaller ones from a few in all of the field."""
    means = _predictor(fine)
    reach = [REACH * min(a, b) for a, b in zip(fine.raster.size, coarse.raster.size, strict=True)]
    best: Pair = (0.0, 0.0)
    factor, first = max(1, math.ceil(max(coarse.raster.shape) / PYRAMID)), True
    while True:
        small = _averaged(coarse, factor)
        area = math.prod(fine.raster.size) / abs(math.prod(small.raster.step))
        least = 0.4 * min(float((small.filled > 0).sum()), area)
        steps = [abs(s) / 2 for s in small.raster.step]
        counts = [math.floor(r / s) if first else 2 for r, s in zip(reach, steps, strict=True)]
        tries = [
            (best[0] + i * steps[0], best[1] + j * steps[1])
            for i in range(-counts[0], counts[0] + 1)
            for j in range(-counts[1], counts[1] + 1)
        ]

        def value(shift: Pair, small: Images = small, least: float = least) -> float:
            far = math.hypot(*(s / r if r else 0.0 for s, r in zip(shift, reach, strict=True)))
            return _score(means, small, Placing(shift), least) - NEAR * far

        best = max(tries, key=value)
        if factor == 1:
            return Placing(best)
        factor, first = max(1, factor // 2), False


def _averaged(images: Images, factor: int) -> Images:
    """Maps over larger pixels; those at the end that are not full have fewer in them."""
    if factor == 1:
        return images
    raster = images.raster.binned(factor)
    padding = [(0, r * factor - n) for r, n in zip(raster.shape, images.raster.shape, strict=True)]
    filled = np.pad(images.filled, padding)
    values = np.pad(images.values * images.filled[..., None], (*padding, (0, 0)))
    cut = (raster.shape[0], factor, raster.shape[1], factor)
    total = filled.reshape(cut).sum(axis=(1, 3))
    sums = values.reshape(*cut, -1).sum(axis=(1, 3))
    return Images(sums / np.maximum(total, 1e-12)[..., None], total / factor**2, raster)


def _refined(fine: Images, coarse: Images, start: Placing) -> Placing:
    """Down to a small part of a pixel, with the scale where there are enough pixels."""
    means = _predictor(fine)
    unit = [abs(s) for s in coarse.raster.step]
    scaled = min(coarse.raster.shape) >= LEAST and coarse.values.shape[-1] > 0

    def placing(v: Float) -> Placing:
        scale = 1.0 + STRETCH * math.tanh(v[2]) if len(v) > 2 else 1.0
        return Placing((start.shift[0] + v[0] * unit[0], start.shift[1] + v[1] * unit[1]), scale)

    found = np.zeros(2)
    for size in (2, 3) if scaled else (2,):
        simplex = np.vstack([np.zeros(size), 0.25 * np.eye(size)]) + np.pad(found, (0, size - 2))
        options = {"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-9, "maxiter": 400}
        at = minimize(
            lambda v: -_score(means, coarse, placing(v), 0.0), simplex[0], method="Nelder-Mead", options=options
        )
        found = at.x
    return placing(found)


def _error(fine: Images, coarse: Images, placing: Placing, use: Any, slope: float, left: Float) -> Pair:
    """Standard error of the shift, from how the prediction changes with it and from what it leaves."""
    means, slopes = _predictor(fine), []
    for axis in (0, 1):
        step = 0.1 * abs(coarse.raster.step[axis])
        ends = []
        for side in (-1, 1):
            shift = list(placing.shift)
            shift[axis] += side * step
            ends.append(means(coarse.raster, placing._replace(shift=(shift[0], shift[1])))[0][use])
        slopes.append(_centred(slope * (ends[1] - ends[0]) / (2 * step)).ravel())
    jacobian = np.stack(slopes, axis=1)
    gram = jacobian.T @ jacobian
    if not np.linalg.det(gram) > 0:
        return math.nan, math.nan
    variance = float(np.square(left).sum()) / max(1, left.size - left.shape[1] - 3)
    found = np.sqrt(variance * np.diag(np.linalg.inv(gram)))
    return float(found[0]), float(found[1])


def best_shift(score: Callable[[Pair], float], *, reach: list[float], unit: list[float]) -> Pair:
    """The shift of the largest score: on a grid that gets finer, then down to a small part of the unit.

    Parameters
    ----------
    score : callable
    reach : list of two floats
        Largest shifts along y and x.
    unit : list of two floats
        Pixels, in the same unit.
    """
    best: Pair = (0.0, 0.0)
    step, count = [max(r / 8, u / 2) for r, u in zip(reach, unit, strict=True)], 8
    while True:
        moves = range(-count, count + 1)
        tries = [(best[0] + i * step[0], best[1] + j * step[1]) for i in moves for j in moves]

        def value(shift: Pair) -> float:
            far = math.hypot(*(s / r if r else 0.0 for s, r in zip(shift, reach, strict=True)))
            return score(shift) - NEAR * far

        best = max(tries, key=value)
        if all(s <= u / 2 for s, u in zip(step, unit, strict=True)):
            break
        step, count = [max(s / 2, u / 2) for s, u in zip(step, unit, strict=True)], 2
    simplex = np.vstack([best, np.asarray(best) + 0.25 * np.diag(unit)])
    options = {"initial_simplex": simplex, "xatol": 1e-3 * min(unit), "fatol": 1e-9, "maxiter": 200}
    found = minimize(lambda v: -score((float(v[0]), float(v[1]))), simplex[0], method="Nelder-Mead", options=options).x
    return float(found[0]), float(found[1])


def regression(maps: Float, image: Float) -> float:
    """Part of the variance of an image (P,) that a linear combination of maps (P, K) explains."""
    centred, seen = _centred(maps), image - image.mean()
    whole = float(seen @ seen)
    if whole <= 0:
        return 0.0
    coefficients = np.linalg.lstsq(centred, seen, rcond=None)[0]
    left = seen - centred @ coefficients
    return 1.0 - float(left @ left) / whole
