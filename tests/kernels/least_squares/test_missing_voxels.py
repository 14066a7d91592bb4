"""Tests of least squares with missing voxels, against fits of the measured voxels of each pixel and channel."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize

from scalehsi.arrays import Float
from scalehsi.kernels import least_squares
from scalehsi.kernels.least_squares import missing_voxels

seeds = st.integers(0, 10_000)


def scene(seed: int = 0, share: float = 0.3, pixels: int = 40) -> tuple[Float, Float]:
    rng = np.random.default_rng(seed)
    s = rng.random((3, 14)) ** 2 + 0.01
    x = rng.random((pixels, 3)) ** 2 @ s + 0.05 * rng.standard_normal((pixels, 14))
    x[rng.random(x.shape) < share] = np.nan
    return s, x


@given(seed=seeds, share=st.sampled_from([0.0, 0.2, 0.7]))
def test_abundances_are_those_of_the_measured_channels(seed: int, share: float) -> None:
    s, x = scene(seed, share)
    pixels, _ = missing_voxels.abundances(x, s=s)
    for row, c, left in zip(x, pixels["abundances"], pixels["residual"], strict=True):
        there = np.isfinite(row)
        if not there.any():
            assert np.isnan(c).all()
            assert np.isnan(left)
            continue
        want, rest = optimize.nnls(s[:, there].T, row[there])
        found = np.linalg.norm(row[there] - c @ s[:, there])
        assert found <= rest + 1e-5
        assert_allclose(left, found / np.sqrt(max(1, there.sum())), atol=1e-5)
        if there.sum() > 6:
            assert_allclose(c, want, atol=1e-4)


@given(seed=seeds)
def test_sums_give_the_loss_over_the_measured_and_the_best_endmembers(seed: int) -> None:
    s, x = scene(seed)
    _, sums = missing_voxels.update(x, s=s)
    c = np.nan_to_num(missing_voxels.abundances(x, s=s)[0]["abundances"].astype(np.float64))
    there = np.isfinite(x)
    rest = np.where(there, np.nan_to_num(x) - c @ s, 0.0)
    assert_allclose(missing_voxels.objective(sums, s), 0.5 * (rest**2).sum(), rtol=1e-5, atol=1e-5)
    assert sums["voxels"] == there.sum()
    best = missing_voxels.improve(sums, s)
    for e in range(x.shape[1]):
        use = there[:, e]
        assert_allclose(best[:, e], optimize.nnls(c[use], x[use, e])[0], rtol=1e-3, atol=1e-4)


def test_nothing_missing_is_plain_least_squares() -> None:
    s, x = scene(3, share=0.0)
    _, ours = missing_voxels.update(x, s=s)
    _, plain = least_squares.update(x, s=s)
    for name in ("N", "M", "C", "norm"):
        assert_allclose(ours[name], plain[name], rtol=1e-6, atol=1e-9)
    assert not ours["H"].any()


def test_a_pixel_and_a_channel_without_any_measurement() -> None:
    s, x = scene(4)
    x[5], x[:, 3] = np.nan, np.nan
    pixels, sums = missing_voxels.abundances(x, s=s)
    assert np.isnan(pixels["abundances"][5]).all()
    assert np.isnan(pixels["residual"][5])
    assert sums["residual_spectrum"][3] == 0.0
    _, sums = missing_voxels.update(x, s=s)
    assert_array_equal(missing_voxels.improve(sums, s)[:, 3], s[:, 3])
