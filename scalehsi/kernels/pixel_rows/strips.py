"""Work through the rows of a block in strips that fit the processor cache, with the weight of each pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float

STRIP: Final = 256
"""Pixels a strip: its float32 copy stays in cache, and float32 partial sums are added to float64 before they round."""


def strips(x: arrays.Array) -> Iterator[tuple[slice, arrays.Array]]:
    """Give slices of rows and the rows themselves as floats: counts stay integers until here."""
    xp = arrays.array_namespace(x)
    single = x.dtype != xp.float64
    for start in range(0, x.shape[0], STRIP):
        part = slice(start, min(start + STRIP, x.shape[0]))
        yield part, xp.astype(x[part, :], xp.float32, copy=False) if single else x[part, :]


def pixel_weight(xp: Any, strip: arrays.Array) -> arrays.Array:
    """One over the mean of each pixel, shape (P, 1); an empty pixel weighs nothing (its residual is zero anyway)."""
    mean = xp.mean(strip, axis=1, keepdims=True)
    return xp.where(mean > 0, 1 / xp.where(mean > 0, mean, xp.ones_like(mean)), xp.zeros_like(mean))


def given_rows(given: Any, known: Any, rows: int) -> Float:
    """Given abundances as the compiled passes take them, shape (P, F); (P, 0) without any.

    Raises
    ------
    ValueError
        When there are not as many columns as ``known`` has components.
    """
    columns = 0 if known is None else len(known)
    values = np.zeros((rows, 0)) if given is None else arrays.to_host(given)
    if values.shape != (rows, columns):
        raise ValueError(f"given abundances have the shape {values.shape}, {(rows, columns)} is expected")
    return np.ascontiguousarray(values, dtype=np.float64)
