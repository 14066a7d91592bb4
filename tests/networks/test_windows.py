"""Networks that see neighbours: no seam between blocks, borders, masked pixels, and torch as the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.networks.layers import NORM_EPSILON, add_shifted, offset_products
from scalehsi.networks.mtaeu import OFFSETS
from scalehsi.networks.sample import window_pixels
from tests.networks.scenes import board

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.long

SHORT: dict[str, Any] = {"pretrain": 4, "epochs": 2, "rate": 5e-3}
MODELS = {"MTAEU": hsi.MTAEU(3, **SHORT), "CNNAEU": hsi.CNNAEU(3, n_samples=20, **SHORT)}


@pytest.fixture(scope="module")
def scene() -> tuple[xr.DataArray, xr.Dataset]:
    return board()


@pytest.fixture(scope="module")
def results(scene: tuple[xr.DataArray, xr.Dataset]) -> dict[str, xr.Dataset]:
    return {name: hsi.fit(scene[0], model, seed=1) for name, model in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunks", [{"y": 7, "x": 9}, {"y": 1, "x": 32}, {"y": 2, "x": 2}], ids=str)
def test_no_seam_shows(scene: Any, results: dict[str, xr.Dataset], name: str, chunks: dict[str, int]) -> None:
    maps = hsi.project(results[name], scene[0].chunk(chunks))
    np.testing.assert_allclose(maps, results[name]["abundances"], atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_masked_neighbours_look_like_the_mean_spectrum(scene: Any, results: dict[str, xr.Dataset], name: str) -> None:
    used = np.ones((32, 32), dtype=bool)
    used[10:12, 5:9] = False
    wild = scene[0].astype("f4").copy()
    wild.values[~used] = np.nan
    mean = scene[0].astype("f8").copy()
    mean.values[~used] = results[name]["weights_scaling_centre"].values
    masked = hsi.project(results[name], wild.assign_coords(mask=(("y", "x"), used)).chunk({"y": 5}))
    filled = hsi.project(results[name], mean)
    assert masked.isnull().values[:, ~used].all()
    np.testing.assert_allclose(masked.values[:, used], filled.values[:, used], atol=1e-6)


def test_the_convolution_is_that_of_torch() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.random((2, 7, 6, 5)), rng.random((9 * 5, 4))
    ours = add_shifted(offset_products(np, x.reshape(-1, 5), w).reshape(2, 7, 6, -1), OFFSETS)
    kernel = torch.tensor(w.reshape(3, 3, 5, 4)).permute(3, 2, 0, 1)
    theirs = torch.nn.functional.conv2d(torch.tensor(x).permute(0, 3, 1, 2), kernel).permute(0, 2, 3, 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_maps_of_mtaeu_are_means_over_windows(scene: Any, results: dict[str, xr.Dataset]) -> None:
    """Every window is evaluated alone, by torch, and what it says of its nine pixels is averaged."""
    result = results["MTAEU"]
    w = {str(k)[8:]: torch.tensor(result[k].values) for k in result.data_vars if str(k).startswith("weights_")}
    counts = torch.tensor(scene[0].values.reshape(-1, 64).astype("f4"))
    x = (counts - w["scaling_centre"].float()) * w["scaling_factor"].float()
    x = torch.cat([x, torch.zeros(1, 64)])  # number -1: beyond the border
    rows = np.asarray([dy - 1 for dy, _ in OFFSETS]), np.asarray([dx - 1 for _, dx in OFFSETS])
    seen = window_pixels(np.arange(1024), (32, 32), *rows)
    functional = torch.nn.functional
    h = functional.leaky_relu(x[seen].reshape(1024, -1) @ w["hidden"] + w["hidden_bias"], 0.2)
    norm = [w[f"hidden_norm{end}"] for end in ("_mean", "_variance", "", "_shift")]
    h = functional.batch_norm(h, *norm, eps=NORM_EPSILON)
    h = functional.leaky_relu(h @ w["branches"] + w["branches_bias"], 0.2).reshape(-1, 3)
    norm = [w[f"norm{end}"] for end in ("_mean", "_variance", "", "_shift")]
    h = torch.relu(functional.batch_norm(h, *norm, eps=NORM_EPSILON) - w["threshold"])
    each = (h / (h.sum(dim=1, keepdim=True) + 1e-7)).reshape(1024, 9, 3).numpy()
    total, number = np.zeros((32, 32, 3)), np.zeros((32, 32, 1))
    for pixel in range(1024):
        for d, (dy, dx) in enumerate(OFFSETS):
            y, x_ = pixel // 32 + dy - 1, pixel % 32 + dx - 1
            if 0 <= y < 32 and 0 <= x_ < 32:
                total[y, x_] += each[pixel, d]
                number[y, x_] += 1
    np.testing.assert_allclose(result["abundances"].transpose("y", "x", "component"), total / number, atol=5e-6)


def test_windows_end_at_the_border() -> None:
    rows = np.asarray([-1, 0, 1])
    found = window_pixels(np.asarray([0, 13]), (2, 3, 4), rows, np.zeros(3, dtype=int))
    assert found.tolist() == [[-1, 0, 4], [-1, 13, 17]]  # 13 is in the first row of the second map


def test_patches_lie_inside_the_image() -> None:
    seen, wanted = hsi.CNNAEU(3).windows(np.asarray([0, 35 * 40 + 39]), (36, 40))
    assert seen.shape == (2, 22 * 22)
    assert wanted.shape == (2, 20 * 20)
    assert wanted[0, 0] == 0
    assert wanted[1, -1] == 35 * 40 + 39
    assert set(wanted[0]) <= set(seen[0])


@pytest.mark.parametrize(
    "model", [hsi.MTAEU(3, settings="paper", epochs=2), hsi.CNNAEU(3, settings="paper", epochs=1, n_samples=20)]
)
def test_the_published_settings_run(model: Any) -> None:
    cube, _ = board(16)
    found = hsi.fit(cube, model)
    assert np.isfinite(found["objective"]).all()
    np.testing.assert_allclose(found["abundances"].values.sum(axis=0), 1.0, atol=1e-4)


def test_dropout_keeps_the_mean_and_is_drawn_again_on_resume(tmp_path: Any) -> None:
    cube, _ = board(16)
    model = {"pretrain": 2, "epochs": 2}
    whole = hsi.fit(cube, hsi.MTAEU(3, **model))
    hsi.fit(cube, hsi.MTAEU(3, **model, max_iter=3), checkpoint=tmp_path / "run")
    resumed = hsi.fit(cube, hsi.MTAEU(3, **model), checkpoint=tmp_path / "run", resume=True)
    np.testing.assert_array_equal(whole["weights_hidden"], resumed["weights_hidden"])
