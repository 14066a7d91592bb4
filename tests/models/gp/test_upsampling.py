"""Upsampled grids: positions of their points, and maps assembled from rows of pixels."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.models.gp.upsampling import AxisUpsampling, Upsampling
from scalehsi.schema import InputError

FACTORS = st.one_of(st.integers(1, 4), st.floats(1.0, 4.0, allow_nan=False))


@given(st.integers(1, 4), st.integers(1, 9))
def test_points_divide_each_pixel_evenly(factor, size):
    points = AxisUpsampling(factor).points(size)
    assert points.size == factor * size
    assert np.allclose(points.reshape(size, factor).mean(axis=1), np.arange(size))
    assert np.allclose(np.diff(points), 1 / factor)


@given(FACTORS, st.integers(1, 30), st.data())
def test_slots_of_tiles_hold_each_point_once(factor, size, data):
    sampling = AxisUpsampling(factor)
    points = sampling.points(size)
    assert np.allclose(np.diff(points), 1 / factor)
    assert points.min() >= -0.5 - 1e-6
    assert points.max() < size - 0.5 + 1e-6
    assert abs(points.size - size * factor) <= 1
    edge = data.draw(st.integers(0, size))
    found = [
        start + sampling.slot_positions(start, n)[sampling.used_slots(n, start)]
        for start, n in ((0, edge), (edge, size - edge))
        if n
    ]
    assert np.allclose(np.concatenate(found), points)
    assert sampling.slot_positions(0, size).size == size * sampling.slots
    inside = points[sampling.points_in(edge, size)]
    assert np.allclose(inside, points[points >= edge - 0.5 - 1e-9])


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_rows_and_maps_are_each_others_inverse(a, b, maps, height, width):
    upsampling = Upsampling.of((a, b))
    values = np.random.default_rng(0).random((1, height * a, width * b, maps))
    rows = upsampling.rows(values)
    assert rows.shape == (height * width, maps, a, b)
    folded = rows.reshape(height, width, maps, a, b).transpose(2, 3, 4, 0, 1)
    dims = ("component", "fine_y", "fine_x", "y", "x")
    back = upsampling.unfold(xr.DataArray(folded, dims=dims))
    assert np.array_equal(back.values, np.moveaxis(values[0], -1, 0))
    lazy = upsampling.unfold(xr.DataArray(da.from_array(folded, chunks=(-1, -1, -1, 1, 1)), dims=dims))
    assert np.array_equal(lazy.values, back.values)


def test_coordinates_are_extrapolated_linearly():
    axis = xr.DataArray(np.array([10.0, 12.0, 14.0]), dims=("y",), attrs={"units": "nm"})
    fine = AxisUpsampling(2).coordinate(axis)
    assert fine.values.tolist() == [9.5, 10.5, 11.5, 12.5, 13.5, 14.5]
    assert fine.attrs == {"units": "nm"}
    assert np.allclose(np.diff(AxisUpsampling(2.5).coordinate(axis)), 0.8)
    assert AxisUpsampling(1).coordinate(axis) is axis


@pytest.mark.parametrize("upsample", [0.9, 0, float("nan"), "2", (2, 0.5), (1, 2, 3), True])
def test_other_numbers_are_refused(upsample):
    with pytest.raises(InputError, match="at least 1"):
        Upsampling.of(upsample)
