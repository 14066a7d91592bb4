"""Block principal pivoting for small quadratic programmes, one per pixel, that all share one Gram matrix.

Minimise ``1/2 c' G c - b' c`` over ``c >= 0``, or over the simplex (``c >= 0``, ``sum c = 1``). The equations are
solved on a guessed passive set; every component with a wrong sign enters or leaves the set, until no sign is wrong
(Kim and Park 2011, doi:10.1137/110821172). All pixels share the matrix, so the inverse on a set is computed once and
kept, and a pixel costs one or two products of a K x K matrix with a vector. The solution is exact; a pixel for which
the exchange does not converge is passed to an active-set solver that always does.

Written here because no library solves a batch of such problems with shared inverses: scipy and general solvers of
quadratic programmes take one problem per call, and the overhead of a call exceeds the work for a pixel.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi.kernels.quadratic.nnls import solve_one

NON_NEGATIVE: Final = 0
SIMPLEX: Final = 1
ASYMMETRIC: Final = 2
SIGNED: Final = 3
"""Kinds of problem: non-negative; on the simplex; non-negative with a matrix that is not symmetric; of any sign."""

MAX_INVERSES: Final = 256
"""Inverses kept at a time: all of them up to K = 8. The data would push more of them out of the processor cache."""
MIN_RELATIVE_PIVOT: Final = 1e-6
"""Below this pivot, relative to the diagonal, the inverse is too inaccurate, and the pixel goes to the active set."""
MAX_SWEEPS: Final = 1000


@numba.njit(cache=True, nogil=True)
def workspace(n: int) -> Any:
    """Allocate the inverses that `solve` keeps for K = n, their row sums, and the set of each (bits; -1 is empty)."""
    sets = min(1 << n, MAX_INVERSES)
    return np.empty((sets, n, n)), np.empty((sets, n)), np.full(sets, -1, dtype=np.int64)


@numba.njit(cache=True, nogil=True)
def solve(kind: int, gram: Any, b: Any, out: Any, inverses: Any, row_sums: Any, kept_sets: Any) -> None:
    """Solve one problem per row of ``b`` (P, K) into ``out`` (P, K).

    kind is NON_NEGATIVE, SIMPLEX, ASYMMETRIC or SIGNED; gram (K, K) must be positive definite, and symmetric unless
    kind is ASYMMETRIC. inverses, row_sums and kept_sets come from `workspace`; they may be reused with the
    same gram only.
    """
    rows, n = b.shape
    if kind == ASYMMETRIC:
        for p in range(rows):
            _coordinate_descent(gram, b[p], out[p])
        return
    if kind == SIGNED:
        if kept_sets[0] < 0:
            inverses[0] = np.linalg.inv(gram)
            kept_sets[0] = 0
        for p in range(rows):
            for k in range(n):
                total = 0.0
                for j in range(n):
                    total += inverses[0, k, j] * b[p, j]
                out[p, k] = total
        return
    passive, order = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.int64)
    chol, z, y = np.empty((n, n)), np.empty(n), np.empty(n)
    full = (1 << n) - 1
    too_many_sets = kind == NON_NEGATIVE and 1 << n > len(kept_sets)
    if too_many_sets and kept_sets[0] != full and invert_subset(gram, full, inverses[0], row_sums[0]):
        kept_sets[0] = full
    for p in range(rows):
        if too_many_sets:
            # A set seldom recurs here: active set from the clipped unconstrained solution, which is nearly correct.
            for k in range(n):
                start = 0.0
                for j in range(n):
                    start += inverses[0, k, j] * b[p, j]
                out[p, k] = max(start, 0.0) if kept_sets[0] == full else 0.0
            solve_one(gram, b[p], out[p], passive, chol, z, order)
            continue
        if _exchange(kind, gram, b[p], out[p], y, full, inverses, row_sums, kept_sets):
            continue
        if kind == SIMPLEX:
            _active_set_on_simplex(gram, b[p], out[p], chol, z, y)
        else:
            out[p, :] = 0.0
            solve_one(gram, b[p], out[p], passive, chol, z, order)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _exchange(
    kind: int, gram: Any, b: Any, c: Any, y: Any, full: int, inverses: Any, row_sums: Any, kept_sets: Any
) -> bool:
    """Solve one pixel by block principal pivoting from the full set; return False if it did not converge.

    b (K,) is the right-hand side, c (K,) the result, y (K,) a buffer for the gradient, full the bits of all components;
    the rest as in `solve`.
    """
    n = b.shape[0]
    scale = 0.0
    for k in range(n):
        scale = max(scale, abs(b[k]))
    if scale == 0.0 and kind == NON_NEGATIVE:
        c[:] = 0.0
        return True
    tolerance = 1e-12 * scale
    members, retries, fewest = full, 3, n + 1
    for _ in range(4 * n + 8):
        slot = (members ^ members >> 8) % len(kept_sets)
        if kept_sets[slot] != members:
            if not invert_subset(gram, members, inverses[slot], row_sums[slot]):
                return False
            kept_sets[slot] = members
        inverse = inverses[slot]
        for k in range(n):
            c[k] = 0.0
        for j in range(n):
            if members >> j & 1:
                for k in range(n):
                    c[k] += inverse[j, k] * b[j]
        multiplier = 0.0
        if kind == SIMPLEX:
            total, row_sum_total = 0.0, 0.0
            for k in range(n):
                total += c[k]
                row_sum_total += row_sums[slot, k]
            multiplier = (total - 1.0) / row_sum_total
            for k in range(n):
                c[k] -= multiplier * row_sums[slot, k]
        for k in range(n):
            y[k] = multiplier - b[k]
        for j in range(n):
            for k in range(n):
                y[k] += gram[j, k] * c[j]
        # Members with a negative value, and others that would lower the objective.
        wrong, count, last = 0, 0, 0
        for k in range(n):
            bad = c[k] < 0.0 if members >> k & 1 else y[k] < -tolerance
            if bad:
                wrong |= 1 << k
                count += 1
                last = k
        if count == 0:
            return True
        if count < fewest:
            fewest, retries = count, 3
        elif retries > 0:
            retries -= 1
        else:
            wrong = 1 << last  # exchanging one at a time terminates, apart from rounding
        members ^= wrong
        if kind == SIMPLEX and members == 0:
            return False
    return False


@numba.njit(cache=True, nogil=True)
def invert_subset(gram: Any, members: int, inverse: Any, row_sums: Any) -> bool:
    """Invert ``gram`` on a set of components; return False if the inverse is inaccurate.

    gram is (K, K), members the bits of the set; inverse (K, K) is written, zero outside the set, and row_sums (K,).
    """
    n = gram.shape[0]
    inverse[:] = 0.0
    order = np.empty(n, dtype=np.int64)
    m = 0
    for k in range(n):
        if members >> k & 1:
            order[m] = k
            m += 1
    lower, sound = np.zeros((m, m)), True
    for i in range(m):
        for j in range(i + 1):
            total = gram[order[i], order[j]]
            for k in range(j):
                total -= lower[i, k] * lower[j, k]
            lower[i, j] = np.sqrt(max(total, 1e-300)) if i == j else total / lower[j, j]
        if lower[i, i] ** 2 < MIN_RELATIVE_PIVOT * gram[order[i], order[i]]:
            sound = False
    column = np.empty(m)
    for which in range(m):
        for i in range(m):
            total = 1.0 if i == which else 0.0
            for k in range(i):
                total -= lower[i, k] * column[k]
            column[i] = total / lower[i, i]
        for i in range(m - 1, -1, -1):
            total = column[i]
            for k in range(i + 1, m):
                total -= lower[k, i] * column[k]
            column[i] = total / lower[i, i]
        for i in range(m):
            inverse[order[which], order[i]] = column[i]
    for k in range(n):
        row_sums[k] = inverse[k].sum()
    return sound


@numba.njit(cache=True, nogil=True)
def _active_set_on_simplex(gram: Any, b: Any, c: Any, inverse: Any, z: Any, row_sums: Any) -> None:
    """Solve one pixel on the simplex by a primal active set from the best vertex: slower, but it always terminates.

    gram (K, K) and b (K,) are the problem, c (K,) the result; inverse (K, K), z (K,) and row_sums (K,) are buffers.
    """
    n = b.shape[0]
    best, scale = 0, 0.0
    for k in range(n):
        scale = max(scale, abs(b[k]), gram[k, k])
        if 0.5 * gram[k, k] - b[k] < 0.5 * gram[best, best] - b[best]:
            best = k
    c[:] = 0.0
    c[best] = 1.0
    members, added = 1 << best, -1
    for _ in range(20 * n + 20):
        invert_subset(gram, members, inverse, row_sums)
        total, row_sum_total = 0.0, 0.0
        for k in range(n):
            z[k] = 0.0
            for j in range(n):
                z[k] += inverse[k, j] * b[j]
            total += z[k]
            row_sum_total += row_sums[k]
        multiplier = (total - 1.0) / row_sum_total
        for k in range(n):
            z[k] -= multiplier * row_sums[k]
        multiplier += _refine(gram, b, members, inverse, row_sums, multiplier, row_sum_total, z)
        step, blocking = 1.0, -1
        for k in range(n):
            if members >> k & 1 and z[k] < 0.0:
                ratio = c[k] / (c[k] - z[k]) if c[k] > 0.0 else 0.0
                if ratio < step or blocking < 0:
                    step, blocking = ratio, k
        for k in range(n):
            c[k] = max(c[k] + step * (z[k] - c[k]), 0.0)
        if blocking >= 0:
            c[blocking] = 0.0
            members ^= 1 << blocking
            if blocking == added and step == 0.0:
                return  # this component was added because of rounding
            continue
        lowest, added = -1e-12 * scale, -1
        for k in range(n):
            if not members >> k & 1:
                gradient = multiplier - b[k]
                for j in range(n):
                    gradient += gram[k, j] * c[j]
                if gradient < lowest:
                    lowest, added = gradient, k
        if added < 0:
            return
        members |= 1 << added


@numba.njit(cache=True, nogil=True)
def _refine(
    gram: Any, b: Any, members: int, inverse: Any, row_sums: Any, multiplier: float, row_sum_total: float, z: Any
) -> float:
    """Refine ``z`` (K,) once against the rounding of a nearly singular matrix; return the change of the multiplier.

    multiplier belongs to the constraint on the sum, row_sum_total is the sum of row_sums; the rest as in
    `_active_set_on_simplex` and `invert_subset`.
    """
    n = b.shape[0]
    residual, change = np.zeros(n), np.zeros(n)
    for k in range(n):
        if members >> k & 1:
            residual[k] = b[k] - multiplier
            for j in range(n):
                residual[k] -= gram[k, j] * z[j]
    total = -1.0
    for k in range(n):
        for j in range(n):
            change[k] += inverse[k, j] * residual[j]
        total += z[k] + change[k]
    for k in range(n):
        z[k] += change[k] - total / row_sum_total * row_sums[k]
    return total / row_sum_total


@numba.njit(cache=True, nogil=True)
def _coordinate_descent(gram: Any, b: Any, c: Any) -> None:
    """Solve one problem with an asymmetric ``gram`` (K, K) by coordinate descent from zero; b (K,), result c (K,)."""
    n = b.shape[0]
    c[:] = 0.0
    for _ in range(MAX_SWEEPS):
        change, largest = 0.0, 0.0
        for k in range(n):
            right = b[k]
            for j in range(n):
                if j != k:
                    right -= gram[k, j] * c[j]
            new = max(right / gram[k, k], 0.0)
            change, largest = max(change, abs(new - c[k])), max(largest, new)
            c[k] = new
        if change <= 1e-9 * largest:
            return
