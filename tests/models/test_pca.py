"""PCA against numpy's eigenvectors and Malinowski's indicator against known ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.schema import InputError


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    return hsi.simulate.chequerboard((40, 36), n_channels=64, seed=4)[0].compute()


def weighted(cube: xr.DataArray, *, centre: bool = False, weighting: str | None = "poisson") -> np.ndarray:
    """The matrix that is decomposed, the slow way."""
    x = cube.values.reshape(-1, cube.shape[-1]).astype(np.float64)
    if weighting is None:
        return x - x.mean(axis=0) if centre else x
    row = x.mean(axis=1, keepdims=True)
    column = np.sqrt(np.maximum(x.sum(axis=0) / x.sum(axis=0).mean(), 1e-6))
    return x / np.sqrt(np.where(row > 0, row, 1)) / column


@pytest.mark.parametrize("solver", ["gram", "randomized"])
@pytest.mark.parametrize("weighting", [None, "poisson"])
def test_eigenvalues_and_subspace_are_numpys(cube: xr.DataArray, solver: str, weighting: str | None) -> None:
    result = hsi.fit(cube, hsi.PCA(4, solver=solver, weighting=weighting))
    x = weighted(cube, weighting=weighting)
    _, sigma, vt = np.linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(result["eigenvalues"][:4], sigma[:4] ** 2, rtol=2e-4)
    basis = result["endmembers"].values / result["scale"].values
    np.testing.assert_allclose(basis @ basis.T, np.eye(4), atol=1e-5)
    leading = np.abs(np.linalg.svd(basis @ vt[:4].T, compute_uv=False))
    np.testing.assert_allclose(leading, 1, atol=2e-3)


def test_centring_takes_the_mean_off(cube: xr.DataArray) -> None:
    result = hsi.fit(cube, hsi.PCA(3, centre=True, weighting=None))
    x = weighted(cube, centre=True, weighting=None)
    np.testing.assert_allclose(result["eigenvalues"][:3], np.linalg.svd(x, compute_uv=False)[:3] ** 2, rtol=1e-3)
    np.testing.assert_allclose(result["offset"], cube.mean(("y", "x")), rtol=1e-5)
    np.testing.assert_allclose(result["abundances"].mean(("y", "x")), 0, atol=1e-3)


def test_the_best_low_rank_approximation(cube: xr.DataArray) -> None:
    result = hsi.fit(cube, hsi.PCA(4, weighting=None))
    x = cube.values.reshape(-1, 64).astype(np.float64)
    u, sigma, vt = np.linalg.svd(x, full_matrices=False)
    best = ((u[:, :4] * sigma[:4]) @ vt[:4]).reshape(cube.shape)
    np.testing.assert_allclose(hsi.reconstruct(result), best, atol=1e-2)
    assert float(result["objective"][-1]) == pytest.approx((sigma[4:] ** 2).sum(), rel=1e-3)


@pytest.mark.parametrize("rank", [2, 4])
def test_malinowski_and_the_scree_point_at_the_rank(rank: int) -> None:
    cube = hsi.simulate.chequerboard((64, 64), n_components=rank, n_channels=80, counts_per_pixel=2000, seed=1)[0]
    result = hsi.fit(cube, hsi.PCA(10))
    assert int(result["rank"][int(result["malinowski_ind"].argmin("rank"))]) == rank
    values = result["eigenvalues"].values
    assert values[rank - 1] > 1.5 * values[rank]
    assert values[rank] < 1.5 * values[rank + 1]


def test_one_pass_is_enough(cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []
    fold = hsi.models.pca.map_fold
    monkeypatch.setattr("scalehsi.models.pca.map_fold", lambda *a, **k: (passes.append(k["name"]), fold(*a, **k))[1])
    hsi.fit(cube, hsi.PCA(4, solver="gram"))
    assert passes == ["pca-moments"]


def test_ratios_add_up_to_one(cube: xr.DataArray) -> None:
    result = hsi.fit(cube, hsi.PCA(3))
    assert float(result["explained_variance_ratio"].sum()) == pytest.approx(1, rel=1e-5)


def test_bad_data_are_refused(cube: xr.DataArray) -> None:
    bad = cube.astype("f4").copy()
    bad[2, 3, 4] = np.inf
    with pytest.raises(InputError, match="NaN or Inf, the first at y=2, x=3"):
        hsi.fit(bad, hsi.PCA(3))
    with pytest.raises(InputError, match="fit with weighting=None"):
        hsi.fit(-cube.astype("f4"), hsi.PCA(3))
    with pytest.raises(InputError, match="every value of the cube is zero"):
        hsi.fit(cube * 0, hsi.PCA(3))


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
@pytest.mark.parametrize("solver", ["gram", "randomized"])
@pytest.mark.parametrize(("size", "channels", "rank", "seed"), [(32, 60, 3, 0), (16, 200, 2, 1), (40, 120, 5, 2)])
def test_the_indicator_of_data_without_noise_is_lowest_at_their_rank(
    size: int, channels: int, rank: int, seed: int, solver: str, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 50, (size, size, rank)) @ rng.integers(0, 20, (rank, channels))
    data = xr.DataArray(values.astype(dtype), dims=("y", "x", "energy"), coords={"energy": np.arange(channels) * 1.0})
    for weighting in (None, "poisson"):
        result = hsi.fit(data, hsi.PCA(rank, weighting=weighting, solver=solver), seed=0)
        assert int(result["malinowski_ind"].argmin("rank")) + 1 == rank


@pytest.mark.parametrize("settings", [{}, {"weighting": None}, {"centre": True}, {"centre": True, "weighting": None}])
@pytest.mark.parametrize("value", [1, 5, 1000])
def test_the_indicator_of_constant_data_is_lowest_at_one(settings: dict[str, Any], value: int) -> None:
    data = xr.DataArray(np.full((12, 10, 40), value, "u4"), dims=("y", "x", "energy"))
    result = hsi.fit(data.assign_coords(energy=np.arange(40.0)), hsi.PCA(2, **settings), seed=0)
    indicator = result["malinowski_ind"].values[:20]
    assert (indicator == 0).all()
    assert np.isfinite(result["explained_variance_ratio"]).all()
