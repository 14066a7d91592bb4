"""Where a coarse acquisition lies on a fine one: shift and scale at which the footprints' means agree best.

Both are seen as maps of components, found without bounds and weighted so that noise is alike in all of them: they have
the contrast of the whole spectrum, where total intensities may have none. A coarse pixel is compared with the mean of
the fine map over its footprint, as a probe of some width sees it; gain and offset of the maps are free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize_scalar

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.resampling.footprints import box_means, summed
from scalehsi.registration.images import Images, averaged
from scalehsi.registration.rasters import Pair, Placing, Raster
from scalehsi.registration.shift_search import Score, polished, searched

SOFT: Final = 0.7
"""Blur of the fine map in cells: without it the means of noisy cells prefer footprints that cut cells in half."""
COVERED: Final = 0.5
"""Part of a footprint that the fine map must cover."""
OVERLAP: Final = 0.4
"""Part of the smaller field that must lie on the other one."""
REACH: Final = 0.25
"""Largest shift that is tried, in lengths of the smaller field."""
PYRAMID: Final = 24
"""Coarse pixels along a side in the first search."""
STRETCH: Final = 0.05
"""Largest deviation of the scale from one."""
LEAST: Final = 6
"""Coarse pixels along each side from which on a scale and the width of the probe can be told."""
WIDEST: Final = 1.5
"""Largest standard deviation of the probe, in coarse pixels."""
NARROW: Final = 0.05
"""Below this it counts as none."""

Predictor = Callable[[Raster, Placing], tuple[Float, Bool]]


class Found(NamedTuple):
    """A registration.

    Attributes
    ----------
    placing : Placing
    error : (float, float)
        Standard error of the shift.
    blur : float
        Standard deviation of the coarse acquisition's probe beyond its footprint.
    residual : float
        Root mean square difference of the maps, relative to their own variation: 0 for perfect agreement, 1 for none.
    gain : float
        Intensity of the fine map in units of the coarse one.
    """

    placing: Placing
    error: Pair
    blur: float
    residual: float
    gain: float


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
    means = predictor(fine)
    if given is None:
        reach = [REACH * min(a, b) for a, b in zip(fine.raster.size, coarse.raster.size, strict=True)]
        placing = _polished(means, coarse, Placing(searched(_levels(means, fine, coarse), reach=reach)))
    else:
        placing = given
    blur = _blur(fine, coarse, placing)
    if blur:
        means = predictor(fine, blur=blur)
        placing = placing if given else _polished(means, coarse, placing)
    return _judged(means, coarse, placing, blur, whitening)


def predictor(fine: Images, *, blur: float = 0.0) -> Predictor:
    """A function of a coarse raster and its placing: means of the fine map over its footprints, and which it covers."""
    width = [math.hypot(SOFT, blur / abs(step)) for step in fine.raster.step]
    weighted = gaussian_filter(fine.values * fine.filled[..., None], width, axes=(0, 1), mode="constant")
    tables = summed(weighted), summed(gaussian_filter(fine.filled, width, mode="constant"))

    def means(coarse: Raster, placing: Placing) -> tuple[Float, Bool]:
        values, covered = footprints(tables, fine.raster, coarse, placing)
        return values, covered >= COVERED

    return means


def footprints(tables: tuple[Float, Float], on: Raster, coarse: Raster, placing: Placing) -> tuple[Float, Float]:
    """Means over the footprints of coarse pixels, and the part of each that is covered.

    ``tables`` are `scalehsi.kernels.resampling.footprints.summed` values and weights of the raster ``on``.
    """
    at, sides = [], []
    for axis in (0, 1):
        step = on.step[axis]
        at.append((placing.place(coarse, coarse.centres(axis), axis) - on.origin[axis]) / step)
        sides.append(abs(placing.scale * coarse.step[axis] / step))
    return box_means(*tables, at[0], at[1], height=sides[0], width=sides[1])


def _centred(rows: Float) -> Float:
    return np.asarray(rows - rows.mean(axis=0))


def _pair(means: Predictor, coarse: Images, placing: Placing) -> tuple[Float, Float, Bool]:
    """Predicted and measured maps where both are, each about its mean, (P, K); and where that is."""
    predicted, use = means(coarse.raster, placing)
    use = use & (coarse.filled > 0)
    if use.sum() < 3:
        return np.zeros((0, 1)), np.zeros((0, 1)), use
    return _centred(predicted[use]), _centred(coarse.values[use]), use


def _score(means: Predictor, coarse: Images, placing: Placing, least: float = 0.0) -> float:
    """Correlation of all maps together; below -1 where too little overlaps."""
    p, g, use = _pair(means, coarse, placing)
    if len(p) == 0 or use.sum() < least:
        return -2.0
    scale = float(np.square(p).sum() * np.square(g).sum())
    return float((p * g).sum()) / math.sqrt(scale) if scale > 0 else 0.0


def _levels(means: Predictor, fine: Images, coarse: Images) -> Iterator[tuple[Score, tuple[float, float]]]:
    """Scores on grids of half a pixel, of ever smaller pixels from a few in all of the field."""
    factor = max(1, math.ceil(max(coarse.raster.shape) / PYRAMID))
    while factor:
        small = averaged(coarse, factor)
        area = math.prod(fine.raster.size) / abs(math.prod(small.raster.step))
        least = OVERLAP * min(float((small.filled > 0).sum()), area)

        def score(shift: Pair, small: Images = small, least: float = least) -> float:
            return _score(means, small, Placing(shift), least)

        yield score, (abs(small.raster.step[0]) / 2, abs(small.raster.step[1]) / 2)
        factor //= 2


def _polished(means: Predictor, coarse: Images, start: Placing) -> Placing:
    """Down to a small part of a pixel, with the scale where there are enough pixels."""
    unit = [0.25 * abs(s) for s in coarse.raster.step]
    scaled = min(coarse.raster.shape) >= LEAST
    bound = math.atanh((start.scale - 1.0) / (STRETCH * (1.0 + 1e-9)))

    def placing(v: Float) -> Placing:
        scale = 1.0 + STRETCH * math.tanh(float(v[2])) if len(v) > 2 else start.scale
        return Placing((float(v[0]), float(v[1])), scale)

    found = polished(lambda v: _score(means, coarse, placing(v)), np.array(start.shift), unit)
    if scaled:
        found = polished(lambda v: _score(means, coarse, placing(v)), np.array([*found, bound]), [*unit, 0.2])
    return placing(found)


def _blur(fine: Images, coarse: Images, placing: Placing) -> float:
    """The width of the probe at which the maps agree best; 0 where it cannot be told from none."""
    if min(coarse.raster.shape) < LEAST:
        return 0.0
    unit = min(abs(s) for s in coarse.raster.step)

    def fall(width: float) -> float:
        return -_score(predictor(fine, blur=width * unit), coarse, placing)

    found = minimize_scalar(fall, bounds=(0.0, WIDEST), method="bounded", options={"xatol": 0.02, "maxiter": 20})
    width = float(found.x)
    return width * unit if width > NARROW and found.fun < fall(0.0) else 0.0


def _judged(means: Predictor, coarse: Images, placing: Placing, blur: float, whitening: Float) -> Found:
    p, g, use = _pair(means, coarse, placing)
    whole = float(np.square(g).sum())
    if len(p) == 0 or not whole > 0:
        return Found(placing, (math.nan, math.nan), blur, 1.0, math.nan)
    slope = float((p * g).sum() / max(float(np.square(p).sum()), 1e-300))
    left = slope * p - g
    residual = math.sqrt(float(np.square(left).sum()) / whole)
    # Totals, not variations, say how much longer a pixel was looked at: they are the least noisy.
    back = np.linalg.inv(whitening)
    ours, theirs = (float((v[use] @ back).sum()) for v in (means(coarse.raster, placing)[0], coarse.values))
    error = _error(means, coarse.raster, placing, use, slope, left)
    return Found(placing, error, blur, residual, ours / theirs if theirs else math.nan)


def _error(means: Predictor, raster: Raster, placing: Placing, use: Bool, slope: float, left: Float) -> Pair:
    """Standard error of the shift, from how the prediction changes with it and from what it leaves."""
    slopes = []
    for axis in (0, 1):
        step, ends = 0.1 * abs(raster.step[axis]), []
        for side in (-1, 1):
            shift = list(placing.shift)
            shift[axis] += side * step
            ends.append(means(raster, placing._replace(shift=(shift[0], shift[1])))[0][use])
        slopes.append(_centred(slope * (ends[1] - ends[0]) / (2 * step)).ravel())
    jacobian = np.stack(slopes, axis=1)
    gram = jacobian.T @ jacobian
    if not np.linalg.det(gram) > 0:
        return math.nan, math.nan
    variance = float(np.square(left).sum()) / max(1, left.size - left.shape[1] - 3)
    found = np.sqrt(variance * np.diag(np.linalg.inv(gram)))
    return float(found[0]), float(found[1])
