"""The variance index of counts is 1, whatever their rate, number of pixels and channels."""

from __future__ import annotations

import numpy as np
import pytest

from scalehsi.kernels.statistics.variance_index import variance_index, variance_index_of_sums


def pairs(rate: float, *, pixels: int, channels: int, seed: int) -> np.ndarray:
    """Counts of neighbours, (2, pixels, channels), with the same falling spectrum."""
    spectrum = rate * (0.1 + np.exp(-np.arange(channels) / (0.3 * channels)))
    return np.random.default_rng(seed).poisson(spectrum, (2, pixels, channels)).astype(float)


@pytest.mark.parametrize("rate", [0.02, 0.5, 30.0, 3000.0])
@pytest.mark.parametrize(("pixels", "channels", "seed"), [(400, 60, 0), (2000, 200, 1), (900, 500, 2)])
def test_counts_of_any_rate_give_one(rate: float, pixels: int, channels: int, seed: int) -> None:
    assert abs(variance_index(*pairs(rate, pixels=pixels, channels=channels, seed=seed)) - 1) < 0.06


@pytest.mark.parametrize("gain", [0.02, 4.6, 1000.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_gain_is_found(gain: float, seed: int) -> None:
    counts = gain * pairs(8.0, pixels=800, channels=100, seed=seed)
    assert abs(variance_index(*counts) / gain - 1) < 0.06


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_smoothed_counts_are_below_one(seed: int) -> None:
    counts = pairs(8.0, pixels=800, channels=100, seed=seed)
    smoothed = (counts[..., 1:-1] + counts[..., :-2] + counts[..., 2:]) / 3
    assert variance_index(*smoothed) < 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_both_pixels_share_does_not_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bright = rng.uniform(0.3, 3.0, (800, 1)) * np.linspace(5, 1, 100)
    assert abs(variance_index(*rng.poisson(bright, (2, 800, 100))) - 1) < 0.06


def test_voxels_that_were_not_measured_are_left_out() -> None:
    first, second = pairs(8.0, pixels=800, channels=100, seed=3)
    first[np.random.default_rng(0).random(first.shape) < 0.3] = np.nan
    second[5] = np.nan
    assert abs(variance_index(first, second) - 1) < 0.06


@pytest.mark.parametrize("shape", [(0, 5), (4, 5), (4, 0)])
def test_without_intensity_there_is_no_index(shape: tuple[int, int]) -> None:
    assert np.isnan(variance_index(np.zeros(shape), np.zeros(shape)))
    assert np.isnan(variance_index(np.full(shape, np.nan), np.zeros(shape)))
    assert np.isnan(variance_index(-np.ones(shape), -np.ones(shape)))


def test_channels_almost_without_intensity_do_not_decide() -> None:
    means = np.r_[np.full(10, 100.0), np.full(30, 1.0)]
    assert variance_index_of_sums(np.r_[np.full(10, 100.0), np.full(30, 50.0)], means) == 1.0
