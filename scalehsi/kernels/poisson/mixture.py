"""Dirichlet mixture model of counts: infer the fraction of a pixel's counts that each component contributes.

A pixel draws its fractions from a Dirichlet distribution of concentration ``alpha``. Each count draws a component from
the fractions, and its channel from the spectrum of that component. The posterior of the fractions is approximated by a
Dirichlet distribution of parameters ``gamma``, the fixed point of ``gamma_k = alpha_k + w_k sum_e x_e s_ke / (w s)_e``
with ``w_k = exp(digamma(gamma_k))``. This is the multiplicative rule of the Poisson likelihood with ``w`` in place of
``gamma``, which lets small fractions vanish. A small ``alpha`` states that pixels are mostly pure. It removes an
ambiguity of the likelihood, in which spectra may exchange parts with each other.

Reference: Blei, Ng and Jordan 2003, J. Mach. Learn. Res. 3, 993 (mixtures of counts, the variational bound).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from scipy.ndimage import gaussian_filter

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.compiled import aligned_zeros, padded_width
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson.channel_loops import pad_columns
from scalehsi.kernels.poisson.mixture_loops import infer_rows, predict_rows

MIN_SPECTRUM: Final = 1e-12
"""Smallest value of a spectrum relative to its mean, so that every count meets a model above zero."""
MEAN_FRACTION: Final = 1e-3
"""Fraction of its mean that `without_zeros` adds to a spectrum."""
TRUNCATION: Final = 3.0
"""The Gaussian over the neighbours is cut off at this many standard deviations."""
STEPS: Final = 20
"""Largest number of steps of the posterior of a pixel."""
TOLERANCE: Final = 1e-3
"""The steps end when the posterior changes by less than this, relative to the counts of the pixel."""
MAX_STEPS: Final = 400
"""No pixel takes more steps, whatever precision is wanted."""
LONE_STEPS: Final = 100
"""Steps of the posterior of a pixel that starts from equal fractions; neighbours give a better start."""
ANNEALING: Final = (0.5, 0.2, 0.1, 0.05)
"""Concentrations of the prior before the final one."""
ANNEALING_PASSES: Final = 8
"""Passes over the data with each of them."""
OVERRELAXATION: Final = 1.8
"""Exponent of the steps of the spectra; they converge for exponents below 2."""


def update(
    x: arrays.Array | Counts,
    gamma: Any = None,
    *,
    s: Float,
    alpha: float,
    restart: bool = False,
    steps: int = 10,
    tol: float = 1e-4,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Improve the posteriors of the fractions in a block, and return the sums that the next spectra need.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
    gamma : array, shape (P, K), optional
        Posteriors of the last pass; without them every pixel starts from equal fractions.
    s : array, shape (K, E)
        Spectra, rows of unit sum.
    alpha : float
        Concentration of the prior, above 0.
    restart : bool, default False
        Start from the fractions of the last pass, none below 1e-4, because ``alpha`` has changed. No effect without
        ``gamma``.
    steps : int
        Largest number of steps of the fixed point.
    tol : float
        The fixed point stops when ``gamma`` changes by less than this, relative to the counts of the pixel.

    Returns
    -------
    pixels : dict
        ``gamma`` (P, K) float32.
    sums : dict
        ``N`` (E, K), the counts of each channel assigned to each component; ``bound``, the variational lower bound of
        the log-evidence.

    Examples
    --------
    >>> x = np.array([[9, 1, 0], [0, 1, 9]], dtype="uint8")
    >>> pixels, sums = update(x, s=np.array([[0.8, 0.2, 0.0], [0.0, 0.2, 0.8]]), alpha=0.1)
    >>> pixels["gamma"].astype(float).round(1).tolist(), round(float(sums["N"].sum()), 6)
    ([[10.1, 0.1], [0.1, 10.1]], 20.0)
    """
    k, wide = len(s), _columns(s)
    pixels = x.shape[0]
    found = np.zeros((pixels, k)) if gamma is None else np.array(arrays.to_host(gamma), dtype=np.float64, order="C")
    table, bound = aligned_zeros(len(wide), padded_width(wide.shape[1])), np.zeros(1)
    start = 1 if gamma is None else 2 if restart else 0
    prior = np.full((1, k), float(alpha))
    for part, indptr, channel, value in sparse_counts.strips(x):
        infer_rows(indptr, channel, value, wide, prior, found[part], table, bound, start, steps, tol)
    big_n = table[:, :k] * wide[:, :k]
    return {"gamma": found.astype(np.float32)}, {"N": big_n, "bound": float(bound[0])}


def fractions(
    x: arrays.Array | Counts, *, s: Float, alpha: Float | float, steps: int = STEPS, tol: float = TOLERANCE
) -> Float:
    """Expected fractions of the components in each pixel, shape (P, K), starting from the prior.

    Parameters
    ----------
    x, s, steps, tol
        As in `update`.
    alpha : float, or array of shape (P, K)
        Parameters of the prior, for all pixels or for each. A pixel without counts has the fractions of its prior.
    """
    k, wide = len(s), _columns(s)
    prior = np.full((1, k), float(alpha)) if np.ndim(alpha) == 0 else np.ascontiguousarray(alpha, dtype=np.float64)
    gamma = np.zeros((x.shape[0], k))
    for part, indptr, channel, value in sparse_counts.strips(x):
        own = prior if len(prior) == 1 else prior[part]
        infer_rows(indptr, channel, value, wide, own, gamma[part], np.zeros((0, 8)), np.zeros(0), 1, steps, tol)
    return np.asarray(gamma / gamma.sum(axis=1, keepdims=True))


def log_predictive(x: arrays.Array | Counts, theta: Float, *, s: Float) -> Float:
    """Log-likelihood of the counts of each pixel, shape (P,), without the term that depends on the counts alone.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
    theta : array, shape (P, K)
        Fractions, for example from other counts of the same pixels.
    s : array, shape (K, E)
        Spectra, rows of unit sum, nowhere zero.

    Examples
    --------
    >>> x = np.array([[3, 1]], dtype="uint8")
    >>> found = log_predictive(x, np.array([[1.0]]), s=np.array([[0.75, 0.25]]))
    >>> bool(abs(found[0] - (3 * np.log(0.75) + np.log(0.25))) < 1e-12)
    True
    """
    wide, out = _columns(s), np.empty(x.shape[0])
    rows = np.zeros((x.shape[0], wide.shape[1]))
    rows[:, : len(s)] = theta
    for part, indptr, channel, value in sparse_counts.strips(x):
        predict_rows(indptr, channel, value, wide, rows[part], out[part])
    return out


def fractions_with_neighbours(
    x: arrays.Array | Counts,
    *,
    s: Float,
    shape: tuple[int, ...],
    used: np.ndarray[Any, Any],
    alpha: float,
    neighbours: float,
    widths: Sequence[float],
    pure_counts: Float,
) -> Float:
    """Expected fractions with a spatial prior: the fractions of the neighbours count as additional counts of a pixel.

    The first round has a flat prior, ``Dirichlet(1, ..., 1)``. In each further round the prior of a pixel is
    ``alpha + neighbours sqrt(n) g``. Here g are the fractions that follow from the abundances of the previous round,
    and n are the counts of a pixel, both averaged with a Gaussian. Each round starts from its prior, so that the result
    in a pixel depends only on the counts within the distance `halo`.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        All pixels of a tile, row by row.
    s : array, shape (K, E)
        Spectra, rows of unit sum.
    shape : tuple of int
        Shape of the tile; its product is P. Neighbours lie along the last two dims.
    used : array of bool, shape (P,)
        Pixels that are not used have no effect on their neighbours.
    alpha : float
        Concentration of the prior.
    neighbours : float
        Strength of the spatial prior; 0 solves each pixel by itself.
    widths : sequence of float
        Standard deviation of the Gaussian of each round after the first, in pixels.
    pure_counts : array, shape (K,)
        Counts of a pixel of each component, in any unit: fractions of the counts divided by them are abundances. The
        averages of the abundances hold beside a phase of many counts, those of fractions of the counts do not. An error
        of the fractions grows by the ratio of the counts, so the posteriors are computed more precisely by this ratio.

    Returns
    -------
    array, shape (P, K)
    """
    if not isinstance(x, Counts):
        x = Counts.from_dense(x)
    contrast = float(pure_counts.max() / pure_counts.min())
    steps, tol = min(MAX_STEPS, round(STEPS * contrast)), TOLERANCE / contrast
    if neighbours == 0:
        return fractions(x, s=s, alpha=alpha, steps=max(steps, LONE_STEPS), tol=tol)
    found = fractions(x, s=s, alpha=1.0, steps=steps, tol=tol)
    weight = np.asarray(used, dtype=np.float64).reshape(shape)
    for width in widths:
        level = blurred(weight, width)
        abundances = found / pure_counts
        abundances /= abundances.sum(axis=1, keepdims=True)
        near = np.empty_like(found)
        for k in range(len(s)):
            average = blurred(abundances[:, k].reshape(shape) * weight, width) / np.maximum(level, 1e-12)
            near[:, k] = pure_counts[k] * average.reshape(-1)
        near /= np.maximum(near.sum(axis=1, keepdims=True), 1e-300)
        counts = blurred(x.totals.reshape(shape) * weight, width) / np.maximum(level, 1e-12)
        prior = alpha + neighbours * np.sqrt(counts).reshape(-1, 1) * near
        found = fractions(x, s=s, alpha=prior, steps=steps, tol=tol)
    return found


def halo(widths: Sequence[float]) -> int:
    """Distance in pixels beyond which a pixel has no effect in `fractions_with_neighbours`.

    Examples
    --------
    >>> halo([2.0, 1.5])
    11
    """
    return sum(_radius(width) for width in widths)


def improve(sums: dict[str, Any], s: Float, *, power: float = 1.0) -> Float:
    """Return the next spectra (K, E), rows of unit sum.

    sums: from `update` at the spectra ``s`` (K, E). power: 1 returns the spectra of ``N``, which never lower the bound;
    more multiplies the step by it in logarithms (over-relaxation), which converges faster below 2.
    """
    new = np.asarray(sums["N"]).T
    total = new.sum(axis=1, keepdims=True)
    new = np.where(total > 0, new / np.where(total > 0, total, 1.0), s)
    if power != 1.0:
        floor = MIN_SPECTRUM / s.shape[1]
        new = np.where(new > 0, s * (np.maximum(new, floor) / np.maximum(s, floor)) ** power, 0.0)
        new = new / new.sum(axis=1, keepdims=True)
    return np.asarray(new)


def without_zeros(s: Float) -> Float:
    """Normalise spectra (K, E) to unit sum, and add a thousandth of the mean of each to all its channels.

    Least squares sets channels of few counts to zero, where one count would exclude the component from its pixel.
    """
    unit = s / np.maximum(s.sum(axis=1, keepdims=True), 1e-300)
    return np.asarray((1.0 - MEAN_FRACTION) * unit + MEAN_FRACTION * unit.mean(axis=0))


def annealing_schedule(concentration: float, passes: int = 1) -> Iterator[tuple[float, bool]]:
    """Yield for each pass of an annealed fit the concentration of the prior, and whether it has just changed.

    A mixture has many optima, one for each choice of absent components. Lowering the concentration in steps leads to a
    good one, where a start with the final value stays near the first guess.

    Parameters
    ----------
    concentration : float
        Final value.
    passes : int
        Passes with the final value.

    Examples
    --------
    >>> [alpha for alpha, changed in annealing_schedule(0.15, 2) if changed], len(list(annealing_schedule(0.15, 2)))
    ([0.5, 0.2, 0.15], 18)
    """
    for alpha in (*(a for a in ANNEALING if a > concentration), concentration):
        for number in range(ANNEALING_PASSES if alpha > concentration else passes):
            yield alpha, number == 0


def _columns(s: Float) -> Float:
    """Spectra ``s`` (K, E) as an (E, K) array, above zero, with the empty components that the loops need."""
    st = np.asarray(s, dtype=np.float64).T
    return pad_columns(np.maximum(st, MIN_SPECTRUM * st.mean(axis=0)), st.shape[1])


def _radius(width: float) -> int:
    """Radius in pixels of a Gaussian of this standard deviation."""
    return math.ceil(TRUNCATION * width)


def blurred(values: Float, width: float) -> Float:
    """Average ``values`` (..., rows, columns) with a Gaussian of this standard deviation, zero beyond the edges."""
    axes = (values.ndim - 2, values.ndim - 1)
    return np.asarray(gaussian_filter(values, width, mode="constant", radius=_radius(width), axes=axes))
