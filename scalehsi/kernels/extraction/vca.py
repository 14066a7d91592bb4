"""Vertex component analysis (VCA): endmembers are the pixels at the corners of the cloud of spectra.

Nascimento and Bioucas-Dias 2005 (doi:10.1109/TGRS.2005.844293). The cloud is projected onto as many dimensions as there
are endmembers. The next corner is always the pixel farthest along a direction orthogonal to the corners found so far.

Differences from the paper: nearly empty pixels are skipped, because division by their intensity amplifies noise without
bound; no pixel is selected twice; and the corners of a cube of any size need one pass, in which every block returns
its extreme pixels along many fixed directions, and a search among these.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float, Int
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.kernels.subspace.singular_vectors import leading_vectors

MIN_RELATIVE_INTENSITY: Final = 0.1
"""Pixels below this fraction of the mean intensity are not selected."""


class Projection(NamedTuple):
    """Projection of spectra to points of K dimensions, one per endmember.

    Attributes
    ----------
    basis : array, shape (E, D)
        Orthonormal. D is K if the points are divided by their intensity, else K - 1.
    centre : array, shape (E,)
        Spectrum to subtract before the projection; zeros if the points are divided.
    mean : array, shape (D,)
        Mean of the points, which is the direction of intensity.
    lift : float
        Last coordinate of points that are not divided; 0 for points that are.
    """

    basis: Float
    centre: Float
    mean: Float
    lift: float

    @property
    def divided(self) -> bool:
        """True if the points are divided by their intensity."""
        return self.lift == 0.0


def vca(x: np.ndarray[Any, Any], n_components: int, *, seed: int) -> tuple[Int, Float]:
    """Find the pixels at the corners of the cloud, and their spectra without the noise outside its few dimensions.

    Parameters
    ----------
    x : array, shape (P, E)
        In memory. The cost is that of its leading singular vectors and of K products with K numbers per pixel.
    n_components : int
        K.
    seed : int
        Seed of the random directions.

    Returns
    -------
    indices : array of int, shape (N,)
        Rows of ``x``, none twice; N is K, or the number of pixels that are not faint if that is smaller.
    spectra : array, shape (N, E)
        Projections of these rows, clipped at zero.

    Notes
    -----
    Above a signal-to-noise ratio of ``15 + 10 log10 K`` decibel, the cloud is projected onto its first K singular
    vectors and every pixel is divided by its intensity, which removes the thickness of the sample. Below it, the cloud
    minus its mean is projected onto K - 1 principal components.

    Examples
    --------
    >>> pure = np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    >>> mixed = np.array([[0.5, 0.5], [1.0, 0.0], [0.3, 0.7], [0.0, 1.0]]) @ pure
    >>> indices, spectra = vca(mixed, 2, seed=0)
    >>> sorted(indices.tolist()), np.allclose(spectra, mixed[indices])
    ([1, 3], True)
    """
    cloud = projection(x, n_components, seed=seed)
    points, bright = coordinates(x, cloud)
    rows = np.flatnonzero(bright)
    found = rows[corners(points[rows], n_components, seed=seed)]
    around = x[found].astype(np.float64) - cloud.centre
    return found, np.maximum((around @ cloud.basis) @ cloud.basis.T + cloud.centre, 0.0)


def projection(x: np.ndarray[Any, Any], n_components: int, *, seed: int) -> Projection:
    """Choose the projection in which corners are searched, by the signal-to-noise ratio of the data.

    Parameters
    ----------
    x : array, shape (P, E)
    n_components : int
        K, at most E.
    seed : int
        Seed of the start vector for the singular vectors.
    """
    floats: Any = np.asarray(x, dtype=np.float64 if x.dtype == np.float64 else np.float32)
    n = min(n_components, x.shape[1])
    mean = floats.mean(axis=0, dtype=np.float64)
    centred = leading_vectors(floats - mean.astype(floats.dtype), n, seed=seed)
    power = float(np.mean(np.sum(np.square(floats), axis=1, dtype=np.float64)))
    inside = (floats - mean.astype(floats.dtype)) @ centred
    kept = float(np.mean(np.sum(inside.astype(np.float64) ** 2, axis=1)) + mean @ mean)
    if _decibel(power, kept, n, x.shape[1]) > 15 + 10 * np.log10(n):
        basis = leading_vectors(floats, n, seed=seed)
        return Projection(basis, np.zeros(x.shape[1]), (mean @ basis), 0.0)
    basis = centred[:, : n - 1]
    reach = float(np.sqrt(np.max(np.sum(inside[:, : n - 1].astype(np.float64) ** 2, axis=1), initial=0.0)))
    return Projection(basis, mean, np.zeros(n - 1), reach or 1.0)


def _decibel(power: float, kept: float, n: int, channels: int) -> float:
    """Estimate the signal-to-noise ratio: power in the K dimensions minus the noise in them, over the other power.

    power is the mean squared norm of a pixel, kept the part of it in the n = K dimensions; channels is E.
    """
    signal, noise = kept - n / channels * power, power - kept
    if noise <= 1e-12 * power:
        return np.inf
    return float(10 * np.log10(max(signal, 1e-300) / noise))


def coordinates(x: arrays.Array, cloud: Projection) -> tuple[arrays.Array, arrays.Array]:
    """Project pixels to points, shape (P, K); also returns which pixels are bright enough to be corners, shape (P,)."""
    xp = arrays.array_namespace(x)
    dtype = xp.float64 if x.dtype == xp.float64 else xp.float32
    flat = xp.astype(x, dtype, copy=False) @ arrays.to_device_like(cloud.basis, x, dtype)
    points = xp.astype(flat, xp.float64) - arrays.to_device_like(cloud.centre @ cloud.basis, x, xp.float64)
    if not cloud.divided:
        last = arrays.to_device_like(np.full((x.shape[0], 1), cloud.lift), x, xp.float64)
        return xp.concat([points, last], axis=1), xp.sum(xp.astype(x, dtype, copy=False), axis=1) > 0
    intensity = points @ arrays.to_device_like(cloud.mean, x, xp.float64)
    bright = intensity > MIN_RELATIVE_INTENSITY * float(cloud.mean @ cloud.mean)
    safe = xp.where(bright, intensity, xp.ones_like(intensity))
    return points / safe[:, None], bright


def corners(points: Float, n: int, *, seed: int) -> Int:
    """Find the rows of ``points`` that are farthest along directions orthogonal to the corners before them.

    Parameters
    ----------
    points : array, shape (P, K)
    n : int
        N, the number of corners.
    seed : int
        Seed of the random directions.

    Returns
    -------
    array of int, shape (min(N, P),)
    """
    rng = np.random.default_rng(seed)
    size = points.shape[1]
    drawn = rng.standard_normal((n, size))
    found = np.zeros(0, dtype=np.int64)
    free = np.ones(len(points), dtype=bool)
    # The next direction is orthogonal to the corners; at first to the last axis, as in the paper.
    spanned = np.eye(size)[:, -1:]
    for k in range(min(n, len(points))):
        direction = drawn[k] - spanned @ (np.linalg.pinv(spanned) @ drawn[k])
        length = np.linalg.norm(direction)
        # No direction is orthogonal to as many corners as dimensions: then any direction is used.
        distance = np.abs(points @ (direction / length if length > 1e-9 * np.linalg.norm(drawn[k]) else drawn[k]))
        best = int(np.argmax(np.where(free, distance, -1.0)))
        free[best] = False
        found = np.append(found, best)
        spanned = points[found].T
    return found


def spectra_of(points: Float, cloud: Projection) -> Float:
    """Spectra of points (N, K), shape (N, E), clipped at zero; the intensity of divided points is arbitrary."""
    flat = points if cloud.divided else points[:, :-1]
    return np.asarray(np.maximum(flat @ cloud.basis.T + cloud.centre, 0.0))


def directions(points: Float, found: Int, *, seed: int, extra: int = 32) -> Float:
    """Directions along which the extreme pixels of a whole cube are searched, shape (K, D).

    These are the normals of the faces of the simplex of the corners of a sample, outwards and inwards, and random ones
    for corners that the sample misses.

    Parameters
    ----------
    points : array, shape (P, K)
        Points of the sample.
    found : array of int, shape (N,)
        Its corners.
    seed : int
        Seed of the random directions.
    extra : int
        Their number.
    """
    faces = np.linalg.pinv(points[found])
    drawn = np.random.default_rng(seed).standard_normal((points.shape[1], extra))
    # Scaled by the spread of the cloud, so that directions in which it is thin or wide are searched equally.
    spread = points.std(axis=0)
    drawn = drawn / np.where(spread > 1e-9 * spread.max(initial=0.0), spread, np.inf)[:, None]
    both = np.concatenate([faces, drawn], axis=1)
    return np.asarray(np.concatenate([both, -both], axis=1))


def extremes(
    x: arrays.Array, *, index: Int, cloud: Projection, axes: Float, scale: Float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Find the farthest pixel of a block along each direction. Blocks are combined with `farther`.

    Parameters
    ----------
    x : array, shape (P, E)
    index : array of int, shape (P,)
        Absolute pixel numbers; of equally far pixels the lowest number is returned.
    cloud : Projection
    axes : array, shape (K, D)
        As returned by `directions`.
    scale : array, shape (E,)
        Divisor of each channel before the projection.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``far`` (D,) distance, ``pixel`` (D,) absolute number, ``point`` (D, K).
    """
    axes, scale = arrays.to_host(axes), arrays.to_host(scale)
    width = axes.shape[1]
    sums: dict[str, Any] = {
        "far": np.full(width, -np.inf),
        "pixel": np.full(width, np.iinfo(np.int64).max),
        "point": np.zeros((width, axes.shape[0])),
    }
    for part, strip in strips(x):
        points, bright = coordinates(strip / arrays.to_device_like(scale, strip, strip.dtype), cloud)
        points, rows = arrays.to_host(points), np.flatnonzero(arrays.to_host(bright))
        if rows.size == 0:
            continue
        values = points[rows] @ axes
        best = rows[np.argmax(values, axis=0)]
        new = {"far": values.max(axis=0), "pixel": index[part][best], "point": points[best]}
        sums = farther(sums, new)
    return {}, sums


def farther(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Combine two results of `extremes` to the farther pixels; of equally far ones the lower number is kept."""
    second = (right["far"] > left["far"]) | ((right["far"] == left["far"]) & (right["pixel"] < left["pixel"]))
    pick = {"far": second, "pixel": second, "point": second[:, None]}
    return {name: np.where(chosen, right[name], left[name]) for name, chosen in pick.items()}
