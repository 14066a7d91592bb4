"""Smoothing of spectra removes noise, keeps peaks and returns no negative values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import savgol_filter

from scalehsi.kernels.resampling.smoothing import (
    empty_channels,
    following_widths,
    smooth_peaks,
    smooth_spectra,
)

E = np.arange(400.0)


def peak(width: float, centre: float = 200.0) -> np.ndarray:
    """A Gaussian of this full width at half maximum."""
    return np.exp(-4 * np.log(2) * ((E - centre) / width) ** 2)[None]


@pytest.mark.parametrize("width", [7.0, 10.0, 16.0, 30.0])
def test_a_peak_changes_by_less_than_a_hundredth_and_half_of_the_noise_goes(width: float) -> None:
    window = np.full(400, 1.3 * width)
    assert np.abs(smooth_peaks(peak(width), widths=window) - peak(width)).max() < 0.01
    noise = np.random.default_rng(0).normal(size=(50, 400))
    left = smooth_peaks(noise + 100, widths=window) - 100
    assert left[:, 40:-40].var() < 0.5 * noise.var()


def test_it_is_the_filter_of_savitzky_and_golay_with_odd_windows() -> None:
    s = np.random.default_rng(1).gamma(2.0, size=(3, 400)) + 5
    for width, odd in ((9.0, 9), (9.9, 9), (10.1, 11), (12.0, 13)):
        assert_allclose(smooth_peaks(s, widths=np.full(400, width)), savgol_filter(s, odd, 4, axis=1), rtol=1e-12)


def test_windows_change_along_the_axis() -> None:
    s = np.random.default_rng(2).gamma(2.0, size=(2, 400)) + 5
    widths = np.where(E < 150, 9.0, 21.0)
    got = smooth_peaks(s, widths=widths)
    assert_array_equal(got[:, :150], savgol_filter(s, 9, 4, axis=1)[:, :150])
    assert_array_equal(got[:, 150:], savgol_filter(s, 21, 4, axis=1)[:, 150:])


@pytest.mark.parametrize("width", [0.0, 3.0, 5.0])
def test_windows_that_the_polynomial_fills_do_nothing(width: float) -> None:
    s = np.random.default_rng(3).random((2, 400))
    assert_array_equal(smooth_peaks(s, widths=np.full(400, width)), s)


def test_nothing_falls_below_zero_and_the_argument_stays() -> None:
    s = np.where(np.abs(E - 200) < 2, 100.0, 0.0)[None]
    before = s.copy()
    got = smooth_peaks(s, widths=np.full(400, 15.0))
    assert (got >= 0).all()
    assert savgol_filter(s, 15, 4, axis=1).min() < 0
    assert_array_equal(s, before)


@pytest.mark.parametrize("channels", [1, 2, 5, 6, 8, 9])
def test_windows_wider_than_the_axis_are_cut(channels: int) -> None:
    s = np.random.default_rng(4).random((2, channels))
    got = smooth_peaks(s, widths=np.full(channels, 1e6))
    assert got.shape == s.shape
    assert np.isfinite(got).all()


# Windows as long as the peaks.


@pytest.mark.parametrize("counts", [1e3, 1e4, 1e6])
@pytest.mark.parametrize("width", [7.0, 10.0, 20.0, 35.0])
def test_windows_follow_the_width_of_the_peaks(width: float, counts: float) -> None:
    """Peaks 1.7 to 8 times narrower than expected, on a continuum, with another one beside."""
    clean = counts * (peak(width) + 0.5 * peak(width, 200 + 1.5 * width) + 0.2)[0]
    total = np.random.default_rng(int(width)).poisson(clean)
    found = following_widths(total, widths=np.full(400, 1.3 * 60))
    assert 1.2 * width < found[200] < (2.2 if counts == 1e3 else 1.8) * width
    change = np.abs(smooth_peaks(clean[None], widths=found)[0] - clean).max() / counts
    assert change < (0.05 if counts == 1e3 else 0.025)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("counts", [10.0, 1e3, 1e6])
@pytest.mark.parametrize("width", [9.0, 16.0])
def test_peaks_as_wide_as_expected_keep_their_windows(width: float, counts: float, seed: int) -> None:
    clean = counts * (peak(width, 150.0) + 0.3 * peak(width, 150 + 2 * width) + peak(width, 300.0) + 0.05)[0]
    total = np.random.default_rng(seed).poisson(clean)
    found = following_widths(total, widths=np.full(400, 1.3 * width))
    assert (found == 1.3 * width).mean() > 0.97
    assert_array_equal(found[[150, 300]], 1.3 * width)


def test_a_narrow_peak_shortens_windows_only_near_it() -> None:
    clean = 1e4 * (peak(20.0, 100.0) + peak(7.0, 300.0) + 0.05)[0]
    found = following_widths(np.random.default_rng(0).poisson(clean), widths=np.full(400, 26.0))
    assert found[300] < 14
    assert (found[:240] == 26.0).all()


@pytest.mark.parametrize("block", [slice(0, 30), slice(250, 400), slice(180, 183)])
def test_smoothing_stays_out_of_empty_channels(block: slice) -> None:
    clean = 1e4 * (peak(10.0) + 0.3)[0]
    clean[block] = 0
    total = np.random.default_rng(0).poisson(clean)
    s = np.stack([total / total.sum(), clean / clean.sum()])
    got = smooth_spectra(s, total=total, widths=np.full(400, 13.0))
    assert_array_equal(got[:, block], 0.0)
    assert_allclose(got.sum(axis=1), 1.0, rtol=1e-9)
    assert np.abs(got[0] - s[1]).sum() < np.abs(s[0] - s[1]).sum()
    assert_allclose(got[1], s[1], atol=0.01 * s[1].max())


def test_chance_zeros_of_few_counts_are_no_empty_channels() -> None:
    total = np.random.default_rng(1).poisson(np.full(1000, 1.5))
    assert (total == 0).sum() > 100
    assert not empty_channels(total, widths=np.full(1000, 13.0)).any()
    assert empty_channels(np.zeros(20), widths=np.full(20, 13.0)).all()


def test_the_factor_multiplies_measured_windows() -> None:
    s = np.random.default_rng(2).gamma(2.0, size=(2, 400)) + 5
    total = np.full(400, 1e5)
    got = smooth_spectra(s, total=total, widths=np.full(400, 11.0), factor=2.0)
    want = smooth_peaks(s, widths=np.full(400, 22.0))
    assert_allclose(got, want * s.sum(axis=1, keepdims=True) / want.sum(axis=1, keepdims=True), rtol=1e-12)
