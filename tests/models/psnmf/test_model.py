"""PSNMF: spectra from bins, maps from pixels; the same whatever the chunks, and as near to the truth as was asked."""

from __future__ import annotations

import importlib
import signal
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import scalehsi as hsi
from scalehsi.blocks import open_blocks
from scalehsi.fitting import binning
from scalehsi.fitting.loop import run_loop
from scalehsi.fitting.progress import Progress
from scalehsi.kernels import poisson
from scalehsi.models.psnmf import mixture_fit
from scalehsi.schema import InputError, Interrupted
from tests.helpers import random_mask

pytestmark = pytest.mark.long

QUICK = hsi.PSNMF(3, bin_factor=6, max_iter=30)
PAPER = hsi.PSNMF(3, bin_factor=6, settings="paper", max_iter=30)
MODELS = {"default": QUICK, "paper": PAPER, "totals": hsi.PSNMF(3, bin_factor=6, simplex=False, max_iter=30)}
ROUNDING = {"endmembers": 2e-4, "abundances": 2e-3}
"""Relative to the largest value. The first stage adds up in float32, and posteriors travel in it."""


@pytest.fixture(scope="module")
def scene() -> tuple[xr.DataArray, xr.Dataset]:
    cube, truth = hsi.simulate.phases((66, 60), counts_per_pixel=80, n_channels=300, seed=1)
    return cube.compute(), truth.compute()


@pytest.fixture(scope="module")
def fitted(scene: Any) -> xr.Dataset:
    return hsi.fit(scene[0], QUICK, seed=0)


def angles(truth: xr.Dataset, result: xr.Dataset, name: str = "endmembers") -> np.ndarray[Any, Any]:
    order = hsi.metrics.match(truth["endmembers"], result[name])
    return np.degrees(hsi.metrics.spectral_angle(truth["endmembers"].values, result[name].values[order]))


def assert_alike(got: xr.Dataset, want: xr.Dataset, factor: float = 1.0) -> None:
    for name, tolerance in ROUNDING.items():
        a, b = got[name].values, want[name].values
        assert_array_equal(np.isnan(a), np.isnan(b))
        assert np.nanmax(np.abs(a - b)) <= factor * tolerance * np.nanmax(np.abs(b)), name


# The same numbers.


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunks", [{"y": 11, "x": 13}, {"y": 66, "x": 7, "energy": 100}], ids=str)
def test_chunks_and_schedulers_change_nothing(scene: Any, name: str, chunks: dict[str, int]) -> None:
    want = hsi.fit(scene[0], MODELS[name], seed=0)
    with dask.config.set(scheduler="synchronous" if "energy" in chunks else "threads"):
        got = hsi.fit(scene[0].chunk(chunks), MODELS[name], seed=0)
    assert_alike(got, want)
    assert_allclose(got["residual"], want["residual"], rtol=1e-3)
    assert_array_equal(got["bin_factor"], want["bin_factor"])


@pytest.mark.parametrize("chunks", [{"y": 9, "x": 60}, {"y": 25, "x": 31}, {"y": 66, "x": 1}], ids=str)
def test_maps_do_not_show_where_chunks_meet(scene: Any, fitted: xr.Dataset, chunks: dict[str, int]) -> None:
    """Chunks narrower than what a pixel sees of its neighbours, 23 pixels, too."""
    want = hsi.project(fitted, scene[0]).values
    assert QUICK.halo == 23
    got = hsi.project(fitted, scene[0].chunk(chunks))
    assert got.chunks is not None
    assert_allclose(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_projecting_the_same_cube_gives_the_maps(scene: Any, name: str) -> None:
    result = hsi.fit(scene[0].chunk({"y": 20}), MODELS[name], seed=0)
    assert_allclose(hsi.project(result, scene[0]), result["abundances"], rtol=1e-5, atol=1e-7)


@pytest.mark.cluster
def test_a_cluster_gives_the_same(scene: Any, fitted: xr.Dataset, client: Any) -> None:
    assert_alike(hsi.fit(scene[0].chunk({"y": 20, "x": 25}), QUICK, seed=0), fitted)


def test_seeds_change_nothing_where_nothing_is_drawn(scene: Any, fitted: xr.Dataset) -> None:
    assert_alike(hsi.fit(scene[0], QUICK, seed=5), fitted)


@pytest.mark.parametrize("sides", [(7, 5), 9, (66, 1), (1, 4)], ids=str)
def test_bins_need_not_divide_the_map(scene: Any, sides: Any) -> None:
    model = hsi.PSNMF(2, bin_factor=sides, max_iter=5)
    result = hsi.fit(scene[0].chunk({"y": 10, "x": 17}), model, seed=0)
    assert_array_equal(result["bin_factor"], sides if isinstance(sides, tuple) else (sides, sides))
    assert result["abundances"].shape == (2, 66, 60)
    assert np.isfinite(result["abundances"]).all()
    assert_alike(result, hsi.fit(scene[0], model, seed=0), factor=2)


def test_a_mask_is_as_good_as_leaving_out(scene: Any) -> None:
    """Bins, spectra and neighbours know nothing of masked pixels, whatever these hold."""
    cube = scene[0]
    bad = cube.copy(deep=True)
    bad[:, 36:] = 7
    used = np.zeros(cube.shape[:2], dtype=bool)
    used[:, :36] = True
    got = hsi.fit(bad.assign_coords(mask=(("y", "x"), used)), QUICK, seed=0)
    want = hsi.fit(cube[:, :36], QUICK, seed=0)
    assert np.isnan(got["abundances"][:, :, 36:]).all()
    assert_alike(got.isel(x=slice(0, 36)), want)
    lazy = bad.chunk({"y": 30, "x": 25}).assign_coords(mask=(("y", "x"), used))
    assert_alike(hsi.fit(lazy, QUICK, seed=0), got)


def test_scattered_masked_pixels_are_left_out_of_the_maps(scene: Any) -> None:
    used = random_mask(scene[0].shape[:2], share=0.9)
    result = hsi.fit(scene[0].assign_coords(mask=(("y", "x"), used)), QUICK, seed=0)
    assert_array_equal(np.isnan(result["abundances"]), np.broadcast_to(~used, (3, *used.shape)))
    assert angles(scene[1], result).max() < 1.5 * angles(scene[1], hsi.fit(scene[0], QUICK)).max() + 0.5


def test_frames_are_no_other_case(scene: Any) -> None:
    """Bins and neighbours lie in y and x alone."""
    cube = scene[0]
    turned = cube[::-1].assign_coords(y=cube["y"])
    four = xr.concat([cube, turned], dim="time").transpose("time", ...)
    four.attrs = cube.attrs
    result = hsi.fit(four.chunk({"time": 1, "y": 33}), QUICK, seed=0)
    assert result["abundances"].dims == ("component", "time", "y", "x")
    one = hsi.project(result, cube)
    assert_allclose(result["abundances"][:, 0], one, rtol=1e-5, atol=1e-7)
    assert_allclose(result["abundances"][:, 1], hsi.project(result, turned), rtol=1e-5, atol=1e-7)
    assert_alike(result, hsi.fit(four, QUICK, seed=0))


@pytest.mark.parametrize("name", ["default", "paper"])
def test_a_fit_that_was_interrupted_goes_on_to_the_same_numbers(scene: Any, tmp_path: Path, name: str) -> None:
    settings = {"settings": "paper"} if name == "paper" else {}
    model = hsi.PSNMF(3, bin_factor="auto", max_iter=12, tol=0, **settings)
    cube = scene[0][:48, :48]

    def stop(progress: Progress) -> None:
        if progress.iteration == 4 and progress.stage == "iterate":
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="after 4 iterations"):
        hsi.fit(cube, model, checkpoint=tmp_path / "run", progress=stop)
    resumed = hsi.fit(cube, model, checkpoint=tmp_path / "run", resume=True)
    whole = hsi.fit(cube, model)
    for variable in ("endmembers", "abundances", "objective", "bin_factor"):
        assert_array_equal(resumed[variable], whole[variable])


# What is promised of a result.


def test_abundances_are_fractions(fitted: xr.Dataset) -> None:
    assert_allclose(fitted["abundances"].sum("component"), 1.0, atol=1e-6)
    assert (fitted["abundances"] >= 0).all()
    assert (fitted["endmembers"] >= 0).all()
    assert (np.diff(fitted["abundances"].mean(("y", "x"))) <= 0).all(), "components by their share"


def test_without_the_simplex_every_pixel_keeps_its_counts(scene: Any) -> None:
    """A pixel that is twice as thick has twice the abundances."""
    cube = scene[0].copy(deep=True).astype("u2")
    cube[:, 30:] *= 2
    result = hsi.fit(cube, MODELS["totals"], seed=0)
    modelled = (result["abundances"] * result["endmembers"].sum("energy")).sum("component")
    assert_allclose(modelled, cube.sum("energy"), rtol=1e-5)
    assert float(result["abundances"].sum("component").mean()) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("name", ["default", "totals", "paper"])
@pytest.mark.parametrize("lazy", [False, True])
def test_the_residual_is_that_of_the_reconstruction(scene: Any, name: str, lazy: bool) -> None:
    cube = scene[0]
    result = hsi.fit(cube.chunk({"y": 25, "x": 31}) if lazy else cube, MODELS[name], seed=0)
    left = cube.values - hsi.reconstruct(result, dtype="f8").values
    assert_allclose(result["residual"], np.sqrt((left**2).mean(axis=-1)), rtol=1e-4)
    assert_allclose(result["residual_spectrum"], left.mean(axis=(0, 1)), atol=1e-5 * float(cube.mean()))


def test_the_objective_falls(fitted: xr.Dataset, scene: Any) -> None:
    assert (np.diff(fitted["objective"]) <= 0).all()
    long = hsi.fit(scene[0], hsi.PSNMF(3, bin_factor=6, max_iter=300), seed=0)
    assert long.attrs["status"] == "converged"


def test_the_bins_that_were_used_are_in_the_result(fitted: xr.Dataset) -> None:
    assert_array_equal(fitted["bin_factor"], [6, 6])
    assert_array_equal(fitted["fine_bin_factor"], [3, 3])  # 80 counts a pixel, 400 a bin
    assert fitted.attrs["readings"] == 4  # what is in it, bins, finer bins, maps


def test_spectra_before_smoothing_are_kept_and_smoothing_can_be_off(scene: Any, fitted: xr.Dataset) -> None:
    rough = hsi.fit(scene[0], hsi.PSNMF(3, bin_factor=6, max_iter=30, smoothing=0), seed=0)
    assert "unsmoothed_endmembers" not in rough
    assert_array_equal(rough["endmembers"], fitted["unsmoothed_endmembers"])
    strong = hsi.fit(scene[0], hsi.PSNMF(3, bin_factor=6, max_iter=30, smoothing=4), seed=0)
    steps = [float(np.abs(np.diff(r["endmembers"], 2)).sum()) for r in (rough, fitted, strong)]
    assert steps[0] >= steps[1] > steps[2]
    eels = scene[0].assign_attrs(signal="EELS")
    assert "unsmoothed_endmembers" not in hsi.fit(eels, QUICK, seed=0)


def test_one_component_is_the_mean_spectrum(scene: Any) -> None:
    result = hsi.fit(scene[0], hsi.PSNMF(1, bin_factor=6, smoothing=0), seed=0)
    assert_allclose(result["abundances"], 1.0, rtol=1e-6)
    whole, found = scene[0].mean(("y", "x")), result["endmembers"][0]
    assert_allclose(found / found.sum(), whole / whole.sum(), rtol=1e-4, atol=1e-9)
    # Least squares of the bins' sums against one: the mean, but for how much these differ.
    assert float(found.sum() / whole.sum()) == pytest.approx(1.0, abs=0.01)


def test_a_large_map_begins_with_a_sample_of_its_bins(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cube, truth = scene
    want = hsi.fit(cube, hsi.PSNMF(3, bin_factor=6), seed=0)
    monkeypatch.setattr(mixture_fit, "SAMPLE_BINS", 110)  # of 440 bins
    got = hsi.fit(cube, hsi.PSNMF(3, bin_factor=6), seed=0)
    assert float(got["objective"][-1]) == pytest.approx(float(want["objective"][-1]), rel=1e-3)
    assert angles(truth, got).mean() < angles(truth, want).mean() + 0.2
    assert_alike(hsi.fit(cube.chunk({"y": 13, "x": 20}), hsi.PSNMF(3, bin_factor=6), seed=0), got, factor=5)


# The paper's recipe, and least squares.


def test_the_papers_spectra_are_those_of_the_bins_and_its_maps_those_of_the_likelihood(scene: Any) -> None:
    cube = scene[0]
    result = hsi.fit(cube, PAPER, seed=0)
    assert "unsmoothed_endmembers" not in result
    assert "fine_bin_factor" not in result
    binned = hsi.prepare.bin(cube, y=6, x=6)
    model = hsi.NMF(3, solver="hals", start="nndsvd", max_iter=30, tol=PAPER.tol)
    plain = run_loop(open_blocks(binned), model, 0).state["kept"]
    found = xr.DataArray(plain, dims=("component", "energy"))
    apart = result["endmembers"].values[hsi.metrics.match(found, result["endmembers"].drop_vars("energy"))]
    assert np.degrees(hsi.metrics.spectral_angle(plain, apart)).max() < 0.05
    s = result["endmembers"].values.astype(float)
    maps, _ = poisson.abundances(cube.values.reshape(-1, 300), s=s, simplex=True, residual=False)
    assert_allclose(np.moveaxis(result["abundances"].values, 0, -1).reshape(-1, 3), maps["abundances"], atol=1e-5)


def test_intensities_are_for_least_squares(scene: Any) -> None:
    cube = (scene[0] * 0.37).astype("f4")
    result = hsi.fit(cube.assign_attrs(signal="EELS"), hsi.PSNMF(3, bin_factor=6, loss="frobenius"), seed=0)
    assert_allclose(result["abundances"].sum("component"), 1.0, atol=1e-4)
    assert angles(scene[1], result).max() < 15
    auto = hsi.fit(cube, hsi.PSNMF(3, loss="frobenius", max_iter=5), seed=0)
    assert auto["bin_factor"].values.tolist() == [1, 1]


# What is refused.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bin_factor": 0}, r"bin_factor is 'auto', a whole number of at least 1 or two of them \(y, x\), got 0"),
        ({"bin_factor": (2, 2, 2)}, r"two of them \(y, x\), got \(2, 2, 2\)"),
        ({"bin_factor": 2.5}, "bin_factor is 'auto', a whole number"),
        ({"bin_factor": "automatic"}, "bin_factor is 'auto', a whole number"),
        ({"bin_factor": True}, "bin_factor is 'auto', a whole number"),
        ({"loss": "poison"}, "loss='poison' is not known; did you mean 'poisson'"),
        ({"settings": "papers"}, "settings='papers' is not known; did you mean 'paper'"),
        ({"simplex": 1}, "simplex is True or False, got 1"),
        ({"neighbours": -1}, "neighbours is a number that is not negative, got -1"),
        ({"neighbours": float("nan")}, "neighbours is a number that is not negative"),
        ({"concentration": 0}, "concentration is above 0"),
        ({"smoothing": 9}, r"smoothing is 'auto' or a number of peak widths from 0 \(off\) to 5, got 9"),
        ({"smoothing": "on"}, "smoothing is 'auto' or a number"),
        ({"settings": "paper", "neighbours": 2}, "settings='paper' sets neighbours itself; leave out neighbours"),
        ({"settings": "paper", "loss": "frobenius"}, "settings='paper' sets loss itself"),
        ({"n_components": 0}, "n_components is at least 1, got 0"),
        ({"max_iter": 0}, "max_iter is a whole number of at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hsi.PSNMF(**{"n_components": 3, **settings})


@pytest.mark.parametrize(
    ("change", "model", "message"),
    [
        (lambda c: c, hsi.PSNMF(3, bin_factor=61), r"bin_factor=61 is more than the 66 x 60 pixels of the map"),
        (lambda c: c, hsi.PSNMF(3, bin_factor=(67, 1)), r"bin_factor=\(67, 1\) is more than the 66 x 60 pixels"),
        (lambda c: c.astype("f4"), QUICK, r"PSNMF needs counts, .* this cube holds float32; .*astype\('uint16'\)"),
        (lambda c: c.astype("f8"), PAPER, "PSNMF needs counts, which are whole numbers"),
        (lambda c: c.astype("i2") - 1, QUICK, "values are negative, which counts never are"),
        (lambda c: c.astype("i2") - 1, hsi.PSNMF(3), "values are negative, which counts never are"),
        (lambda c: c * 0, hsi.PSNMF(3), "every value of the cube is zero"),
        (lambda c: c, hsi.PSNMF(301), "n_components=301 is more than the 300 channels"),
        (lambda c: c.assign_coords(energy=("energy", np.arange(300.0), {"units": "1"})),
         hsi.PSNMF(3, bin_factor=6, smoothing=1), "smoothing needs an energy axis in eV or keV; type smoothing=0"),
    ],
)  # fmt: skip
def test_cubes_that_do_not_fit_are_refused(scene: Any, change: Any, model: hsi.PSNMF, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hsi.fit(change(scene[0]), model)


def test_nothing_is_read_before_a_bin_is_refused(scene: Any) -> None:
    broken = scene[0].chunk({"y": 20}).copy()
    broken.data = broken.data.map_blocks(lambda block: 1 / 0, dtype="u1", meta=np.empty((0, 0, 0), "u1"))
    with pytest.raises(InputError, match="bin_factor=99"):
        hsi.fit(broken, hsi.PSNMF(3, bin_factor=99))


# Bins.


def test_fine_bins_grow_where_there_would_be_too_many() -> None:
    assert binning.mixture_sides((32, 32), 147.0, 3, (180, 180)) == (2, 2)
    assert binning.mixture_sides((32, 32), 0.1, 3, (180, 180)) == (32, 32)
    assert binning.mixture_sides((1, 12), 20.0, 3, (180, 180)) == (1, 5)
    side = binning.mixture_sides((2, 2), 1000.0, 8, (20_000, 20_000))[0]
    assert 4 * 8 * (20_000 / side) ** 2 <= binning.MIXTURE_STATE_BYTES < 4 * 8 * (20_000 / (side - 1)) ** 2


# As near to the truth as was asked.


def test_three_minerals_come_out_of_a_small_map() -> None:
    """A map of a quarter of the paper's, where pixels alone fail; by the time of a test, not the thresholds."""
    cube, truth = hsi.simulate.phases((90, 90), counts_per_pixel=147, seed=2, grain_scale=0.8)
    result = hsi.fit(cube.compute(), hsi.PSNMF(3), seed=0)
    found = angles(truth, result)
    assert found.max() < 3.0, found
    assert found.mean() < 1.3, found
    raw = angles(truth, result, "unsmoothed_endmembers")
    assert found.mean() < raw.mean() < 2.0
    errors = hsi.metrics.score(result, truth.compute())["map_similarity"]
    assert float(errors.min()) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("dose", [147, 18])
def test_the_asked_for_angles_and_maps_hold_on_a_scene(dose: int) -> None:
    scenes = importlib.import_module("tests.bench.psnmf_scenes")
    asked = {
        147: {"mean": 0.65, "each": (0.35, 0.8, 1.3), "raw": 0.9,
              "maps": (0.0018, 0.0015, 0.0004), "nd": 0.99, "cube": 0.027},
        18: {"mean": 1.8, "each": (0.75, 3.2, 3.2), "raw": 2.6,
             "maps": (0.007, 0.006, 0.0015), "nd": 0.97, "cube": 0.055},
    }[dose]  # fmt: skip
    scene = scenes.developers(dose) or scenes.simulated(1, dose)
    result = hsi.fit(scene.cube, hsi.PSNMF(3), seed=0)
    found, order = scenes.angles(scene.spectra, result["endmembers"].values)
    raw, _ = scenes.angles(scene.spectra, result["unsmoothed_endmembers"].values)
    assert found.mean() <= asked["mean"]
    assert (found <= asked["each"]).all(), found
    assert raw.mean() <= asked["raw"]
    maps = np.moveaxis(result["abundances"].values, 0, -1).reshape(-1, 3)[:, order].astype(float)
    spectra = result["endmembers"].values[order]
    assert (scenes.map_errors(scene, maps) <= asked["maps"]).all()
    assert scenes.line_correlation(scene, maps, spectra) >= asked["nd"]
    assert scenes.cube_error(scene, maps, spectra) <= asked["cube"]
    basic = hsi.fit(scene.cube, hsi.PSNMF(3, settings="paper", bin_factor={147: 12, 18: 15}[dose]), seed=0)
    assert scenes.angles(scene.spectra, basic["endmembers"].values)[0].mean() <= {147: 1.4, 18: 4.2}[dose]
