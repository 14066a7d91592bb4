"""`scalehsi.quantify` of spectra and components: known compositions, errors, units, and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.io import open_dataset
from scalehsi.physics.xray_spectra import eds_spectrum
from scalehsi.result import result_warnings
from scalehsi.schema import InputError
from scalehsi.simulate.minerals import MINERALS
from tests.paths import DATA

pytestmark = pytest.mark.long

DEV = DATA / "psnmf_dev" / "truth.npz"
K_ATOMIC = {"Mg": 1.080, "Si": 1.0, "Al": 1.007, "Ca": 0.839, "Fe": 0.856, "Nd": 0.904, "Sm": 0.888, "U": 0.402}
K_ATOMIC |= {"O": 1.892, "Cu": 0.928}
FOIL = {"thickness_nm": 100.0, "density": 4.5}
ENERGY = np.linspace(0.2, 20.0, 1980)
METHODS = ["fit", "windows"]


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return hsi.simulate.phases((24, 24), seed=3).truth.compute()


def percent(elements, mineral) -> np.ndarray:
    found = np.array([mineral.get(str(e), 0.0) for e in elements])
    return 100 * found / found.sum()


def values_of(found) -> np.ndarray:
    """Atomic per cent, with zero for elements that were not found."""
    return found["atomic_percent"].fillna(0).values


def spectrum(mineral, counts=None, energies=ENERGY, units="keV", **attrs) -> xr.DataArray:
    x = eds_spectrum(mineral, energies if units == "keV" else energies / 1000)
    x = x if counts is None else x * counts / x.sum()
    return xr.DataArray(
        x, dims="energy", coords={"energy": ("energy", energies, {"units": units})}, attrs={"signal": "EDS", **attrs}
    )


@pytest.mark.parametrize("method", METHODS)
def test_simulated_endmembers_give_their_composition(truth, method):
    found = hsi.quantify(truth["endmembers"], truth.attrs["elements"], method=method, **FOIL)
    assert found["atomic_percent"].dims == ("component", "element")
    for k, mineral in enumerate(MINERALS.values()):
        wanted = percent(found["element"].values, mineral)
        np.testing.assert_allclose(values_of(found)[k], wanted, atol=0.05)
        np.testing.assert_array_equal(np.isnan(found["atomic_percent"][k]), wanted == 0)
        assert (found["atomic_percent_limit"][k].values[wanted == 0] < 0.2).all()
    np.testing.assert_allclose(found["weight_percent"].sum("element"), 100.0)
    assert found["absorption"].sel(element="O").max() < 0.97 < found["absorption"].sel(element="Fe").min()


@pytest.mark.parametrize("method", METHODS)
def test_spectra_of_another_program_give_the_published_composition(method):
    if not DEV.exists():
        pytest.skip("the optional test data are missing")
    data = np.load(DEV)
    spectra = xr.DataArray(
        data["phases"], dims=("component", "energy"), coords={"energy": ("energy", data["energy"], {"units": "keV"})}
    )
    elements = [str(e) for e in data["element_names"]]
    found = hsi.quantify(spectra, elements, k_factors=K_ATOMIC, k_units="atomic", method=method)
    wanted = data["atomic_percent"] / data["atomic_percent"].sum(axis=1, keepdims=True) * 100
    np.testing.assert_allclose(values_of(found), wanted, atol=0.05)
    assert found["line"].values.tolist() == [
        f"{e} {'Ma' if e == 'U' else 'La' if e in ('Nd', 'Sm') else 'Ka'}" for e in elements
    ]


def test_quantify_is_a_function_and_a_module():
    assert callable(hsi.quantify)
    assert callable(hsi.quantify.quantify)
    assert "Fe Ka" in hsi.quantify.lines("Fe")["line"].values
    k = hsi.quantify.k_factors(["Si", "O", "Fe"], reference="Fe")
    assert float(k.sel(element="Fe")) == 1
    assert float(k.sel(element="Si")) == pytest.approx(0.6, abs=0.05)


def test_a_single_spectrum_has_one_dim():
    found = hsi.quantify(spectrum(MINERALS["Fp"], 1e6, units="keV"), ["Mg", "Fe", "O", "Cu"], **FOIL)
    assert found["atomic_percent"].dims == ("element",)
    np.testing.assert_allclose(found["atomic_percent"], [39, 10, 50, 1], atol=0.05)


def test_energies_in_ev_and_falling_axes_give_the_same_composition():
    elements = ["Mg", "Fe", "O", "Cu"]
    kev = hsi.quantify(spectrum(MINERALS["Fp"], 1e6), elements)
    ev = hsi.quantify(spectrum(MINERALS["Fp"], 1e6, energies=ENERGY * 1000, units="eV"), elements)
    falling = hsi.quantify(spectrum(MINERALS["Fp"], 1e6)[::-1], elements)
    for other in (ev, falling):
        np.testing.assert_allclose(other["atomic_percent"], kev["atomic_percent"], rtol=1e-6)
    np.testing.assert_allclose(falling["model"][::-1], kev["model"])
    np.testing.assert_array_equal(falling["energy"], ENERGY[::-1])


def test_errors_are_the_scatter_of_repeated_measurements():
    rng = np.random.default_rng(0)
    expected = spectrum(MINERALS["CaPv"], 2e5)
    elements = list(MINERALS["CaPv"])
    draws = xr.DataArray(
        rng.poisson(np.tile(expected, (60, 1))), dims=("draw", "energy"), coords=expected.coords, attrs=expected.attrs
    )
    found = hsi.quantify(draws, elements, **FOIL)
    for name in ("atomic_percent", "weight_percent", "intensity"):
        estimated = np.sqrt((found[f"{name}_std"] ** 2).mean("draw"))
        np.testing.assert_allclose(found[name].std("draw", ddof=1), estimated, rtol=0.3)
    assert float(found["reduced_chi_square"].mean()) == pytest.approx(1.0, abs=0.05)
    off = (found["atomic_percent"].mean("draw") - percent(elements, MINERALS["CaPv"])) / (
        found["atomic_percent_std"].mean("draw") / np.sqrt(60)
    )
    assert float(np.abs(off).max()) < 5


def test_an_absent_element_has_an_upper_limit_and_no_number():
    x = spectrum(MINERALS["Fp"], 3e5).astype(int).assign_attrs(signal="EDS")
    found = hsi.quantify(x, ["Mg", "Fe", "O", "Cu", "Ti", "Nd"], **FOIL)
    for name in ("atomic_percent", "weight_percent", "intensity"):
        absent, there = found.sel(element=["Ti", "Nd"]), found.sel(element=["Mg", "Fe", "O", "Cu"])
        for ending in ("", "_std") + ("_k_std",) * (name != "intensity"):
            assert np.isnan(absent[f"{name}{ending}"]).all()
            assert np.isfinite(there[f"{name}{ending}"]).all()
        assert (absent[f"{name}_limit"] > 0).all()
        assert np.isnan(there[f"{name}_limit"]).all()
    assert (absent["atomic_percent_limit"] < 0.2).all()
    np.testing.assert_allclose(there["atomic_percent"].sum(), 100)


def test_without_counts_errors_are_nan_with_a_reason():
    x = spectrum(MINERALS["Fp"])
    found = hsi.quantify(x, ["Mg", "Fe", "O", "Cu"])
    assert np.isnan(found["atomic_percent_std"]).all()
    assert np.isnan(found["reduced_chi_square"])
    assert "counts behind these spectra are not known" in found.attrs["errors"]
    named = hsi.quantify(x, ["Mg", "Fe", "O", "Cu"], counts=1e5)
    np.testing.assert_allclose(named["atomic_percent"], found["atomic_percent"], rtol=1e-9)
    more = hsi.quantify(x, ["Mg", "Fe", "O", "Cu"], counts=4e5)
    np.testing.assert_allclose(more["atomic_percent_std"], named["atomic_percent_std"] / 2, rtol=1e-6)


def test_k_factors_by_weight_or_atoms_by_line_or_element():
    x, elements = spectrum(MINERALS["Fp"], 1e6), ["Mg", "Fe", "O"]
    computed = hsi.quantify(x, elements)
    k = {f"{e}_Ka": float(v) for e, v in zip(elements, computed["k_factor"], strict=True)}
    given = hsi.quantify(x, elements, k_factors=k)
    np.testing.assert_allclose(given["atomic_percent"], computed["atomic_percent"], rtol=1e-9)
    masses = {"Mg": 24.305, "Fe": 55.845, "O": 15.999}
    by_atoms = {e: k[f"{e}_Ka"] / masses[e] for e in elements}
    atomic = hsi.quantify(x, elements, k_factors=by_atoms, k_units="atomic")
    np.testing.assert_allclose(atomic["atomic_percent"], computed["atomic_percent"], rtol=1e-3)
    doubled = hsi.quantify(x, elements, k_factors={**k, "O_Ka": 2 * k["O_Ka"]})
    ratio = lambda found: float(found["weight_percent"][2] / found["weight_percent"][1])  # noqa: E731
    assert ratio(doubled) == pytest.approx(2 * ratio(computed))


def test_the_definition_of_counts_does_not_change_computed_compositions():
    x, elements = spectrum(MINERALS["CaPv"], 1e6), list(MINERALS["CaPv"])
    window, family = (hsi.quantify(x, elements, counted=c, **FOIL) for c in ("window", "family"))
    np.testing.assert_allclose(family["atomic_percent"], window["atomic_percent"], atol=1e-3)
    # 1.2 widths of a Gaussian contain 84 %; in whole channels it is slightly more or less.
    fraction = (window["intensity"] / family["intensity"]).sel(element=["O", "Si", "Ca"])
    assert (abs(fraction - 0.84) < 0.04).all()


def test_extra_elements_are_fitted_but_not_quantified():
    sample, grid = spectrum({"Mg": 50, "O": 50}, 1e6), spectrum({"Cu": 100}, 2e5)
    found = hsi.quantify(sample + grid, ["Mg", "O"], extra=["Cu"], counts=1.2e6, **FOIL)
    np.testing.assert_allclose(found["atomic_percent"], 50.0, atol=0.1)
    assert found["element"].values.tolist() == ["Mg", "O"]
    assert result_warnings(found) == []
    without = hsi.quantify(sample + grid, ["Mg", "O"], counts=1.2e6, **FOIL)
    assert json.loads(without.attrs["settings"])["extra_found"] == ["Cu"]
    assert [w.code for w in result_warnings(without)] == ["unexplained_peak"]
    xr.testing.assert_allclose(without["atomic_percent"], found["atomic_percent"])


def test_elements_and_beam_come_from_the_source():
    x = spectrum(MINERALS["Fp"], 1e6, elements=["Mg", "Fe", "O", "Cu"], beam_energy_keV=80.0)
    assert hsi.quantify(x)["element"].values.tolist() == ["Mg", "Fe", "O", "Cu"]
    assert json.loads(hsi.quantify(x).attrs["settings"])["beam_kev"] == 80.0
    assert hsi.quantify(x, extra=["Cu"])["element"].values.tolist() == ["Mg", "Fe", "O"]


@pytest.mark.parametrize("factor", [0.85, 1.2])
@pytest.mark.parametrize("shift", [-0.012, 0.008])
def test_width_and_zero_of_the_axis_are_estimated(factor, shift):
    x = eds_spectrum(MINERALS["Fp"], ENERGY, fwhm=lambda e: factor * (0.01 * np.asarray(e) + 0.065))
    made = xr.DataArray(
        x * 1e6 / x.sum(), dims="energy", coords={"energy": ("energy", ENERGY - shift, {"units": "keV"})}
    )
    found = hsi.quantify(made, ["Mg", "Fe", "O", "Cu"], fwhm="estimate", **FOIL)
    settings = json.loads(found.attrs["settings"])
    assert settings["fwhm_MnKa_eV"] == pytest.approx(factor * 123.95, rel=0.01)
    assert settings["energy_shift_eV"] == pytest.approx(1000 * shift, abs=0.5)
    np.testing.assert_allclose(found["atomic_percent"], [39, 10, 50, 1], atol=0.1)


def test_the_resolution_can_be_given():
    x = spectrum(MINERALS["Fp"], 1e6)
    for fwhm, width in ((130, 130.0), (lambda e: 0.1 + 0 * np.asarray(e), 100.0), (None, 123.95)):
        found = hsi.quantify(x, ["Mg", "Fe", "O", "Cu"], fwhm=fwhm)
        assert json.loads(found.attrs["settings"])["fwhm_MnKa_eV"] == pytest.approx(width, abs=0.01)


def test_spectrum_model_and_background_are_consistent(truth):
    found = hsi.quantify(truth["endmembers"], truth.attrs["elements"], **FOIL)
    inside = found["model"].notnull()
    assert ((found["model"] - found["background"]).where(inside, 0) > -1e-9).all()
    assert inside.sum("energy").min() > 1900
    np.testing.assert_array_equal(found["energy"], truth["energy"])
    assert found["energy"].attrs["units"] == "keV"


def test_a_dataset_can_be_saved_and_opened(truth, tmp_path):
    found = hsi.quantify(truth["endmembers"], truth.attrs["elements"])
    back = open_dataset(hsi.save(found, tmp_path / "q.zarr"))
    xr.testing.assert_equal(back, found)
    assert back.attrs["method"] == "fit"
    assert back.attrs["history"].splitlines()[-1].startswith("quantify Mg, Si, Al")
    assert all(isinstance(value, str | int | float) for value in back.attrs.values())


def test_one_empty_spectrum_among_others_is_nan(truth):
    spectra = truth["endmembers"].copy()
    spectra[1] = 0.0
    found = hsi.quantify(spectra, truth.attrs["elements"])
    assert np.isnan(found["atomic_percent"][1]).all()
    assert (np.isfinite(found["atomic_percent"][[0, 2]]).sum("element") > 5).all()
    assert np.isnan(found["atomic_percent_limit"][1]).all()


X = spectrum(MINERALS["Fp"], 1e6)
REFUSED = [
    (lambda: hsi.quantify(X, ["Mg", "Xx"]), "no element is called 'Xx'; did you mean"),
    (lambda: hsi.quantify(X), "no elements are named, and the data name none; type elements="),
    (lambda: hsi.quantify(X, "Mg"), "elements and extra are lists of symbols; type elements="),
    (lambda: hsi.quantify(X.sel(energy=slice(1, None)), ["O", "Mg"]), "O has no main line on the energy axis"),
    (lambda: hsi.quantify(X, ["Fe"], lines=["Fe_Mz"]), "Fe has no line 'Mz'"),
    (lambda: hsi.quantify(X, ["Mg", "Fe"], k_factors={"Mg_Ka": 1.0}), "no factor for Fe Ka; add 'Fe_Ka', leave Fe out"),
    (
        lambda: hsi.quantify(X, ["Fe"], k_factors={"Fe_La": 1.0}),
        r"no factor for Fe Ka, only for Fe La; choose that line with lines=\['Fe_La'\]",
    ),
    (lambda: hsi.quantify(X, ["Fe"], k_factors={"Fe": -1.0}), "the k-factor of Fe Ka is -1.0; a number above 0"),
    (lambda: hsi.quantify(X, ["Fe"], k_factors="mine"), "k_factors='mine'; give 'computed', or a mapping"),
    (lambda: hsi.quantify(X, ["Fe"], thickness_nm=-5, density=4), "thickness_nm=-5; a number above 0 is expected"),
    (lambda: hsi.quantify(X, ["Fe"], thickness_nm=50), r"add density \(g/cm\^3\), such as density=4.5"),
    (lambda: hsi.quantify(X, ["Fe"], takeoff_deg=120), "at most 90 degrees"),
    (lambda: hsi.quantify(X, ["Fe"], method="guess"), "method='guess' is not known; .*Known: fit, windows"),
    (lambda: hsi.quantify(X, ["Fe"], k_units="mol"), "k_units='mol' is not known; .*Known: atomic, weight"),
    (lambda: hsi.quantify(X, ["Fe"], reference="Si"), "reference='Si' is none of the elements"),
    (lambda: hsi.quantify(X, ["Fe"], extra=["Fe"]), "Fe is named as an element of the sample and as extra"),
    (lambda: hsi.quantify(X, ["Fe"], fwhm="wide"), "fwhm='wide'; give eV at Mn Ka such as 130"),
    (lambda: hsi.quantify(X, ["Fe"], fwhm=0.13), "a resolution at Mn Ka from 20 to 500 eV"),
    (lambda: hsi.quantify(X, ["Fe"], energy_range=(6.3, 6.31)), "energy_range=.* keeps 1 channels"),
    (lambda: hsi.quantify(X, ["Fe"], counts=-3), "counts=-3; the total counts of each spectrum"),
    (lambda: hsi.quantify(X, ["Fe"], maps=True), r"maps and regions need pixels, .* dims \('energy',\)"),
    (lambda: hsi.quantify(X * 0, ["Fe"]), "the spectra are all zero; there is nothing to quantify"),
    (lambda: hsi.quantify(X * np.nan, ["Fe"]), "the spectra hold NaN or Inf"),
    (lambda: hsi.quantify(X - X.max() / 2, ["Fe"]), "the spectra have negative values; counts before"),
    (lambda: hsi.quantify(X.assign_attrs(signal="EELS"), ["Fe"]), "the signal is EELS, and only X-ray lines"),
    (lambda: hsi.quantify(X.assign_coords(energy=ENERGY), ["Fe"]), "which is no unit of energy"),
    (lambda: hsi.quantify(X.values, ["Fe"]), "a result, a cube or spectra are expected, got ndarray"),
    (
        lambda: hsi.quantify(X.assign_coords(energy=("energy", ENERGY, {"units": "eV"})), ["Fe"]),
        "too few for X-ray lines; is its unit right",
    ),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_bad_input_gets_one_clear_line(call, words):
    with pytest.raises(InputError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_no_line_above_the_background_is_refused():
    flat = X.copy(data=np.full(X.size, 100.0))
    with pytest.raises(InputError, match="no line of Fe rises above the background"):
        hsi.quantify(flat - 90 * np.exp(-(((flat.energy - 6.4) / 0.05) ** 2)), ["Fe"])
