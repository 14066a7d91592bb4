"""Component images on a raster, with the weight of each pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.registration.rasters import Raster


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


def averaged(images: Images, factor: int) -> Images:
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
