"""NMF against known truth, scikit-learn and its own invariants."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
import xarray as xr
from sklearn.decomposition import NMF as SklearnNMF

import scalehsi as hsi
from scalehsi.models.nmf.model import channel_weights
from scalehsi.schema import InputError
from tests.paths import DATA

pytestmark = pytest.mark.long

SETTINGS = [{"loss": "frobenius"}, {"weighting": "poisson"}, {"loss": "poisson"}]


def angles(truth: xr.Dataset, result: xr.Dataset) -> np.ndarray:
    return np.degrees(hsi.metrics.score(result, truth)["spectral_angle"].values)


def sklearn_angles(cube: xr.DataArray, truth: xr.Dataset) -> np.ndarray:
    n = truth.sizes["component"]
    x = cube.values.reshape(-1, cube.shape[-1]).astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its note on the number of iterations
        found = SklearnNMF(n, init="nndsvda", max_iter=200, tol=1e-6).fit(x).components_
    found = xr.DataArray(found, dims=("component", "energy"))
    order = hsi.metrics.match(truth["endmembers"], found)
    return np.degrees(hsi.metrics.spectral_angle(truth["endmembers"].values, found.values[order]))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_noiseless_mixtures_are_explained(settings: dict) -> None:
    rng = np.random.default_rng(0)
    s = np.exp(-((np.arange(60) - np.array([[12.0], [28.0], [45.0]])) ** 2) / 30)
    c = rng.dirichlet(np.full(3, 0.3), size=(14, 15))
    cube = hsi.make_cube(200 * c @ s, energy=np.arange(60.0), energy_units="eV")
    truth = xr.Dataset(
        {"endmembers": (("component", "energy"), s), "abundances": (("component", "y", "x"), c.T.swapaxes(1, 2))}
    )
    result = hsi.fit(cube, hsi.NMF(3, max_iter=300, tol=1e-9, **settings), seed=0)
    assert angles(truth, result).max() < 0.5
    assert hsi.metrics.score(result, truth)["map_similarity"].min() > 0.999
    assert float(result["residual"].max()) < 0.02 * 200


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_phases_in_their_own_corners_come_out_as_with_a_full_batch_reference(settings: dict) -> None:
    lazy, truth = hsi.simulate.chequerboard((64, 64), n_channels=256, seed=0)
    cube = lazy.compute()
    result = hsi.fit(cube.chunk({"y": 16, "x": 16}), hsi.NMF(4, **settings), seed=0)
    reference = sklearn_angles(cube, truth)
    assert (angles(truth, result) <= 1.3 * reference + 0.2).all(), (angles(truth, result), reference)


@pytest.mark.slow
def test_the_corners_benchmark_holds_at_full_size() -> None:
    corners = importlib.import_module("tests.bench.corners")
    found = corners.run(256, 1024)
    reference = found["scikit-learn cd, full batch"][0]
    for name in ("ours, least squares", "ours, weighted", "ours, Poisson"):
        assert (found[name][0] <= 1.3 * reference).all(), (name, found[name][0], reference)


def test_the_objective_is_that_of_the_result() -> None:
    cube = hsi.simulate.chequerboard((20, 20), n_channels=40, seed=1)[0].compute()
    x = cube.values.astype(np.float64)
    for settings in SETTINGS:
        result = hsi.fit(cube, hsi.NMF(4, tol=1e-8, **settings))
        model = hsi.reconstruct(result, dtype="f8").values
        if settings.get("loss") == "poisson":
            logs = np.where(x > 0, x * np.log(np.where(x > 0, x, 1) / np.maximum(model, 1e-300)), 0)
            value = (logs - x + model).sum()
        elif "weighting" in settings:
            mean = x.mean(axis=-1, keepdims=True)
            v = np.divide(1, mean, out=np.zeros_like(mean), where=mean > 0)
            value = 0.5 * (v * channel_weights(x.mean(axis=(0, 1))) * (x - model) ** 2).sum()
        else:
            value = 0.5 * ((x - model) ** 2).sum()
        # The maps are solved for the last spectra, the objective is that of the pass before: lower by a step at most.
        assert value == pytest.approx(float(result["objective"][-1]), rel=1e-4)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_objective_never_rises(settings: dict) -> None:
    cube = hsi.simulate.chequerboard((20, 20), n_channels=40, seed=2)[0]
    objective = hsi.fit(cube, hsi.NMF(5, max_iter=60, tol=0, **settings))["objective"].values
    assert (np.diff(objective) <= 0).all()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_factors_are_not_negative_and_scaled_as_promised(settings: dict) -> None:
    cube = hsi.simulate.chequerboard((20, 20), n_channels=40, seed=2)[0].compute()
    result = hsi.fit(cube, hsi.NMF(4, **settings))
    assert (result["endmembers"] >= 0).all()
    assert (result["abundances"] >= 0).all()
    total = float(cube.mean(("y", "x")).sum())
    np.testing.assert_allclose(result["endmembers"].sum("energy"), total, rtol=1e-6)
    assert float(result["abundances"].sum("component").mean()) == pytest.approx(1, rel=2e-2)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_unit_of_the_data_does_not_matter(settings: dict) -> None:
    cube = hsi.simulate.chequerboard((16, 16), n_channels=40, seed=2)[0].compute().astype("f8")
    one, other = (
        hsi.fit(cube, hsi.NMF(4, max_iter=10, **settings)),
        hsi.fit(cube * 64, hsi.NMF(4, max_iter=10, **settings)),
    )
    np.testing.assert_allclose(other["endmembers"], 64 * one["endmembers"], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 6), (5, 4, 1), (1, 7, 3)], ids=str)
def test_the_smallest_cubes(settings: dict, shape: tuple[int, ...]) -> None:
    values = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    cube = hsi.make_cube(values.astype("u2"), energy=np.arange(float(shape[-1])), energy_units="eV")
    result = hsi.fit(cube, hsi.NMF(1, max_iter=20, **settings))
    assert np.isfinite(result["abundances"]).all()
    assert np.isfinite(result["endmembers"]).all()
    if 1 in (shape[0] * shape[1], shape[-1]):  # rank one: exact
        np.testing.assert_allclose(hsi.reconstruct(result), values, rtol=1e-4)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_empty_pixels_and_channels_are_handled(settings: dict) -> None:
    cube = hsi.simulate.chequerboard((16, 16), n_channels=40, seed=2)[0].compute()
    cube[3:6, 2:9] = 0
    cube[..., 10:13] = 0
    result = hsi.fit(cube, hsi.NMF(4, **settings))
    assert np.isfinite(result["endmembers"]).all()
    assert (result["abundances"][:, 3:6, 2:9] == 0).all()
    assert float(result["endmembers"][:, 10:13].max()) < 1e-6 * float(result["endmembers"].max())


def test_integer_counts_do_not_overflow() -> None:
    cube = hsi.simulate.chequerboard((16, 16), n_channels=40, seed=2)[0].compute()
    bright = (cube.astype("u8") * 60).clip(max=255).astype("u1")
    for settings in SETTINGS:
        small = hsi.fit(bright, hsi.NMF(3, max_iter=6, **settings))
        wide = hsi.fit(bright.astype("f8"), hsi.NMF(3, max_iter=6, **settings))
        np.testing.assert_allclose(small["objective"], wide["objective"], rtol=1e-4)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(InputError, match="loss='poison' is not known; did you mean 'poisson'"):
        hsi.NMF(3, loss="poison")
    with pytest.raises(InputError, match="weighting='poisson' belongs to loss='frobenius'"):
        hsi.NMF(3, loss="poisson", weighting="poisson")
    with pytest.raises(InputError, match="n_components is at least 1, got 0"):
        hsi.NMF(0)
    cube = hsi.simulate.chequerboard((4, 4), n_channels=8, seed=2)[0]
    with pytest.raises(InputError, match="n_components=9 is more than the 8 channels"):
        hsi.fit(cube, hsi.NMF(9))


def test_the_mantle_minerals_come_out_within_four_degrees() -> None:
    """The demo's promise: 147 counts a pixel, Poisson likelihood; plain least squares fails there, as in the paper."""
    lazy, truth = hsi.simulate.phases(seed=0)
    cube = lazy.compute()
    result = hsi.fit(cube, hsi.NMF(3, loss="poisson"), seed=0)
    assert angles(truth, result).max() < 4.0
    plain = hsi.fit(cube[::2, ::2], hsi.NMF(3, loss="frobenius"), seed=0)
    assert angles(truth.isel(y=slice(None, None, 2), x=slice(None, None, 2)), plain).mean() > 20


@pytest.mark.skipif(not (DATA / "psnmf_dev").is_dir(), reason="the shared data are not beside this checkout")
def test_the_shared_mantle_scene_too() -> None:
    from scipy import sparse

    file = np.load(DATA / "psnmf_dev" / "medium.npz")
    counts = sparse.csr_matrix((file["data"], file["indices"], file["indptr"]), shape=file["shape"]).toarray()
    truth = np.load(DATA / "psnmf_dev" / "truth.npz")
    cube = hsi.make_cube(counts.reshape(180, 180, -1), energy=truth["energy"], energy_units="keV", pixel_size=10)
    known = xr.Dataset({"endmembers": (("component", "energy"), truth["phases"])})
    result = hsi.fit(cube, hsi.NMF(3, loss="poisson"), seed=0)
    assert angles(known, result).max() < 4.5
