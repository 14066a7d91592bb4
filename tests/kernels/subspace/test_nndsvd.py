"""Tests of start endmembers against singular values and scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import non_negative_factorization
from sklearn.exceptions import ConvergenceWarning

from scalehsi.arrays import Float
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.kernels.subspace.nndsvd import descend, distinct, nndsvd, pixel_endmembers, sampled_endmembers, unit_sums

seeds = st.integers(0, 10_000)


def matrix(seed: int = 0, *, pixels: int = 40, channels: int = 25, rank: int = 3, noise: float = 0.1) -> Float:
    rng = np.random.default_rng(seed)
    clean = rng.random((pixels, rank)) ** 3 @ rng.random((rank, channels)) ** 3
    made: Float = clean * rng.uniform(1 - noise, 1 + noise, clean.shape)
    return made


def loss(x: Float, s: Float) -> float:
    """``1/2 ||x - c s||^2`` at the best ``c``."""
    c = nnls(s @ s.T, x @ s.T)
    return float(0.5 * ((x - c @ s) ** 2).sum())


@given(seed=seeds, components=st.integers(1, 5))
def test_the_first_pair_is_the_leading_singular_pair(seed: int, components: int) -> None:
    x = matrix(seed)
    u, sigma, vt = np.linalg.svd(x, full_matrices=False)
    c, s = nndsvd(x, components, seed=seed)
    assert c.shape == (40, components)
    assert s.shape == (components, 25)
    assert (c >= 0).all()
    assert (s >= 0).all()
    assert_allclose(np.outer(c[:, 0], s[0]), sigma[0] * np.abs(np.outer(u[:, 0], vt[0])), rtol=1e-6, atol=1e-9)
    assert_allclose(np.linalg.norm(c[:, 0]), np.linalg.norm(s[0]), rtol=1e-9)


def test_later_pairs_are_the_larger_of_the_two_signs() -> None:
    x = matrix(1)
    u, sigma, vt = np.linalg.svd(x, full_matrices=False)
    c, s = nndsvd(x, 3, seed=0)
    for k in (1, 2):
        options = [sigma[k] * np.outer(np.maximum(z * u[:, k], 0), np.maximum(z * vt[k], 0)) for z in (1, -1)]
        want = max(options, key=np.linalg.norm)
        assert_allclose(np.outer(c[:, k], s[k]), want, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "kind", ["rank one", "equal pixels", "one value", "unit matrix", "zeros", "one pixel", "one channel"]
)
def test_pairs_beyond_the_rank_are_small_and_finite(kind: str) -> None:
    x = {
        "rank one": matrix(2, rank=1, noise=0.0),
        "equal pixels": np.ones((30, 20)),
        "one value": np.eye(30, 20)[::-1] * (np.arange(20) == 4),
        "unit matrix": np.eye(30),
        "zeros": np.zeros((30, 20)),
        "one pixel": np.ones((1, 20)),
        "one channel": np.ones((30, 1)),
    }[kind]
    c, s = nndsvd(x, 4, seed=0)
    assert np.isfinite(c).all()
    assert np.isfinite(s).all()
    rank = np.linalg.matrix_rank(x)
    if rank < 4:
        assert np.abs(np.outer(c[:, 3], s[3])).max() <= 1e-3 * max(x.mean(), 1e-300)


def test_more_components_than_channels_or_pixels() -> None:
    c, s = nndsvd(matrix(pixels=3, channels=4), 7, seed=0)
    assert (c.shape, s.shape) == ((3, 7), (7, 4))
    assert (c[:, 3:] > 0).all()


@given(seed=seeds, components=st.integers(1, 6), iterations=st.integers(1, 12))
def test_descent_returns_its_objective_and_never_raises_it(seed: int, components: int, iterations: int) -> None:
    x = matrix(seed)
    _, first = nndsvd(x, components, seed=seed)
    kept = first.copy()
    before, _ = descend(x, first, iterations=1)
    value, s = descend(x, first, iterations=iterations)
    assert value <= before + 1e-9 * (x**2).sum()
    assert_allclose(s.sum(axis=1), 1.0)
    assert (s >= 0).all()
    assert loss(x, s) <= value + 1e-9 * (x**2).sum()
    assert_array_equal(first, kept)


def test_descent_reaches_the_objective_of_scikit_learn_in_fewer_iterations() -> None:
    x = matrix(3, pixels=120, rank=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        c, s, _ = non_negative_factorization(x, n_components=4, init="nndsvd", solver="cd", max_iter=300, tol=0)
    value, _ = descend(x, nndsvd(x, 4, seed=0)[1], iterations=60)
    assert value <= 0.5 * ((x - c @ s) ** 2).sum() * (1 + 1e-3)


def test_descent_from_rows_of_zeros_and_from_the_answer() -> None:
    x = matrix(4, noise=0.0)
    value, _ = descend(x, np.zeros((1, 25)), iterations=20)
    assert value == pytest.approx(0.5 * (np.linalg.norm(x) ** 2 - np.linalg.svd(x)[1][0] ** 2), rel=1e-6)
    _, exact = descend(x, nndsvd(x, 3, seed=0)[1], iterations=400)
    again, _ = descend(x, exact, iterations=50, tol=1e-6)
    assert again <= 1e-6 * (x**2).sum()


@pytest.mark.parametrize("weighted", [False, True])
def test_phases_in_a_sample_are_found_up_to_scale_and_order(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    truth = np.stack([np.roll(np.exp(-0.5 * ((np.arange(60) - 8) / 3) ** 2), 18 * k) + 0.02 for k in range(3)])
    maps = rng.dirichlet([0.3] * 3, 800)
    sample = rng.poisson(300 * maps @ (truth / truth.sum(axis=1, keepdims=True))).astype("u1")
    s = sampled_endmembers(sample, 3, weighted=weighted, seed=0)
    assert_allclose(s.sum(axis=1), 1.0)
    assert (s >= 0).all()
    cosine = (s @ truth.T) / np.outer(np.linalg.norm(s, axis=1), np.linalg.norm(truth, axis=1))
    assert sorted(cosine.argmax(axis=1)) == [0, 1, 2]
    assert (cosine.max(axis=1) > 0.99).all()


def test_the_same_seed_returns_the_same_start_and_keeps_the_sample() -> None:
    sample = (100 * matrix()).astype("u2")
    sample.flags.writeable = False
    one, two = (sampled_endmembers(sample, 3, weighted=True, seed=5) for _ in range(2))
    assert_array_equal(one, two)


@pytest.mark.parametrize("value", [0.0, -3.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_sample_without_a_positive_value_returns_valid_spectra(value: float, weighted: bool) -> None:
    s = sampled_endmembers(np.full((30, 20), value), 3, weighted=weighted, seed=0)
    assert (s >= 0).all()
    assert_allclose(s.sum(axis=1), 1.0)


@pytest.mark.parametrize("weighted", [False, True])
def test_empty_channels_and_more_components_than_pixels_are_handled(weighted: bool) -> None:
    sample = np.zeros((2, 12), "u1")
    sample[:, :4] = [[9, 1, 1, 0], [0, 1, 8, 3]]
    s = sampled_endmembers(sample, 5, weighted=weighted, seed=0)
    assert s.shape == (5, 12)
    assert np.isfinite(s).all()
    assert_allclose(s.sum(axis=1), 1.0)
    assert (s[:, 4:] < 1e-6).all(axis=1).sum() >= 2  # as many as there are pixels


@given(seed=seeds, components=st.integers(1, 8), neighbours=st.integers(1, 50))
def test_random_pixels_are_averages_of_similar_pixels(seed: int, components: int, neighbours: int) -> None:
    x = matrix(seed, pixels=20)
    rows = pixel_endmembers(x, components, seed=[seed, 1], neighbours=neighbours)
    assert rows.shape == (components, 25)
    assert_array_equal(rows, pixel_endmembers(x, components, seed=[seed, 1], neighbours=neighbours))
    if neighbours == 1:
        which = (rows[:, None] == x).all(axis=2)
        assert (which.sum(axis=1) == 1).all()
        assert (which.sum(axis=0) <= 1).all()
    if neighbours >= 20:
        assert_allclose(rows, np.broadcast_to(x.mean(axis=0), rows.shape))


def test_neighbours_of_a_pixel_are_of_its_phase() -> None:
    x = np.repeat(np.eye(3), 10, axis=0) * np.linspace(1, 5, 30)[:, None]
    rows = pixel_endmembers(x, 12, seed=0, neighbours=5)
    assert_array_equal(np.count_nonzero(rows, axis=1), 1)


def test_random_pixels_of_a_tiny_cube_and_of_negative_values() -> None:
    assert pixel_endmembers(np.ones((2, 3)), 5, seed=0, neighbours=9).shape == (2, 3)
    assert pixel_endmembers(-np.ones((4, 3)), 2, seed=0).sum() == 0


@given(seed=seeds, rows=st.integers(1, 6))
def test_repeated_rows_become_distinct_and_distinct_ones_stay(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    s, mean = rng.random((rows, 7)), rng.random(7)
    assert_allclose(distinct(s, mean, seed=0), unit_sums(s, mean))
    twice = distinct(np.concatenate([s, 3 * s, 0 * s]), mean, seed=0)
    unit = twice / np.linalg.norm(twice, axis=1, keepdims=True)
    assert np.triu(unit @ unit.T, 1).max() < 1 - 1e-9
    assert_allclose(twice[:rows], unit_sums(s, mean))
    assert_allclose(twice.sum(axis=1), 1.0)


def test_empty_channels_stay_empty_in_replaced_rows() -> None:
    s = distinct(np.zeros((3, 5)), np.array([1.0, 2.0, 0.0, 3.0, 0.0]), seed=0)
    assert not s[:, [2, 4]].any()
    assert_allclose(distinct(np.zeros((2, 5)), -np.ones(5), seed=0).sum(axis=1), 1.0)
