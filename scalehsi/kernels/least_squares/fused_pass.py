"""One pass of least squares over a block, read once: a few pixels at a time go through both products and the solver.

The tile of pixels stays in cache between ``b = x s'``, the exact solution for its abundances and the sums
``N += c' x``; counts become floats there and nowhere else. Partial sums of a tile are float32 and are added to float64
before they round: over more pixels the objective, a small difference of large sums, would be noise.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi.kernels.pixel_rows.tile_products import add_outer, dots
from scalehsi.kernels.quadratic.block_pivoting import room, solve

TILE_BYTES: Final = 256 * 1024
"""Of a tile as float32, so that it stays in a core's second-level cache."""
MOST: Final = 64
"""Pixels of a tile, at most: over more, float32 sums lose digits."""
READY: Final = frozenset("u1 u2 f4 f8".split())
"""Kinds of data that the pass reads as they are; others are converted slab by slab."""


def tile_rows(n_energies: int) -> int:
    """Pixels of a tile: a multiple of four.

    Examples
    --------
    >>> tile_rows(1024), tile_rows(4096), tile_rows(10**6)
    (64, 16, 4)
    """
    return int(np.clip(TILE_BYTES // (4 * n_energies) // 4 * 4, 4, MOST))


@numba.njit(cache=True, nogil=True)
def read_tile(x: Any, first: int, rows: int, tile: Any) -> None:
    """Copy and convert ``rows`` pixels from ``first`` on; what is left of the tile becomes zero."""
    for p in range(tile.shape[0]):
        if p < rows:
            for e in range(x.shape[1]):
                tile[p, e] = x[first + p, e]
        else:
            tile[p, :] = 0


@numba.njit(cache=True, nogil=True)
def update_pass(
    x: Any, s: Any, kind: int, gram: Any, shift: Any, given: Any, pull: Any, weigh_pixels: int, buffer: Any, big_n: Any,
    big_m: Any, used: Any,
) -> None:  # fmt: skip
    """Add the sums of all pixels of ``x`` (P, E) to ``big_n`` (K, E), ``big_m`` (K, K) and ``used`` (K,), float64.

    s (K, E) holds the endmembers times the weights of the channels, in the dtype of the buffer (T, E), and one row of
    zeros more when K is 1. gram (R, R) and shift (R,) are the problem's, ``b = x s' - shift``, of the first R = K - F
    components; given (P, F) holds the abundances of the others, and pull (F, R) what these take from ``b``.
    weigh_pixels is 0 or 1.
    """
    n = gram.shape[0]
    height = buffer.shape[0]
    a, cv = np.zeros((height, s.shape[0]), buffer.dtype), np.zeros((height, s.shape[0]), buffer.dtype)
    partial = np.empty((s.shape[0], x.shape[1]), buffer.dtype)
    b, c = np.zeros((height, n)), np.zeros((height, n))
    inverses, ones, held = room(n)
    for first in range(0, x.shape[0], height):
        rows = min(height, x.shape[0] - first)
        read_tile(x, first, rows, buffer)
        _tile_sums(
            buffer, rows, s, kind, gram, shift, given[first : first + rows], pull, weigh_pixels, a, b, c, cv, partial,
            inverses, ones, held, big_n, big_m, used,
        )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def update_pass_in_place(
    x: Any, s: Any, kind: int, gram: Any, shift: Any, given: Any, pull: Any, weigh_pixels: int, buffer: Any, big_n: Any,
    big_m: Any, used: Any,
) -> None:  # fmt: skip
    """`update_pass` for an ``x`` of the dtype that is worked in: whole tiles are not copied."""
    n = gram.shape[0]
    height = buffer.shape[0]
    a, cv = np.zeros((height, s.shape[0]), buffer.dtype), np.zeros((height, s.shape[0]), buffer.dtype)
    partial = np.empty((s.shape[0], x.shape[1]), buffer.dtype)
    b, c = np.zeros((height, n)), np.zeros((height, n))
    inverses, ones, held = room(n)
    for first in range(0, x.shape[0], height):
        rows = min(height, x.shape[0] - first)
        tile = buffer
        if rows == height:
            tile = x[first : first + height]
        else:
            read_tile(x, first, rows, buffer)
        _tile_sums(
            tile, rows, s, kind, gram, shift, given[first : first + rows], pull, weigh_pixels, a, b, c, cv, partial,
            inverses, ones, held, big_n, big_m, used,
        )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _tile_sums(
    tile: Any, rows: int, s: Any, kind: int, gram: Any, shift: Any, given: Any, pull: Any, weigh_pixels: int, a: Any,
    b: Any, c: Any, cv: Any, partial: Any, inverses: Any, ones: Any, held: Any, big_n: Any, big_m: Any, used: Any,
) -> None:  # fmt: skip
    sought, known = pull.shape[1], pull.shape[0]
    n = sought + known
    _tile_solve(tile, rows, s, kind, gram, shift, given, pull, a, b, c, inverses, ones, held)
    for p in range(rows):
        v = 1.0
        if weigh_pixels != 0:
            total = 0.0
            for e in range(tile.shape[1]):
                total += tile[p, e]
            # An empty pixel weighs nothing: its residual is zero anyway.
            v = tile.shape[1] / total if total > 0.0 else 0.0
        # Rounded once, and both sums made of the rounded: else the objective would see the difference.
        for k in range(sought):
            a[p, k] = c[p, k]
            cv[p, k] = v * c[p, k]
            used[k] += v * c[p, k]
        for f in range(known):
            a[p, sought + f] = given[p, f]
            cv[p, sought + f] = v * given[p, f]
            used[sought + f] += v * given[p, f]
        for k in range(n):
            for j in range(n):
                big_m[k, j] += np.float64(cv[p, k]) * np.float64(a[p, j])
    cv[rows:] = 0
    partial[:] = 0
    add_outer(tile, cv, partial)
    for k in range(n):
        for e in range(tile.shape[1]):
            big_n[k, e] += partial[k, e]


@numba.njit(cache=True, nogil=True)
def _tile_solve(
    tile: Any, rows: int, s: Any, kind: int, gram: Any, shift: Any, given: Any, pull: Any, a: Any, b: Any, c: Any,
    inverses: Any, ones: Any, held: Any,
) -> None:  # fmt: skip
    n = gram.shape[0]
    dots(tile, s, a)
    for p in range(rows):
        for k in range(n):
            b[p, k] = a[p, k] - shift[k]
    for f in range(pull.shape[0]):
        for p in range(rows):
            for k in range(n):
                b[p, k] -= given[p, f] * pull[f, k]
    solve(kind, gram, b[:rows], c[:rows], inverses, ones, held)


@numba.njit(cache=True, nogil=True)
def abundances_pass(
    x: Any, s: Any, kind: int, gram: Any, shift: Any, given: Any, pull: Any, buffer: Any, out: Any
) -> None:
    """Abundances of all pixels of ``x`` (P, E) into ``out`` (P, K), in the order of `update_pass`."""
    n = gram.shape[0]
    height = buffer.shape[0]
    a = np.zeros((height, s.shape[0]), buffer.dtype)
    b, c = np.zeros((height, n)), np.zeros((height, n))
    inverses, ones, held = room(n)
    for first in range(0, x.shape[0], height):
        rows = min(height, x.shape[0] - first)
        read_tile(x, first, rows, buffer)
        there = given[first : first + rows]
        _tile_solve(buffer, rows, s, kind, gram, shift, there, pull, a, b, c, inverses, ones, held)
        for p in range(rows):
            for k in range(n):
                out[first + p, k] = c[p, k]
            for f in range(pull.shape[0]):
                out[first + p, n + f] = there[p, f]


@numba.njit(cache=True, nogil=True)
def residual_pass(x: Any, c: Any, s: Any, w: Any, weigh_pixels: int, rms: Any, spectrum: Any) -> float:
    """What the model leaves of every pixel: root mean square over channels, sum over pixels, and the loss."""
    loss = 0.0
    for p in range(x.shape[0]):
        square, weighted, total = 0.0, 0.0, 0.0
        for e in range(x.shape[1]):
            value = np.float64(x[p, e])
            rest = value
            for k in range(s.shape[0]):
                rest -= c[p, k] * s[k, e]
            total += value
            square += rest * rest
            weighted += w[e] * rest * rest
            spectrum[e] += rest
        rms[p] = np.sqrt(square / x.shape[1])
        if weigh_pixels != 0:
            weighted = weighted * x.shape[1] / total if total > 0.0 else 0.0
        loss += 0.5 * weighted
    return loss


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def norm_pass(x: Any, w: Any, weigh_pixels: int) -> float:
    """``sum v w x^2`` in float64; sums in any order, or each would wait for the one before (twice a whole pass)."""
    norm = 0.0
    for p in range(x.shape[0]):
        square, total = 0.0, 0.0
        for e in range(x.shape[1]):
            value = np.float64(x[p, e])
            total += value
            square += w[e] * value * value
        if weigh_pixels != 0:
            square = square * x.shape[1] / total if total > 0.0 else 0.0
        norm += square
    return norm
