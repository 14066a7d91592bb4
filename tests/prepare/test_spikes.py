"""Spikes are found and replaced, edges and moving peaks stay; outlier pixels are masked."""

from __future__ import annotations

import logging
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

from scalehsi import prepare
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.helpers import random_mask
from tests.paths import DATA
from tests.prepare.eels import ENERGY, edge_cube

NOISE: dict[str, Any] = {"gain": 1.0, "readout": 0.0}


def _planted(cube: xr.DataArray, sigmas: float, number: int = 150) -> tuple[xr.DataArray, tuple[Any, ...]]:
    """The cube with spikes of some standard deviations, one a pixel at most, and where they are."""
    rng = np.random.default_rng(3)
    pixels = rng.choice(cube[..., 0].size, min(number, cube[..., 0].size // 4), replace=False)
    places = (*np.unravel_index(pixels, cube.shape[:-1]), rng.integers(0, cube.shape[-1], pixels.size))
    values = cube.values.copy()
    values[places] += np.ceil(sigmas * np.sqrt(np.maximum(values[places], 1.0))).astype(values.dtype)
    return cube.copy(data=values), places


@pytest.mark.parametrize(("sigmas", "least"), [(8, 0.9), (10, 0.97), (15, 1.0)])
def test_spikes_are_found_and_replaced_by_what_lies_around(sigmas: float, least: float) -> None:
    clean = edge_cube((40, 40))
    cube, places = _planted(clean, sigmas, 400)
    found = prepare.remove_spikes(cube, **NOISE)
    hit = found.values[places] != cube.values[places]
    assert hit.mean() >= least
    sd = np.sqrt(clean.values[places][hit].astype(float) + 1)
    left = (found.values[places][hit].astype(float) - clean.values[places][hit]) / sd
    assert abs(left.mean()) < 0.2
    assert left.std() < 1.4  # the noise of the value that was there, and 0.5 of the prediction
    assert found.dtype == cube.dtype
    assert int(found.spikes.sum()) <= hit.sum() + 5


def test_few_values_of_a_clean_cube_change_and_no_edge_or_boundary() -> None:
    cube = edge_cube((48, 48), seed=5)
    found = prepare.remove_spikes(cube)
    assert int(found.spikes.sum()) <= 1e-5 * cube.size + 1


def test_a_peak_that_moves_and_channels_without_counts_are_no_spikes() -> None:
    energy = np.arange(200.0)
    shift = np.cumsum(np.random.default_rng(0).normal(0, 0.05, 60)).reshape(1, 60, 1)
    mean = 5e3 * np.exp(-0.5 * ((energy - 60 - shift) / 1.5) ** 2)
    x = np.random.default_rng(1).poisson(mean) + np.random.default_rng(2).normal(0, 10, mean.shape)
    cube = make_cube(x.astype("f4"), energy=energy, energy_units="eV")
    found = prepare.remove_spikes(cube, gain=1.0, readout=10.0)
    assert int(found.spikes.sum()) <= 2


@pytest.mark.parametrize("chunks", [(64, 64), (7, 5), (1, 16)])
@pytest.mark.parametrize("dtype", ["u2", "i4", "f4"])
def test_chunks_change_nothing_and_the_history_line_repeats_the_step(chunks: tuple[int, int], dtype: str) -> None:
    cube, _ = _planted(edge_cube((12, 16), dtype=dtype, mask=random_mask((12, 16))), 20)
    want = prepare.remove_spikes(cube)
    lazy = prepare.remove_spikes(cube.chunk({"y": chunks[0], "x": chunks[1], "energy": 100}))
    assert isinstance(lazy.data, da.Array)
    xr.testing.assert_identical(lazy.compute(), want)
    assert_array_equal(want.values[~cube.mask.values], cube.values[~cube.mask.values])
    line = want.attrs["history"][-1]
    assert line.startswith("spikes(threshold=5, gain=")
    again = prepare.apply_step(cube, line.replace("(", ":").rstrip(")").replace(", ", ","))
    xr.testing.assert_identical(again, want)
    xr.testing.assert_identical(prepare.apply_step(cube, "spikes"), want)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1)])
@pytest.mark.parametrize("chunk", [40, 3, 1])
def test_a_line_of_pixels_has_its_neighbours_in_the_line(shape: tuple[int, int], chunk: int) -> None:
    values = edge_cube((20, 20)).values.reshape(400, 300)[:40].reshape(*shape, 300)
    cube, places = _planted(make_cube(values, energy=ENERGY, energy_units="eV"), 20, 8)
    want = prepare.remove_spikes(cube, **NOISE)
    assert (want.values[places] != cube.values[places]).all()
    assert_array_equal(prepare.remove_spikes(cube.chunk({"y": chunk, "x": chunk}), **NOISE), want)


def test_a_leading_dim_has_no_neighbours_and_a_bin_adds_up_the_spikes() -> None:
    cube, _ = _planted(edge_cube((12, 16)), 30)
    stack = make_cube(np.stack([cube.values, edge_cube((12, 16)).values]), energy=ENERGY, energy_units="eV")
    found = prepare.remove_spikes(stack, **NOISE)
    want = prepare.remove_spikes(cube, **NOISE)
    assert_array_equal(found.values[0], want.values)
    binned = prepare.bin(found, y=2, x=2)
    assert int(binned.spikes.sum()) == int(found.spikes.sum())
    assert_array_equal(prepare.crop(want, y=(0, 2)).spikes, want.spikes[:5])


@pytest.mark.parametrize(
    ("cube", "arguments", "message"),
    [
        (edge_cube((1, 3)), {}, "spikes: 1 x 3 pixels are too few; 5 along one axis at least"),
        (edge_cube(), {"threshold": 0}, "spikes: threshold=0; a number above 0 is expected"),
        (edge_cube(), {"gain": -1}, "spikes: gain=-1; a number above 0 is expected"),
        (edge_cube(), {"readout": "a"}, "spikes: readout='a'; a number of 0 or more is expected"),
        (
            edge_cube().assign_coords(mask=(("y", "x"), np.zeros((16, 12), bool))),
            {},
            "spikes: the mask leaves no pixel",
        ),
    ],
)
def test_wrong_arguments_say_what_to_type(cube: xr.DataArray, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare.remove_spikes(cube, **arguments)


def test_values_that_are_not_finite_are_named_and_an_aligned_cube_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cube = edge_cube(dtype="f4")
    cube.values[3, 7, 5:17] = np.nan
    with pytest.raises(InputError, match="spikes: 12 values are not finite, first at y=3 x=7; mask these pixels"):
        prepare.remove_spikes(cube, **NOISE)
    masked = prepare.mask(cube, where=np.isfinite(cube.values).all(axis=-1))
    with caplog.at_level(logging.WARNING, "scalehsi"):
        found = prepare.remove_spikes(masked.assign_attrs(history=["align(zero_loss)"]), **NOISE)
    assert np.isnan(found.values[3, 7, 5:17]).all()
    assert "spikes: this cube was aligned" in caplog.text


# Outlier pixels.


@pytest.mark.parametrize(("factor", "least"), [(0.5, 0.95), (2.0, 0.95), (5.0, 1.0), (0.0, 1.0)])
def test_pixels_that_stand_out_are_masked_and_no_other(factor: float, least: float) -> None:
    clean = edge_cube((40, 40))
    values = clean.values.copy()
    places = np.array([(y, x) for y in range(3, 40, 6) for x in range(2, 40, 7)])
    values[tuple(places.T)] = np.rint(values[tuple(places.T)] * factor)
    found = prepare.mask(clean.copy(data=values), outliers=5)
    masked = ~found.mask.values
    assert masked[tuple(places.T)].mean() >= least
    assert masked.sum() == masked[tuple(places.T)].sum()
    assert found.attrs["history"][-1] == "mask(outliers=5)"
    lazy = prepare.mask(clean.copy(data=values).chunk({"y": 7, "x": 9}), outliers=5)
    assert_array_equal(lazy.mask, found.mask)
    assert_array_equal(prepare.apply_step(clean.copy(data=values), "mask:outliers=5").mask, found.mask)


def test_outliers_of_a_line_and_what_is_refused() -> None:
    line = edge_cube((20, 20)).values.reshape(400, 300)[:60].copy()
    line[17] *= 3
    cube = make_cube(line[None], energy=ENERGY, energy_units="eV")
    assert np.flatnonzero(~prepare.mask(cube, outliers=5).mask.values[0]).tolist() == [17]
    assert prepare.mask(edge_cube((1, 2)), outliers=5).mask.all()
    with pytest.raises(InputError, match="mask: outliers=0; a number above 0 is expected, such as 5"):
        prepare.mask(cube, outliers=0)


@pytest.mark.skipif(not (DATA / "eels_CuZn_HAADF").is_dir(), reason="the measured maps are not here")
def test_the_hot_value_of_a_measured_map_is_found_and_few_others() -> None:
    path = DATA / "eels_CuZn_HAADF" / "compact.npz"
    cube = make_cube(np.load(path)["counts"], energy=700 + 8.0 * np.arange(162), energy_units="eV", signal="EELS")
    found = prepare.remove_spikes(cube)
    changed = found.values != cube.values
    assert int(found.spikes.sum()) <= 14
    assert changed[42, 11, 47]
    assert prepare.mask(cube, outliers=5).mask.all()
