"""Thickness from low losses: right to 2 %, with true errors, whatever the drift."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal
from scipy.special import ndtr

import scalehsi as hsi
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.helpers import random_mask

ENERGY = np.arange(-20.0, 182.0, 0.5)


def low_loss(ratio: float, counts: float = 1e4, *, shape: tuple[int, int] = (30, 30), seed: int = 0) -> xr.DataArray:
    """Zero loss and Poisson-distributed plasmons of 22 eV, 1 to 8 of them, with a drift of 0.3 eV."""
    drift = np.random.default_rng(seed).normal(0, 0.3, (*shape, 1))
    e, p, mean = ENERGY - drift, np.exp(-ratio), 0.0
    mean = p * (ndtr((e + 0.25) / 0.45) - ndtr((e - 0.25) / 0.45))
    for n in range(1, 9):
        p = p * ratio / n
        wide = 3.5 * np.sqrt(n)
        mean = mean + p * 0.5 / (wide * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((e - 22 * n) / wide) ** 2)
    x = np.random.default_rng(seed + 1).poisson(counts * mean)
    return make_cube(x.astype("u4"), energy=ENERGY, energy_units="eV", signal="EELS")


@pytest.mark.parametrize("ratio", [0.05, 0.3, 1.0, 2.0])
def test_thickness_and_its_error(ratio: float) -> None:
    found = hsi.quantify.thickness(low_loss(ratio), window_gain=1.0)
    values = found["t_over_lambda"].values
    assert abs(values.mean() - ratio) < 0.02
    assert abs(values.std() / float(found["t_over_lambda_std"].mean()) - 1) < 0.1


def test_nanometres_chunks_masks_and_history(caplog: pytest.LogCaptureFixture) -> None:
    cube = low_loss(0.5, shape=(8, 9)).assign_coords(mask=(("y", "x"), random_mask((8, 9))))
    with caplog.at_level(logging.WARNING, "scalehsi"):
        want = hsi.quantify.thickness(cube, mean_free_path=120)
    assert caplog.text == ""
    np.testing.assert_allclose(want["thickness"], 120 * want["t_over_lambda"], rtol=1e-5)
    assert want["thickness"].attrs["units"] == "nm"
    assert_array_equal(np.isfinite(want["t_over_lambda"].values), cube.mask.values)
    assert "mean_free_path=120 nm" in want.attrs["history"]
    found = hsi.quantify.thickness(cube.chunk({"y": 3, "x": 4, "energy": 100}), mean_free_path=120)
    xr.testing.assert_identical(found, want)


def test_pixels_without_a_peak_are_nan(caplog: pytest.LogCaptureFixture) -> None:
    cube = low_loss(0.5, shape=(6, 6))
    cube.values[1, 2] = 0
    with caplog.at_level(logging.WARNING, "scalehsi"):
        found = hsi.quantify.thickness(cube)
    assert "thickness: 1 of 36 pixels have no zero-loss peak: NaN" in caplog.text
    assert np.argwhere(np.isnan(found["t_over_lambda"].values)).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.assign_coords(energy=c.energy + 440), "the axis starts at 420 eV; the low-loss cube is needed"),
        (lambda c: c[..., ::-1], "thickness: a rising axis of 8 channels or more is needed"),
        (lambda c: c.assign_coords(energy=c.energy.assign_attrs(units="px")), "the axis needs a unit of energy"),
        (lambda c: c * 0, "the mean spectrum has no peak"),
    ],
)
def test_wrong_cubes_say_what_to_do(change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hsi.quantify.thickness(change(low_loss(0.5, shape=(5, 5))))
    with pytest.raises(InputError, match="thickness: mean_free_path=-1; a length in nm above 0"):
        hsi.quantify.thickness(low_loss(0.5, shape=(5, 5)), mean_free_path=-1)
