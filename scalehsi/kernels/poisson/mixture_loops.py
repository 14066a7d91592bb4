"""Infer the Dirichlet mixture model pixel by pixel, with the special functions that it needs.

Letters: x counts of a pixel at its filled channels, g spectra at these channels, gamma parameters of the posterior,
w = exp(psi(gamma)), y = w g, r = x / y.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numba
import numpy as np

from scalehsi.kernels.compiled import lean
from scalehsi.kernels.poisson.channel_loops import CHANNEL_PAD, gather, log_likelihood, model, scatter, slope, weights

MIN_START_FRACTION: Final = 1e-4
"""Smallest fraction with which a component starts, because one that starts at zero stays there."""
HALF_LOG_2PI: Final = 0.5 * math.log(2.0 * math.pi)


@lean
def _shift_above_six(x: float) -> tuple[float, float, float]:
    """Return y, log(Gamma(y) / Gamma(x)) and psi(y) - psi(x), where y is x, or x + 6 if x is too small for a series."""
    if x >= 6.0:
        return x, 0.0, 0.0
    u = x * (x + 5.0)
    a, b = u + 4.0, u + 6.0
    product = u * a * b
    return x + 6.0, math.log(product), (2.0 * x + 5.0) * (a * b + u * (a + b)) / product


@lean
def _digamma_tail(y: float) -> float:
    """``log(y) - psi(y)`` for y of at least 6."""
    f = 1.0 / (y * y)
    return 0.5 / y + f * (1 / 12 - f * (1 / 120 - f * (1 / 252 - f * (1 / 240 - f / 132))))


@lean
def _exp_digamma(x: float) -> float:
    """``exp(psi(x))`` for x above 0, without a logarithm."""
    y, less = x, 0.0
    if x < 6.0:
        u = x * (x + 5.0)
        a, b = u + 4.0, u + 6.0
        y, less = x + 6.0, (2.0 * x + 5.0) * (a * b + u * (a + b)) / (u * a * b)
    return y * math.exp(-(less + _digamma_tail(y)))


@lean
def _gamma_logs(x: float) -> tuple[float, float]:
    """The logarithm of the gamma function and its derivative, for x above 0."""
    y, log_less, less = _shift_above_six(x)
    log = math.log(y)
    inverse = 1.0 / y
    f = inverse * inverse
    tail = inverse * (1 / 12 - f * (1 / 360 - f * (1 / 1260 - f * (1 / 1680 - f * (1 / 1188 - f * (691 / 360360))))))
    value = (y - 0.5) * log - y + HALF_LOG_2PI + tail - log_less
    return value, log - _digamma_tail(y) - less


@numba.njit(cache=True, nogil=True)
def infer_rows(
    indptr: Any,
    channel: Any,
    value: Any,
    st: Any,
    prior: Any,
    gamma: Any,
    table: Any,
    bound: Any,
    start: int,
    steps: int,
    tol: float,
) -> None:
    """Update the posteriors of a strip in place, and add their contribution to the table and the bound.

    indptr, channel, value: rows from `scalehsi.kernels.pixel_rows.sparse_counts.strips`. st (E, `padded_components`):
    spectra. prior (1 or P, K): Dirichlet parameters of the prior. gamma (P, K): those of the posterior. table
    (E, width): counts by component, divided by the spectra, or (0, width) for none; then ``bound`` (1,) stays unchanged
    too. start: 0 from gamma, 1 from the prior, 2 from the fractions of gamma. steps, tol: as in
    `mixture.update`.
    """
    pixels, n = gamma.shape
    wide = st.shape[1]
    longest = 0
    for p in range(pixels):
        longest = max(longest, indptr[p + 1] - indptr[p])
    size = longest + CHANNEL_PAD
    g, x, y = np.zeros((wide, size)), np.empty(size), np.empty(size)
    r, q, exponent, mantissa = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    w, gradient, row = np.zeros(wide), np.zeros(wide), np.zeros(table.shape[1])
    constant = 0.0
    for p in range(pixels):
        first, last = indptr[p], indptr[p + 1]
        alpha = prior[p if prior.shape[0] > 1 else 0]
        if table.shape[0] > 0 and (p == 0 or prior.shape[0] > 1):
            constant = _prior_constant(alpha)
        m, total = gather(st, channel, value, first, last, g, x)
        _start(gamma[p], alpha, total, start)
        amount = 0.0
        for k in range(n):
            amount += alpha[k]
        for _ in range(steps if m > 0 else 0):
            for k in range(n):
                w[k] = _exp_digamma(gamma[p, k])
            slope(g, x, w, m, y, r, q, gradient)
            change = 0.0
            for k in range(n):
                new = alpha[k] + w[k] * gradient[k]
                change += abs(new - gamma[p, k])
                gamma[p, k] = new
            if change < tol * (total + amount):
                break
        if table.shape[0] > 0:
            for k in range(n):
                w[k] = _exp_digamma(gamma[p, k])
            likelihood = 0.0
            if m > 0:
                model(g, w, m, y)
                weights(x, y, m, r, q)
                for k in range(n):
                    row[k] = w[k]
                scatter(table, channel, first, last, r, row)
                likelihood = log_likelihood(x, y.view(np.int64), m, exponent, mantissa, mantissa.view(np.int64))
            bound[0] += _bound(gamma[p], alpha, constant, total, likelihood)


@numba.njit(cache=True, nogil=True)
def predict_rows(indptr: Any, channel: Any, value: Any, st: Any, theta: Any, out: Any) -> None:
    """Write the log-likelihood of each pixel of a strip into ``out`` (P,).

    indptr, channel, value, st: as in `infer_rows`. theta (P, `padded_components`): fractions of the components.
    """
    longest = 0
    for p in range(len(out)):
        longest = max(longest, indptr[p + 1] - indptr[p])
    size = longest + CHANNEL_PAD
    g, x, y = np.zeros((st.shape[1], size)), np.empty(size), np.empty(size)
    exponent, mantissa = np.empty(size), np.empty(size)
    for p in range(len(out)):
        m, _ = gather(st, channel, value, indptr[p], indptr[p + 1], g, x)
        model(g, theta[p], m, y)
        out[p] = log_likelihood(x, y.view(np.int64), m, exponent, mantissa, mantissa.view(np.int64))


@lean
def _start(gamma: Any, alpha: Any, total: float, start: int) -> None:
    """Set the posterior ``gamma`` (K,) of a pixel of ``total`` counts to its start.

    alpha (K,): parameters of the prior. start: see `infer_rows`.
    """
    if start == 0:
        return
    amount = 0.0
    for k in range(gamma.shape[0]):
        amount += alpha[k] if start == 1 else gamma[k]
    for k in range(gamma.shape[0]):
        part = (alpha[k] if start == 1 else gamma[k]) / amount
        gamma[k] = alpha[k] + total * max(part, MIN_START_FRACTION)


@lean
def _prior_constant(alpha: Any) -> float:
    """The term of the prior ``alpha`` (K,) in the bound of a pixel."""
    whole, parts = 0.0, 0.0
    for k in range(alpha.shape[0]):
        whole += alpha[k]
        parts += _gamma_logs(alpha[k])[0]
    return _gamma_logs(whole)[0] - parts


@lean
def _bound(gamma: Any, alpha: Any, constant: float, total: float, likelihood: float) -> float:
    """The bound of a pixel.

    gamma, alpha (K,): posterior and prior. constant: term of the prior. total: counts. likelihood: ``sum x log y``.
    """
    n = gamma.shape[0]
    whole = 0.0
    for k in range(n):
        whole += gamma[k]
    log_gamma, level = _gamma_logs(whole)
    bound = likelihood - total * level + constant - log_gamma
    for k in range(n):
        log_gamma, psi = _gamma_logs(gamma[k])
        bound += log_gamma + (alpha[k] - gamma[k]) * (psi - level)
    return bound
