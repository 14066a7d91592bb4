"""A panchromatic image (HAADF) beside two acquisitions: its detail within the footprints of the coarse one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.kernels.grids import box_means, spline_at, spline_of_means, summed
from scalehsi.models.base import require
from scalehsi.models.guesses import filled_in
from scalehsi.models.rasters import Float, Pair, Placing, Raster
from scalehsi.models.registration import Images, best_shift, regression
from scalehsi.schema import InputError, X, Y


class Detail(NamedTuple):
    """An image on the fine raster, and on the coarse one.

    Attributes
    ----------
    fine : array, shape (rows, columns) of the fine raster, float32
        The image less its smooth part, which has the same means over coarse pixels: what these do not see. Zero where
        the image does not reach.
    coarse : array, shape (rows, columns) of the coarse raster
        Means over footprints, NaN where the image does not reach.
    shift : (float, float)
        Of the image.
    """

    fine: np.ndarray[Any, np.dtype[np.float32]]
    coarse: Float
    shift: Pair


def check_image(image: Any) -> None:
    """Refuse what is no image of dims (y, x) of finite numbers; reads it.

    Raises
    ------
    InputError
    """
    if not isinstance(image, xr.DataArray) or set(map(str, image.dims)) != {Y, X}:
        dims = tuple(map(str, image.dims)) if isinstance(image, xr.DataArray) else type(image).__name__
        raise InputError(f"'image' is a DataArray of dims ('y', 'x'), got {dims}")
    require(image.dtype.kind in "uif", f"'image' holds real numbers, got dtype {image.dtype}")


def detail_of(
    image: xr.DataArray,
    raster: Raster,
    fine: Images,
    coarse: Raster,
    placing: Placing,
    on: Raster,
    *,
    shift: Pair | None,
) -> Detail:
    """Bring an image onto the fine raster, and take off what the coarse acquisition sees of it.

    Parameters
    ----------
    image : xarray.DataArray, dims (y, x)
    raster : Raster
        Of the image.
    fine : Images
        Maps of the fine acquisition, by which the image is registered.
    coarse : Raster
        Of the coarse acquisition.
    placing : Placing
        Of the coarse acquisition on the fine raster.
    on : Raster
        The fine raster.
    shift : (float, float), optional
        Of the image; None looks for it.
    """
    values = np.asarray(image.transpose(Y, X).values, dtype=np.float64)
    there = np.isfinite(values)
    require(bool(there.any()), "'image' holds no finite number")
    tables = summed(np.where(there, values, 0.0)), summed(there.astype(np.float64))
    if shift is None:
        shift = best_shift(
            lambda move: _likeness(tables, raster, fine, move),
            reach=[0.5 * n for n in (fine.raster.size[0] / 4, fine.raster.size[1] / 4)],
            unit=[abs(s) for s in fine.raster.step],
        )
    seen, covered = _sampled(tables, raster, on, shift)
    known = covered > 0.5
    level = float(values[there].mean())
    filled = np.where(known, seen, level)
    sums = summed(np.where(known, seen, 0.0)), summed(known.astype(np.float64))
    means, over = _on_coarse(sums, on, coarse, placing)
    means = np.where(over > 0.5, means, np.nan)
    smooth = spline_of_means(filled_in(means[..., None]))
    (ay, by), (ax, bx) = placing.pixels(coarse, on)
    x = ax + bx * np.arange(on.shape[1])
    detail = np.zeros(on.shape, dtype=np.float32)
    for row in range(on.shape[0]):
        part = filled[row] - spline_at(smooth, np.full(len(x), ay + by * row), x)[:, 0]
        detail[row] = np.where(known[row], part, 0.0)
    return Detail(detail, means, shift)


def _sampled(tables: tuple[Float, Float], raster: Raster, on: Raster, shift: Pair) -> tuple[Float, Float]:
    """Means of an image over the pixels of another raster, or over its own where these are larger."""
    at, sides = [], []
    for axis in (0, 1):
        step = raster.step[axis]
        at.append((on.centres(axis) - shift[axis] - raster.origin[axis]) / step)
        sides.append(max(1.0, abs(on.step[axis] / step)))
    return box_means(*tables, at[0], at[1], height=sides[0], width=sides[1])


def _on_coarse(tables: tuple[Float, Float], on: Raster, coarse: Raster, placing: Placing) -> tuple[Float, Float]:
    at, sides = [], []
    for axis in (0, 1):
        step = on.step[axis]
        at.append((placing.place(coarse, coarse.centres(axis), axis) - on.origin[axis]) / step)
        sides.append(abs(placing.scale * coarse.step[axis] / step))
    return box_means(*tables, at[0], at[1], height=sides[0], width=sides[1])


def _likeness(tables: tuple[Float, Float], raster: Raster, fine: Images, shift: Pair) -> float:
    """How much of the image's variation the fine maps explain, from 0 to 1."""
    seen, covered = _sampled(tables, raster, fine.raster, shift)
    use = (covered > 0.5) & (fine.filled > 0)
    if use.sum() < 0.4 * min(use.size, len(tables[0]) * tables[0].shape[1]) and use.sum() < 0.4 * use.size:
        return -1.0
    return regression(fine.values[use], seen[use])
