"""Small quadratic programmes, one a pixel, that all share one Gram matrix: block principal pivoting.

Minimise ``1/2 c' G c - b' c`` over ``c >= 0``, or over the simplex (``c >= 0``, ``sum c = 1``). A set of components is
guessed, the equations are solved on it, and every component whose sign is wrong changes sides, until none is (Kim and
Park 2011, doi:10.1137/110821172). As the matrix is the same for all pixels, so are the inverses on a set: they are
made once and kept, and a pixel costs one or two products of a K x K matrix with a vector. Exact; a pixel on which the
exchange does not settle goes to the slower solver that always does.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi.kernels.quadratic.nnls import solve_one

FREE: Final = 0
SIMPLEX: Final = 1
COUPLED: Final = 2
"""Kinds of problem: non-negative; on the simplex; non-negative with a matrix that is not symmetric."""

SETS: Final = 256
"""Inverses kept at a time: all of them up to K = 8. More would be pushed out of the cache by the data."""
SOUND: Final = 1e-6
"""A component that others explain but for this part makes a product with the inverse lose digits: solved otherwise."""
SWEEPS: Final = 1000


@numba.njit(cache=True, nogil=True)
def room(n: int) -> Any:
    """What the solver works in for K = n: inverses, their row sums, and the sets that they belong to."""
    sets = min(1 << n, SETS)
    return np.empty((sets, n, n)), np.empty((sets, n)), np.full(sets, -1, dtype=np.int64)


@numba.njit(cache=True, nogil=True)
def solve(kind: int, gram: Any, b: Any, out: Any, inverses: Any, ones: Any, held: Any) -> None:
    """Solve one problem a row of ``b`` (P, K) into ``out`` (P, K).

    gram (K, K) must be positive definite, and symmetric unless ``kind`` is COUPLED. inverses, ones, held: see `room`;
    they belong to this ``gram`` and may be handed to the next call with it.
    """
    rows, n = b.shape
    if kind == COUPLED:
        for p in range(rows):
            _sweeps(gram, b[p], out[p])
        return
    passive, order = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.int64)
    chol, z, y = np.empty((n, n)), np.empty(n), np.empty(n)
    full = (1 << n) - 1
    many = kind == FREE and 1 << n > len(held)
    if many and held[0] != full and _invert(gram, full, inverses[0], ones[0]):
        held[0] = full
    for p in range(rows):
        if many:
            # Sets seldom come back here: from the clipped unconstrained solution, which is nearly right.
            for k in range(n):
                start = 0.0
                for j in range(n):
                    start += inverses[0, k, j] * b[p, j]
                out[p, k] = max(start, 0.0) if held[0] == full else 0.0
            solve_one(gram, b[p], out[p], passive, chol, z, order)
            continue
        if _exchange(kind, gram, b[p], out[p], y, full, inverses, ones, held):
            continue
        if kind == SIMPLEX:
            _on_simplex(gram, b[p], out[p], passive, chol, z, y, order)
        else:
            out[p, :] = 0.0
            solve_one(gram, b[p], out[p], passive, chol, z, order)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _exchange(kind: int, gram: Any, b: Any, c: Any, y: Any, full: int, inverses: Any, ones: Any, held: Any) -> bool:
    """Block principal pivoting from the full set; False if it did not settle."""
    n = b.shape[0]
    scale = 0.0
    for k in range(n):
        scale = max(scale, abs(b[k]))
    if scale == 0.0 and kind == FREE:
        c[:] = 0.0
        return True
    tolerance = 1e-12 * scale
    members, left, fewest = full, 3, n + 1
    for _ in range(4 * n + 8):
        slot = (members ^ members >> 8) % len(held)
        if held[slot] != members:
            if not _invert(gram, members, inverses[slot], ones[slot]):
                return False
            held[slot] = members
        inverse = inverses[slot]
        for k in range(n):
            c[k] = 0.0
        for j in range(n):
            if members >> j & 1:
                for k in range(n):
                    c[k] += inverse[j, k] * b[j]
        multiplier = 0.0
        if kind == SIMPLEX:
            total, reach = 0.0, 0.0
            for k in range(n):
                total += c[k]
                reach += ones[slot, k]
            multiplier = (total - 1.0) / reach
            for k in range(n):
                c[k] -= multiplier * ones[slot, k]
        for k in range(n):
            y[k] = multiplier - b[k]
        for j in range(n):
            for k in range(n):
                y[k] += gram[j, k] * c[j]
        # Members that came out negative, and others that would lower the objective.
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
            fewest, left = count, 3
        elif left > 0:
            left -= 1
        else:
            wrong = 1 << last  # one at a time always ends, were it not for rounding
        members ^= wrong
        if kind == SIMPLEX and members == 0:
            return False
    return False


@numba.njit(cache=True, nogil=True)
def _invert(gram: Any, members: int, inverse: Any, ones: Any) -> bool:
    """The inverse of ``gram`` on a set of components, zero elsewhere, and its row sums; False if it is not sound."""
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
        if lower[i, i] ** 2 < SOUND * gram[order[i], order[i]]:
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
        ones[k] = inverse[k].sum()
    return sound


@numba.njit(cache=True, nogil=True)
def _on_simplex(gram: Any, b: Any, c: Any, passive: Any, inverse: Any, z: Any, ones: Any, order: Any) -> None:
    """A primal active set on the simplex: slower, and it always ends. Starts from the best vertex."""
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
        _invert(gram, members, inverse, ones)
        total, reach = 0.0, 0.0
        for k in range(n):
            z[k] = 0.0
            for j in range(n):
                z[k] += inverse[k, j] * b[j]
            total += z[k]
            reach += ones[k]
        multiplier = (total - 1.0) / reach
        for k in range(n):
            z[k] -= multiplier * ones[k]
        multiplier += _refine(gram, b, members, inverse, ones, multiplier, reach, z)
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
                return  # rounding alone asked for this component
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
def _refine(gram: Any, b: Any, members: int, inverse: Any, ones: Any, multiplier: float, reach: float, z: Any) -> float:
    """One step towards the digits of ``z`` that a nearly singular matrix lost; gives the multiplier's correction."""
    n = b.shape[0]
    rest, change = np.zeros(n), np.zeros(n)
    for k in range(n):
        if members >> k & 1:
            rest[k] = b[k] - multiplier
            for j in range(n):
                rest[k] -= gram[k, j] * z[j]
    total = -1.0
    for k in range(n):
        for j in range(n):
            change[k] += inverse[k, j] * rest[j]
        total += z[k] + change[k]
    for k in range(n):
        z[k] += change[k] - total / reach * ones[k]
    return total / reach


@numba.njit(cache=True, nogil=True)
def _sweeps(gram: Any, b: Any, c: Any) -> None:
    """Coordinate by coordinate from zero, for a matrix whose two halves differ."""
    n = b.shape[0]
    c[:] = 0.0
    for _ in range(SWEEPS):
        change, largest = 0.0, 0.0
        for k in range(n):
            pull = b[k]
            for j in range(n):
                if j != k:
                    pull -= gram[k, j] * c[j]
            new = max(pull / gram[k, k], 0.0)
            change, largest = max(change, abs(new - c[k])), max(largest, new)
            c[k] = new
        if change <= 1e-9 * largest:
            return
