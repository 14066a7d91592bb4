"""Tests of `denoise_report`: every number against plain numpy, and estimates with and without the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import scalehsi as hsi
from scalehsi.arrays import Float
from scalehsi.metrics import denoise_report, line_windows
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes

WINDOWS = {"Ca": (3.6, 3.8), "Fe": (6.3, 6.5), "all": (0.0, 30.0)}


@pytest.fixture(scope="module")
def scene() -> Any:
    made = hsi.simulate.phases((40, 36), counts_per_pixel=200, seed=4, n_channels=400)
    return made._replace(cube=made.cube.compute(), truth=made.truth.compute())


@pytest.fixture(scope="module")
def fitted(scene: Any) -> dict[str, xr.Dataset]:
    models = {"PCA": hsi.PCA(3), "centred": hsi.PCA(2, centre=True), "PSNMF": hsi.PSNMF(3, bin_factor=4, max_iter=20)}
    return {name: hsi.fit(scene.cube, model, seed=0) for name, model in models.items()}


@pytest.fixture(scope="module")
def halved(scene: Any) -> dict[str, list[xr.Dataset]]:
    halves = hsi.prepare.thin(scene.cube, seed=7)
    models = {"PCA": hsi.PCA(3), "PSNMF": hsi.PSNMF(3, bin_factor=4, max_iter=20)}
    return {name: [hsi.fit(half, model, seed=0) for half in halves] for name, model in models.items()}


def dense(result: xr.Dataset) -> Float:
    product = np.einsum("kyx,ke->yxe", result["abundances"].values.astype(float), result["endmembers"].values)
    return product + (result["offset"].values if "offset" in result else 0.0)


def window_map(values: Any, cube: xr.DataArray, ends: tuple[float, float]) -> Float:
    axis = cube.energy.values
    return np.asarray(values, dtype=float)[..., (axis >= ends[0]) & (axis <= ends[1])].sum(axis=-1)


def test_with_the_truth_every_number_is_that_of_plain_numpy(scene: Any, fitted: dict[str, xr.Dataset]) -> None:
    table = denoise_report(scene.cube, fitted, windows=WINDOWS, truth=scene.truth)
    z = dense(scene.truth)
    assert table["method"].values.tolist() == ["raw", "PCA", "centred", "PSNMF"]
    assert set(table.data_vars) == {"correlation", "rmse", "cube_error"}
    assert table.attrs["judged_by"] == "truth"
    for name, values in {"raw": scene.cube.values, **{n: dense(r) for n, r in fitted.items()}}.items():
        here = table.sel({"method": name})
        assert_allclose(here["cube_error"], np.linalg.norm(values - z) / np.linalg.norm(z), rtol=1e-6)
        for window, ends in WINDOWS.items():
            ours, true = window_map(values, scene.cube, ends), window_map(z, scene.cube, ends)
            assert_allclose(here["correlation"].sel(window=window), np.corrcoef(ours.flat, true.flat)[0, 1], rtol=1e-7)
            rmse = np.sqrt(np.mean((ours - true) ** 2)) / true.std()
            assert_allclose(here["rmse"].sel(window=window), rmse, rtol=1e-7)


def test_without_the_truth_every_number_is_that_of_plain_numpy(scene: Any, halved: dict[str, list[xr.Dataset]]) -> None:
    table = denoise_report(scene.cube, halved, windows=WINDOWS, seed=7)
    halves = [half.values.astype(float) for half in hsi.prepare.thin(scene.cube, seed=7)]
    size = float((halves[0] * halves[1]).sum())
    assert_allclose(table["resolution"], (2 * size / 2) ** 0.25 / np.sqrt(size), rtol=1e-9)
    assert table.attrs["judged_by"] == "counts held out"
    cubes = {"raw": halves, **{name: [dense(r) for r in found] for name, found in halved.items()}}
    floor = [1e-3 * (1 + half.sum(axis=-1, keepdims=True)) / half.shape[-1] for half in halves]
    for name, (first, second) in cubes.items():
        here = table.sel({"method": name})
        errors, deviances = [], []
        for own, other, least in ((first, halves[1], floor[1]), (second, halves[0], floor[0])):
            errors.append(((other - own) ** 2).sum() - other.sum())
            m = np.maximum(own, least)
            part = np.where(other > 0, other * np.log(np.where(other > 0, other, 1) / m), 0) - other + m
            deviances.append(2 * part.sum() / other.sum())
        assert_allclose(here["cube_error"], np.sqrt(max(np.mean(errors), 0) / size), rtol=1e-5, atol=1e-7)
        assert_allclose(here["deviance"], np.mean(deviances), rtol=1e-6)
        for window, ends in WINDOWS.items():
            raw = [window_map(half, scene.cube, ends) for half in halves]
            maps = [window_map(values, scene.cube, ends) for values in (first, second)]
            common = np.cov(raw[0].ravel(), raw[1].ravel(), bias=True)[0, 1]
            ratios = [
                np.cov(m.ravel(), o.ravel(), bias=True)[0, 1] / np.sqrt(m.var() * common)
                for m, o in zip(maps, raw[::-1], strict=True)
            ]
            squares = [
                m.var() + common - 2 * np.cov(m.ravel(), o.ravel(), bias=True)[0, 1] + (m.mean() - o.mean()) ** 2
                for m, o in zip(maps, raw[::-1], strict=True)
            ]
            there = here.sel(window=window)
            assert_allclose(there["correlation"], np.mean(ratios), rtol=1e-7)
            assert_allclose(there["rmse"], np.sqrt(max(np.mean(squares), 0) / common), rtol=1e-6)
            assert_allclose(there["halves_correlation"], np.corrcoef(maps[0].flat, maps[1].flat)[0, 1], rtol=1e-7)


def test_scores_by_counts_held_out_agree_with_scores_by_the_truth(
    scene: Any, halved: dict[str, list[xr.Dataset]]
) -> None:
    guessed = denoise_report(scene.cube, halved, windows=WINDOWS, seed=7).sel(window=["Ca", "Fe"])
    half = scene.truth.assign(endmembers=scene.truth.endmembers / 2)
    kept = hsi.prepare.thin(scene.cube, seed=7)[0]
    known = denoise_report(kept, {n: r[0] for n, r in halved.items()}, windows=WINDOWS, truth=half)
    known = known.sel(window=["Ca", "Fe"])
    assert_allclose(guessed["correlation"], known["correlation"], atol=0.15)
    # Squared errors are compared, because a negative estimate of a square has a root of zero.
    apart = np.abs(guessed["cube_error"] ** 2 - known["cube_error"] ** 2)
    assert float(apart.max()) < 3 * float(guessed["resolution"]) ** 2
    for table in (guessed, known):
        assert (table["cube_error"].diff("method") < 0).all()
        assert (table["correlation"].diff("method") > 0).all()
    assert (guessed["deviance"].diff("method") < 0).all()


def test_chunks_and_laziness_change_nothing_and_the_cube_is_read_once(scene: Any, fitted: Any, halved: Any) -> None:
    lazy = {
        name: result.assign(abundances=result.abundances.chunk({"y": 17, "x": 11})) for name, result in fitted.items()
    }
    cube = scene.cube.chunk({"y": 13, "x": 36})
    with raise_if_dask_computes(1):
        found = denoise_report(cube, lazy, windows=WINDOWS, truth=scene.truth)
    xr.testing.assert_allclose(found, denoise_report(scene.cube, fitted, windows=WINDOWS, truth=scene.truth), rtol=1e-9)
    found = denoise_report(cube, halved, windows=WINDOWS, seed=7)
    xr.testing.assert_allclose(found, denoise_report(scene.cube, halved, windows=WINDOWS, seed=7), rtol=1e-9)


def test_masked_pixels_do_not_count(scene: Any, fitted: dict[str, xr.Dataset]) -> None:
    used = (scene.cube.y + scene.cube.x) % 30 != 0
    spoilt = scene.cube.where(used, 200).astype(scene.cube.dtype)
    found = denoise_report(spoilt.assign_coords(mask=used), fitted, windows=WINDOWS, truth=scene.truth)
    # Pixels that are missing in a result are left out too.
    holes = {name: r.assign(abundances=r.abundances.where(used)) for name, r in fitted.items()}
    xr.testing.assert_allclose(found, denoise_report(spoilt, holes, windows=WINDOWS, truth=scene.truth), rtol=1e-9)
    raw, z = scene.cube.values[used.values].astype(float), dense(scene.truth)[used.values]
    assert_allclose(found["cube_error"][0], np.linalg.norm(raw - z) / np.linalg.norm(z), rtol=1e-7)


def test_one_half_is_enough_and_a_flat_window_is_not_judged(scene: Any, halved: dict[str, list[xr.Dataset]]) -> None:
    both = denoise_report(scene.cube, halved, windows=WINDOWS, seed=7)
    one = denoise_report(scene.cube, {"PCA": halved["PCA"][0]}, windows={**WINDOWS, "none": (17.0, 17.1)}, seed=7)
    assert np.isnan(one["halves_correlation"].sel({"method": "PCA"})).all()
    assert np.isnan(one[["correlation", "rmse"]].sel(window="none").to_dataarray()).all()
    assert_allclose(
        one["correlation"].sel({"method": "PCA", "window": "Ca"}),
        both["correlation"].sel({"method": "PCA", "window": "Ca"}),
        atol=0.03,
    )
    assert denoise_report(scene.cube, {}, windows=WINDOWS)["method"].values.tolist() == ["raw"]


def test_windows_on_lines(scene: Any) -> None:
    found = line_windows(scene.cube)
    assert list(found) == ["Mg Ka", "Si Ka", "Al Ka", "Ca Ka", "Fe Ka", "Nd La", "Sm La", "O Ka", "Cu Ka", "U Ma"]
    assert_allclose(found["Nd La"], (5.168, 5.288), atol=2e-3)
    electronvolts = scene.cube.assign_coords(energy=("energy", scene.cube.energy.values * 1e3, {"units": "eV"}))
    assert_allclose(line_windows(electronvolts, ["Nd"])["Nd La"], np.array(found["Nd La"]) * 1e3)
    # Elements of the cube without a line on the axis are skipped.
    hard = scene.cube.sel(energy=slice(3.0, None))
    assert list(line_windows(hard)) == ["Ca Ka", "Fe Ka", "Nd La", "Sm La", "Cu Ka", "U Ma"]
    assert list(line_windows(scene.cube, ["Pt", "Nd Lb1"])) == ["Pt La", "Nd Lb1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"windows": {"far": (30.0, 40.0)}}, "'far' from 30 to 40 holds no channel; the axis runs from 0.2 to 20 keV"),
        ({"lines": ["Nd"], "windows": WINDOWS}, "lines and windows both say which windows"),
        ({"lines": ["Xx"]}, "no element is called 'Xx'"),
        ({"lines": ["Nd Kz"]}, "Nd has no line 'Kz' from 0.2 to 20 keV; did you mean"),
        ({"lines": ["H"]}, "H has no main line from 0.2 to 20 keV"),
        ({"results": {"raw": "PCA"}}, "'raw' stands for the cube itself"),
    ],
)
def test_wrong_settings_are_refused(scene: Any, fitted: Any, change: dict[str, Any], words: str) -> None:
    given = {"results": fitted, "truth": scene.truth, **change}
    results = {name: fitted[r] if isinstance(r, str) else r for name, r in given.pop("results").items()}
    with pytest.raises(InputError, match=words):
        denoise_report(scene.cube, results, **given)


def test_results_and_cubes_that_do_not_match_are_refused(scene: Any, fitted: Any, halved: Any) -> None:
    with pytest.raises(InputError, match=r"'PCA' was not fitted to the half of the counts called 'kept' of seed 0"):
        denoise_report(scene.cube, fitted, windows=WINDOWS)
    with pytest.raises(InputError, match=r"the half of the counts called 'kept' of seed 7"):
        denoise_report(scene.cube, {"PCA": halved["PCA"][::-1]}, windows=WINDOWS, seed=7)
    with pytest.raises(InputError, match="with a truth one result is judged"):
        denoise_report(scene.cube, halved, windows=WINDOWS, truth=scene.truth)
    with pytest.raises(InputError, match=r"the result 'PCA' has the sizes .* the cube .*'y': 30"):
        denoise_report(scene.cube.isel(y=slice(30)), fitted, windows=WINDOWS, truth=scene.truth.isel(y=slice(30)))
    with pytest.raises(InputError, match="the truth has no variable 'abundances'"):
        denoise_report(scene.cube, fitted, windows=WINDOWS, truth=scene.truth.drop_vars("abundances"))
    with pytest.raises(InputError, match="without a truth the counts are divided"):
        denoise_report(scene.cube.astype("f4"), halved, windows=WINDOWS, seed=7)
    plain = scene.cube.assign_attrs(elements=[])
    with pytest.raises(InputError, match=r"which windows of energy\? type lines="):
        denoise_report(plain, fitted, truth=scene.truth)
    with pytest.raises(InputError, match="lines need an energy axis in eV or keV"):
        line_windows(plain.assign_coords(energy=np.arange(400.0)), ["Fe"])
