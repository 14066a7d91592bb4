"""Steps of the endmembers from the sums of a pass, ``N = c' x`` (K, E) and ``M = c' c`` (K, K). Small: no data.

Minimised over ``s`` is ``-<N, s> + 1/2 <M, s s'>`` and what is asked besides. Where abundances carry a cost of their
own, spectra must not grow to make them small, so they keep unit length; then the best spectrum for one component, the
others held, is its clipped gradient scaled to that length (Muto and Shiga 2020, doi:10.1093/jmicro/dfz036, eq. 12).
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.quadratic.nnls import nnls

SWEEPS: Final = 30
CHANGE: Final = 1e-7
STEPS: Final = 200


def least_squares(n: Float, m: Float, s: Float, *, free: Any = None) -> Float:
    """The best non-negative ``s``: exact, channel by channel.

    Parameters
    ----------
    n : array, shape (K, E)
    m : array, shape (K, K)
    s : array, shape (K, E)
        Where the pass was. A component that no pixel uses keeps its spectrum.
    free : array of bool, shape (K,), optional
        Components that may change; the others are held as they are.

    Returns
    -------
    array, shape (K, E)
    """
    open_ = np.diag(m) > 0
    if free is not None:
        open_ &= free
    new: Float = np.array(s, dtype=np.float64)
    if not open_.any():
        return new
    held = ~open_
    right = n[open_] - m[np.ix_(open_, held)] @ new[held]
    new[open_] = nnls(m[np.ix_(open_, open_)], np.ascontiguousarray(right.T)).T
    return new


def unit_length(n: Float, m: Float, s: Float, *, free: Any = None, own: Any = None) -> Float:
    """Better ``s`` of unit length rows: sweeps over the components, each exact for the others.

    Parameters
    ----------
    n, m, s, free
        As in `least_squares`; rows of ``s`` have unit length.
    own : array of bool, shape (K,), optional
        Components whose abundances are given, so that their spectra have the length that the data ask for.

    Returns
    -------
    array, shape (K, E)
    """
    new = np.ascontiguousarray(s, dtype=np.float64).copy()
    change = np.ones(len(s), dtype=bool) if free is None else np.asarray(free, dtype=bool)
    change = change & (np.diag(m) > 0)
    long = np.zeros(len(s), dtype=bool) if own is None else np.asarray(own, dtype=bool)
    _unit_sweeps(np.ascontiguousarray(n), np.ascontiguousarray(m), change, long, new)
    return new


@numba.njit(cache=True, nogil=True)
def _unit_sweeps(n: Any, m: Any, free: Any, own: Any, s: Any) -> None:
    rows, channels = s.shape
    new = np.empty(channels)
    for _ in range(SWEEPS):
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
                continue  # the others explain it all: it keeps its spectrum, and the abundances its share
            length = m[k, k] if own[k] else np.sqrt(length)
            for e in range(channels):
                moved = max(moved, abs(new[e] / length - s[k, e]))
                s[k, e] = new[e] / length
        if moved <= CHANGE:
            return


def bend(s: Float) -> Float:
    """Sum of the squared second differences of each row over 16, shape (K,): what alternates counts its own power."""
    if s.shape[1] < 3:
        return np.zeros(len(s))
    return np.asarray((np.diff(s, 2, axis=1) ** 2).sum(axis=1) / 16)


def smooth(n: Float, m: Float, s: Float, *, strength: float, free: Any = None) -> Float:
    """Better ``s`` with ``strength / 2 sum_k M_kk |D s_k|^2`` added, D the second difference along the channels
    over four (its largest eigenvalue is one).

    Weighed by ``M_kk`` the penalty does not change when a spectrum and its map trade a factor, so ``strength`` has no
    unit: 1 halves, roughly, what alternates from channel to channel.

    Parameters
    ----------
    n, m, s, free
        As in `least_squares`.
    strength : float

    Returns
    -------
    array, shape (K, E)
        By accelerated projected gradient (Beck and Teboulle 2009, doi:10.1137/080716542), at most 200 steps; never
        worse than ``s``.
    """
    change = (np.ones(len(s), dtype=bool) if free is None else np.asarray(free, dtype=bool))[:, None]
    # In units in which all maps have the same power, or the step would be as short as the strongest of them asks for.
    unit = np.sqrt(np.where(np.diag(m) > 0, np.diag(m), 1.0))[:, None]
    n, m, given, s = n / unit, m / (unit * unit.T), s, s * unit
    weight = strength * np.diag(m)[:, None]
    lipschitz = float(np.linalg.eigvalsh(m)[-1] + weight.max(initial=0.0)) or 1.0

    def gradient(at: Float) -> Float:
        return np.asarray(m @ at - n + weight * _fourth(at))

    def value(at: Float) -> float:
        return float(0.5 * np.sum(m * (at @ at.T)) - np.sum(n * at) + 0.5 * np.sum(weight[:, 0] * bend(at)))

    new, ahead, pace = np.array(s, dtype=np.float64), np.array(s, dtype=np.float64), 1.0
    best, lowest = new, value(new)
    for _ in range(STEPS):
        step = np.where(change, np.maximum(ahead - gradient(ahead) / lipschitz, 0.0), new)
        faster = 0.5 * (1 + np.sqrt(1 + 4 * pace**2))
        ahead = step + (pace - 1) / faster * (step - new)
        moved = float(np.abs(step - new).max(initial=0.0))
        new, pace = step, faster
        now = value(new)
        if now < lowest:
            best, lowest = new, now
        else:
            ahead, pace = new, 1.0
        if moved <= 1e-9 * float(new.max(initial=0.0)):
            break
    return np.where(change, best / unit, given)


def _fourth(s: Float) -> Float:
    """``D' D s`` along the channels, D the second difference over four."""
    out = np.zeros_like(s)
    if s.shape[1] < 3:
        return out
    second = np.diff(s, 2, axis=1) / 16
    out[:, :-2] += second
    out[:, 1:-1] -= 2 * second
    out[:, 2:] += second
    return out
