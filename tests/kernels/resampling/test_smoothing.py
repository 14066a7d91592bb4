"""Smoothing of spectra removes noise, keeps peaks and returns no negative values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import savgol_filter

from scalehsi.kernels.resampling.smoothing import smooth_peaks

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
