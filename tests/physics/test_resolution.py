"""The width of a peak: default detector, given resolution, scale, and where the formula has no root."""

from __future__ import annotations

import numpy as np
import pytest

from scalehsi.physics.resolution import MN_KA_KEV, NARROWEST_KEV, detector_fwhm


def test_the_default_is_a_straight_line():
    energy = np.array([0.2, 1.74, 6.4, 20.0])
    np.testing.assert_array_equal(detector_fwhm(energy), 0.01 * energy + 0.065)


@pytest.mark.parametrize("resolution", [60.0, 130.0, 250.0])
def test_a_given_resolution_holds_at_manganese_and_variances_add(resolution):
    assert float(detector_fwhm(MN_KA_KEV, resolution)) == pytest.approx(resolution / 1000)
    square = detector_fwhm([8.0, 10.0, 12.0], resolution) ** 2
    # 8 ln 2 times Fano factor 0.115 times 3.65 eV a pair.
    np.testing.assert_allclose(np.diff(square) / 2.0, 8 * np.log(2) * 0.115 * 3.65e-3, rtol=2e-3)


def test_a_very_good_detector_keeps_a_width_at_low_energy():
    assert float(detector_fwhm(0.1, 50.0)) == NARROWEST_KEV


def test_the_two_detectors_are_similar():
    energy = np.linspace(0.5, 12.0, 50)
    np.testing.assert_allclose(detector_fwhm(energy, 130.0), detector_fwhm(energy), rtol=0.07)


def test_a_scale_multiplies_the_width():
    for resolution in (None, 130.0):
        np.testing.assert_allclose(
            detector_fwhm([1.0, 9.0], resolution, scale=1.1), 1.1 * detector_fwhm([1.0, 9.0], resolution)
        )
