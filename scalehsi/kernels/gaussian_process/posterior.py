"""Posterior mean and standard deviation of complete maps, on their pixels or at other points.

The maps may be numpy, torch or CuPy arrays; the result has the same library and device. The eigenvectors of each axis
are computed once on the host and cached on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

import array_api_compat
import numpy as np

from scalehsi.arrays import Float, array_namespace
from scalehsi.kernels.gaussian_process.covariance import cross_covariance, decompose_axis
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.sampling_points import AxisPoints, Points, axis_points

TINY: Final = 1e-300


class AxisFilter(NamedTuple):
    """One axis in its eigenvectors, for predictions at r points from n pixels.

    Attributes
    ----------
    vectors : array, shape (n, n)
    values : array, shape (n,)
    points : array, shape (r, n)
        Covariance of the points with the eigenvectors, A.
    explained : array, shape (r, n)
        ``A^2 / values``: part of the variance of a point that each eigenvector explains.
    """

    vectors: Any
    values: Any
    points: Any
    explained: Any


@lru_cache(maxsize=64)
def axis_filter(kernel: str, size: int, length: float, upsample: AxisPoints, dtype: str = "float64") -> AxisFilter:
    """Compute the filter of an axis; cached, as tiles share it.

    Parameters
    ----------
    kernel, length
        As in `scalehsi.kernels.gaussian_process.covariance.covariance`.
    size : int
        Pixels of the axis.
    upsample : int or tuple of float
    dtype : str
    """
    found = decompose_axis(kernel, size, length, slope=False)
    if upsample == 1:
        points = found.vectors * found.values
    else:
        points = cross_covariance(kernel, size, length, upsample) @ found.vectors
    explained = points**2 / np.maximum(found.values, TINY)
    arrays = (found.vectors, found.values, points, explained)
    return AxisFilter(*(np.ascontiguousarray(v, dtype=dtype) for v in arrays))


@dataclass(frozen=True)
class Backend:
    """An array library and a device; hashable, so that it can be a cache key."""

    library: Any
    name: str
    device: Any = field(compare=False)

    def put(self, values: Any, dtype: str = "float64") -> Any:
        """Copy a numpy array to the device."""
        return self.library.asarray(values, dtype=getattr(self.library, dtype), device=self.device)


def backend_of(x: Any) -> Backend:
    """Library and device of an array."""
    device = array_api_compat.device(x)
    return Backend(array_namespace(x), str(device), device)


@lru_cache(maxsize=64)
def filter_on(backend: Backend, kernel: str, size: int, length: float, upsample: AxisPoints, dtype: str) -> AxisFilter:
    """Copy the filter of an axis to a device, and cache it there; arguments as of `axis_filter`."""
    found = axis_filter(kernel, size, length, upsample, dtype)
    return AxisFilter(*(backend.put(v, dtype) for v in found))


def predict(y: Any, hyper: Hyper, *, upsample: Points = 1, dtype: Any = np.float64) -> tuple[Any, Any]:
    """Predict mean and standard deviation of the maps without their noise.

    Parameters
    ----------
    y : array of any library, shape (H, W, T)
        Complete: no NaN.
    hyper : Hyper
    upsample : int or two tuples of float, default 1
        Points per pixel along each axis, or the positions of points; see
        `scalehsi.kernels.gaussian_process.sampling_points`.
    dtype : dtype, default float64
        Of the products. The formula of the variance has no cancellation, so that float32 suffices.

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
    name, backend = np.dtype(dtype).name, backend_of(y)
    xp = backend.library
    rows = filter_on(backend, hyper.kernel, height, hyper.lengths[0], axis_points(upsample, 0), name)
    columns = filter_on(backend, hyper.kernel, width, hyper.lengths[1], axis_points(upsample, 1), name)
    s, to_independent, to_maps = decoupled(hyper)
    # In float64, as maps that are nearly alike differ by little in units of their noise.
    centred = xp.astype(y, xp.float64, copy=False) - backend.put(hyper.mean)
    z = xp.tensordot(backend.put(to_independent.T), centred, axes=((1,), (2,)))
    z = xp.astype(z, getattr(xp, name), copy=False)
    gain = gains(s, rows, columns, backend, name)
    f = posterior_mean(z, gain, rows, columns)
    mean = xp.tensordot(f, backend.put(to_maps, name), axes=((0,), (0,))) + backend.put(hyper.mean, name)
    variance = posterior_variance(s, gain, rows, columns, backend, name)
    variance = xp.tensordot(variance, backend.put(to_maps**2, name), axes=((0,), (0,)))
    return mean, xp.sqrt(xp.maximum(variance, backend.put(0.0, name)))


def gains(s: Float, rows: AxisFilter, columns: AxisFilter, backend: Backend, dtype: str) -> Any:
    """Gains ``s / (1 + s lambda mu)``, shape (T, H, W), of independent maps of strengths ``s`` (T,) and unit noise.

    ``rows`` and ``columns`` are the filters of y and x on ``backend``, in ``dtype``.
    """
    strength = backend.put(s[:, None, None], dtype)
    return strength / (1 + strength * (rows.values[:, None] * columns.values[None, :]))


def posterior_mean(z: Any, gain: Any, rows: AxisFilter, columns: AxisFilter) -> Any:
    """Posterior mean (T, H * upsample, W * upsample) of independent maps ``z`` (T, H, W) with their `gains`."""
    inner = gain * (rows.vectors.T @ z @ columns.vectors)
    return rows.points @ inner @ columns.points.T


def posterior_variance(s: Float, gain: Any, rows: AxisFilter, columns: AxisFilter, backend: Backend, dtype: str) -> Any:
    """Posterior variance (T, H * upsample, W * upsample) of independent maps; arguments as of `gains`."""
    xp = backend.library
    # Of the explained variance, the data determine s lam mu / (1 + s lam mu); the rest, s / (1 + s lam mu), remains.
    remaining = rows.explained @ gain @ columns.explained.T
    if rows.explained.shape[0] == rows.explained.shape[1] and columns.explained.shape[0] == columns.explained.shape[1]:
        return remaining
    # Between the pixels, the eigenvectors do not explain all of the variance.
    explained_y, explained_x = xp.sum(rows.explained, axis=1), xp.sum(columns.explained, axis=1)
    unexplained = (1 - explained_y)[:, None] + explained_y[:, None] * (1 - explained_x)[None, :]
    return backend.put(s[:, None, None], dtype) * xp.maximum(unexplained, backend.put(0.0, dtype)) + remaining


def decoupled(hyper: Hyper) -> tuple[Float, Float, Float]:
    """Strengths (T,) of independent maps of unit noise, and the matrices (T, T) to these maps and back.

    With ``s, to_independent, to_maps = decoupled(hyper)``, maps (..., T) become independent by ``y @ to_independent``,
    and ``z @ to_maps`` is the inverse.
    """
    noise = np.maximum(hyper.noise, 1e-12 * max(float(hyper.noise.max()), 1e-300))
    s, u = np.linalg.eigh(hyper.signal / np.outer(noise, noise))
    return np.maximum(s, 0.0), u / noise[:, None], u.T * noise[None, :]


def mixing(hyper: Hyper) -> Float:
    """Rotation (T, T) from independent maps of unit noise to the maps, each in units of its own noise."""
    to_maps = decoupled(hyper)[2].T
    return np.asarray(to_maps / np.linalg.norm(to_maps, axis=1, keepdims=True))
