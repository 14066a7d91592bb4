"""Solve the Poisson abundances of the pixels of a strip when the abundance maps of some components are known.

The known components add up to one background spectrum per pixel, of abundance one. It takes the row of ``g`` behind
those of the free components, so that the loops of `scalehsi.kernels.poisson.channel_loops` apply unchanged.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from scalehsi.arrays import Float, Int
from scalehsi.kernels.poisson.channel_loops import (
    gather,
    log_likelihood,
    model,
    pad_columns,
    scatter_hessian,
    slope,
    weights,
)
from scalehsi.kernels.poisson.pixel_solver import EM_STEPS, newton, workspace
from scalehsi.kernels.poisson.pixel_steps import em_step


def split_columns(st: Float, known: Any) -> tuple[Int, Int, Float, Float]:
    """Split the endmembers into those of free and of known components, as `solve_rows_known` takes them.

    Parameters
    ----------
    st : array, shape (E, K)
    known : sequence of int, shape (F,)

    Returns
    -------
    free, known : array of int, shapes (R,) and (F,)
        Numbers of the components that are solved, and of those that are known.
    free_st : array, shape (E, R + 1 or more)
        Endmembers of the free components, and empty columns for the background.
    known_st : array, shape (E, F)
        Endmembers of the known components.
    """
    known = np.asarray(known, dtype=np.int64)
    free = np.setdiff1d(np.arange(st.shape[1]), known)
    return free, known, pad_columns(st[:, free], len(free) + 1), np.ascontiguousarray(st[:, known])


@numba.njit(cache=True, nogil=True)
def solve_rows_known(
    indptr: Any, channel: Any, value: Any, free_st: Any, known_st: Any, free: Any, known: Any, linear: Any, ridge: Any,
    given: Any, c: Any, table: Any, sums: Any
) -> None:  # fmt: skip
    """Write all abundances of a strip, free and known, into ``c`` (P, K), and add their contribution to the sums.

    free_st, known_st, free, known: from `split_columns`. linear, ridge (R,): costs of the free components.
    given (P, F): abundances of the known ones. The rest as in `scalehsi.kernels.poisson.pixel_solver.solve_rows`.
    """
    n, count = linear.shape[0], c.shape[1]
    pixel, step = workspace(indptr, n, free_st.shape[1])
    products, no_matrix = np.zeros(table.shape[1]), np.zeros((0, 0))
    for p in range(c.shape[0]):
        first, last = indptr[p], indptr[p + 1]
        m, total = gather(free_st, channel, value, first, last, pixel.g, pixel.x)
        for i in range(last - first):
            level = 0.0
            for f in range(known.shape[0]):
                level += given[p, f] * known_st[channel[first + i], f]
            pixel.g[n, i] = level
        step.now[n] = 1.0
        for k in range(n):
            step.now[k] = total / (n * linear[k]) if linear[k] > 0.0 else 0.0
        if m > 0 and n > 0:
            for _ in range(EM_STEPS):
                slope(pixel.g, pixel.x, step.now, m, pixel.y, pixel.r, pixel.q, step.gradient)
                em_step(step, linear, ridge, 0)
            newton(pixel, step, m, total, linear, ridge, 0, no_matrix)
        for k in range(n):
            c[p, free[k]] = step.now[k]
        for f in range(known.shape[0]):
            c[p, known[f]] = given[p, f]
        for k in range(count):
            sums[1 + k] += c[p, k]
            sums[1 + count + k] += c[p, k] * c[p, k]
        if m > 0:
            model(pixel.g, step.now, m, pixel.y)
            sums[0] += log_likelihood(pixel.x, pixel.bits, m, pixel.step_model, pixel.mantissa, pixel.mantissa_bits)
        if table.shape[0] > 0 and m > 0:
            weights(pixel.x, pixel.y, m, pixel.r, pixel.q)
            scatter_hessian(table, channel, first, last, pixel.q, c[p], count, products)
