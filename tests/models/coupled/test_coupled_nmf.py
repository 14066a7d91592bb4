"""CoupledNMF on simulated signals with a known truth: better than either alone, and the same for any way to compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.models.coupled.coupled_nmf import CoupledNMF

pytestmark = pytest.mark.long

Cubes = dict[str, xr.DataArray]


@pytest.fixture(scope="module")
def scene() -> tuple[Cubes, xr.Dataset]:
    found = hsi.simulate.coupled((32, 32), seed=1)
    return {name: cube.compute() for name, cube in found.cubes.items()}, found.truth.compute()


@pytest.fixture(scope="module")
def result(scene: tuple[Cubes, xr.Dataset]) -> xr.Dataset:
    return hsi.fit(scene[0], CoupledNMF(3), seed=0)


def degrees(truth: xr.Dataset, found: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Angles of EELS and EDX, in the order of the truth."""
    pairs = hsi.metrics.match(truth["endmembers"], found["endmembers"])
    both = []
    for name in ("endmembers_eels", "endmembers"):
        a, b = truth[name].values, found[name].values
        both.append(np.degrees([float(hsi.metrics.spectral_angle(a[i], b[j])) for i, j in enumerate(pairs)]))
    return both[0], both[1]


def codes(found: xr.Dataset) -> list[str]:
    return [w["code"] for w in json.loads(found.attrs["warnings"])]


def test_eels_gets_the_rotation_of_edx_and_edx_the_maps_of_eels(
    scene: tuple[Cubes, xr.Dataset], result: xr.Dataset
) -> None:
    cubes, truth = scene
    eels, edx = degrees(truth, result)
    alone = hsi.fit(cubes["eels"], hsi.NMF(3, loss="frobenius"), seed=0)
    pairs = hsi.metrics.match(truth["endmembers_eels"].rename(energy_eels="energy"), alone["endmembers"])
    a, b = truth["endmembers_eels"].values, alone["endmembers"].values
    single = np.degrees([float(hsi.metrics.spectral_angle(a[i], b[j])) for i, j in enumerate(pairs)])
    assert eels.mean() <= 1.0
    assert eels.mean() <= 0.5 * single.mean()
    assert edx.mean() <= 5.0
    assert hsi.metrics.score(result, truth)["map_similarity"].min() > 0.99
    assert result.attrs["status"] == "converged"
    assert codes(result) == []
    # The noise is that of the edges and of the flat background that was taken off.
    assert float(result["noise_variance"].sel(signal="eels")) == pytest.approx(320, rel=0.05)
    assert float(result["curvature_share"].sum()) == pytest.approx(1.0)
    model = (result["abundances"] * result["endmembers_eels"]).sum("component").transpose("y", "x", "energy_eels")
    rest = cubes["eels"].values - model.values
    np.testing.assert_allclose(result["residual_eels"], np.sqrt((rest**2).mean(axis=-1)), rtol=1e-4)


def test_each_iteration_reads_each_signal_once(
    tmp_path: Path, scene: tuple[Cubes, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scalehsi.blocks import opening
    from scalehsi.blocks.view import Blocks
    from scalehsi.fitting import fit as engine

    for name, cube in scene[0].items():
        hsi.save(cube, tmp_path / f"{name}.zarr")
    cubes = {name: hsi.open_cube(tmp_path / f"{name}.zarr") for name in scene[0]}
    views: list[Blocks] = []
    plain = opening.open_blocks

    def streamed(cube: Any, **how: Any) -> Blocks:
        views.append(plain(cube, **{**how, "resident": False}))
        return views[-1]

    monkeypatch.setattr(engine, "open_blocks", streamed)
    counts = []
    for iterations in (2, 5):
        views.clear()
        hsi.fit(cubes, CoupledNMF(3, max_iter=iterations, bin_factor=1, shift=None), seed=0)
        assert [cube.sizes["energy"] for cube in views[0].cuts.cubes] == [496, 125]
        counts.append([view.reads for view in views])
    # Three iterations more: three readings of both side by side, and none of either alone.
    assert [b - a for a, b in zip(*counts, strict=True)] == [3, 0, 0]


def test_chunks_schedulers_and_resume_give_the_same_numbers(
    tmp_path: Path, scene: tuple[Cubes, xr.Dataset], result: xr.Dataset
) -> None:
    cubes, model = scene[0], CoupledNMF(3, shift=None)
    whole = hsi.fit(cubes, model, seed=0)
    np.testing.assert_array_equal(whole["endmembers"], result["endmembers"])
    for chunks in (({"y": 7, "x": 11}, {"y": 7, "x": 11}), ({"y": 32, "energy": 50}, {"y": 5, "x": 32})):
        with dask.config.set(scheduler="synchronous"):
            parts = {name: cube.chunk(c) for (name, cube), c in zip(cubes.items(), chunks, strict=True)}
            found = hsi.fit(parts, model, seed=0)
        for name in ("endmembers", "endmembers_eels", "abundances"):
            largest = float(abs(whole[name]).max())
            np.testing.assert_allclose(found[name], whole[name], rtol=1e-4, atol=1e-5 * largest)
    short = CoupledNMF(3, max_iter=4, shift=None)
    hsi.fit(cubes, short, seed=0, checkpoint=tmp_path / "run")
    resumed = hsi.fit(cubes, model, seed=0, checkpoint=tmp_path / "run", resume=True)
    np.testing.assert_array_equal(resumed["endmembers_eels"], whole["endmembers_eels"])
    other = {**cubes, "eels": cubes["eels"] + 1}
    with pytest.raises(hsi.InputError, match="of other data: shape and dtype of the eels are the same"):
        hsi.fit(other, model, seed=0, checkpoint=tmp_path / "run", resume=True)


def test_pixels_that_one_signal_lacks_cost_their_counts_alone(scene: tuple[Cubes, xr.Dataset]) -> None:
    cubes, truth = scene
    rng = np.random.default_rng(0)
    edx_there, eels_there = rng.random((32, 32)) > 0.3, np.ones((32, 32), dtype=bool)
    eels_there[3:6, :9] = False
    holes = cubes["eels"].where(xr.DataArray(eels_there, dims=("y", "x")))
    spoilt = cubes["edx"].copy(data=np.where(edx_there[..., None], cubes["edx"].values, 200).astype("u1"))
    given = {"eels": holes, "edx": spoilt.assign_coords(mask=(("y", "x"), edx_there))}
    found = hsi.fit(given, CoupledNMF(3, shift=None), seed=0)
    eels, edx = degrees(truth, found)
    assert eels.mean() <= 1.2
    assert edx.mean() <= 6.0
    neither = ~edx_there & ~eels_there
    assert neither.any()
    np.testing.assert_array_equal(np.isnan(found["abundances"][0]), neither)
    np.testing.assert_array_equal(np.isnan(found["residual"]), ~edx_there)
    np.testing.assert_array_equal(np.isnan(found["residual_eels"]), ~eels_there)
    masked = {**given, "eels": cubes["eels"].assign_coords(mask=(("y", "x"), eels_there))}
    same = hsi.fit(masked, CoupledNMF(3, shift=None), seed=0)
    np.testing.assert_allclose(same["endmembers_eels"], found["endmembers_eels"], rtol=1e-9)


def test_two_gaussian_signals_and_a_weight_of_nearly_nothing(scene: tuple[Cubes, xr.Dataset]) -> None:
    cubes, truth = scene
    pair = {"eels": cubes["eels"], "edx": cubes["edx"].astype("f4")}
    found = hsi.fit(pair, CoupledNMF(3, loss={"edx": "gaussian"}, reference="edx", bin_factor=4, shift=None), seed=0)
    eels, _ = degrees(truth, found)
    assert eels.mean() <= 2.0
    drowned = CoupledNMF(3, weights={"edx": 1e-9}, reference="eels", bin_factor=1, max_iter=300, tol=1e-10, shift=None)
    single = hsi.fit(cubes, drowned, seed=0)
    assert "one_signal" in codes(single)
    alone = hsi.fit(
        cubes["eels"], hsi.NMF(3, loss="frobenius", start=single["endmembers"].values, max_iter=300, tol=1e-10), seed=0
    )
    x, norm = cubes["eels"].values.reshape(-1, 125), float((cubes["eels"].values.astype("f8") ** 2).sum())
    losses = []
    for each in (single, alone):
        s, c = each["endmembers"].values, each["abundances"].values.reshape(3, -1).T
        losses.append(float(((x - c @ s) ** 2).sum()) / norm)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_maps_that_deviate_are_said_and_followed() -> None:
    moved = hsi.simulate.coupled((32, 32), counts_eels=2e5, counts_edx=250, deviation=0.3, seed=0)
    cubes, truth = {name: cube.compute() for name, cube in moved.cubes.items()}, moved.truth.compute()
    hard, soft = (hsi.fit(cubes, CoupledNMF(3, deviation=tau, shift=None, max_iter=80), seed=0) for tau in (None, 0.1))
    assert "maps_differ" in codes(hard)
    assert "maps_differ" not in codes(soft)
    assert _map_error(truth, soft) <= 0.95 * _map_error(truth, hard)
    assert soft["deviation_eels"].dims == ("component", "y", "x")
    whole = soft["abundances"] + soft["deviation_eels"]
    assert float(whole.min()) >= -1e-6


def _map_error(truth: xr.Dataset, found: xr.Dataset) -> float:
    pairs = np.asarray(hsi.metrics.match(truth["endmembers"], found["endmembers"]))
    a, b = truth["abundances"].values, found["abundances"].values[pairs]
    scale = (a * b).sum(axis=(1, 2)) / (b**2).sum(axis=(1, 2))
    return float(np.sqrt(((a - b * scale[:, None, None]) ** 2).sum() / (a**2).sum()))


def test_tilt_series_by_contrast_with_known_edx() -> None:
    series = hsi.simulate.coupled(tilts=41, counts_eels=2e5, counts_edx=2e4, seed=0)
    cubes, truth = series.cubes, series.truth.compute()
    plain = hsi.fit(cubes, CoupledNMF(2), seed=0)
    assert "no_pure_pixel" in codes(plain)
    known = {"edx": truth["endmembers"].drop_vars("component")}
    found = hsi.fit(cubes, CoupledNMF(2, deviation="contrast", fixed=known), seed=0)
    assert "no_pure_pixel" not in codes(found)
    assert float(found["contrast"].sel(signal="eels")) == pytest.approx(0.6, abs=0.08)
    assert degrees(truth, found)[0].max() <= 6.0
    np.testing.assert_allclose(found["endmembers"], truth["endmembers"], rtol=1e-9)
    without = CoupledNMF(2, zeros={"edx": {1: ["Ni"]}})
    less = hsi.fit(cubes, without, seed=0)
    around = np.abs(less["energy"].values - 7.472) < 0.05
    assert (less["endmembers"].values[1, around] == 0).all()
    assert (less["endmembers"].values[0, around] > 0).any()


def test_finer_pixels_whole_shifts_and_the_shift_that_is_found() -> None:
    fine = hsi.simulate.coupled((24, 24), ratio=2, seed=2)
    found = hsi.fit({n: c.compute() for n, c in fine.cubes.items()}, CoupledNMF(3), seed=0)
    assert found["abundances"].shape == (3, 24, 24)
    assert found["abundances_eels"].shape == (3, 48, 48)
    pairs = np.asarray(hsi.metrics.match(fine.truth["endmembers"], found["endmembers"]))
    error = found["abundances_eels"].values[pairs] - fine.truth["abundances_eels"].values
    assert float(np.sqrt((error**2).sum() / (fine.truth["abundances_eels"].values ** 2).sum())) <= 0.1
    assert "sources" in found.attrs
    moved = hsi.simulate.coupled((32, 32), shift=(3, 0), seed=0)
    cubes = {n: c.compute() for n, c in moved.cubes.items()}
    first = hsi.fit(cubes, CoupledNMF(3, max_iter=15), seed=0)
    at = first["registration_shift"].sel(signal="edx") - first["registration_shift"].sel(signal="eels")
    np.testing.assert_allclose(at, [3, 0], atol=0.5)
    (said,) = [w for w in json.loads(first.attrs["warnings"]) if w["code"] == "signals_shifted"]
    assert "shift={'eels': (-3, 0)}" in said["remedy"]
    second = hsi.fit(cubes, CoupledNMF(3, shift={"eels": (-3, 0)}), seed=0)
    assert second["abundances"].shape == (3, 29, 32)
    assert degrees(moved.truth, second)[0].mean() < degrees(moved.truth, first)[0].mean()


def test_results_are_stored_projected_and_described(tmp_path: Path, result: xr.Dataset, scene: Any) -> None:
    hsi.save(result, tmp_path / "r.zarr")
    again = hsi.open_result(tmp_path / "r.zarr")
    np.testing.assert_array_equal(again["endmembers_eels"], result["endmembers_eels"])
    maps = hsi.project(again, scene[0]["edx"])
    assert "edx is solved alone" in maps.attrs["difference"]
    assert float(abs(maps - result["abundances"]).mean()) < 0.3
    with pytest.raises(hsi.InputError, match="the energy axis of the result has 496 channels"):
        hsi.project(again, scene[0]["eels"])
    assert hsi.reconstruct(again).shape == scene[0]["edx"].shape


def flat(shape: tuple[int, int] = (8, 8), channels: int = 10, dtype: str = "u1", value: float = 3) -> xr.DataArray:
    data = np.full((*shape, channels), value).astype(dtype)
    return hsi.make_cube(data, energy=np.arange(1.0, channels + 1), energy_units="keV", pixel_units="px")


@pytest.mark.parametrize(
    ("data", "settings", "match"),
    [
        (flat(), {}, "takes two or more signals by name, got one cube"),
        ({"a": flat()}, {}, "takes two or more signals, got 'a'"),
        ({"a": flat(), "b": flat((6, 8))}, {}, "a ratio of 1.333, 1; crop them"),
        ({"a": flat(), "b": flat(dtype="i2", value=-1)}, {}, "'b' has 640 negative values, .* loss={'b': 'gaussian'}"),
        ({"a": flat(), "b": flat(value=0)}, {}, "'b': every value of the cube is zero"),
        (
            {"a": flat((2, 8), value=2), "b": flat(channels=40)[:2]},
            {"n_components": 4},
            "'a' has 320 counts in all, 400",
        ),
        ({"a": flat(), "b": flat(channels=2)}, {"n_components": 3}, "more than the 2 channels of 'b'"),
        ({"a": flat(), "b": flat()}, {"reference": "c"}, "reference names no signal 'c'"),
        ({"a": flat(), "b": flat()}, {"deviation": "contrast"}, "deviation='contrast' is of Gaussian signals, and 'b'"),
        ({"a": flat(), "b": flat()}, {"shift": {"b": (8, 0)}}, "leaves no pixel that all signals share"),
        ({"a b": flat(), "b": flat()}, {}, "a signal's name is a word"),
    ],
)
def test_refusals(data: Any, settings: dict[str, Any], match: str) -> None:
    with pytest.raises(hsi.InputError, match=match):
        hsi.fit(data, CoupledNMF(**{"n_components": 1, **settings}))


def test_masks_that_share_no_pixel_are_refused() -> None:
    left = np.zeros((8, 8), dtype=bool)
    left[:, :4] = True
    cubes = {"a": flat().assign_coords(mask=(("y", "x"), left)), "b": flat().assign_coords(mask=(("y", "x"), ~left))}
    with pytest.raises(hsi.InputError, match="the masks of 'a' and 'b' leave no pixel with two signals"):
        hsi.fit(cubes, CoupledNMF(1))


def test_settings_are_checked() -> None:
    for settings, match in (
        ({"deviation": 0.0}, "deviation is None, a number above 0 or 'contrast'"),
        ({"weights": {"a": -1}}, r"weights\['a'\] is a number above 0"),
        ({"loss": {"a": "poison"}}, "is not known; .*poisson"),
        ({"zeros": {"a": {3: ["Ni"]}}}, "has the component 3; they run from 0 to 1"),
        ({"shift": (1, 0)}, "shift is 'auto', None or whole pixels"),
    ):
        with pytest.raises(hsi.InputError, match=match):
            CoupledNMF(2, **settings)
