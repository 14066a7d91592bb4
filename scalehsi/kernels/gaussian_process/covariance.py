"""Spatial covariances along one axis of a map (Matern, RBF, periodic), and their eigenvectors on a regular grid."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.linalg import eigh, toeplitz

from scalehsi.arrays import Float
from scalehsi.kernels.gaussian_process.sampling_points import AxisPoints, positions
from scalehsi.schema import InputError, suggest

ValueAndSlope = tuple[Float, Float]
"""A covariance, and its derivative by the logarithm of the length."""

JITTER: Final = 1e-9
"""Smallest eigenvalue, relative to the largest; float64 cannot resolve a smaller variance."""


def _matern12(r: Float) -> ValueAndSlope:
    k = np.exp(-r)
    return k, r * k


def _matern32(r: Float) -> ValueAndSlope:
    a = np.sqrt(3.0) * r
    e = np.exp(-a)
    return (1 + a) * e, a * a * e


def _matern52(r: Float) -> ValueAndSlope:
    a = np.sqrt(5.0) * r
    e = np.exp(-a)
    return (1 + a + a * a / 3) * e, a * a * (1 + a) / 3 * e


def _rbf(r: Float) -> ValueAndSlope:
    k = np.exp(-0.5 * r * r)
    return k, r * r * k


STATIONARY: Final[dict[str, Callable[[Float], ValueAndSlope]]] = {
    "matern12": _matern12,
    "matern32": _matern32,
    "matern52": _matern52,
    "rbf": _rbf,
}
"""Functions of the distance divided by the length, which return the covariance and its slope."""
FACTOR_PATTERN: Final = re.compile(r"^(\w+)(?:\(([0-9.eE+-]+)\))?$")


class Factor(NamedTuple):
    """One factor of a covariance: a name of STATIONARY, or "periodic" with its period in pixels."""

    name: str
    period: float


@lru_cache(maxsize=64)
def parse(kernel: str) -> tuple[tuple[Factor, ...], ...]:
    """Parse a covariance such as ``"matern52"`` or ``"matern52*periodic(6)+rbf"`` into a sum of products.

    Raises
    ------
    InputError
        For an unknown name, and for a period that is missing or not positive.

    Examples
    --------
    >>> parse("matern52*periodic(6)")[0][1]
    Factor(name='periodic', period=6.0)
    """
    terms = []
    for term in str(kernel).replace(" ", "").split("+"):
        factors = []
        for word in term.split("*"):
            found = FACTOR_PATTERN.match(word)
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


def covariance(kernel: str, distance: Any, length: float) -> ValueAndSlope:
    """Compute the covariance at given distances, which is 1 at zero, and its derivative by the logarithm of the length.

    Parameters
    ----------
    kernel : str
        See `parse`. All stationary factors share the length. For "periodic" it is the length over which successive
        periods stay similar: ``exp(-2 sin(pi d / p)^2 / (length / p)^2)``.
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
                factor = np.exp(-0.5 * (2 * period * np.sin(np.pi * d / period) / length) ** 2)
                factor_slope = (2 * period * np.sin(np.pi * d / period) / length) ** 2
            else:
                factor, gradient = STATIONARY[name](d / length)
                factor_slope = gradient / np.maximum(factor, 1e-300)
            k = k * factor
            relative = relative + factor_slope
        value += k / len(terms)
        slope += k * relative / len(terms)
    return value, slope


class AxisEigen(NamedTuple):
    """Eigendecomposition of the covariance of one axis: ``K = Q diag(values) Q'``.

    Attributes
    ----------
    vectors : array, shape (n, n)
        The eigenvectors Q, as columns.
    values : array, shape (n,)
        The eigenvalues, in descending order, all above zero.
    slope : array, shape (n, n)
        ``Q' (dK / d log length) Q``.
    """

    vectors: Float
    values: Float
    slope: Float


@lru_cache(maxsize=32)
def decompose_axis(kernel: str, size: int, length: float, *, slope: bool = True) -> AxisEigen:
    """Eigendecomposition of the covariance of ``size`` equally spaced pixels; cached.

    A symmetric Toeplitz matrix commutes with the reversal of its axis. Its eigenvectors are therefore even or odd, and
    follow from two matrices of half the size in a quarter of the time.

    Parameters
    ----------
    kernel, length
        As in `covariance`.
    size : int
        Pixels of the axis.
    slope : bool
        Whether the derivative by the length is needed.

    Examples
    --------
    >>> found = decompose_axis("rbf", 5, 1.5)
    >>> k = covariance("rbf", np.subtract.outer(np.arange(5), np.arange(5)), 1.5)[0]
    >>> bool(np.allclose(found.vectors * found.values @ found.vectors.T, k, atol=1e-8))
    True
    """
    row, row_slope = covariance(kernel, np.arange(size), length)
    even = _even_or_odd_block(row, size, sign=1.0)
    odd = _even_or_odd_block(row, size, sign=-1.0)
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
    return AxisEigen(vectors, values, vectors.T @ toeplitz(row_slope) @ vectors if slope else np.zeros((0, 0)))


def _even_or_odd_block(row: Float, size: int, *, sign: float) -> Float:
    """Restrict the symmetric Toeplitz matrix of a first row (size,) to its even (sign 1) or odd (sign -1) vectors."""
    half, middle = size // 2, size % 2
    same_half = toeplitz(row[:half])
    other_half = row[size - 1 - np.add.outer(np.arange(half), np.arange(half))] if half else np.zeros((0, 0))
    block = same_half + sign * other_half
    if not middle or sign < 0:
        return np.asarray(block)
    out = np.empty((half + 1, half + 1))
    out[:half, :half] = block
    out[:half, half] = out[half, :half] = np.sqrt(2.0) * row[half - np.arange(half)]
    out[half, half] = row[0]
    return out


def cross_covariance(kernel: str, size: int, length: float, points: AxisPoints) -> Float:
    """Covariance between the points and the ``size`` pixels of an axis, shape (points, size).

    Parameters
    ----------
    kernel, length
        As in `covariance`.
    size : int
    points : int or tuple of float
        See `scalehsi.kernels.gaussian_process.sampling_points`.
    """
    return covariance(kernel, np.subtract.outer(positions(points, size), np.arange(size)), length)[0]
