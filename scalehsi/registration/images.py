"""Component maps on a raster, with the measured fraction of each pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.registration.rasters import Raster


class Images(NamedTuple):
    """Maps of components on a raster.

    Attributes
    ----------
    values : array, shape (rows, columns, K)
    filled : array, shape (rows, columns)
        Measured fraction of each pixel.
    raster : Raster
    """

    values: Float
    filled: Float
    raster: Raster


def averaged(images: Images, factor: int) -> Images:
    """Average maps over bins of ``factor`` x ``factor`` pixels, weighted with their measured fraction.

    Incomplete bins at the end average fewer pixels.
    """
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
