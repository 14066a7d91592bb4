"""Evaluate the Poisson likelihood of one pixel, its gradient and its Hessian, over the channels that hold counts.

The endmembers at these m channels are copied once per pixel into ``g (K, m)``, in which the channels of one component
are contiguous, so that a vector register takes eight of them. K is padded with empty components to 4 or to an even
number, and m with empty channels to a multiple of 16, so that no loop has a remainder. Up to K = 4, the most frequent
case, one sweep computes the model, its gradient and its Hessian. Beyond, there is one sweep for the model and one for
each tile of the Hessian.

Letters: c abundances (K,), y model (m,), r = x / y, q = x / y^2.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.compiled import add_row, inlined, inlined_sums, lean_sums, padded_width

MIN_MODEL: Final = 1e-140
"""Smallest value of the model: the inverse of its square is still finite."""
CHANNEL_PAD: Final = 16
"""The number of channels is padded to a multiple of this: two of the widest registers, which the compiler uses in
pairs."""
MANTISSA_MASK: Final = (1 << 52) - 1
ROOT_HALF_BITS: Final = 0x3FE6A09E667F3BCD
"""Bits of the square root of one half, the lower end of the range of mantissas in a logarithm."""
LN2: Final = 0.6931471805599453


def padded_components(n: int) -> int:
    """Number of components, empty ones included, that the loops need for K = n."""
    return 4 if n <= 4 else n + n % 2


def pad_columns(st: Float, n: int) -> Float:
    """Append empty columns to the endmembers ``st`` (E, K), up to the number that the loops need for n components."""
    wide = np.zeros((st.shape[0], padded_components(n)))
    wide[:, : st.shape[1]] = st
    return wide


def table_width(n: int) -> int:
    """Columns of the table (E, columns) of Hessians per channel: the lower triangle, padded to whole registers."""
    return padded_width(n * (n + 1) // 2)


def gradient_sums(big_h: Float, st: Float) -> Float:
    """Compute the sums N (E, K) from the sums ``big_h`` (E, K (K + 1) / 2) and the endmembers ``st`` (E, K).

    N need not be accumulated: ``sum_p c_k x / y = sum_j H_kj s_j``, as ``y = sum_j c_j s_j``, and no term is negative.
    """
    n = st.shape[1]
    big_n = np.zeros_like(st)
    index = 0
    for k in range(n):
        for j in range(k + 1):
            big_n[:, k] += big_h[:, index] * st[:, j]
            if j < k:
                big_n[:, j] += big_h[:, index] * st[:, k]
            index += 1
    return big_n


@inlined
def gather(st: Any, channel: Any, value: Any, first: int, last: int, g: Any, x: Any) -> tuple[int, float]:
    """Copy the endmembers and counts at the filled channels of a pixel; return m and the sum of the counts.

    st (E, K or more): endmembers. channel, value: the filled channels of all pixels; those of this pixel lie from
    ``first`` to ``last``. g (K, m or more), x (m or more): the output.
    """
    n, wide = st.shape[1], g.shape[0]
    filled = last - first
    m = -(-filled // CHANNEL_PAD) * CHANNEL_PAD
    total = 0.0
    if wide == 4:
        for i in range(filled):
            e = channel[first + i]
            g[0, i], g[1, i], g[2, i], g[3, i] = st[e, 0], st[e, 1], st[e, 2], st[e, 3]
    else:
        for i in range(filled):
            e = channel[first + i]
            for k in range(n):
                g[k, i] = st[e, k]
    for i in range(filled):
        x[i] = value[first + i]
        total += x[i]
    for i in range(filled, m):
        x[i] = 0.0  # values of an earlier pixel in g then have no effect
    return m, total


@inlined_sums
def model(g: Any, c: Any, m: int, y: Any) -> None:
    """Write ``y = c g``, at least MIN_MODEL, for m channels."""
    for i in range(m):
        y[i] = 0.0
    for k in range(c.shape[0]):
        abundance = c[k]
        if abundance == 0.0:
            continue
        for i in range(m):
            y[i] += abundance * g[k, i]
    for i in range(m):
        y[i] = y[i] if y[i] > MIN_MODEL else MIN_MODEL


@inlined_sums
def weights(x: Any, y: Any, m: int, r: Any, q: Any) -> None:
    """Write ``r = x / y`` and ``q = x / y^2`` for m channels."""
    for i in range(m):
        inverse = 1.0 / y[i]
        r[i] = x[i] * inverse
        q[i] = r[i] * inverse


@lean_sums
def projection(g: Any, r: Any, m: int, out: Any) -> None:
    """Write ``out_k = sum g_k r``, summed over m channels."""
    for k in range(0, g.shape[0], 2):
        a0 = a1 = 0.0
        for i in range(m):
            a0 += r[i] * g[k, i]
            a1 += r[i] * g[k + 1, i]
        out[k], out[k + 1] = a0, a1


@inlined
def slope(g: Any, x: Any, c: Any, m: int, y: Any, r: Any, q: Any, gradient: Any) -> None:
    """Write ``gradient_k = sum r g_k`` at ``c``; y, r and q (m or more) are workspace."""
    if g.shape[0] == 4:
        _slope4(g, x, c, m, gradient)
    else:
        model(g, c, m, y)
        weights(x, y, m, r, q)
        projection(g, r, m, gradient)


@inlined
def derivatives(g: Any, x: Any, c: Any, m: int, y: Any, r: Any, q: Any, gradient: Any, hessian: Any) -> None:
    """Write ``gradient_k = sum r g_k`` and ``hessian = sum q g g'`` (lower triangle) from one evaluation of the model.

    y, r and q (m or more) are workspace.
    """
    wide = g.shape[0]
    if wide == 4:
        _derivatives4(g, x, c, m, gradient, hessian)
    else:
        model(g, c, m, y)
        weights(x, y, m, r, q)
        projection(g, r, m, gradient)
        for k in range(0, wide, 2):
            _corner(g, k, q, m, hessian)
            j = 0
            while j + 4 <= k:
                _tile4(g, k, j, q, m, hessian)
                j += 4
            if j < k:
                _tile2(g, k, j, q, m, hessian)


@inlined_sums
def _slope4(g: Any, x: Any, c: Any, m: int, gradient: Any) -> None:
    """`slope` for up to four components, in registers."""
    c0, c1, c2, c3 = c[0], c[1], c[2], c[3]
    a0 = a1 = a2 = a3 = 0.0
    for i in range(m):
        u0, u1, u2, u3 = g[0, i], g[1, i], g[2, i], g[3, i]
        y = c0 * u0 + c1 * u1 + c2 * u2 + c3 * u3
        y = y if y > MIN_MODEL else MIN_MODEL
        r = x[i] / y
        a0, a1, a2, a3 = a0 + r * u0, a1 + r * u1, a2 + r * u2, a3 + r * u3
    gradient[0], gradient[1], gradient[2], gradient[3] = a0, a1, a2, a3


@inlined_sums
def _derivatives4(g: Any, x: Any, c: Any, m: int, gradient: Any, hessian: Any) -> None:
    """`derivatives` for up to four components, in registers."""
    c0, c1, c2, c3 = c[0], c[1], c[2], c[3]
    a0 = a1 = a2 = a3 = 0.0
    h00 = h10 = h11 = h20 = h21 = h22 = h30 = h31 = h32 = h33 = 0.0
    for i in range(m):
        u0, u1, u2, u3 = g[0, i], g[1, i], g[2, i], g[3, i]
        y = c0 * u0 + c1 * u1 + c2 * u2 + c3 * u3
        y = y if y > MIN_MODEL else MIN_MODEL
        inverse = 1.0 / y
        r = x[i] * inverse
        a0, a1, a2, a3 = a0 + r * u0, a1 + r * u1, a2 + r * u2, a3 + r * u3
        q = r * inverse
        w0, w1, w2, w3 = q * u0, q * u1, q * u2, q * u3
        h00 += w0 * u0
        h10, h11 = h10 + w1 * u0, h11 + w1 * u1
        h20, h21, h22 = h20 + w2 * u0, h21 + w2 * u1, h22 + w2 * u2
        h30, h31, h32, h33 = h30 + w3 * u0, h31 + w3 * u1, h32 + w3 * u2, h33 + w3 * u3
    gradient[0], gradient[1], gradient[2], gradient[3] = a0, a1, a2, a3
    hessian[0, 0] = h00
    hessian[1, 0], hessian[1, 1] = h10, h11
    hessian[2, 0], hessian[2, 1], hessian[2, 2] = h20, h21, h22
    hessian[3, 0], hessian[3, 1], hessian[3, 2], hessian[3, 3] = h30, h31, h32, h33


@lean_sums
def _corner(g: Any, k: int, q: Any, m: int, hessian: Any) -> None:
    """Write the two rows and columns of the Hessian on its diagonal that begin at k."""
    h00 = h10 = h11 = 0.0
    for i in range(m):
        u0, u1 = g[k, i], g[k + 1, i]
        w1 = q[i] * u1
        h00, h10, h11 = h00 + q[i] * u0 * u0, h10 + w1 * u0, h11 + w1 * u1
    hessian[k, k], hessian[k + 1, k], hessian[k + 1, k + 1] = h00, h10, h11


@lean_sums
def _tile4(g: Any, k: int, j: int, q: Any, m: int, hessian: Any) -> None:
    """Write two rows of the Hessian from k and four columns from j."""
    h00 = h01 = h02 = h03 = h10 = h11 = h12 = h13 = 0.0
    for i in range(m):
        w0, w1 = q[i] * g[k, i], q[i] * g[k + 1, i]
        u0, u1, u2, u3 = g[j, i], g[j + 1, i], g[j + 2, i], g[j + 3, i]
        h00, h01, h02, h03 = h00 + w0 * u0, h01 + w0 * u1, h02 + w0 * u2, h03 + w0 * u3
        h10, h11, h12, h13 = h10 + w1 * u0, h11 + w1 * u1, h12 + w1 * u2, h13 + w1 * u3
    hessian[k, j], hessian[k, j + 1], hessian[k, j + 2], hessian[k, j + 3] = h00, h01, h02, h03
    hessian[k + 1, j], hessian[k + 1, j + 1], hessian[k + 1, j + 2], hessian[k + 1, j + 3] = h10, h11, h12, h13


@lean_sums
def _tile2(g: Any, k: int, j: int, q: Any, m: int, hessian: Any) -> None:
    """Write two rows of the Hessian from k and two columns from j."""
    h00 = h01 = h10 = h11 = 0.0
    for i in range(m):
        w0, w1 = q[i] * g[k, i], q[i] * g[k + 1, i]
        u0, u1 = g[j, i], g[j + 1, i]
        h00, h01, h10, h11 = h00 + w0 * u0, h01 + w0 * u1, h10 + w1 * u0, h11 + w1 * u1
    hessian[k, j], hessian[k, j + 1], hessian[k + 1, j], hessian[k + 1, j + 1] = h00, h01, h10, h11


@inlined_sums
def log_likelihood(x: Any, bits: Any, m: int, exponent: Any, mantissa: Any, mantissa_bits: Any) -> float:
    """Sum ``x log y`` over m channels.

    bits: y, seen as integers. exponent, mantissa and ``mantissa_bits`` (the same memory, seen as integers) are
    workspace. The compiler has no logarithm for vector registers. This one splits y into ``2^e z`` with z between the
    roots of one half and of two, and sums the series of the inverse hyperbolic tangent of ``(z - 1) / (z + 1)``. The
    error is a bit or two.
    """
    for i in range(m):
        shifted = bits[i] - ROOT_HALF_BITS
        exponent[i] = float(shifted >> 52)
        mantissa_bits[i] = (shifted & MANTISSA_MASK) + ROOT_HALF_BITS
    total = 0.0
    for i in range(m):
        f = mantissa[i] - 1.0
        t = f / (2.0 + f)
        w = t * t
        tail = 1 / 15 + w * (1 / 17 + w * (1 / 19 + w * (1 / 21)))
        tail = w * (1 / 3 + w * (1 / 5 + w * (1 / 7 + w * (1 / 9 + w * (1 / 11 + w * (1 / 13 + w * tail))))))
        # f - t (f - 2 tail) is 2 t (1 + tail) with the leading term kept exact.
        total += x[i] * (exponent[i] * LN2 + (f - t * (f - 2.0 * tail)))
    return total


@inlined
def scatter(table: Any, channel: Any, first: int, last: int, weight: Any, row: Any) -> None:
    """Add ``weight_i row`` to the row of the table (E, width) of each filled channel of a pixel, from first to last."""
    for i in range(last - first):
        add_row(table, channel[first + i], weight[i], row)


@inlined
def scatter_hessian(table: Any, channel: Any, first: int, last: int, q: Any, c: Any, n: int, products: Any) -> None:
    """Add ``q_i c c'`` (lower triangle) of a pixel of n components to the table; products (width,) is workspace."""
    index = 0
    for k in range(n):
        for j in range(k + 1):
            products[index] = c[k] * c[j]
            index += 1
    scatter(table, channel, first, last, q, products)
