"""Positions of the points at which a Gaussian process predicts the maps: a refined grid, or arbitrary coordinates.

Wherever a function takes ``upsample``, a whole number divides each pixel into that many points along each axis. Two
tuples are the positions of points along y and x, in pixels; the maps are predicted on the grid that they span.
"""

from __future__ import annotations

from typing import Any

import numpy as np

AxisPoints = int | tuple[float, ...]
Points = int | tuple[tuple[float, ...], tuple[float, ...]]


def axis_points(upsample: Points, axis: int) -> AxisPoints:
    """Select the points of one axis, 0 for y and 1 for x; the result is hashable, so that it can be a cache key."""
    return upsample if isinstance(upsample, int) else upsample[axis]


def positions(points: AxisPoints, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Positions, in pixels, of the points of an axis of ``size`` pixels.

    Examples
    --------
    >>> positions(2, 2).tolist(), positions((0.5, 3.0), 2).tolist()
    ([-0.25, 0.25, 0.75, 1.25], [0.5, 3.0])
    """
    if isinstance(points, int):
        return np.asarray((np.arange(size * points) + 0.5) / points - 0.5)
    return np.asarray(points, dtype=np.float64)


def pixels_at(points: AxisPoints, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Index of the pixel that contains each point of an axis of ``size`` pixels, or of the nearest one.

    Examples
    --------
    >>> pixels_at(2, 2).tolist(), pixels_at((0.4, 3.0), 2).tolist()
    ([0, 0, 1, 1], [0, 1])
    """
    found = np.floor(positions(points, size) + 0.5).astype(np.int64)
    return np.asarray(np.clip(found, 0, size - 1))
