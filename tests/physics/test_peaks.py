"""Peaks of the detector's width in a residual, and the elements that they may belong to."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from scalehsi.physics import peaks
from scalehsi.physics.identify import candidates_at
from scalehsi.physics.peaks import peak_areas
from scalehsi.physics.resolution import FWHM_PER_SIGMA, detector_fwhm


def peak(energy: np.ndarray, at: float, area: float, scale: float = 1.0) -> np.ndarray:
    sigma = scale * float(detector_fwhm(at)) / FWHM_PER_SIGMA
    step = energy[1] - energy[0]
    return area * step * np.exp(-0.5 * ((energy - at) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("step", [0.005, 0.01, 0.02])
@pytest.mark.parametrize("at", [1.2, 8.04, 17.4])
def test_the_area_of_a_peak_is_found(step: float, at: float) -> None:
    energy = np.arange(0.2, 20, step)
    area, _ = peak_areas(energy, peak(energy, at, 1000.0), np.ones_like(energy), detector_fwhm)
    channel = int(np.argmax(area))
    assert energy[channel] == pytest.approx(at, abs=step)
    assert area[channel] == pytest.approx(1000, rel=0.03)


def test_a_wrong_level_and_a_slope_are_no_peak() -> None:
    energy = np.arange(0.2, 20, 0.01)
    for residual in (np.full(energy.size, 50.0), 20 * energy):
        area, _ = peak_areas(energy, residual, np.ones_like(energy), detector_fwhm)
        assert np.abs(area[100:-100]).max() < 1e-6 * residual.sum()


@pytest.mark.parametrize("level", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_has_the_deviation_one(level: float, seed: int) -> None:
    energy = np.arange(0.2, 20, 0.01)
    residual = np.random.default_rng(seed).poisson(level, energy.size) - level
    _, z = peak_areas(energy, residual, np.full(energy.size, level), detector_fwhm)
    assert z.std() == pytest.approx(1, abs=0.15)
    assert np.abs(z).max() < 5.5


def test_channels_that_were_not_measured_hold_nothing() -> None:
    energy = np.arange(0.2, 20, 0.01)
    residual = np.where(energy < 1, np.nan, peak(energy, 8.0, 100.0))
    area, z = peak_areas(energy, residual, np.ones_like(energy), detector_fwhm)
    assert np.isfinite(area).all()
    assert np.isfinite(z).all()
    assert (z[energy < 0.8] == 0).all()


@pytest.mark.parametrize(
    ("energy", "first"),
    [(8.05, "Cu Ka"), (9.25, "Ga Ka"), (17.44, "Mo Ka"), (7.47, "Ni Ka"), (1.74, "Si Ka"), (6.4, "Fe Ka")],
)
def test_elements_of_grid_and_holder_come_first(energy: float, first: str) -> None:
    assert candidates_at(energy, 0.04)[0].line.name == first


def test_excluded_elements_are_no_candidates() -> None:
    assert all(each.line.element != "Cu" for each in candidates_at(8.05, 0.04, excluded=["Cu"]))
    assert candidates_at(19.99, 0.001) == []


@pytest.mark.parametrize(("size", "window"), [(400, 9), (401, 5), (63, 41), (7, 5), (2, 5)])
@pytest.mark.parametrize("levels", [0, 4], ids=["noise", "plateaus"])
def test_local_maxima_equal_those_of_scipy(size: int, window: int, levels: int) -> None:
    rng = np.random.default_rng(size + window)
    values = np.cumsum(rng.standard_normal(size)) + 3 * rng.standard_normal(size)
    if levels:
        values = np.round(values / values.std() * levels)
    places, prominences = peaks._maxima(values, window)
    expected, properties = scipy.signal.find_peaks(values, prominence=0.0, wlen=window)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(prominences, properties["prominences"])
