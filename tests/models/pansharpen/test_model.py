"""Two acquisitions fused: against the truth, whatever their grids, axes, chunks and drift; and what is refused."""

from __future__ import annotations

import json

import dask
import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment

import scalehsi as hsi
from scalehsi.schema import InputError
from tests.paths import DATA

pytestmark = pytest.mark.long

PAIR = DATA / "psnmf_eels_dev"
SIZE, CHANNELS = 48, 90
ACQUIRED = {"n_channels": CHANNELS, "counts_per_pixel": 300, "footprint": 4}

FAST = hsi.PanSharpen(4, remix=False)
"""Where spectra need not be pure."""


def acquired(**settings) -> tuple[dict[str, xr.DataArray], xr.Dataset]:
    found = hsi.simulate.acquisitions((SIZE, SIZE), **{**ACQUIRED, "seed": 2, **settings})
    return {name: each.compute() for name, each in found.cubes.items()}, found.truth.compute()


@pytest.fixture(scope="module")
def pair() -> tuple[dict[str, xr.DataArray], xr.Dataset]:
    return acquired()


@pytest.fixture(scope="module")
def result(pair) -> xr.Dataset:
    return hsi.fit(pair[0], hsi.PanSharpen(4), seed=0)


@pytest.fixture(scope="module")
def plain(pair) -> xr.Dataset:
    return hsi.fit(pair[0], FAST, seed=0)


def noiseless(truth: xr.Dataset) -> np.ndarray:
    return np.moveaxis(truth["abundances"].values.astype(float), 0, -1) @ truth["endmembers"].values


def error(result: xr.Dataset, truth: xr.Dataset) -> float:
    wanted = noiseless(truth)
    return float(np.linalg.norm(hsi.reconstruct(result).values - wanted) / np.linalg.norm(wanted))


def angles(result: xr.Dataset, truth: xr.Dataset) -> np.ndarray:
    a, b = (each["endmembers"].values for each in (truth, result))
    a, b = (s / np.linalg.norm(s, axis=1, keepdims=True) for s in (a, b))
    table = np.degrees(np.arccos(np.clip(a @ b.T, -1, 1)))
    return table[linear_sum_assignment(table)]


# Against the truth ---------------------------------------------------------------------------------------------------


def test_the_result_is_one_like_every_other(pair, result, tmp_path):
    cubes, _ = pair
    assert result["abundances"].dims == ("component", "y", "x")
    assert result["abundances"].shape == (4, SIZE, SIZE)
    assert result["endmembers"].shape == (4, CHANNELS)
    xr.testing.assert_equal(result["energy"], cubes["spectral"]["energy"])
    xr.testing.assert_equal(result["y"], cubes["spatial"]["y"])
    assert result["coarse_abundances"].shape == (4, 12, 12)
    assert result.attrs["status"] == "converged"
    sources = json.loads(result.attrs["sources"])
    assert list(sources) == ["spatial", "spectral"]
    assert sources["spectral"]["sizes"] == {"y": 12, "x": 12, "energy": CHANNELS}
    opened = hsi.open_result(hsi.save(result, tmp_path / "result.zarr"))
    xr.testing.assert_equal(hsi.reconstruct(opened).compute(), hsi.reconstruct(result).compute())
    assert hsi.PanSharpen.from_settings(json.loads(result.attrs["settings"])) == hsi.PanSharpen(4)


def test_the_fused_cube_is_better_than_either_and_than_pca(pair, result):
    cubes, truth = pair
    fused = error(result, truth)
    wanted = noiseless(truth)
    raw = np.linalg.norm(cubes["spatial"].values - wanted) / np.linalg.norm(wanted)
    weighted = error(hsi.fit(cubes["spatial"], hsi.PCA(4)), truth)
    wide = (
        cubes["spectral"].values.repeat(4, 0).repeat(4, 1) * (cubes["spatial"].mean() / cubes["spectral"].mean()).item()
    )
    nearest = np.linalg.norm(wide - wanted) / np.linalg.norm(wanted)
    assert fused < 0.2 * raw
    assert fused < 0.8 * weighted
    assert fused < 0.6 * nearest


def test_spectra_of_the_fine_pixels_are_purer(pair, result, plain):
    _, truth = pair
    assert angles(result, truth).mean() < 0.8 * angles(plain, truth).mean()
    assert angles(result, truth).max() < 10


def test_the_prior_helps_and_none_is_plain_likelihood(pair, plain):
    cubes, truth = pair
    alone, some = (hsi.fit(cubes, hsi.PanSharpen(4, prior=amount, remix=False), seed=0) for amount in (0, 0.1))
    assert error(plain, truth) < error(some, truth) < error(alone, truth)
    xr.testing.assert_allclose(alone["abundances"], hsi.project(alone, cubes["spatial"]).compute(), atol=1e-5)
    assert some["prior_weight"].values.tolist() == [0.1] * 4


def test_drift_is_found_and_does_no_harm(pair, plain):
    cubes, truth = acquired(drift=(1.3, -0.9))
    found = hsi.fit(cubes, FAST, seed=0)
    np.testing.assert_allclose(found["registration_shift"], [1.3, -0.9], atol=0.15)
    assert (found["registration_shift_error"] < 0.1).all()
    assert float(found["registration_residual"]) < 0.15
    # At the rim the spectral cube does not reach over the spatial one any more.
    assert error(found, truth) < 1.05 * error(plain, pair[1])
    still = hsi.fit(cubes, hsi.PanSharpen(4, registration=None, remix=False), seed=0)
    assert still["registration_shift"].values.tolist() == [0.0, 0.0]
    assert float(still["registration_residual"]) > float(found["registration_residual"])
    # A bad registration makes the prior weak, not the map wrong.
    assert (still["prior_weight"] < found["prior_weight"] + 1e-3).all()
    without, with_drift = (error(hsi.fit(each, hsi.PanSharpen(4, prior=0), seed=0), truth) for each in (pair[0], cubes))
    assert with_drift < 1.03 * without


def test_a_shift_that_is_given_is_taken(pair):
    found = hsi.fit(pair[0], hsi.PanSharpen(4, registration=(1.5, -2), remix=False), seed=0)
    assert found["registration_shift"].values.tolist() == [1.5, -2.0]


def test_the_size_of_pixels_is_in_their_unit(pair, plain):
    cubes = dict(pair[0])
    cubes["spectral"] = cubes["spectral"].assign_coords(
        {d: (d, cubes["spectral"][d].values * 1e-3, {"units": "um"}) for d in ("y", "x")}
    )
    found = hsi.fit(cubes, FAST, seed=0)
    xr.testing.assert_allclose(found["abundances"], plain["abundances"], atol=1e-4)
    assert found["registration_shift"].attrs["units"] == "nm"


def test_intensities_are_fused_by_least_squares(pair):
    rng = np.random.default_rng(0)
    cubes, truth = pair
    wanted = noiseless(truth)
    fine = cubes["spatial"].copy(data=(wanted + rng.normal(0, 1.0, wanted.shape) - 0.05).astype("f4"))
    small = wanted.reshape(12, 4, 12, 4, -1).mean(axis=(1, 3))
    coarse = cubes["spectral"].copy(data=(100 * small + rng.normal(0, 10, small.shape)).astype("f4"))
    data = {"spatial": fine, "spectral": coarse}
    joint, alone = (hsi.fit(data, hsi.PanSharpen(4, loss="frobenius", prior=p), seed=0) for p in ("auto", 0))
    assert error(joint, truth) < error(alone, truth) < 0.06
    assert float(joint["dose_ratio"]) == pytest.approx(0.01, rel=0.02)


def test_an_image_sharpens_the_prior():
    cubes, truth = acquired(image_counts=400, drift=(0.6, 0.4))
    found, without = (
        hsi.fit(data, FAST, seed=0) for data in (cubes, {name: cubes[name] for name in ("spatial", "spectral")})
    )
    assert error(found, truth) < 0.95 * error(without, truth)
    np.testing.assert_allclose(found["image_shift"], [0.0, 0.0], atol=0.2)
    # The image shows mass, which is the tail's, and no mode.
    tail = int(np.argmax(found["abundances"].mean(("y", "x")).values))
    assert float(found["image_gain"][tail]) > 0.5
    assert found["image"].shape == (SIZE, SIZE)


def test_an_image_of_something_else_does_no_harm(pair, plain):
    cubes, truth = pair
    noise = np.random.default_rng(0).normal(size=(96, 96))
    axis = (np.arange(96) + 0.5) / 2 - 0.5
    other = xr.DataArray(noise, dims=("y", "x"), coords={d: (d, axis, {"units": "nm"}) for d in ("y", "x")})
    found = hsi.fit({**cubes, "image": other}, FAST, seed=0)
    assert error(found, truth) < 1.02 * error(plain, truth)
    assert (found["image_gain"] < 0.3).all()


# Energy axes ---------------------------------------------------------------------------------------------------------


def test_axes_of_other_channels(pair, plain):
    cubes, truth = acquired(spectral_channels=2 * CHANNELS)
    found = hsi.fit(cubes, FAST, seed=0)
    assert found.sizes["energy"] == 2 * CHANNELS
    rebuilt = hsi.reconstruct(found).values.reshape(SIZE, SIZE, CHANNELS, 2).sum(axis=-1)
    wanted = noiseless(truth)
    assert np.linalg.norm(rebuilt - wanted) / np.linalg.norm(wanted) < 1.1 * error(plain, pair[1])
    left = cubes["spatial"].values.sum(axis=-1).mean() - rebuilt.sum(axis=-1).mean()
    assert abs(left) < 0.01 * 300
    assert float(found["residual_spectrum"].sum()) == pytest.approx(float(left), abs=0.5)


def test_only_the_range_that_both_have_is_compared(pair):
    cubes, _ = pair
    part = {**cubes, "spectral": cubes["spectral"].isel(energy=slice(10, 80))}
    found = hsi.fit(part, FAST, seed=0)
    cut = {**part, "spatial": cubes["spatial"].isel(energy=slice(10, 80))}
    np.testing.assert_array_equal(found["abundances"], hsi.fit(cut, FAST, seed=0)["abundances"])
    wider = {**cubes, "spatial": cubes["spatial"].isel(energy=slice(10, 80))}
    assert hsi.fit(wider, FAST, seed=0).sizes["energy"] == CHANNELS


# Blocks, masks and states --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [{"y": 48, "x": 48}, {"y": 13, "x": 31}, {"y": 7, "x": 48}], ids=str)
def test_chunks_change_nothing(pair, plain, chunks):
    lazy = {
        "spatial": pair[0]["spatial"].chunk({**chunks, "energy": 40}),
        "spectral": pair[0]["spectral"].chunk({"y": 5}),
    }
    with dask.config.set(scheduler="threads"):
        found = hsi.fit(lazy, FAST, seed=0)
        np.testing.assert_allclose(found["abundances"].compute(), plain["abundances"], atol=2e-4)
    np.testing.assert_allclose(found["endmembers"], plain["endmembers"], atol=1e-4 * float(plain["endmembers"].max()))


def test_maps_that_stay_lazy_are_the_same(pair, monkeypatch):
    cubes, _ = acquired(image_counts=100)
    cubes["spatial"] = cubes["spatial"].chunk({"y": 16, "x": 24})
    here = hsi.fit(cubes, FAST, seed=0)
    monkeypatch.setattr("scalehsi.fitting.last_pass.CLIENT_MAP_BYTES", 0)
    found = hsi.fit(cubes, FAST, seed=0)
    assert found["abundances"].chunks is not None
    np.testing.assert_allclose(found["abundances"].compute(), here["abundances"], atol=1e-5)
    np.testing.assert_allclose(found["residual"].compute(), here["residual"], atol=1e-5)


def test_pixels_that_are_masked_are_left_out(pair):
    used, seen = np.ones((SIZE, SIZE), dtype=bool), np.ones((12, 12), dtype=bool)
    used[:9], seen[:, 10:] = False, False
    wild = [pair[0][name].astype("u4") for name in ("spatial", "spectral")]
    for each, mask in zip(wild, (used, seen), strict=True):
        each.values[~mask] = 60_000
    data = {
        "spatial": wild[0].assign_coords(mask=(("y", "x"), used)),
        "spectral": wild[1].assign_coords(mask=(("y", "x"), seen)),
    }
    found = hsi.fit(data, FAST, seed=0)
    assert found["abundances"][:, :9].isnull().all()
    assert found["abundances"][:, 9:].notnull().all()
    assert found["coarse_abundances"][..., 10:].isnull().all()
    truth = pair[1]
    wanted = noiseless(truth)[9:]
    assert np.linalg.norm(hsi.reconstruct(found).values[9:] - wanted) / np.linalg.norm(wanted) < 0.08


def test_a_checkpoint_goes_on_and_knows_both_cubes(pair, plain, tmp_path):
    cubes, _ = pair
    where = {"checkpoint": tmp_path / "run.ckpt", "seed": 0}
    hsi.fit(cubes, hsi.PanSharpen(4, remix=False, max_iter=5), **where)
    found = hsi.fit(cubes, FAST, **where, resume=True)
    np.testing.assert_array_equal(found["abundances"], plain["abundances"])
    other = {**cubes, "spectral": cubes["spectral"].isel(y=slice(0, 11))}
    with pytest.raises(InputError, match="shape of 'spectral'"):
        hsi.fit(other, FAST, **where, resume=True)


def test_the_plan_counts_both_cubes(pair):
    cubes, _ = pair
    wide = {**cubes, "spectral": xr.concat([cubes["spectral"]] * 6, "x").assign_coords(x=np.arange(72.0) * 4)}
    few, many = (hsi.plan(data, FAST) for data in (cubes, wide))
    assert many.worker_bytes > few.worker_bytes
    assert (few.model, few.cube_bytes) == ("PanSharpen", cubes["spatial"].nbytes)


@pytest.mark.cluster
def test_a_cluster_gives_the_same(pair, plain, client):
    lazy = {name: each.chunk({"y": 12, "x": 12}) for name, each in pair[0].items()}
    found = hsi.fit(lazy, FAST, seed=0)
    np.testing.assert_allclose(found["abundances"].compute(), plain["abundances"], atol=2e-4)


def test_the_report_shows_the_registration(result, tmp_path):
    page = hsi.report(result, tmp_path / "page").read_text()
    assert "Registration of the two acquisitions" in page
    assert f"{float(result['registration_shift'][0]):+.3g}" in page
    assert (tmp_path / "page" / "registration.png").stat().st_size > 10_000


# What is refused -----------------------------------------------------------------------------------------------------


def refused(data, words: str, **settings) -> None:
    with pytest.raises(InputError, match=words):
        hsi.fit(data, hsi.PanSharpen(4, **settings))


def test_what_are_no_two_acquisitions_is_refused(pair):
    cubes, _ = pair
    spatial, spectral = cubes["spatial"], cubes["spectral"]
    refused(spatial, r"takes 2 acquisitions by name, got one cube; type hsi.fit\(\{'spatial': spatial_cube")
    refused([spatial, spectral], "takes 2 acquisitions by name, got list")
    refused({"spatial": spatial}, "PanSharpen lacks 'spectral'; type")
    refused({"spatial": spatial, "specral": spectral}, "takes no 'specral'; did you mean 'spectral'")
    refused({"spatial": spatial, "spectral": spectral[0]}, "'spectral': ")
    refused({"spatial": spatial.expand_dims("time"), "spectral": spectral}, "'spatial' has .*'time'.*add up the others")
    with pytest.raises(InputError, match="NMF takes one cube, got a mapping of 'spatial', 'spectral'"):
        hsi.fit(cubes, hsi.NMF(4))
    with pytest.raises(InputError, match="NMF takes one cube"):
        hsi.plan(cubes, hsi.NMF(4))


def test_acquisitions_that_do_not_go_together_are_refused(pair):
    cubes, _ = pair
    spectral = cubes["spectral"]
    far = spectral.assign_coords(y=("y", spectral.y.values + 500, spectral.y.attrs))
    refused({**cubes, "spectral": far}, "fields do not overlap: y of 'spatial' runs from -0.5 to 47.5, of 'spectral'")
    high = spectral.assign_coords(energy=("energy", spectral.energy.values + 100, spectral.energy.attrs))
    refused({**cubes, "spectral": high}, "energy axes share 0 channels, at least 4 are needed")
    unknown = spectral.assign_coords(energy=("energy", spectral.energy.values, {"units": "channel"}))
    refused({**cubes, "spectral": unknown}, "'spatial' is in 'eV', that of 'spectral' in 'channel'; give both")
    pixels = spectral.assign_coords({d: (d, spectral[d].values, {"units": "px"}) for d in ("y", "x")})
    refused({**cubes, "spectral": pixels}, "lengths of one kind are needed")
    refused({**cubes, "image": spectral}, r"'image' is a DataArray of dims \('y', 'x'\)")
    refused({**cubes, "image": spectral[..., 0].astype(complex)}, "'image' holds real numbers")
    void = spectral[..., 0].drop_vars("energy").astype(float) * np.nan
    refused({**cubes, "image": void}, "'image' holds no finite number")


def test_negative_and_missing_values_are_refused(pair):
    cubes, _ = pair
    for name in ("spatial", "spectral"):
        bad = cubes[name].astype("f4")
        bad.values[1, 1, 1] = -1
        refused({**cubes, name: bad}, "negative")
        bad.values[1, 1, 1] = np.nan
        refused({**cubes, name: bad}, "NaN")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "kl"}, "loss"),
        ({"prior": -1}, "prior is 'auto' or a number of at least 0, got -1"),
        ({"prior": "some"}, "prior is 'auto'"),
        ({"registration": "manual"}, "registration is 'auto', None or a shift"),
        ({"registration": (1, np.nan)}, "registration is 'auto'"),
        ({"remix": 1}, "remix is True or False"),
        ({"concentration": 0}, "concentration is a number above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        hsi.PanSharpen(4, **settings)


# The development pair ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not PAIR.is_dir(), reason="the development pair is not beside the checkout")
def test_the_development_pair_is_fused_as_well_as_was_asked():
    from tests.bench.pansharpen import DRIFT, development

    pair = development(DRIFT)
    joint = hsi.fit(pair.data, hsi.PanSharpen(4), seed=0)
    s = joint["endmembers"].values
    assert (pair.angles(s) <= [1.5, 8, 12, 4]).all()
    assert pair.error(hsi.reconstruct(joint).values) <= 0.045
    alone = hsi.project(joint, pair.data["spatial"]).transpose("y", "x", "component").values
    assert pair.product(alone, s) <= 0.066
