"""Non-negative quadratic programmes with few variables: one small problem a pixel, or one a channel.

Minimise ``1/2 c' G c - b' c`` over ``c >= 0``. With ``G = s s'`` and ``b = x s'`` this is the non-negative least
squares of a spectrum ``x`` on K endmembers, without the spectrum itself.

The solver is an active set (Lawson and Hanson 1974, ISBN 978-0-89871-356-5), started from the clipped unconstrained
solution, which is right or nearly right for most pixels: 1.0 to 1.5 small Cholesky solves a pixel for K <= 12. It is
exact, which matters: extrapolated outer iterations stall when the inner problems are solved to a tolerance only.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float

RIDGE: Final = 1e-12
"""Added to the diagonal relative to itself: equal endmembers do not break Cholesky, weak ones keep their share."""
SWEEPS: Final = 200


def nnls(gram: arrays.Array, b: arrays.Array) -> arrays.Array:
    """Solve one non-negative quadratic programme a row.

    Parameters
    ----------
    gram : array, shape (K, K)
        Symmetric, positive semi-definite.
    b : array, shape (P, K)

    Returns
    -------
    array, shape (P, K)
        Exact on numpy (float64). On other namespaces coordinate sweeps over all rows at once, in the dtype of ``b``,
        until the largest change is 1e-6 of the largest value (at most 200 sweeps).

    Examples
    --------
    >>> nnls(np.eye(2), np.array([[1.0, -1.0]])).round(9).tolist()
    [[1.0, 0.0]]
    """
    xp = arrays.array_namespace(gram, b)
    if isinstance(b, np.ndarray):
        g = np.asarray(gram, dtype=np.float64)
        # In units in which every component has length one, so that tolerances mean the same for all.
        unit = np.sqrt(np.diag(g))
        unit = np.where(unit > 0, unit, 1.0)
        out = np.empty(b.shape, dtype=np.float64)
        solve_rows(ridged(g / np.outer(unit, unit)), np.ascontiguousarray(b / unit), out)
        return out / unit
    return _sweeps(xp, gram, b)


def ridged(gram: Float) -> Float:
    """The Gram matrix with a diagonal that Cholesky can trust; empty components get one."""
    diagonal = np.diag(gram)
    safe: Float = gram + np.diag(np.where(diagonal > 0, RIDGE * diagonal, 1.0))
    return np.ascontiguousarray(safe)


def _sweeps(xp: Any, gram: Any, b: Any) -> Any:
    """Coordinate descent, one component after the other, over every row at once."""
    n = gram.shape[0]
    g = arrays.to_host(gram).tolist()  # numbers at once: each look at a device costs a wait
    diagonal = [g[k][k] for k in range(n)]
    columns = [b[:, k] * 0 for k in range(n)]
    for _ in range(SWEEPS):
        change, largest = 0.0, 0.0
        for k in range(n):
            if diagonal[k] <= 0:
                continue
            pull = b[:, k]
            for j in range(n):
                if j != k:
                    pull = pull - columns[j] * g[j][k]
            new = pull / diagonal[k]
            new = xp.where(new > 0, new, new * 0)
            change = max(change, float(xp.max(xp.abs(new - columns[k]))))
            largest = max(largest, float(xp.max(new)))
            columns[k] = new
        if change <= 1e-6 * largest:
            break
    return xp.stack(columns, axis=1)


@numba.njit(cache=True, nogil=True)
def solve_one(gram: Any, b: Any, c: Any, passive: Any, chol: Any, z: Any, order: Any) -> None:
    """One problem: ``c`` holds a feasible start and then the solution; the rest is room to work in.

    gram (K, K), b (K,), c (K,), passive (K,) bool, chol (K, K), z (K,), order (K,) int.
    """
    n = b.shape[0]
    scale = 0.0
    for k in range(n):
        passive[k] = c[k] > 0.0
        scale = max(scale, abs(b[k]))
    tolerance = 1e-12 * scale
    added = -1
    for _ in range(10 * n + 10):
        m = 0
        for k in range(n):
            if passive[k]:
                order[m] = k
                m += 1
        _solve_passive(gram, b, chol, z, order, m)
        # How far towards z before some component reaches zero?
        step, blocking = 1.0, -1
        for i in range(m):
            if z[i] <= 0.0:
                k = order[i]
                ratio = c[k] / (c[k] - z[i]) if c[k] > 0.0 else 0.0
                if ratio < step or blocking < 0:
                    step, blocking = ratio, k
        if blocking >= 0:
            for i in range(m):
                k = order[i]
                c[k] += step * (z[i] - c[k])
                if c[k] <= 0.0 or k == blocking:
                    c[k] = 0.0
                    passive[k] = False
            if blocking == added and step == 0.0:
                return  # rounding alone asked for this component
            continue
        for i in range(m):
            c[order[i]] = z[i]
        # Optimal unless a component at zero would lower the objective.
        best, added = tolerance, -1
        for k in range(n):
            if not passive[k]:
                gradient = b[k]
                for i in range(m):
                    gradient -= gram[k, order[i]] * c[order[i]]
                if gradient > best:
                    best, added = gradient, k
        if added < 0:
            return
        passive[added] = True


@numba.njit(cache=True, nogil=True)
def _solve_passive(gram: Any, b: Any, chol: Any, z: Any, order: Any, m: int) -> None:
    """Solve the passive part of ``gram z = b`` by Cholesky; ``z`` in the order of ``order``."""
    for i in range(m):
        for j in range(i + 1):
            total = gram[order[i], order[j]]
            for k in range(j):
                total -= chol[i, k] * chol[j, k]
            if i == j:
                chol[i, i] = np.sqrt(max(total, 1e-300))
            else:
                chol[i, j] = total / chol[j, j]
    for i in range(m):
        total = b[order[i]]
        for k in range(i):
            total -= chol[i, k] * z[k]
        z[i] = total / chol[i, i]
    for i in range(m - 1, -1, -1):
        total = z[i]
        for k in range(i + 1, m):
            total -= chol[k, i] * z[k]
        z[i] = total / chol[i, i]


@numba.njit(cache=True, nogil=True)
def solve_rows(gram: Any, b: Any, out: Any) -> None:
    """All rows of ``b`` (P, K) on one ``gram`` (K, K), which must be positive definite."""
    rows, n = b.shape
    passive = np.empty(n, dtype=np.bool_)
    order = np.empty(n, dtype=np.int64)
    chol = np.empty((n, n))
    z = np.empty(n)
    inverse = np.linalg.inv(gram)
    c = np.empty(n)
    for p in range(rows):
        for k in range(n):
            total = 0.0
            for j in range(n):
                total += inverse[k, j] * b[p, j]
            c[k] = max(total, 0.0)
        solve_one(gram, b[p], c, passive, chol, z, order)
        for k in range(n):
            out[p, k] = c[k]
