"""Compiled pass of least squares over a block, which reads the data once: tile by tile through products and solver.

A tile of pixels stays in cache for ``b = x s'``, the exact solution for its abundances and the sums ``N += c' x``;
counts are converted to floats only there. Partial sums of a tile are float32 and are then added in float64: float32
sums over more pixels would make the objective, a small difference of large sums, noisy.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numba.np.numpy_support import carray

from scalehsi.kernels.compiled import KINDS, placed, pointer, read_tile
from scalehsi.kernels.pixel_rows.tile_products import add_outer, dots
from scalehsi.kernels.quadratic.block_pivoting import solve, workspace

TILE_BYTES: Final = 256 * 1024
"""Size of a tile as float32, so that it stays in the second-level cache of a core."""
MAX_TILE_PIXELS: Final = 64
"""float32 sums over more pixels lose digits."""
READABLE_DTYPES: Final = frozenset(KINDS)
"""Data types that the pass reads without conversion; others are converted slab by slab."""


def tile_rows(n_energies: int) -> int:
    """Number of pixels of a tile, a multiple of four.

    Examples
    --------
    >>> tile_rows(1024), tile_rows(4096), tile_rows(10**6)
    (64, 16, 4)
    """
    return int(np.clip(TILE_BYTES // (4 * n_energies) // 4 * 4, 4, MAX_TILE_PIXELS))


def update_pass(
    x: Any, s: Any, kind: int, gram: Any, shift: Any, given: Any, known_gram: Any, weigh_pixels: int, buffer: Any,
    big_n: Any, big_m: Any, used: Any,
) -> None:  # fmt: skip
    """Add the sums of all pixels of ``x`` (P, E) to ``big_n`` (K, E), ``big_m`` (K, K) and ``used`` (K,), float64.

    s (K, E) holds the endmembers times the weights of the channels, in the dtype of the buffer (T, E); for K = 1 a row
    of zeros is appended. kind (one of those in `block_pivoting`), gram (R, R), shift (R,) are the problem of the first
    R = K - F components, with ``b = x s' - shift``; given (P, F) holds the abundances of the others, and known_gram
    (F, R) the decrease of ``b`` for a unit of these. weigh_pixels is 0 or 1. Full tiles of an ``x`` in the dtype of the
    buffer are not copied.
    """
    in_place = int(x.dtype == buffer.dtype)
    _update_pass(
        *placed(x), len(x), in_place, s, kind, gram, shift, given, known_gram, weigh_pixels, buffer, big_n, big_m, used
    )


@numba.njit(cache=True, nogil=True)
def _update_pass(
    address: int, row_bytes: int, number_kind: int, pixels: int, in_place: int, s: Any, kind: int, gram: Any,
    shift: Any, given: Any, known_gram: Any, weigh_pixels: int, buffer: Any, big_n: Any, big_m: Any, used: Any,
) -> None:  # fmt: skip
    """`update_pass` of the rows at an address, see `scalehsi.kernels.compiled.placed`; the rest as there."""
    n = gram.shape[0]
    height, channels = buffer.shape
    a, cv = np.zeros((height, s.shape[0]), buffer.dtype), np.zeros((height, s.shape[0]), buffer.dtype)
    partial = np.empty((s.shape[0], channels), buffer.dtype)
    b, c = np.zeros((height, n)), np.zeros((height, n))
    inverses, row_sums, kept_sets = workspace(n)
    for first in range(0, pixels, height):
        rows = min(height, pixels - first)
        tile = buffer
        if in_place != 0 and rows == height:
            tile = carray(pointer(address + first * row_bytes), (height, channels), buffer.dtype)
        else:
            read_tile(address, row_bytes, number_kind, first, rows, buffer)
        _tile_sums(
            tile, rows, s, kind, gram, shift, given[first : first + rows], known_gram, weigh_pixels, a, b, c, cv,
            partial, inverses, row_sums, kept_sets, big_n, big_m, used,
        )  # fmt: skip


@numba.njit(cache=True, nogil=True)
def _tile_sums(
    tile: Any, rows: int, s: Any, kind: int, gram: Any, shift: Any, given: Any, known_gram: Any, weigh_pixels: int,
    a: Any, b: Any, c: Any, cv: Any, partial: Any, inverses: Any, row_sums: Any, kept_sets: Any, big_n: Any, big_m: Any,
    used: Any,
) -> None:  # fmt: skip
    """Add the sums of one tile (T, E), of which the first ``rows`` pixels count.

    a, cv (T, K) in the dtype of the tile, b, c (T, R) and partial (K, E) are buffers; inverses, row_sums and kept_sets
    come from `block_pivoting.workspace`; the rest as in `update_pass`.
    """
    unknown, known = known_gram.shape[1], known_gram.shape[0]
    n = unknown + known
    _tile_solve(tile, rows, s, kind, gram, shift, given, known_gram, a, b, c, inverses, row_sums, kept_sets)
    for p in range(rows):
        v = 1.0
        if weigh_pixels != 0:
            total = 0.0
            for e in range(tile.shape[1]):
                total += tile[p, e]
            # The weight of an empty pixel is zero: its residual is zero anyway.
            v = tile.shape[1] / total if total > 0.0 else 0.0
        # Rounded once, and both sums use the rounded values: a difference between them would appear in the objective.
        for k in range(unknown):
            a[p, k] = c[p, k]
            cv[p, k] = v * c[p, k]
            used[k] += v * c[p, k]
        for f in range(known):
            a[p, unknown + f] = given[p, f]
            cv[p, unknown + f] = v * given[p, f]
            used[unknown + f] += v * given[p, f]
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
    tile: Any, rows: int, s: Any, kind: int, gram: Any, shift: Any, given: Any, known_gram: Any, a: Any, b: Any, c: Any,
    inverses: Any, row_sums: Any, kept_sets: Any,
) -> None:  # fmt: skip
    """Solve the abundances of one tile into ``c`` (T, R); arguments as in `_tile_sums`."""
    n = gram.shape[0]
    dots(tile, s, a)
    for p in range(rows):
        for k in range(n):
            b[p, k] = a[p, k] - shift[k]
    for f in range(known_gram.shape[0]):
        for p in range(rows):
            for k in range(n):
                b[p, k] -= given[p, f] * known_gram[f, k]
    solve(kind, gram, b[:rows], c[:rows], inverses, row_sums, kept_sets)


def abundances_pass(
    x: Any, s: Any, kind: int, gram: Any, shift: Any, given: Any, known_gram: Any, centre: Any, mixing: Any,
    buffer: Any, out: Any,
) -> None:  # fmt: skip
    """Write the abundances of all pixels of ``x`` (P, E) to ``out`` (P, K); arguments as in `update_pass`.

    On the simplex centre (E,) is subtracted from each pixel, s (D, E) is a basis, and mixing (D, K) turns the products
    with it into those of the endmembers, see `pixel_problem.centred`; elsewhere both are empty.
    """
    _abundances_pass(*placed(x), len(x), s, kind, gram, shift, given, known_gram, centre, mixing, buffer, out)


@numba.njit(cache=True, nogil=True)
def _abundances_pass(
    address: int, row_bytes: int, number_kind: int, pixels: int, s: Any, kind: int, gram: Any, shift: Any, given: Any,
    known_gram: Any, centre: Any, mixing: Any, buffer: Any, out: Any,
) -> None:  # fmt: skip
    """`abundances_pass` of the rows at an address, see `scalehsi.kernels.compiled.placed`; the rest as there."""
    n = gram.shape[0]
    height = buffer.shape[0]
    a = np.zeros((height, s.shape[0]), buffer.dtype)
    b, c = np.zeros((height, n)), np.zeros((height, n))
    inverses, row_sums, kept_sets = workspace(n)
    for first in range(0, pixels, height):
        rows = min(height, pixels - first)
        read_tile(address, row_bytes, number_kind, first, rows, buffer)
        tile_given = given[first : first + rows]
        if len(mixing) > 0:
            _subtract(buffer, rows, centre)
            dots(buffer, s, a)
            for p in range(rows):
                for k in range(n):
                    b[p, k] = -shift[k]
                    for d in range(a.shape[1]):
                        b[p, k] += a[p, d] * mixing[d, k]
            solve(kind, gram, b[:rows], c[:rows], inverses, row_sums, kept_sets)
        else:
            _tile_solve(
                buffer, rows, s, kind, gram, shift, tile_given, known_gram, a, b, c, inverses, row_sums, kept_sets
            )
        for p in range(rows):
            for k in range(n):
                out[first + p, k] = c[p, k]
            for f in range(known_gram.shape[0]):
                out[first + p, n + f] = tile_given[p, f]


@numba.njit(cache=True, nogil=True)
def _subtract(x: Any, rows: int, centre: Any) -> None:
    """Subtract centre (E,) from the first rows of x (T, E)."""
    for p in range(rows):
        for e in range(x.shape[1]):
            x[p, e] -= centre[e]


def residual_pass(x: Any, c: Any, s: Any, w: Any, weigh_pixels: int, rms: Any, spectrum: Any) -> float:
    """Residuals ``x - c s``: return the loss, write the root mean square over channels, add the sum over pixels.

    x (P, E), c (P, K), s (K, E); w (E,) are the weights of the channels and weigh_pixels is 0 or 1, for the loss only;
    rms (P,) and spectrum (E,) are output.
    """
    row = np.empty((1, x.shape[1]))
    return float(_residual_pass(*placed(x), len(x), row, c, s, w, weigh_pixels, rms, spectrum))


@numba.njit(cache=True, nogil=True)
def _residual_pass(
    address: int, row_bytes: int, number_kind: int, pixels: int, row: Any, c: Any, s: Any, w: Any, weigh_pixels: int,
    rms: Any, spectrum: Any,
) -> float:  # fmt: skip
    """`residual_pass` of the rows at an address, see `scalehsi.kernels.compiled.placed`; row (1, E) is a buffer."""
    loss = 0.0
    for p in range(pixels):
        square, weighted, total = 0.0, 0.0, 0.0
        read_tile(address, row_bytes, number_kind, p, 1, row)
        for e in range(row.shape[1]):
            value = row[0, e]
            residual = value
            for k in range(s.shape[0]):
                residual -= c[p, k] * s[k, e]
            total += value
            square += residual * residual
            weighted += w[e] * residual * residual
            spectrum[e] += residual
        rms[p] = np.sqrt(square / row.shape[1])
        if weigh_pixels != 0:
            weighted = weighted * row.shape[1] / total if total > 0.0 else 0.0
        loss += 0.5 * weighted
    return loss


def norm_pass(x: Any, w: Any, weigh_pixels: int) -> float:
    """Return ``sum v w x^2`` in float64: x (P, E), w (E,) weights of the channels, weigh_pixels 0 or 1."""
    return float(_norm_pass(*placed(x), len(x), np.empty((1, x.shape[1])), w, weigh_pixels))


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _norm_pass(
    address: int, row_bytes: int, number_kind: int, pixels: int, row: Any, w: Any, weigh_pixels: int
) -> float:
    """`norm_pass` of the rows at an address, see `scalehsi.kernels.compiled.placed`; row (1, E) is a buffer.

    The order of the sums is free; in a fixed order each addition waits for the previous one, at twice the cost of a
    whole pass.
    """
    norm = 0.0
    for p in range(pixels):
        square, total = 0.0, 0.0
        read_tile(address, row_bytes, number_kind, p, 1, row)
        for e in range(row.shape[1]):
            value = row[0, e]
            total += value
            square += w[e] * value * value
        if weigh_pixels != 0:
            square = square * row.shape[1] / total if total > 0.0 else 0.0
        norm += square
    return norm
