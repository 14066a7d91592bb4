"""`project` of the fitted cube gives the maps of the fit, for every setting of every model, or says that it cannot."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from tests.scenes import smooth_scene

pytestmark = pytest.mark.long

LS: dict[str, Any] = {"loss": "frobenius"}
KL: dict[str, Any] = {"loss": "poisson"}
SETTINGS: list[dict[str, Any]] = [
    {},
    LS,
    {**LS, "weighting": "poisson"},
    {**LS, "simplex": True},
    {**LS, "sparsity": 0.02},
    {**LS, "weighting": "poisson", "sparsity": 0.02},
    {**LS, "orthogonality": 0.1},
    {**LS, "weighting": "poisson", "orthogonality": 0.1},
    {**LS, "ard": "exponential"},
    {**LS, "ard": "half-normal"},
    {**LS, "ard": "exponential", "orthogonality": 0.05, "weighting": "poisson"},
    {**LS, "spectral_smoothness": 1.0},
    {**LS, "compress": True},
    {**LS, "missing": True},
    *({**LS, "solver": name} for name in ("als", "mals", "hals", "mu")),
    {**LS, "start": "vca"},
    KL,
    {**KL, "bin_factor": 1},
    {**KL, "bin_factor": 3},
    {**KL, "simplex": True},
    {**KL, "simplex": True, "bin_factor": 2},
    {**KL, "sparsity": 0.2},
    {**KL, "sparsity": 0.2, "bin_factor": 2},
    {**KL, "ard": "exponential"},
    {**KL, "ard": "exponential", "bin_factor": 2},
    {**KL, "ard": "half-normal", "bin_factor": 2},
    {**KL, "missing": True},
    {**KL, "missing": True, "simplex": True},
    {**KL, "solver": "mu"},
]
OTHERS = [
    hsi.PCA(3),
    hsi.PCA(3, weighting=None, centre=True),
    hsi.PCA(3, solver="randomized"),
    hsi.PSNMF(3, bin_factor=2, max_iter=10),
    hsi.PSNMF(3, bin_factor=2, max_iter=10, simplex=False),
    hsi.PSNMF(3, bin_factor=2, max_iter=10, neighbours=0),
    hsi.PSNMF(3, bin_factor=2, settings="paper", max_iter=10),
    hsi.PSNMF(3, bin_factor=2, loss="frobenius", max_iter=10),
]
MODELS = [hsi.NMF(3, max_iter=10, **settings) for settings in SETTINGS] + OTHERS


def words(model: Any) -> str:
    return f"{model.name}-" + "-".join(f"{k}={v}" for k, v in model.to_settings().items() if v not in (None, False, 0))


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    cube, _ = smooth_scene(3, counts=300, size=15, channels=50, seed=4)
    mask = np.ones((15, 15), dtype=bool)
    mask[2, 3] = mask[10, :4] = False
    return cube.assign_coords(mask=(("y", "x"), mask))


def with_gaps(cube: xr.DataArray) -> xr.DataArray:
    gaps = np.random.default_rng(0).random(cube.shape) < 0.2
    return cube.astype("f4").where(~xr.DataArray(gaps, dims=cube.dims))


def assert_same(maps: xr.DataArray, own: xr.DataArray) -> None:
    assert maps.dims == own.dims
    np.testing.assert_array_equal(np.isnan(maps), np.isnan(own))
    np.testing.assert_allclose(maps, own, rtol=1e-5, atol=1e-5 * float(abs(own).max()))


@pytest.mark.parametrize("model", MODELS, ids=[f"{i}-{m.name}" for i, m in enumerate(MODELS)])
def test_the_projected_maps_are_those_of_the_fit(model: Any, cube: xr.DataArray, tmp_path: Path) -> None:
    data = with_gaps(cube) if getattr(model, "missing", False) else cube
    result = hsi.fit(data, model, seed=0)
    assert_same(hsi.project(result, data), result["abundances"])
    hsi.save(result, tmp_path / "result.zarr")
    stored = hsi.open_result(tmp_path / "result.zarr")
    assert_same(hsi.project(stored, data.chunk({"y": 4, "x": 7})), result["abundances"])


def test_fixed_spectra_project_to_the_same_maps(cube: xr.DataArray) -> None:
    first = hsi.fit(cube, hsi.NMF(3, max_iter=10), seed=0)
    known = first["endmembers"].isel(component=[1])
    for settings in (LS, KL):
        result = hsi.fit(cube, hsi.NMF(3, max_iter=10, fixed={"endmembers": known}, **settings), seed=0)
        assert_same(hsi.project(result, cube), result["abundances"])


@pytest.mark.parametrize("kind", ["quadratic", "tv"])
def test_smoothed_maps_cannot_be_projected_and_it_is_said(
    kind: str, cube: xr.DataArray, caplog: pytest.LogCaptureFixture
) -> None:
    smooth = {"smoothness": 1.0, "smoothness_kind": kind}
    result = hsi.fit(cube, hsi.NMF(3, max_iter=20, loss="frobenius", **smooth), seed=0)
    maps = hsi.project(result, cube)
    assert "smoothness=1.0" in maps.attrs["difference"]
    assert maps.attrs["difference"] in caplog.text
    assert float(abs(maps - result["abundances"]).max()) > 1e-3
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="scalehsi"):
        assert "difference" not in hsi.project(hsi.fit(cube, hsi.NMF(3, max_iter=3), seed=0), cube).attrs
    assert not caplog.text


def test_fixed_maps_belong_to_their_cube_and_it_is_said(cube: xr.DataArray) -> None:
    first = hsi.fit(cube, hsi.NMF(3, max_iter=10), seed=0)
    known = first["abundances"].isel(component=[0]).fillna(0)
    result = hsi.fit(cube, hsi.NMF(3, max_iter=10, fixed={"abundances": known}), seed=0)
    assert "fixed" in hsi.project(result, cube).attrs["difference"]


def test_pansharpened_maps_belong_to_their_pair_and_it_is_said() -> None:
    pair = hsi.simulate.acquisitions((24, 24), footprint=6, seed=1)
    result = hsi.fit(pair.cubes, hsi.PanSharpen(3, max_iter=20), seed=0)
    assert "spectral cube" in hsi.project(result, pair.cubes["spatial"]).attrs["difference"]
