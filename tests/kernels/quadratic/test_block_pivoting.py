"""Tests of block principal pivoting against scipy, or against the conditions of an optimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import optimize

from scalehsi.arrays import Float
from scalehsi.kernels.quadratic.block_pivoting import ASYMMETRIC, MAX_INVERSES, NON_NEGATIVE, SIMPLEX, solve, workspace
from scalehsi.kernels.quadratic.nnls import nnls

seeds = st.integers(0, 10_000)


def problem(seed: int, components: int, channels: int = 15, pixels: int = 20) -> tuple[Float, Float]:
    """A Gram matrix with a unit diagonal, and right-hand sides in which some components are absent."""
    rng = np.random.default_rng(seed)
    s = rng.random((components, channels)) ** 3 + 1e-3
    s /= np.linalg.norm(s, axis=1, keepdims=True)
    c = rng.random((pixels, components)) * (rng.random((pixels, components)) < 0.6)
    x = c @ s + 0.1 * rng.standard_normal((pixels, channels))
    x[0] = 0.0
    return s @ s.T + 1e-12 * np.eye(components), x @ s.T


def solved(kind: int, gram: Float, b: Float) -> Float:
    out = np.full(b.shape, np.nan)
    solve(kind, gram, np.ascontiguousarray(b), out, *workspace(len(gram)))
    return out


@given(seed=seeds, components=st.integers(1, 12))
def test_non_negative_solutions_are_those_of_the_active_set(seed: int, components: int) -> None:
    gram, b = problem(seed, components)
    assert_allclose(solved(NON_NEGATIVE, gram, b), nnls(gram, b), rtol=1e-6, atol=1e-8)


def simplex_gap(gram: Float, b: Float, c: Float) -> Float:
    """Upper bound of the distance to the lowest loss: the Frank-Wolfe gap."""
    gradient = c @ gram - b
    gap: Float = np.sum(gradient * c, axis=1) - gradient.min(axis=1)
    return gap


@given(
    seed=seeds, components=st.integers(1, 9), kind=st.sampled_from(["apart", "equal", "nearly equal", "few channels"])
)
def test_simplex_solutions_are_optimal(seed: int, components: int, kind: str) -> None:
    gram, b = problem(seed, components, channels=3 if kind == "few channels" else 15)
    if components > 1 and kind in ("equal", "nearly equal"):
        rng = np.random.default_rng(seed)
        s = rng.random((components, 15))
        s[-1] = s[0] * (1 + (1e-6 * rng.standard_normal(15) if kind == "nearly equal" else 0.0))
        x = rng.random((10, 15))
        gram, b = s @ s.T / 15 + 1e-12 * np.eye(components), x @ s.T / 15
    c = solved(SIMPLEX, gram, b)
    assert (c >= 0).all()
    assert_allclose(c.sum(axis=1), 1.0, atol=1e-9)
    assert (simplex_gap(gram, b, c) <= 1e-7).all()


@pytest.mark.parametrize("components", [2, 3, 5])
def test_simplex_solutions_are_those_of_scipy(components: int) -> None:
    gram, b = problem(1, components)
    for row, c in zip(b, solved(SIMPLEX, gram, b), strict=True):
        best = optimize.minimize(
            lambda v, row=row: 0.5 * v @ gram @ v - row @ v,
            np.full(components, 1 / components),
            jac=lambda v, row=row: gram @ v - row,
            bounds=[(0, None)] * components,
            constraints={"type": "eq", "fun": lambda v: v.sum() - 1, "jac": np.ones_like},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert_allclose(c, best.x, atol=1e-5)


@given(seed=seeds)
def test_an_asymmetric_matrix_returns_a_fixed_point(seed: int) -> None:
    gram, b = problem(seed, 4)
    pull = 0.3 * np.random.default_rng(seed).random(4)
    gram = gram + pull[:, None] * (1 - np.eye(4))
    c = solved(ASYMMETRIC, gram, b)
    assert_allclose(c, np.maximum(c - (c @ gram.T - b) / np.diag(gram), 0.0), atol=1e-7)


def test_more_sets_than_are_kept_change_nothing() -> None:
    gram, b = problem(3, 14, channels=40, pixels=2 * MAX_INVERSES)
    assert_allclose(solved(NON_NEGATIVE, gram, b), nnls(gram, b), rtol=1e-6, atol=1e-8)


def test_a_pixel_of_zeros_has_zero_abundances_except_on_the_simplex() -> None:
    gram, _ = problem(0, 3)
    assert not solved(NON_NEGATIVE, gram, np.zeros((2, 3))).any()
    assert_allclose(solved(SIMPLEX, gram, np.zeros((2, 3))).sum(axis=1), 1.0)
