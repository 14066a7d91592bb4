"""Composition of every pixel and of regions: against single spectra, for any chunks, lazily, with masks."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.schema import InputError
from scalehsi.simulate.minerals import MINERALS
from tests.helpers import raise_if_dask_computes

pytestmark = pytest.mark.long

ELEMENTS = ["Mg", "Si", "Ca", "Fe", "O", "Cu", "Al", "Nd", "Sm", "U"]
FOIL = {"thickness_nm": 100.0, "density": 4.5}


@pytest.fixture(scope="module")
def scene():
    """Counts of stripes of the three minerals, with a mixture between the first two, and the truth behind them."""
    truth = hsi.simulate.phases((30, 34), counts_per_pixel=3000, seed=2).truth.compute()
    abundances = np.zeros((3, 30, 34), dtype=np.float32)
    abundances[0, :, :14] = 1
    abundances[:2, :, 14:18] = 0.5
    abundances[1, :, 18:26] = 1
    abundances[2, :, 26:] = 1
    truth["abundances"] = truth["abundances"].copy(data=abundances)
    expected = np.einsum("kyx,ke->yxe", abundances, truth["endmembers"].values)
    counts = np.random.default_rng(0).poisson(expected).astype("u2")
    cube = hsi.make_cube(counts, energy=truth["energy"].values, energy_units="keV", signal="EDS", pixel_size=10.0)
    return cube, truth


@pytest.fixture(scope="module")
def result(scene) -> xr.Dataset:
    """The result of a perfect unmixing of the counts: the mean spectrum of each stripe, and the true maps."""
    cube, truth = scene
    stripes = [cube[:, :14], cube[:, 18:26], cube[:, 26:]]
    means = np.stack([stripe.mean(("y", "x")).values for stripe in stripes])
    spectra = truth["endmembers"].copy(data=means)
    return truth.assign(endmembers=spectra.assign_attrs(units="counts")).assign_attrs(model="NMF")


def percent(mineral) -> np.ndarray:
    found = np.array([mineral.get(e, 0.0) for e in ELEMENTS])
    return 100 * found / found.sum()


def test_maps_of_the_truth_are_mixtures_of_the_minerals(scene):
    _, truth = scene
    found = hsi.quantify(truth, ELEMENTS, maps=True, **FOIL).compute()
    assert found["atomic_percent"].dims == ("element", "y", "x")
    assert found["atomic_percent"].dtype == np.float32
    np.testing.assert_allclose(found["atomic_percent"].sum("element"), 100.0, rtol=1e-5)
    for k, mineral in enumerate(MINERALS.values()):
        pure = truth["abundances"].isel(component=k) > 0.999
        assert pure.any()
        at = found["atomic_percent"].where(pure).mean(("y", "x"))
        np.testing.assert_allclose(at, percent(mineral), atol=0.06)
    # Where two phases overlap, their atoms add up.
    oxygen = found["intensity"].sel(element="O")
    by_parts = hsi.quantify(truth["endmembers"], ELEMENTS, **FOIL)["intensity"].sel(element="O")
    np.testing.assert_allclose(oxygen, (truth["abundances"] * by_parts).sum("component"), rtol=1e-4)


def test_maps_of_a_result_agree_with_its_components(result):
    whole = hsi.quantify(result, ELEMENTS, **FOIL)
    maps = hsi.quantify(result, ELEMENTS, maps=True, **FOIL).compute()
    np.testing.assert_allclose(
        maps["intensity"].sum(("y", "x")), whole["intensity"].clip(0).sum("component"), rtol=1e-3
    )
    assert "Maps of a result have none" in maps.attrs["errors"]


def test_components_of_a_result_have_the_counts_of_their_maps(result, scene):
    found = hsi.quantify(result, ELEMENTS, **FOIL)
    total = float(found["spectrum"].sum())
    assert total == pytest.approx(float(scene[0].sum()), rel=1e-3)
    there = np.isfinite(found["atomic_percent"])
    assert (found["atomic_percent_std"].where(there, 1) > 0).all()
    for k, mineral in enumerate(MINERALS.values()):
        one = found.isel(component=k)
        off = abs(one["atomic_percent"] - percent(mineral)).fillna(0)
        assert (np.isfinite(one["atomic_percent"]) | (one["atomic_percent_limit"] > percent(mineral))).all()
        assert (off < 5 * one["atomic_percent_std"].fillna(0) + 0.02).all()


def test_pixels_of_a_cube_add_up_to_the_fit_of_the_sum(scene):
    cube, _ = scene
    found = hsi.quantify(cube, ELEMENTS, maps=True, **FOIL).compute()
    whole = hsi.quantify(cube, ELEMENTS, maps=False, **FOIL)
    np.testing.assert_allclose(found["intensity"].sum(("y", "x")), whole["intensity"], rtol=2e-3, atol=2)
    np.testing.assert_allclose(
        np.sqrt((found["intensity_std"] ** 2).sum(("y", "x"))), whole["intensity_std"], rtol=0.02
    )
    np.testing.assert_allclose(found["weight_percent"].sum("element"), 100.0, rtol=1e-4)


def test_errors_of_pixels_are_their_scatter(scene):
    cube, truth = scene
    found = hsi.quantify(cube, ELEMENTS, maps=True, **FOIL).compute()
    pure = (truth["abundances"].isel(component=0) > 0.999).values
    strong = ["Mg", "Si", "O"]
    at, std = (found[n].sel(element=strong).values[:, pure] for n in ("atomic_percent", "atomic_percent_std"))
    np.testing.assert_allclose(at.std(axis=1), np.sqrt((std**2).mean(axis=1)), rtol=0.15)
    np.testing.assert_allclose(at.mean(axis=1), percent(MINERALS["Brg"])[[0, 1, 4]], atol=0.4)


@pytest.mark.parametrize("chunks", [None, {"y": 7, "x": 11}, {"y": 30, "x": 5}])
def test_chunks_do_not_change_the_maps(scene, chunks):
    cube, truth = scene
    small = cube.chunk(chunks) if chunks else cube
    for source in (small, truth.chunk(chunks) if chunks else truth):
        whole = cube if isinstance(source, xr.DataArray) else truth
        one = hsi.quantify(source, ELEMENTS, maps=True, **FOIL).compute()
        two = hsi.quantify(whole, ELEMENTS, maps=True, **FOIL).compute()
        for name in one.data_vars:
            # Sums over pixels, and so the weights of the fit, differ by rounding.
            np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-3, err_msg=name)


def test_maps_are_lazy(scene):
    cube, truth = scene
    lazy = cube.chunk({"y": 10, "x": 34})
    with raise_if_dask_computes(1) as scheduler:
        found = hsi.quantify(lazy, ELEMENTS, maps=True)
    assert scheduler.computes == 1  # the sum of all pixels
    assert found["atomic_percent"].chunks is not None
    maps = truth.assign(abundances=truth["abundances"].chunk({"y": 10, "x": 34}))
    with raise_if_dask_computes(1):
        found = hsi.quantify(maps, ELEMENTS, maps=True)
    assert found["atomic_percent"].chunks is not None


def test_masked_and_empty_pixels_are_nan(scene):
    cube, _ = scene
    data = cube.copy(deep=True)
    data[2, 3] = 0
    mask = np.ones(cube.shape[:2], bool)
    mask[5:8, 5:9] = False
    found = hsi.quantify(data.assign_coords(mask=(("y", "x"), mask)), ELEMENTS, maps=True).compute()
    assert np.isnan(found["atomic_percent"].values[:, ~mask]).all()
    assert np.isnan(found["atomic_percent"].values[:, 2, 3]).all()
    filled = mask.copy()
    filled[2, 3] = False
    assert np.isfinite(found["atomic_percent"].values[:, filled]).all()


def test_regions_of_a_cube_and_of_a_result(scene):
    cube, truth = scene
    areas = {name: truth["abundances"][k] > 0.95 for k, name in enumerate(MINERALS)}
    found = hsi.quantify(cube.chunk({"y": 8, "x": 9}), ELEMENTS, regions=areas, **FOIL)
    assert found["region"].values.tolist() == list(MINERALS)
    by_hand = cube.where(areas["Fp"], 0).sum(("y", "x"))
    np.testing.assert_array_equal(found["spectrum"].sel(region="Fp"), by_hand)
    for name, mineral in MINERALS.items():
        one = found.sel(region=name)
        off = abs(one["atomic_percent"] - percent(mineral)).fillna(0)
        assert (np.isfinite(one["atomic_percent"]) | (one["atomic_percent_limit"] > percent(mineral))).all()
        assert (off < 5 * one["atomic_percent_std"].fillna(0) + 0.02).all()
    stacked = xr.concat(list(areas.values()), dim="region").assign_coords(region=list(areas))
    again = hsi.quantify(cube, ELEMENTS, regions=stacked, **FOIL)
    np.testing.assert_allclose(again["atomic_percent"], found["atomic_percent"])
    whole = hsi.quantify(truth, ELEMENTS, regions=areas["Fp"].rename("grains"), **FOIL)
    assert whole["region"].values.tolist() == ["grains"]
    np.testing.assert_allclose(whole["atomic_percent"].sel(element="Fe"), 10.0, atol=0.5)


def test_more_than_two_pixel_dims(scene):
    cube, _ = scene
    halves = [cube[:6, :7], cube[6:12, :7].assign_coords(y=cube.y[:6])]
    series = xr.concat(halves, dim="time").transpose("time", "y", "x", "energy")
    series.attrs = cube.attrs
    found = hsi.quantify(series, ["Mg", "Si", "O", "Fe"], maps=True)
    assert found["atomic_percent"].dims == ("element", "time", "y", "x")
    alone = hsi.quantify(cube[:12, :7], ["Mg", "Si", "O", "Fe"], maps=True)
    np.testing.assert_allclose(found["intensity"][:, 1], alone["intensity"][:, 6:], rtol=1e-3, atol=0.05)


def test_endmembers_before_smoothing_are_quantified(result):
    kept = result["endmembers"]
    smooth = kept.rolling(energy=9, center=True, min_periods=1).mean()
    smoothed = result.assign(endmembers=smooth.assign_attrs(kept.attrs), unsmoothed_endmembers=kept)
    np.testing.assert_allclose(
        hsi.quantify(smoothed, ELEMENTS)["atomic_percent"], hsi.quantify(result, ELEMENTS)["atomic_percent"]
    )


def test_bad_sources_get_one_clear_line(scene, result):
    cube, _ = scene
    mask = xr.DataArray(np.ones((30, 34), bool), dims=("y", "x"))
    pca = hsi.fit(cube, hsi.PCA(3), seed=0)
    for call, words in [
        (lambda: hsi.quantify(pca, ELEMENTS), "the components of PCA have negative values: they are directions"),
        (lambda: hsi.quantify(cube, ELEMENTS, maps=True, regions=mask), "maps and regions cannot be computed together"),
        (lambda: hsi.quantify(cube, ELEMENTS, regions=mask[:5]), "a region has the sizes .* the pixels have"),
        (lambda: hsi.quantify(cube, ELEMENTS, regions=mask.astype(int)), "region 'region' holds int64; a boolean"),
        (
            lambda: hsi.quantify(cube, ELEMENTS, regions=[1]),
            r"regions is a list; give a boolean DataArray over \(y, x\)",
        ),
        (lambda: hsi.quantify(cube, ELEMENTS, regions={}), "regions is empty; name at least one"),
        (lambda: hsi.quantify(cube * 0, ELEMENTS), "the spectra are all zero; there is nothing to quantify"),
        (lambda: hsi.quantify(xr.Dataset(), ELEMENTS), "this Dataset is no result of scalehsi"),
        (lambda: hsi.quantify(result.assign_attrs(signal="EELS"), ELEMENTS), "the signal is EELS"),
        (lambda: hsi.quantify(cube.assign_attrs(signal="EELS"), ELEMENTS), "the signal is EELS"),
    ]:
        with pytest.raises(InputError, match=words) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.cluster
def test_workers_give_the_same_numbers(scene, client):
    cube, truth = scene
    chunks = {"y": 10, "x": 17}
    for source, whole in (
        (cube.chunk(chunks), cube),
        (truth.assign(abundances=truth["abundances"].chunk(chunks)), truth),
    ):
        lazy = hsi.quantify(source, ELEMENTS, maps=True, **FOIL)
        found = lazy.compute()
        with dask.config.set(scheduler="synchronous"):
            wanted = hsi.quantify(whole, ELEMENTS, maps=True, **FOIL).compute()
        np.testing.assert_allclose(found["atomic_percent"], wanted["atomic_percent"], rtol=1e-4, atol=1e-3)
