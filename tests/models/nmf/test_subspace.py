"""A fit in a subspace: fewer readings, the same answer, and a check that notices when it is not the same."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.blocks import open_blocks
from scalehsi.kernels.subspace import projection


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    lazy, _ = hsi.simulate.chequerboard((40, 40), n_channels=160, counts_per_pixel=5000, background=0.5, seed=2)
    return lazy.compute()


def fit(cube: xr.DataArray, **settings: Any) -> xr.Dataset:
    return hsi.fit(cube, hsi.NMF(4, loss="frobenius", max_iter=200, **settings), seed=0)


def exact(result: xr.Dataset, cube: xr.DataArray) -> float:
    model = np.einsum("kyx,ke->yxe", result["abundances"].values, result["endmembers"].values)
    return float(0.5 * ((cube.values - model) ** 2).sum())


@pytest.mark.parametrize("settings", [{}, {"weighting": "poisson"}, {"simplex": True}], ids=str)
def test_the_answer_is_that_of_the_full_fit(cube: xr.DataArray, settings: dict[str, Any]) -> None:
    full, small = fit(cube, compress=False, **settings), fit(cube, compress=True, **settings)
    assert small.attrs["status"] == "converged"
    if not settings.get("weighting"):
        assert exact(small, cube) <= exact(full, cube) * (1 + 1e-3)
    angles = hsi.metrics.spectral_angle(
        full["endmembers"].values,
        small["endmembers"].values[np.asarray(hsi.metrics.match(full["endmembers"], small["endmembers"]))],
    )
    assert np.rad2deg(angles).max() < 2.5


def test_a_cube_that_does_not_fit_is_read_four_times(cube: xr.DataArray) -> None:
    lazy = cube.chunk({"y": 8})
    with mock.patch(
        "scalehsi.fitting.fit.open_blocks", lambda cube, **how: open_blocks(cube, **{**how, "resident": False})
    ):
        small, full = fit(lazy), fit(lazy, compress=False)
    assert small.attrs["readings"] == 4
    assert full.attrs["readings"] == full.sizes["iteration"] + 2
    resident = fit(lazy)
    assert resident.attrs["readings"] == 1
    # Channels that hold 1 % of the largest one are uncertain by more than 1 % of themselves.
    largest = float(full["endmembers"].max())
    np.testing.assert_allclose(resident["endmembers"], full["endmembers"], rtol=1e-2, atol=1e-4 * largest)


def test_a_subspace_that_misses_the_signal_is_noticed(cube: xr.DataArray) -> None:
    def poor(sample: Any, size: int, **_: Any) -> tuple[np.ndarray, float]:
        rng = np.random.default_rng(0)
        return np.linalg.qr(rng.standard_normal((sample.shape[1], 5)))[0], 0.5

    with mock.patch.object(projection, "leading_directions", poor):
        small = fit(cube, compress=True)
    full = fit(cube, compress=False)
    assert exact(small, cube) <= exact(full, cube) * (1 + 1e-3)
    # Steps on the cube itself followed the check.
    assert small.sizes["iteration"] > 10


def test_the_basis_holds_the_sample() -> None:
    rng = np.random.default_rng(0)
    sample = rng.random((50, 4)) @ rng.random((4, 30))
    basis, share = projection.leading_directions(sample, 6)
    assert basis.shape == (30, 4)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(projection.compress(sample, basis=basis) @ basis.T, sample, rtol=1e-5)
    assert share == pytest.approx(1.0)
    w = rng.random(30)
    weighted = projection.compress(sample, basis=np.eye(30), w=w, weigh_pixels=True)
    np.testing.assert_allclose(weighted, sample * np.sqrt(w / sample.mean(axis=1, keepdims=True)), rtol=1e-5)
