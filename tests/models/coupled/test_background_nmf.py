"""BackgroundNMF on simulated particles with a known truth, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.kernels.extraction.successive_projection import successive_projection
from scalehsi.models.coupled.window import Window, find_window
from scalehsi.plots.digest import digest

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def scene() -> tuple[xr.DataArray, xr.Dataset]:
    cube, truth = hsi.simulate.oxide_particle((48, 48), seed=1)
    return cube.compute(), truth.compute()


@pytest.fixture(scope="module")
def result(scene: tuple[xr.DataArray, xr.Dataset]) -> xr.Dataset:
    return hsi.fit(scene[0], hsi.BackgroundNMF(3), seed=0)


def angles(truth: xr.Dataset, found: xr.Dataset) -> np.ndarray:
    """Degrees between the edges above 526 eV, in the order of the truth."""
    a, b = (each["endmembers"].sel(energy=slice(526, None)) for each in (truth, found))
    pairs = hsi.metrics.match(a, b)
    return np.array(
        [np.degrees(float(hsi.metrics.spectral_angle(a.values[i], b.values[j]))) for i, j in enumerate(pairs)]
    )


def codes(found: xr.Dataset) -> list[str]:
    return [w["code"] for w in json.loads(found.attrs["warnings"])]


@pytest.mark.parametrize(("counts", "strong", "weak"), [(2e4, 3.0, 14.0), (1e5, 1.5, 10.0), (1e6, 1.5, 5.0)])
def test_edges_and_maps_are_those_of_the_truth(counts: float, strong: float, weak: float) -> None:
    cube, truth = hsi.simulate.oxide_particle((48, 48), counts_per_pixel=counts, seed=2)
    found = hsi.fit(cube.compute(), hsi.BackgroundNMF(3), seed=0)
    degrees = angles(truth, found)
    assert degrees[:2].max() <= strong
    assert degrees[2] <= weak
    assert found.attrs["status"] == "converged"
    assert hsi.metrics.score(found, truth)["map_similarity"].min() > (0.97 if counts > 1e5 else 0.9)


def test_edges_are_zero_in_front_and_backgrounds_fall_as_power_laws(
    scene: tuple[xr.DataArray, xr.Dataset], result: xr.Dataset
) -> None:
    onset = result["endmembers"].attrs["onset_ev"]
    assert 515 < onset < 529
    assert (result["endmembers"].sel(energy=slice(None, onset - 0.5)) == 0).all()
    falling = result["background"].diff("energy")
    assert (falling < 0).all()
    assert (falling.diff("energy") > 0).all()
    assert np.all((result["exponent"] > 2.5) & (result["exponent"] < 4.6))
    assert float(result["edge_share"].min()) == pytest.approx(0.034, abs=0.01)
    whole = hsi.reconstruct(result, dtype="f8").compute()
    rest = scene[0] - whole
    np.testing.assert_allclose(result["residual"], np.sqrt((rest**2).mean("energy")), rtol=1e-4)
    assert abs(float(rest.mean())) < 1e-3 * float(whole.mean())


def test_windows_turn_the_edges_little(scene: tuple[xr.DataArray, xr.Dataset]) -> None:
    cube, truth = scene
    means = []
    for start, onset in ((490, 522), (490, 515), (505, 522), (490, 526)):
        found = hsi.fit(cube, hsi.BackgroundNMF(3, window_start=start, onset=onset), seed=0)
        means.append(angles(truth, found)[:2].mean())
    assert max(means) <= 1.5


def test_subtracting_the_background_first_is_far_worse(
    scene: tuple[xr.DataArray, xr.Dataset], result: xr.Dataset
) -> None:
    cube, truth = scene
    taken = hsi.prepare.remove_background(cube, fit=(485, 523), share=1).clip(min=0)
    other = hsi.fit(taken, hsi.NMF(3, loss="frobenius", weighting="poisson"), seed=0)
    assert angles(truth, result)[:2].mean() <= 0.2 * angles(truth, other)[:2].mean()


def test_a_free_background_belongs_to_each_pixel(scene: tuple[xr.DataArray, xr.Dataset]) -> None:
    cube, _ = scene
    found = hsi.fit(cube, hsi.BackgroundNMF(2, background="free"), seed=0)
    assert found.sizes["component"] == 4
    assert (found["endmembers"][2:] == 0).all()
    assert (found["background"][:2] == 0).all()
    np.testing.assert_allclose(found["exponent"][2:], [2.0, 4.5])
    front = found["residual_spectrum"].sel(energy=slice(None, 520))
    assert float(np.abs(front).max()) < 0.01 * float(cube.mean())


def test_chunks_schedulers_masks_and_resume(tmp_path: Path, scene: tuple[xr.DataArray, xr.Dataset]) -> None:
    cube, model = scene[0], hsi.BackgroundNMF(3)
    whole = hsi.fit(cube, model, seed=0)
    for chunks in ({"y": 7, "x": 11}, {"y": 48, "energy": 50}):
        with dask.config.set(scheduler="synchronous"):
            found = hsi.fit(cube.chunk(chunks), model, seed=0)
        largest = float(whole["background"].max())
        np.testing.assert_allclose(found["endmembers"], whole["endmembers"], rtol=1e-4, atol=2e-5 * largest)
    used = np.ones((48, 48), dtype=bool)
    used[40:] = False
    masked = hsi.fit(cube.assign_coords(mask=(("y", "x"), used)), model, seed=0)
    cut = hsi.fit(cube[:40], model, seed=0)
    np.testing.assert_allclose(masked["endmembers"], cut["endmembers"], rtol=1e-3, atol=0.3)
    short = hsi.BackgroundNMF(3, max_iter=4)
    hsi.fit(cube, short, seed=0, checkpoint=tmp_path / "run")
    resumed = hsi.fit(cube, model, seed=0, checkpoint=tmp_path / "run", resume=True)
    np.testing.assert_array_equal(resumed["endmembers"], whole["endmembers"])
    np.testing.assert_allclose(hsi.project(whole, cube), whole["abundances"], atol=1e-6)


def test_results_are_stored_reported_and_judged(tmp_path: Path, result: xr.Dataset) -> None:
    hsi.save(result, tmp_path / "r.zarr")
    again = hsi.open_result(tmp_path / "r.zarr")
    np.testing.assert_array_equal(again["background"], result["background"])
    hsi.report(again, tmp_path / "report")
    assert (tmp_path / "report" / "background.png").is_file()
    assert "Edges and their backgrounds" in (tmp_path / "report" / "index.html").read_text("utf-8")
    view = digest(result)
    np.testing.assert_allclose(view.shares.sum(), 1.0)
    assert "background_on" not in codes(result)
    assert "background_window" not in codes(result)


def test_poor_windows_and_missing_edges_are_said(scene: tuple[xr.DataArray, xr.Dataset]) -> None:
    cube, truth = scene
    far = hsi.fit(cube, hsi.BackgroundNMF(3, onset=510, max_iter=5), seed=0)
    assert "background_window" in codes(far)
    short = Window(510.0, 522.0, 529.0).warnings()
    assert "12 eV wide" in short[0].text
    rng = np.random.default_rng(0)
    mean = (truth["background"][0] * truth["abundances"].sum("component")).transpose("y", "x", "energy")
    flat = cube.copy(data=rng.poisson(mean))
    none = hsi.fit(flat.astype("u2"), hsi.BackgroundNMF(1, onset=523), seed=0)
    assert "no_edge" in codes(none)


def test_the_successive_projection_finds_the_pure_rows() -> None:
    rng = np.random.default_rng(3)
    pure = rng.random((3, 20))
    pure /= pure.sum(axis=1, keepdims=True)
    rows = np.concatenate([rng.dirichlet(np.ones(3), 100) @ pure, pure])
    assert sorted(successive_projection(rows, 3).tolist()) == [100, 101, 102]


def shaped(mean: np.ndarray, energy: np.ndarray, unit: str = "eV") -> xr.DataArray:
    values = np.tile(mean, (6, 6, 1)).astype("f4")
    return hsi.make_cube(values, energy=energy, energy_units=unit, signal="EELS")


ENERGY = np.arange(485.0, 575.0, 0.5)
LAW = 100 * (ENERGY / 500) ** -3.0
EDGE = 40 / (1 + np.exp(-(ENERGY - 530)))


@pytest.mark.parametrize(
    ("mean", "energy", "unit", "settings", "match"),
    [
        (
            LAW + EDGE,
            ENERGY,
            "eV",
            {"onset": 600.0},
            r"onset=600\.0 is outside the axis, which runs from 485",
        ),
        (LAW + EDGE, ENERGY, "eV", {"onset": 487.0}, "channels lie in front of the edge"),
        (LAW + EDGE, ENERGY, "eV", {"onset": 500.0, "window_start": 510.0}, "the window of the background is empty"),
        (EDGE + 0.01, ENERGY, "eV", {}, "the cube has no background .* use NMF"),
        (LAW + EDGE, ENERGY, "eV", {"onset": 560.0}, "another edge lies in the window of the background"),
        (LAW + EDGE, ENERGY - 490, "eV", {}, "power laws need energies above 0"),
        (LAW + EDGE, ENERGY, "1/nm", {}, "needs energies in eV or keV"),
    ],
    ids=["onset", "few", "empty", "taken off", "edge inside", "low loss", "unit"],
)
def test_refusals(mean: np.ndarray, energy: np.ndarray, unit: str, settings: dict[str, float], match: str) -> None:
    with pytest.raises(hsi.InputError, match=match):
        hsi.fit(shaped(mean, energy, unit), hsi.BackgroundNMF(1, **settings))


def test_settings_are_checked() -> None:
    for settings, match in (
        ({"background": "loose"}, "background"),
        ({"onset": -1.0}, "onset is a number that is not negative"),
        ({"background": "free", "volume": 0.1}, "volume belongs to background='tied'"),
    ):
        with pytest.raises(hsi.InputError, match=match):
            hsi.BackgroundNMF(2, **settings)


def test_the_default_window_ends_below_the_rise() -> None:
    window = find_window(ENERGY, LAW + EDGE, None, None)
    assert window.start == 485.0
    assert window.onset == pytest.approx(524.0, abs=2.5)
    assert window.warnings() == []
