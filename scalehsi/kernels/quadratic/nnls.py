"""Batched non-negative least squares (NNLS): one small non-negative quadratic programme per pixel or per channel.

Minimise ``1/2 c' G c - b' c`` over ``c >= 0``. With ``G = s s'`` and ``b = x s'`` this is the non-negative least
squares of a spectrum ``x`` on K endmembers; it needs ``b`` instead of the spectrum.

The solver is an active set (Lawson and Hanson 1974, ISBN 978-0-89871-356-5), started from the clipped unconstrained
solution, which is correct or nearly correct for most pixels: 1.0 to 1.5 small Cholesky solves per pixel for K <= 12.
The solution is exact because extrapolated outer iterations stall if the inner problems are only solved to a tolerance.

Written here instead of calling `scipy.optimize.nnls`, which solves one problem per call and starts from the spectra: it
would repeat the products with E channels, and the Gram matrix, for every pixel.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float

RELATIVE_RIDGE: Final = 1e-12
"""Added to each diagonal element in proportion to it: Cholesky accepts equal endmembers, weak ones are not damped."""
MAX_SWEEPS: Final = 200


def nnls(gram: arrays.Array, b: arrays.Array) -> arrays.Array:
    """Solve one non-negative quadratic programme per row.

    Parameters
    ----------
    gram : array, shape (K, K)
        Matrix G of all problems; symmetric, positive semi-definite.
    b : array, shape (P, K)
        Linear term of each problem.

    Returns
    -------
    array, shape (P, K)
        Exact for numpy arrays (float64). For other array libraries coordinate descent over all rows at once, in the
        dtype of ``b``, until the largest change is 1e-6 of the largest value (at most 200 sweeps).

    Examples
    --------
    >>> nnls(np.eye(2), np.array([[1.0, -1.0]])).round(9).tolist()
    [[1.0, 0.0]]
    """
    xp = arrays.array_namespace(gram, b)
    if isinstance(b, np.ndarray):
        g = np.asarray(gram, dtype=np.float64)
        # Scaled to components of unit length, so that one tolerance suits all of them.
        unit = np.sqrt(np.diag(g))
        unit = np.where(unit > 0, unit, 1.0)
        out = np.empty(b.shape, dtype=np.float64)
        solve_rows(with_ridge(g / np.outer(unit, unit)), np.ascontiguousarray(b / unit), out)
        return out / unit
    return _coordinate_descent(xp, gram, b)


def with_ridge(gram: Float) -> Float:
    """Add the relative ridge to a Gram matrix, and 1 to the diagonal of empty components, so that Cholesky succeeds."""
    diagonal = np.diag(gram)
    safe: Float = gram + np.diag(np.where(diagonal > 0, RELATIVE_RIDGE * diagonal, 1.0))
    return np.ascontiguousarray(safe)


def _coordinate_descent(xp: Any, gram: Any, b: Any) -> Any:
    """Coordinate descent over all rows at once, in array library ``xp``: gram (K, K), b (P, K), result (P, K)."""
    n = gram.shape[0]
    g = arrays.to_host(gram).tolist()  # copied in one transfer: each read from a device waits for it
    diagonal = [g[k][k] for k in range(n)]
    columns = [b[:, k] * 0 for k in range(n)]
    for _ in range(MAX_SWEEPS):
        change, largest = 0.0, 0.0
        for k in range(n):
            if diagonal[k] <= 0:
                continue
            right = b[:, k]
            for j in range(n):
                if j != k:
                    right = right - columns[j] * g[j][k]
            new = right / diagonal[k]
            new = xp.where(new > 0, new, new * 0)
            change = max(change, float(xp.max(xp.abs(new - columns[k]))))
            largest = max(largest, float(xp.max(new)))
            columns[k] = new
        if change <= 1e-6 * largest:
            break
    return xp.stack(columns, axis=1)


@numba.njit(cache=True, nogil=True)
def solve_one(gram: Any, b: Any, c: Any, passive: Any, chol: Any, z: Any, order: Any) -> None:
    """Solve one problem by an active set: ``c`` is a feasible start on entry and the solution on return.

    gram (K, K) and b (K,) are the problem; passive (K,) bool, chol (K, K), z (K,) and order (K,) int are buffers.
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
        # Longest step towards z before a component reaches zero.
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
                return  # this component was added because of rounding
            continue
        for i in range(m):
            c[order[i]] = z[i]
        # Optimal unless increasing a component from zero lowers the objective.
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
    """Solve ``gram z = b`` on the passive set by Cholesky.

    gram (K, K) and b (K,) are the problem; the first m entries of ``order`` number the passive components; chol (K, K)
    is a buffer, and the first m entries of ``z`` are the result, in that order.
    """
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
    """Solve all rows of ``b`` (P, K) with one positive definite ``gram`` (K, K) into ``out`` (P, K)."""
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
