"""Which lines and edges are labelled: in noise, beside other elements, and in measured spectra."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scalehsi.physics.identify import name_peaks
from scalehsi.physics.peaks import find_peaks, rise_at
from scalehsi.physics.xray_spectra import eds_spectrum
from scalehsi.plots.digest import digest
from scalehsi.plots.line_marks import component_marks, strongest
from tests.paths import DATA
from tests.report.results import LINES, eds_spectra


def test_a_weak_line_needs_its_strong_line() -> None:
    energy = 0.2 + 0.01 * np.arange(1000)
    alone = 100.0 + 5000.0 * np.exp(-0.5 * ((energy - LINES["Fe Kb"]) / 0.06) ** 2)
    drawn = np.random.default_rng(0).poisson(alone)
    assert [mark.label for mark in name_peaks(find_peaks(energy, drawn), ["Fe"]) if mark.certain] == []
    both = np.random.default_rng(0).poisson(alone + 40000 * np.exp(-0.5 * ((energy - LINES["Fe Ka"]) / 0.057) ** 2))
    assert [mark.label for mark in name_peaks(find_peaks(energy, both), ["Fe"])] == ["Fe Kα", "Fe Kβ"]


def test_a_listed_element_without_a_peak_does_not_hide_the_copper_of_the_grid() -> None:
    energy = 0.2 + 0.01 * np.arange(1000)
    spectrum = np.full(energy.size, 30.0)
    for line, height in (("Cu Ka", 6000), ("Cu Kb", 820)):
        spectrum += height * np.exp(-0.5 * ((energy - LINES[line]) / 0.063) ** 2)
    drawn = np.random.default_rng(0).poisson(spectrum)
    marks = name_peaks(find_peaks(energy, drawn), ["Hf", "Lu", "Fe"])  # Hf Lα lies at 7.90 keV, beside Cu Kα at 8.04
    assert [(mark.label, mark.certain) for mark in marks] == [("Cu Kα", False), ("Cu Kβ", False)]


def test_unknown_elements_are_found_from_the_peaks(good: xr.Dataset) -> None:
    unknown = good.assign_attrs(elements=[])
    marks = component_marks(digest(unknown))
    assert strongest(marks[0]) == ["Mg Kα", "Si Kα", "O Kα", "Al Kα"]
    assert {mark.label for mark in marks[1]} == {"O Kα", "Mg Kα", "Fe Kα", "Fe Kβ"}
    assert {mark.label for mark in marks[2]} == {"O Kα", "Si Kα", "Ca Kα", "Ca Kβ", "Fe Kα"}
    assert not any(mark.certain for row in marks for mark in row)


def test_noise_makes_no_peaks_and_peaks_lie_where_they_should() -> None:
    energy = 0.2 + 0.01 * np.arange(1000)
    for seed in range(10):
        flat = np.random.default_rng(seed).poisson(200 * np.exp(-energy / 3) + 5)
        assert find_peaks(energy, flat).energy.size == 0
    drawn = np.random.default_rng(0).poisson(1e6 * eds_spectra(energy)[2])
    found = find_peaks(energy, drawn)
    np.testing.assert_allclose(found.energy, [0.525, 1.740, 3.691, 4.013, 6.399], atol=0.005)
    # Gain must not matter.
    np.testing.assert_allclose(find_peaks(energy, 1e-4 * drawn).energy, found.energy)


@pytest.mark.parametrize("elements", [("Fe", "Pt"), ()])
def test_real_nanoparticles_show_their_lines(elements: tuple[str, ...]) -> None:
    file = DATA / "edx_FePt" / "compact.npz"
    if not file.is_file():
        pytest.skip("the test data are not beside this checkout; test_unknown_elements_are_found is the twin")
    spectrum = np.load(file)["core_shell"].sum((0, 1), dtype=np.int64)
    energy = 0.16 + 0.02 * np.arange(spectrum.size)
    marks = name_peaks(find_peaks(energy, spectrum), elements)
    named = {mark.label: mark.energy for mark in marks}
    for label, at in (("Fe Kα", 6.40), ("Pt Mα", 2.05), ("Pt Lα", 9.44), ("Cu Kα", 8.04), ("C Kα", 0.28)):
        assert named[label] == pytest.approx(at, abs=0.02)
    assert {mark.label.split()[0] for mark in marks if mark.certain} == set(elements)


def test_real_minerals_show_their_lines() -> None:
    file = DATA / "edx_88ESLP" / "compact.npz"
    if not file.is_file():
        pytest.skip("the test data are not beside this checkout; test_lines_are_named_at_their_energies is the twin")
    spectrum = np.load(file)["counts"].sum((0, 1), dtype=np.int64)
    energy = 0.83152 + 0.01000468 * np.arange(spectrum.size)
    named = {mark.label for mark in name_peaks(find_peaks(energy, spectrum), ("Mg", "Si", "Ca", "Fe"))}
    assert {"Mg Kα", "Si Kα", "Ca Kα", "Fe Kα", "Fe Kβ", "Al Kα", "Cu Kα"} <= named


def test_rises_need_more_than_noise_or_a_falling_trend() -> None:
    energy = 200.0 + np.arange(400)
    falling = (energy / 200) ** -3.0
    assert rise_at(energy, falling, 400.0) == 0.0
    noisy = falling + np.random.default_rng(0).normal(0, 0.01, 400)
    assert rise_at(energy, noisy, 400.0) == 0.0
    assert rise_at(energy, noisy + 0.1 * (energy > 400), 400.0) == pytest.approx(0.1, abs=0.02)
    assert rise_at(energy, noisy, 205.0) == 0.0


def test_faint_lines_of_known_elements_come_before_other_elements() -> None:
    """The weakest lines of uranium and neodymium are no palladium, and no lanthanum."""
    energy = np.linspace(0.2, 20.0, 1980)
    spectrum = eds_spectrum({"Si": 20.0, "U": 1.0, "Nd": 3.0, "O": 76.0}, energy)
    named = name_peaks(find_peaks(energy, spectrum / spectrum.sum() * 3e5), ("Si", "U", "Nd", "O"))
    certain = {mark.label for mark in named if mark.certain}
    assert {"U M", "U Mα", "Nd Lα", "Nd Lℓ"} <= certain
    assert not {"Pd Lα", "La Lα"} & {mark.label for mark in named}


def test_peaks_are_found_before_smoothing(good: xr.Dataset) -> None:
    rng = np.random.default_rng(0)
    flat = np.full((3, 1000), 20.0)
    rough = rng.poisson(flat).astype(float)
    soft = np.array([np.convolve(row, np.ones(12) / 12, mode="same") for row in rough])
    result = good.assign(endmembers=(("component", "energy"), soft / soft.sum(axis=1, keepdims=True)))
    share = result.abundances.sum(("y", "x")).values
    result["abundances"] = result.abundances * (2e4 / share)[:, None, None]
    raw = (("component", "energy"), rough / rough.sum(axis=1, keepdims=True))
    with_raw = component_marks(digest(result.assign(unsmoothed_endmembers=raw)))
    assert sum(map(len, with_raw)) == 0
