"""Crop, bin and mask: the values are those of numpy, counts stay counts, and wrong arguments are refused."""

from __future__ import annotations

import math
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scalehsi import prepare
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.helpers import CountingStore, raise_if_dask_computes, random_mask
from tests.prepare.cubes import cube
from tests.strategies import Case, cases

# crop


def test_crop_keeps_both_ends_and_says_so() -> None:
    found = prepare.crop(cube(), y=(1, 4), x=(None, 2), energy=(0.2, None))
    xr.testing.assert_equal(found, cube()[1:5, :3, 2:])
    assert found.attrs["history"][-1] == "crop(y=1:4, x=:2, energy=0.2:)"


def test_crop_means_the_number_that_was_typed() -> None:
    # The axis says 0.30000000000000004 there.
    assert prepare.crop(cube(), energy=(0.1, 0.3)).sizes["energy"] == 3
    assert prepare.crop(cube(), energy=(0.11, 0.29)).sizes["energy"] == 1


def test_crop_takes_falling_axes_and_more_dims_and_cuts_the_mask_along() -> None:
    four = cube((3, 4, 5, 6), mask=random_mask((3, 4, 5)))[..., ::-1]
    found = prepare.crop(four, frame=(1, 2), x=(2, 3), energy=(0.1, 0.3))
    xr.testing.assert_equal(found, four[1:3, :, 2:4, 2:5])
    assert_array_equal(found.mask, four.mask[1:3, :, 2:4])


@given(case=cases(), data=st.data())
def test_crop_is_a_slice_of_numpy(case: Case, data: st.DataObject) -> None:
    low = [data.draw(st.integers(0, n - 1)) for n in case.counts.shape]
    high = [data.draw(st.integers(a, n - 1)) for a, n in zip(low, case.counts.shape, strict=True)]
    axes = [case.cube[d].values for d in case.cube.dims]
    ranges = {str(d): (axis[a], axis[b]) for d, axis, a, b in zip(case.cube.dims, axes, low, high, strict=True)}
    window = tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))
    assert_array_equal(prepare.crop(case.cube, **ranges), case.counts[window])


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"z": (0, 1)}, "crop: the cube has no axis 'z'; .*Known: energy, x, y"),
        ({"engery": (0, 1)}, "did you mean 'energy'"),
        ({"y": (4, 1)}, "crop: y=4:1 is empty; the lower end comes first"),
        ({"y": (10, 20)}, "crop: y=10:20 leaves nothing; the axis runs from 0 to 5 nm"),
        ({"energy": (0.31, 0.39)}, "crop: energy=0.31:0.39 leaves nothing; the axis runs from 0 to 0.7 keV"),
        ({"y": (math.nan, 3)}, "leaves nothing"),
        ({"y": 3}, r"crop: y=3; a range \(low, high\) is expected, None for an open end"),
        ({"y": (1, 2, 3)}, r"a range \(low, high\) is expected"),
        ({"y": ("a", "b")}, r"a range \(low, high\) is expected"),
        ({"y": None}, r"a range \(low, high\) is expected"),
    ],
)
def test_crop_says_what_is_wrong(ranges: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare.crop(cube(), **ranges)


def test_the_history_has_numbers_to_ten_digits() -> None:
    axis = 123456.7 + np.arange(5)
    given_ = make_cube(np.ones((1, 1, 5), "u1"), energy=axis, energy_units="eV")
    assert prepare.crop(given_, energy=(123457.7, None)).attrs["history"] == ["crop(energy=123457.7:)"]


# bin


@given(case=cases(), data=st.data())
def test_bin_gives_the_sums_of_numpy_over_used_pixels(case: Case, data: st.DataObject) -> None:
    factors = [data.draw(st.integers(1, n)) for n in case.counts.shape]
    wide = case.counts.astype(np.int64) * case.used[..., None]
    used = case.used
    for axis, factor in enumerate(factors):
        starts = np.arange(wide.shape[axis] // factor) * factor
        wide = np.add.reduceat(wide.take(range(factor * len(starts)), axis), starts, axis)
        if axis < used.ndim:
            used = np.logical_or.reduceat(used.take(range(factor * len(starts)), axis), starts, axis)
    found = prepare.bin(case.cube, **dict(zip(map(str, case.cube.dims), factors, strict=True)))
    assert_array_equal(found, wide)
    assert found.dtype.kind == case.counts.dtype.kind
    if "mask" in case.cube.coords:
        assert_array_equal(found["mask"], used)
        assert found["mask"].dtype == bool


@pytest.mark.parametrize(
    ("dtype", "value", "factor", "wide"),
    [
        ("u1", 255, 1, "u1"),
        ("u1", 255, 257, "u2"),
        ("u1", 255, 258, "u4"),
        ("u2", 65535, 4, "u4"),
        ("u4", 2**32 - 1, 2, "u8"),
        ("i1", -128, 256, "i2"),
        ("i1", -128, 258, "i4"),  # 127 * 258 would still fit in 16 bits, -128 * 258 does not
        ("f2", 60000, 4, "f4"),
        ("f4", 1.5, 4, "f4"),
        ("f8", 1.5, 4, "f8"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_sums_cannot_overflow(dtype: str, value: float, factor: int, wide: str, lazy: bool) -> None:
    values = np.full((1, factor, 1), value, dtype=dtype)
    given_ = make_cube(values, energy=[1.0], energy_units="keV")
    found = prepare.bin(given_.chunk({"x": 3}) if lazy else given_, x=factor)
    assert found.dtype == wide
    assert float(found[0, 0, 0]) == float(values[0, 0, 0]) * factor


@pytest.mark.parametrize("factor", [3, 5, 7, 11])
def test_windows_over_many_chunks_are_added_up_from_their_parts(factor: int) -> None:
    given_ = cube((23, 19, 6), mask=random_mask((23, 19)))
    want = prepare.bin(given_, y=factor, x=factor)
    for chunks in ({"y": 2, "x": 3}, {"y": 1, "x": 19}, {"y": (4, 18, 1), "x": (11, 1, 7), "energy": 4}):
        found = prepare.bin(given_.chunk(chunks), y=factor, x=factor)
        assert_array_equal(found, want)
        assert_array_equal(found.mask, want.mask)
        assert found.chunks is not None


def test_bin_reads_each_chunk_once_and_moves_only_sums() -> None:
    store = CountingStore(cube((20, 20, 6)).values)
    lazy = make_cube(
        da.from_array(store, chunks=(6, 7, 6), meta=np.empty((0, 0, 0), "u1")), energy=np.arange(6.0), energy_units="eV"
    )
    found = prepare.bin(lazy, y=4, x=5).compute(scheduler="synchronous")
    assert_array_equal(found, prepare.bin(cube((20, 20, 6)), y=4, x=5))
    assert set(store.reads.values()) == {1}


def test_bins_lie_at_the_centres_of_what_they_hold_and_the_rest_is_left_out() -> None:
    found = prepare.bin(cube(), y=4, x=2, energy=3)
    assert_allclose(found.y, [1.5])
    assert_allclose(found.x, [0.5, 2.5, 4.5])
    assert_allclose(found.energy, [0.1, 0.4])
    assert_array_equal(found, cube().values[:4, :6, :6].reshape(1, 4, 3, 2, 2, 3).sum(axis=(1, 3, 5), dtype=int))
    assert found.attrs["history"][-1] == "bin(y=4, x=2, energy=3)"


def test_binning_energy_leaves_the_mask_and_masked_values_do_not_count() -> None:
    masked = cube(mask=random_mask((6, 7)))
    found = prepare.bin(masked, energy=2)
    assert_array_equal(found.mask, masked.mask)
    assert not found.values[~masked.mask.values].any()


def test_values_that_the_mask_leaves_out_do_not_reach_a_bin_even_if_they_are_nan() -> None:
    values = np.ones((2, 2, 3))
    values[0, 0] = np.nan
    given_ = make_cube(values, energy=np.arange(3.0), energy_units="eV", mask=np.isfinite(values).all(axis=-1))
    found = prepare.bin(given_, y=2, x=2)
    assert_array_equal(found, np.full((1, 1, 3), 3.0))
    assert bool(found.mask[0, 0])


@pytest.mark.parametrize("factor", [0, -2, 7, 1.5, True, "2", None, math.nan, math.inf, (1, 2)])
def test_bin_takes_whole_numbers_up_to_the_axis(factor: Any) -> None:
    with pytest.raises(InputError, match=r"bin: y=.*; a whole number from 1 to 6 is expected"):
        prepare.bin(cube(), y=factor)


def test_bin_knows_the_axes() -> None:
    with pytest.raises(InputError, match=r"bin: the cube has no axis 'z'; .*Known: energy, x, y"):
        prepare.bin(cube(), z=2)
    assert prepare.bin(cube(), y=np.int64(2)).sizes["y"] == 3
    assert prepare.bin(cube(), y=2.0).attrs["history"][-1] == "bin(y=2)"


# mask


def test_mask_joins_all_conditions_and_the_mask_that_was_there() -> None:
    before, where = random_mask((6, 7), seed=1), random_mask((6, 7), seed=2)
    given_ = cube(mask=before)
    found = prepare.mask(given_, where=where, min_counts=20, max_counts=30, y=(1, 4), x=(None, 5))
    total = given_.values.sum(axis=-1, dtype=int)
    want = before & where & (total >= 20) & (total <= 30)
    want[[0, 5]], want[:, 6] = False, False
    assert want.any()
    assert_array_equal(found.mask, want)
    assert found.mask.dims == ("y", "x")
    assert_array_equal(found, given_)
    assert found.attrs["history"][-1] == "mask(where=array, min_counts=20, max_counts=30, y=1:4, x=:5)"


def test_a_map_is_taken_by_the_names_of_its_dims() -> None:
    where = xr.DataArray(random_mask((6, 7)), dims=("y", "x"))
    for given_ in (where, where.transpose("x", "y"), where.assign_coords(y=cube().y, x=cube().x + 1e-9)):
        assert_array_equal(prepare.mask(cube(), where=given_).mask, where)


def test_a_lazy_map_stays_lazy_and_four_dims_are_no_other_case() -> None:
    four = cube((3, 4, 5, 6)).chunk({"frame": 1})
    where = xr.DataArray(da.from_array(random_mask((3, 4, 5))), dims=("frame", "y", "x"))
    with raise_if_dask_computes(0):
        found = prepare.mask(four, where=where, frame=(1, 2))
    want = random_mask((3, 4, 5)) & (np.arange(3) > 0)[:, None, None]
    assert_array_equal(found.mask, want)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"where": np.ones((7, 6), bool)}, r"mask: an array of shape \(6, 7\) is expected, got \(7, 6\)"),
        ({"where": np.ones((6, 7))}, r"mask: booleans are expected .*got float64; type array\.astype\(bool\)"),
        ({"where": xr.DataArray(np.ones(6, bool), dims="y")}, r"a map over .* is expected.*broadcast_like"),
        (
            {"where": xr.DataArray(np.ones((6, 7), bool), dims=("y", "x"), coords={"y": np.arange(6) + 0.5})},
            "the y axis of the map has other values than the cube's; crop both alike",
        ),
        ({"min_counts": 1e9}, "the mask leaves no pixel"),
        ({"min_counts": math.nan}, "mask: min_counts=nan; a number is expected"),
        ({"max_counts": (1, 2)}, r"mask: max_counts=\(1, 2\); a number is expected"),
        ({"energy": (0, 1)}, "mask: the cube has no pixel axis 'energy'; .*Known: x, y"),
        ({"y": (10, 20)}, "mask: y=10:20 leaves nothing; the axis runs from 0 to 5 nm"),
        ({"y": (3, 1)}, "mask: y=3:1 is empty; the lower end comes first"),
        ({"y": 3}, r"mask: y=3; a range \(low, high\) is expected"),
    ],
)
def test_mask_says_what_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare.mask(cube(), **settings)


def test_a_range_outside_of_a_lazy_cube_is_refused_at_once() -> None:
    with raise_if_dask_computes(0), pytest.raises(InputError, match="leaves nothing"):
        prepare.mask(cube().chunk({"y": 2}), y=(10, 20))
