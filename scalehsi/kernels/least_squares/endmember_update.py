"""Update of the endmembers from the sums of a pass, ``N = c' x`` (K, E) and ``M = c' c`` (K, K), without the data.

The updates minimise ``-<N, s> + 1/2 <M, s s'>`` over ``s``, with the constraint or penalty of each function. If the
abundances have a cost, spectra could grow to make them small, so they keep unit length; then the best spectrum of one
component for fixed others is its clipped gradient scaled to that length (Muto and Shiga 2020,
doi:10.1093/jmicro/dfz036, eq. 12).
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.quadratic.nnls import nnls

MAX_SWEEPS: Final = 30
SWEEP_TOLERANCE: Final = 1e-7
"""Sweeps end when no value of the unit-length spectra changes by more."""
MAX_GRADIENT_STEPS: Final = 200


def least_squares(n: Float, m: Float, s: Float, *, free: Any = None) -> Float:
    """Compute the best non-negative ``s``, exactly, channel by channel.

    Parameters
    ----------
    n : array, shape (K, E)
        N of the pass.
    m : array, shape (K, K)
        M of the pass.
    s : array, shape (K, E)
        Endmembers of the pass. A component that no pixel uses keeps its spectrum.
    free : array of bool, shape (K,), optional
        Components that may change; the others are fixed.

    Returns
    -------
    array, shape (K, E)
    """
    change = np.diag(m) > 0
    if free is not None:
        change &= free
    new: Float = np.array(s, dtype=np.float64)
    if not change.any():
        return new
    fixed = ~change
    right = n[change] - m[np.ix_(change, fixed)] @ new[fixed]
    new[change] = nnls(m[np.ix_(change, change)], np.ascontiguousarray(right.T)).T
    return new


def unit_length(n: Float, m: Float, s: Float, *, free: Any = None, own: Any = None) -> Float:
    """Improve ``s`` with rows of unit length, by sweeps over the components; each is exact for fixed others.

    Parameters
    ----------
    n, m, s, free
        As in `least_squares`; rows of ``s`` have unit length.
    own : array of bool, shape (K,), optional
        Components with given abundances, whose spectra have the length that fits the data.

    Returns
    -------
    array, shape (K, E)
    """
    new = np.ascontiguousarray(s, dtype=np.float64).copy()
    change = np.ones(len(s), dtype=bool) if free is None else np.asarray(free, dtype=bool)
    change = change & (np.diag(m) > 0)
    any_length = np.zeros(len(s), dtype=bool) if own is None else np.asarray(own, dtype=bool)
    _unit_sweeps(np.ascontiguousarray(n), np.ascontiguousarray(m), change, any_length, new)
    return new


@numba.njit(cache=True, nogil=True)
def _unit_sweeps(n: Any, m: Any, free: Any, own: Any, s: Any) -> None:
    """Sweep over the rows of ``s`` (K, E) in place; the other arguments as in `unit_length`."""
    rows, channels = s.shape
    new = np.empty(channels)
    for _ in range(MAX_SWEEPS):
        moved = 0.0
        for k in range(rows):
            if not free[k]:
                continue
            new[:] = n[k]
            for j in range(rows):
                if j != k:
                    for e in range(channels):
                        new[e] -= m[k, j] * s[j, e]
            length = 0.0
            for e in range(channels):
                new[e] = max(new[e], 0.0)
                length += new[e] * new[e]
            if length <= 0.0 and not own[k]:
                continue  # the others explain the data: this component keeps its spectrum
            length = m[k, k] if own[k] else np.sqrt(length)
            for e in range(channels):
                moved = max(moved, abs(new[e] / length - s[k, e]))
                s[k, e] = new[e] / length
        if moved <= SWEEP_TOLERANCE:
            return


def roughness(s: Float) -> Float:
    """Sum of the squared second differences of each row over 16, shape (K,); of an alternating row it is its power."""
    if s.shape[1] < 3:
        return np.zeros(len(s))
    return np.asarray((np.diff(s, 2, axis=1) ** 2).sum(axis=1) / 16)


def smooth(n: Float, m: Float, s: Float, *, strength: float, free: Any = None) -> Float:
    """Improve ``s`` with a penalty on roughness, ``strength / 2 sum_k M_kk |D s_k|^2``.

    D is the second difference along the channels over four; its largest eigenvalue is one. The weight ``M_kk`` makes
    the penalty independent of the scale of a spectrum relative to its map, so ``strength`` has no unit; 1 roughly
    halves an alternation from channel to channel.

    Parameters
    ----------
    n, m, s, free
        As in `least_squares`.
    strength : float
        Not negative; 0 is no penalty.

    Returns
    -------
    array, shape (K, E)
        By accelerated projected gradient (Beck and Teboulle 2009, doi:10.1137/080716542), at most 200 steps; its loss
        is not above that of ``s``.
    """
    change = (np.ones(len(s), dtype=bool) if free is None else np.asarray(free, dtype=bool))[:, None]
    # Scaled so that all maps have the same power; otherwise the strongest would set the step length for all.
    unit = np.sqrt(np.where(np.diag(m) > 0, np.diag(m), 1.0))[:, None]
    n, m, given, s = n / unit, m / (unit * unit.T), s, s * unit
    weight = strength * np.diag(m)[:, None]
    lipschitz = float(np.linalg.eigvalsh(m)[-1] + weight.max(initial=0.0)) or 1.0

    def gradient(at: Float) -> Float:
        return np.asarray(m @ at - n + weight * _fourth_difference(at))

    def value(at: Float) -> float:
        return float(0.5 * np.sum(m * (at @ at.T)) - np.sum(n * at) + 0.5 * np.sum(weight[:, 0] * roughness(at)))

    new, extrapolated, momentum = np.array(s, dtype=np.float64), np.array(s, dtype=np.float64), 1.0
    best, lowest = new, value(new)
    for _ in range(MAX_GRADIENT_STEPS):
        step = np.where(change, np.maximum(extrapolated - gradient(extrapolated) / lipschitz, 0.0), new)
        next_momentum = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        extrapolated = step + (momentum - 1) / next_momentum * (step - new)
        moved = float(np.abs(step - new).max(initial=0.0))
        new, momentum = step, next_momentum
        loss = value(new)
        if loss < lowest:
            best, lowest = new, loss
        else:
            extrapolated, momentum = new, 1.0
        if moved <= 1e-9 * float(new.max(initial=0.0)):
            break
    return np.where(change, best / unit, given)


def _fourth_difference(s: Float) -> Float:
    """Compute ``D' D s`` along the channels, where D is the second difference over four."""
    out = np.zeros_like(s)
    if s.shape[1] < 3:
        return out
    second = np.diff(s, 2, axis=1) / 16
    out[:, :-2] += second
    out[:, 1:-1] -= 2 * second
    out[:, 2:] += second
    return out
