"""Endmembers as corners of the cloud of pixels: vertex component analysis.

Nascimento and Bioucas-Dias 2005 (doi:10.1109/TGRS.2005.844293). The cloud is projected onto as many dimensions as there
are endmembers; then, again and again, the pixel that lies farthest along a direction at right angles to the corners
found so far is the next corner.

What differs from the paper: pixels that are nearly empty are passed over, because dividing by their intensity sends
noise to infinity; no pixel is taken twice; and corners of a cube of any size come from one reading, in which every
block names its extreme pixels along many fixed directions, and a search among these.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float, Int
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.kernels.subspace.singular_vectors import leading_vectors

FAINT: Final = 0.1
"""Pixels below this share of the average intensity are no corners."""


class Projection(NamedTuple):
    """How spectra become points of as many dimensions as there are endmembers.

    Attributes
    ----------
    basis : array, shape (E, D)
        Orthonormal. D is K where the points are divided by their intensity, K - 1 where they are not.
    centre : array, shape (E,)
        Taken off before; zeros where the points are divided.
    mean : array, shape (D,)
        Mean of the points: the direction of intensity.
    lift : float
        The last coordinate of points that are not divided; 0 for those that are.
    """

    basis: Float
    centre: Float
    mean: Float
    lift: float

    @property
    def divided(self) -> bool:
        return self.lift == 0.0


def vca(x: np.ndarray[Any, Any], n_components: int, *, seed: int) -> tuple[Int, Float]:
    """Pixels at the corners of the cloud, and their spectra without the noise outside its few dimensions.

    Parameters
    ----------
    x : array, shape (P, E)
        In memory. Cost: its first singular vectors, and K products with K numbers a pixel.
    n_components : int
        K.
    seed : int
        Of the random directions.

    Returns
    -------
    indices : array of int, shape (N,)
        Rows of ``x``, none twice; N is K, or fewer where there are fewer pixels that are not faint.
    spectra : array, shape (N, E)
        Their projections, clipped at zero.

    Notes
    -----
    With a signal-to-noise ratio above ``15 + 10 log10 K`` decibel the cloud is projected onto its first K singular
    vectors and every pixel is divided by its intensity, which takes the thickness of the sample out. Below it, the
    cloud about its mean is projected onto K - 1 principal components.

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
    """The few dimensions in which the corners are looked for, by the signal-to-noise ratio of the data.

    Parameters
    ----------
    x : array, shape (P, E)
    n_components : int
        K, at most E.
    seed : int
        Of the start of the search for singular vectors.
    """
    wide: Any = np.asarray(x, dtype=np.float64 if x.dtype == np.float64 else np.float32)
    n = min(n_components, x.shape[1])
    mean = wide.mean(axis=0, dtype=np.float64)
    centred = leading_vectors(wide - mean.astype(wide.dtype), n, seed=seed)
    power = float(np.mean(np.sum(np.square(wide), axis=1, dtype=np.float64)))
    inside = (wide - mean.astype(wide.dtype)) @ centred
    kept = float(np.mean(np.sum(inside.astype(np.float64) ** 2, axis=1)) + mean @ mean)
    if _decibel(power, kept, n, x.shape[1]) > 15 + 10 * np.log10(n):
        basis = leading_vectors(wide, n, seed=seed)
        return Projection(basis, np.zeros(x.shape[1]), (mean @ basis), 0.0)
    basis = centred[:, : n - 1]
    reach = float(np.sqrt(np.max(np.sum(inside[:, : n - 1].astype(np.float64) ** 2, axis=1), initial=0.0)))
    return Projection(basis, mean, np.zeros(n - 1), reach or 1.0)


def _decibel(power: float, kept: float, n: int, channels: int) -> float:
    """Signal to noise: what the K dimensions hold beyond their share of the noise, to what they leave."""
    signal, noise = kept - n / channels * power, power - kept
    if noise <= 1e-12 * power:
        return np.inf
    return float(10 * np.log10(max(signal, 1e-300) / noise))


def coordinates(x: arrays.Array, cloud: Projection) -> tuple[arrays.Array, arrays.Array]:
    """Points of pixels, shape (P, K), and which of them are bright enough to be corners."""
    xp = arrays.array_namespace(x)
    dtype = xp.float64 if x.dtype == xp.float64 else xp.float32
    flat = xp.astype(x, dtype, copy=False) @ arrays.to_device_like(cloud.basis, x, dtype)
    points = xp.astype(flat, xp.float64) - arrays.to_device_like(cloud.centre @ cloud.basis, x, xp.float64)
    if not cloud.divided:
        last = arrays.to_device_like(np.full((x.shape[0], 1), cloud.lift), x, xp.float64)
        return xp.concat([points, last], axis=1), xp.sum(xp.astype(x, dtype, copy=False), axis=1) > 0
    ahead = points @ arrays.to_device_like(cloud.mean, x, xp.float64)
    bright = ahead > FAINT * float(cloud.mean @ cloud.mean)
    safe = xp.where(bright, ahead, xp.ones_like(ahead))
    return points / safe[:, None], bright


def corners(points: Float, n: int, *, seed: int) -> Int:
    """Rows of points (P, K) that lie farthest along directions at right angles to the corners before them.

    Returns
    -------
    array of int, shape (min(N, P),)
    """
    rng = np.random.default_rng(seed)
    size = points.shape[1]
    drawn = rng.standard_normal((n, size))
    found = np.zeros(0, dtype=np.int64)
    free = np.ones(len(points), dtype=bool)
    # Corners span what the next direction must leave: at first the last axis, as in the paper.
    spanned = np.eye(size)[:, -1:]
    for k in range(min(n, len(points))):
        away = drawn[k] - spanned @ (np.linalg.pinv(spanned) @ drawn[k])
        length = np.linalg.norm(away)
        # With as many corners as dimensions nothing is left over: any direction will do.
        along = np.abs(points @ (away / length if length > 1e-9 * np.linalg.norm(drawn[k]) else drawn[k]))
        best = int(np.argmax(np.where(free, along, -1.0)))
        free[best] = False
        found = np.append(found, best)
        spanned = points[found].T
    return found


def spectra_of(points: Float, cloud: Projection) -> Float:
    """Spectra of points, shape (N, E), clipped at zero; of points that were divided, only the shape has a meaning."""
    flat = points if cloud.divided else points[:, :-1]
    return np.asarray(np.maximum(flat @ cloud.basis.T + cloud.centre, 0.0))


def directions(points: Float, found: Int, *, seed: int, extra: int = 32) -> Float:
    """Directions along which extreme pixels of a whole cube are kept, shape (K, D).

    The faces of the simplex of the corners found in a sample, outwards and inwards, and random ones for what the
    sample did not hold.
    """
    faces = np.linalg.pinv(points[found])
    drawn = np.random.default_rng(seed).standard_normal((points.shape[1], extra))
    # In units of the cloud: a direction in which it is thin counts as much as one in which it is wide.
    spread = points.std(axis=0)
    drawn = drawn / np.where(spread > 1e-9 * spread.max(initial=0.0), spread, np.inf)[:, None]
    both = np.concatenate([faces, drawn], axis=1)
    return np.asarray(np.concatenate([both, -both], axis=1))


def extremes(
    x: arrays.Array, *, index: Int, cloud: Projection, along: Float, scale: Float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One pass over a block: its farthest pixel along each direction. Combine with `farther`.

    Parameters
    ----------
    x : array, shape (P, E)
    index : array of int, shape (P,)
        Absolute pixel numbers; of pixels that lie equally far the first counts.
    cloud : Projection
    along : array, shape (K, D)
    scale : array, shape (E,)
        What channels are divided by before they are projected.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``far`` (D,) how far, ``pixel`` (D,) absolute number, ``point`` (D, K).
    """
    along, scale = arrays.to_host(along), arrays.to_host(scale)
    width = along.shape[1]
    sums: dict[str, Any] = {
        "far": np.full(width, -np.inf),
        "pixel": np.full(width, np.iinfo(np.int64).max),
        "point": np.zeros((width, along.shape[0])),
    }
    for part, strip in strips(x):
        points, bright = coordinates(strip / arrays.to_device_like(scale, strip, strip.dtype), cloud)
        points, rows = arrays.to_host(points), np.flatnonzero(arrays.to_host(bright))
        if rows.size == 0:
            continue
        values = points[rows] @ along
        best = rows[np.argmax(values, axis=0)]
        new = {"far": values.max(axis=0), "pixel": index[part][best], "point": points[best]}
        sums = farther(sums, new)
    return {}, sums


def farther(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Of two sets of extremes the farther ones; of equals the pixel of the lower number."""
    second = (right["far"] > left["far"]) | ((right["far"] == left["far"]) & (right["pixel"] < left["pixel"]))
    pick = {"far": second, "pixel": second, "point": second[:, None]}
    return {name: np.where(chosen, right[name], left[name]) for name, chosen in pick.items()}
