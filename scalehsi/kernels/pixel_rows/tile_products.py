"""Matrix products ``x s'`` and ``c' x`` of a tile of pixels in cache, for passes of least squares.

BLAS is slow here because K is small: it copies ``x`` before it multiplies, and reaches a fifth of the memory bandwidth.
These loops process 4 pixels by 2, 3 or 4 components at a time, so that every number loaded is used several times while
it is in a register.
"""

from __future__ import annotations

from typing import Any

import numba

from scalehsi.kernels.compiled import FAST_SUMS


@numba.njit(cache=True, nogil=True, fastmath=FAST_SUMS)
def dots(x: Any, s: Any, out: Any) -> None:
    """Compute ``out = x s'``: x (P, E), s (K, E), out (P, K). P must be a multiple of 4, K at least 2."""
    n = s.shape[0]
    for p in range(0, x.shape[0], 4):
        k = 0
        while n - k >= 4 and n - k != 5:
            _dots4(x, p, s, k, out)
            k += 4
        if n - k == 5 or n - k == 3:
            _dots3(x, p, s, k, out)
            k += 3
        if n - k == 2:
            _dots2(x, p, s, k, out)


@numba.njit(cache=True, nogil=True, fastmath=FAST_SUMS)
def add_outer(x: Any, c: Any, total: Any) -> None:
    """Add ``total += c' x``: x (P, E), c (P, K), total (K, E). P must be a multiple of 4, K at least 2."""
    n = c.shape[1]
    for p in range(0, x.shape[0], 4):
        k = 0
        while n - k >= 4 and n - k != 5:
            _outer4(x, p, c, k, total)
            k += 4
        if n - k == 5 or n - k == 3:
            _outer3(x, p, c, k, total)
            k += 3
        if n - k == 2:
            _outer2(x, p, c, k, total)


@numba.njit(cache=True, nogil=True, fastmath=FAST_SUMS)
def _dots4(x: Any, p: int, s: Any, k: int, out: Any) -> None:
    """Part of `dots` for four pixels from p on and four components from k on; arrays as there."""
    x0, x1, x2, x3 = x[p], x[p + 1], x[p + 2], x[p + 3]
    s0, s1, s2, s3 = s[k], s[k + 1], s[k + 2], s[k + 3]
    zero = x.dtype.type(0)
    a00 = a01 = a02 = a03 = a10 = a11 = a12 = a13 = zero
    a20 = a21 = a22 = a23 = a30 = a31 = a32 = a33 = zero
    for e in range(x.shape[1]):
        u0, u1, u2, u3 = x0[e], x1[e], x2[e], x3[e]
        v = s0[e]
        a00, a10, a20, a30 = a00 + u0 * v, a10 + u1 * v, a20 + u2 * v, a30 + u3 * v
        v = s1[e]
        a01, a11, a21, a31 = a01 + u0 * v, a11 + u1 * v, a21 + u2 * v, a31 + u3 * v
        v = s2[e]
        a02, a12, a22, a32 = a02 + u0 * v, a12 + u1 * v, a22 + u2 * v, a32 + u3 * v
        v = s3[e]
        a03, a13, a23, a33 = a03 + u0 * v, a13 + u1 * v, a23 + u2 * v, a33 + u3 * v
    out[p, k], out[p, k + 1], out[p, k + 2], out[p, k + 3] = a00, a01, a02, a03
    out[p + 1, k], out[p + 1, k + 1], out[p + 1, k + 2], out[p + 1, k + 3] = a10, a11, a12, a13
    out[p + 2, k], out[p + 2, k + 1], out[p + 2, k + 2], out[p + 2, k + 3] = a20, a21, a22, a23
    out[p + 3, k], out[p + 3, k + 1], out[p + 3, k + 2], out[p + 3, k + 3] = a30, a31, a32, a33


@numba.njit(cache=True, nogil=True, fastmath=FAST_SUMS)
def _dots3(x: Any, p: int, s: Any, k: int, out: Any) -> None:
    """Part of `dots` for four pixels from p on and three components from k on; arrays as there."""
    x0, x1, x2, x3 = x[p], x[p + 1], x[p + 2], x[p + 3]
    s0, s1, s2 = s[k], s[k + 1], s[k + 2]
    zero = x.dtype.type(0)
    a00 = a01 = a02 = a10 = a11 = a12 = zero
    a20 = a21 = a22 = a30 = a31 = a32 = zero
    for e in range(x.shape[1]):
        u0, u1, u2, u3 = x0[e], x1[e], x2[e], x3[e]
        v = s0[e]
        a00, a10, a20, a30 = a00 + u0 * v, a10 + u1 * v, a20 + u2 * v, a30 + u3 * v
        v = s1[e]
        a01, a11, a21, a31 = a01 + u0 * v, a11 + u1 * v, a21 + u2 * v, a31 + u3 * v
        v = s2[e]
        a02, a12, a22, a32 = a02 + u0 * v, a12 + u1 * v, a22 + u2 * v, a32 + u3 * v
    out[p, k], out[p, k + 1], out[p, k + 2] = a00, a01, a02
    out[p + 1, k], out[p + 1, k + 1], out[p + 1, k + 2] = a10, a11, a12
    out[p + 2, k], out[p + 2, k + 1], out[p + 2, k + 2] = a20, a21, a22
    out[p + 3, k], out[p + 3, k + 1], out[p + 3, k + 2] = a30, a31, a32


@numba.njit(cache=True, nogil=True, fastmath=FAST_SUMS)
def _dots2(x: Any, p: int, s: Any, k: int, out: Any) -> None:
    """Part of `dots` for four pixels from p on and two components from k on; arrays as there."""
    x0, x1, x2, x3 = x[p], x[p + 1], x[p + 2], x[p + 3]
    s0, s1 = s[k], s[k + 1]
    zero = x.dtype.type(0)
    a00 = a01 = a10 = a11 = a20 = a21 = a30 = a31 = zero
    for e in range(x.shape[1]):
        u0, u1, u2, u3 = x0[e], x1[e], x2[e], x3[e]
        v = s0[e]
        a00, a10, a20, a30 = a00 + u0 * v, a10 + u1 * v, a20 + u2 * v, a30 + u3 * v
        v = s1[e]
        a01, a11, a21, a31 = a01 + u0 * v, a11 + u1 * v, a21 + u2 * v, a31 + u3 * v
    out[p, k], out[p, k + 1], out[p + 1, k], out[p + 1, k + 1] = a00, a01, a10, a11
    out[p + 2, k], out[p + 2, k + 1], out[p + 3, k], out[p + 3, k + 1] = a20, a21, a30, a31


@numba.njit(cache=True, nogil=True, fastmath=FAST_SUMS)
def _outer4(x: Any, p: int, c: Any, k: int, total: Any) -> None:
    """Part of `add_outer` for four pixels from p on and four components from k on; arrays as there."""
    x0, x1, x2, x3 = x[p], x[p + 1], x[p + 2], x[p + 3]
    t0, t1, t2, t3 = total[k], total[k + 1], total[k + 2], total[k + 3]
    c00, c01, c02, c03 = c[p, k], c[p, k + 1], c[p, k + 2], c[p, k + 3]
    c10, c11, c12, c13 = c[p + 1, k], c[p + 1, k + 1], c[p + 1, k + 2], c[p + 1, k + 3]
    c20, c21, c22, c23 = c[p + 2, k], c[p + 2, k + 1], c[p + 2, k + 2], c[p + 2, k + 3]
    c30, c31, c32, c33 = c[p + 3, k], c[p + 3, k + 1], c[p + 3, k + 2], c[p + 3, k + 3]
    for e in range(x.shape[1]):
        u0, u1, u2, u3 = x0[e], x1[e], x2[e], x3[e]
        t0[e] += u0 * c00 + u1 * c10 + u2 * c20 + u3 * c30
        t1[e] += u0 * c01 + u1 * c11 + u2 * c21 + u3 * c31
        t2[e] += u0 * c02 + u1 * c12 + u2 * c22 + u3 * c32
        t3[e] += u0 * c03 + u1 * c13 + u2 * c23 + u3 * c33


@numba.njit(cache=True, nogil=True, fastmath=FAST_SUMS)
def _outer3(x: Any, p: int, c: Any, k: int, total: Any) -> None:
    """Part of `add_outer` for four pixels from p on and three components from k on; arrays as there."""
    x0, x1, x2, x3 = x[p], x[p + 1], x[p + 2], x[p + 3]
    t0, t1, t2 = total[k], total[k + 1], total[k + 2]
    c00, c01, c02 = c[p, k], c[p, k + 1], c[p, k + 2]
    c10, c11, c12 = c[p + 1, k], c[p + 1, k + 1], c[p + 1, k + 2]
    c20, c21, c22 = c[p + 2, k], c[p + 2, k + 1], c[p + 2, k + 2]
    c30, c31, c32 = c[p + 3, k], c[p + 3, k + 1], c[p + 3, k + 2]
    for e in range(x.shape[1]):
        u0, u1, u2, u3 = x0[e], x1[e], x2[e], x3[e]
        t0[e] += u0 * c00 + u1 * c10 + u2 * c20 + u3 * c30
        t1[e] += u0 * c01 + u1 * c11 + u2 * c21 + u3 * c31
        t2[e] += u0 * c02 + u1 * c12 + u2 * c22 + u3 * c32


@numba.njit(cache=True, nogil=True, fastmath=FAST_SUMS)
def _outer2(x: Any, p: int, c: Any, k: int, total: Any) -> None:
    """Part of `add_outer` for four pixels from p on and two components from k on; arrays as there."""
    x0, x1, x2, x3 = x[p], x[p + 1], x[p + 2], x[p + 3]
    t0, t1 = total[k], total[k + 1]
    c00, c01, c10, c11 = c[p, k], c[p, k + 1], c[p + 1, k], c[p + 1, k + 1]
    c20, c21, c30, c31 = c[p + 2, k], c[p + 2, k + 1], c[p + 3, k], c[p + 3, k + 1]
    for e in range(x.shape[1]):
        u0, u1, u2, u3 = x0[e], x1[e], x2[e], x3[e]
        t0[e] += u0 * c00 + u1 * c10 + u2 * c20 + u3 * c30
        t1[e] += u0 * c01 + u1 * c11 + u2 * c21 + u3 * c31
