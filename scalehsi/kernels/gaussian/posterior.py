"""Mean and standard deviation of the maps, on the pixels or a finer grid, from complete maps."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.kernels.gaussian.covariance import across, axis
from scalehsi.kernels.gaussian.profile import Hyper

Float = np.ndarray[Any, np.dtype[np.float64]]

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
def axis_filter(kernel: str, size: int, length: float, upsample: int, dtype: str = "float64") -> Filter:
    """The filter of an axis; kept, as tiles share it."""
    found = axis(kernel, size, length, slope=False)
    if upsample == 1:
        points = found.vectors * found.values
    else:
        points = across(kernel, size, length, upsample) @ found.vectors
    share = points**2 / np.maximum(found.values, SMALL)
    return Filter(*(np.ascontiguousarray(v, dtype=dtype) for v in (found.vectors, found.values, points, share)))


def predict(y: Any, hyper: Hyper, *, upsample: int = 1, dtype: Any = np.float64) -> tuple[Any, Any]:
    """Mean and standard deviation of the maps without their noise.

    Parameters
    ----------
    y : array, shape (H, W, T)
        Complete: no NaN.
    hyper : Hyper
    upsample : int, default 1
        Points a pixel along each axis.
    dtype : dtype, default float64
        Of the products; the variance is written without cancellation, so that float32 will do.

    Returns
    -------
    mean, std : array, shape (H * upsample, W * upsample, T)

    Notes
    -----
    Cost: four products of an image with an axis for each map, and nothing larger than the maps.
    """
    height, width, _ = y.shape
    name = np.dtype(dtype).name
    rows = axis_filter(hyper.kernel, height, hyper.lengths[0], upsample, name)
    columns = axis_filter(hyper.kernel, width, hyper.lengths[1], upsample, name)
    s, forward, backward = decoupled(hyper)
    z = np.einsum("hwt,tu->uhw", np.asarray(y - hyper.mean, dtype=np.float64), forward).astype(dtype)
    z = rows.vectors.T @ z @ columns.vectors
    strength = s.astype(dtype)[:, None, None]
    gain = strength / (1 + strength * rows.values[:, None] * columns.values[None, :])
    f = rows.points @ (gain * z) @ columns.points.T
    mean = np.einsum("uhw,ut->hwt", f, backward.astype(dtype)) + hyper.mean.astype(dtype)
    explained = rows.share @ gain @ columns.share.T
    # What the eigenvectors of the pixels do not reach, between the pixels of a finer grid.
    part_y, part_x = rows.share.sum(axis=1), columns.share.sum(axis=1)
    beyond = np.maximum((1 - part_y)[:, None] + part_y[:, None] * (1 - part_x)[None, :], 0)
    if upsample == 1:
        beyond = np.zeros_like(beyond)
    # gain * share: s lam mu / (1 + s lam mu) of a share is certain; what is left of it is share / (1 + s lam mu) * s.
    variance = strength * beyond + explained
    spread = np.einsum("uhw,ut->hwt", variance, (backward**2).astype(dtype))
    return mean, np.sqrt(np.maximum(spread, 0))


def decoupled(hyper: Hyper) -> tuple[Float, Float, Float]:
    """Strengths (T,) of independent maps of unit noise, and the matrices (T, T) there and back.

    ``there`` takes maps (.., T) to the independent ones by ``y @ there``, ``back`` the other way.
    """
    noise = np.maximum(hyper.noise, 1e-12 * max(float(hyper.noise.max()), 1e-300))
    s, u = np.linalg.eigh(hyper.signal / np.outer(noise, noise))
    return np.maximum(s, 0.0), u / noise[:, None], u.T * noise[None, :]
