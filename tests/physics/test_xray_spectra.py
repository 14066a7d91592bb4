"""Continuum, foil, detector and spectra against tabulated numbers, known limits, and the spectra of another program."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scalehsi.physics import lines, xray_spectra
from scalehsi.schema import InputError
from tests.paths import DATA

ENERGY = np.linspace(0.2, 20.0, 1980)
DEV = DATA / "psnmf_dev" / "truth.npz"
BRG = {"Mg": 18.5, "Si": 18.2, "Al": 1.5, "Ca": 1.0, "Fe": 1.0, "Nd": 0.1, "Sm": 0.1, "O": 60.0}


def angle(a, b):
    return math.degrees(math.acos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))


# k-factors by atoms against Si, for 200 kV and a windowless detector.
@pytest.mark.parametrize(
    ("element", "family", "k"),
    [
        ("Mg", "Ka", 1.080),
        ("Al", "Ka", 1.007),
        ("Ca", "Ka", 0.839),
        ("Fe", "Ka", 0.856),
        ("Nd", "La", 0.904),
        ("Sm", "La", 0.888),
        ("U", "Ma", 0.402),
        ("O", "Ka", 1.892),
        ("Cu", "Ka", 0.928),
    ],
)
def test_k_factors_agree_with_other_tables(element, family, k):
    def counted(symbol, wanted):
        return sum(
            line.intensity * xray_spectra.detector_efficiency([line.energy_kev])[0]
            for line in lines.emission_lines(symbol)
            if line.family in wanted
        )

    assert counted("Si", ("Ka", "Kb")) / counted(element, (family,)) == pytest.approx(k, rel=0.08)


def test_attenuation_jumps_at_an_edge_and_is_constant_below_the_tables():
    below, above = xray_spectra.mass_attenuation({"Si": 1.0}, [1.82, 1.86])
    assert above > 5 * below
    assert len(set(xray_spectra.mass_attenuation({"O": 1.0}, [0.05, 0.1]))) == 1


def test_a_window_absorbs_the_softest_photons_most():
    bare, window = (xray_spectra.detector_efficiency([0.4, 0.525, 1.74, 8.0], polymer_nm=nm) for nm in (0.0, 300.0))
    assert (np.diff(window / bare) > 0).all()
    assert ((bare > 0) & (bare <= 1)).all()


def test_continuum_grows_with_the_square_of_z_and_falls_with_energy():
    carbon, iron = (
        xray_spectra.continuum_cross_section(e, np.array([1.0, 4.0]), beam_kev=200, takeoff_deg=35) for e in ("C", "Fe")
    )
    assert iron[0] / carbon[0] == pytest.approx((26 / 6) ** 2, rel=0.2)
    assert iron[0] / iron[1] == pytest.approx(4.0, rel=0.1)


def test_continuum_is_emitted_forwards_at_200_kev():
    """A detector below the foil detects far more than one above it."""
    above, below = (
        xray_spectra.continuum_cross_section("Fe", [2.0], beam_kev=200, takeoff_deg=angle)[0] for angle in (35, -35)
    )
    assert below > 3 * above


def test_a_spectrum_has_peaks_at_its_lines():
    spectrum = xray_spectra.eds_spectrum(BRG, ENERGY)
    for energy in (0.525, 1.254, 1.740, 3.691, 6.40):
        near = np.abs(ENERGY - energy) < 0.06
        assert ENERGY[near][spectrum[near].argmax()] == pytest.approx(energy, abs=0.011)


@pytest.mark.parametrize(("element", "energy"), [("Si", 1.740), ("Ca", 3.691)])
def test_peaks_have_the_width_of_the_detector(element, energy):
    fine = np.arange(energy - 0.2, energy + 0.2, 0.001)
    peak = xray_spectra.eds_spectrum({element: 100}, fine, continuum=0.0, fwhm=lambda e: np.full(np.shape(e), 0.05))
    above = fine[peak > peak.max() / 2]
    assert above[-1] - above[0] == pytest.approx(0.05, abs=0.004)


def test_counts_do_not_depend_on_the_width_of_channels():
    coarse = xray_spectra.eds_spectrum(BRG, np.arange(0.21, 10, 0.02)).sum()
    fine = xray_spectra.eds_spectrum(BRG, np.arange(0.205, 10, 0.01)).sum()
    assert coarse == pytest.approx(fine, rel=2e-3)


def test_a_thin_foil_is_linear_and_a_thick_foil_absorbs_the_soft_lines():
    thin, double, thick = (xray_spectra.eds_spectrum(BRG, ENERGY, thickness_nm=t) for t in (1.0, 2.0, 1000.0))
    np.testing.assert_allclose(double, 2 * thin, rtol=0.02)
    soft, hard = np.abs(ENERGY - 0.525) < 0.05, np.abs(ENERGY - 6.4) < 0.1
    assert thick[soft].sum() / thick[hard].sum() < 0.6 * thin[soft].sum() / thin[hard].sum()


def test_the_continuum_factor_scales_only_the_continuum():
    none, once, twice = (xray_spectra.eds_spectrum(BRG, ENERGY, continuum=factor) for factor in (0.0, 1.0, 2.0))
    np.testing.assert_allclose(twice - once, once - none, rtol=1e-9)
    valley = (ENERGY > 9) & (ENERGY < 12)
    assert none[valley].max() < 1e-6 * once[valley].min()
    assert 0.02 < (once - none).sum() / once.sum() < 0.15


@pytest.mark.parametrize("axis", [[[1.0, 2.0]], [1.0], [2.0, 1.0], [0.05, 1.0], [1.0, np.nan]])
def test_an_invalid_axis_is_refused(axis):
    with pytest.raises(InputError, match=r"the energy axis must be .* rising and in keV from 0.1 up"):
        xray_spectra.eds_spectrum(BRG, axis)


@pytest.mark.parametrize(
    "wrong", [{"beam_kev": 0}, {"thickness_nm": -1}, {"density": 0}, {"takeoff_deg": 0}, {"continuum": -1}]
)
def test_invalid_quantities_are_refused(wrong):
    with pytest.raises(InputError, match="must be above 0"):
        xray_spectra.eds_spectrum(BRG, ENERGY, **wrong)


@pytest.mark.skipif(not DEV.exists(), reason="the optional test data are missing")
@pytest.mark.parametrize(("number", "worst"), [(0, 3.0), (1, 4.5), (2, 7.0)])
def test_spectra_agree_with_another_program(number, worst):
    """With other tables the peaks are in the same channels, and the angle between the spectra is small."""
    with np.load(DEV) as truth:
        energy, reference = truth["energy"], truth["phases"][number]
        shares = dict(zip(truth["element_names"].tolist(), truth["atomic_percent"][number].tolist(), strict=True))
    spectrum = xray_spectra.eds_spectrum(shares, energy)
    assert angle(spectrum, reference) < worst
    inner = reference[1:-1]
    strong = np.flatnonzero((inner > reference[:-2]) & (inner > reference[2:]) & (inner > 0.05 * reference.max())) + 1
    for peak in strong:
        near = slice(peak - 4, peak + 5)
        assert abs(int(spectrum[near].argmax()) - 4) <= 1


def test_line_intensities_come_from_the_spectrum():
    """The same check as above without the optional test data."""
    spectrum = xray_spectra.eds_spectrum({"Mg": 50, "Si": 50}, ENERGY, continuum=0.0, thickness_nm=1.0)
    areas = [
        spectrum[np.abs(ENERGY - e) < 0.12].sum() / xray_spectra.detector_efficiency([e])[0] for e in (1.254, 1.74)
    ]
    made = [sum(line.intensity for line in lines.emission_lines(e) if line.family[0] == "K") for e in ("Mg", "Si")]
    assert areas[0] / areas[1] == pytest.approx(made[0] / made[1], rel=0.02)
