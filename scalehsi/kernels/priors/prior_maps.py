"""Abundances of pixels of which a guess is at hand: by the likelihood of their values, and by how good the guess is.

With a guess ``m`` and a weight ``w`` of each component, the likelihood is joined by a prior:

- counts: Gamma of shape ``1 + w t m`` and rate ``w t``, where ``t`` is the sum of the endmember. It is as if each
  component alone had been measured for ``w`` times as long as the pixel was, and shown what the guess says. So it is
  solved by the loops of the Poisson likelihood, with one more channel a component.
- least squares: Gaussian around ``m``; the weight is one over its variance, in units of that of the data.

`weights_of_counts` and `weights_of_squares` find the weights at which the guess is as far from the data as the prior
says, beyond what noise explains (empirical Bayes): a poor guess weighs nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels import poisson
from scalehsi.kernels.quadratic.nnls import RIDGE, nnls

STRIP: Final = 1024
"""Pixels that become floats at a time."""
MOST: Final = 10.0
"""Largest weight: ten times what the pixel itself says."""


def from_counts(x: arrays.Array, guess: Float | None, *, s: Float, weight: Float | None = None) -> Float:
    """Most probable abundances of counts, shape (P, K) float32.

    Parameters
    ----------
    x : array, shape (P, E)
        Counts, any real dtype, none negative.
    guess : array, shape (P, K), optional
        Not negative. Pixels of NaN have none.
    s : array, shape (K, E)
    weight : array, shape (K,), optional
        Dose of the guess in units of the pixel's own; with none the guess is not used.

    Examples
    --------
    >>> s = np.array([[50.0, 50.0, 0.0], [0.0, 50.0, 50.0]])
    >>> x = np.array([[50, 90, 40]], dtype="uint8")
    >>> np.allclose(from_counts(x, None, s=s), [[1.0, 0.8]], atol=1e-3)
    True
    >>> np.allclose(from_counts(x, np.array([[0.5, 1.3]]), s=s, weight=np.full(2, 1e6)), [[0.5, 1.3]], atol=1e-3)
    True
    """
    if guess is None or weight is None or not np.any(weight):
        return np.asarray(poisson.abundances(x, s=s, residual=False)[0]["abundances"])
    k = len(s)
    scale = np.asarray(weight, dtype=np.float64) * s.sum(axis=1)
    more = np.concatenate([s, np.diag(scale)], axis=1)
    out = np.empty((x.shape[0], k), dtype=np.float32)
    for start in range(0, x.shape[0], STRIP):
        part = slice(start, min(start + STRIP, x.shape[0]))
        strip = np.asarray(arrays.to_host(x[part]), dtype=np.float64)
        known = np.asarray(np.isfinite(guess[part]).all(axis=1))
        joined = np.concatenate([strip, scale * np.where(known[:, None], guess[part], 0.0)], axis=1)
        out[part] = poisson.abundances(joined, s=more, residual=False)[0]["abundances"]
        if not known.all():
            alone = np.flatnonzero(~known)
            out[start + alone] = poisson.abundances(strip[alone], s=s, residual=False)[0]["abundances"]
    return out


def from_values(x: arrays.Array, guess: Float | None, *, s: Float, weight: Float | None = None) -> Float:
    """Least-squares abundances, shape (P, K) float32.

    Parameters
    ----------
    x : array, shape (P, E)
    guess : array, shape (P, K), optional
        Pixels of NaN have none.
    s : array, shape (K, E)
    weight : array, shape (K,), optional
        Added to the objective ``|x - c s|^2 / 2`` is ``weight |s_k|^2 (c - guess)^2 / 2``.

    Examples
    --------
    >>> from_values(np.array([[1.0, 3.0]]), np.array([[3.0]]), s=np.array([[1.0, 1.0]]), weight=np.ones(1)).tolist()
    [[2.5]]
    """
    gram, out = s @ s.T, np.empty((x.shape[0], len(s)), dtype=np.float32)
    ridge: Float = np.zeros(len(s)) if weight is None or guess is None else np.asarray(weight) * np.diag(gram)
    informed: Float = gram + np.diag(ridge)
    for start in range(0, x.shape[0], STRIP):
        part = slice(start, min(start + STRIP, x.shape[0]))
        right = np.asarray(arrays.to_host(x[part]), dtype=np.float64) @ s.T
        if guess is None:
            out[part] = nnls(gram, right)
            continue
        known = np.asarray(np.isfinite(guess[part]).all(axis=1))
        out[part] = nnls(informed, right + ridge * np.where(known[:, None], guess[part], 0.0))
        if not known.all():
            alone = np.flatnonzero(~known)
            out[start + alone] = nnls(gram, right[alone])
    return out


def unmixing(s: Float, w: Float | None = None) -> Float:
    """What gives unbiased abundances of a pixel as ``x @ unmixing``, some of them negative: (E, K), weighted with w."""
    weighted = s if w is None else s * w
    gram = weighted @ s.T
    return np.asarray(np.linalg.solve(gram + RIDGE * np.diag(np.diag(gram)), weighted).T)


def weights_of_counts(x: Float, guess: Float, *, s: Float) -> tuple[Float, Float]:
    """How much a guess is worth, told from a sample of counts.

    Parameters
    ----------
    x : array, shape (P, E)
        Counts.
    guess : array, shape (P, K)
    s : array, shape (K, E)

    Returns
    -------
    weight : array, shape (K,)
        For `from_counts`: the Gamma prior of that rate has the variance around the guess that the data show beyond
        their noise.
    misfit : array, shape (K,)
        That variance.
    """
    mean = np.asarray(x.mean(axis=0), dtype=np.float64)
    back = unmixing(s, 1.0 / np.maximum(mean, 1e-3 * max(float(mean.mean()), 1e-300)))
    misfit = ((x @ back - guess) ** 2 - x @ back**2).mean(axis=0)
    level = np.maximum(guess.mean(axis=0), 0.0)
    return _bounded(level, misfit * s.sum(axis=1)), misfit


def weights_of_squares(x: Float, guess: Float, *, s: Float) -> tuple[Float, Float]:
    """The same for least squares: the weights are those of `from_values`, and the noise is told from the residual."""
    back = unmixing(s)
    found = x @ back
    spare = max(1, x.shape[1] - len(s))
    noise = float(np.square(x - found @ s).sum()) / (len(x) * spare)
    misfit = ((found - guess) ** 2).mean(axis=0) - noise * np.square(back).sum(axis=0)
    return _bounded(noise / np.square(s).sum(axis=1), misfit), misfit


def _bounded(above: Float, below: Float) -> Float:
    """A quotient between 0 and `MOST`; what is below zero is too small to be told from it."""
    above = np.broadcast_to(above, below.shape)
    return np.where(below * MOST > above, above / np.where(below > 0, below, 1.0), MOST)
