"""Projection of pixels onto a small orthonormal basis of spectra, for fits in a subspace.

``x ~ b q'`` with ``q`` (E, L) orthonormal and ``b = x q`` (P, L). Noise is spread over all E directions, signal over
few, so L of two or three times K keeps the signal for a factorisation (Halko, Martinsson and Tropp 2011,
doi:10.1137/090771806).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.strips import pixel_weight, strips


def compress(x: arrays.Array, *, basis: Float, w: Float | None = None, weigh_pixels: bool = False) -> arrays.Array:
    """Project a block of pixels, ``b = x basis``.

    Parameters
    ----------
    x : array, shape (P, E)
    basis : array, shape (E, L)
    w : array, shape (E,), optional
        Weight of each channel; ``x`` is multiplied by its root.
    weigh_pixels : bool
        Divide by the root of the mean of each pixel.

    Returns
    -------
    array of float32, shape (P, L)
    """
    xp = arrays.array_namespace(x)
    parts = [
        xp.astype(scaled @ arrays.to_device_like(basis, x, scaled.dtype), xp.float32, copy=False)
        for scaled in _scaled(xp, x, w, weigh_pixels=weigh_pixels)
    ]
    return xp.concat(parts, axis=0)


def leading_directions(
    sample: np.ndarray[Any, Any], size: int, *, w: Float | None = None, weigh_pixels: bool = False
) -> tuple[Float, float]:
    """Compute the directions with the largest power in a sample of pixels, and their fraction of the total power.

    Parameters
    ----------
    sample : array, shape (S, E)
    size : int
        L.
    w, weigh_pixels
        As in `compress`.

    Returns
    -------
    basis : array, shape (E, L)
        Orthonormal; fewer columns if the rank of the sample is lower.
    fraction : float
        Above 0, at most 1.
    """
    scaled = np.concatenate([np.asarray(p, np.float64) for p in _scaled(np, sample, w, weigh_pixels=weigh_pixels)])
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    strong = values > 1e-14 * values[-1]
    kept = values[strong][::-1][:size]
    return np.asarray(vectors[:, strong][:, ::-1][:, :size]), float(kept.sum() / values.sum())


def _scaled(xp: Any, x: arrays.Array, w: Float | None, *, weigh_pixels: bool) -> Any:
    """Yield the strips of ``x`` (P, E) in array library ``xp`` times the roots of their weights, as in `compress`."""
    for _, strip in strips(x):
        scaled = strip if w is None else strip * arrays.to_device_like(np.sqrt(arrays.to_host(w)), x, strip.dtype)
        yield scaled * xp.sqrt(pixel_weight(xp, strip)) if weigh_pixels else scaled
