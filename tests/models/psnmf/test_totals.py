"""PSNMF on the simplex has the counts of the data: bright pixels, empty fields, gradients, wedges, masks, frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

import scalehsi as hsi
from scalehsi.arrays import Float
from scalehsi.result import result_warnings

pytestmark = pytest.mark.long

E = np.arange(100.0)
PEAKS = ((20, 60), (35, 85), (70, 92))


def spectra(k: int, pure: Any = 1.0) -> Float:
    """A falling background and two peaks of each; ``pure`` scales them."""
    rows = [
        0.4 * np.exp(-E / 60) + np.exp(-0.5 * ((E - a) / 3) ** 2) + 0.6 * np.exp(-0.5 * ((E - b) / 4) ** 2)
        for a, b in PEAKS[:k]
    ]
    return np.array(rows) * np.broadcast_to(pure, k)[:, None]


def maps(n: int, k: int, seed: int) -> Float:
    rng = np.random.default_rng(seed)
    found = np.stack([gaussian_filter(rng.standard_normal((n, n)), 3.0) for _ in range(k)], axis=-1)
    found = np.exp(3 * found / found.std())
    return found / found.sum(axis=-1, keepdims=True)


def edx(x: Any, mask: Any = None) -> xr.DataArray:
    cube = xr.DataArray(x, dims=("time", "y", "x", "energy")[-x.ndim :], attrs={"signal": "EDS"})
    cube = cube.assign_coords(energy=("energy", 0.2 + 0.01 * np.arange(x.shape[-1]), {"units": "keV"}))
    return cube if mask is None else cube.assign_coords(mask=(cube.dims[:-1], mask))


def drawn(rate: Float, seed: int) -> Any:
    return np.random.default_rng(seed).poisson(rate).astype("u4")


def ratios(result: xr.Dataset, x: Any, used: Any) -> Float:
    """Model over data: of all used pixels, then of squares of a twentieth of them."""
    model = np.nan_to_num(hsi.reconstruct(result).sum("energy").values)
    data = x.sum(axis=-1).astype(float)
    side = math.ceil(math.sqrt(0.05 * model.shape[-2] * model.shape[-1]))
    squares = [
        (..., slice(i, i + side), slice(j, j + side))
        for i in range(0, model.shape[-2] - side + 1, side)
        for j in range(0, model.shape[-1] - side + 1, side)
    ]
    pairs = [((model * used)[square].sum(), (data * used)[square].sum()) for square in [..., *squares]]
    return np.array([y / d for y, d in pairs if d > 0])


def assert_totals(result: xr.Dataset, x: Any, used: Any = True, *, squares: float = 0.02) -> None:
    found = ratios(result, x, np.broadcast_to(used, x.shape[:-1]))
    assert found[0] == pytest.approx(1.0, abs=0.01)
    assert_allclose(found, 1.0, atol=squares)


@pytest.mark.parametrize(
    ("n", "k", "add", "times", "sides"),
    [(32, 3, 10**4, 1, 2), (24, 2, 10**3, 1, 2), (28, 3, 10**5, 1, 4), (24, 1, 10**4, 1, 2), (32, 3, 0, 1000, 2),
     (24, 2, 0, 100, 1)],
)  # fmt: skip
def test_one_bright_pixel_changes_no_other(n: int, k: int, add: int, times: int, sides: int) -> None:
    x = drawn(80 * maps(n, k, k) @ spectra(k), n)
    x[5, 7] = x[5, 7] * times + add
    others = np.ones((n, n), dtype=bool)
    others[5, 7] = False
    assert_totals(hsi.fit(edx(x), hsi.PSNMF(k, bin_factor=sides), seed=0), x, others)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("settings", [{}, {"settings": "paper"}, {"loss": "frobenius"}], ids=str)
def test_a_flat_cube_stays_flat(k: int, settings: dict[str, Any]) -> None:
    x = np.full((12, 12, 40), 5, "u4")
    result = hsi.fit(edx(x), hsi.PSNMF(k, **settings), seed=0)
    model = hsi.reconstruct(result).compute()
    assert_allclose(model.sum("energy"), 200.0, rtol=0.02)
    # Nothing decides the shapes of three spectra of one: rounding does.
    assert_allclose(model, 5.0, rtol=0.06)
    assert_allclose(result["abundances"].sum("component"), 1.0, rtol=1e-5)


@pytest.mark.parametrize(("n", "level", "slope"), [(24, 200.0, 0.0), (32, 100.0, 0.0), (24, 200.0, -0.5)])
@pytest.mark.parametrize("masked", [False, True])
def test_a_phase_that_rises_on_another_keeps_the_counts(n: int, level: float, slope: float, masked: bool) -> None:
    """Exact on the simplex: the endmembers are the bottom and the top of the gradient."""
    t = np.linspace(0, 1, n)[:, None, None] * np.ones((1, n, 1))
    s = spectra(2)
    x = drawn(level * ((1 + slope * t) * s[0] + t * s[1]), 0)
    used = np.random.default_rng(1).random((n, n)) < (0.8 if masked else 1.1)
    result = hsi.fit(edx(x, used if masked else None), hsi.PSNMF(2, bin_factor=3), seed=0)
    assert_totals(result, x, used)


@pytest.mark.parametrize("settings", [{}, {"settings": "paper"}, {"loss": "frobenius"}], ids=str)
@pytest.mark.parametrize(("n", "power"), [(16, 1), (20, 2)])
def test_one_component_of_a_wedge_is_the_mean(settings: dict[str, Any], n: int, power: int) -> None:
    t = np.linspace(0, 1, n)[:, None, None] ** power * np.ones((1, n, 1))
    x = drawn(60 * (1 + 2 * t) * spectra(1)[0], power)
    result = hsi.fit(edx(x), hsi.PSNMF(1, bin_factor=2, **settings), seed=0)
    assert ratios(result, x, True)[0] == pytest.approx(1.0, abs=1e-3)
    assert_allclose(result["abundances"], 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("pure", "n", "level"), [((1.0, 3.0, 0.5), 36, 150.0), ((1.0, 0.4), 24, 150.0), ((0.5, 1.0), 36, 40.0)]
)
@pytest.mark.parametrize("masked", [False, True])
def test_phases_of_different_counts(pure: tuple[float, ...], n: int, level: float, masked: bool) -> None:
    c, k = maps(n, len(pure), 2), len(pure)
    c = c**3 / (c**3).sum(axis=-1, keepdims=True)
    x = drawn(level * c @ spectra(k, pure), 3)
    used = np.random.default_rng(1).random((n, n)) < (0.75 if masked else 1.1)
    used[:5, :7] &= not masked
    result = hsi.fit(edx(x, used if masked else None), hsi.PSNMF(k, bin_factor=2), seed=0)
    assert_totals(result, x, used, squares=0.03)


def test_frames_with_an_empty_corner() -> None:
    c = np.stack([maps(20, 2, seed) for seed in range(3)])
    rate = 80 * c @ spectra(2, (1.0, 2.0))
    rate[1, :6, :9] = 0
    x = drawn(rate, 0)
    result = hsi.fit(edx(x), hsi.PSNMF(2, bin_factor=2), seed=0)
    assert_array_equal(np.isnan(result["abundances"][0]), rate.sum(axis=-1) == 0)
    assert_totals(result, x, rate.sum(axis=-1) > 0)


# Vacuum.


@pytest.mark.parametrize(("n", "rows", "level", "stray"), [(32, 8, 40.0, 0.0), (24, 5, 40.0, 0.02), (30, 20, 3.0, 0.0)])
def test_vacuum_gets_no_counts_and_changes_none(n: int, rows: int, level: float, stray: float) -> None:
    rate = level * maps(n, 2, 1) @ spectra(2, (1.0, 2.0))
    rate[:rows] = stray * level * spectra(1)
    x = drawn(rate, 0)
    cube, model = edx(x), hsi.PSNMF(2, bin_factor=3)
    result = hsi.fit(cube, model, seed=0)
    assert np.isnan(result["abundances"][:, : rows - 2]).all()
    assert np.isnan(result["residual"][: rows - 2]).all()
    assert np.isfinite(result["residual_spectrum"]).all()
    assert_allclose(result["abundances"][:, rows:].sum("component"), 1.0, atol=1e-5)
    assert ratios(result, x, np.arange(n)[:, None] >= rows)[0] == pytest.approx(1.0, abs=0.01)
    (warning,) = [w for w in result_warnings(result) if w.code == "no_specimen"] or model.warnings(result.data_vars)
    assert "% of the map holds no specimen" in warning.text
    chunked = hsi.fit(cube.chunk({"y": 7, "x": 11}), model, seed=0)
    assert_array_equal(np.isnan(chunked["abundances"]), np.isnan(result["abundances"]))
    assert_array_equal(np.isnan(hsi.project(result, cube)), np.isnan(result["abundances"]))
    free = hsi.fit(cube, hsi.PSNMF(2, bin_factor=3, simplex=False), seed=0)
    assert np.isfinite(free["abundances"]).all()
    assert "empty_fraction" not in free


@pytest.mark.parametrize(("settings", "unit"), [({"settings": "paper"}, 1), ({"loss": "frobenius"}, np.float32(0.3))])
def test_other_settings_leave_vacuum_empty_too(settings: dict[str, Any], unit: Any) -> None:
    rate = 40 * maps(32, 2, 1) @ spectra(2)
    rate[:8] = 0
    x = drawn(rate, 0) * unit
    result = hsi.fit(edx(x), hsi.PSNMF(2, bin_factor=4, **settings), seed=0)
    assert_array_equal(np.isnan(result["abundances"][0, :, 0]), np.arange(32) < 8)
    assert_totals(result, x, np.arange(32)[:, None] >= 8)
    left = x.mean(axis=(0, 1)) - hsi.reconstruct(result, dtype="f8").fillna(0).mean(("y", "x")).values
    assert_allclose(result["residual_spectrum"], left, atol=1e-3)


# Smoothing of the spectra.


@pytest.mark.parametrize(("step_ev", "n", "seed"), [(1.0, 24, 0), (1.0, 32, 1), (2.0, 24, 2), (0.5, 24, 3)])
def test_peaks_narrower_than_the_usual_detector_are_kept(step_ev: float, n: int, seed: int) -> None:
    rate = 40 * maps(n, 3, seed) @ spectra(3)
    cube = edx(drawn(rate, seed))
    cube = cube.assign_coords(energy=("energy", 0.2 + step_ev * 1e-3 * E, {"units": "keV"}))
    model = hsi.reconstruct(hsi.fit(cube, hsi.PSNMF(3, bin_factor=2), seed=0)).values
    assert ((model - rate) ** 2).sum() < 0.01 * (rate**2).sum()


def test_nothing_is_smoothed_into_channels_without_counts() -> None:
    rate = 40 * maps(24, 2, 0) @ spectra(2)
    rate[..., [20, *range(90, 100)]] = 0
    result = hsi.fit(edx(drawn(rate, 0)), hsi.PSNMF(2, bin_factor=2), seed=0)
    assert "unsmoothed_endmembers" in result
    for name in ("endmembers", "unsmoothed_endmembers"):
        empty = result[name].values[:, [20, *range(90, 100)]]
        assert (empty <= 1e-9 * result[name].values.max()).all()
