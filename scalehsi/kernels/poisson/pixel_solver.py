"""Solve the Poisson abundances pixel by pixel, by a few steps of expectation maximisation and then Newton's method.

The objective is ``sum_k (l_k c_k + ridge_k c_k^2 / 2) - sum_e x_e log (c s)_e``, over ``c >= 0`` or over the simplex
(``c >= 0`` and ``sum c = 1``). ``l`` is the sum of each endmember, plus the rate of a sparsity prior. The quadratic
model of a Newton step is minimised exactly, see `scalehsi.kernels.poisson.pixel_steps`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np

from scalehsi.kernels.compiled import inlined, lean, lean_sums
from scalehsi.kernels.poisson.channel_loops import (
    CHANNEL_PAD,
    MIN_MODEL,
    derivatives,
    gather,
    log_likelihood,
    model,
    scatter,
    scatter_hessian,
    slope,
    weights,
)
from scalehsi.kernels.poisson.pixel_steps import (
    StepWorkspace,
    em_step,
    solve_quadratic,
    solve_quadratic4,
    step_workspace,
)

EM_STEPS: Final = 3
NEWTON_STEPS: Final = 24
HALVINGS: Final = 40
MAX_END_SLOPE: Final = 0.5
"""A step is shortened when the slope at its end is positive and above this fraction of the slope at its start."""
DECREMENT: Final = 1e-10
"""Newton's method stops when the predicted gain, relative to the counts of the pixel, is below this."""
RIDGE: Final = 1e-10
"""Added to the diagonal of the Hessian, relative to it, so that equal endmembers still have a solution."""


class PixelWorkspace(NamedTuple):
    """Workspace for the filled channels of one pixel, as `scalehsi.kernels.poisson.channel_loops` takes it.

    g (K, m): endmembers. x: counts. y: model; ``bits`` sees it as integers. r = x / y, q = x / y^2. step_model: change
    of the model along a Newton step, and workspace of the logarithm, as are mantissa and its bits.
    """

    g: Any
    x: Any
    y: Any
    r: Any
    q: Any
    step_model: Any
    bits: Any
    mantissa: Any
    mantissa_bits: Any


@numba.njit(cache=True, nogil=True)
def workspace(indptr: Any, n: int, wide: int) -> tuple[PixelWorkspace, StepWorkspace]:
    """Workspace for the longest of the rows, and for steps in n components, ``wide`` with the empty ones."""
    longest = 0
    for p in range(indptr.shape[0] - 1):
        longest = max(longest, indptr[p + 1] - indptr[p])
    m = longest + CHANNEL_PAD
    y, mantissa = np.empty(m), np.empty(m)
    pixel = PixelWorkspace(
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
    return pixel, step_workspace(n, wide)


@numba.njit(cache=True, nogil=True)
def solve_rows(
    indptr: Any, channel: Any, value: Any, st: Any, linear: Any, ridge: Any, simplex: int, c: Any, table: Any, sums: Any
) -> None:
    """Write the abundances of a strip into ``c`` (P, K), and add their contribution to the table and the sums.

    indptr, channel, value: rows from `scalehsi.kernels.pixel_rows.sparse_counts.strips`. st (E, `padded_components`):
    endmembers, the last ones empty. linear (P, K), or (1, K) for all pixels; ridge (K,): costs. simplex: 0 or 1.
    table (E, `table_width`): Hessians, or (0, width) for none. sums (1 + 2 K,): likelihood, sums of c and of c^2.
    """
    n = linear.shape[1]
    pixel, step = workspace(indptr, n, st.shape[1])
    cost, products, no_matrix = np.empty(n), np.zeros(table.shape[1]), np.zeros((0, 0))
    for p in range(c.shape[0]):
        first, last = indptr[p], indptr[p + 1]
        for k in range(n):
            cost[k] = linear[min(p, linear.shape[0] - 1), k]
        m = _solve(pixel, step, st, channel, value, first, last, cost, ridge, simplex, no_matrix)
        _add(pixel, step, m, c, p, sums)
        if table.shape[0] > 0 and m > 0:
            weights(pixel.x, pixel.y, m, pixel.r, pixel.q)
            scatter_hessian(table, channel, first, last, pixel.q, step.now, n, products)


@numba.njit(cache=True, nogil=True)
def multiply_rows(
    indptr: Any, channel: Any, value: Any, st: Any, linear: Any, ridge: Any, c: Any, table: Any, sums: Any
) -> None:
    """Update ``c`` (P, K) multiplicatively in place; then add N to ``table`` (E, K or more), and to the sums.

    linear (K,); the other arguments as in `solve_rows`.
    """
    n = linear.shape[0]
    pixel, step = workspace(indptr, n, st.shape[1])
    row = np.zeros(table.shape[1])
    for p in range(c.shape[0]):
        first, last = indptr[p], indptr[p + 1]
        m, _ = gather(st, channel, value, first, last, pixel.g, pixel.x)
        for k in range(n):
            step.now[k] = c[p, k]
        slope(pixel.g, pixel.x, step.now, m, pixel.y, pixel.r, pixel.q, step.gradient)
        em_step(step, linear, ridge, 0)
        _add(pixel, step, m, c, p, sums)
        if m > 0:
            weights(pixel.x, pixel.y, m, pixel.r, pixel.q)
            for k in range(n):
                row[k] = step.now[k]
            scatter(table, channel, first, last, pixel.r, row)


@inlined
def _add(pixel: Any, step: Any, m: int, c: Any, p: int, sums: Any) -> None:
    """Copy the abundances of pixel p into ``c`` (P, K), and add them and the likelihood of its m channels to the sums.

    On return ``pixel.y`` holds the model.
    """
    n = c.shape[1]
    for k in range(n):
        abundance = step.now[k]
        c[p, k] = abundance
        sums[1 + k] += abundance
        sums[1 + n + k] += abundance * abundance
    if m > 0:
        model(pixel.g, step.now, m, pixel.y)
        sums[0] += log_likelihood(pixel.x, pixel.bits, m, pixel.step_model, pixel.mantissa, pixel.mantissa_bits)


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
    quad: Any,
) -> int:
    """Solve the abundances of the pixel from ``first`` to ``last`` into ``step.now``; return m, its padded channels.

    The arguments as in `solve_rows`, with linear (K,); quad (0, 0).
    """
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
            em_step(step, linear, ridge, simplex)
    if m > 0 or simplex:
        newton(pixel, step, m, total, linear, ridge, simplex, quad)
    if simplex:
        rounded = 0.0
        for k in range(n):
            rounded += now[k]
        for k in range(n):
            now[k] /= rounded
    return int(m)


@inlined
def newton(pixel: Any, step: Any, m: int, total: float, linear: Any, ridge: Any, simplex: int, quad: Any) -> None:
    """Move ``step.now`` to the minimum by Newton steps; a step that passes the minimum along its line is shortened.

    m: padded channels. total: counts of the pixel. linear, ridge (K,): costs. simplex: 0 or 1. quad (K, K), or (0, 0)
    for none: a symmetric matrix Q, adds ``c' Q c / 2`` to the objective; ``linear`` may then be negative. A spectrum in
    row K of ``g`` with a nonzero value in ``step.now`` is a background, and that value stays fixed.
    """
    n, now, before, right = linear.shape[0], step.now, step.before, step.right
    gradient, hessian = step.gradient, step.hessian
    fall, background = 0.0, 0.0
    if n < now.shape[0]:
        background = now[n]
        before[n] = background
    for which in range(NEWTON_STEPS + 1):
        derivatives(pixel.g, pixel.x, now, m, pixel.y, pixel.r, pixel.q, gradient, hessian)
        if which > 0:
            end = 0.0
            for k in range(n):
                cost = linear[k] + ridge[k] * now[k] + _row_product(quad, k, now)
                end += (now[k] - before[k]) * (cost - gradient[k])
            if end > -MAX_END_SLOPE * fall:
                _shorten_step(pixel, step, m, linear, ridge, fall, quad)
        if which == NEWTON_STEPS:
            return
        # Minimise g.d + 1/2 d'Hd over now + d >= 0, with now + d as the unknown. The data's part of H times now is the
        # data's part of the gradient, so it need not be computed; the part of the ridge cancels.
        floor = _diagonal_floor(hessian, linear) if simplex else 0.0
        for k in range(n):
            stiff = RIDGE * hessian[k, k] + floor
            right[k] = 2.0 * gradient[k] - linear[k] + stiff * now[k]
            hessian[k, k] += stiff + ridge[k]
            before[k] = now[k]
            for j in range(min(k + 1, quad.shape[0])):
                hessian[k, j] += quad[k, j]
        if background > 0.0:
            now[n] = 0.0
            for k in range(n):
                right[k] -= background * hessian[n, k]
        if now.shape[0] == 4 and not simplex:
            solve_quadratic4(step, linear)
        else:
            solve_quadratic(step, linear, simplex)
        if background > 0.0:
            now[n] = background
        decrement, fall = 0.0, 0.0
        for k in range(n):
            d = now[k] - before[k]
            fall += d * (linear[k] + ridge[k] * before[k] + _row_product(quad, k, before) - gradient[k])
            part = 0.5 * hessian[k, k] * d
            for j in range(k):
                part += hessian[k, j] * (now[j] - before[j])
            decrement += 2.0 * part * d
        if decrement < DECREMENT * total or not fall < 0.0:
            return


@lean
def _diagonal_floor(hessian: Any, linear: Any) -> float:
    """Curvature added to all components, so that empty endmembers and empty pixels have a solution on the simplex."""
    scale, level = 0.0, 0.0
    for k in range(linear.shape[0]):
        scale, level = max(scale, hessian[k, k]), max(level, linear[k])
    if scale == 0.0:
        scale = level if level > 0.0 else 1.0
    return float(RIDGE * scale)


@inlined
def _row_product(quad: Any, k: int, c: Any) -> float:
    """Element k of Q c; zero without a matrix."""
    total = 0.0
    for j in range(quad.shape[0]):
        total += quad[k, j] * c[j]
    return total


@lean
def _shorten_step(pixel: Any, step: Any, m: int, linear: Any, ridge: Any, fall: float, quad: Any) -> None:
    """Shorten the step from ``step.before`` to ``step.now`` by bisection, to where the slope along it is small.

    m: padded channels. linear, ridge (K,), quad: costs as in `newton`. fall: slope at the start of the step, negative.
    On return ``step.gradient`` and ``step.hessian`` are those of the new point.
    """
    n, now, before, x, y, step_model = linear.shape[0], step.now, step.before, pixel.x, pixel.y, pixel.step_model
    level, curve = 0.0, 0.0
    for k in range(n):
        now[k] -= before[k]
        level += now[k] * (linear[k] + ridge[k] * before[k] + _row_product(quad, k, before))
        curve += now[k] * ridge[k] * now[k]
    for k in range(quad.shape[0]):
        curve += now[k] * _row_product(quad, k, now)
    model(pixel.g, before, m, y)
    for i in range(m):
        step_model[i] = 0.0
    for k in range(n):
        for i in range(m):
            step_model[i] += now[k] * pixel.g[k, i]
    low, high, length = 0.0, 1.0, 0.0
    for _ in range(HALVINGS):
        length = 0.5 * (low + high)
        end = level + length * curve - _data_slope(x, y, step_model, m, length)
        if end > -MAX_END_SLOPE * fall:
            high = length
        elif end < MAX_END_SLOPE * fall:
            low = length
        else:
            low = length
            break
    for k in range(n):
        now[k] = before[k] + low * now[k]
    derivatives(pixel.g, x, now, m, y, pixel.r, pixel.q, step.gradient, step.hessian)


@lean_sums
def _data_slope(x: Any, y: Any, step_model: Any, m: int, length: float) -> float:
    """Derivative of ``sum x log(y + length step_model)`` with respect to the length."""
    total = 0.0
    for i in range(m):
        there = y[i] + length * step_model[i]
        total += x[i] * step_model[i] / (there if there > MIN_MODEL else MIN_MODEL)
    return total
