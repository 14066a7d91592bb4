"""The abundances of one pixel after the other by the Poisson likelihood: expectation maximisation, then Newton.

Minimised is ``sum_k (l_k c_k + ridge_k c_k^2 / 2) - sum_e x_e log (c s)_e`` over ``c >= 0``, where ``l`` is the sum of
each endmember, more where a prior asks for sparsity; or over the simplex, ``sum c = 1`` too. The quadratic model of a
Newton step is solved exactly, see `scalehsi.kernels.poisson.pixel_steps`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np

from scalehsi.kernels.compiled import inlined, lean, lean_sums
from scalehsi.kernels.poisson.channel_loops import (
    DARK,
    derivatives,
    gather,
    log_likelihood,
    model,
    scatter,
    slope,
    weights,
)
from scalehsi.kernels.poisson.pixel_steps import Step, maximise, quadratic, quadratic4, step_room

EM_STEPS: Final = 3
NEWTON_STEPS: Final = 24
HALVINGS: Final = 40
PAST: Final = 0.5
"""A step may end where the objective rises along it by at most so much of the slope that it began with."""
DECREMENT: Final = 1e-10
"""Newton stops when the predicted gain, relative to the counts of the pixel, is below this."""
RIDGE: Final = 1e-10
"""Added to the diagonal relative to itself: equal endmembers do not break the solution of the quadratic model."""


class Pixel(NamedTuple):
    """Room for one pixel: what `scalehsi.kernels.poisson.channel_loops` works on, by filled channel."""

    g: Any
    x: Any
    y: Any
    r: Any
    q: Any
    along: Any
    bits: Any
    mantissa: Any
    mantissa_bits: Any


@numba.njit(cache=True, nogil=True)
def room(indptr: Any, n: int, wide: int) -> tuple[Pixel, Step]:
    """Room for the longest row, and for steps in K components."""
    longest = 0
    for p in range(indptr.shape[0] - 1):
        longest = max(longest, indptr[p + 1] - indptr[p])
    m = longest + 16
    y, mantissa = np.empty(m), np.empty(m)
    pixel = Pixel(
        np.zeros((wide, m)),
        np.empty(m),
        y,
        np.empty(m),
        np.empty(m),
        np.empty(m),
        y.view(np.int64),
        mantissa,
        mantissa.view(np.int64),
    )
    return pixel, step_room(n, wide)


@numba.njit(cache=True, nogil=True)
def solve_rows(
    indptr: Any,
    channel: Any,
    value: Any,
    st: Any,
    linear: Any,
    ridge: Any,
    simplex: int,
    c: Any,
    table: Any,
    sums: Any,
) -> None:
    """Abundances of a strip into ``c`` (P, K), and what they add to the sums.

    indptr, channel, value: rows as `scalehsi.kernels.pixel_rows.sparse_counts.strips` gives them. st (E, wide):
    endmembers, with empty
    ones up to `padded`. linear (P, K), or (1, K) for all pixels. ridge (K,). simplex: 0 or 1. table
    (E, `table_width`), or (0, width) for none. sums (1 + 2 K,): the likelihood, the sums of c and of its square are
    added.
    """
    n = linear.shape[1]
    pixel, step = room(indptr, n, st.shape[1])
    cost, shares = np.empty(n), np.zeros(table.shape[1])
    for p in range(c.shape[0]):
        first, last = indptr[p], indptr[p + 1]
        for k in range(n):
            cost[k] = linear[min(p, linear.shape[0] - 1), k]
        m = _solve(pixel, step, st, channel, value, first, last, cost, ridge, simplex)
        _add(pixel, step, m, c, p, sums)
        if table.shape[0] > 0 and m > 0:
            weights(pixel.x, pixel.y, m, pixel.r, pixel.q)
            index = 0
            for k in range(n):
                for j in range(k + 1):
                    shares[index] = step.now[k] * step.now[j]
                    index += 1
            scatter(table, channel, first, last, pixel.q, shares)


@numba.njit(cache=True, nogil=True)
def multiply_rows(
    indptr: Any,
    channel: Any,
    value: Any,
    st: Any,
    linear: Any,
    ridge: Any,
    c: Any,
    table: Any,
    sums: Any,
) -> None:
    """One multiplicative update of ``c`` (P, K) in place; then N into ``table`` (E, K or more), and sums as above."""
    n = linear.shape[0]
    pixel, step = room(indptr, n, st.shape[1])
    shares = np.zeros(table.shape[1])
    for p in range(c.shape[0]):
        first, last = indptr[p], indptr[p + 1]
        m, _ = gather(st, channel, value, first, last, pixel.g, pixel.x)
        for k in range(n):
            step.now[k] = c[p, k]
        slope(pixel.g, pixel.x, step.now, m, pixel.y, pixel.r, pixel.q, step.gradient)
        maximise(step, linear, ridge, 0)
        _add(pixel, step, m, c, p, sums)
        if m > 0:
            weights(pixel.x, pixel.y, m, pixel.r, pixel.q)
            for k in range(n):
                shares[k] = step.now[k]
            scatter(table, channel, first, last, pixel.r, shares)


@inlined
def _add(pixel: Any, step: Any, m: int, c: Any, p: int, sums: Any) -> None:
    """Write down the abundances of a pixel, and add them and the likelihood; leaves the model in ``pixel.y``."""
    n = c.shape[1]
    for k in range(n):
        share = step.now[k]
        c[p, k] = share
        sums[1 + k] += share
        sums[1 + n + k] += share * share
    if m > 0:
        model(pixel.g, step.now, m, pixel.y)
        sums[0] += log_likelihood(pixel.x, pixel.bits, m, pixel.along, pixel.mantissa, pixel.mantissa_bits)


@inlined
def _solve(
    pixel: Any,
    step: Any,
    st: Any,
    channel: Any,
    value: Any,
    first: int,
    last: int,
    linear: Any,
    ridge: Any,
    simplex: int,
) -> int:
    """The abundances of one pixel, into ``step.now``; gives m."""
    n, now = linear.shape[0], step.now
    m, total = gather(st, channel, value, first, last, pixel.g, pixel.x)
    for k in range(n):
        if simplex:
            now[k] = 1.0 / n
        else:
            now[k] = total / (n * linear[k]) if linear[k] > 0.0 else 0.0
    if m > 0:
        for _ in range(EM_STEPS):
            slope(pixel.g, pixel.x, now, m, pixel.y, pixel.r, pixel.q, step.gradient)
            maximise(step, linear, ridge, simplex)
    if m > 0 or simplex:
        newton(pixel, step, m, total, linear, ridge, simplex)
    if simplex:
        rounded = 0.0
        for k in range(n):
            rounded += now[k]
        for k in range(n):
            now[k] /= rounded
    return int(m)


@inlined
def newton(pixel: Any, step: Any, m: int, total: float, linear: Any, ridge: Any, simplex: int) -> None:
    """Newton steps from ``step.now`` to the minimum; one that goes past the lowest point of its line is shortened.

    What stands in row K of ``g`` with a share in ``step.now`` is a background, and keeps that share.
    """
    n, now, before, right = linear.shape[0], step.now, step.before, step.right
    gradient, hessian = step.gradient, step.hessian
    fall, ground = 0.0, 0.0
    if n < now.shape[0]:
        ground = now[n]
        before[n] = ground
    for which in range(NEWTON_STEPS + 1):
        derivatives(pixel.g, pixel.x, now, m, pixel.y, pixel.r, pixel.q, gradient, hessian)
        if which > 0:
            end = 0.0
            for k in range(n):
                end += (now[k] - before[k]) * (linear[k] + ridge[k] * now[k] - gradient[k])
            if end > -PAST * fall:
                _go_back(pixel, step, m, linear, ridge, fall)
        if which == NEWTON_STEPS:
            return
        # Minimise g.d + 1/2 d'Hd over now + d >= 0, written for the new value itself. As the data's part of H times
        # now is the data's part of the gradient, H need not be multiplied; that of the ridge cancels.
        floor = _floor(hessian, linear) if simplex else 0.0
        for k in range(n):
            stiff = RIDGE * hessian[k, k] + floor
            right[k] = 2.0 * gradient[k] - linear[k] + stiff * now[k]
            hessian[k, k] += stiff + ridge[k]
            before[k] = now[k]
        if ground > 0.0:
            now[n] = 0.0
            for k in range(n):
                right[k] -= ground * hessian[n, k]
        if now.shape[0] == 4 and not simplex:
            quadratic4(step, linear)
        else:
            quadratic(step, linear, simplex)
        if ground > 0.0:
            now[n] = ground
        decrement, fall = 0.0, 0.0
        for k in range(n):
            d = now[k] - before[k]
            fall += d * (linear[k] + ridge[k] * before[k] - gradient[k])
            part = 0.5 * hessian[k, k] * d
            for j in range(k):
                part += hessian[k, j] * (now[j] - before[j])
            decrement += 2.0 * part * d
        if decrement < DECREMENT * total or not fall < 0.0:
            return


@lean
def _floor(hessian: Any, linear: Any) -> float:
    """A little curvature for all components: on the simplex empty endmembers, and pixels, have an answer too."""
    scale, level = 0.0, 0.0
    for k in range(linear.shape[0]):
        scale, level = max(scale, hessian[k, k]), max(level, linear[k])
    if scale == 0.0:
        scale = level if level > 0.0 else 1.0
    return float(RIDGE * scale)


@lean
def _go_back(pixel: Any, step: Any, m: int, linear: Any, ridge: Any, fall: float) -> None:
    """Put ``step.now`` back along its step, to where the slope of the objective is small: found by halving.

    Leaves the derivatives there.
    """
    n, now, before, x, y, along = linear.shape[0], step.now, step.before, pixel.x, pixel.y, pixel.along
    level, curve = 0.0, 0.0
    for k in range(n):
        now[k] -= before[k]
        level += now[k] * (linear[k] + ridge[k] * before[k])
        curve += now[k] * ridge[k] * now[k]
    model(pixel.g, before, m, y)
    for i in range(m):
        along[i] = 0.0
    for k in range(n):
        for i in range(m):
            along[i] += now[k] * pixel.g[k, i]
    low, high, length = 0.0, 1.0, 0.0
    for _ in range(HALVINGS):
        length = 0.5 * (low + high)
        end = level + length * curve - _slope_along(x, y, along, m, length)
        if end > -PAST * fall:
            high = length
        elif end < PAST * fall:
            low = length
        else:
            low = length
            break
    for k in range(n):
        now[k] = before[k] + low * now[k]
    derivatives(pixel.g, x, now, m, y, pixel.r, pixel.q, step.gradient, step.hessian)


@lean_sums
def _slope_along(x: Any, y: Any, along: Any, m: int, length: float) -> float:
    total = 0.0
    for i in range(m):
        there = y[i] + length * along[i]
        total += x[i] * along[i] / (there if there > DARK else DARK)
    return total
