"""Fully constrained least squares: exact, and fast, for floats and counts."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from scalehsi.arrays import Float
from scalehsi.kernels import least_squares


def problem(pixels: int, k: int, *, seed: int = 0, channels: int = 200) -> tuple[Float, Float, Float]:
    """Counts (P, E), spectra (K, E) that look alike, and weights (E,) of one over the mean."""
    rng = np.random.default_rng(seed)
    energy = np.linspace(1.0, 4.0, channels)
    s = energy ** -rng.uniform(2.0, 3.0, (k, 1)) + 0.05 * rng.random((k, channels)).cumsum(axis=1) / channels
    s *= 2e4 / s.sum(axis=1, keepdims=True)
    x = rng.poisson(rng.dirichlet(np.full(k, 0.4), pixels) @ s).astype(float)
    return x, s, 1 / x.mean(axis=0)


def by_enumeration(x: Float, s: Float, w: Float) -> Float:
    """The best feasible solution over all sets of components, each by its equations with a multiplier for the sum."""
    gram, b = (s * w) @ s.T, x @ (s * w).T
    best, found = np.full(len(x), np.inf), np.zeros((len(x), len(s)))
    for size in range(1, len(s) + 1):
        for members in map(list, itertools.combinations(range(len(s)), size)):
            kkt = np.block(
                [[gram[np.ix_(members, members)], np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]]
            )
            right = np.vstack([b[:, members].T, np.ones(len(x))])
            # Scaled so that both kinds of rows have one size.
            one = np.trace(gram) / len(gram)
            scale = np.array([*[one**-0.5] * size, one**0.5])
            c = (scale[:, None] * np.linalg.solve(kkt * np.outer(scale, scale), right * scale[:, None]))[:size].T
            value = 0.5 * np.einsum("pi,ij,pj->p", c, gram[np.ix_(members, members)], c) - (c * b[:, members]).sum(
                axis=1
            )
            better = (c >= -1e-12).all(axis=1) & (value < best)
            best[better] = value[better]
            found[better] = 0.0
            found[np.ix_(better, members)] = c[better]
    return found


def by_slsqp(x: Float, s: Float, w: Float) -> Float:
    """One call of scipy a pixel."""
    gram, b = (s * w) @ s.T, x @ (s * w).T
    one = np.trace(gram) / len(gram)
    gram, b = gram / one, b / one
    rule = {"type": "eq", "fun": lambda c: c.sum() - 1, "jac": np.ones_like}
    found = []
    for row in b:
        solved = minimize(
            lambda c, row=row: 0.5 * c @ gram @ c - row @ c,
            np.full(len(s), 1 / len(s)),
            jac=lambda c, row=row: gram @ c - row,
            bounds=[(0, None)] * len(s),
            constraints=rule,
            method="SLSQP",
            options={"ftol": 1e-16, "maxiter": 500},
        )
        found.append(solved.x)
    return np.array(found)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("dtype", ["f8", "f4", "u2"])
def test_a_thousand_pixels_are_solved_exactly(k: int, dtype: str) -> None:
    x, s, w = problem(1000, k)
    found = least_squares.abundances(x.astype(dtype), s=s, w=w, simplex=True, residual=False)[0]["abundances"]
    np.testing.assert_allclose(found, by_enumeration(x, s, w), rtol=0, atol=1e-6)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=0, atol=5e-7)


@pytest.mark.parametrize("k", [3, 8])
@pytest.mark.parametrize("thickness", [1.0, 3.0])
def test_products_in_float32_are_exact_for_spectra_that_differ(k: int, thickness: float) -> None:
    x, s, w = problem(1000, k)
    s = s * (1 + np.exp(-(((np.arange(200) - np.linspace(20, 180, k)[:, None]) / 8) ** 2)))
    x = np.random.default_rng(1).poisson(np.random.default_rng(0).dirichlet(np.full(k, 0.4), 1000) @ s * thickness)
    options: dict[str, Any] = {"s": s, "w": w, "simplex": True, "residual": False}
    found = least_squares.abundances(x.astype("u2"), **options)[0]["abundances"]
    exact = least_squares.abundances(x.astype("f8"), **options)[0]["abundances"]
    assert not np.array_equal(found, exact)  # float32 was used
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-6)
    np.testing.assert_allclose(exact, by_enumeration(x.astype(float), s, w), rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [2, 4])
def test_it_is_a_quadratic_programme_and_a_hundred_times_faster_than_a_call_a_pixel(k: int) -> None:
    x, s, w = problem(100, k, channels=100)
    clock = time.process_time()
    wanted = by_slsqp(x, s, w)
    each = (time.process_time() - clock) / len(x)
    options: dict[str, Any] = {"s": s, "w": w, "simplex": True, "residual": False}
    many = np.tile(x, (40, 1))
    least_squares.abundances(many, **options)  # compiles
    clock = time.process_time()
    found = least_squares.abundances(many, **options)[0]["abundances"]
    ours = (time.process_time() - clock) / len(many)
    np.testing.assert_allclose(found[: len(x)], wanted, rtol=0, atol=2e-6)
    assert 100 * ours < each


def test_equal_spectra_share_the_sum() -> None:
    x, s, w = problem(50, 3)
    s[1] = s[0]
    found = least_squares.abundances(x, s=s, w=w, simplex=True, residual=False)[0]["abundances"]
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    alone = least_squares.abundances(x, s=s[1:], w=w, simplex=True, residual=False)[0]["abundances"]
    np.testing.assert_allclose(found @ s, alone @ s[1:], rtol=1e-5)
