"""Register a coarse acquisition on a fine one: estimate shift, scale and probe width from their component maps.

Component maps, unmixed without bounds and whitened so that all have equal noise, carry the contrast of the complete
spectrum, where the total intensity may have none. A coarse pixel is compared with the mean of the fine map over its
footprint, blurred by the probe; gain and offset of the maps are free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
import scipy
from scipy.ndimage import gaussian_filter

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.resampling.footprints import box_means, summed_area
from scalehsi.registration.images import Images, averaged
from scalehsi.registration.rasters import Pair, Placement, Raster
from scalehsi.registration.shift_search import Score, refine, search_grids

FINE_BLUR_PIXELS: Final = 0.7
"""Standard deviation of the blur of the fine map, in its pixels. Without it noise favours footprints that cut pixels in
half."""
MIN_COVERED: Final = 0.5
"""Fraction of a footprint that the fine map must cover."""
MIN_OVERLAP: Final = 0.4
"""Fraction of the smaller field that must lie on the other one."""
MAX_SHIFT: Final = 0.25
"""Largest shift that is tried, in units of the length of the smaller field."""
FIRST_GRID_PIXELS: Final = 24
"""Largest number of coarse pixels along a side on the first grid of the search."""
MAX_STRETCH: Final = 0.05
"""Largest deviation of the scale from one."""
MIN_PIXELS: Final = 6
"""Scale and probe width are estimated if there are at least this many coarse pixels along each side."""
MAX_PROBE_WIDTH: Final = 1.5
"""Largest standard deviation of the probe that is tried, in coarse pixels."""
MIN_PROBE_WIDTH: Final = 0.05
"""A smaller standard deviation of the probe, in coarse pixels, counts as zero."""

Predictor = Callable[[Raster, Placement], tuple[Float, Bool]]


class Registration(NamedTuple):
    """Position of the coarse acquisition on the fine one, and how well the maps agree there.

    Attributes
    ----------
    placement : Placement
    error : (float, float)
        Standard error of the shift along y and x.
    blur : float
        Standard deviation of the coarse acquisition's probe in addition to its footprint.
    residual : float
        Root mean square difference of the maps, relative to their own variation: 0 for perfect agreement, 1 for none.
    gain : float
        Intensity of the fine map relative to the coarse one.
    """

    placement: Placement
    error: Pair
    blur: float
    residual: float
    gain: float


def register(fine: Images, coarse: Images, *, whitening: Float, given: Placement | None = None) -> Registration:
    """Estimate the placement of a coarse acquisition on a fine one, or assess a given placement.

    Parameters
    ----------
    fine, coarse : Images
        Maps of the same components.
    whitening : array, shape (K, K)
        ``values @ whitening`` has equal noise in all columns.
    given : Placement, optional
        Placement to assess; by default it is estimated.
    """
    fine = fine._replace(values=fine.values @ whitening)
    coarse = coarse._replace(values=coarse.values @ whitening)
    means = predictor(fine)
    if given is None:
        reach = [MAX_SHIFT * min(a, b) for a, b in zip(fine.raster.size, coarse.raster.size, strict=True)]
        placement = _refined(means, coarse, Placement(search_grids(_pyramid(means, fine, coarse), reach=reach)))
    else:
        placement = given
    blur = _probe_width(fine, coarse, placement)
    if blur:
        means = predictor(fine, blur=blur)
        placement = placement if given else _refined(means, coarse, placement)
    return _assess(means, coarse, placement, blur, whitening)


def predictor(fine: Images, *, blur: float = 0.0) -> Predictor:
    """Return a function that predicts coarse maps from the fine maps.

    blur: standard deviation of the probe, in the unit of the raster. The function takes a coarse raster and its
    placement. It returns the means of the fine maps over the footprints (rows, columns, K), and whether the fine maps
    cover each footprint (rows, columns).
    """
    width = [math.hypot(FINE_BLUR_PIXELS, blur / abs(step)) for step in fine.raster.step]
    weighted = gaussian_filter(fine.values * fine.filled[..., None], width, axes=(0, 1), mode="constant")
    tables = summed_area(weighted), summed_area(gaussian_filter(fine.filled, width, mode="constant"))

    def means(coarse: Raster, placement: Placement) -> tuple[Float, Bool]:
        values, covered = footprints(tables, fine.raster, coarse, placement)
        return values, covered >= MIN_COVERED

    return means


def footprints(tables: tuple[Float, Float], on: Raster, coarse: Raster, placement: Placement) -> tuple[Float, Float]:
    """Means over the footprints of coarse pixels, and the covered fraction of each.

    Parameters
    ----------
    tables : (array, array)
        `scalehsi.kernels.resampling.footprints.summed_area` of weighted values and of weights on the raster ``on``.
    on, coarse : Raster
        The fine raster and the coarse one.
    placement : Placement
        That of the coarse raster on the fine one.
    """
    at, sides = [], []
    for axis in (0, 1):
        step = on.step[axis]
        at.append((placement.place(coarse, coarse.centres(axis), axis) - on.origin[axis]) / step)
        sides.append(abs(placement.scale * coarse.step[axis] / step))
    return box_means(*tables, at[0], at[1], height=sides[0], width=sides[1])


def _centred(rows: Float) -> Float:
    """Subtract the mean of each column."""
    return np.asarray(rows - rows.mean(axis=0))


def _compared_maps(means: Predictor, coarse: Images, placement: Placement) -> tuple[Float, Float, Bool]:
    """Predicted and measured maps (P, K) of the pixels that have both, minus their means, and a mask of these pixels.

    means: see `predictor`.
    """
    predicted, use = means(coarse.raster, placement)
    use = use & (coarse.filled > 0)
    if use.sum() < 3:
        return np.zeros((0, 1)), np.zeros((0, 1)), use
    return _centred(predicted[use]), _centred(coarse.values[use]), use


def _score(means: Predictor, coarse: Images, placement: Placement, least: float = 0.0) -> float:
    """Correlation of predicted and measured maps, over all maps together; -2 if fewer than ``least`` pixels overlap.

    means: see `predictor`.
    """
    p, g, use = _compared_maps(means, coarse, placement)
    if len(p) == 0 or use.sum() < least:
        return -2.0
    scale = float(np.square(p).sum() * np.square(g).sum())
    return float((p * g).sum()) / math.sqrt(scale) if scale > 0 else 0.0


def _pyramid(means: Predictor, fine: Images, coarse: Images) -> Iterator[tuple[Score, tuple[float, float]]]:
    """Yield scores of shifts, and grid steps of half a pixel, for coarse maps of ever smaller pixels.

    means: see `predictor`. fine, coarse: the maps.
    """
    factor = max(1, math.ceil(max(coarse.raster.shape) / FIRST_GRID_PIXELS))
    while factor:
        small = averaged(coarse, factor)
        area = math.prod(fine.raster.size) / abs(math.prod(small.raster.step))
        least = MIN_OVERLAP * min(float((small.filled > 0).sum()), area)

        def score(shift: Pair, small: Images = small, least: float = least) -> float:
            return _score(means, small, Placement(shift), least)

        yield score, (abs(small.raster.step[0]) / 2, abs(small.raster.step[1]) / 2)
        factor //= 2


def _refined(means: Predictor, coarse: Images, start: Placement) -> Placement:
    """Refine a placement to a small fraction of a pixel, and its scale if there are enough pixels.

    means: see `predictor`. coarse: the measured maps.
    """
    unit = [0.25 * abs(s) for s in coarse.raster.step]
    scaled = min(coarse.raster.shape) >= MIN_PIXELS
    bound = math.atanh((start.scale - 1.0) / (MAX_STRETCH * (1.0 + 1e-9)))

    def placement(v: Float) -> Placement:
        scale = 1.0 + MAX_STRETCH * math.tanh(float(v[2])) if len(v) > 2 else start.scale
        return Placement((float(v[0]), float(v[1])), scale)

    found = refine(lambda v: _score(means, coarse, placement(v)), np.array(start.shift), unit)
    if scaled:
        found = refine(lambda v: _score(means, coarse, placement(v)), np.array([*found, bound]), [*unit, 0.2])
    return placement(found)


def _probe_width(fine: Images, coarse: Images, placement: Placement) -> float:
    """Standard deviation of the probe for which the maps agree best; 0 if that is not distinguishable from zero.

    fine, coarse: the maps. placement: that of the coarse maps.
    """
    if min(coarse.raster.shape) < MIN_PIXELS:
        return 0.0
    unit = min(abs(s) for s in coarse.raster.step)

    def fall(width: float) -> float:
        return -_score(predictor(fine, blur=width * unit), coarse, placement)

    options = {"xatol": 0.02, "maxiter": 20}
    found = scipy.optimize.minimize_scalar(fall, bounds=(0.0, MAX_PROBE_WIDTH), method="bounded", options=options)
    width = float(found.x)
    return width * unit if width > MIN_PROBE_WIDTH and found.fun < fall(0.0) else 0.0


def _assess(means: Predictor, coarse: Images, placement: Placement, blur: float, whitening: Float) -> Registration:
    """Residual, gain and error of a placement.

    means: see `predictor`. coarse: the measured maps, whitened. blur: of the probe. whitening: as in `register`.
    """
    p, g, use = _compared_maps(means, coarse, placement)
    whole = float(np.square(g).sum())
    if len(p) == 0 or not whole > 0:
        return Registration(placement, (math.nan, math.nan), blur, 1.0, math.nan)
    slope = float((p * g).sum() / max(float(np.square(p).sum()), 1e-300))
    difference = slope * p - g
    residual = math.sqrt(float(np.square(difference).sum()) / whole)
    # The gain is the ratio of the sums of the maps, which is less noisy than that of their variations.
    back = np.linalg.inv(whitening)
    fine, measured = (float((v[use] @ back).sum()) for v in (means(coarse.raster, placement)[0], coarse.values))
    error = _error(means, coarse.raster, placement, use, slope, difference)
    return Registration(placement, error, blur, residual, fine / measured if measured else math.nan)


def _error(means: Predictor, raster: Raster, placement: Placement, use: Bool, slope: float, difference: Float) -> Pair:
    """Standard error of the shift, from the derivative of the prediction and from the residual.

    means: see `predictor`. raster, placement: of the coarse maps. use: mask of the compared pixels. slope: factor of
    the prediction. difference (P, K): prediction minus measurement.
    """
    slopes = []
    for axis in (0, 1):
        step, ends = 0.1 * abs(raster.step[axis]), []
        for side in (-1, 1):
            shift = list(placement.shift)
            shift[axis] += side * step
            ends.append(means(raster, placement._replace(shift=(shift[0], shift[1])))[0][use])
        slopes.append(_centred(slope * (ends[1] - ends[0]) / (2 * step)).ravel())
    jacobian = np.stack(slopes, axis=1)
    gram = jacobian.T @ jacobian
    if not np.linalg.det(gram) > 0:
        return math.nan, math.nan
    variance = float(np.square(difference).sum()) / max(1, difference.size - difference.shape[1] - 3)
    found = np.sqrt(variance * np.diag(np.linalg.inv(gram)))
    return float(found[0]), float(found[1])
