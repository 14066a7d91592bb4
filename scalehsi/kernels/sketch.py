"""Few numbers a pixel in place of its spectrum: the part of the data that a small basis of spectra spans.

``x ~ b q'`` with ``q`` (E, L) orthonormal and ``b = x q`` (P, L). Noise is spread over all E directions and signal over
few, so L of two or three times K keeps what a factorisation can see (Halko, Martinsson and Tropp 2011,
doi:10.1137/090771806).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scalehsi import arrays
from scalehsi.kernels.frobenius import pixel_weight, strips

Float = np.ndarray[Any, np.dtype[np.float64]]


def power(
    x: arrays.Array, *, basis: Float, w: Float | None = None, weigh_pixels: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One step of subspace iteration: ``x' (x basis)``, which turns a basis towards the strongest directions.

    Parameters
    ----------
    x : array, shape (P, E)
    basis : array, shape (E, L)
    w : array, shape (E,), optional
        Weight of each channel; ``x`` is taken times its root.
    weigh_pixels : bool
        Divide by the root of the mean of each pixel.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``turned`` (E, L) and ``norm``, the sum of the squares of the weighted data.
    """
    xp = arrays.array_namespace(x)
    total: dict[str, Any] = {}
    for scaled in _scaled(xp, x, w, weigh_pixels=weigh_pixels):
        parts = {
            "turned": xp.matrix_transpose(scaled) @ (scaled @ arrays.to_device_like(basis, x, scaled.dtype)),
            "norm": xp.sum(scaled * scaled, dtype=xp.float64),
        }
        for key, value in parts.items():
            host = arrays.to_host(value).astype(np.float64)
            total[key] = host if key not in total else total[key] + host
    return {}, total


def compress(x: arrays.Array, *, basis: Float, w: Float | None = None, weigh_pixels: bool = False) -> arrays.Array:
    """``b = x basis``, shape (P, L), float32; arguments as in `power`."""
    xp = arrays.array_namespace(x)
    parts = [
        xp.astype(scaled @ arrays.to_device_like(basis, x, scaled.dtype), xp.float32, copy=False)
        for scaled in _scaled(xp, x, w, weigh_pixels=weigh_pixels)
    ]
    return xp.concat(parts, axis=0)


def first_basis(
    sample: np.ndarray[Any, Any], size: int, *, w: Float | None = None, weigh_pixels: bool = False
) -> Float:
    """The strongest directions of a sample of pixels, shape (E, L), orthonormal; L is at most its rank."""
    scaled = np.concatenate(
        [np.asarray(part, dtype=np.float64) for part in _scaled(np, sample, w, weigh_pixels=weigh_pixels)]
    )
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    strong = values > 1e-14 * values[-1]
    return np.asarray(vectors[:, strong][:, ::-1][:, :size])


def orthonormal(turned: Float) -> Float:
    """An orthonormal basis of the columns, shape (E, L); what rounding alone made is left out."""
    left, sizes, _ = np.linalg.svd(turned, full_matrices=False)
    return np.asarray(left[:, sizes > 1e-12 * sizes[0]])


def _scaled(xp: Any, x: arrays.Array, w: Float | None, *, weigh_pixels: bool) -> Any:
    for _, strip in strips(x):
        scaled = strip if w is None else strip * arrays.to_device_like(np.sqrt(arrays.to_host(w)), x, strip.dtype)
        yield scaled * xp.sqrt(pixel_weight(xp, strip)) if weigh_pixels else scaled
