"""Counts of pure pixels: right where the simplex holds, and unmoved by single pixels, empty fields and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from scalehsi.arrays import Float
from scalehsi.kernels.poisson.mixture_yields import empty_pixels, pure_pixel_counts


def maps(rows: int, columns: int, k: int, seed: int) -> Float:
    """Abundances (rows, columns, K) that sum to one, with pure bins of each."""
    rng = np.random.default_rng(seed)
    found = np.stack([gaussian_filter(rng.standard_normal((rows, columns)), 2.0) for _ in range(k)], axis=-1)
    found = np.exp(12 * found / found.std())
    return found / found.sum(axis=-1, keepdims=True)


def bins(abundances: Float, pure: Any, pixels: Any = 4.0) -> tuple[Float, Float, Float]:
    """Fractions, totals and pixels of bins whose pixels are mixtures of pure ones."""
    parts = abundances * np.asarray(pure)
    pixels = np.broadcast_to(pixels, parts.shape[:-1]).astype(float)
    return parts / parts.sum(axis=-1, keepdims=True), parts.sum(axis=-1) * pixels, pixels


def model_of(counts: Float, theta: Float) -> Float:
    """Counts of a pixel of each bin by the model."""
    return 1.0 / (theta @ np.linalg.solve(counts, np.ones(len(counts))))


@given(
    seed=st.integers(0, 99),
    k=st.integers(1, 4),
    levels=st.lists(st.floats(0.2, 5.0), min_size=4, max_size=4),
    group=st.sampled_from([(1, 1), (2, 3)]),
)
def test_pure_counts_are_found_and_totals_are_exact(
    seed: int, k: int, levels: list[float], group: tuple[int, int]
) -> None:
    pure = 100 * np.array(levels[:k])
    theta, totals, pixels = bins(maps(20, 18, k, seed), pure)
    counts, empty = pure_pixel_counts(theta, totals, pixels, group=group)
    assert not empty.any()
    assert_allclose(model_of(counts, theta) * pixels, totals, rtol=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_the_model_has_the_counts_of_the_data_by_component_whatever_the_thickness(seed: int) -> None:
    theta, totals, pixels = bins(maps(30, 30, 3, seed), (100.0, 300.0, 50.0))
    totals = totals * np.random.default_rng(seed).uniform(0.5, 1.5, totals.shape)
    counts, _ = pure_pixel_counts(theta, totals, pixels)
    missing = (theta * (totals - model_of(counts, theta) * pixels)[..., None]).sum(axis=(0, 1))
    assert_allclose(missing / (theta * totals[..., None]).sum(axis=(0, 1)), 0.0, atol=2e-3)


@pytest.mark.parametrize(("rows", "power"), [(16, 1), (24, 2), (10, 3)])
def test_one_component_has_the_mean_of_the_data(rows: int, power: int) -> None:
    totals = 100 * (1 + 2 * np.linspace(0, 1, rows)[:, None] ** power * np.ones((1, 12)))
    counts, _ = pure_pixel_counts(np.ones((rows, 12, 1)), totals, np.ones((rows, 12)))
    assert counts[0, 0] == pytest.approx(totals.mean(), rel=1e-4)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_equal_fractions_everywhere_give_equal_counts(k: int) -> None:
    theta = np.full((6, 6, k), 1 / k)
    counts, _ = pure_pixel_counts(theta, np.full((6, 6), 800.0), np.full((6, 6), 4.0))
    assert_allclose(counts, 200 * np.eye(k), rtol=1e-6)


@pytest.mark.parametrize("times", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("kind", ["same", "own component"])
def test_one_bright_bin_changes_no_other(times: float, kind: str) -> None:
    theta, totals, pixels = bins(maps(12, 12, 3, 0), (100.0, 150.0, 80.0))
    want = totals.copy()
    totals[4, 7] *= times
    if kind == "own component":
        theta = np.concatenate([theta * 0.97, np.full((12, 12, 1), 0.03)], axis=-1)
        theta[4, 7] = (0.0, 0.0, 0.0, 1.0)
    counts, _ = pure_pixel_counts(theta, totals, pixels)
    others = np.ones((12, 12), dtype=bool)
    others[4, 7] = False
    assert_allclose((model_of(counts, theta) * pixels)[others], want[others], rtol=0.02)


@pytest.mark.parametrize("rows", [1, 5, 15])
@pytest.mark.parametrize("stray", [0.0, 0.02])
def test_empty_bins_and_bins_at_their_edge_change_nothing(rows: int, stray: float) -> None:
    theta, totals, pixels = bins(maps(20, 20, 3, 1), (100.0, 150.0, 80.0))
    want = totals.copy()
    totals[:rows] = stray * 400
    totals[rows] *= 0.5  # half of the pixels of these bins are empty
    theta[:rows] = 1 / 3
    counts, empty = pure_pixel_counts(theta, totals, pixels)
    assert_array_equal(empty, np.broadcast_to(np.arange(20)[:, None] < rows, (20, 20)))
    assert_allclose((model_of(counts, theta) * pixels)[rows + 2 :], want[rows + 2 :], rtol=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_bins_have_fewer_pixels_beside_a_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    theta, totals, pixels = bins(maps(20, 20, 2, seed), (100.0, 30.0), rng.integers(0, 5, (20, 20)))
    theta[rng.random((20, 20)) < 0.2] = np.nan  # not in the sample
    counts, _ = pure_pixel_counts(theta, totals, pixels)
    assert_allclose(np.diag(counts), (100.0, 30.0), rtol=0.02)


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_a_phase_that_covers_another_has_the_endmember_of_both(slope: float) -> None:
    """The counts of one component do not fall where the other one rises: no pixel can consist of the second alone."""
    t = np.linspace(0, 1, 40)[:, None] * np.ones((1, 10))
    parts = np.stack([100 * (1 + slope * t), 60 * t], axis=-1)
    totals = parts.sum(axis=-1)
    counts, _ = pure_pixel_counts(parts / totals[..., None], totals, np.ones((40, 10)))
    assert_allclose(counts, [[100.0, 0.0], [100 * (1 + slope), 60.0]], rtol=0.02, atol=0.1)
    assert_allclose(model_of(counts, parts / totals[..., None]), totals, rtol=0.005)


def test_without_any_counts_nothing_is_said() -> None:
    counts, empty = pure_pixel_counts(np.full((3, 3, 2), 0.5), np.zeros((3, 3)), np.ones((3, 3)))
    assert_array_equal(counts, np.eye(2))
    assert empty.all()


# Pixels without specimen.


@pytest.mark.parametrize(("level", "alone"), [(100.0, True), (30.0, True), (15.0, False), (3.0, False)])
def test_empty_pixels_are_found_by_themselves_or_with_their_neighbours(level: float, alone: bool) -> None:
    totals = np.random.default_rng(0).poisson(level, (40, 40)).astype(float)
    totals[:20] = 0
    given_: Any = {"shape": (40, 40)}
    found = empty_pixels(totals.reshape(-1), level, used=np.ones(1600, dtype=bool), **given_).reshape(40, 40)
    assert found[:16].all()
    assert not found[20:].any()
    lone = empty_pixels(totals.reshape(-1), level, used=None, **given_).reshape(40, 40)
    assert lone[:20].all() == alone
    assert not lone[20:].any()


@given(seed=st.integers(0, 99), level=st.floats(0.01, 300.0))
def test_no_pixel_of_a_specimen_is_empty(seed: int, level: float) -> None:
    totals = np.random.default_rng(seed).poisson(level, (30, 30)).astype(float)
    assert not empty_pixels(totals.reshape(-1), level, shape=(30, 30), used=np.ones(900, dtype=bool)).any()
