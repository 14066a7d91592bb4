"""Whole fits with ``device="cuda"`` against the CPU's: on a GPU where there is one, everywhere else on the stand-in."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.blocks import open_blocks
from scalehsi.fitting import binning
from scalehsi.fitting.survey import survey
from scalehsi.kernels import cuda
from scalehsi.schema import InputError
from tests.cuda_host import Host

FEW: dict[str, Any] = {"start": "random", "max_iter": 10, "tol": 0}
MODELS = [
    hsi.NMF(3, loss="poisson", bin_factor=1, **FEW),
    hsi.NMF(3, loss="poisson", bin_factor=2, **FEW),
    hsi.NMF(3, loss="frobenius", **FEW),
    hsi.NMF(3, loss="frobenius", weighting="poisson", **FEW),
]


def name(model: hsi.NMF) -> str:
    return f"{model.loss}-{model.weighting}-{model.bin_factor}"


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    lazy, _ = hsi.simulate.chequerboard((12, 10), n_channels=48, n_components=3, counts_per_pixel=200, seed=3)
    return lazy.compute()


def angles(one: xr.Dataset, other: xr.Dataset) -> np.ndarray:
    return hsi.metrics.spectral_angle(one["endmembers"].values, other["endmembers"].values)


@pytest.mark.parametrize("model", MODELS, ids=name)
def test_a_fit_on_a_gpu_is_that_on_the_cpu(device: Any, cube: xr.DataArray, model: hsi.NMF) -> None:
    want = hsi.fit(cube, model, device="cpu", seed=0)
    with dask.config.set(scheduler="synchronous"):
        got = hsi.fit(cube, model, device="cuda", seed=0)
    np.testing.assert_allclose(got["objective"], want["objective"], rtol=1e-5)
    assert np.degrees(angles(got, want)).max() < 0.1
    np.testing.assert_allclose(got["endmembers"], want["endmembers"], atol=1e-3 * float(want["endmembers"].max()))
    np.testing.assert_allclose(got["abundances"], want["abundances"], atol=2e-3)
    np.testing.assert_allclose(got["residual"], want["residual"], rtol=1e-3)
    assert isinstance(got["abundances"].values, np.ndarray)


@pytest.mark.gpu
@pytest.mark.parametrize("model", MODELS, ids=name)
def test_a_fit_of_some_size_on_a_gpu_is_that_on_the_cpu(device: Any, model: hsi.NMF) -> None:
    if isinstance(device, Host):
        pytest.skip("the stand-in takes hours for so much")
    cube = hsi.simulate.chequerboard((192, 192), n_channels=1024, n_components=3, counts_per_pixel=500, seed=3)[0]
    want, got = (hsi.fit(cube.compute(), model, device=where, seed=0) for where in ("cpu", "cuda"))
    np.testing.assert_allclose(got["objective"], want["objective"], rtol=1e-5)
    assert np.degrees(angles(got, want)).max() < 0.01


def test_auto_takes_the_gpu_for_counts(device: Any, cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[Any] = []
    real = cuda.poisson_update
    monkeypatch.setattr(cuda, "poisson_update", lambda x, **given: passes.append(x) or real(x, **given))
    with dask.config.set(scheduler="synchronous"):
        hsi.fit(cube, hsi.NMF(3, loss="poisson", bin_factor=1, max_iter=3, tol=0), device="auto", seed=0)
    assert len(passes) == 3
    # Put on the device once, and held there from pass to pass.
    assert all(isinstance(x, cuda.DeviceCounts) for x in passes)
    assert passes[0] is passes[1] is passes[2]


def test_a_dense_cube_of_counts_is_held_without_its_zeros_too(device: Any, cube: xr.DataArray) -> None:
    full = cube + 1
    full.attrs = cube.attrs
    for where, wanted in (("cpu", False), ("cuda", True)):
        view = open_blocks(full, device=where)
        with dask.config.set(scheduler="synchronous"):
            seen = survey(view, seed=0, counts=True)
            assert seen.density == 1.0
            assert binning.sparse(view, seen) is wanted


@pytest.mark.parametrize(
    "settings", [{"simplex": True}, {"ard": "exponential"}, {"sparsity": 0.1}, {"solver": "mu"}, {"n_components": 33}]
)
def test_what_the_gpu_does_not_do_is_refused(device: Any, settings: dict[str, Any]) -> None:
    model = hsi.NMF(**{"n_components": 3, "loss": "poisson", **settings})
    assert model.devices == ("cpu",)
    cube = hsi.simulate.chequerboard((8, 8), n_channels=40, n_components=3, seed=3)[0]
    with pytest.raises(InputError, match="runs on cpu, not on cuda"):
        hsi.fit(cube, model, device="cuda")
