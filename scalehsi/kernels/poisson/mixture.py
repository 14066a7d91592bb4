"""Mixtures of counts: which share of a pixel's counts comes from which spectrum, with a Dirichlet prior on the shares.

A pixel of n counts draws its shares from a Dirichlet of parameters ``alpha``, each count a component from the shares,
and its channel from the spectrum of the component. The posterior of the shares is taken for a Dirichlet of parameters
``gamma``, found by ``gamma_k = alpha_k + w_k sum_e x_e s_ke / (w s)_e`` with ``w_k = exp(digamma(gamma_k))``: the
multiplicative rule of the Poisson likelihood, but for ``w`` in place of ``gamma``, which lets small shares vanish.
A small ``alpha`` says that pixels are mostly pure, and takes away the freedom that the likelihood leaves: spectra that
give up a part of each other.

Reference: Blei, Ng and Jordan 2003, J. Mach. Learn. Res. 3, 993 (mixtures of counts, the variational bound).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from scipy.ndimage import gaussian_filter

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.compiled import aligned_zeros, whole_rows
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson.channel_loops import padded
from scalehsi.kernels.poisson.mixture_loops import infer_rows, predict_rows

TINY: Final = 1e-12
"""Smallest value of a spectrum relative to its mean: where a count meets none."""
FAINT_SHARE: Final = 1e-3
"""Of the mean spectrum in spectra that come from least squares."""
REACH: Final = 3.0
"""A Gaussian is cut off at so many standard deviations."""


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
    """One pass over a block: better posteriors of the shares, and the sums that the next spectra need.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
    gamma : array, shape (P, K), optional
        Posteriors of the last pass; none starts from even shares.
    s : array, shape (K, E)
        Rows of unit sum.
    alpha : float
        Of the prior, above 0.
    restart : bool, default False
        Start from the shares of the last pass, none below 1e-4, because ``alpha`` has changed.
    steps : int
        Of the fixed point, at most.
    tol : float
        It stops when ``gamma`` changes by less than this, relative to the counts of the pixel.

    Returns
    -------
    pixels : dict
        ``gamma`` (P, K) float32.
    sums : dict
        ``N`` (E, K), the counts that each component takes in each channel; ``bound``, the variational lower bound of
        the logarithm of the evidence; with t the counts of a component in a pixel, ``T`` (K,) = sum_p t and ``TT``
        (K, K) = sum_p t t'.

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
    table, sums = aligned_zeros(len(wide), whole_rows(wide.shape[1])), np.zeros(1 + k + k * k)
    start = 1 if gamma is None else 2 if restart else 0
    prior = np.full((1, k), float(alpha))
    for part, indptr, channel, value in sparse_counts.strips(x):
        infer_rows(indptr, channel, value, wide, prior, found[part], table, sums, start, steps, tol)
    big_n = table[:, :k] * wide[:, :k]
    return {"gamma": found.astype(np.float32)}, {
        "N": big_n,
        "bound": float(sums[0]),
        "T": sums[1 : 1 + k].copy(),
        "TT": sums[1 + k :].reshape(k, k).copy(),
    }


def shares(x: arrays.Array | Counts, *, s: Float, alpha: Float | float, steps: int = 20, tol: float = 1e-3) -> Float:
    """The expected shares of each pixel's counts, shape (P, K), from the prior alone to start with.

    Parameters
    ----------
    x, s, steps, tol
        As in `update`.
    alpha : float, or array of shape (P, K)
        A prior of each pixel's own. A pixel without counts has the shares of its prior.
    """
    k, wide = len(s), _columns(s)
    prior = np.full((1, k), float(alpha)) if np.ndim(alpha) == 0 else np.ascontiguousarray(alpha, dtype=np.float64)
    gamma = np.zeros((x.shape[0], k))
    for part, indptr, channel, value in sparse_counts.strips(x):
        own = prior if len(prior) == 1 else prior[part]
        infer_rows(indptr, channel, value, wide, own, gamma[part], np.zeros((0, 8)), np.zeros(0), 1, steps, tol)
    return np.asarray(gamma / gamma.sum(axis=1, keepdims=True))


def log_predictive(x: arrays.Array | Counts, theta: Float, *, s: Float) -> Float:
    """Logarithm of the likelihood of counts in each pixel, shape (P,), but for what the counts alone decide.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
    theta : array, shape (P, K)
        Shares, such as those of other counts of the same pixels.
    s : array, shape (K, E)
        Rows of unit sum, and nowhere zero.

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


def shares_of_neighbours(
    x: arrays.Array | Counts,
    *,
    s: Float,
    shape: tuple[int, ...],
    used: np.ndarray[Any, Any],
    alpha: float,
    pull: float,
    widths: Sequence[float],
) -> Float:
    """The expected shares where the prior of a pixel is what its neighbours look like.

    Several rounds: the first has an even prior, ``Dirichlet(1, ..., 1)``; in each of the next the prior of a pixel is
    ``alpha + pull g``, where g are the shares of the round before under a Gaussian. Each round starts from its prior,
    so that the outcome in a pixel is a function of the counts around it, as far as `reach`.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        All pixels of a tile, row by row.
    s : array, shape (K, E)
        Rows of unit sum.
    shape : tuple of int
        Of the tile; its product is P. Neighbours are those along the last two dims.
    used : array of bool, shape (P,)
        Pixels that are not used pull nobody.
    alpha : float
        Of the prior alone.
    pull : float
        Counts that the neighbours are worth; 0 leaves each pixel alone.
    widths : sequence of float
        Standard deviation of the Gaussian in pixels, one a round.

    Returns
    -------
    array, shape (P, K)
    """
    if not isinstance(x, Counts):
        x = Counts.from_dense(x)
    found = shares(x, s=s, alpha=1.0 if pull > 0 else alpha)
    weight = np.asarray(used, dtype=np.float64).reshape(shape)
    for width in widths if pull > 0 else ():
        level = _blurred(weight, width)
        prior = np.empty_like(found)
        for k in range(len(s)):
            near = _blurred(found[:, k].reshape(shape) * weight, width) / np.maximum(level, 1e-12)
            prior[:, k] = alpha + pull * near.reshape(-1)
        found = shares(x, s=s, alpha=prior)
    return found


def reach(widths: Sequence[float]) -> int:
    """How far, in pixels, `shares_of_neighbours` sees.

    Examples
    --------
    >>> reach([2.0, 1.5])
    11
    """
    return sum(_radius(width) for width in widths)


def improve(sums: dict[str, Any], s: Float, *, power: float = 1.0) -> Float:
    """The next spectra (K, E), rows of unit sum: those of ``N`` when ``power`` is 1, further on when it is more."""
    new = np.asarray(sums["N"]).T
    total = new.sum(axis=1, keepdims=True)
    new = np.where(total > 0, new / np.where(total > 0, total, 1.0), s)
    if power != 1.0:
        floor = TINY / s.shape[1]
        new = np.where(new > 0, s * (np.maximum(new, floor) / np.maximum(s, floor)) ** power, 0.0)
        new = new / new.sum(axis=1, keepdims=True)
    return np.asarray(new)


def without_zeros(s: Float) -> Float:
    """Spectra (K, E) in rows of unit sum with a thousandth of their mean in each.

    Least squares sets channels of few counts to zero; one count there would rule the component out in its pixel.
    """
    unit = s / np.maximum(s.sum(axis=1, keepdims=True), 1e-300)
    return np.asarray((1.0 - FAINT_SHARE) * unit + FAINT_SHARE * unit.mean(axis=0))


def _columns(s: Float) -> Float:
    """Spectra as (E, wide) rows in memory, nowhere zero, with empty ones up to what the loops want."""
    st = np.asarray(s, dtype=np.float64).T
    wide = np.zeros((st.shape[0], padded(st.shape[1])))
    wide[:, : st.shape[1]] = np.maximum(st, TINY * st.mean(axis=0))
    return wide


def _radius(width: float) -> int:
    return math.ceil(REACH * width)


def _blurred(values: Float, width: float) -> Float:
    axes = (values.ndim - 2, values.ndim - 1)
    return np.asarray(gaussian_filter(values, width, mode="constant", radius=_radius(width), axes=axes))
