"""Tests of blocks with a halo and without zeros: the same pixels, larger blocks, each chunk read once."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from scalehsi.blocks import map_fold, map_pixels, open_surrounded
from scalehsi.chunks import work_chunks
from scalehsi.cube import make_cube
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from tests.helpers import CountingStore, counts_cube, random_mask
from tests.strategies import Case, with_halo


def around(x: Any, *, tile: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """For each pixel the totals of its row and its column in the tile, and sums over the core."""
    dense = x.to_dense("i8") if isinstance(x, Counts) else x.astype("i8")
    total = (dense.sum(axis=1) * tile.used).reshape(tile.shape)
    seen = total.sum(axis=-1, keepdims=True) + total.sum(axis=-2, keepdims=True)
    return (
        {"seen": np.broadcast_to(seen, tile.shape).reshape(-1), "first": dense[:, 0]},
        {"spectrum": dense[tile.core].sum(axis=0), "index": tile.index[tile.core].sum()},
    )


def nearby(counts: Any, used: Any, halo: int) -> np.ndarray[Any, Any]:
    """Totals over the square of pixels at most ``halo`` away along y and x, by plain shifts."""
    total = counts.sum(axis=-1) * used
    found = np.zeros(total.shape, dtype=np.int64)
    rows, columns = total.shape[-2:]
    for dy in range(-min(halo, rows - 1), min(halo, rows - 1) + 1):
        for dx in range(-min(halo, columns - 1), min(halo, columns - 1) + 1):
            moved = np.zeros_like(found)
            target = (..., slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), columns - max(0, dx)))
            source = (..., slice(max(0, dy), rows + min(0, dy)), slice(max(0, dx), columns + min(0, dx)))
            moved[target] = total[source]
            found += moved
    return found


def near(x: Any, *, tile: Any, halo: int) -> tuple[dict[str, Any], dict[str, Any]]:
    dense = x.to_dense("i8") if isinstance(x, Counts) else x.astype("i8")
    totals = dense.reshape(*tile.shape, -1)
    return {"near": nearby(totals, tile.used.reshape(tile.shape), halo).reshape(-1)}, {"n": int(tile.core.sum())}


@given(case_halo=with_halo(), lazily=st.booleans())
def test_every_pixel_has_its_neighbours_packed_or_not(case_halo: tuple[Case, int], lazily: bool) -> None:
    case, halo = case_halo
    cube = case.cube.astype("u2") if case.cube.dtype.kind == "i" else case.cube
    view = open_surrounded(cube, packed=True)
    shared = {"halo": halo}
    if lazily:
        handles = map_pixels(near, view, shared=shared, keep=["near"], halo=halo, tile=True)
    else:
        handles, sums = map_fold(near, view, shared=shared, keep=["near"], halo=halo, tile=True)
        assert sums["n"] == case.used.sum()
    got = handles["near"].to_dataarray(dtype="f8").values
    want = np.where(case.used, nearby(case.counts, case.used, halo), np.nan)
    assert_array_equal(got, want)


def test_blocks_of_lazy_cubes_are_counts_and_others_are_arrays() -> None:
    cube = counts_cube((12, 10, 8), mask=random_mask((12, 10)))
    seen: list[type] = []

    def kind(x: Any, *, tile: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        seen.append(type(x))
        return around(x, tile=tile)

    results = []
    for given_ in (cube, cube.chunk({"y": 5, "x": 4})):
        view = open_surrounded(given_, packed=True)
        results.append(map_fold(kind, view, halo=2, tile=True)[1])
    assert seen[0] is np.ndarray
    assert set(seen[1:]) == {Counts}
    assert_array_equal(results[0]["spectrum"], results[1]["spectrum"])
    assert results[0]["index"] == results[1]["index"]


@pytest.mark.parametrize("halo", [1, 9])
def test_each_chunk_is_read_once_although_blocks_overlap(halo: int) -> None:
    store = CountingStore(counts_cube((30, 30, 4)).values)
    lazy = da.from_array(store, chunks=(5, 7, 4), meta=np.empty((0, 0, 0), "u1"))
    view = open_surrounded(make_cube(lazy, energy=np.arange(4.0), energy_units="eV"), packed=True)
    map_fold(near, view, shared={"halo": halo}, halo=halo, tile=True)
    assert set(store.reads.values()) == {1}


def test_compact_blocks_are_nearly_square() -> None:
    grid = work_chunks((2048, 2048, 2048), 1, storage=(90, 90), block_bytes=300 * 2**20, compact=True)
    assert grid[0][0] == grid[1][0] == 360
    slabs = work_chunks((2048, 2048, 2048), 1, storage=(90, 90), block_bytes=300 * 2**20)
    assert slabs[1][0] > 4 * slabs[0][0]
