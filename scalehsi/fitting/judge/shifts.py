"""Shifts of spectra along energy: least squares of data on fitted spectra and on the model's derivative.

The derivative may be cut into windows of channels. A shift of the energy axis is the same in every window; what a wrong
or missing spectrum leaves in the derivative is not. Channels are weighted alike for all rows; the variance of a shift
follows from each row's own noise, so ``chi`` is 1 where there are no shifts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import scipy

from scalehsi.arrays import Float

DIRECTION_FLOOR: Final = 1e-9
"""Directions of spectra, and windows of a derivative, that are weaker than this share of the strongest do not count."""
LEAST_SIGNAL: Final = 0.1
"""Share of a window's squared derivative that is not noise of the spectra; its shift is not known below."""
REACH: Final = 12
"""Channels on both sides that change a derivative by more than 1e-6 of it."""


class Shifts(NamedTuple):
    """Shifts of n spectra.

    Attributes
    ----------
    shift : array, shape (n, W)
        In channels, by window.
    information : array, shape (n, W)
        1 / variance; 0 where a window has no structure that could tell a shift.
    variance : array, shape (n,)
        Of the mean over windows, weighted by information; windows are correlated.
    """

    shift: Float
    information: Float
    variance: Float


class Spread(NamedTuple):
    """How spectra shift against each other.

    Attributes
    ----------
    shift : array, shape (n,)
        Mean over windows, in channels, less the mean over spectra.
    information : array, shape (n,)
        1 / variance.
    chi : float
        Mean square of shifts in units of their standard deviations: 1 without shifts.
    rms : float
        Of the shifts, less their noise.
    consensus : float
        1 where all windows shift alike, 0 where each does what it likes; less their noise.
    """

    shift: Float
    information: Float
    chi: float
    rms: float
    consensus: float


def window_shifts(
    data: Float,
    maps: Float,
    spectra: Float,
    *,
    free: Float,
    errors: Float,
    levels: Float,
    noise: Float,
    least: float,
    windows: int,
) -> Shifts:
    """Shift of each window of channels: least squares of data on ``free`` and on ``-d model / d channel`` by window.

    The model is ``maps @ spectra``, the variance ``levels @ noise``: sums over channels are made once for all rows.
    The noise of the spectra adds to the square of the derivative, which makes shifts too small. It is taken off.

    data: (n, E). maps: (n, J). spectra: (J, E). free: spectra whose amounts are fitted anew, (B, E). errors: covariance
    of the spectra, over the variance of the sum of all rows, (J, J). levels: (n, M). noise: (M, E); its sum over all
    rows weights the channels. least: of that sum, below which a channel does not count. windows: W.
    """
    n_energies = data.shape[1]
    total = levels.sum(axis=0) @ noise
    weights = _channel_weights(total, least)
    basis = _orthonormal(free * weights)
    slope: Float = -_derivative(spectra) * weights
    spread = noise * weights**2
    cuts = np.linspace(0, n_energies, windows + 1).astype(int)
    pairs, mixtures = _products(maps, maps), _products(maps, levels)
    error = np.convolve(total, _derivative(np.eye(2 * REACH + 1))[REACH] ** 2, mode="same") * weights**2
    size, right, own, inside, across = [], [], [], [], []
    for start, stop in pairwise(cuts):
        part, directions, scatter = slope[:, start:stop], basis[start:stop], spread[:, start:stop]
        twice = _products(part.T, part.T).T
        size.append(pairs @ twice.sum(axis=1))
        own.append(((pairs @ (twice @ scatter.T)) * levels).sum(axis=1))
        inside.append(maps @ (part @ directions))
        across.append(mixtures @ (_products(part.T, scatter.T).T @ directions))
        right.append((maps * (data[:, start:stop] @ (part * weights[start:stop]).T)).sum(axis=1))
    scale = np.sqrt(np.stack(size, axis=1))
    there = scale > np.sqrt(DIRECTION_FLOOR) * scale.max(axis=1, keepdims=True, initial=0.0)
    unit = np.where(there, 1.0 / np.where(there, scale, 1.0), 0.0)
    q, f = (np.stack(rows, axis=1) * unit[..., None] for rows in (inside, across))
    solution = np.stack(right, axis=1) * unit - _times(q, data @ (weights[:, None] * basis))
    inverse = np.linalg.inv(np.eye(windows) * (1.0 + DIRECTION_FLOOR) - q @ q.swapaxes(1, 2))
    # Covariance of the right side: windows are disjoint, the projection off the free spectra couples them.
    rank = basis.shape[1]
    both = (levels @ (spread @ _products(basis, basis))).reshape(len(data), rank, rank)
    mixed = q @ f.swapaxes(1, 2)
    covariance = q @ both @ q.swapaxes(1, 2) - mixed - mixed.swapaxes(1, 2)
    covariance += np.eye(windows) * (np.stack(own, axis=1) * unit**2)[:, None]
    covariance = inverse @ covariance @ inverse * (unit[:, :, None] * unit[:, None, :])
    variance = np.einsum("nww->nw", covariance)
    known = there & (variance > 0)
    # Noise of the spectra is no slope.
    added = (pairs @ errors.ravel())[:, None] * np.add.reduceat(error, cuts[:-1])
    signal = 1.0 - added * unit**2
    known &= signal >= LEAST_SIGNAL
    signal = np.where(known, signal, 1.0)
    variance, covariance = variance / signal**2, covariance / (signal[:, :, None] * signal[:, None, :])
    information = np.where(known, 1.0 / np.where(known, variance, 1.0), 0.0)
    share = information / np.maximum(information.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return Shifts(
        _times(inverse, solution) * unit / signal, information, (_times(covariance, share) * share).sum(axis=1)
    )


def spread_of(found: Shifts) -> Spread | None:
    """How rows shift against each other; None where fewer than four have a known shift."""
    some = (found.variance > 0) & np.isfinite(found.shift).all(axis=1)
    if some.sum() < 4:
        return None
    shift, information, variance = found.shift[some], found.information[some], found.variance[some]
    total = information.sum(axis=1)
    mean = (shift * information).sum(axis=1) / total
    mean -= np.average(mean, weights=1.0 / variance)
    free = len(mean) - 1
    chi = float((mean**2 / variance).sum()) / free
    # What is left without the noise: of all windows together, and of each.
    by_window = information.sum(axis=0)
    centre = (shift * information).sum(axis=0) / np.where(by_window > 0, by_window, 1.0)
    alike = float(((mean**2 - variance) * total).sum())
    apart = float(((shift - centre) ** 2 * information).sum()) - free * int((by_window > 0).sum())
    rms = np.sqrt(max(0.0, (chi - 1.0) * free / float((1.0 / variance).sum())))
    full, weight = np.zeros(len(some)), np.zeros(len(some))
    full[some], weight[some] = mean, 1.0 / variance
    return Spread(full, weight, chi, float(rms), alike / apart if apart > 0 else 0.0)


def _channel_weights(mean: Float, least: float) -> Float:
    """Square roots of the weights of channels, shape (E,): ``1 / sqrt(mean)``, 0 below ``least``."""
    used = (mean > 0) & (mean >= least)
    return np.where(used, 1.0 / np.sqrt(np.where(used, mean, 1.0)), 0.0)


def _derivative(rows: Float) -> Float:
    """Derivative of spectra (J, E) by channel: of a cubic spline.

    Differences of neighbouring channels are too small at edges that are as sharp as the channels: shifts of EELS came
    out 1.4 times too large, those of the spline 0.9 to 1.1 of the truth (spectra without noise, channels of 2 eV).
    """
    channels = np.arange(rows.shape[1])
    return np.asarray(scipy.interpolate.CubicSpline(channels, rows, axis=1)(channels, 1))


def _orthonormal(rows: Float) -> Float:
    """Orthonormal basis of the span of rows, shape (E, rank)."""
    basis, strength, _ = np.linalg.svd(rows.T, full_matrices=False)
    found: Float = basis[:, strength > DIRECTION_FLOOR * strength.max(initial=0.0)]
    return found


def _products(a: Float, b: Float) -> Float:
    """All products of a column of ``a`` (n, J) with one of ``b`` (n, M), shape (n, J M)."""
    found: Float = (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)
    return found


def _times(matrices: Any, vectors: Any) -> Float:
    """A product of matrix and vector for each row."""
    found: Float = (matrices @ vectors[..., None])[..., 0]
    return found
