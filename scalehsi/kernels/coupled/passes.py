"""Passes over blocks of several signals on one grid that share their abundances, and the objective of their sums.

Signal m is modelled as ``u a_m s_m``: with ``a_m = c``, with ``a_m = c + n_m``, or around the mean abundances with
``a_m = mean + kappa (c - mean)``. ``u`` is the exposure of a pixel: the measured share of its area, 0 where the signal
is missing. The sum of the negative logarithms of all likelihoods is minimised: ``v w (x - u y)^2 / (2 phi u)`` of a
Gaussian signal with the weights v, w and the variance phi, ``u y - x log y`` of counts, and ``gamma_k n_k^2 / 2``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.compiled import aligned_zeros, padded_width
from scalehsi.kernels.coupled.pixel_solver import solve_rows
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.pixel_rows.strips import PIXELS_PER_STRIP, pixel_weight
from scalehsi.kernels.poisson.channel_loops import pad_columns
from scalehsi.kernels.poisson.passes import endmember_columns
from scalehsi.kernels.quadratic.nnls import nnls

START_SHARE = 0.1
"""A pixel's start is the least-squares solution, with this share of its mean added, so that every count has a model."""


class Signal(NamedTuple):
    """What a pass knows of one signal.

    Attributes
    ----------
    name : str
    s : array, shape (K, E)
        Endmembers.
    counts : bool
        True for the Poisson likelihood.
    w : array, shape (E,), or None
        Weights of the channels, of a Gaussian signal.
    weigh_pixels : bool
        Weight each pixel by one over its mean.
    phi : float
        Variance of the weighted noise.
    place : int
        0: the abundances are c. j > 0: they are the j-th block of deviating abundances.
    contrast : float
        kappa; 1 for abundances that do not differ in contrast.
    centre : array, shape (K,)
        Mean abundances, for the contrast.
    factor : float
        Of the signal's part of the objective, of counts; that of a Gaussian signal is in ``phi``.
    """

    name: str
    s: Float
    counts: bool
    w: Float | None = None
    weigh_pixels: bool = False
    phi: float = 1.0
    place: int = 0
    contrast: float = 1.0
    centre: Float = np.zeros(0)
    factor: float = 1.0

    @property
    def weighted(self) -> Float:
        """``s w / phi``."""
        return np.asarray((self.s if self.w is None else self.s * self.w) / self.phi)

    def abundances(self, z: Float) -> Float:
        """Its abundances (P, K) from the unknowns z (P, L)."""
        k = len(self.s)
        a = z[:, self.place * k : (self.place + 1) * k]
        return a if self.contrast == 1.0 else self.centre + self.contrast * (a - self.centre)


def update(
    x: Any, *rows: Any, signals: Sequence[Signal], gamma: Float | None = None, norm: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the abundances of a block, and return the sums that the next endmembers and the objective need.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        The first signal.
    *rows : arrays
        The further signals, in the order of ``signals``; then, where pixels are missing, exposures (P, number of
        signals).
    signals : sequence of Signal
    gamma : array, shape (K,), optional
        Precision of the deviations.
    norm : bool
        False skips ``sum v w x^2 / u``.

    Returns
    -------
    pixels : empty dict
    sums : dict
        ``C`` (K,) = sum c, ``pixels``, ``D`` (K,) = sum n^2, and with the name of a signal behind: ``N_`` (K, E)
        = sum v a x', ``M_`` (K, K) = sum u v a a', ``norm_``, ``weight_`` = sum u v of Gaussian ones; ``H_``
        (E, K (K + 1) / 2), ``Q_`` (E,) = sum x / y^2, ``C_`` (K,) = sum u a of counts; ``seen_`` number of measured
        pixels; ``likelihood`` = sum x log (u y / x) + x.
    """
    k, length = len(signals[0].s), _length(signals)
    st = _joined_columns(signals)
    corner = length * (length + 1) // 2
    table = aligned_zeros(len(st), padded_width(corner + 1))
    total: dict[str, Any] = {"likelihood": 0.0, "C": np.zeros(k), "D": np.zeros(k), "pixels": x.shape[0]}
    for _, z, u, data, gain in _solved(x, rows, signals, gamma, st, table):
        total["likelihood"] += gain
        total["C"] += z[:, :k].sum(axis=0)
        for m, signal in enumerate(signals):
            a = signal.abundances(z)
            if signal.place:
                total["D"] += ((a - z[:, :k]) ** 2).sum(axis=0)
            parts: dict[str, Any] = {"C_": signal.factor * (u[:, m] @ a)}
            if not signal.counts:
                strip, v = data[m]
                parts = {"N_": (a * v[:, None]).T @ strip, "M_": (a * (u[:, m] * v)[:, None]).T @ a}
                parts["weight_"] = float(u[:, m] @ v)
                if norm:
                    inverse = v / np.where(u[:, m] > 0, u[:, m], 1.0)
                    parts["norm_"] = float(
                        inverse @ (strip**2 @ (np.ones(strip.shape[1]) if signal.w is None else signal.w))
                    )
            parts["seen_"] = int(np.count_nonzero(u[:, m]))
            for key, value in parts.items():
                total[key + signal.name] = total.get(key + signal.name, 0.0) + value
    first = 0
    for signal in signals:
        if signal.counts:
            own = table[first : first + signal.s.shape[1]]
            total["H_" + signal.name] = own[:, _triangle(k, signal.place)].copy()
            total["Q_" + signal.name] = own[:, corner].copy()
            first += signal.s.shape[1]
    return {}, total


def abundances(
    x: Any, *rows: Any, signals: Sequence[Signal], gamma: Float | None = None, residual: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the abundances of a block, and return them with the residual of each signal.

    Parameters
    ----------
    x, *rows, signals, gamma
        As in `update`.
    residual : bool
        False skips the residuals.

    Returns
    -------
    pixels : dict
        ``abundances`` (P, K) float32, NaN without any signal; ``residual`` (P,) of the first signal, ``residual_`` and
        ``deviation_`` (P, K) with the names of others; ``measured`` (P,) whether the first signal was; where no map
        deviates ``disagreement_`` (P,) of each signal: its score statistic at the shared abundances over K, which is 1
        in the mean where they are right and the other signals determine them, and less where it has a part in them.
    sums : dict
        ``residual_spectrum`` (E,) of the first signal.
    """
    k, pixels = len(signals[0].s), x.shape[0]
    found: dict[str, Any] = {"abundances": np.empty((pixels, k), dtype=np.float32)}
    found["measured"] = np.ones(pixels, dtype=bool)
    spectrum = np.zeros(signals[0].s.shape[1])
    st = _joined_columns(signals)
    none = np.zeros((0, padded_width(2)))
    for part, z, u, data, _ in _solved(x, rows, signals, gamma, st, none):
        c = z[:, :k]
        found["abundances"][part] = np.where(u.max(axis=1, keepdims=True) > 0, c, np.nan)
        found["measured"][part] = u[:, 0] > 0
        for m, signal in enumerate(signals):
            a = signal.abundances(z)
            if signal.place or signal.contrast != 1.0:
                _put(found, f"deviation_{signal.name}", part, np.where(u[:, m : m + 1] > 0, a - c, np.nan), pixels)
            if not residual:
                continue
            strip = _dense((x, *rows)[m][part], u[:, m]) if signal.counts else data[m][0]
            if gamma is None and signal.contrast == 1.0:
                score = np.where(
                    u[:, m] > 0, _score(signal, strip, u[:, m], a, None if signal.counts else data[m][1]), np.nan
                )
                _put(found, f"disagreement_{signal.name}", part, score, pixels)
            rest = strip - (u[:, m : m + 1] * a) @ signal.s
            rms = np.where(u[:, m] > 0, np.sqrt((rest**2).mean(axis=1)), np.nan)
            _put(found, "residual" if m == 0 else f"residual_{signal.name}", part, rms, pixels)
            if m == 0:
                spectrum += rest.sum(axis=0)
    return found, {"residual_spectrum": spectrum} if residual else {}


def objective(sums: Mapping[str, Any], signals: Sequence[Signal], gamma: Float | None = None) -> float:
    """The objective at the endmembers of a pass, from its sums."""
    value = -float(sums["likelihood"]) + (0.0 if gamma is None else 0.5 * float(gamma @ sums["D"]))
    return value + sum(float(sums["C_" + m.name] @ m.s.sum(axis=1)) if m.counts else misfit(sums, m) for m in signals)


def misfit(sums: Mapping[str, Any], signal: Signal) -> float:
    """The negative logarithm of a Gaussian signal's likelihood, without its constant."""
    weighted, name = signal.weighted, signal.name
    cross = float(np.sum(sums["M_" + name] * (weighted @ signal.s.T)) - 2 * np.sum(sums["N_" + name] * weighted))
    return 0.5 * (float(sums["norm_" + name]) / signal.phi + cross)


def curvature(sums: Mapping[str, Any], signal: Signal) -> float:
    """Trace of the signal's part of the Hessian of the abundances, summed over the pixels."""
    if signal.counts:
        return float(sums["Q_" + signal.name] @ (signal.s**2).sum(axis=0))
    return float(sums["weight_" + signal.name] * np.sum(signal.weighted * signal.s) * signal.contrast**2)


def _solved(
    x: Any, rows: Sequence[Any], signals: Sequence[Signal], gamma: Float | None, st: Float, table: Float
) -> Iterator[tuple[slice, Float, Float, dict[int, tuple[Float, Float]], float]]:
    """Yield strips of pixels, their unknowns z (P, L), exposures (P, n), Gaussian data with weights, and likelihood.

    The arguments as in `update`. st (E, L): endmembers of the counts. table: as in `pixel_solver.solve_rows`.
    """
    cubes = (x, *rows[: len(signals) - 1])
    given = rows[len(signals) - 1] if len(rows) >= len(signals) else None
    k, length = len(signals[0].s), _length(signals)
    wide = pad_columns(st, length)
    base = _coupling(signals, gamma, k, length)
    gaussian = [m for m, signal in enumerate(signals) if not signal.counts]
    grams = np.zeros((len(gaussian), length, length))
    for i, m in enumerate(gaussian):
        own = slice(signals[m].place * k, (signals[m].place + 1) * k)
        grams[i, own, own] = signals[m].contrast ** 2 * (signals[m].weighted @ signals[m].s.T)
    for start in range(0, x.shape[0], PIXELS_PER_STRIP):
        part = slice(start, min(start + PIXELS_PER_STRIP, x.shape[0]))
        p = part.stop - part.start
        u = np.ones((p, len(signals))) if given is None else np.asarray(given[part], dtype=np.float64)
        linear, weight, data = np.zeros((p, length)), np.zeros((p, len(gaussian))), {}
        z = np.zeros((p, k))
        for i, m in enumerate(gaussian):
            signal = signals[m]
            strip = _dense(cubes[m][part], u[:, m])
            v = pixel_weight(np, strip)[:, 0] if signal.weigh_pixels else np.ones(p)
            v = np.where(u[:, m] > 0, v, 0.0)
            data[m], weight[:, i] = (strip, v), u[:, m] * v
            b = (strip * v[:, None]) @ signal.weighted.T
            gram = signal.weighted @ signal.s.T
            begin = nnls(gram, b / np.where(weight[:, i] > 0, weight[:, i], 1.0)[:, None])
            z = np.where(z.any(axis=1, keepdims=True), z, begin)
            if signal.contrast != 1.0:
                b = b - weight[:, i : i + 1] * ((1 - signal.contrast) * (signal.centre @ gram))
            linear[:, signal.place * k : (signal.place + 1) * k] -= signal.contrast * b
        counted = [(cubes[m][part], u[:, m], signal.factor) for m, signal in enumerate(signals) if signal.counts]
        indptr, channel, value, constant = _rows_of(counted, p)
        for m, signal in enumerate(signals):
            if signal.counts:
                own = slice(signal.place * k, (signal.place + 1) * k)
                linear[:, own] += signal.factor * u[:, m : m + 1] * signal.s.sum(axis=1)
        z = _start(z, linear[:, :k], np.add.reduceat(np.append(value, 0.0), indptr[:-1]) * (np.diff(indptr) > 0))
        z = np.tile(z, length // k)
        gain = solve_rows(indptr, channel, value, wide, linear, base, grams, weight, z, table)
        yield part, z, u, data, gain - constant


def _start(z: Float, linear: Float, counts: Float) -> Float:
    """A start above zero (P, K): from least squares z (P, K), else from the counts (P,) of each pixel.

    linear (P, K): its costs, the sums of the spectra where there are counts alone.
    """
    k = z.shape[1]
    level = np.where(linear > 0, counts[:, None] / (k * np.where(linear > 0, linear, 1.0)), 0.0)
    z = np.where(z.any(axis=1, keepdims=True), z, level)
    return np.ascontiguousarray((1 - START_SHARE) * z + START_SHARE * z.mean(axis=1, keepdims=True))


def _score(signal: Signal, x: Float, u: Float, a: Float, v: Float | None) -> Float:
    """Score statistic of one signal over K at the abundances a (P, K): 1 in the mean where they are right.

    x (P, E): data. u (P,): exposures. v (P,): weights of pixels, of a Gaussian signal.
    """
    k, s = len(signal.s), signal.s
    if v is None:
        y = u[:, None] * (a @ s)
        floor = 1e-9 * y.mean(axis=1, keepdims=True)
        inverse = np.where(y > 0, 1.0 / np.where(y > 0, np.maximum(y, floor), 1.0), 0.0)
        gradient = u[:, None] * ((x * inverse - (y > 0)) @ s.T)
        pairs = (s[:, None] * s[None]).reshape(k * k, -1)
        information = (u**2)[:, None, None] * (inverse @ pairs.T).reshape(-1, k, k)
    else:
        gram = signal.weighted @ s.T
        gradient = (x * v[:, None]) @ signal.weighted.T - (u * v)[:, None] * (a @ gram)
        information = (u * v)[:, None, None] * gram
    diagonal = np.einsum("pkk->pk", information)
    safe = information + np.eye(k) * (1e-9 * diagonal + (diagonal <= 0))[:, None]
    return np.asarray(np.einsum("pk,pk->p", gradient, np.linalg.solve(safe, gradient[..., None])[..., 0]) / k)


def _coupling(signals: Sequence[Signal], gamma: Float | None, k: int, length: int) -> Float:
    """The matrix of ``gamma (a - c)^2 / 2`` over all unknowns (L, L)."""
    base = np.zeros((length, length))
    if gamma is not None:
        for place in {signal.place for signal in signals} - {0}:
            own = slice(place * k, (place + 1) * k)
            base[:k, :k] += np.diag(gamma)
            base[own, own] += np.diag(gamma)
            base[own, :k] -= np.diag(gamma)
            base[:k, own] -= np.diag(gamma)
    return base


def _length(signals: Sequence[Signal]) -> int:
    """L, the unknowns of a pixel."""
    return len(signals[0].s) * (1 + max(signal.place for signal in signals))


def _joined_columns(signals: Sequence[Signal]) -> Float:
    """Endmembers (E, L) of all signals of counts, one behind the other along the channels; at least one channel."""
    k, length = len(signals[0].s), _length(signals)
    found = [np.zeros((0, length))]
    for signal in signals:
        if signal.counts:
            rows = np.zeros((signal.s.shape[1], length))
            rows[:, signal.place * k : (signal.place + 1) * k] = endmember_columns(signal.s)
            found.append(rows)
    joined = np.concatenate(found)
    return joined if len(joined) else np.zeros((1, length))


def _rows_of(counted: Sequence[tuple[Any, Float, float]], pixels: int) -> tuple[Any, Any, Any, float]:
    """Filled channels of a strip in all signals of counts, as `sparse_counts.strips` gives them; a row for each pixel.

    counted: pixels, exposures and factor of each signal; where the exposure is zero the counts are left out. Last is
    the sum of ``x log x - x``.
    """
    owner, channel, value, first, constant = [], [], [], 0, 0.0
    for x, u, factor in counted:
        for part, indptr, channels, values in sparse_counts.strips(x):
            pixel = np.repeat(np.arange(part.start, part.stop), np.diff(indptr))
            there = u[pixel] > 0
            owner.append(pixel[there])
            channel.append(channels[there] + np.int32(first))
            constant += factor * float(np.sum(values[there] * (np.log(values[there] / u[pixel[there]]) - 1)))
            value.append(factor * values[there])
        first += x.shape[1]
    if not owner:
        return np.zeros(pixels + 1, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(0), 0.0
    pixel = np.concatenate(owner)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(pixel, minlength=pixels))]).astype(np.int64)
    if len(counted) == 1:
        return indptr, np.concatenate(channel), np.concatenate(value), constant
    order = np.argsort(pixel, kind="stable")
    return indptr, np.concatenate(channel)[order], np.concatenate(value)[order], constant


def _dense(x: Any, u: Float) -> Float:
    """Pixels as float64, zero where the signal was not measured; whatever is there may be NaN."""
    strip = x.to_dense(np.float64) if isinstance(x, Counts) else np.asarray(x, dtype=np.float64)
    return strip if (u > 0).all() else np.where(u[:, None] > 0, strip, 0.0)


def _triangle(k: int, place: int) -> list[int]:
    """Where the lower triangle of block ``place`` lies in that of all unknowns."""
    first = place * k
    return [(first + i) * (first + i + 1) // 2 + first + j for i in range(k) for j in range(i + 1)]


def _put(found: dict[str, Any], name: str, part: slice, values: Float, pixels: int) -> None:
    """Write the values of a strip into the array of that name."""
    if name not in found:
        found[name] = np.empty((pixels, *values.shape[1:]), dtype=np.float32)
    found[name][part] = values
