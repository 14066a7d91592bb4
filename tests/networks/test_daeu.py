"""DAEU: what it finds, that nothing but the data decides it, and what a stored result can do without torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.networks.layers import NORM_EPSILON
from scalehsi.networks.training import Trainer
from scalehsi.result import result_warnings
from scalehsi.schema import InputError
from tests.networks.scenes import board

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.long

SHORT: dict[str, Any] = {"pretrain": 40, "epochs": 15, "rate": 1e-2}


@pytest.fixture(scope="module")
def scene() -> tuple[xr.DataArray, xr.Dataset]:
    return board()


@pytest.fixture(scope="module")
def result(scene: tuple[xr.DataArray, xr.Dataset]) -> xr.Dataset:
    return hsi.fit(scene[0], hsi.DAEU(3, **SHORT), seed=1)


def codes(result: xr.Dataset) -> list[str]:
    return [w.code for w in result_warnings(result)]


def test_it_finds_the_phases(scene: tuple[xr.DataArray, xr.Dataset], result: xr.Dataset) -> None:
    found = hsi.metrics.score(result, scene[1])
    assert np.degrees(found["spectral_angle"].values).max() < 0.6
    maps = result["abundances"].values
    assert maps.min() >= 0
    np.testing.assert_allclose(maps.sum(axis=0), 1.0, atol=1e-4)
    assert result["held_out_loss"].values[-1] < 0.5 * result["held_out_loss"].values[0]
    assert result.attrs["status"] == "converged"
    assert not {"network_collapsed", "dead_component", "restarts_disagree"} & set(codes(result))


@pytest.mark.parametrize("chunks", [{"y": 7, "x": 9}, {"y": 1, "x": 32}], ids=str)
def test_chunks_do_not_change_a_bit_of_the_weights(scene: tuple[xr.DataArray, xr.Dataset], chunks: Any) -> None:
    model = hsi.DAEU(3, pretrain=2, epochs=2)
    whole, cut = hsi.fit(scene[0], model), hsi.fit(scene[0].chunk(chunks), model)
    for name in (str(k) for k in whole.data_vars if str(k).startswith("weights_")):
        np.testing.assert_array_equal(whole[name], cut[name], err_msg=name)
    np.testing.assert_allclose(whole["abundances"], cut["abundances"], atol=1e-6)


def test_a_sample_of_a_larger_cube_is_spread_over_it(scene: tuple[xr.DataArray, xr.Dataset]) -> None:
    model = hsi.DAEU(3, n_samples=200, **SHORT)
    found = hsi.fit(scene[0].chunk({"y": 5}), model)
    pixels = found["training_pixel"].values
    assert 150 < len(pixels) < 260  # and the neighbours of the vertices
    assert {int(p) // (32 * 8) for p in pixels} == {0, 1, 2, 3}
    assert np.degrees(hsi.metrics.score(found, scene[1])["spectral_angle"].values).max() < 1.5


def test_a_stored_result_projects_without_torch(
    tmp_path: Path, scene: tuple[xr.DataArray, xr.Dataset], result: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    hsi.save(result, tmp_path / "net.zarr")
    monkeypatch.setitem(sys.modules, "torch", None)
    stored = hsi.open_result(tmp_path / "net.zarr")
    maps = hsi.project(stored, scene[0].chunk({"y": 5, "x": 11}))
    np.testing.assert_allclose(maps, result["abundances"], atol=1e-6)
    with pytest.raises(InputError, match=r"DAEU is trained with torch .* pip install 'scalehsi\[networks\]'"):
        hsi.fit(scene[0], hsi.DAEU(3, **SHORT))


def test_inference_is_that_of_torch(scene: tuple[xr.DataArray, xr.Dataset], result: xr.Dataset) -> None:
    w = {k: torch.tensor(result[f"weights_{k}"].values) for k in _names(result)}
    x = (torch.tensor(scene[0].values.reshape(-1, 64).astype("f4")) - w["scaling_centre"].float()) * w[
        "scaling_factor"
    ].float()
    for i in range(4):
        x = torch.nn.functional.leaky_relu(x @ w[f"dense{i}"] + w[f"dense{i}_bias"], 0.1)
    norm = (w["norm_mean"], w["norm_variance"], w["norm"], w["norm_shift"])
    x = torch.relu(torch.nn.functional.batch_norm(x, *norm, eps=NORM_EPSILON) - w["threshold"])
    maps = (x / x.sum(dim=1, keepdim=True)).T.reshape(3, 32, 32)
    np.testing.assert_allclose(result["abundances"], maps, atol=2e-6)


def _names(result: xr.Dataset) -> list[str]:
    return [str(k)[8:] for k in result.data_vars if str(k).startswith("weights_")]


def test_a_truncated_or_foreign_store_is_refused(scene: tuple[xr.DataArray, xr.Dataset], result: xr.Dataset) -> None:
    with pytest.raises(InputError, match="weights_dense1 of this result is missing, of another shape or not finite"):
        hsi.project(result.drop_vars("weights_dense1"), scene[0])
    with pytest.raises(InputError, match="weights_dense1 of this result is missing, of another shape or not finite"):
        hsi.project(result.assign(weights_dense1=result["weights_dense0"]), scene[0])
    other = hsi.fit(scene[0], hsi.PCA(3)).assign_attrs(model="DAEU", settings=result.attrs["settings"])
    with pytest.raises(InputError, match="this result of DAEU has no weights of its network"):
        hsi.project(other, scene[0])


def test_training_resumes_to_the_same_weights(tmp_path: Path, scene: tuple[xr.DataArray, xr.Dataset]) -> None:
    model = {"pretrain": 3, "epochs": 4, "restarts": 2}
    whole = hsi.fit(scene[0], hsi.DAEU(3, **model))
    hsi.fit(scene[0], hsi.DAEU(3, **model, max_iter=4), checkpoint=tmp_path / "run")
    resumed = hsi.fit(scene[0], hsi.DAEU(3, **model), checkpoint=tmp_path / "run", resume=True)
    for name in (k for k in whole.data_vars if str(k).startswith("weights_")):
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=str(name))


def test_a_loss_that_is_nan_keeps_the_last_good_weights(
    scene: tuple[xr.DataArray, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = hsi.fit(scene[0], hsi.DAEU(3, pretrain=6, epochs=2, max_iter=3))
    epoch = Trainer.epoch

    def fails(self: Trainer, flat: Any, first: Any, second: Any, number: int, steps: int) -> Any:
        return epoch(self, flat * (np.nan if number == 3 else 1.0), first, second, number, steps)

    monkeypatch.setattr(Trainer, "epoch", fails)
    found = hsi.fit(scene[0], hsi.DAEU(3, pretrain=6, epochs=2))
    assert found.attrs["status"] == "nonfinite"
    assert found.sizes["iteration"] == 3
    np.testing.assert_array_equal(found["weights_dense0"], good["weights_dense0"])
    np.testing.assert_array_equal(found["endmembers"], good["endmembers"])


def test_a_result_is_refined(scene: tuple[xr.DataArray, xr.Dataset], result: xr.Dataset) -> None:
    again = hsi.fit(scene[0], hsi.DAEU(3, pretrain=0, epochs=2), start=result)
    assert again["objective"].values[0] < 1.1 * result["objective"].values[-1]
    assert json.loads(again.attrs["settings"])["start"] == "given"
    with pytest.raises(InputError, match="DAEU with the same n_components, settings and weighting is expected"):
        hsi.fit(scene[0], hsi.DAEU(4, start=result))
    with pytest.raises(InputError, match="start='given' stands for a given start"):
        hsi.fit(scene[0], hsi.DAEU(3, start="given"))


def test_training_ends_when_the_held_out_loss_stops_falling(scene: tuple[xr.DataArray, xr.Dataset]) -> None:
    model = hsi.DAEU(3, pretrain=0, epochs=60, rate=0.05, patience=3)
    found = hsi.fit(scene[0], model)
    held = found["held_out_loss"].values
    assert found.sizes["iteration"] < 60
    assert held.argmin() == len(held) - 1 - 3
    assert "held-out loss had stopped falling" in found.attrs["advice"]


def test_a_bad_start_is_said_and_restarts_are_compared(scene: tuple[xr.DataArray, xr.Dataset]) -> None:
    model = hsi.DAEU(3, start="random", pretrain=3, epochs=3, restarts=3)
    found = hsi.fit(scene[0], model, seed=3)
    assert {"network_collapsed", "restarts_disagree"} <= set(codes(found))
    said = next(w for w in result_warnings(found) if w.code == "network_collapsed")
    assert said.remedy == "start='vca', settings='default'"


def test_the_published_settings_run(scene: tuple[xr.DataArray, xr.Dataset]) -> None:
    found = hsi.fit(scene[0], hsi.DAEU(3, settings="paper", epochs=2))
    assert "weights_dense0_bias" not in found
    objective = found["objective"].values
    assert objective[-1] < objective[0]
    total = found["abundances"].values.sum(axis=0)
    assert ((total < 1e-6) | (np.abs(total - 1) < 1e-3)).all()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"settings": "public"}, "settings='public' is not known"),
        ({"start": "pca"}, "start='pca' is not known"),
        ({"batch": 0}, "batch is a whole number that is not negative, got 0"),
        ({"restarts": 0}, "restarts is a whole number of at least 1, got 0"),
        ({"rate": 0.0}, r"rate is a number above 0, got 0\.0"),
        ({"pretrain": 0, "epochs": 0}, "train at least one epoch"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        hsi.DAEU(3, **wrong)
