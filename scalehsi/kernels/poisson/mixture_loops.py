"""The loops of a mixture of counts over the pixels of a strip, and the special functions that they need.

Letters: x counts of a pixel at its filled channels, g the spectra there, w = exp(psi(gamma)), y = w g, r = x / y.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numba
import numpy as np

from scalehsi.kernels.compiled import lean
from scalehsi.kernels.poisson.channel_loops import FILL, gather, log_likelihood, model, scatter, slope, weights

FAINT: Final = 1e-4
"""Smallest share with which a component starts: one that is off could not come back."""
HALF_LOG_2PI: Final = 0.5 * math.log(2.0 * math.pi)


@lean
def _shift(x: float) -> tuple[float, float, float]:
    """What leads from x to x + 6, where the series below are good: y, log(G(x + 6) / G(x)), psi(x + 6) - psi(x)."""
    if x >= 6.0:
        return x, 0.0, 0.0
    u = x * (x + 5.0)
    a, b = u + 4.0, u + 6.0
    product = u * a * b
    return x + 6.0, math.log(product), (2.0 * x + 5.0) * (a * b + u * (a + b)) / product


@lean
def _digamma_tail(y: float) -> float:
    """``log(y) - psi(y)`` for y of 6 and more."""
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
    y, log_less, less = _shift(x)
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
    sums: Any,
    start: int,
    steps: int,
    tol: float,
) -> None:
    """Posteriors of a strip in place, and what they add to the sums.

    prior (1 or P, K). start: 0 from gamma, 1 from the prior, 2 from the shares of gamma. table (E, width) or (0, width)
    for none; then ``sums`` is not touched either.
    """
    pixels, n = gamma.shape
    wide = st.shape[1]
    longest = 0
    for p in range(pixels):
        longest = max(longest, indptr[p + 1] - indptr[p])
    m_most = longest + FILL
    g, x, y = np.zeros((wide, m_most)), np.empty(m_most), np.empty(m_most)
    r, q, along, mantissa = np.empty(m_most), np.empty(m_most), np.empty(m_most), np.empty(m_most)
    w, gradient, share = np.zeros(wide), np.zeros(wide), np.zeros(table.shape[1])
    constant = 0.0
    for p in range(pixels):
        first, last = indptr[p], indptr[p + 1]
        own = prior[p if prior.shape[0] > 1 else 0]
        if table.shape[0] > 0 and (p == 0 or prior.shape[0] > 1):
            constant = _constant(own)
        m, total = gather(st, channel, value, first, last, g, x)
        _begin(gamma[p], own, total, start)
        amount = 0.0
        for k in range(n):
            amount += own[k]
        for _ in range(steps if m > 0 else 0):
            for k in range(n):
                w[k] = _exp_digamma(gamma[p, k])
            slope(g, x, w, m, y, r, q, gradient)
            change = 0.0
            for k in range(n):
                new = own[k] + w[k] * gradient[k]
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
                    share[k] = w[k]
                scatter(table, channel, first, last, r, share)
                likelihood = log_likelihood(x, y.view(np.int64), m, along, mantissa, mantissa.view(np.int64))
            _add(gamma[p], own, constant, total, likelihood, sums)


@numba.njit(cache=True, nogil=True)
def predict_rows(indptr: Any, channel: Any, value: Any, st: Any, theta: Any, out: Any) -> None:
    """Logarithms of the likelihood of a strip; theta (P, width of st)."""
    longest = 0
    for p in range(len(out)):
        longest = max(longest, indptr[p + 1] - indptr[p])
    m_most = longest + FILL
    g, x, y = np.zeros((st.shape[1], m_most)), np.empty(m_most), np.empty(m_most)
    along, mantissa = np.empty(m_most), np.empty(m_most)
    for p in range(len(out)):
        m, _ = gather(st, channel, value, indptr[p], indptr[p + 1], g, x)
        model(g, theta[p], m, y)
        out[p] = log_likelihood(x, y.view(np.int64), m, along, mantissa, mantissa.view(np.int64))


@lean
def _begin(gamma: Any, own: Any, total: float, start: int) -> None:
    """Where the fixed point of a pixel starts."""
    if start == 0:
        return
    amount = 0.0
    for k in range(gamma.shape[0]):
        amount += own[k] if start == 1 else gamma[k]
    for k in range(gamma.shape[0]):
        part = (own[k] if start == 1 else gamma[k]) / amount
        gamma[k] = own[k] + total * max(part, FAINT)


@lean
def _constant(own: Any) -> float:
    """What the prior alone gives to the bound of a pixel."""
    whole, parts = 0.0, 0.0
    for k in range(own.shape[0]):
        whole += own[k]
        parts += _gamma_logs(own[k])[0]
    return _gamma_logs(whole)[0] - parts


@lean
def _add(gamma: Any, own: Any, constant: float, total: float, likelihood: float, sums: Any) -> None:
    """The bound of a pixel, and its counts by component, onto the sums (1 + K + K K,)."""
    n = gamma.shape[0]
    whole = 0.0
    for k in range(n):
        whole += gamma[k]
    size, level = _gamma_logs(whole)
    bound = likelihood - total * level + constant - size
    for k in range(n):
        size, slope = _gamma_logs(gamma[k])
        bound += size + (own[k] - gamma[k]) * (slope - level)
    sums[0] += bound
    part = total / whole
    for k in range(n):
        count = part * gamma[k]
        sums[1 + k] += count
        for j in range(n):
            sums[1 + n + k * n + j] += count * part * gamma[j]
