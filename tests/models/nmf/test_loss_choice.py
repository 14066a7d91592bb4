"""``NMF(loss="auto")``: what the data and the other settings decide, and that the result remembers it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.models.nmf.setting_rules import LOSSES
from scalehsi.schema import InputError
from tests.scenes import smooth_scene

pytestmark = pytest.mark.long

POISSON, WEIGHTED, PLAIN = ("poisson", "none"), ("frobenius", "poisson"), ("frobenius", "none")


def chosen(cube: xr.DataArray, **settings: Any) -> tuple[str, str]:
    result = hsi.fit(cube, hsi.NMF(2, max_iter=2, **settings), seed=0)
    assert result.attrs["loss_reason"].startswith("loss='auto' chose ")
    assert json.loads(result.attrs["settings"])["loss"] == "auto"
    return result.attrs["loss"], result.attrs["weighting"]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("size", "channels"), [(16, 60), (24, 120)])
@pytest.mark.parametrize(("per_voxel", "loss"), [(0.05, POISSON), (1.0, POISSON), (8.0, POISSON), (300.0, WEIGHTED)])
def test_counts(per_voxel: float, loss: tuple[str, str], size: int, channels: int, seed: int) -> None:
    for kind in ("EDS", "EELS"):
        cube, _ = smooth_scene(2, counts=per_voxel * channels, seed=seed, size=size, channels=channels, kind=kind)
        assert chosen(cube) == loss
        assert chosen(cube.astype("f4")) == loss


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_values_that_are_no_counts(seed: int) -> None:
    cube, _ = smooth_scene(2, counts=400, seed=seed, size=16, channels=60)
    assert chosen(cube.astype("f4") + 0.25) == PLAIN
    assert chosen(cube.astype("i4") - 3) == PLAIN
    smoothed = cube.rolling(energy=3, center=True, min_periods=1).mean()
    assert chosen(smoothed) == PLAIN
    assert chosen(smoothed.round().astype("u2")) != POISSON
    sparse, _ = smooth_scene(2, counts=5, seed=seed, size=16, channels=60)
    assert chosen(sparse * 0.37) == WEIGHTED, "sparse values in another unit"
    assert chosen(20 * sparse.astype("u2")) == WEIGHTED, "a gain of 20"


@pytest.mark.parametrize("seed", [0, 1])
def test_grains_with_sharp_borders_do_not_look_like_a_gain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, s = smooth_scene(3, counts=400, seed=seed, channels=100)
    grains = rng.integers(0, 3, (6, 6)).repeat(4, 0).repeat(4, 1)
    cube, _ = smooth_scene(1, counts=1, size=24, channels=100)
    assert chosen(cube.copy(data=rng.poisson(s[grains]).astype("u2"))) == POISSON


@pytest.mark.parametrize(
    ("settings", "few", "many"),
    [
        ({"weighting": "poisson"}, WEIGHTED, WEIGHTED),
        ({"orthogonality": 0.1}, WEIGHTED, WEIGHTED),
        ({"smoothness": 0.1}, PLAIN, PLAIN),
        ({"spectral_smoothness": 1.0}, PLAIN, PLAIN),
        ({"solver": "hals"}, PLAIN, PLAIN),
        ({"solver": "mu"}, POISSON, POISSON),
        ({"compress": True}, WEIGHTED, WEIGHTED),
        ({"bin_factor": 2}, POISSON, POISSON),
        ({"bin_factor": 1}, POISSON, WEIGHTED),
        ({"simplex": True}, POISSON, POISSON),
        ({"missing": True}, POISSON, POISSON),
        ({"ard": "exponential"}, POISSON, WEIGHTED),
        ({"sparsity": 0.1}, POISSON, WEIGHTED),
    ],
    ids=lambda v: "-".join(map(str, v)) if isinstance(v, dict) else "",
)
def test_an_option_that_only_one_loss_allows_decides(
    settings: dict[str, Any], few: tuple[str, str], many: tuple[str, str]
) -> None:
    for counts, loss in ((100, few), (30000, many)):
        cube, _ = smooth_scene(2, counts=counts, size=12, channels=60, seed=2)
        assert chosen(cube, **settings) == loss


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="bin_factor belongs to loss='poisson'"):
        hsi.NMF(3, bin_factor=2, smoothness=0.1)
    with pytest.raises(InputError, match="known"):
        hsi.NMF(3, loss="gauss")
    assert LOSSES == ("auto", "frobenius", "poisson")
    cube, _ = smooth_scene(2, counts=100, size=12, channels=60)
    for settings in ({"bin_factor": 2}, {"weighting": "poisson"}):
        with pytest.raises(InputError, match="values are negative"):
            hsi.fit(cube.astype("f4") - 1, hsi.NMF(2, **settings))


def test_the_choice_does_not_depend_on_chunks_and_scheduler() -> None:
    cube, _ = smooth_scene(3, counts=400, size=24, channels=60)
    found = []
    for chunk in (24, 5, 7):
        with dask.config.set(scheduler="synchronous" if chunk == 5 else "threads"):
            found.append(hsi.fit(cube.chunk({"y": chunk, "x": chunk + 1}), hsi.NMF(3, max_iter=4), seed=0))
    for each in found[1:]:
        assert (each.attrs["loss"], each.attrs["weighting"]) == ("poisson", "none")
        np.testing.assert_allclose(each["abundances"], found[0]["abundances"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("counts", "explicit"), [(100, {"loss": "poisson"}), (30000, {"weighting": "poisson"})])
def test_the_numbers_are_those_of_the_explicit_loss(
    counts: float, explicit: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    cube, _ = smooth_scene(2, counts=counts, size=16, channels=60)
    with caplog.at_level(logging.INFO, logger="scalehsi"):
        auto = hsi.fit(cube, hsi.NMF(2), seed=0)
    assert auto.attrs["loss_reason"] in caplog.text
    plain = hsi.fit(cube, hsi.NMF(2, **{"loss": "frobenius", **explicit}), seed=0)
    for name in ("endmembers", "abundances", "objective", "residual"):
        np.testing.assert_array_equal(auto[name], plain[name])
    assert auto.attrs["readings"] == plain.attrs["readings"]
    assert "loss_reason" not in plain.attrs
    assert (plain.attrs["loss"], plain.attrs["weighting"]) == (auto.attrs["loss"], auto.attrs["weighting"])


@pytest.mark.parametrize("counts", [100, 30000])
def test_a_stored_result_and_a_checkpoint_remember_the_choice(counts: float, tmp_path: Path) -> None:
    cube, _ = smooth_scene(2, counts=counts, size=16, channels=60)
    whole = hsi.fit(cube, hsi.NMF(2, max_iter=12, tol=0), seed=0)
    hsi.fit(cube, hsi.NMF(2, max_iter=5, tol=0), seed=0, checkpoint=tmp_path / "ckpt")
    again = hsi.fit(cube, hsi.NMF(2, max_iter=12, tol=0), seed=0, checkpoint=tmp_path / "ckpt", resume=True)
    np.testing.assert_array_equal(again["endmembers"], whole["endmembers"])
    assert again.attrs["loss_reason"] == whole.attrs["loss_reason"]
    hsi.save(whole, tmp_path / "result.zarr")
    stored = hsi.open_result(tmp_path / "result.zarr")
    assert (stored.attrs["loss"], stored.attrs["weighting"]) == (whole.attrs["loss"], whole.attrs["weighting"])
    np.testing.assert_allclose(hsi.project(stored, cube), whole["abundances"], rtol=1e-6, atol=1e-7)


def test_the_default_gives_the_spectra_of_sparse_counts() -> None:
    cube, truth = hsi.simulate.phases((48, 48), counts_per_pixel=147, n_channels=500, seed=2)
    cube = cube.compute()
    worst = {}
    for name, model in (("auto", hsi.NMF(3)), ("plain", hsi.NMF(3, loss="frobenius"))):
        score = hsi.metrics.score(hsi.fit(cube, model, seed=0), truth)
        worst[name] = float(np.degrees(score["spectral_angle"]).max())
    assert worst["auto"] < 0.5 * worst["plain"]
