"""Finer grids: where their points lie, and that rows of pixels come back as maps."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.models.tiled import Finer, tile_grid


@given(st.integers(1, 4), st.integers(1, 9))
def test_points_divide_each_pixel_evenly(factor, size):
    points = Finer(factor).points(size)
    assert points.size == factor * size
    assert np.allclose(points.reshape(size, factor).mean(axis=1), np.arange(size))
    assert np.allclose(np.diff(points), 1 / factor)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_rows_and_maps_are_each_others_inverse(factor, maps, height, width):
    finer = Finer(factor)
    values = np.random.default_rng(0).random((1, height * factor, width * factor, maps))
    rows = finer.rows(values)
    assert rows.shape == (height * width, maps, factor, factor)
    folded = rows.reshape(height, width, maps, factor, factor).transpose(2, 3, 4, 0, 1)
    dims = ("component", "fine_y", "fine_x", "y", "x")
    back = finer.unfold(xr.DataArray(folded, dims=dims))
    assert np.array_equal(back.values, np.moveaxis(values[0], -1, 0))
    lazy = finer.unfold(xr.DataArray(da.from_array(folded, chunks=(-1, -1, -1, 1, 1)), dims=dims))
    assert np.array_equal(lazy.values, back.values)


def test_coordinates_go_straight_on_beyond_the_ends():
    axis = xr.DataArray(np.array([10.0, 12.0, 14.0]), dims=("y",), attrs={"units": "nm"})
    fine = Finer(2).along(axis)
    assert fine.values.tolist() == [9.5, 10.5, 11.5, 12.5, 13.5, 14.5]
    assert fine.attrs == {"units": "nm"}
    assert Finer(1).along(axis) is axis


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 100))
def test_tiles_are_of_one_size_and_cover_the_whole(height, width, core):
    rows, columns = tile_grid((height, width), core)
    assert (sum(rows), sum(columns)) == (height, width)
    assert max(rows) - min(rows) <= 1
    assert max(rows) <= max(1.5 * core + 1, 2)


@pytest.mark.parametrize("core", [np.inf, 100])
def test_the_whole_is_one_tile(core):
    assert tile_grid((3, 100, 90), core) == ((1, 1, 1), (100,), (90,))
