"""Dark spectrum, afterglow, gain, normalisation and noise: what is taken off is what was put in."""

from __future__ import annotations

import logging
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import scalehsi as hsi
from scalehsi import prepare
from scalehsi.cube import make_cube
from scalehsi.kernels.preparation.stabilise import inverse_anscombe
from scalehsi.schema import InputError
from tests.helpers import random_mask
from tests.prepare.cubes import Step
from tests.prepare.eels import ENERGY, edge_cube

DARK = np.random.default_rng(5).poisson(500.0, 300).astype(float)
PATTERN = 1 + 0.02 * np.random.default_rng(6).normal(size=300)
STEPS: dict[str, Step] = {
    "dark": lambda c: prepare.subtract_dark(c, DARK, scale=0.1),
    "dark and afterglow": lambda c: prepare.subtract_dark(c, DARK, scale=0.1, afterglow=0.02),
    "gain": lambda c: prepare.correct_gain(c, 1e6 * PATTERN),
    "normalise": lambda c: prepare.normalise(c),
    "normalise by a window": lambda c: prepare.normalise(c, (420, 500)),
    "anscombe": lambda c: prepare.anscombe(c, gain=1.0, readout=2.0),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("chunks", [(64, 64), (7, 5), (1, 12)])
def test_chunks_change_nothing_and_masked_pixels_pass(name: str, chunks: tuple[int, int]) -> None:
    cube = edge_cube(mask=random_mask((16, 12)))
    want = STEPS[name](cube)
    found = STEPS[name](cube.chunk({"y": chunks[0], "x": chunks[1], "energy": 100}))
    assert isinstance(found.data, da.Array)
    assert found.dtype == want.dtype == np.float32
    assert found.attrs == want.attrs
    assert_allclose(found.values, want.values, rtol=1e-6)
    off = ~cube.mask.values
    assert_array_equal(found.values[off], cube.values[off])
    assert_array_equal(found.mask, cube.mask)
    assert found.dims == cube.dims
    assert found.name == cube.name
    assert [found[d].attrs.get("units") for d in found.dims] == ["nm", "nm", "eV"]


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("dtype", ["i4", "f4"])
def test_dtypes_and_more_dims_are_no_other_case(name: str, dtype: str) -> None:
    two = [edge_cube(seed=seed, dtype=dtype) for seed in (1, 2)]
    stack = make_cube(np.stack([c.values for c in two]), energy=ENERGY, energy_units="eV")
    found = STEPS[name](stack)
    for k, one in enumerate(two):
        assert_allclose(found.values[k], STEPS[name](one).values, rtol=1e-6)


def test_the_dark_spectrum_is_scaled_by_the_exposures(caplog: pytest.LogCaptureFixture) -> None:
    cube = edge_cube().assign_attrs(exposure_s=0.5)
    dark = xr.DataArray(DARK, dims="energy", attrs={"exposure_s": 50.0})
    found = prepare.subtract_dark(cube, dark)
    assert_allclose(found.values, cube.values - 0.01 * DARK, atol=1e-3)
    assert found.attrs["negative_values"] == 1
    assert found.attrs["history"][-1] == "dark(dark=given, scale=0.01)"
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING, "scalehsi"):
        prepare.subtract_dark(cube, DARK, scale=0.5)
    assert "dark: the dark spectrum was exposed 2 times as long as a pixel" in caplog.text


@pytest.mark.parametrize("part", [0.01, 0.03])
def test_afterglow_is_estimated_in_vacuum_and_taken_off_across_rows(part: float) -> None:
    clean = edge_cube((20, 12)).astype("f8")
    vacuum = np.zeros((20, 12), bool)
    vacuum[::2, ::3] = True
    clean = clean.where(~xr.DataArray(vacuum, dims=("y", "x")), 0.0).transpose("y", "x", "energy")
    before = np.concatenate([np.zeros((1, 300)), clean.values.reshape(-1, 300)[:-1]])
    measured = clean.values.reshape(-1, 300) + part * before + 0.1 * DARK
    # The measured predecessor has an afterglow of its own, which is a part of a part.
    cube = clean.copy(data=measured.reshape(clean.shape)).assign_attrs(clean.attrs)
    estimated = prepare.estimate_afterglow(cube, vacuum, DARK, scale=0.1)
    assert abs(estimated - part) < 0.05 * part
    assert prepare.estimate_afterglow(cube, vacuum) > 1.05 * part
    found = prepare.subtract_dark(cube, DARK, scale=0.1, afterglow=part)
    assert abs(found - clean).max() < 1.2 * part**2 * float(clean.max())
    assert "afterglow=0.0" in found.attrs["history"][-1]


def test_a_gain_pattern_is_taken_off() -> None:
    mean = 1e4 * np.ones((6, 6, 1)) * PATTERN
    cube = make_cube(np.random.default_rng(0).poisson(mean).astype("u4"), energy=ENERGY, energy_units="eV")
    reference = np.random.default_rng(1).poisson(1e7 * PATTERN * np.linspace(2, 1, 300))
    found = prepare.correct_gain(cube, reference).mean(("y", "x")).values[25:-25]
    assert found.std() < 0.3 * cube.mean(("y", "x")).values[25:-25].std()


def test_the_order_of_steps_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    cube = edge_cube().assign_attrs(history=["align(zero_loss)"])
    with caplog.at_level(logging.WARNING, "scalehsi"):
        prepare.correct_gain(cube, 1e6 * PATTERN)
    assert "gain: this comes before align, which was done already" in caplog.text


def test_a_path_is_a_reference_on_the_command_line_too(tmp_path: Any) -> None:
    cube = edge_cube()
    dark = make_cube(np.ones((2, 2, 1)) * DARK, energy=ENERGY, energy_units="eV")
    hsi.save(dark, tmp_path / "dark.zarr")
    found = prepare.apply_step(cube, f"dark:dark={tmp_path}/dark.zarr,scale=0.1")
    assert_allclose(found.values, prepare.subtract_dark(cube, DARK, scale=0.1).values, rtol=1e-5)
    found = prepare.apply_step(cube, f"gain:reference={tmp_path}/dark.zarr")
    assert_allclose(found.values, prepare.correct_gain(cube, DARK).values, rtol=1e-5)


def test_normalised_pixels_have_the_sum_one_and_empty_ones_stay(caplog: pytest.LogCaptureFixture) -> None:
    cube = edge_cube()
    cube.values[2, 3] = 0
    with caplog.at_level(logging.WARNING, "scalehsi"):
        found = prepare.normalise(cube)
    totals = found.sum("energy").values
    assert "normalise: 1 of 192 pixels have no sum above 0: left as they are" in caplog.text
    assert totals[2, 3] == 0
    assert_allclose(np.delete(totals.ravel(), 2 * 12 + 3), 1, rtol=1e-5)
    text = prepare.apply_step(cube, "normalise:by=420:500")
    assert_allclose(text.sel(energy=slice(420, 500)).sum("energy").values[0], 1, rtol=1e-5)


@pytest.mark.parametrize(("mean", "variance"), [(0.1, 0.12), (1.0, 0.72), (3.0, 0.98), (10.0, 1.0)])
@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_stabilised_noise_has_the_variance_one_from_three_electrons_on(
    mean: float, variance: float, gain: float
) -> None:
    counts = gain * np.random.default_rng(0).poisson(mean, (40, 40, 100))
    cube = make_cube(counts, energy=range(100), energy_units="eV")
    found = prepare.anscombe(cube, gain=gain, readout=0)
    assert abs(float(found.var()) - variance) < 0.03
    back = float(inverse_anscombe(float(found.mean()), gain=gain, readout=0.0))
    assert abs(back / (gain * mean) - 1) < 0.02
    if mean >= 3 and gain == 1:
        assert_array_equal(prepare.apply_step(cube, "anscombe:gain=1,readout=0"), found)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            lambda c: prepare.subtract_dark(c, np.ones(1024), scale=1),
            "dark: 1024 channels for 300; crop or bin it as the",
        ),
        (lambda c: prepare.subtract_dark(c, DARK), "dark: no exposure times in the files; give scale="),
        (lambda c: prepare.subtract_dark(c, DARK, scale=0), "dark: scale=0; a number above 0 is expected"),
        (lambda c: prepare.subtract_dark(c, DARK, 0.1, afterglow=2), "dark: afterglow=2; a number from 0 to 0.5"),
        (lambda c: prepare.subtract_dark(c, DARK * np.nan, 0.1), "dark: the spectrum holds NaN or Inf"),
        (lambda c: prepare.estimate_afterglow(c, np.zeros((16, 12), bool)), "no vacuum pixel follows one"),
        (lambda c: prepare.correct_gain(c, np.where(np.arange(300) == 7, 5, 1)), "gain: 5 at 407 eV; from 0.5 to 2"),
        (lambda c: prepare.correct_gain(c, np.zeros(300)), "gain: no channel of the reference is above 0"),
        (lambda c: prepare.normalise(c, "max"), "normalise: by='max'; 'total' or a range"),
        (lambda c: prepare.normalise(c * 0), "normalise: no pixel has a sum above 0"),
        (lambda c: prepare.normalise(c, (100, 200)), "normalise: by=100:200 is outside the axis"),
        (lambda c: prepare.anscombe(c, gain=-1), "anscombe: gain=-1; a number above 0 is expected"),
    ],
)
def test_wrong_arguments_say_what_to_type(step: Step, message: str) -> None:
    with pytest.raises(InputError, match=message):
        step(edge_cube())
