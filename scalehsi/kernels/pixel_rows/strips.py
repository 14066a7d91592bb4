"""Strips of rows of a block that fit the processor cache; sums over them, pixel weights, and known abundances."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float

PIXELS_PER_STRIP: Final = 256
"""The float32 copy of a strip stays in cache, and float32 partial sums are added to float64 before they round."""


def strips(x: arrays.Array) -> Iterator[tuple[slice, arrays.Array]]:
    """Yield slices of rows and these rows as floats; integer counts are converted here, not before."""
    xp = arrays.array_namespace(x)
    single = x.dtype != xp.float64
    for start in range(0, x.shape[0], PIXELS_PER_STRIP):
        part = slice(start, min(start + PIXELS_PER_STRIP, x.shape[0]))
        yield part, xp.astype(x[part, :], xp.float32, copy=False) if single else x[part, :]


def add_sums(total: dict[str, Any], parts: dict[str, Any]) -> None:
    """Add the sums of a strip to those of its block, ``total``, in float64 on the host."""
    for key, value in parts.items():
        host = arrays.to_host(value).astype(np.float64)
        total[key] = total[key] + host if key in total else host


def pixel_weight(xp: Any, strip: arrays.Array) -> arrays.Array:
    """One over the mean of each pixel, shape (P, 1); zero for an empty pixel, whose residual is zero anyway."""
    mean = xp.mean(strip, axis=1, keepdims=True)
    return xp.where(mean > 0, 1 / xp.where(mean > 0, mean, xp.ones_like(mean)), xp.zeros_like(mean))


def given_rows(given: Any, known: Any, rows: int) -> Float:
    """Given abundances as the compiled passes take them, shape (P, F); (P, 0) without any.

    Parameters
    ----------
    given : array, shape (P, F), or None
        Abundances of the components ``known``.
    known : sequence of int, shape (F,), or None
        Numbers of the components whose abundances are given.
    rows : int
        P.

    Raises
    ------
    ValueError
        When the number of columns is not the number of components in ``known``.
    """
    columns = 0 if known is None else len(known)
    values = np.zeros((rows, 0)) if given is None else arrays.to_host(given)
    if values.shape != (rows, columns):
        raise ValueError(f"given abundances have the shape {values.shape}, {(rows, columns)} is expected")
    return np.ascontiguousarray(values, dtype=np.float64)
