"""Power-law and exponential backgrounds by maximum likelihood, from two sums of a window.

The background is ``b_e = A e^(-r l_e)`` with ``l = ln(E / E0)``, ln E0 the mean ln E of the window (power law), or with
``l = (E - E0) / E0``, E0 the mean energy (exponential). The Poisson likelihood of r depends on the data through
``u = sum x l / sum x`` alone: r solves ``u = sum l e^(-rl) / sum e^(-rl)``, and ``A = sum x / sum e^(-rl)``. So r
comes from a table, without iterations and without logarithms of data.

Letters: P pixels, E energies, W channels of the window.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np

from scalehsi.arrays import Float

LOWEST_EXPONENT: Final = -4.0
HIGHEST_EXPONENT: Final = 14.0
NODES: Final = 2001
STEP: Final = (HIGHEST_EXPONENT - LOWEST_EXPONENT) / (NODES - 1)
SMALL_COUNTS: Final = 4096
"""Whole numbers below this have x ln x in a table."""
SUMS: Final = (
    "total",
    "moment",
    "entropy",
    "first_half",
    "logs",
    "log_moment",
    "positive",
    "positive_l",
    "positive_l2",
)
"""Columns of `window_sums`."""


class PowerTable(NamedTuple):
    """Moments of ``e^(-rl)`` over a window, for each of the `NODES` exponents r.

    Attributes
    ----------
    r : array, shape (NODES,)
    u, v : array, shape (NODES,)
        Mean and variance of l.
    log_z : array, shape (NODES,)
        ln of the sum of ``e^(-rl)``.
    """

    r: Float
    u: Float
    v: Float
    log_z: Float


def axis_of(energy: Float, first: int, last: int, *, law: str = "power") -> Float:
    """The coordinate l of every channel; infinite where the energy is not above 0 and the law is a power.

    energy (E,): in any unit. first, last: the window's first channel, and the one after its last. law: "power" or
    "exponential".

    Examples
    --------
    >>> axis_of(np.array([1.0, np.e, np.e**2]), 0, 3).round(6).tolist()
    [-1.0, 0.0, 1.0]
    """
    energy = np.asarray(energy, dtype=np.float64)
    if law == "exponential":
        middle = energy[first:last].mean()
        return np.asarray((energy - middle) / middle)
    logarithm = np.log(np.where(energy > 0, energy, 1.0))
    return np.where(energy > 0, logarithm - logarithm[first:last].mean(), np.inf)


def power_table(l: Float) -> PowerTable:  # noqa: E741 # the letter of the formulas
    """The table of a window with coordinates l (W,)."""
    r = np.linspace(LOWEST_EXPONENT, HIGHEST_EXPONENT, NODES)
    terms = np.exp(-r[:, None] * l)
    z = terms.sum(axis=1)
    u = (terms * l).sum(axis=1) / z
    v = (terms * l**2).sum(axis=1) / z - u**2
    return PowerTable(r, u, v, np.log(z))


def exponent_of(table: PowerTable, u: Float) -> Float:
    """The exponent r of mean coordinates u; the ends of the table for u beyond them, NaN for NaN."""
    return np.interp(u, table.u[::-1], table.r[::-1])


def log_normalisation(table: PowerTable, r: Float) -> Float:
    """ln of the sum of ``e^(-rl)`` over the window at exponents r, to third order from the nearest node."""
    node = nearest_node(r)
    d = r - table.r[node]
    return np.asarray(table.log_z[node] - d * table.u[node] + 0.5 * d * d * table.v[node])


def nearest_node(r: Float) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The number of the node nearest to r; 0 for NaN."""
    place = np.nan_to_num((np.asarray(r) - LOWEST_EXPONENT) / STEP)
    return np.clip(np.rint(place), 0, NODES - 1).astype(np.int64)


def share_over(values: Float, *, box: int) -> Float:
    """Sums over ``box`` x ``box`` neighbours along y and x of values (..., y, x); the boxes are cut at the edges.

    Each sum is added in one order, so that it does not depend on how the maps were computed.
    """
    for axis in (-2, -1):
        half, n = box // 2, values.shape[axis]
        padded = np.zeros((*values.shape[:axis], n + 2 * half, *values.shape[values.ndim + axis + 1 :]))
        np.moveaxis(padded, axis, 0)[half : half + n] = np.moveaxis(values, axis, 0)
        moved = np.moveaxis(padded, axis, 0)
        total = moved[0:n].copy()
        for k in range(1, 2 * half + 1):
            total += moved[k : k + n]
        values = np.moveaxis(total, 0, axis)
    return values


def share_along(values: Float, *, length: int) -> Float:
    """Sums over this many pixels along x, y and both diagonals of values (..., y, x): (4, ..., y, x), cut at the edges.

    Examples
    --------
    >>> share_along(np.ones((3, 3)), length=3)[:, 1, 0].tolist()
    [2.0, 3.0, 2.0, 2.0]
    """
    half, (ny, nx) = length // 2, values.shape[-2:]
    padded = np.zeros((*values.shape[:-2], ny + 2 * half, nx + 2 * half))
    padded[..., half : half + ny, half : half + nx] = values
    sums = np.zeros((4, *values.shape))
    for number, (dy, dx) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
        for k in range(-half, half + 1):
            y, x = half + k * dy, half + k * dx
            sums[number] += padded[..., y : y + ny, x : x + nx]
    return sums


def window_sums(x: Any, *, first: int, last: int, l: Float, logs: bool = False) -> Float:  # noqa: E741
    """Sums over a window of each pixel, shape (P, 9), as `SUMS` names them, in float64.

    x (P, E): data. first, last: the window's first channel, and the one after its last. l (W,): coordinate of its
    channels. logs: compute the sums of logarithms, which the log-linear fit needs.
    """
    out = np.zeros((x.shape[0], len(SUMS)))
    _window_sums(np.asarray(x)[:, first:last], l, _small_entropies(), logs, out)
    return out


def _small_entropies() -> Float:
    """x ln x of the whole numbers below `SMALL_COUNTS`."""
    x = np.arange(SMALL_COUNTS, dtype=np.float64)
    return x * np.log(np.maximum(x, 1.0))


@numba.njit(cache=True, nogil=True)
def _window_sums(x: Any, l: Any, small: Any, logs: Any, out: Any) -> None:  # noqa: E741
    """Write the sums of rows x (P, W) into out (P, 9); small: x ln x of small whole numbers."""
    width = x.shape[1]
    half = width // 2
    for p in range(x.shape[0]):
        total = moment = entropy = front = 0.0
        for e in range(width):
            value = np.float64(x[p, e])
            total += value
            moment += value * l[e]
            if e == half - 1:
                front = total
            if value > 0.0:
                whole = int(value) if value < SMALL_COUNTS else 0
                entropy += small[whole] if whole == value else value * np.log(value)
        out[p, 0], out[p, 1], out[p, 2], out[p, 3] = total, moment, entropy, front
        if logs:
            for e in range(width):
                value = np.float64(x[p, e])
                if value > 0.0:
                    logarithm = np.log(value)
                    out[p, 4] += logarithm
                    out[p, 5] += logarithm * l[e]
                    out[p, 6] += 1.0
                    out[p, 7] += l[e]
                    out[p, 8] += l[e] * l[e]


def channel_sums(x: Any, windows: Any) -> Float:
    """Sums (P, n) of the values x (P, E) over n windows (n, 2) of channels, in float64."""
    out = np.zeros((x.shape[0], len(windows)))
    _channel_sums(np.asarray(x), np.asarray(windows, dtype=np.int64).reshape(-1, 2), out)
    return out


@numba.njit(cache=True, nogil=True)
def _channel_sums(x: Any, windows: Any, out: Any) -> None:
    for p in range(x.shape[0]):
        for w in range(windows.shape[0]):
            total = 0.0
            for e in range(windows[w, 0], windows[w, 1]):
                total += x[p, e]
            out[p, w] = total


def power_rows(l: Float, r: Float) -> tuple[Float, int]:  # noqa: E741
    """``e^(-rl)`` (nodes, E) in float32 of the nodes between the least and the largest r, and the number of the first.

    Channels whose l is infinite have zeros: nothing is subtracted there.
    """
    nodes = nearest_node(r[np.isfinite(r)])
    low, high = (int(nodes.min()), int(nodes.max())) if nodes.size else (0, 0)
    some = LOWEST_EXPONENT + STEP * np.arange(low, high + 1)
    good = np.isfinite(l)
    rows = np.where(good, np.exp(-some[:, None] * np.where(good, l, 0.0)), 0.0)
    return np.asarray(rows, dtype=np.float32), low


def subtract_laws(x: Any, height: Any, r: Any, curve: Any, *, l: Float, rows: Any, low: int) -> Any:  # noqa: E741
    """Subtract ``height e^(-rl)`` from each pixel; float32, shape (P, E).

    x (P, E): data. height, r (P,): of each pixel; a pixel whose height is NaN stays as it is. curve (P, 2): variance of
    r, and mean coordinate u: the law is divided by ``1 + curve_0 (l - curve_1)^2 / 2``. l (E,), rows, low: from
    `axis_of` and `power_rows`.
    """
    out = np.empty(x.shape, dtype=np.float32)
    finite = np.where(np.isfinite(l), l, 0.0).astype(np.float32)
    _subtract_laws(np.asarray(x), np.asarray(height), np.asarray(r), np.asarray(curve), finite, rows, low, out)
    return out


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _subtract_laws(x: Any, height: Any, r: Any, curve: Any, l: Any, rows: Any, low: int, out: Any) -> None:  # noqa: E741
    one, half = np.float32(1.0), np.float32(0.5)
    for p in range(x.shape[0]):
        a = np.float32(height[p])
        if not np.isfinite(a):
            for e in range(x.shape[1]):
                out[p, e] = x[p, e]
            continue
        node = int(np.rint((r[p] - LOWEST_EXPONENT) / STEP))
        node = min(max(node - low, 0), rows.shape[0] - 1)
        d = np.float32(r[p] - (LOWEST_EXPONENT + STEP * (node + low)))
        spread, u = np.float32(half * curve[p, 0]), np.float32(curve[p, 1])
        if spread > 0:
            for e in range(x.shape[1]):
                dl, away = d * l[e], l[e] - u
                law = a * rows[node, e] * (one - dl + half * dl * dl) / (one + spread * away * away)
                out[p, e] = np.float32(x[p, e]) - law
        else:
            for e in range(x.shape[1]):
                dl = d * l[e]
                out[p, e] = np.float32(x[p, e]) - a * rows[node, e] * (one - dl + half * dl * dl)
