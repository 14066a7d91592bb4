"""Solve the abundances of a pixel from several signals: a quadratic problem of Gaussian ones plus counts of others.

The objective is ``1/2 z' Q_p z + l_p . z - sum_e x_e log (z s)_e`` over ``z >= 0``. Newton's method is that of
`scalehsi.kernels.poisson.pixel_solver`; here each pixel has a matrix of its own, ``Q_p = Q_0 + sum_m v_pm Q_m``.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from scalehsi.kernels.poisson.channel_loops import gather, log_likelihood, model, scatter, weights
from scalehsi.kernels.poisson.pixel_solver import newton, workspace


@numba.njit(cache=True, nogil=True)
def solve_rows(
    indptr: Any, channel: Any, value: Any, st: Any, linear: Any, base: Any, grams: Any, weight: Any, z: Any, table: Any
) -> float:
    """Move the unknowns ``z`` (P, L) of a strip to their optimum, and return the sum of ``x log y``.

    indptr, channel, value: rows from `scalehsi.kernels.pixel_rows.sparse_counts.strips`. st (E, L or more): endmembers
    of the unknowns, zero where a signal of counts does not see one. linear (P, L): l. base (L, L): Q_0. grams
    (M, L, L), weight (P, M): Q_m and v. z: a start above zero. table (E, width) or (0, width): gets the lower triangle
    of ``z z' x / y^2``, and behind it ``x / y^2``.
    """
    n, total = linear.shape[1], 0.0
    pixel, step = workspace(indptr, n, st.shape[1])
    quad, cost, ridge, products = np.empty((n, n)), np.empty(n), np.zeros(n), np.zeros(table.shape[1])
    for p in range(z.shape[0]):
        first, last = indptr[p], indptr[p + 1]
        scale = 0.0
        for k in range(n):
            cost[k] = linear[p, k]
            step.now[k] = z[p, k]
            scale += abs(cost[k]) * z[p, k]
            for j in range(n):
                quad[k, j] = base[k, j]
                for i in range(grams.shape[0]):
                    quad[k, j] += weight[p, i] * grams[i, k, j]
        for k in range(n):
            quad[k, k] += 1e-12 * quad[k, k] if quad[k, k] > 0.0 else 1e-300
        m, counts = gather(st, channel, value, first, last, pixel.g, pixel.x)
        if m > 0 or scale > 0.0:
            newton(pixel, step, m, counts + scale, cost, ridge, 0, quad)
        for k in range(n):
            z[p, k] = step.now[k]
        if m > 0:
            model(pixel.g, step.now, m, pixel.y)
            total += log_likelihood(pixel.x, pixel.bits, m, pixel.step_model, pixel.mantissa, pixel.mantissa_bits)
            if table.shape[0] > 0:
                model(pixel.g, step.now, m, pixel.y)
                weights(pixel.x, pixel.y, m, pixel.r, pixel.q)
                index = 0
                for k in range(n):
                    for j in range(k + 1):
                        products[index] = z[p, k] * z[p, j]
                        index += 1
                products[index] = 1.0
                scatter(table, channel, first, last, pixel.q, products)
    return total
