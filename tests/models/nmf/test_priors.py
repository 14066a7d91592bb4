"""Prior knowledge in NMF: simplex, sparsity, smoothness, fixed endmembers, missing voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import scalehsi as hsi
from scalehsi.arrays import Float
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.scenes import diode

pytestmark = pytest.mark.long


def mixture(seed: int = 0, *, size: int = 16, channels: int = 30) -> tuple[xr.DataArray, Float, Float]:
    """A small float cube, its endmembers (K, E) and abundances (y, x, K) that sum to one."""
    rng = np.random.default_rng(seed)
    s = 10 * rng.random((3, channels)) ** 3
    c = rng.dirichlet([0.6] * 3, size=(size, size))
    x = np.maximum(c @ s + 0.05 * rng.standard_normal((size, size, channels)), 0.0)
    return make_cube(x, energy=np.arange(channels) * 1.0, energy_units="eV"), s, c


def angles(result: xr.Dataset, truth: xr.Dataset) -> Float:
    return np.rad2deg(hsi.metrics.score(result, truth)["spectral_angle"].values)


def spectra(s: Float, cube: xr.DataArray) -> xr.DataArray:
    return xr.DataArray(s, dims=("component", "energy"), coords={"energy": cube.energy})


# Sum to one.


@pytest.mark.parametrize("loss", ["frobenius", "poisson"])
def test_abundances_on_the_simplex_sum_to_one_in_every_pixel(loss: str) -> None:
    cube, s, _ = mixture()
    cube = (20 * cube).round().astype("u2") if loss == "poisson" else cube
    result = hsi.fit(cube, hsi.NMF(3, loss=loss, simplex=True, bin_factor=1, max_iter=300, tol=1e-8), seed=0)
    assert_allclose(result["abundances"].sum("component"), 1.0, atol=1e-5)
    assert (result["abundances"].values >= 0).all()
    # The endmembers carry the intensity: whole pixels of them look like this.
    truth = xr.Dataset({"endmembers": spectra(s * (20 if loss == "poisson" else 1), cube)})
    match = hsi.metrics.match(truth["endmembers"], result["endmembers"])
    found = result["endmembers"].values[np.asarray(match)]
    assert hsi.metrics.nmse(truth["endmembers"].values, found) < 0.02
    assert_allclose(hsi.project(result, cube), result["abundances"], atol=1e-4)


def counted(seed: int = 0, *, size: int = 26) -> tuple[xr.DataArray, Float, Float]:
    """Counts of grains of different density, their endmembers (K, E) and abundances (y, x, K) that sum to one."""
    rng = np.random.default_rng(seed)
    s = rng.random((3, 40)) ** 4
    s *= np.array([[30.0], [60.0], [120.0]]) / s.sum(axis=1, keepdims=True)
    c = np.repeat(np.repeat(rng.dirichlet([0.4] * 3, (size // 13, size // 13)), 13, axis=0), 13, axis=1)
    x = rng.poisson(c @ s).astype("u2")
    return make_cube(x, energy=np.arange(40) * 1.0, energy_units="keV"), s, c


@pytest.mark.parametrize("known", [0, 1])
def test_on_the_simplex_spectra_of_bins_are_those_of_single_pixels(known: int) -> None:
    cube, s, c = counted(size=52)
    truth = xr.Dataset({"endmembers": spectra(s, cube)})
    fixed = {"endmembers": spectra(s[:known], cube)} if known else None
    result = hsi.fit(cube, hsi.NMF(3, loss="poisson", simplex=True, bin_factor=4, fixed=fixed, max_iter=400), seed=0)
    assert int(result["bin_factor"]) == 4
    match = np.asarray(hsi.metrics.match(truth["endmembers"], result["endmembers"]))
    found = result.isel(component=match)
    assert_allclose(found["endmembers"].sum("energy"), s.sum(axis=1), rtol=0.1)
    assert_allclose(found["endmembers"][:known], s[:known], rtol=1e-12)
    assert_allclose(found["abundances"].mean(("y", "x")), c.mean(axis=(0, 1)), atol=0.05)


def test_on_the_simplex_bins_with_masked_pixels_are_left_out() -> None:
    cube, _, _ = counted(size=52)
    used = np.ones((52, 52), dtype=bool)
    used[1::8, 2] = False
    masked = cube.assign_coords(mask=(("y", "x"), used))
    model = hsi.NMF(3, loss="poisson", simplex=True, bin_factor=4)
    found = hsi.fit(masked, model, seed=0)["endmembers"]
    whole = used.copy()
    whole[:, :4] = np.repeat(np.repeat(used.reshape(13, 4, 13, 4).all(axis=(1, 3))[:, :1], 4, axis=0), 4, axis=1)
    want = hsi.fit(cube.assign_coords(mask=(("y", "x"), whole)), model, seed=0)["endmembers"]
    assert_allclose(found, want, rtol=1e-3, atol=1e-3)
    # Where a whole bin is nowhere left, "auto" takes single pixels.
    used[::2, ::2] = False
    masked = cube.assign_coords(mask=(("y", "x"), used))
    assert "bin_factor" not in hsi.fit(masked, hsi.NMF(3, loss="poisson", simplex=True, max_iter=5), seed=0)


# Sparsity and smoothness.


def test_sparsity_empties_what_hardly_belongs() -> None:
    cube, _, _ = mixture(3)
    plain, sparse = (hsi.fit(cube, hsi.NMF(3, loss="frobenius", sparsity=v), seed=0)["abundances"] for v in (0.0, 0.1))
    assert (sparse == 0).mean() > (plain == 0).mean() + 0.05


@pytest.mark.parametrize("settings", [{"sparsity": 0.05}, {"spectral_smoothness": 0.5}, {"smoothness": 1.0}], ids=str)
def test_the_penalised_objective_never_rises(settings: dict[str, float]) -> None:
    cube, _, _ = mixture(4)
    objective = hsi.fit(cube, hsi.NMF(3, max_iter=60, tol=0.0, **settings), seed=0)["objective"].values
    assert np.diff(objective).max() <= 1e-6 * objective[0]


def test_spectral_smoothness_takes_the_noise_from_spectra() -> None:
    cube, truth = diode(16, 200)
    plain, smooth = (hsi.fit(cube, hsi.NMF(3, loss="frobenius", spectral_smoothness=v), seed=0) for v in (0.0, 1.0))

    def rough(result: xr.Dataset) -> float:
        return float((np.diff(result["endmembers"].values, 2, axis=1) ** 2).sum())

    assert rough(smooth) < 0.5 * rough(plain)
    assert angles(smooth, truth).mean() < angles(plain, truth).mean()


@pytest.mark.parametrize(("kind", "strength"), [("quadratic", 0.1), ("tv", 0.5)])
def test_smooth_maps_are_nearer_the_truth_where_the_truth_is_smooth(kind: str, strength: float) -> None:
    lazy, truth = hsi.simulate.chequerboard(
        (32, 32), n_channels=60, n_components=3, squares=(2, 2), counts_per_pixel=150, seed=0
    )
    cube = lazy.compute()
    known = {"fixed": {"endmembers": truth["endmembers"]}, "max_iter": 60}
    plain = hsi.fit(cube, hsi.NMF(3, loss="frobenius", **known), seed=0)
    smooth = hsi.fit(cube, hsi.NMF(3, loss="frobenius", smoothness=strength, smoothness_kind=kind, **known), seed=0)

    def error(result: xr.Dataset) -> float:
        return float(hsi.metrics.score(result, truth)["map_similarity"].mean())

    assert 1 - error(smooth) < 0.8 * (1 - error(plain))
    assert smooth["residual"].dims == ("y", "x")


def test_neighbours_across_a_mask_do_not_hold_together() -> None:
    cube, _, _ = mixture(5)
    mask = np.ones((16, 16), dtype=bool)
    mask[:, 8] = False
    halves = [cube.isel(x=slice(0, 8)), cube.isel(x=slice(9, 16))]
    known = hsi.fit(cube, hsi.NMF(3, loss="frobenius"), seed=0)
    model = hsi.NMF(
        3, loss="frobenius", smoothness=1.0, max_iter=40, tol=0.0, fixed={"endmembers": known["endmembers"]}
    )
    whole = hsi.fit(cube.assign_coords(mask=(("y", "x"), mask)), model, seed=0)["abundances"]
    assert bool(np.isnan(whole.isel(x=8)).all())
    for half, part in zip(halves, (whole.isel(x=slice(0, 8)), whole.isel(x=slice(9, 16))), strict=True):
        alone = hsi.fit(half, model, seed=0)["abundances"]
        assert_allclose(part, alone, rtol=1e-3, atol=1e-3)


# What is known, and what is not.


@pytest.mark.parametrize("ard", ["exponential", "half-normal"])
def test_relevance_learned_from_bins_does_not_depend_on_their_size(ard: str) -> None:
    cube, _, _ = counted(size=52)
    large, small = (hsi.fit(cube, hsi.NMF(3, loss="poisson", ard=ard, bin_factor=b), seed=0) for b in (4, 2))
    assert large.sizes["component"] == small.sizes["component"] == 3
    name = "abundance_cost" if ard == "exponential" else "abundance_coupling"
    costs = [np.sort(np.diag(r[name]) if r[name].ndim == 2 else r[name]) for r in (large, small)]
    assert_allclose(costs[0], costs[1], rtol=0.5)


@pytest.mark.parametrize("loss", ["frobenius", "poisson"])
def test_fixed_endmembers_stay_and_come_first(loss: str) -> None:
    cube, s, _ = mixture(6)
    cube = (20 * cube).round().astype("u2") if loss == "poisson" else cube
    known = spectra(s[1:2] * 3.0, cube)
    result = hsi.fit(cube, hsi.NMF(3, loss=loss, bin_factor=1, fixed={"endmembers": known}), seed=0)
    assert_allclose(result["endmembers"][0], known[0], rtol=1e-12)
    assert not np.allclose(result["endmembers"][1], known[0])
    assert_allclose(hsi.project(result, cube), result["abundances"], rtol=1e-3, atol=1e-4)


def test_missing_voxels_are_as_if_never_measured() -> None:
    cube, s, _ = mixture(7, size=24)
    rng = np.random.default_rng(0)
    holes = cube.where(rng.random(cube.shape) > 0.4)
    holes.attrs = cube.attrs
    result = hsi.fit(holes, hsi.NMF(3, loss="frobenius", missing=True, max_iter=300), seed=0)
    truth = xr.Dataset({"endmembers": spectra(s, cube)})
    full = hsi.fit(cube, hsi.NMF(3, loss="frobenius", max_iter=300), seed=0)
    assert angles(result, truth).max() < angles(full, truth).max() + 2.0
    # Filled with zeros instead, the same holes ruin the fit.
    zeros = holes.fillna(0.0)
    zeros.attrs = cube.attrs
    assert angles(hsi.fit(zeros, hsi.NMF(3, loss="frobenius"), seed=0), truth).max() > 3 * angles(result, truth).max()
    with pytest.raises(InputError, match="NaN"):
        hsi.fit(holes, hsi.NMF(3, loss="frobenius"), seed=0)


def with_holes(cube: xr.DataArray, share: float) -> xr.DataArray:
    holes = cube.astype("f4").where(np.random.default_rng(0).random(cube.shape) > share)
    holes.attrs = cube.attrs
    return holes


def test_missing_counts_are_as_if_never_measured() -> None:
    cube, truth = hsi.simulate.chequerboard((32, 32), n_channels=96)
    holes = with_holes(cube, 0.4)
    model = hsi.NMF(4, loss="poisson", missing=True)
    result = hsi.fit(holes, model, seed=0)
    assert np.diff(result["objective"]).max() <= 1e-9 * float(result["objective"][0])
    full = hsi.fit(cube, hsi.NMF(4, loss="poisson", bin_factor=1), seed=0)
    assert angles(result, truth).max() < angles(full, truth).max() + 2.0
    # Filled with zeros instead, the same holes take their share of every map.
    assert_allclose(result["abundances"].sum("component").mean(), full["abundances"].sum("component").mean(), rtol=0.02)
    assert_allclose(hsi.project(result, holes), result["abundances"], rtol=1e-4, atol=1e-5)
    left = (holes - hsi.reconstruct(result)).values
    assert_allclose(result["residual"], np.sqrt(np.nanmean(left**2, axis=-1)), rtol=1e-4)
    with pytest.raises(InputError, match="NaN"):
        hsi.fit(holes, hsi.NMF(4, loss="poisson"), seed=0)


@pytest.mark.parametrize("options", [{}, {"simplex": True}, {"sparsity": 0.1}, {"ard": "exponential", "max_iter": 30}])
def test_no_missing_counts_change_nothing(options: dict[str, Any]) -> None:
    cube, _ = hsi.simulate.chequerboard((16, 16), n_channels=64)
    want = hsi.fit(cube.astype("f4").assign_attrs(cube.attrs), hsi.NMF(3, loss="poisson", bin_factor=1, **options))
    found = hsi.fit(with_holes(cube, -1.0), hsi.NMF(3, loss="poisson", missing=True, **options))
    assert_allclose(found["endmembers"], want["endmembers"], rtol=1e-6, atol=1e-12)
    assert_allclose(found["abundances"], want["abundances"], rtol=1e-5, atol=1e-6)
    assert_allclose(found["objective"], want["objective"], rtol=1e-12)


def test_a_pixel_of_missing_counts_is_as_if_masked_and_a_channel_is_zero() -> None:
    cube, _ = hsi.simulate.chequerboard((16, 16), n_channels=64)
    used = np.random.default_rng(1).random((16, 16)) > 0.2
    masked = with_holes(cube, 0.1)
    masked[..., 9] = np.nan
    pixels = masked.where(xr.DataArray(used, dims=("y", "x")))
    masked, pixels = masked.assign_coords(mask=(("y", "x"), used)), pixels.assign_attrs(cube.attrs)
    model = hsi.NMF(3, loss="poisson", missing=True)
    want, found = hsi.fit(masked, model, seed=0), hsi.fit(pixels, model, seed=0)
    assert_allclose(found["endmembers"], want["endmembers"], rtol=1e-4, atol=1e-6)
    assert_allclose(found["objective"][-1], want["objective"][-1], rtol=1e-8)
    assert_allclose(found["abundances"].values[:, used], want["abundances"].values[:, used], rtol=1e-3, atol=1e-3)
    assert np.isnan(found["abundances"].values[:, ~used]).all()
    assert not found["endmembers"][:, 9].any()


# Rules of the textbooks.


@pytest.mark.parametrize("solver", ["als", "mals", "hals", "mu"])
def test_every_rule_comes_near_the_exact_solver_in_more_readings(solver: str) -> None:
    cube, _, _ = mixture(8)
    exact = hsi.fit(cube, hsi.NMF(3, loss="frobenius", tol=1e-7), seed=0)["objective"].values
    found = hsi.fit(cube, hsi.NMF(3, loss="frobenius", solver=solver, start="random", max_iter=400, tol=1e-7), seed=0)
    # Multiplicative updates crawl: after 400 readings they are still twice as far from the data.
    assert found["objective"].values.min() < (3.0 if solver == "mu" else 1.3) * exact[-1]
    if solver in ("hals", "mu"):
        assert np.diff(found["objective"].values).max() <= 1e-5 * found["objective"].values[0]


# What does not go together.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "poisson", "orthogonality": 0.1}, "orthogonality belongs to loss='frobenius'"),
        ({"loss": "poisson", "smoothness": 1.0}, "smoothness belongs to loss='frobenius'"),
        ({"simplex": True, "sparsity": 0.1}, "simplex=True fixes the sum"),
        ({"simplex": True, "weighting": "poisson"}, "use loss='poisson'"),
        ({"orthogonality": 1.5}, "from 0 to 1"),
        ({"sparsity": -1.0}, "at least 0"),
        ({"ard": "gaussian"}, "ard='gaussian' is not known"),
        ({"ard_shape": 1.0}, "above 1"),
        ({"solver": "hal"}, "did you mean 'hals'"),
        ({"solver": "hals", "ard": "exponential"}, "needs plain least squares"),
        ({"missing": True, "smoothness": 1.0}, "take one"),
        ({"missing": True, "simplex": True}, "needs plain least squares"),
        ({"loss": "poisson", "missing": True, "solver": "mu"}, "take one"),
        ({"loss": "poisson", "missing": True, "bin_factor": 2}, "needs single pixels"),
        ({"compress": "yes"}, "compress is True, False or 'auto'"),
        ({"compress": True, "loss": "poisson"}, "compress=True needs"),
        ({"loss": "frobenius", "bin_factor": 4}, "belongs to loss='poisson'"),
        ({"loss": "poisson", "bin_factor": 0}, "whole number of at least 1"),
        ({"start": "nndsv"}, "did you mean 'nndsvd'"),
        ({"simplex": "yes"}, "simplex is True or False"),
        ({"restarts": 0}, "restarts is a whole number"),
        ({"fixed": {"maps": 1}}, "fixed has no 'maps'"),
        ({"fixed": {"endmembers": np.ones((2, 3))}}, "DataArray of dims"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        hsi.NMF(3, **settings)


def test_fixed_endmembers_must_fit_the_cube() -> None:
    cube, s, _ = mixture()
    short = xr.DataArray(s[:, :10], dims=("component", "energy"))
    with pytest.raises(InputError, match="has 10 channels, the cube 30"):
        hsi.fit(cube, hsi.NMF(3, fixed={"endmembers": short}), seed=0)
    moved = spectra(s, cube).assign_coords(energy=cube.energy + 5)
    with pytest.raises(InputError, match="bring it onto the cube's axis"):
        hsi.fit(cube, hsi.NMF(3, fixed={"endmembers": moved}), seed=0)
    with pytest.raises(InputError, match="more than n_components=2"):
        hsi.NMF(2, fixed={"endmembers": spectra(s, cube)})
