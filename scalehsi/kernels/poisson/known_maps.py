"""The abundances of one pixel after the other by the Poisson likelihood, where those of some components are known.

What the known ones explain of a pixel is one spectrum: a background of share one, in the row of ``g`` behind those of
the components that are sought. So the model, its gradient and its Hessian come from the loops of the plain case.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from scalehsi.arrays import Float, Int
from scalehsi.kernels.poisson.channel_loops import gather, log_likelihood, model, padded, scatter, slope, weights
from scalehsi.kernels.poisson.pixel_solver import EM_STEPS, newton, room
from scalehsi.kernels.poisson.pixel_steps import maximise


def known_columns(st: Float, known: Any) -> tuple[Int, Int, Float, Float]:
    """What `solve_rows_known` takes of the endmembers.

    Parameters
    ----------
    st : array, shape (E, K)
    known : sequence of int, shape (F,)

    Returns
    -------
    free, held : array of int, shapes (R,) and (F,)
        The components that are sought, and those that are known.
    wide : array, shape (E, `padded` of R + 1)
        The first ones' endmembers, and room for a background.
    ground : array, shape (E, F)
    """
    held = np.asarray(known, dtype=np.int64)
    free = np.setdiff1d(np.arange(st.shape[1]), held)
    wide = np.zeros((len(st), padded(len(free) + 1)))
    wide[:, : len(free)] = st[:, free]
    return free, held, wide, np.ascontiguousarray(st[:, held])


@numba.njit(cache=True, nogil=True)
def solve_rows_known(
    indptr: Any, channel: Any, value: Any, wide: Any, ground: Any, free: Any, held: Any, linear: Any, ridge: Any,
    given: Any, c: Any, table: Any, sums: Any,
) -> None:  # fmt: skip
    """Abundances of a strip into ``c`` (P, K), the known ones too, and what all of them add to the sums.

    wide, ground, free, held: see `known_columns`. linear, ridge (R,): of the components that are sought. given (P, F).
    The rest as in `scalehsi.kernels.poisson.pixel_solver.solve_rows`.
    """
    n, count = linear.shape[0], c.shape[1]
    pixel, step = room(indptr, n, wide.shape[1])
    shares = np.zeros(table.shape[1])
    for p in range(c.shape[0]):
        first, last = indptr[p], indptr[p + 1]
        m, total = gather(wide, channel, value, first, last, pixel.g, pixel.x)
        for i in range(last - first):
            level = 0.0
            for f in range(held.shape[0]):
                level += given[p, f] * ground[channel[first + i], f]
            pixel.g[n, i] = level
        step.now[n] = 1.0
        for k in range(n):
            step.now[k] = total / (n * linear[k]) if linear[k] > 0.0 else 0.0
        if m > 0 and n > 0:
            for _ in range(EM_STEPS):
                slope(pixel.g, pixel.x, step.now, m, pixel.y, pixel.r, pixel.q, step.gradient)
                maximise(step, linear, ridge, 0)
            newton(pixel, step, m, total, linear, ridge, 0)
        for k in range(n):
            c[p, free[k]] = step.now[k]
        for f in range(held.shape[0]):
            c[p, held[f]] = given[p, f]
        for k in range(count):
            sums[1 + k] += c[p, k]
            sums[1 + count + k] += c[p, k] * c[p, k]
        if m > 0:
            model(pixel.g, step.now, m, pixel.y)
            sums[0] += log_likelihood(pixel.x, pixel.bits, m, pixel.along, pixel.mantissa, pixel.mantissa_bits)
        if table.shape[0] > 0 and m > 0:
            weights(pixel.x, pixel.y, m, pixel.r, pixel.q)
            index = 0
            for k in range(count):
                for j in range(k + 1):
                    shares[index] = c[p, k] * c[p, j]
                    index += 1
            scatter(table, channel, first, last, pixel.q, shares)
