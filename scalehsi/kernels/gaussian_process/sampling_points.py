"""Where the maps are wanted: at some points a pixel, or at points of one's own along y and x.

Wherever a function takes ``upsample``, a whole number divides each pixel evenly; two tuples are the places of points
along y and x, in pixels, and the maps are wanted where these cross.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Along = int | tuple[float, ...]
Points = int | tuple[tuple[float, ...], tuple[float, ...]]


def along(upsample: Points, axis: int) -> Along:
    """The part of one axis, 0 for y and 1 for x; it can be the key of a cache."""
    return upsample if isinstance(upsample, int) else upsample[axis]


def places(points: Along, size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Places of the points of an axis of so many pixels.

    Examples
    --------
    >>> places(2, 2).tolist(), places((0.5, 3.0), 2).tolist()
    ([-0.25, 0.25, 0.75, 1.25], [0.5, 3.0])
    """
    if isinstance(points, int):
        return np.asarray((np.arange(size * points) + 0.5) / points - 0.5)
    return np.asarray(points, dtype=np.float64)


def pixels(points: Along, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The pixel of an axis that each point lies in, or the nearest one.

    Examples
    --------
    >>> pixels(2, 2).tolist(), pixels((0.4, 3.0), 2).tolist()
    ([0, 0, 1, 1], [0, 1])
    """
    found = np.floor(places(points, size) + 0.5).astype(np.int64)
    return np.asarray(np.clip(found, 0, size - 1))
