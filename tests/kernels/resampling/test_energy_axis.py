"""Rebinning of spectra to other energy axes conserves the counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.kernels.resampling.energy_axis import common_channels, edges, rebin


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 40),
    m=st.integers(2, 60),
    smooth=st.booleans(),
    turned=st.booleans(),
    falls=st.booleans(),
)
def test_the_sum_stays_where_one_axis_covers_the_other(seed, n, m, smooth, turned, falls):
    spectra = np.random.default_rng(seed).random((2, n))
    axis = np.linspace(0.5, n - 0.5, n)
    wide = np.linspace(-1, n + 1, m + 1)
    to = 0.5 * (wide[1:] + wide[:-1])
    given_axis, values = (axis[::-1], spectra[:, ::-1]) if turned else (axis, spectra)
    found = rebin(values, axis=given_axis, to=to[::-1] if falls else to, smooth=smooth)
    np.testing.assert_allclose(found.sum(axis=1), spectra.sum(axis=1), rtol=1e-9)
    assert (found >= -1e-12).all()


def test_whole_channels_are_added_up():
    spectra = np.arange(12.0)[None]
    found = rebin(spectra, axis=np.arange(12.0), to=np.arange(1.0, 12.0, 3.0))
    np.testing.assert_allclose(found, [[3.0, 12.0, 21.0, 30.0]])


def test_a_smooth_spectrum_shows_no_steps_on_finer_channels():
    def counts(limits):
        return np.diff(np.arctan((limits - 5.0) / 0.8))

    axis, fine = np.linspace(0, 10, 101), np.linspace(0.5, 9.5, 451)
    truth = counts(edges(fine))
    smooth, even = (rebin(counts(edges(axis))[None], axis=axis, to=fine, smooth=how)[0] for how in (True, False))
    assert np.abs(smooth - truth).max() < 0.2 * np.abs(even - truth).max()


def test_evenly_spread_counts_are_linear():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 1, 20))
    axes = {"axis": np.arange(20.0), "to": np.linspace(2.3, 15.1, 9), "smooth": False}
    np.testing.assert_allclose(rebin(a, **axes) + rebin(b, **axes), rebin(a + b, **axes))


@pytest.mark.parametrize("other", [np.arange(2.0, 5.0), np.arange(4.0, 1.0, -1.0)])
def test_channels_that_another_axis_covers(other):
    assert common_channels(np.arange(8.0), other).nonzero()[0].tolist() == [2, 3, 4]
    assert not common_channels(np.arange(8.0), other + 100).any()


def test_edges_of_one_channel():
    assert edges(np.array([3.0])).tolist() == [2.5, 3.5]
