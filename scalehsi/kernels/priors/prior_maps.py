"""Solve maximum a posteriori abundances with prior maps, and estimate how much weight the prior maps deserve.

With a prior map of mean ``m`` and a weight ``w`` of each component, the prior is

- for counts a Gamma distribution of shape ``1 + w t m`` and rate ``w t``, where ``t`` is the sum of the endmember. This
  equals a measurement of each component alone for ``w`` times the dwell time of the pixel, whose result is ``m``. The
  loops of the Poisson likelihood therefore solve it, with one additional channel per component.
- for least squares a Gaussian distribution around ``m``; the weight is one over its variance, in units of that of the
  data.

`weights_of_counts` and `weights_of_intensities` estimate the weights by empirical Bayes, from the variance of the data
around the prior maps in excess of the noise. A poor prior map gets a weight near zero.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels import poisson
from scalehsi.kernels.quadratic.nnls import RELATIVE_RIDGE, nnls

STRIP_PIXELS: Final = 1024
"""Pixels that are converted to float64 and solved at a time."""
MAX_WEIGHT: Final = 10.0
"""Largest weight of a prior map, in units of the pixel's own data."""


def abundances_of_counts(x: arrays.Array, prior: Float | None, *, s: Float, weight: Float | None = None) -> Float:
    """Solve the most probable abundances of counts, shape (P, K) float32.

    Parameters
    ----------
    x : array, shape (P, E)
        Counts, any real dtype, none negative.
    prior : array, shape (P, K), optional
        Prior maps, not negative. Pixels of NaN are solved without prior.
    s : array, shape (K, E)
        Endmembers.
    weight : array, shape (K,), optional
        Dose of the prior in units of the pixel's own. Without it the prior is not used.

    Examples
    --------
    >>> s = np.array([[50.0, 50.0, 0.0], [0.0, 50.0, 50.0]])
    >>> x = np.array([[50, 90, 40]], dtype="uint8")
    >>> np.allclose(abundances_of_counts(x, None, s=s), [[1.0, 0.8]], atol=1e-3)
    True
    >>> prior = np.array([[0.5, 1.3]])
    >>> np.allclose(abundances_of_counts(x, prior, s=s, weight=np.full(2, 1e6)), prior, atol=1e-3)
    True
    """
    if prior is None or weight is None or not np.any(weight):
        return np.asarray(poisson.abundances(x, s=s, residual=False)[0]["abundances"])
    k = len(s)
    scale = np.asarray(weight, dtype=np.float64) * s.sum(axis=1)
    extended = np.concatenate([s, np.diag(scale)], axis=1)
    out = np.empty((x.shape[0], k), dtype=np.float32)
    for start in range(0, x.shape[0], STRIP_PIXELS):
        part = slice(start, min(start + STRIP_PIXELS, x.shape[0]))
        strip = np.asarray(arrays.to_host(x[part]), dtype=np.float64)
        known = np.asarray(np.isfinite(prior[part]).all(axis=1))
        joined = np.concatenate([strip, scale * np.where(known[:, None], prior[part], 0.0)], axis=1)
        out[part] = poisson.abundances(joined, s=extended, residual=False)[0]["abundances"]
        if not known.all():
            alone = np.flatnonzero(~known)
            out[start + alone] = poisson.abundances(strip[alone], s=s, residual=False)[0]["abundances"]
    return out


def abundances_of_intensities(x: arrays.Array, prior: Float | None, *, s: Float, weight: Float | None = None) -> Float:
    """Solve the most probable abundances of intensities by least squares, shape (P, K) float32.

    Parameters
    ----------
    x : array, shape (P, E)
    prior : array, shape (P, K), optional
        Prior maps. Pixels of NaN are solved without prior.
    s : array, shape (K, E)
        Endmembers.
    weight : array, shape (K,), optional
        Adds ``weight |s_k|^2 (c - prior)^2 / 2`` to the objective ``|x - c s|^2 / 2``.

    Examples
    --------
    >>> x, prior, s = np.array([[1.0, 3.0]]), np.array([[3.0]]), np.array([[1.0, 1.0]])
    >>> abundances_of_intensities(x, prior, s=s, weight=np.ones(1)).tolist()
    [[2.5]]
    """
    gram, out = s @ s.T, np.empty((x.shape[0], len(s)), dtype=np.float32)
    ridge: Float = np.zeros(len(s)) if weight is None or prior is None else np.asarray(weight) * np.diag(gram)
    with_prior: Float = gram + np.diag(ridge)
    for start in range(0, x.shape[0], STRIP_PIXELS):
        part = slice(start, min(start + STRIP_PIXELS, x.shape[0]))
        right = np.asarray(arrays.to_host(x[part]), dtype=np.float64) @ s.T
        if prior is None:
            out[part] = nnls(gram, right)
            continue
        known = np.asarray(np.isfinite(prior[part]).all(axis=1))
        out[part] = nnls(with_prior, right + ridge * np.where(known[:, None], prior[part], 0.0))
        if not known.all():
            alone = np.flatnonzero(~known)
            out[start + alone] = nnls(gram, right[alone])
    return out


def unmixing_matrix(s: Float, w: Float | None = None) -> Float:
    """Return the matrix (E, K) that unmixes pixels as ``x @ matrix``, without bias and without bounds.

    s (K, E): endmembers. w (E,): weights of the channels, default 1.
    """
    weighted = s if w is None else s * w
    gram = weighted @ s.T
    return np.asarray(np.linalg.solve(gram + RELATIVE_RIDGE * np.diag(np.diag(gram)), weighted).T)


def weights_of_counts(x: Float, prior: Float, *, s: Float) -> tuple[Float, Float]:
    """Estimate the weights of prior maps from a sample of counts.

    Parameters
    ----------
    x : array, shape (P, E)
        Counts.
    prior : array, shape (P, K)
        Prior maps at these pixels.
    s : array, shape (K, E)
        Endmembers.

    Returns
    -------
    weight : array, shape (K,)
        For `abundances_of_counts`. The Gamma distribution of that rate has the variance ``misfit``.
    misfit : array, shape (K,)
        Variance of the data around the prior maps in excess of their noise.
    """
    mean = np.asarray(x.mean(axis=0), dtype=np.float64)
    back = unmixing_matrix(s, 1.0 / np.maximum(mean, 1e-3 * max(float(mean.mean()), 1e-300)))
    misfit = ((x @ back - prior) ** 2 - x @ back**2).mean(axis=0)
    level = np.maximum(prior.mean(axis=0), 0.0)
    return _bounded_ratio(level, misfit * s.sum(axis=1)), misfit


def weights_of_intensities(x: Float, prior: Float, *, s: Float) -> tuple[Float, Float]:
    """Estimate the weights of prior maps for `abundances_of_intensities`, with the noise estimated from the residual.

    The arguments and results are those of `weights_of_counts`.
    """
    back = unmixing_matrix(s)
    found = x @ back
    spare = max(1, x.shape[1] - len(s))
    noise = float(np.square(x - found @ s).sum()) / (len(x) * spare)
    misfit = ((found - prior) ** 2).mean(axis=0) - noise * np.square(back).sum(axis=0)
    return _bounded_ratio(noise / np.square(s).sum(axis=1), misfit), misfit


def _bounded_ratio(above: Float, below: Float) -> Float:
    """``above / below``, limited to `MAX_WEIGHT`, which also replaces the quotient where ``below`` is not positive."""
    above = np.broadcast_to(above, below.shape)
    return np.where(below * MAX_WEIGHT > above, above / np.where(below > 0, below, 1.0), MAX_WEIGHT)
