"""Update the Poisson abundances of one pixel, by expectation maximisation or to the minimum of a quadratic model.

The quadratic programme differs from that of `scalehsi.kernels.quadratic.nnls` because its matrix changes with every
step. An active-set method solves it, starting from the components in use. The factors of the matrix are kept from one
set to the next. Dropping a component leaves the rows of those before it unchanged, and adding one appends a row.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np

from scalehsi.kernels.compiled import inlined, lean

ENTRY_TOLERANCE: Final = 1e-12
"""A component at zero joins the active set if its gradient exceeds this, relative to the terms of the gradient."""


class StepWorkspace(NamedTuple):
    """Workspace for the steps of one pixel in K components, of which there are more with the empty ones.

    now, before: abundances after and before the step, with the empty components, as are gradient and hessian (lower
    triangle). right: right-hand side of the quadratic model. z: solution on the members of the active set. factors: L
    below the diagonal, the inverse of D on it, L D above. forward, ones: intermediate solutions for the right-hand
    sides ``right`` and one. direction: solution for the right-hand side one. order: the members.
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
def step_workspace(n: int, wide: int) -> StepWorkspace:
    """Workspace for steps in K = n components, of which there are ``wide`` with empty ones."""
    return StepWorkspace(
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
def em_step(step: Any, linear: Any, ridge: Any, simplex: int) -> None:
    """Take one step of expectation maximisation, from ``step.now`` and ``step.gradient`` = sum x s / y.

    Assigns the counts to the components as the model predicts, then minimises ``l c + ridge c^2 / 2 - a log c`` for the
    a counts of each component. linear, ridge (K,): l and the ridge. simplex: 0 or 1.
    """
    now, gradient = step.now, step.gradient
    if simplex:
        _em_step_on_simplex(now, gradient, linear)
        return
    for k in range(linear.shape[0]):
        counts = now[k] * gradient[k]
        if ridge[k] > 0.0:
            counts = 2.0 * counts / (linear[k] + np.sqrt(linear[k] * linear[k] + 4.0 * ridge[k] * counts))
        else:
            counts /= linear[k]
        now[k] = counts if counts > 0.0 else 0.0  # 0 / 0 for an empty endmember


@lean
def _em_step_on_simplex(now: Any, gradient: Any, linear: Any) -> None:
    """`em_step` with a Lagrange multiplier added to ``linear``, so that the sum of ``now`` is one; ignores a ridge."""
    n = linear.shape[0]
    top = -1
    for k in range(n):
        now[k] *= gradient[k]
        # These differences are exact: an abundance far below the rounding of l may explain all counts of a pixel.
        if now[k] > 0.0 and (top < 0 or now[k] - now[top] > linear[k] - linear[top]):
            top = k
    if top < 0:
        for k in range(n):
            now[k] = 1.0 / n
        return
    # The sum is a falling and convex function of the multiplier, so Newton's method cannot overshoot from a start where
    # the sum exceeds one. There the top component alone has abundance one; ``level`` is its l plus the multiplier.
    level = now[top]
    for _ in range(60):
        excess, fall = -1.0, 0.0
        for k in range(n):
            if now[k] > 0.0:
                divisor = level + (linear[k] - linear[top])
                part = now[k] / divisor
                excess += part
                fall += part / divisor
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
def solve_quadratic(step: Any, linear: Any, simplex: int) -> None:
    """Minimise ``1/2 c'H c - right'c`` over ``c >= 0``, and ``sum c = 1`` if ``simplex`` is 1, by an active set.

    ``step.now`` holds a feasible start, whose nonzero components form the first set, and on return the solution.
    ``linear`` (K,) and ``step.gradient`` are the terms whose difference must vanish; they set the tolerance.
    """
    c, h, b, z, order = step.now, step.hessian, step.right, step.z, step.order
    n = b.shape[0]
    shift = 0.0
    if simplex:
        # On the simplex a constant added to the matrix does not move the minimum, and makes a singular matrix regular.
        for k in range(n):
            shift = max(shift, h[k, k])
        shift = shift if shift > 0.0 else 1.0
    members, factored, added = 0, 0, -1
    for k in range(n):
        if c[k] > 0.0:
            order[members] = k
            members += 1
    for _ in range(10 * n + 10):
        multiplier = _solve_members(step, members, factored, shift)
        factored = members
        # Fraction of the way to z at which the first component reaches zero.
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
                return  # only rounding made this component join
            continue
        for i in range(members):
            c[order[i]] = z[i]
        added = _component_to_add(step, linear, members, multiplier) if members < n else -1
        if added < 0:
            return
        order[members] = added
        members += 1


@inlined
def solve_quadratic4(step: Any, linear: Any) -> None:
    """`solve_quadratic` without the simplex for K up to 4, in registers: three times faster.

    The matrix always has four rows; a component outside the set has its row of the unit matrix. ``linear`` (K,).
    """
    c, h, b, n = step.now, step.hessian, step.right, linear.shape[0]
    b0, b1 = b[0], b[1] if n > 1 else 0.0
    b2, b3 = b[2] if n > 2 else 0.0, b[3] if n > 3 else 0.0
    c0, c1, c2, c3 = c[0], c[1], c[2], c[3]
    in0, in1, in2, in3 = c0 > 0.0, c1 > 0.0, c2 > 0.0, c3 > 0.0
    added = -1
    for _ in range(50):
        h10, h20, h21 = _select(in0 & in1, h[1, 0]), _select(in0 & in2, h[2, 0]), _select(in1 & in2, h[2, 1])
        h30, h31, h32 = _select(in0 & in3, h[3, 0]), _select(in1 & in3, h[3, 1]), _select(in2 & in3, h[3, 2])
        d0 = _inverse_pivot(in0, h[0, 0])
        l10, l20, l30 = h10 * d0, h20 * d0, h30 * d0
        d1 = _inverse_pivot(in1, h[1, 1] - l10 * h10)
        h21, h31 = h21 - l20 * h10, h31 - l30 * h10
        l21, l31 = h21 * d1, h31 * d1
        d2 = _inverse_pivot(in2, h[2, 2] - l20 * h20 - l21 * h21)
        h32 = h32 - l30 * h20 - l31 * h21
        l32 = h32 * d2
        d3 = _inverse_pivot(in3, h[3, 3] - l30 * h30 - l31 * h31 - l32 * h32)
        z0 = _select(in0, b0)
        z1 = _select(in1, b1) - l10 * z0
        z2 = _select(in2, b2) - l20 * z0 - l21 * z1
        z3 = (_select(in3, b3) - l30 * z0 - l31 * z1 - l32 * z2) * d3
        z2 = z2 * d2 - l32 * z3
        z1 = z1 * d1 - l21 * z2 - l31 * z3
        z0 = z0 * d0 - l10 * z1 - l20 * z2 - l30 * z3
        length, blocking = 2.0, -1
        if in0 and z0 <= 0.0:
            length, blocking = c0 / (c0 - z0) if c0 > 0.0 else 0.0, 0
        if in1 and z1 <= 0.0:
            length, blocking = _blocking_component(length, blocking, c1, z1, 1)
        if in2 and z2 <= 0.0:
            length, blocking = _blocking_component(length, blocking, c2, z2, 2)
        if in3 and z3 <= 0.0:
            length, blocking = _blocking_component(length, blocking, c3, z3, 3)
        if blocking >= 0:
            c0 = _select(in0 and blocking != 0, c0 + length * (z0 - c0))
            c1 = _select(in1 and blocking != 1, c1 + length * (z1 - c1))
            c2 = _select(in2 and blocking != 2, c2 + length * (z2 - c2))
            c3 = _select(in3 and blocking != 3, c3 + length * (z3 - c3))
            in0, in1, in2, in3 = in0 & (c0 > 0.0), in1 & (c1 > 0.0), in2 & (c2 > 0.0), in3 & (c3 > 0.0)
            if blocking == added and length == 0.0:
                break  # only rounding made this component join
            continue
        c0, c1, c2, c3 = z0, z1, z2, z3
        if in0 and in1 and in2 and in3:
            break
        best, added = 1.0, -1
        if not in0:
            pull = b0 - h[1, 0] * z1 - h[2, 0] * z2 - h[3, 0] * z3
            best, added = _best_candidate(best, added, pull, abs(linear[0]) + step.gradient[0], 0)
        if not in1 and n > 1:
            pull = b1 - h[1, 0] * z0 - h[2, 1] * z2 - h[3, 1] * z3
            best, added = _best_candidate(best, added, pull, abs(linear[1]) + step.gradient[1], 1)
        if not in2 and n > 2:
            pull = b2 - h[2, 0] * z0 - h[2, 1] * z1 - h[3, 2] * z3
            best, added = _best_candidate(best, added, pull, abs(linear[2]) + step.gradient[2], 2)
        if not in3 and n > 3:
            pull = b3 - h[3, 0] * z0 - h[3, 1] * z1 - h[3, 2] * z2
            best, added = _best_candidate(best, added, pull, abs(linear[3]) + step.gradient[3], 3)
        if added < 0:
            break
        in0, in1, in2, in3 = in0 | (added == 0), in1 | (added == 1), in2 | (added == 2), in3 | (added == 3)
    c[0], c[1], c[2], c[3] = c0, c1, c2, c3


@inlined
def _select(inside: Any, value: float) -> float:
    """The value of a member of the set, else zero."""
    return value if inside else 0.0


@inlined
def _inverse_pivot(inside: Any, pivot: float) -> float:
    """The inverse of the pivot of a member of the set, else one."""
    return 1.0 / (max(pivot, 1e-300) if inside else 1.0)


@inlined
def _blocking_component(length: float, blocking: int, c: float, z: float, k: int) -> tuple[float, int]:
    """The component that reaches zero first on the way to z, and the fraction of the way at which it does.

    length, blocking: the first so far. c, z: abundance of component k, and its value at the end of the way.
    """
    ratio = c / (c - z) if c > 0.0 else 0.0
    return (ratio, k) if ratio < length else (length, blocking)


@inlined
def _best_candidate(best: float, found: int, pull: float, level: float, k: int) -> tuple[float, int]:
    """The component that would lower the objective most, and by how much relative to its tolerance.

    best, found: the best so far. pull, level: negative gradient of component k, and the size of its terms.
    """
    level = max(ENTRY_TOLERANCE * level, 1e-300)
    return (pull / level, k) if pull > best * level else (best, found)


@lean
def _component_to_add(step: Any, linear: Any, members: int, multiplier: float) -> int:
    """The component outside the set that would lower the objective most, or -1 at the optimum.

    linear (K,): size of the terms of the gradient. members: size of the set. multiplier: that of ``sum c = 1``.
    """
    h, order = step.hessian, step.order
    best, found = 1.0, -1
    for k in range(linear.shape[0]):
        outside = True
        pull = step.right[k] - multiplier
        for i in range(members):
            j = order[i]
            outside = outside and j != k
            pull -= (h[k, j] if k > j else h[j, k]) * step.z[i]
        level = max(ENTRY_TOLERANCE * (abs(linear[k]) + step.gradient[k] + abs(multiplier)), 1e-300)
        if outside and pull > best * level:
            best, found = pull / level, k
    return found


@lean
def _solve_members(step: Any, members: int, factored: int, shift: float) -> float:
    """Solve ``H z = right`` on the members of the set, with ``sum z = 1`` on the simplex; return its multiplier.

    Factorises ``H = L D L'``, without square roots. The rows of the first ``factored`` of the ``members`` are still
    valid. shift: constant added to the matrix, above zero on the simplex.
    """
    h, b, z, order = step.hessian, step.right, step.z, step.order
    factors, forward, ones = step.factors, step.forward, step.ones
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
    return _shift_to_simplex(step, members) if shift > 0.0 else 0.0


@lean
def _shift_to_simplex(step: Any, members: int) -> float:
    """Move z along the solution for a right-hand side of ones until its sum is one; return the multiplier."""
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
