"""Tiles: of one size, and covering the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.models.gp.tiled_maps import tile_grid


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 100))
def test_tiles_are_of_one_size_and_cover_the_whole(height, width, core):
    rows, columns = tile_grid((height, width), core)
    assert (sum(rows), sum(columns)) == (height, width)
    assert max(rows) - min(rows) <= 1
    assert max(rows) <= max(1.5 * core + 1, 2)


@pytest.mark.parametrize("core", [np.inf, 100])
def test_the_whole_is_one_tile(core):
    assert tile_grid((3, 100, 90), core) == ((1, 1, 1), (100,), (90,))
