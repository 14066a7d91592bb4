"""Tests of batched NNLS against scipy, or against the conditions of an optimum."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.quadratic.nnls import nnls

seeds = st.integers(0, 10_000)


def problem(seed: int, *, pixels: int = 12, components: int = 4, channels: int = 15) -> tuple[Float, Float]:
    """Spectra ``s`` (K, E) and noisy mixtures ``x`` (P, E) of them; some abundances and some data are zero."""
    rng = np.random.default_rng(seed)
    s = rng.random((components, channels)) ** 3
    c = rng.random((pixels, components)) * (rng.random((pixels, components)) < 0.6)
    x = c @ s + 0.1 * rng.standard_normal((pixels, channels))
    x[0] = 0.0
    return s, x


def solve(s: Float, x: Float) -> Float:
    found: Float = nnls(s @ s.T, x @ s.T)
    return found


def assert_optimal(gram: Float, b: Float, c: Float) -> None:
    """Check feasibility, zero gradient of used components, and non-negative gradient of the others."""
    assert (c >= 0).all()
    gradient = c @ gram - b
    allowed = 1e-9 * (np.abs(b).max(axis=1, keepdims=True) + np.abs(c) @ np.abs(gram)) + 1e-300
    assert (gradient >= -allowed).all()
    assert (np.abs(gradient)[c > 0] <= np.broadcast_to(allowed, c.shape)[c > 0]).all()


@given(seed=seeds, components=st.integers(1, 9))
def test_the_solution_is_that_of_scipy(seed: int, components: int) -> None:
    s, x = problem(seed, components=components)
    want = np.stack([optimize.nnls(s.T, row)[0] for row in x])
    assert_allclose(solve(s, x), want, rtol=1e-7, atol=1e-9)


@given(
    seed=seeds, kind=st.sampled_from(["equal", "nearly equal", "zero", "dependent", "of either sign", "more than E"])
)
def test_singular_problems_are_solved_to_the_optimum(seed: int, kind: str) -> None:
    s, x = problem(seed, channels=3 if kind == "more than E" else 15)
    if kind == "equal":
        s[3] = s[0]
    if kind == "nearly equal":
        s[3] = s[0] * (1 + 1e-7 * np.sin(np.arange(s.shape[1])))
    if kind == "zero":
        s[1] = 0.0
    if kind == "dependent":
        s[3] = 0.5 * (s[0] + s[1])
    if kind == "of either sign":
        s -= s.mean()
    c = solve(s, x)
    assert np.isfinite(c).all()
    assert (c >= 0).all()
    loss = ((x - c @ s) ** 2).sum(axis=1)
    best = np.array([optimize.nnls(s.T, row)[1] ** 2 for row in x])
    assert (loss <= best + 1e-9 * (x**2).sum(axis=1)).all()
    if kind != "nearly equal":  # the ridge, 1e-12 of the diagonal, is as large as their difference
        assert_optimal(s @ s.T, x @ s.T, c)


def test_a_component_of_zeros_has_zero_abundance() -> None:
    s, x = problem(0)
    s[2] = 0.0
    assert_array_equal(solve(s, x)[:, 2], 0.0)


def test_two_equal_components_share_the_abundance_of_one() -> None:
    s, x = problem(1)
    alone = solve(s, x)
    both = solve(np.vstack([s, s[:1]]), x)
    assert_allclose(both[:, 0] + both[:, 4], alone[:, 0], rtol=1e-8, atol=1e-9)


@given(seed=seeds, factor=st.sampled_from([1e-12, 1e-3, 1e5, 1e12]))
def test_data_of_another_unit_give_abundances_of_that_unit(seed: int, factor: float) -> None:
    s, x = problem(seed)
    assert_allclose(solve(s, factor * x), factor * solve(s, x), rtol=1e-8, atol=1e-10 * factor)


@given(seed=seeds, exponents=st.lists(st.integers(-7, 7), min_size=4, max_size=4))
def test_spectra_of_other_units_give_abundances_of_the_inverse(seed: int, exponents: list[int]) -> None:
    # A ridge relative to the strongest spectrum would halve the abundance of one that is a million times weaker.
    s, x = problem(seed)
    units = 10.0 ** np.array(exponents)
    assert_allclose(solve(s * units[:, None], x) * units, solve(s, x), rtol=1e-5, atol=1e-5)


@given(seed=seeds, order=st.permutations(range(4)))
def test_the_order_of_components_changes_nothing(seed: int, order: list[int]) -> None:
    s, x = problem(seed)
    assert_allclose(solve(s[order], x), solve(s, x)[:, order], rtol=1e-8, atol=1e-10)


@given(seed=seeds)
def test_rows_are_solved_independently(seed: int) -> None:
    s, x = problem(seed)
    together = solve(s, x)
    for p, row in enumerate(x):
        assert_allclose(solve(s, row[None])[0], together[p], rtol=1e-12, atol=1e-14)


def test_one_component_is_a_division() -> None:
    assert_allclose(nnls(np.array([[4.0]]), np.array([[8.0], [-8.0], [0.0]])), [[2.0], [0.0], [0.0]], rtol=1e-9)


def test_no_rows_return_no_rows() -> None:
    assert nnls(np.eye(3), np.zeros((0, 3))).shape == (0, 3)


def test_many_components_are_solved_too() -> None:
    s, x = problem(3, pixels=5, components=60, channels=200)
    assert_optimal(s @ s.T, x @ s.T, solve(s, x))


def test_the_arguments_stay_as_they_were_in_any_memory_layout(put: Any) -> None:
    s, x = problem(4)
    gram, b = put(s @ s.T), put(np.asfortranarray(x @ s.T))
    found = arrays.to_host(nnls(gram, b))
    assert_allclose(found, solve(s, x), rtol=1e-4, atol=1e-5)
    assert_array_equal(arrays.to_host(gram), s @ s.T)
    assert_array_equal(arrays.to_host(b), x @ s.T)


@given(seed=seeds, components=st.integers(1, 5))
def test_coordinate_descent_of_other_libraries_reaches_the_same_solution(seed: int, components: int) -> None:
    s, x = problem(seed, components=components)
    device = array_api_strict.Device("device1")
    gram, b = (array_api_strict.asarray(a, device=device) for a in (s @ s.T, x @ s.T))
    found = nnls(gram, b)
    assert found.device == device
    want = solve(s, x)
    loss = [((x - c @ s) ** 2).sum() for c in (arrays.to_host(found), want)]
    assert (arrays.to_host(found) >= 0).all()
    assert loss[0] <= loss[1] + 1e-6 * (x**2).sum()


def test_coordinate_descent_skips_a_component_of_zeros() -> None:
    gram = array_api_strict.asarray([[2.0, 0.0], [0.0, 0.0]])
    assert arrays.to_host(nnls(gram, array_api_strict.asarray([[4.0, 0.0]]))).tolist() == [[2.0, 0.0]]


def test_arrays_of_two_libraries_are_refused() -> None:
    with pytest.raises(TypeError, match="Multiple namespaces"):
        nnls(np.eye(2), array_api_strict.asarray([[1.0, 1.0]]))
