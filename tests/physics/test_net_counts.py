"""Net counts and compositions from spectra of known composition, and their counting errors."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from scalehsi.physics.cliff_lorimer import atomic_fractions
from scalehsi.physics.line_choice import choose_lines
from scalehsi.physics.line_templates import Foil, make_templates
from scalehsi.physics.net_counts import fit_spectrum, fit_windows
from scalehsi.physics.resolution import detector_fwhm
from scalehsi.physics.xray_spectra import eds_spectrum
from tests.paths import DATA

ENERGY = np.linspace(0.2, 20.0, 1980)
FOIL = Foil(200.0, 100.0, 4.5, 35.0)
FP = {"Mg": 39.0, "Fe": 10.0, "O": 50.0, "Cu": 1.0}
CAPV = {"Si": 17.5, "Al": 2.5, "Ca": 16.2, "Fe": 1.0, "Nd": 1.0, "Sm": 1.0, "U": 1.0, "O": 60.0}
METHODS = [fit_spectrum, fit_windows]

DEV = DATA / "psnmf_dev" / "truth.npz"
K_ATOMIC = {"Mg": 1.080, "Si": 1.0, "Al": 1.007, "Ca": 0.839, "Fe": 0.856, "Nd": 0.904, "Sm": 0.888, "U": 0.402}
K_ATOMIC |= {"O": 1.892, "Cu": 0.928}
"""The k-factors of the generator of that scene, for atomic fractions and windows of 1.2 peak widths."""


def templates_of(elements, energies=ENERGY, **options):
    peaks = choose_lines(elements, energy_range=(float(energies[0]), float(energies[-1])))
    return make_templates(peaks, energies, **options)


def composition(x, templates, columns, method=fit_spectrum):
    found = method(x, templates, columns)
    return 100 * atomic_fractions(found.intensity[None], 1 / columns.yields, masses=np.ones(len(columns.yields)))[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mineral", [FP, CAPV])
@pytest.mark.parametrize("counted", ["window", "family"])
def test_spectra_without_noise_give_their_composition(method, mineral, counted):
    templates = templates_of(list(mineral), foil=FOIL, counted=counted)
    found = composition(eds_spectrum(mineral, ENERGY), templates, templates.columns(mineral), method)
    np.testing.assert_allclose(found, 100 * np.array(list(mineral.values())) / sum(mineral.values()), atol=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_the_operator_is_the_fit(method):
    templates = templates_of(list(FP))
    columns = templates.columns()
    x = 1e6 * eds_spectrum(FP, ENERGY) / eds_spectrum(FP, ENERGY).sum()
    found = method(x, templates, columns)
    np.testing.assert_allclose(found.operator @ x, found.intensity, rtol=2e-4)
    assert found.covariance.shape == (4, 4)
    assert (np.linalg.eigvalsh(found.covariance) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_intensities_scale_with_the_counts(method):
    templates = templates_of(list(FP))
    columns = templates.columns()
    x = eds_spectrum(FP, ENERGY)
    one, many = (method(x * scale, templates, columns).intensity for scale in (1.0, 1e9))
    np.testing.assert_allclose(many, 1e9 * one, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_net_counts_are_those_of_the_lines_in_the_window(method):
    templates = templates_of(list(FP), foil=FOIL)
    lines = 1e8 * eds_spectrum({**FP}, ENERGY, continuum=0.0)
    whole = 1e8 * eds_spectrum({**FP}, ENERGY)
    found = method(whole, templates, templates.columns(FP))
    mg = templates.windows[0]  # no other line of this list is near Mg Ka
    assert found.intensity[0] == pytest.approx(lines[mg].sum(), rel=2e-3)


def test_a_wrong_ratio_of_shells_changes_no_intensity():
    # Iron with twice as much L beside O Ka as atomic physics says.
    templates = templates_of(list(FP), foil=FOIL)
    columns = templates.columns(FP)
    iron_l = templates.shells.index(("Fe", "L"))
    unit = columns.yields[1] / columns.yields[0]
    x = eds_spectrum(FP, ENERGY)
    more = x + columns.shells[iron_l] / columns.shells[iron_l].max() * x[np.abs(ENERGY - 0.705).argmin()] * unit
    for method in METHODS:
        before, after = (method(s, templates, columns).intensity for s in (x, more))
        np.testing.assert_allclose(after, before, rtol=2e-3)


@pytest.mark.parametrize("factor", [0.93, 1.07])
def test_a_slightly_wrong_peak_width_matters_little(factor):
    templates = templates_of(list(FP), foil=FOIL, width=partial(detector_fwhm, scale=factor))
    found = composition(eds_spectrum(FP, ENERGY), templates, templates.columns(FP))
    np.testing.assert_allclose(found, [39, 10, 50, 1], atol=0.4)


@pytest.mark.parametrize("method", METHODS)
def test_errors_are_those_of_counting(method):
    rng = np.random.default_rng(0)
    templates = templates_of(list(CAPV), foil=FOIL)
    columns = templates.columns(CAPV)
    expected = eds_spectrum(CAPV, ENERGY)
    expected *= 3e5 / expected.sum()
    found = [method(rng.poisson(expected).astype(float), templates, columns) for _ in range(120)]
    scatter = np.std([one.intensity for one in found], axis=0, ddof=1)
    estimated = np.sqrt(np.mean([np.diag(one.covariance) for one in found], axis=0))
    # The standard deviation of 120 draws has an error of 6.5 %.
    np.testing.assert_allclose(scatter, estimated, rtol=0.25)
    exact = method(expected, templates, columns).intensity
    bias = np.mean([one.intensity for one in found], axis=0) - exact
    assert (np.abs(bias) < 4.5 * scatter / np.sqrt(120)).all()
    assert np.mean([one.chi_square for one in found]) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_an_absent_element_is_zero_within_its_error(method):
    rng = np.random.default_rng(1)
    templates = templates_of([*FP, "Nd", "Ti"], foil=FOIL)
    columns = templates.columns(FP)
    expected = eds_spectrum(FP, ENERGY)
    for _ in range(10):
        found = method(rng.poisson(expected * (1e6 / expected.sum())).astype(float), templates, columns)
        error = np.sqrt(np.diag(found.covariance))
        assert (np.abs(found.intensity[-2:]) < 4 * error[-2:]).all()
        assert (found.intensity[:4] > 10 * error[:4]).all()


def test_an_axis_that_starts_at_a_peak_has_one_side_window():
    energies = np.linspace(1.2, 10, 881)
    templates = templates_of(["Mg", "Fe"], energies, foil=FOIL)
    x = eds_spectrum({"Mg": 50, "Fe": 50}, energies)
    found = composition(x, templates, templates.columns({"Mg": 50, "Fe": 50}), fit_windows)
    np.testing.assert_allclose(found, [50, 50], atol=1.0)


def dev():
    if not DEV.exists():
        pytest.skip("the optional test data are missing")
    data = np.load(DEV)
    elements = [str(e) for e in data["element_names"]]
    at = data["atomic_percent"] / data["atomic_percent"].sum(axis=1, keepdims=True) * 100
    return data["energy"], data["phases"], elements, at, np.array([K_ATOMIC[e] for e in elements])


@pytest.mark.parametrize("method", METHODS)
def test_spectra_of_another_program_give_the_published_composition(method):
    energies, phases, elements, at, k = dev()
    templates = templates_of(elements, energies)
    columns = templates.columns()
    for x, wanted in zip(phases, at, strict=True):
        atoms = np.maximum(method(x, templates, columns).intensity, 0) * k
        np.testing.assert_allclose(100 * atoms / atoms.sum(), wanted, atol=0.05)


def plain_windows(x, energies, centre):
    """Counts in a window above the straight line through two side windows; overlaps are not solved."""
    width = float(detector_fwhm(centre))
    away = (energies - centre) / width
    inside = np.abs(away) <= 0.6
    sides = x[(np.abs(away) > 1.3) & (np.abs(away) < 1.8)].mean()
    return x[inside].sum() - inside.sum() * sides


def test_without_solved_overlaps_oxygen_and_magnesium_are_wrong_by_one_per_cent():
    energies, phases, elements, at, k = dev()
    templates = templates_of(elements, energies)
    fp, wanted = phases[1], at[1]
    nets = np.array([plain_windows(fp, energies, peak.energy_kev) for peak in templates.peaks])
    by_hand = 100 * np.maximum(nets, 0) * k / (np.maximum(nets, 0) * k).sum()
    off = dict(zip(elements, by_hand - wanted, strict=True))
    assert abs(off["O"]) > 0.8
    assert abs(off["Mg"]) > 0.6
    solved = np.maximum(fit_spectrum(fp, templates, templates.columns()).intensity, 0) * k
    assert np.abs(100 * solved / solved.sum() - wanted).max() < 0.05
