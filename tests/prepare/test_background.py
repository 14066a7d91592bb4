"""Background: exact on its own law, nearly without bias, calm, the same in any chunks; wrong windows are refused."""

from __future__ import annotations

import logging
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

from scalehsi import prepare
from scalehsi.cube import make_cube
from scalehsi.kernels.preparation import power_law as laws
from scalehsi.kernels.preparation.old_estimators import log_linear, two_area
from scalehsi.schema import InputError
from tests.helpers import random_mask
from tests.prepare.eels import ENERGY, edge_cube, law

FIT = (420.0, 520.0)
GAINS: dict[str, Any] = {"gain": 1.0, "window_gain": 1.0}


@pytest.mark.parametrize("exponent", [-1.3, 2.0, 3.0, 5.5])
@pytest.mark.parametrize("share", [1, 5])
def test_nothing_is_left_of_a_power_law_without_noise(exponent: float, share: int) -> None:
    height = 1e6 * np.linspace(1, 2, 12).reshape(3, 4, 1)
    cube = make_cube(height * law(exponent), energy=ENERGY, energy_units="eV")
    net = prepare.remove_background(cube, FIT, share=share, gain=1e-9, window_gain=1e-9)
    assert net.dtype == np.float32
    assert float(abs(net / cube).max()) < 1e-5
    assert_allclose(net.background_exponent, exponent, atol=2e-5)


def test_an_exponential_is_found_as_well_in_its_own_unit() -> None:
    cube = make_cube(np.ones((2, 2, 1)) * 1e6 * np.exp(-ENERGY / 150.0), energy=ENERGY, energy_units="eV")
    net = prepare.remove_background(cube, FIT, model="exponential", **GAINS)
    assert float(abs(net / cube).max()) < 2e-5
    assert_allclose(net.background_exponent, 1 / 150.0, rtol=1e-4)
    assert net.background_exponent.attrs["units"] == "1/eV"


@pytest.mark.parametrize(("share", "counts", "most"), [(1, 10.0, 0.02), (5, 10.0, 0.01), (5, 300.0, 0.002)])
def test_the_bias_is_a_small_part_of_the_background(share: int, counts: float, most: float) -> None:
    mean = law(3.0, counts)
    x = np.random.default_rng(1).poisson(np.broadcast_to(mean, (60, 60, 300))).astype("u2")
    net = prepare.remove_background(make_cube(x, energy=ENERGY, energy_units="eV"), (440, 500), share=share, **GAINS)
    signal = slice(110, 160)
    bias = float(net.values[..., signal].sum(-1).mean()) / mean[signal].sum()
    noise = 3 * float(net.values[..., signal].sum(-1).std()) / 60 / mean[signal].sum()
    assert abs(bias) < most + noise


def test_the_noise_with_a_shared_exponent_is_near_the_counting_limit() -> None:
    x = np.random.default_rng(1).poisson(np.broadcast_to(law(), (40, 40, 300))).astype("u2")
    cube = make_cube(x, energy=ENERGY, energy_units="eV")
    signal = slice(132, 190)
    limit = np.sqrt(law()[signal].sum())
    noise = {
        share: prepare.remove_background(cube, (440, 525), share=share, **GAINS).values[..., signal].sum(-1).std()
        / limit
        for share in (1, 5)
    }
    assert noise[5] < 1.45
    assert noise[1] > 1.5 * noise[5]


def test_across_a_boundary_pixels_keep_their_own_exponent() -> None:
    mean = np.where((np.arange(20) < 10)[None, :, None], law(2.0, 2e6), law(4.0, 2e6)) * np.ones((20, 1, 1))
    cube = make_cube(np.random.default_rng(0).poisson(mean).astype("u4"), energy=ENERGY, energy_units="eV")
    found = prepare.remove_background(cube, (440, 525), **GAINS).background_exponent.values
    assert_allclose(found[:, 9], 2.0, atol=0.1)
    assert_allclose(found[:, 10], 4.0, atol=0.1)


def test_negative_values_stay_and_are_flagged_and_the_history_line_repeats_the_step() -> None:
    cube = edge_cube()
    net = prepare.remove_background(cube, FIT)
    assert float(net.min()) < 0
    assert net.attrs["negative_values"] == 1
    line = net.attrs["history"][-1]
    assert line.startswith("background(fit=420:520, model=power, share=5, gain=")
    again = prepare.apply_step(cube, line.replace("(", ":").rstrip(")").replace(", ", ","))
    xr.testing.assert_identical(again, net)
    xr.testing.assert_identical(prepare.apply_step(cube, "background:fit=420:520,model=power"), net)


@pytest.mark.parametrize("chunks", [(64, 64), (7, 5), (1, 12)])
@pytest.mark.parametrize("model", ["power", "lcpl", "loglinear", "two_area"])
def test_chunks_change_nothing(chunks: tuple[int, int], model: str) -> None:
    cube = edge_cube(mask=random_mask((16, 12)))
    want = prepare.remove_background(cube, (421, 520), model=model)
    lazy = cube.chunk({"y": chunks[0], "x": chunks[1], "energy": 100})
    found = prepare.remove_background(lazy, (421, 520), model=model)
    assert isinstance(found.data, da.Array)
    assert found.attrs == want.attrs
    assert_allclose(found.values, want.values, rtol=1e-6, atol=1e-4)
    assert_array_equal(found.values[~cube.mask.values], cube.values[~cube.mask.values])


@pytest.mark.parametrize("dtype", ["u2", "i4", "f4", "f8"])
def test_dtypes_and_more_dims_are_no_other_case(dtype: str) -> None:
    two = [edge_cube(seed=seed, dtype=dtype) for seed in (1, 2)]
    stack = make_cube(np.stack([c.values for c in two]), energy=ENERGY, energy_units="eV")
    found = prepare.remove_background(stack, FIT, **GAINS)
    for k, one in enumerate(two):
        assert_array_equal(found.values[k], prepare.remove_background(one, FIT, **GAINS).values)


def test_a_falling_axis_is_read_the_other_way_round() -> None:
    cube = edge_cube()
    found = prepare.remove_background(cube[..., ::-1], FIT, **GAINS)
    assert_allclose(found.values[..., ::-1], prepare.remove_background(cube, FIT, **GAINS).values, atol=1e-3)


def test_the_misfit_is_one_for_counts_and_more_with_a_peak_in_the_window(caplog: pytest.LogCaptureFixture) -> None:
    x = np.random.default_rng(1).poisson(np.broadcast_to(law(3.0, 800.0), (20, 20, 300))).astype("u2")
    good = make_cube(x, energy=ENERGY, energy_units="eV")
    misfit = prepare.remove_background(good, FIT, **GAINS).background_misfit
    assert abs(float(misfit.mean()) - 1) < 0.03
    peak = good + np.random.default_rng(2).poisson(0.2 * law(3.0, 800.0) * (abs(ENERGY - 470) < 8), x.shape)
    with caplog.at_level(logging.WARNING, "scalehsi"):
        prepare.remove_background(peak.assign_attrs(good.attrs), FIT, **GAINS)
    assert "the misfit is" in caplog.text
    faint = prepare.remove_background(good * 0 + 1, FIT, **GAINS).background_misfit
    assert np.isnan(faint).all()


def test_pixels_without_counts_stay_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    cube = edge_cube()
    cube.values[3, 4] = 0
    cube.values[5, 6, :150] = 0
    with caplog.at_level(logging.WARNING, "scalehsi"):
        net = prepare.remove_background(cube, FIT, **GAINS)
    assert "background: 2 of 192 pixels have no counts in the fit window: left as they are" in caplog.text
    assert_array_equal(net.values[[3, 5], [4, 6]], cube.values[[3, 5], [4, 6]])
    assert np.isnan(net.background_exponent.values[3, 4])
    assert np.isfinite(net.values).all()


def test_channels_at_or_below_zero_stay() -> None:
    energy = -10.0 + np.arange(200.0)
    cube = make_cube(np.random.default_rng(0).poisson(50, (6, 6, 200)), energy=energy, energy_units="eV")
    net = prepare.remove_background(cube, (60, 120), **GAINS)
    assert_array_equal(net.values[..., :11], cube.values[..., :11])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fit": (300, 350)}, "background: fit=300:350 is outside the axis, which runs from 400 to 699 eV"),
        ({"fit": (520, 420)}, "background: fit=520:420 is empty; the lower end comes first"),
        ({"fit": (420, 425)}, "background: fit=420:425 holds 6 channels; 10 at least, so from 416 eV"),
        ({"fit": 3}, r"background: fit=3; a range \(low, high\) is expected"),
        ({"fit": FIT, "model": "pwer"}, "background: model='pwer' is not known; did you mean 'power'"),
        ({"fit": FIT, "share": 4}, "background: share=4; an odd whole number is expected"),
        ({"fit": FIT, "gain": -1}, "background: gain=-1; a number above 0 is expected"),
        ({"fit": (420, 520), "model": "two_area"}, "two_area needs an even number of channels; fit holds 101"),
    ],
)
def test_wrong_arguments_say_what_to_type(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare.remove_background(edge_cube(), **arguments)


def test_a_window_may_end_with_the_axis_and_is_said_to_reach_beyond_it(caplog: pytest.LogCaptureFixture) -> None:
    cube = edge_cube()
    with caplog.at_level(logging.WARNING, logger="scalehsi"):
        open_begin: Any = (None, 525)
        open_end = prepare.remove_background(cube, open_begin, **GAINS)
    assert not caplog.text
    with caplog.at_level(logging.WARNING, logger="scalehsi"):
        beyond = prepare.remove_background(cube, (300, 525), **GAINS)
    assert "fit=300:525 reaches beyond the axis, which runs from 400 to 699 eV" in caplog.text
    assert_array_equal(open_end, beyond)
    assert_array_equal(prepare.apply_step(cube, "background:fit=:525,gain=1,window_gain=1"), beyond)


def test_a_power_law_needs_energies_above_zero_and_counts() -> None:
    low = make_cube(np.ones((2, 2, 60)), energy=np.arange(60.0) - 10, energy_units="eV")
    with pytest.raises(InputError, match="a power law needs energies above 0; fit=-5:20 holds 0"):
        prepare.remove_background(low, (-5, 20))
    with pytest.raises(InputError, match="no pixel has counts in the fit window"):
        prepare.remove_background(low * 0.0, (10, 40), **GAINS)
    with pytest.raises(InputError, match=r"step .background. lacks a setting: type fit=\.\.\."):
        prepare.apply_step(low, "background")


def test_an_onset_in_the_window_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "scalehsi"):
        prepare.remove_background(edge_cube(), (460, 560), **GAINS)
    assert "background: O K (532 eV) lies in fit=460:560; end it at 526 or lower" in caplog.text


def test_the_estimators_of_others_are_those_of_others() -> None:
    """The moments of a window by numpy; two areas and the straight line by their formulas."""
    x = np.random.default_rng(0).poisson(30.0, (5, 40)).astype("u2")
    l = laws.axis_of(ENERGY, 10, 30)[10:30]  # noqa: E741
    sums = laws.window_sums(x, first=10, last=30, l=l, logs=True)
    part = x[:, 10:30].astype(float)
    assert_allclose(sums[:, 1], (part * l).sum(axis=1))
    assert_allclose(sums[:, 2], (part * np.log(part)).sum(axis=1))
    assert_allclose(sums[:, 3], part[:, :10].sum(axis=1))
    slope, offset = np.polyfit(l, np.log(part[2]), 1)
    height, r = log_linear(sums[2, 4:])
    assert_allclose([height, r], [np.exp(offset), -slope])
    assert np.isnan(two_area(np.array([0.0]), np.array([1.0]), (1.0, 2.0, 3.0))[1][0])


@pytest.mark.parametrize("axis", [0, 1])
def test_the_exponent_at_a_boundary_is_that_of_a_line_along_it(axis: int) -> None:
    r = np.where(np.indices((20, 20))[axis] < 10, 2.7, 3.5)
    counts = np.random.default_rng(0).poisson(2000 * (ENERGY / 400) ** -r[..., None])
    cube = make_cube(counts, energy=ENERGY, energy_units="eV")
    near = (np.indices((20, 20))[axis] >= 8) & (np.indices((20, 20))[axis] < 12)
    error = {s: (prepare.remove_background(cube, FIT, share=s, **GAINS).background_exponent - r).values for s in (1, 5)}
    # Five pixels have 0.45 of the noise of one; the mean of the box would be wrong by 0.2 to 0.4.
    assert error[5][near].std() < 0.65 * error[1][near].std()
