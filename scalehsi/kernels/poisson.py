"""Counts: the Poisson likelihood, ``sum c s - x log(c s)``, which is the generalised Kullback-Leibler divergence.

Only channels with counts are touched, because the sum of the model needs none: ``sum_e (c s)_e = c . t`` with
``t_k = sum_e s_ke``. A pass solves the abundances of each pixel to the optimum, by a few steps of expectation
maximisation and then Newton, and adds up what a Newton step of ``s`` needs: per channel a gradient and a K x K Hessian.
A Newton step that goes past the lowest point of its line is shortened, not damped by its decrement as is usual for
self-concordant functions: that bound depends on the unit of the data, and holds back most where counts are many.
Reference for the Poisson factorisation: Lee and Seung 2001.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numba
import numpy as np

from scalehsi import arrays
from scalehsi.kernels.nnls import solve_one

Float = np.ndarray[Any, np.dtype[np.float64]]

EM_STEPS: Final = 3
NEWTON_STEPS: Final = 24
HALVINGS: Final = 40
PAST: Final = 0.5
"""A step may end where the objective rises along it by at most so much of the slope that it began with."""
DECREMENT: Final = 1e-10
"""Newton stops when the predicted gain, relative to the counts of the pixel, is below this."""
TINY: Final = 1e-12
"""Smallest value of an endmember relative to its mean: where a count meets no endmember."""
DARK: Final = 1e-140
"""Smallest value of the model: its square still has an inverse."""
STRIP: Final = 64
"""Pixels a strip: its copy stays in cache, and kernels are compiled for one dtype only."""
FLOOR: Final = 0.02
"""A Newton step of an endmember value goes no lower than this fraction of its multiplicative update."""


def update(x: arrays.Array, *, s: Float) -> tuple[dict[str, Any], dict[str, Any]]:
    """One pass over a block: the sums that the next ``s`` and the objective need.

    Parameters
    ----------
    x : array, shape (P, E)
        Counts, any real dtype, none negative. Cost is by the channels that hold counts, not by E.
    s : array, shape (K, E)

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``N`` (E, K) = sum_p c x / y, ``H`` (E, K (K + 1) / 2) = sum_p c c' x / y^2 (lower triangle),
        ``C`` (K,) = sum_p c, ``likelihood`` = sum x log y.
    """
    st = _columns(s)
    channels, n = st.shape
    big_n, big_h = np.zeros((channels, n)), np.zeros((channels, n * (n + 1) // 2))
    c = np.empty((x.shape[0], n))
    likelihood = sum(_pass(strip, st, st.sum(axis=0), c[part], big_n, big_h) for part, strip in _strips(x))
    return {}, {"N": big_n, "H": big_h, "C": c.sum(axis=0), "likelihood": likelihood}


def abundances(x: arrays.Array, *, s: Float, residual: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last pass over a block: maximum-likelihood abundances, and what the model leaves.

    Returns
    -------
    pixels : dict
        ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the channels.
    sums : dict
        ``residual_spectrum`` (E,) sum of data minus model, ``likelihood``, ``C``.
    """
    st = _columns(s)
    c = np.empty((x.shape[0], st.shape[1]))
    rms, spectrum = np.empty(x.shape[0], dtype=np.float32), np.zeros(st.shape[0])
    none = np.zeros((0, 0))
    likelihood = 0.0
    for part, strip in _strips(x):
        likelihood += _pass(strip, st, st.sum(axis=0), c[part], none, none)
        if residual:
            _residual(strip, st, c[part], rms[part], spectrum)
    pixels: dict[str, Any] = {"abundances": c.astype(np.float32)}
    sums: dict[str, Any] = {"likelihood": likelihood, "C": c.sum(axis=0)}
    return (pixels | {"residual": rms}, sums | {"residual_spectrum": spectrum}) if residual else (pixels, sums)


def objective(sums: dict[str, Float], s: Float, constant: float) -> float:
    """The Kullback-Leibler divergence at the point of the pass; ``constant`` is ``sum x log x - x`` of the cube."""
    return float(np.dot(sums["C"], s.sum(axis=1)) - sums["likelihood"] + constant)


def improve(sums: dict[str, Float], s: Float) -> tuple[Float, Float]:
    """From the sums of a pass at ``s``: two better endmember matrices.

    Returns
    -------
    newton : array, shape (K, E)
        One Newton step channel by channel, bounded from below: several times faster than the other, not safe alone.
    multiplicative : array, shape (K, E)
        ``s N / C``: never worse than ``s``.
    """
    n, c = sums["N"], sums["C"]
    used = c > 0
    ratio = np.where(used, n / np.where(used, c, 1.0), 1.0)
    st = _columns(s)
    em = st * ratio
    newton = em.copy()
    _newton_channels(st, em, n, sums["H"], c, newton)
    newton[:, ~used] = st[:, ~used]
    return np.ascontiguousarray(newton.T), np.ascontiguousarray(em.T)


def _strips(x: arrays.Array) -> Iterator[tuple[slice, Float]]:
    """Rows as native, writable float64, whatever the file's byte order and however the block came here."""
    rows = arrays.to_host(x)
    for start in range(0, rows.shape[0], STRIP):
        part = slice(start, min(start + STRIP, rows.shape[0]))
        yield part, np.array(rows[part], dtype=np.float64, order="C")


def _columns(s: Float) -> Float:
    """``s`` as (E, K) rows in memory, nowhere zero but for empty endmembers, so that no count meets a model of nothing.

    An empty endmember stays empty: raised to a flat one, however faint, it would be given all flat counts.
    """
    st: Float = np.ascontiguousarray(np.asarray(s, dtype=np.float64).T)
    return np.asarray(np.maximum(st, TINY * st.mean(axis=0)))


@numba.njit(cache=True, nogil=True)
def _pass(x: Any, st: Any, t: Any, c: Any, big_n: Any, big_h: Any) -> float:
    """Abundances of every row into ``c``; sums into ``big_n`` and ``big_h`` unless they are empty."""
    rows, channels = x.shape
    n = st.shape[1]
    where = np.empty(channels, dtype=np.int64)
    counts, gathered = np.empty(channels), np.empty((channels, n))
    y, along = np.empty(channels), np.empty(channels)
    gradient, hessian, right = np.empty(n), np.empty((n, n)), np.empty(n)
    passive, order = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.int64)
    chol, z, target, before = np.empty((n, n)), np.empty(n), np.empty(n), np.empty(n)
    likelihood = 0.0
    for p in range(rows):
        m, total = 0, 0.0
        for e in range(channels):
            value = x[p, e]
            if value > 0:
                where[m], counts[m] = e, value
                total += value
                for k in range(n):
                    gathered[m, k] = st[e, k]
                m += 1
        now = c[p]
        if m == 0:
            now[:] = 0.0
            continue
        for k in range(n):
            now[k] = total / (n * t[k]) if t[k] > 0.0 else 0.0
        for _ in range(EM_STEPS):
            _model(gathered, now, y, m)
            for k in range(n):
                gradient[k] = 0.0
            for i in range(m):
                r = counts[i] / y[i]
                for k in range(n):
                    gradient[k] += r * gathered[i, k]
            for k in range(n):
                if t[k] > 0.0:
                    now[k] *= gradient[k] / t[k]
        _model(gathered, now, y, m)
        _derivatives(gathered, counts, y, m, gradient, hessian)
        for _ in range(NEWTON_STEPS):
            # Minimise g.d + 1/2 d'Hd over now + d >= 0, written for the new value itself.
            for k in range(n):
                hessian[k, k] *= 1.0 + 1e-10
                right[k] = gradient[k] - t[k]
                for j in range(n):
                    right[k] += hessian[k, j] * now[j]
            target[:], before[:] = now, now
            solve_one(hessian, right, target, passive, chol, z, order)
            decrement, slope = 0.0, 0.0
            for k in range(n):
                slope += (target[k] - now[k]) * (t[k] - gradient[k])
                for j in range(n):
                    decrement += (target[k] - now[k]) * hessian[k, j] * (target[j] - now[j])
            if decrement < DECREMENT * total or not slope < 0.0:
                now[:] = target
                break
            now[:] = target
            _model(gathered, now, y, m)
            _derivatives(gathered, counts, y, m, gradient, hessian)
            end = 0.0
            for k in range(n):
                end += (target[k] - before[k]) * (t[k] - gradient[k])
            if end > -PAST * slope:
                step = _shorter(gathered, counts, before, target, t, slope, y, along, m)
                for k in range(n):
                    now[k] = before[k] + step * (target[k] - before[k])
                _model(gathered, now, y, m)
                _derivatives(gathered, counts, y, m, gradient, hessian)
        _model(gathered, now, y, m)
        for i in range(m):
            likelihood += counts[i] * np.log(y[i])
        if big_n.shape[0] > 0:
            for i in range(m):
                e = where[i]
                r = counts[i] / y[i]
                q = r / y[i]
                index = 0
                for k in range(n):
                    big_n[e, k] += r * now[k]
                    for j in range(k + 1):
                        big_h[e, index] += q * now[k] * now[j]
                        index += 1
    return likelihood


@numba.njit(cache=True, nogil=True)
def _shorter(
    gathered: Any, counts: Any, before: Any, target: Any, t: Any, slope: float, y: Any, along: Any, m: int
) -> float:
    """How far to go from ``before`` to ``target``: to where the slope of the objective is small, found by halving."""
    n = before.shape[0]
    _model(gathered, before, y, m)
    level = 0.0
    for k in range(n):
        level += (target[k] - before[k]) * t[k]
    for i in range(m):
        along[i] = 0.0
        for k in range(n):
            along[i] += (target[k] - before[k]) * gathered[i, k]
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        step = 0.5 * (low + high)
        end = level
        for i in range(m):
            end -= counts[i] * along[i] / max(y[i] + step * along[i], DARK)
        if end > -PAST * slope:
            high = step
        elif end < PAST * slope:
            low = step
        else:
            return step
    return low


@numba.njit(cache=True, nogil=True)
def _model(gathered: Any, now: Any, y: Any, m: int) -> None:
    n = now.shape[0]
    for i in range(m):
        total = 0.0
        for k in range(n):
            total += now[k] * gathered[i, k]
        y[i] = max(total, DARK)


@numba.njit(cache=True, nogil=True)
def _derivatives(gathered: Any, counts: Any, y: Any, m: int, gradient: Any, hessian: Any) -> None:
    """``gradient_k = sum (x / y) s_k`` and ``hessian = sum (x / y^2) s s'``."""
    n = gradient.shape[0]
    for k in range(n):
        gradient[k] = 0.0
        for j in range(n):
            hessian[k, j] = 0.0
    for i in range(m):
        r = counts[i] / y[i]
        q = r / y[i]
        for k in range(n):
            gradient[k] += r * gathered[i, k]
            for j in range(k + 1):
                hessian[k, j] += q * gathered[i, k] * gathered[i, j]
    for k in range(n):
        for j in range(k):
            hessian[j, k] = hessian[k, j]


@numba.njit(cache=True, nogil=True)
def _residual(x: Any, st: Any, c: Any, rms: Any, spectrum: Any) -> None:
    rows, channels = x.shape
    n = st.shape[1]
    for p in range(rows):
        square = 0.0
        for e in range(channels):
            rest = float(x[p, e])
            for k in range(n):
                rest -= c[p, k] * st[e, k]
            spectrum[e] += rest
            square += rest * rest
        rms[p] = np.sqrt(square / channels)


@numba.njit(cache=True, nogil=True)
def _newton_channels(st: Any, em: Any, big_n: Any, big_h: Any, c: Any, new: Any) -> None:
    """One Newton step a channel: minimise the quadratic model over values of at least FLOOR of the multiplicative."""
    channels, n = st.shape
    hessian, right, value = np.empty((n, n)), np.empty(n), np.empty(n)
    passive, order = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.int64)
    chol, z = np.empty((n, n)), np.empty(n)
    for e in range(channels):
        index, top = 0, 0.0
        for k in range(n):
            for j in range(k + 1):
                hessian[k, j] = big_h[e, index]
                hessian[j, k] = big_h[e, index]
                index += 1
            top = max(top, hessian[k, k])
        if top <= 0.0:
            continue  # no counts here: the multiplicative value, zero, stands
        for k in range(n):
            hessian[k, k] += 1e-9 * top
        for k in range(n):
            right[k] = big_n[e, k] - c[k]
            for j in range(n):
                right[k] += hessian[k, j] * (st[e, j] - FLOOR * em[e, j])
            value[k] = max(st[e, k] - FLOOR * em[e, k], 0.0)
        solve_one(hessian, right, value, passive, chol, z, order)
        for k in range(n):
            new[e, k] = FLOOR * em[e, k] + value[k]
