"""Steps of the abundances of one pixel: by expectation maximisation, and to the minimum of a quadratic model.

The quadratic programme differs from that of `scalehsi.kernels.quadratic.nnls` in that its matrix is another one every
time. It is
solved by an active set that starts from the components in use, on factors that are kept from one set to the next: to
drop a component leaves those before it in the order as they are, and to add one makes one more row.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np

from scalehsi.kernels.compiled import inlined, lean

SMALL: Final = 1e-12
"""A component at zero is let in where its gradient is larger than this, relative to the terms of the gradient."""


class Step(NamedTuple):
    """Room for the steps of one pixel in K components; ``now``, ``before``, ``gradient`` and ``hessian`` have more.

    now: the abundances. before: those before the step. gradient, hessian (its lower triangle) and right: of the model.
    z: solution on the members of the set. factors: L below the diagonal, the inverse of D on it, L D above. forward,
    ones: half-way solutions for right-hand sides right and one. direction: the solution for one. order: the members.
    """

    now: Any
    before: Any
    gradient: Any
    hessian: Any
    right: Any
    z: Any
    factors: Any
    forward: Any
    ones: Any
    direction: Any
    order: Any


@numba.njit(cache=True, nogil=True)
def step_room(n: int, wide: int) -> Step:
    """Room for steps in K = n components, of which there are ``wide`` with empty ones."""
    return Step(
        np.zeros(wide),
        np.zeros(wide),
        np.zeros(wide),
        np.zeros((wide, wide)),
        np.empty(n),
        np.empty(n),
        np.empty((n, n)),
        np.empty(n),
        np.empty(n),
        np.empty(n),
        np.empty(n, dtype=np.int64),
    )


@inlined
def maximise(step: Any, linear: Any, ridge: Any, simplex: int) -> None:
    """Counts shared out as the model stands, then the best abundances for these shares.

    The best for shares ``a`` minimise ``l c + ridge c^2 / 2 - a log c``.
    """
    now, gradient = step.now, step.gradient
    if simplex:
        _maximise_on_simplex(now, gradient, linear)
        return
    for k in range(linear.shape[0]):
        share = now[k] * gradient[k]
        if ridge[k] > 0.0:
            share = 2.0 * share / (linear[k] + np.sqrt(linear[k] * linear[k] + 4.0 * ridge[k] * share))
        else:
            share /= linear[k]
        now[k] = share if share > 0.0 else 0.0  # an empty endmember gives 0 / 0


@lean
def _maximise_on_simplex(now: Any, gradient: Any, linear: Any) -> None:
    """The same with a multiplier added to ``l``, so that the sum is one; a ridge is left to Newton."""
    n = linear.shape[0]
    top = -1
    for k in range(n):
        now[k] *= gradient[k]
        # Differences that are exact: what is far below the rounding of l may be the whole of a pixel.
        if now[k] > 0.0 and (top < 0 or now[k] - now[top] > linear[k] - linear[top]):
            top = k
    if top < 0:
        for k in range(n):
            now[k] = 1.0 / n
        return
    # The sum falls and is convex in the multiplier: from below, where it is more than one, Newton cannot overshoot.
    # That is where the share of the top component is one; ``level`` is its ``l`` and the multiplier.
    level = now[top]
    for _ in range(60):
        excess, fall = -1.0, 0.0
        for k in range(n):
            if now[k] > 0.0:
                divisor = level + (linear[k] - linear[top])
                share = now[k] / divisor
                excess += share
                fall += share / divisor
        level += excess / fall
        if excess < 1e-12:
            break
    total = 0.0
    for k in range(n):
        if now[k] > 0.0:
            now[k] /= level + (linear[k] - linear[top])
        total += now[k]
    for k in range(n):
        now[k] /= total


@lean
def quadratic(step: Any, linear: Any, simplex: int) -> None:
    """Minimise ``1/2 c'H c - right'c`` over ``c >= 0``, and ``sum c = 1`` with ``simplex``, by an active set.

    ``now`` holds a feasible start, whose components are tried first, and then the solution. ``linear`` and the gradient
    say how large the terms are whose difference must vanish.
    """
    c, h, b, z, order = step.now, step.hessian, step.right, step.z, step.order
    n = b.shape[0]
    shift = 0.0
    if simplex:
        # On the simplex a constant matrix changes nothing, and makes one invertible that is not without it.
        for k in range(n):
            shift = max(shift, h[k, k])
        shift = shift if shift > 0.0 else 1.0
    members, factored, added = 0, 0, -1
    for k in range(n):
        if c[k] > 0.0:
            order[members] = k
            members += 1
    for _ in range(10 * n + 10):
        multiplier = _solve_on(step, members, factored, shift)
        factored = members
        # How far towards z before some component reaches zero?
        length, blocking = 1.0, -1
        for i in range(members):
            if z[i] <= 0.0:
                k = order[i]
                ratio = c[k] / (c[k] - z[i]) if c[k] > 0.0 else 0.0
                if ratio < length or blocking < 0:
                    length, blocking = ratio, k
        if blocking >= 0:
            kept = 0
            for i in range(members):
                k = order[i]
                c[k] += length * (z[i] - c[k])
                if c[k] <= 0.0 or k == blocking:
                    c[k] = 0.0
                    factored = min(factored, i)
                else:
                    order[kept] = k
                    kept += 1
            members = kept
            if blocking == added and length == 0.0:
                return  # rounding alone asked for this component
            continue
        for i in range(members):
            c[order[i]] = z[i]
        added = _wanted(step, linear, members, multiplier) if members < n else -1
        if added < 0:
            return
        order[members] = added
        members += 1


@inlined
def quadratic4(step: Any, linear: Any) -> None:
    """What `quadratic` does off the simplex, for K up to 4, in registers: three times faster.

    The matrix of a set has all four rows; a component outside it has that of the unit matrix.
    """
    c, h, b, n = step.now, step.hessian, step.right, linear.shape[0]
    b0, b1 = b[0], b[1] if n > 1 else 0.0
    b2, b3 = b[2] if n > 2 else 0.0, b[3] if n > 3 else 0.0
    c0, c1, c2, c3 = c[0], c[1], c[2], c[3]
    in0, in1, in2, in3 = c0 > 0.0, c1 > 0.0, c2 > 0.0, c3 > 0.0
    added = -1
    for _ in range(50):
        h10, h20, h21 = _if(in0 & in1, h[1, 0]), _if(in0 & in2, h[2, 0]), _if(in1 & in2, h[2, 1])
        h30, h31, h32 = _if(in0 & in3, h[3, 0]), _if(in1 & in3, h[3, 1]), _if(in2 & in3, h[3, 2])
        d0 = _inverse(in0, h[0, 0])
        l10, l20, l30 = h10 * d0, h20 * d0, h30 * d0
        d1 = _inverse(in1, h[1, 1] - l10 * h10)
        h21, h31 = h21 - l20 * h10, h31 - l30 * h10
        l21, l31 = h21 * d1, h31 * d1
        d2 = _inverse(in2, h[2, 2] - l20 * h20 - l21 * h21)
        h32 = h32 - l30 * h20 - l31 * h21
        l32 = h32 * d2
        d3 = _inverse(in3, h[3, 3] - l30 * h30 - l31 * h31 - l32 * h32)
        z0 = _if(in0, b0)
        z1 = _if(in1, b1) - l10 * z0
        z2 = _if(in2, b2) - l20 * z0 - l21 * z1
        z3 = (_if(in3, b3) - l30 * z0 - l31 * z1 - l32 * z2) * d3
        z2 = z2 * d2 - l32 * z3
        z1 = z1 * d1 - l21 * z2 - l31 * z3
        z0 = z0 * d0 - l10 * z1 - l20 * z2 - l30 * z3
        length, blocking = 2.0, -1
        if in0 and z0 <= 0.0:
            length, blocking = c0 / (c0 - z0) if c0 > 0.0 else 0.0, 0
        if in1 and z1 <= 0.0:
            length, blocking = _first(length, blocking, c1, z1, 1)
        if in2 and z2 <= 0.0:
            length, blocking = _first(length, blocking, c2, z2, 2)
        if in3 and z3 <= 0.0:
            length, blocking = _first(length, blocking, c3, z3, 3)
        if blocking >= 0:
            c0 = _if(in0 and blocking != 0, c0 + length * (z0 - c0))
            c1 = _if(in1 and blocking != 1, c1 + length * (z1 - c1))
            c2 = _if(in2 and blocking != 2, c2 + length * (z2 - c2))
            c3 = _if(in3 and blocking != 3, c3 + length * (z3 - c3))
            in0, in1, in2, in3 = in0 & (c0 > 0.0), in1 & (c1 > 0.0), in2 & (c2 > 0.0), in3 & (c3 > 0.0)
            if blocking == added and length == 0.0:
                break  # rounding alone asked for this component
            continue
        c0, c1, c2, c3 = z0, z1, z2, z3
        if in0 and in1 and in2 and in3:
            break
        best, added = 1.0, -1
        if not in0:
            pull = b0 - h[1, 0] * z1 - h[2, 0] * z2 - h[3, 0] * z3
            best, added = _best(best, added, pull, linear[0] + step.gradient[0], 0)
        if not in1 and n > 1:
            pull = b1 - h[1, 0] * z0 - h[2, 1] * z2 - h[3, 1] * z3
            best, added = _best(best, added, pull, linear[1] + step.gradient[1], 1)
        if not in2 and n > 2:
            pull = b2 - h[2, 0] * z0 - h[2, 1] * z1 - h[3, 2] * z3
            best, added = _best(best, added, pull, linear[2] + step.gradient[2], 2)
        if not in3 and n > 3:
            pull = b3 - h[3, 0] * z0 - h[3, 1] * z1 - h[3, 2] * z2
            best, added = _best(best, added, pull, linear[3] + step.gradient[3], 3)
        if added < 0:
            break
        in0, in1, in2, in3 = in0 | (added == 0), in1 | (added == 1), in2 | (added == 2), in3 | (added == 3)
    c[0], c[1], c[2], c[3] = c0, c1, c2, c3


@inlined
def _if(inside: Any, value: float) -> float:
    return value if inside else 0.0


@inlined
def _inverse(inside: Any, pivot: float) -> float:
    return 1.0 / (max(pivot, 1e-300) if inside else 1.0)


@inlined
def _first(length: float, blocking: int, c: float, z: float, k: int) -> tuple[float, int]:
    """The component that reaches zero first on the way to z."""
    ratio = c / (c - z) if c > 0.0 else 0.0
    return (ratio, k) if ratio < length else (length, blocking)


@inlined
def _best(best: float, found: int, pull: float, level: float, k: int) -> tuple[float, int]:
    """The component that would lower the objective most."""
    level = max(SMALL * level, 1e-300)
    return (pull / level, k) if pull > best * level else (best, found)


@lean
def _wanted(step: Any, linear: Any, members: int, multiplier: float) -> int:
    """The component outside the set that would lower the objective most, or -1 at the optimum."""
    h, order = step.hessian, step.order
    best, found = 1.0, -1
    for k in range(linear.shape[0]):
        outside = True
        pull = step.right[k] - multiplier
        for i in range(members):
            j = order[i]
            outside = outside and j != k
            pull -= (h[k, j] if k > j else h[j, k]) * step.z[i]
        level = max(SMALL * (linear[k] + step.gradient[k] + abs(multiplier)), 1e-300)
        if outside and pull > best * level:
            best, found = pull / level, k
    return found


@lean
def _solve_on(step: Any, members: int, factored: int, shift: float) -> float:
    """Solve ``H z = right`` on the members of the set, with ``sum z = 1`` on the simplex; gives its multiplier.

    By ``H = L D L'``, without roots. The first ``factored`` members have their rows of it already.
    """
    h, b, z, order, factors, forward, ones = (
        step.hessian,
        step.right,
        step.z,
        step.order,
        step.factors,
        step.forward,
        step.ones,
    )
    for i in range(factored, members):
        a = order[i]
        pivot, total, one = h[a, a] + shift, b[a] + shift, 1.0
        for j in range(i):
            k = order[j]
            part = (h[a, k] if a > k else h[k, a]) + shift
            for m in range(j):
                part -= factors[i, m] * factors[m, j]
            factors[j, i] = part
            part *= factors[j, j]
            factors[i, j] = part
            pivot -= part * factors[j, i]
            total -= part * forward[j]
            if shift > 0.0:
                one -= part * ones[j]
        factors[i, i] = 1.0 / max(pivot, 1e-300)
        forward[i], ones[i] = total, one
    for i in range(members - 1, -1, -1):
        total = forward[i] * factors[i, i]
        for k in range(i + 1, members):
            total -= factors[k, i] * z[k]
        z[i] = total
    return _onto_simplex(step, members) if shift > 0.0 else 0.0


@lean
def _onto_simplex(step: Any, members: int) -> float:
    """Move z along the solution for a right-hand side of ones, to a sum of one; gives how far."""
    factors, z, direction = step.factors, step.z, step.direction
    reach, excess = 0.0, -1.0
    for i in range(members - 1, -1, -1):
        total = step.ones[i] * factors[i, i]
        for k in range(i + 1, members):
            total -= factors[k, i] * direction[k]
        direction[i] = total
        reach += total
        excess += z[i]
    multiplier = excess / reach
    for i in range(members):
        z[i] -= multiplier * direction[i]
    return float(multiplier)
