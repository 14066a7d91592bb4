"""Mean and standard deviation of the maps, on the pixels or a finer grid, from complete maps.

The maps decide which library computes, and where: numpy, torch or CuPy. What an axis needs comes from the host once and
stays on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

import array_api_compat
import numpy as np

from scalehsi.arrays import Float, array_namespace
from scalehsi.kernels.gaussian_process.covariance import across, axis
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.sampling_points import Along, Points, along

SMALL: Final = 1e-300


class Filter(NamedTuple):
    """An axis as predictions need it; r points for n pixels.

    Attributes
    ----------
    vectors : array, shape (n, n)
    values : array, shape (n,)
    points : array, shape (r, n)
        Covariance of the points with the eigenvectors, A.
    share : array, shape (r, n)
        ``A^2 / values``: how much of the variance of a point each eigenvector explains.
    """

    vectors: Any
    values: Any
    points: Any
    share: Any


@lru_cache(maxsize=64)
def axis_filter(kernel: str, size: int, length: float, upsample: Along, dtype: str = "float64") -> Filter:
    """The filter of an axis; kept, as tiles share it."""
    found = axis(kernel, size, length, slope=False)
    if upsample == 1:
        points = found.vectors * found.values
    else:
        points = across(kernel, size, length, upsample) @ found.vectors
    share = points**2 / np.maximum(found.values, SMALL)
    return Filter(*(np.ascontiguousarray(v, dtype=dtype) for v in (found.vectors, found.values, points, share)))


@dataclass(frozen=True)
class Place:
    """A library and a device, as the key of what is kept there."""

    library: Any
    name: str
    device: Any = field(compare=False)

    def put(self, values: Any, dtype: str = "float64") -> Any:
        """A numpy array, there."""
        return self.library.asarray(values, dtype=getattr(self.library, dtype), device=self.device)


def place_of(x: Any) -> Place:
    """Where an array lies."""
    device = array_api_compat.device(x)
    return Place(array_namespace(x), str(device), device)


@lru_cache(maxsize=64)
def filter_at(place: Place, kernel: str, size: int, length: float, upsample: Along, dtype: str) -> Filter:
    """The filter of an axis on a device; kept there."""
    found = axis_filter(kernel, size, length, upsample, dtype)
    return Filter(*(place.put(v, dtype) for v in found))


def predict(y: Any, hyper: Hyper, *, upsample: Points = 1, dtype: Any = np.float64) -> tuple[Any, Any]:
    """Mean and standard deviation of the maps without their noise.

    Parameters
    ----------
    y : array of any library, shape (H, W, T)
        Complete: no NaN.
    hyper : Hyper
    upsample : int or two tuples of float, default 1
        Points a pixel along each axis, or the places of points; see
        `scalehsi.kernels.gaussian_process.sampling_points`.
    dtype : dtype, default float64
        Of the products; the variance is written without cancellation, so that float32 will do.

    Returns
    -------
    mean, std : array of the same library and device, shape (H * upsample, W * upsample, T)

    Notes
    -----
    Cost: four products of an image with an axis for each map, and nothing larger than the maps.

    Examples
    --------
    >>> hyper = Hyper("rbf", (2.0, 2.0), np.eye(1), np.ones(1), np.zeros(1), 0.0, np.empty((0, 2)), 0)
    >>> mean, std = predict(np.ones((8, 9, 1)), hyper, upsample=2)
    >>> mean.shape, bool(std.max() < 1)
    ((16, 18, 1), True)
    """
    height, width, _ = y.shape
    name, place = np.dtype(dtype).name, place_of(y)
    xp = place.library
    rows = filter_at(place, hyper.kernel, height, hyper.lengths[0], along(upsample, 0), name)
    columns = filter_at(place, hyper.kernel, width, hyper.lengths[1], along(upsample, 1), name)
    s, there, back = decoupled(hyper)
    # In float64, as maps that are nearly alike differ by little in units of their noise.
    centred = xp.astype(y, xp.float64, copy=False) - place.put(hyper.mean)
    z = xp.astype(xp.tensordot(place.put(there.T), centred, axes=((1,), (2,))), getattr(xp, name), copy=False)
    gain = gains(s, rows, columns, place, name)
    f = smoothed(z, gain, rows, columns)
    mean = xp.tensordot(f, place.put(back, name), axes=((0,), (0,))) + place.put(hyper.mean, name)
    spread = xp.tensordot(left(s, gain, rows, columns, place, name), place.put(back**2, name), axes=((0,), (0,)))
    return mean, xp.sqrt(xp.maximum(spread, place.put(0.0, name)))


def gains(s: Float, rows: Filter, columns: Filter, place: Place, dtype: str) -> Any:
    """Of independent maps of strengths s and unit noise, ``s / (1 + s lambda mu)``, shape (T, H, W)."""
    strength = place.put(s[:, None, None], dtype)
    return strength / (1 + strength * (rows.values[:, None] * columns.values[None, :]))


def smoothed(z: Any, gain: Any, rows: Filter, columns: Filter) -> Any:
    """Mean of independent maps (T, H, W), on the points, shape (T, H * upsample, W * upsample)."""
    inner = gain * (rows.vectors.T @ z @ columns.vectors)
    return rows.points @ inner @ columns.points.T


def left(s: Float, gain: Any, rows: Filter, columns: Filter, place: Place, dtype: str) -> Any:
    """What is left of the variance of independent maps, on the points, shape (T, H * upsample, W * upsample)."""
    xp = place.library
    # gain * share: s lam mu / (1 + s lam mu) of a share is certain; what is left of it is share / (1 + s lam mu) * s.
    explained = rows.share @ gain @ columns.share.T
    if rows.share.shape[0] == rows.share.shape[1] and columns.share.shape[0] == columns.share.shape[1]:
        return explained
    # What the eigenvectors of the pixels do not reach, between the pixels of a finer grid.
    part_y, part_x = xp.sum(rows.share, axis=1), xp.sum(columns.share, axis=1)
    beyond = (1 - part_y)[:, None] + part_y[:, None] * (1 - part_x)[None, :]
    return place.put(s[:, None, None], dtype) * xp.maximum(beyond, place.put(0.0, dtype)) + explained


def decoupled(hyper: Hyper) -> tuple[Float, Float, Float]:
    """Strengths (T,) of independent maps of unit noise, and the matrices (T, T) there and back.

    ``there`` takes maps (.., T) to the independent ones by ``y @ there``, ``back`` the other way.
    """
    noise = np.maximum(hyper.noise, 1e-12 * max(float(hyper.noise.max()), 1e-300))
    s, u = np.linalg.eigh(hyper.signal / np.outer(noise, noise))
    return np.maximum(s, 0.0), u / noise[:, None], u.T * noise[None, :]
