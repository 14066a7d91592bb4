"""Alignment: shifts as exact as counting noise allows, applied without changing the noise; warnings; refusals."""

from __future__ import annotations

import logging
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import ndtr

from scalehsi import prepare
from scalehsi.cube import make_cube
from scalehsi.kernels.preparation.smooth_shifts import fill_from_neighbours, smooth_median, smooth_scan
from scalehsi.prepare.shift_maps import core_loss_shifts, zero_loss_shifts
from scalehsi.schema import InputError
from tests.helpers import random_mask
from tests.prepare.eels import edge_cube

LOSSES = np.arange(-20.0, 100.0, 0.5)
CORE = 480.0 + 0.5 * np.arange(360)


def low_loss(drift: Any, counts: float = 1e4, *, seed: int = 0, dtype: str = "u4") -> xr.DataArray:
    """Zero-loss peaks of 1.06 eV and a plasmon, moved by a drift (y, x) in eV."""
    d, sd, half = np.asarray(drift)[..., None], 1.06 / 2.3548, 0.25
    zero = ndtr((LOSSES + half - d) / sd) - ndtr((LOSSES - half - d) / sd)
    plasmon = 0.5 / (5 * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((LOSSES - 22 - d) / 5) ** 2)
    mean = counts * (0.67 * zero + 0.33 * plasmon)
    counts_ = np.random.default_rng(seed).poisson(mean).astype(dtype)
    return make_cube(counts_, energy=LOSSES, energy_units="eV", signal="EELS")


def core_loss(drift: Any, counts: float = 1e6, *, onset: Any = 532.0, seed: int = 0) -> xr.DataArray:
    """A background and an edge with a white line, moved by a drift (y, x) in eV."""
    e = CORE - np.asarray(drift)[..., None]
    mean = (e / 532) ** -3 + 0.3 * ndtr((e - onset) / 0.6) + 0.5 * np.exp(-0.5 * ((e - onset - 3) / 1.2) ** 2)
    mean *= counts / mean[0, 0].sum()
    return make_cube(np.random.default_rng(seed).poisson(mean).astype("u4"), energy=CORE, energy_units="eV")


def drift_of(shape: tuple[int, int] = (16, 12), sd: float = 0.3, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(0, sd, shape)


@pytest.mark.parametrize("counts", [1e4, 1e6])
def test_the_zero_loss_peak_is_found_as_exactly_as_counting_allows(counts: float) -> None:
    drift = drift_of((20, 20))
    found = zero_loss_shifts(low_loss(drift, counts))
    bound = np.hypot(1.06 / 2.3548, 0.5 / np.sqrt(12)) / np.sqrt(0.67 * counts)
    assert found.positions is not None
    assert (found.positions - drift).std() < 1.15 * bound
    assert abs((found.positions - drift).mean()) < 0.01


@pytest.mark.parametrize("counts", [1e5, 1e6])
def test_an_edge_is_found_as_exactly_as_counting_allows(counts: float) -> None:
    drift = drift_of((20, 20), 0.5)
    found = core_loss_shifts(core_loss(drift, counts), (40, 200))
    error = 0.5 * found.shifts - drift
    assert 1.4826 * np.median(abs(error - np.median(error))) < 1.15 * 0.5 * found.bound


def test_after_it_all_pixels_are_alike_and_zero_is_at_the_peak() -> None:
    drift = drift_of()
    aligned = prepare.align(low_loss(drift + 3.0, 1e6), zero_loss=True)
    left = zero_loss_shifts(aligned)
    assert left.positions is not None
    assert left.positions.std() < 0.003
    assert abs(left.positions.mean()) < 0.02
    assert_allclose(aligned.energy_shift - aligned.energy_shift.mean(), drift - drift.mean(), atol=0.005)
    assert aligned.energy_shift.attrs["units"] == "eV"
    line = aligned.attrs["history"][-1]
    assert line.startswith("align(zero_loss=True, width=1, smooth=none, how=fourier, crop=True; mean ")


def test_the_shifts_of_low_losses_serve_their_partner_and_a_partner_that_moves_else_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    drift = drift_of((16, 12), 0.6)
    core = core_loss(drift)
    with caplog.at_level(logging.WARNING, "scalehsi"):
        aligned = prepare.align(core, low_loss=low_loss(drift, 1e6))
    assert caplog.text == ""
    assert 0.5 * core_loss_shifts(aligned, (40, 200)).shifts.std() < 0.05
    with caplog.at_level(logging.WARNING, "scalehsi"):
        prepare.align(core, low_loss=low_loss(drift_of((16, 12), 0.6, seed=7), 1e6))
    assert "align: the cube does not move with its low losses" in caplog.text


def test_shifts_that_are_noise_or_follow_the_specimen_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "scalehsi"):
        prepare.align(core_loss(np.zeros((12, 12)), 2e3), window=(500, 600))
    assert "align: the shifts are noise" in caplog.text
    caplog.clear()
    phase = (np.arange(12) > 5)[None, :, None] * np.ones((12, 1, 1))
    chemical = core_loss(np.zeros((12, 12)), onset=532 + 1.8 * phase)
    brighter = chemical.copy(data=(chemical.values * (1 + 0.5 * phase)).astype("u4"))
    with caplog.at_level(logging.WARNING, "scalehsi"):
        prepare.align(brighter, window=(500, 600))
    assert "align: the shifts follow the specimen" in caplog.text


@pytest.mark.parametrize(("how", "dtype"), [("fourier", "f4"), ("split", "u2"), ("whole", "u2")])
def test_shifts_do_not_change_the_noise(how: str, dtype: str) -> None:
    x = np.random.default_rng(0).poisson(200, (20, 20, 256)).astype("u2")
    cube = make_cube(x, energy=np.arange(256.0), energy_units="eV")
    moved = prepare.align(cube, shifts=np.full((20, 20), 0.5), how=how)
    d = moved.values.astype(float) - moved.values.mean()
    assert moved.dtype == dtype
    assert abs(d.var() / moved.values.mean() - 1) < 0.02
    assert abs((d[..., 1:] * d[..., :-1]).mean() / d.var()) < 0.01
    if how == "split":
        whole = prepare.align(cube, shifts=np.full((20, 20), 0.5), how=how, crop=False)
        assert_array_equal(whole.sum("energy"), cube.sum("energy"))


def test_a_fourier_shift_keeps_an_edge_and_moves_it_the_right_way() -> None:
    cube = core_loss(np.full((3, 3), 0.75), 1e9).astype("f8")
    want = core_loss(np.zeros((3, 3)), 1e9)
    found = prepare.align(cube, shifts=np.full((3, 3), 0.75), crop=False)
    assert float(abs(found - want)[..., 5:-5].max()) < 0.01 * float(want.max())
    assert prepare.align(cube, shifts=np.full((3, 3), 0.75)).sizes["energy"] == 356


def test_auto_splits_few_counts() -> None:
    faint = make_cube(np.random.default_rng(0).poisson(2, (5, 5, 64)).astype("u1"), energy=range(64), energy_units="eV")
    assert prepare.align(faint, shifts=np.full((5, 5), 0.3)).dtype == np.uint8
    assert prepare.align(faint.astype("f4"), shifts=np.full((5, 5), 0.3)).dtype == np.float32
    assert "how=split" in prepare.align(faint, shifts=np.full((5, 5), 0.3)).attrs["history"][-1]


@pytest.mark.parametrize("chunks", [(64, 64), (7, 5), (1, 12)])
@pytest.mark.parametrize("how", ["fourier", "split"])
def test_chunks_change_nothing(chunks: tuple[int, int], how: str) -> None:
    cube = low_loss(drift_of()).assign_coords(mask=(("y", "x"), random_mask((16, 12))))
    want = prepare.align(cube, zero_loss=True, how=how)
    lazy = cube.chunk({"y": chunks[0], "x": chunks[1], "energy": 100})
    found = prepare.align(lazy, zero_loss=True, how=how)
    assert isinstance(found.data, da.Array)
    assert found.attrs == want.attrs
    assert_array_equal(found.energy_shift, want.energy_shift)
    assert_allclose(found.values, want.values, rtol=1e-6, atol=1e-4 if how == "fourier" else 0)
    edge = (cube.sizes["energy"] - found.sizes["energy"]) // 2
    off = ~cube.mask.values
    assert_array_equal(found.values[off], cube.values[off][:, edge:-edge])
    assert_array_equal(prepare.apply_step(cube, f"align:zero_loss=true,how={how}"), want)


def test_a_window_is_the_same_in_any_chunks_and_more_dims_are_no_other_case() -> None:
    cube = core_loss(drift_of((8, 10), 0.5))
    want = prepare.align(cube, window=(500, 600))
    found = prepare.align(cube.chunk({"y": 3, "x": 4}), window=(500, 600))
    assert_allclose(found.energy_shift, want.energy_shift, atol=1e-4)
    assert_allclose(found.values, want.values, rtol=1e-3)
    stack = xr.concat([cube, cube], "frame").transpose("frame", "y", "x", "energy").assign_attrs(cube.attrs)
    twice = prepare.align(stack, window=(500, 600))
    assert_allclose(twice.energy_shift[0], want.energy_shift, atol=5e-3)


def test_pixels_without_a_peak_are_filled_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    cube = low_loss(np.full((6, 7), 0.4))
    cube.values[2, 3] = 0
    with caplog.at_level(logging.WARNING, "scalehsi"):
        found = prepare.align(cube, zero_loss=True)
    assert "align: 1 of 42 pixels have no zero-loss peak: from their neighbours" in caplog.text
    assert np.isfinite(found.energy_shift).all()


def test_smoothing_takes_noise_out_of_drift_and_scan_offsets() -> None:
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(0, 0.002, 40 * 30)).reshape(40, 30) + 0.1 * np.sin(np.arange(30))
    noisy = drift + rng.normal(0, 0.05, drift.shape)
    noisy[rng.integers(0, 40, 12), rng.integers(0, 30, 12)] += 5
    error = {fn.__name__: (fn(noisy) - drift).std() for fn in (smooth_median, smooth_scan)}
    assert error["smooth_scan"] < 0.02
    assert error["smooth_median"] < 0.1
    holes = np.where(rng.random(drift.shape) < 0.3, np.nan, drift)
    assert abs(fill_from_neighbours(holes) - drift).max() < 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "align: nothing is given; give one of zero_loss=True"),
        ({"zero_loss": True, "window": (1, 2)}, "align: zero_loss and window is given"),
        ({"zero_loss": True}, "align: no zero loss, the axis starts at 400 eV; give window= or low_loss="),
        ({"low_loss": low_loss(np.zeros((3, 4)))}, "align: low_loss has 3 x 4 pixels, the cube 16 x 12"),
        ({"shifts": np.full((16, 12), 160.0)}, "align: shifts reach 160 of 300 channels"),
        ({"shifts": np.zeros((3, 3))}, r"align: shifts of shape \(16, 12\) are expected, got \(3, 3\)"),
        ({"shifts": np.full((16, 12), np.nan)}, "align: the shifts hold NaN or Inf"),
        ({"shifts": np.zeros((16, 12)), "how": "linear"}, "align: how='linear' is not known"),
        ({"shifts": np.zeros((16, 12)), "smooth": "box"}, "align: smooth='box' is not known"),
        ({"window": (300, 350)}, "align: window=300:350 is outside the axis"),
        ({"zero_loss": True, "width": 9}, "align: width=9; a number from 0.2 to 5 is expected"),
    ],
)
def test_wrong_arguments_say_what_to_type(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare.align(edge_cube(), **arguments)


def test_axes_that_cannot_be_shifted_are_refused() -> None:
    cube = edge_cube()
    with pytest.raises(InputError, match="the energy axis falls"):
        prepare.align(cube[..., ::-1], window=(500, 600))
    with pytest.raises(InputError, match="the energy axis has uneven steps"):
        prepare.align(cube.assign_coords(energy=np.geomspace(400, 700, 300)), window=(500, 600))
    with pytest.raises(InputError, match="how=split divides counts, whole numbers, got float32"):
        prepare.align(cube.astype("f4"), shifts=np.ones((16, 12)), how="split")
    empty = low_loss(np.zeros((5, 5))) * 0
    with pytest.raises(InputError, match="no zero loss, the mean spectrum has no peak"):
        prepare.align(empty, zero_loss=True)
