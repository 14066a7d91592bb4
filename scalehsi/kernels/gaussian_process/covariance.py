"""Covariances along one axis, and their eigenvectors on an even grid."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.linalg import eigh, toeplitz

from scalehsi.arrays import Float
from scalehsi.kernels.gaussian_process.sampling_points import Along, places
from scalehsi.schema import InputError, suggest

Pair = tuple[Float, Float]

JITTER: Final = 1e-9
"""Least eigenvalue, relative to the largest: below it a direction has no variance that float64 could tell."""


def _matern12(r: Float) -> Pair:
    k = np.exp(-r)
    return k, r * k


def _matern32(r: Float) -> Pair:
    a = np.sqrt(3.0) * r
    e = np.exp(-a)
    return (1 + a) * e, a * a * e


def _matern52(r: Float) -> Pair:
    a = np.sqrt(5.0) * r
    e = np.exp(-a)
    return (1 + a + a * a / 3) * e, a * a * (1 + a) / 3 * e


def _rbf(r: Float) -> Pair:
    k = np.exp(-0.5 * r * r)
    return k, r * r * k


STATIONARY: Final[dict[str, Callable[[Float], Pair]]] = {
    "matern12": _matern12,
    "matern32": _matern32,
    "matern52": _matern52,
    "rbf": _rbf,
}
"""Distance over length -> the covariance, and its derivative by the logarithm of the length."""
FACTOR: Final = re.compile(r"^(\w+)(?:\(([0-9.eE+-]+)\))?$")


class Factor(NamedTuple):
    """One factor of a covariance: a name of STATIONARY, or "periodic" with its period in pixels."""

    name: str
    period: float


@lru_cache(maxsize=64)
def parse(kernel: str) -> tuple[tuple[Factor, ...], ...]:
    """A covariance as a sum of products, from text such as ``"matern52"`` or ``"matern52*periodic(6)+rbf"``.

    Raises
    ------
    InputError
        For a name that is not known, and for a period that is missing or not positive.

    Examples
    --------
    >>> parse("matern52*periodic(6)")[0][1]
    Factor(name='periodic', period=6.0)
    """
    terms = []
    for term in str(kernel).replace(" ", "").split("+"):
        factors = []
        for word in term.split("*"):
            found = FACTOR.match(word)
            name = found.group(1) if found else word
            if name not in STATIONARY and name != "periodic":
                raise InputError(
                    f"kernel={kernel!r}: {name!r} is not known; {suggest(name, [*STATIONARY, 'periodic'])}"
                )
            period = float(found.group(2)) if found and found.group(2) else 0.0
            if (name == "periodic") != (period > 0):
                raise InputError(
                    f"kernel={kernel!r}: periodic takes its period in pixels, as in periodic(6), and nothing else does"
                )
            factors.append(Factor(name, period))
        terms.append(tuple(factors))
    return tuple(terms)


def covariance(kernel: str, distance: Any, length: float) -> Pair:
    """Covariance at given distances, one at zero, and its derivative by the logarithm of the length.

    Parameters
    ----------
    kernel : str
        See `parse`. All its stationary factors share the length; of "periodic" it is the length over which a period
        stays alike, in periods: ``exp(-2 sin(pi d / p)^2 / (length / p)^2)``.
    distance : array
        In pixels.
    length : float
        In pixels, above 0.

    Examples
    --------
    >>> covariance("matern52", np.array([0.0, 3.0]), 3.0)[0].round(3).tolist()
    [1.0, 0.524]
    """
    d = np.abs(np.asarray(distance, dtype=np.float64))
    value, slope = np.zeros_like(d), np.zeros_like(d)
    terms = parse(kernel)
    for factors in terms:
        k, relative = np.ones_like(d), np.zeros_like(d)
        for name, period in factors:
            if name == "periodic":
                part = np.exp(-0.5 * (2 * period * np.sin(np.pi * d / period) / length) ** 2)
                change = (2 * period * np.sin(np.pi * d / period) / length) ** 2
            else:
                part, gradient = STATIONARY[name](d / length)
                change = gradient / np.maximum(part, 1e-300)
            k = k * part
            relative = relative + change
        value += k / len(terms)
        slope += k * relative / len(terms)
    return value, slope


class Axis(NamedTuple):
    """An axis in the eigenvectors of its covariance: ``K = Q diag(values) Q'``.

    Attributes
    ----------
    vectors : array, shape (n, n)
        In columns.
    values : array, shape (n,)
        Falling, all above zero.
    slope : array, shape (n, n)
        ``Q' (dK / d log length) Q``.
    """

    vectors: Float
    values: Float
    slope: Float


@lru_cache(maxsize=32)
def axis(kernel: str, size: int, length: float, *, slope: bool = True) -> Axis:
    """The eigenvectors of an axis of ``size`` even pixels.

    A symmetric Toeplitz matrix commutes with the reversal of its axis, so its eigenvectors are even or odd, and two
    matrices of half the size give them: a quarter of the time.

    Examples
    --------
    >>> found = axis("rbf", 5, 1.5)
    >>> k = covariance("rbf", np.subtract.outer(np.arange(5), np.arange(5)), 1.5)[0]
    >>> bool(np.allclose(found.vectors * found.values @ found.vectors.T, k, atol=1e-8))
    True
    """
    row, change = covariance(kernel, np.arange(size), length)
    even = _folded(row, size, sign=1.0)
    odd = _folded(row, size, sign=-1.0)
    half, middle = size // 2, size % 2
    values_even, q_even = eigh(even)
    vectors = np.zeros((size, size))
    values = np.zeros(size)
    n_even = half + middle
    root = np.sqrt(0.5)
    vectors[:half, :n_even] = root * q_even[:half]
    if middle:
        vectors[half, :n_even] = q_even[half]
    vectors[size - half :, :n_even] = root * q_even[:half][::-1]
    values[:n_even] = values_even
    if half:
        values_odd, q_odd = eigh(odd)
        vectors[:half, n_even:] = root * q_odd
        vectors[size - half :, n_even:] = -root * q_odd[::-1]
        values[n_even:] = values_odd
    order = np.argsort(-values, kind="stable")
    values, vectors = values[order], np.ascontiguousarray(vectors[:, order])
    values = np.maximum(values, JITTER * max(float(values[0]), 1e-300))
    return Axis(vectors, values, vectors.T @ toeplitz(change) @ vectors if slope else np.zeros((0, 0)))


def _folded(row: Float, size: int, *, sign: float) -> Float:
    """A symmetric Toeplitz matrix on the even or the odd vectors."""
    half, middle = size // 2, size % 2
    top = toeplitz(row[:half])
    near = row[size - 1 - np.add.outer(np.arange(half), np.arange(half))] if half else np.zeros((0, 0))
    block = top + sign * near
    if not middle or sign < 0:
        return np.asarray(block)
    out = np.empty((half + 1, half + 1))
    out[:half, :half] = block
    out[:half, half] = out[half, :half] = np.sqrt(2.0) * row[half - np.arange(half)]
    out[half, half] = row[0]
    return out


def across(kernel: str, size: int, length: float, points: Along) -> Float:
    """Covariance between points and the pixels of an axis, shape (points, size).

    See `scalehsi.kernels.gaussian_process.sampling_points`.
    """
    return covariance(kernel, np.subtract.outer(places(points, size), np.arange(size)), length)[0]
