"""Tests of endmember updates from sums, against scipy or against the conditions of an optimum."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize

from scalehsi.arrays import Float
from scalehsi.kernels.least_squares import endmember_update

seeds = st.integers(0, 10_000)


def sums(seed: int = 0, components: int = 3, channels: int = 12) -> tuple[Float, Float, Float, Float, Float]:
    """N, M and s, and the data and abundances that they come from."""
    rng = np.random.default_rng(seed)
    s = rng.random((components, channels)) ** 3
    c = rng.random((40, components)) * (rng.random((40, components)) < 0.7)
    x = c @ s + 0.05 * rng.standard_normal((40, channels))
    return c.T @ x, c.T @ c, rng.random((components, channels)), x, c


@given(seed=seeds)
def test_least_squares_is_the_best_channel_by_channel(seed: int) -> None:
    n, m, s, x, c = sums(seed)
    want = np.stack([optimize.nnls(c, column)[0] for column in x.T]).T
    assert_allclose(endmember_update.least_squares(n, m, s), want, rtol=1e-6, atol=1e-8)


@given(seed=seeds)
def test_fixed_rows_stay_and_the_others_are_best_for_them(seed: int) -> None:
    n, m, s, x, c = sums(seed)
    free = np.array([False, True, True])
    found = endmember_update.least_squares(n, m, s, free=free)
    assert_array_equal(found[0], s[0])
    rest = x - np.outer(c[:, 0], s[0])
    want = np.stack([optimize.nnls(c[:, 1:], column)[0] for column in rest.T]).T
    assert_allclose(found[1:], want, rtol=1e-6, atol=1e-8)


def fit(n: Float, m: Float, s: Float) -> float:
    return float(0.5 * np.sum(m * (s @ s.T)) - np.sum(n * s))


@given(seed=seeds)
def test_unit_length_never_raises_the_loss_and_ends_where_no_row_can_be_better(seed: int) -> None:
    n, m, s, _, _ = sums(seed)
    s /= np.linalg.norm(s, axis=1, keepdims=True)
    found = s
    for _ in range(20):
        better = endmember_update.unit_length(n, m, found)
        assert fit(n, m, better) <= fit(n, m, found) + 1e-12
        found = better
    assert_allclose(np.linalg.norm(found, axis=1), 1.0)
    assert (found >= 0).all()
    for k in range(3):
        pull = np.maximum(n[k] - m[k] @ found + m[k, k] * found[k], 0.0)
        assert_allclose(found[k], pull / np.linalg.norm(pull), atol=1e-4)


@given(seed=seeds, strength=st.sampled_from([0.0, 0.1, 3.0]))
def test_smooth_rows_minimise_the_penalised_loss(seed: int, strength: float) -> None:
    n, m, s, _, _ = sums(seed)
    found = endmember_update.smooth(n, m, s, strength=strength)
    weight = strength * np.diag(m)

    def loss(flat: Float) -> float:
        at = flat.reshape(s.shape)
        return fit(n, m, at) + 0.5 * float(weight @ endmember_update.roughness(at))

    best = optimize.minimize(loss, s.ravel(), bounds=[(0, None)] * s.size, method="L-BFGS-B", options={"ftol": 1e-15})
    assert (found >= 0).all()
    assert loss(found.ravel()) <= loss(s.ravel())
    assert loss(found.ravel()) <= best.fun + 1e-5 * abs(best.fun)


def test_roughness_is_the_power_of_an_alternating_row_and_zero_for_a_straight_one() -> None:
    alternating = np.where(np.arange(1000) % 2, 1.0, -1.0)
    assert_allclose(endmember_update.roughness(alternating[None]), 1000, rtol=0.01)
    assert_allclose(endmember_update.roughness(np.arange(50.0)[None]), 0.0, atol=1e-20)
    assert_array_equal(endmember_update.roughness(np.ones((2, 2))), np.zeros(2))
