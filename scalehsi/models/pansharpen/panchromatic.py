"""A panchromatic image (HAADF) as a third input: its shift, and its detail within the footprints of the coarse map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from scalehsi.arrays import Float
from scalehsi.checks import require
from scalehsi.kernels.resampling.footprints import box_means, spline_at, spline_of_means, summed_area
from scalehsi.models.pansharpen.prior_maps import filled_in
from scalehsi.registration.images import Images, averaged
from scalehsi.registration.rasters import Pair, Placement, Raster
from scalehsi.registration.register import FINE_BLUR_PIXELS, MIN_OVERLAP, footprints
from scalehsi.registration.shift_search import refine, search_grids
from scalehsi.schema import ENERGY, InputError, X, Y

LARGEST_SHIFT: Final = 0.125
"""Largest tested shift of the image, as a fraction of the field."""
GRID_STEPS: Final = 8
"""Steps of the first grid to each side."""

Tables = tuple[Float, Float]


class Detail(NamedTuple):
    """An image on the fine raster, and on the coarse one.

    Attributes
    ----------
    fine : array, shape (rows, columns) of the fine raster, float32
        The image minus its smooth part with the same means over coarse pixels. Zero outside the image.
    coarse : array, shape (rows, columns) of the coarse raster
        Means over footprints, NaN outside the image.
    """

    fine: np.ndarray[Any, np.dtype[np.float32]]
    coarse: Float


def image_cube(image: Any) -> xr.DataArray:
    """An image of dims (y, x) as a cube of one channel.

    Raises
    ------
    InputError
        For anything that is not a DataArray of real numbers of these dims.
    """
    if not isinstance(image, xr.DataArray) or sorted(map(str, image.dims)) != [X, Y]:
        dims = tuple(map(str, image.dims)) if isinstance(image, xr.DataArray) else type(image).__name__
        raise InputError(f"'image' is a DataArray of dims ('y', 'x'), got {dims}")
    require(image.dtype.kind in "uif", f"'image' holds real numbers, got dtype {image.dtype}")
    cube = image.transpose(Y, X).expand_dims({ENERGY: [0.0]}, axis=-1)
    return cube.assign_coords({ENERGY: (ENERGY, [0.0], {"units": "of an image"})})


def read_image(image: xr.DataArray) -> Float:
    """The values of an image (a cube of one channel) minus their mean; NaN where it has no value."""
    values = np.asarray(image.isel({ENERGY: 0}).values, dtype=np.float64)
    there = np.isfinite(values)
    require(bool(there.any()), "'image' holds no finite number")
    return np.where(there, values - float(values[there].mean()), np.nan)


def _tables(image: Float, width: Sequence[float] = (0.0, 0.0)) -> Tables:
    """Summed-area tables of an image and of its finite pixels, blurred by ``width`` pixels along y and x."""
    there = np.isfinite(image)
    parts = np.where(there, image, 0.0), there.astype(np.float64)
    values, weight = (summed_area(gaussian_filter(part, width, mode="constant")) for part in parts)
    return values, weight


def image_shift(image: Float, raster: Raster, fine: Images) -> Pair:
    """Shift of an image along y and x at which a combination of the fine maps explains most of it.

    Both are blurred first, because boxes that cut pixels have less noise and would be preferred.
    """
    unit = [abs(s) for s in fine.raster.step]
    tables = _tables(image, [FINE_BLUR_PIXELS * abs(u / s) for u, s in zip(unit, raster.step, strict=True)])
    maps = gaussian_filter(fine.values * fine.filled[..., None], FINE_BLUR_PIXELS, axes=(0, 1), mode="constant")
    maps /= np.maximum(gaussian_filter(fine.filled, FINE_BLUR_PIXELS, mode="constant"), 1e-9)[..., None]
    soft = fine._replace(values=maps)
    reach = [LARGEST_SHIFT * size for size in fine.raster.size]
    levels, steps = [], [max(r / GRID_STEPS, u / 2) for r, u in zip(reach, unit, strict=True)]
    while True:
        # For steps of many pixels, averages over cells are enough.
        factor = max(1, math.floor(min(s / u for s, u in zip(steps, unit, strict=True))))
        score = _agreement(tables, raster, averaged(soft, factor))
        levels.append((score, tuple(steps)))
        if all(s <= u / 2 for s, u in zip(steps, unit, strict=True)):
            break
        steps = [max(s / 2, u / 2) for s, u in zip(steps, unit, strict=True)]
    found = refine(score, np.array(search_grids(levels, reach=reach)), [0.5 * u for u in unit])
    return float(found[0]), float(found[1])


def _agreement(tables: Tables, raster: Raster, fine: Images) -> Callable[[Any], float]:
    """Score of a shift: the fraction of the image that the maps explain; -1 where the overlap is too small."""

    def score(shift: Any) -> float:
        seen, covered = _sampled(tables, raster, fine.raster, (float(shift[0]), float(shift[1])))
        use = (covered > 0.5) & (fine.filled > 0)
        return explained(fine.values[use], seen[use]) if use.mean() > MIN_OVERLAP * LARGEST_SHIFT else -1.0

    return score


def explained(maps: Float, image: Float) -> float:
    """Part of the variance of an image (P,) that a linear combination of maps (P, K) explains.

    Examples
    --------
    >>> maps = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0], [1.0, 1.0]])
    >>> round(explained(maps, maps @ [1.0, 3.0] + 7.0), 6)
    1.0
    """
    centred, seen = maps - maps.mean(axis=0), image - image.mean()
    whole = float(seen @ seen)
    if whole <= 0:
        return 0.0
    both = centred.T @ seen
    return float(both @ np.linalg.lstsq(centred.T @ centred, both, rcond=None)[0]) / whole


def moved_image(image: Float, raster: Raster, shift: Pair, *, on: Raster) -> Float:
    """An image on the fine raster; NaN outside the image."""
    seen, covered = _sampled(_tables(image), raster, on, shift)
    return np.where(covered > 0.5, seen, np.nan)


def detail_of(image: Float, *, on: Raster, coarse: Raster, placing: Placement) -> Detail:
    """The detail of an image that the coarse acquisition does not resolve.

    Parameters
    ----------
    image : array, shape (rows, columns) of the fine raster
    on : Raster
        The fine raster.
    coarse : Raster
    placing : Placement
        Placement of the coarse acquisition on the fine one.
    """
    known = np.isfinite(image)
    seen = np.where(known, image, 0.0)
    sums = summed_area(seen), summed_area(known.astype(np.float64))
    means, over = footprints(sums, on, coarse, placing)
    means = np.where(over > 0.5, means, np.nan)
    smooth = spline_of_means(filled_in(means[..., None]))
    (ay, by), (ax, bx) = placing.pixel_transform(coarse, on)
    x: Float = ax + bx * np.arange(on.shape[1], dtype=np.float64)
    detail = np.zeros(on.shape, dtype=np.float32)
    for row in range(on.shape[0]):
        part = seen[row] - spline_at(smooth, np.full(len(x), ay + by * row, dtype=np.float64), x)[:, 0]
        detail[row] = np.where(known[row], part, 0.0)
    return Detail(detail, means)


def _sampled(tables: Tables, raster: Raster, on: Raster, shift: Pair) -> tuple[Float, Float]:
    """Means of an image over the pixels of another raster, or over its own where these are larger.

    tables: of the image. raster: of the image. on: the other raster. shift: of the image along y and x.
    """
    at, sides = [], []
    for axis in (0, 1):
        step = raster.step[axis]
        at.append((on.centres(axis) - shift[axis] - raster.origin[axis]) / step)
        sides.append(max(1.0, abs(on.step[axis] / step)))
    return box_means(*tables, at[0], at[1], height=sides[0], width=sides[1])
