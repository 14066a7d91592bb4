"""The edge of noise against the largest squared singular values of simulated matrices."""

from __future__ import annotations

import numpy as np
import pytest

from scalehsi.kernels.statistics.noise_edge import noise_edge


@pytest.mark.parametrize(("rows", "columns"), [(400, 60), (60, 400), (64, 64), (16, 300), (4, 100)])
def test_gaussian_noise_stays_below_the_edge_and_comes_close_to_it(rows: int, columns: int) -> None:
    rng = np.random.default_rng(rows + columns)
    largest = [np.linalg.norm(rng.standard_normal((rows, columns)), 2) ** 2 for _ in range(200)]
    ratio = np.array(largest) / noise_edge(rows, columns)
    # Once in 1000 matrices: two of 200 happen with a probability of 2 %.
    assert np.mean(ratio > 1) <= 0.01
    assert ratio.max() > 0.92
    assert np.median(ratio) > 0.7


@pytest.mark.parametrize("mean", [0.1, 1.0, 30.0])
def test_counts_of_one_spectrum_leave_only_noise(mean: float) -> None:
    rng = np.random.default_rng(7)
    spectrum = mean * (0.2 + rng.random(80))
    ratio = []
    for _ in range(40):
        x = rng.poisson(spectrum, (900, 80))
        white = (x - x.mean(axis=0)) / np.sqrt(x.mean(axis=0))
        ratio.append(np.linalg.norm(white, 2) ** 2 / noise_edge(*x.shape))
    assert max(ratio) < 1.03
    assert np.median(ratio) > 0.9


def test_a_pattern_is_above_the_edge() -> None:
    rng = np.random.default_rng(1)
    pattern = np.outer(rng.standard_normal(400), rng.standard_normal(60))
    noise = rng.standard_normal((400, 60))
    strength = np.sqrt(2 * noise_edge(400, 60)) / np.linalg.norm(pattern, 2)
    assert np.linalg.norm(noise + strength * pattern, 2) ** 2 > 1.2 * noise_edge(400, 60)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 50), (50, 1), (2, 1)])
def test_small_sizes_are_finite(rows: int, columns: int) -> None:
    assert np.isfinite(noise_edge(rows, columns))
    assert noise_edge(rows, columns) > 0
