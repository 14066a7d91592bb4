"""Warnings of fits by a Gaussian process: planted faults, clean maps, and remedies that help."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.kernels.gaussian_process.covariance import covariance


def maps(side: int, length: float, seed: int, noise: float = 0.3, count: int = 2) -> xr.DataArray:
    """Maps of a Gaussian process of unit variance with this length, and white noise."""
    rng = np.random.default_rng(seed)
    k = covariance("matern52", np.subtract.outer(np.arange(side), np.arange(side)), length)[0]
    root = np.linalg.cholesky(k + 1e-9 * np.eye(side))
    truth = root @ rng.standard_normal((count, side, side)) @ root.T
    return xr.DataArray(truth + noise * rng.standard_normal(truth.shape), dims=("component", "y", "x"))


def codes(data: xr.DataArray, **settings: object) -> list[str]:
    model = hsi.ParallelGP(**settings)
    return [found.code for found in model.warnings(hsi.fit(data, model))]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("side", "length"), [(24, 2.5), (32, 4.0)])
def test_clean_maps_are_not_blamed(side: int, length: float, seed: int) -> None:
    assert codes(maps(side, length, seed)) == []


@pytest.mark.parametrize("settings", [{"lengthscale": (1, 15)}, {"upsample": 1.5}, {"isotropic": True}])
def test_clean_maps_of_other_settings_are_not_blamed(settings: dict[str, object]) -> None:
    assert codes(maps(26, 3.0, 0), **settings) == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("length", "interval"), [(6.0, (10, 11)), (4.0, (7, 9)), (5.0, (1, 3))])
def test_a_length_at_an_end_is_said_and_its_remedy_helps(length: float, interval: tuple[int, int], seed: int) -> None:
    data, model = maps(28, length, seed), hsi.ParallelGP(lengthscale=interval)
    (found,) = model.warnings(hsi.fit(data, model))
    assert found.code == "length_at_bound"
    assert f"the end of {interval}" in found.text
    low, high = map(float, found.remedy.removeprefix("lengthscale=(").removesuffix(")").split(","))
    assert low <= interval[0] <= interval[1] < high or low < interval[0]
    assert codes(data, lengthscale=(low, high)) == []


def test_fixed_lengths_are_not_blamed() -> None:
    assert codes(maps(24, 4.0, 0), lengthscale=(3.0, 3.0)) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("length", "noise"), [(0.5, 0.3), (0.01, 1.0)])
def test_white_maps_are_said_to_look_like_noise(length: float, noise: float, seed: int) -> None:
    assert codes(maps(28, length, seed, noise)) == ["noise_not_identifiable"]


@pytest.mark.parametrize("seed", range(3))
def test_maps_smaller_than_their_structure(seed: int) -> None:
    assert "maps_too_small" in codes(maps(24, 30.0, seed))


@pytest.mark.parametrize(("shape", "blamed"), [((3, 3), True), ((5, 5), True), ((7, 7), True), ((12, 12), False)])
def test_maps_of_few_pixels(shape: tuple[int, int], blamed: bool) -> None:
    data = maps(16, 2.0, 4).isel(y=slice(0, shape[0]), x=slice(0, shape[1]))
    assert ("maps_too_small" in codes(data)) == blamed


def test_one_map_of_few_measured_pixels_is_named() -> None:
    data = maps(14, 3.0, 0, count=3)
    data[1, 6:] = np.nan
    data[1, :, 6:] = np.nan
    model = hsi.ParallelGP(lengthscale=(3.0, 3.0))
    (found,) = model.warnings(hsi.fit(data, model))
    assert found.code == "maps_too_small"
    assert "component 2 (36 pixels)" in found.text
