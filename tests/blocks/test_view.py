"""Tests of a cube cut into blocks: where they lie, their sizes, when they stay in memory, and maps of their rows."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.blocks import Capacity, map_fold, open_blocks, opening
from scalehsi.blocks.tile import overlaps
from scalehsi.chunks import MiB
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.helpers import CountingStore, counts_cube, moments, raise_if_dask_computes
from tests.paths import ROOT
from tests.strategies import Case, cases

# Where blocks lie.


@given(case=cases(), halo=st.integers(0, 4))
def test_the_cores_of_the_blocks_tile_the_cube(case: Case, halo: int) -> None:
    blocks = open_blocks(case.cube, **case.options)
    places = blocks.places(halo)
    assert len(places) == len(blocks)
    numbers = np.arange(case.used.size).reshape(case.used.shape)
    seen = np.concatenate([place.index()[place.core()] for place in places])
    np.testing.assert_array_equal(np.sort(seen), numbers.reshape(-1))
    for place in places:
        np.testing.assert_array_equal(place.index(), numbers[place.window].reshape(-1))
        assert place.outer == numbers[place.window].shape
        assert place.has_halo == (halo > 0)
        # The halo is as wide as asked for, unless the cube ends; leading dims have none.
        for axis, (start, size, before, after) in enumerate(
            zip(place.start, place.shape, place.before, place.after, strict=True)
        ):
            reach = halo if axis >= len(place.shape) - 2 else 0
            assert before == min(reach, start)
            assert after == min(reach, case.used.shape[axis] - start - size)


@given(case=cases())
def test_blocks_stay_within_their_bytes(case: Case) -> None:
    blocks = open_blocks(case.cube, **case.options)
    pixel = case.counts.shape[-1] * case.cube.dtype.itemsize
    most = max(pixel, case.block_bytes or 2**30)
    # A stored chunk is cut only when it is four times too large.
    stored = 0 if case.cube.chunks is None else max(map(max, case.cube.chunks)) ** len(case.used.shape) * pixel
    assert blocks.block_bytes <= max(most, min(stored, 4 * most))
    assert blocks.block_bytes == max(int(np.prod(place.shape)) for place in blocks.places()) * pixel


@given(data=st.data(), size=st.integers(1, 30))
def test_overlaps_finds_every_pixel_of_a_window_once(data: st.DataObject, size: int) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, size - 1)))) if size > 1 else []
    edges = [0, *cuts, size]
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    pixels, targets = [], []
    for block, inside, target in overlaps(edges, start, stop):
        assert 0 <= inside.start < inside.stop <= edges[block + 1] - edges[block]
        pixels += range(edges[block] + inside.start, edges[block] + inside.stop)
        targets += range(target.start, target.stop)
    assert pixels == list(range(start, stop))
    assert targets == list(range(stop - start))


# What open_blocks chooses.


def pretend(monkeypatch: pytest.MonkeyPatch, **offer: Any) -> None:
    given = {"workers": 1, "threads": 2, "memory": 2**30, "remote": False, **offer}
    monkeypatch.setattr(opening, "capacity", lambda: Capacity(**given))


def lazy_cube(shape: tuple[int, ...], dtype: str = "u1", chunks: Any = None) -> xr.DataArray:
    data = dask.array.zeros(shape, dtype=dtype, chunks=chunks or (*((16,) * (len(shape) - 1)), shape[-1]))
    return make_cube(data, energy=np.arange(shape[-1]), energy_units="eV")


def test_a_cube_is_resident_when_it_fills_at_most_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = lazy_cube((64, 64, 1024))  # 4 MiB
    for memory, resident in ((8 * MiB, True), (8 * MiB - 2, False)):
        pretend(monkeypatch, memory=memory)
        assert open_blocks(cube).resident is resident
    assert open_blocks(cube, resident=True).resident is True
    pretend(monkeypatch, memory=2**40)
    assert open_blocks(cube, resident=False).resident is False


def test_blocks_leave_room_for_the_copies_of_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = lazy_cube((256, 256, 1024))  # 64 MiB
    pretend(monkeypatch, workers=2, threads=8, memory=48 * MiB, remote=True)
    blocks = open_blocks(cube)
    assert blocks.block_bytes <= 48 * MiB // 2 // 4 // 6
    assert not blocks.resident
    assert open_blocks(cube, block_bytes=64 * MiB).block_bytes <= 48 * MiB // 2 // 4 // 6


def test_there_are_two_blocks_for_each_thread_unless_they_get_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, threads=4, memory=2**34)
    assert len(open_blocks(lazy_cube((256, 256, 1024)))) >= 8
    assert len(open_blocks(counts_cube((16, 16, 64)))) == 1


def test_blocks_of_a_streamed_cube_are_stored_chunks_and_small_chunks_are_joined() -> None:
    for side, want in ((64, 4 * MiB * 2), (128, 16 * MiB), (256, 64 * MiB)):
        cube = lazy_cube((512, 512, 1024), chunks=(side, side, 1024))
        assert open_blocks(cube, resident=False).block_bytes == want
    # No more blocks than that; a chunk is not cut for the load; a given size of blocks is used.
    many = open_blocks(lazy_cube((16384, 16384, 2048), chunks=(64, 64, 2048)), resident=False)
    assert (len(many), many.block_bytes) == (2**14, 32 * MiB)
    huge = lazy_cube((512, 512, 1024), chunks=(512, 400, 1024))
    assert open_blocks(huge, resident=False).grid == ((512,), (400, 112))
    assert open_blocks(cube, resident=False, block_bytes=64 * MiB).block_bytes == 64 * MiB
    assert open_blocks(lazy_cube((512, 512, 1024)), resident=False, block_bytes=64 * MiB).block_bytes > 32 * MiB


def test_a_spectrum_that_no_worker_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, memory=6 * 2 * 2 * MiB)
    open_blocks(lazy_cube((2, 2, 2 * MiB)))
    with pytest.raises(InputError, match=r"one spectrum \(2\.0 MiB\) is more than the 2\.0 MiB .*more memory"):
        open_blocks(lazy_cube((2, 2, 2 * MiB + 1)))


def test_a_large_cube_of_this_process_is_not_sent_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    cube = counts_cube((8, 8, 16))
    monkeypatch.setattr(opening, "MAX_INLINE_CUBE_BYTES", 1023)
    pretend(monkeypatch, workers=2, remote=True)
    with pytest.raises(InputError, match=r"scalehsi\.save\(cube, 'cube\.zarr'\)"):
        open_blocks(cube)
    open_blocks(cube.chunk(y=4))
    monkeypatch.setattr(opening, "MAX_INLINE_CUBE_BYTES", 1024)
    assert open_blocks(cube).resident
    monkeypatch.setattr(opening, "MAX_INLINE_CUBE_BYTES", 0)
    pretend(monkeypatch)
    open_blocks(cube)


def test_blocks_of_a_cropped_cube_are_whole_chunks() -> None:
    store = CountingStore(counts_cube((24, 24, 6)).values)
    lazy = dask.array.from_array(store, chunks=(8, 8, 6), name="store-cropped", meta=store.values[:0])
    cube = make_cube(lazy, energy=range(6), energy_units="eV").isel(y=slice(5, None), x=slice(0, 22))
    blocks = open_blocks(cube, resident=False, block_bytes=8 * 16 * 6)
    assert blocks.grid == ((3, 8, 8), (16, 6))
    _, sums = map_fold(moments, blocks)
    assert sums["spectrum"].tolist() == store.values[5:, :22].sum(axis=(0, 1)).tolist()
    assert set(store.reads.values()) == {1}


def test_opening_does_not_read_a_cube_that_xarray_opened_without_dask(tmp_path: Path) -> None:
    cube = counts_cube((4, 3, 5))
    cube.rename("counts").to_dataset().to_zarr(tmp_path / "cube.zarr", consolidated=False)
    stored = xr.open_zarr(tmp_path / "cube.zarr", chunks=None, consolidated=False)["counts"]
    blocks = open_blocks(stored)
    assert not stored.variable._in_memory
    _, sums = map_fold(moments, blocks)
    assert sums["spectrum"].tolist() == cube.values.sum(axis=(0, 1)).tolist()


def test_wrong_metadata_are_refused() -> None:
    with pytest.raises(InputError, match="transpose"):
        open_blocks(counts_cube((4, 3, 5)).transpose("energy", "y", "x"))
    with pytest.raises(InputError, match="device 'gpu' is not known"):
        open_blocks(counts_cube((4, 3, 5)), device="gpu")


def test_dask_with_its_next_array_engine_is_refused_with_the_repair() -> None:
    code = (
        "import dask; dask.config.set({'array.query-planning': True})\n"
        "import numpy as np\n"
        "from scalehsi.cube import make_cube\n"
        "from scalehsi.blocks import open_blocks\n"
        "cube = make_cube(np.ones((2, 2, 3)), energy=range(3), energy_units='eV')\n"
        "try:\n"
        "    open_blocks(cube)\n"
        "except ValueError as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("InputError Dask's option array.query-planning is on")
    assert "dask.config.set({'array.query-planning': False})" in done.stdout


# Blocks in memory.


def test_resident_blocks_are_released_with_their_view() -> None:
    tiles: list[weakref.ref[Any]] = []

    def remember(x: Any, *, tile: Any) -> Any:
        tiles.append(weakref.ref(tile))
        return {}, {"n": x.shape[0]}

    blocks = open_blocks(counts_cube((8, 4, 3)).chunk(y=2), resident=True, block_bytes=24)
    map_fold(remember, blocks, tile=True)
    gc.collect()
    assert len(tiles) == 4
    assert all(ref() is not None for ref in tiles)
    del blocks
    gc.collect()
    assert all(ref() is None for ref in tiles)


def test_a_view_of_a_cube_in_memory_makes_no_copy() -> None:
    cube = counts_cube((8, 4, 3))
    shares: list[bool] = []

    def look(x: Any) -> Any:
        shares.append(np.shares_memory(x, cube.values))
        return {}, {}

    map_fold(look, open_blocks(cube, block_bytes=24))
    assert shares == [True] * 4


# Maps of rows.


@pytest.mark.parametrize("lazy", [True, False])
def test_maps_have_the_dims_coordinates_and_chunks_of_the_cube(small_cube: xr.DataArray, lazy: bool) -> None:
    cube = small_cube.assign_coords(stage=3.5, row=("y", np.arange(12)))
    cube = cube.chunk(y=5, x=4) if lazy else cube
    blocks = open_blocks(cube, block_bytes=160)
    handles, _ = map_fold(moments, blocks, keep=["total", "two"])
    two = handles["two"].to_dataarray({"component": 2}, dtype="f4")
    assert two.dims == ("component", "y", "x")
    assert two.dtype == np.float32
    assert two.chunks == ((2,), *blocks.grid)
    assert set(two.coords) == {"y", "x", "stage", "row"}
    assert two.x.attrs["units"] == "nm"
    np.testing.assert_array_equal(two.y, cube.y)
    assert handles["total"].to_dataarray(fill=0).isnull().sum() == 0
    with raise_if_dask_computes(1):
        one = two.isel(component=1, y=slice(0, 2)).compute()
    want = np.where(small_cube["mask"], small_cube.values[..., 1], np.nan)
    np.testing.assert_array_equal(one.values, want[:2])


def test_rows_of_two_dims_become_two_leading_dims() -> None:
    cube = counts_cube((3, 4, 6))

    def outer(x: Any) -> Any:
        return {"pairs": x[:, :2, None].astype(int) * x[:, None, :3]}, {}

    handles, _ = map_fold(outer, open_blocks(cube, block_bytes=24), keep=["pairs"])
    got = handles["pairs"].to_dataarray({"a": 2, "b": 3}, dtype="i8", fill=0)
    assert got.dims == ("a", "b", "y", "x")
    want = np.einsum("yxa,yxb->abyx", cube.values[..., :2].astype(int), cube.values[..., :3].astype(int))
    np.testing.assert_array_equal(got.values, want)


def test_integer_maps_need_an_integer_where_the_mask_leaves_out(small_cube: xr.DataArray) -> None:
    handles, _ = map_fold(moments, small_cube, keep=["total"])
    with pytest.raises(InputError, match=r"int32 maps cannot hold NaN .* type fill=-1"):
        handles["total"].to_dataarray(dtype="i4")
    got = handles["total"].to_dataarray(dtype="i4", fill=-1).values
    np.testing.assert_array_equal(got < 0, ~small_cube["mask"].values)


def test_maps_of_a_handle_are_aligned_with_it_again(small_cube: xr.DataArray) -> None:
    coarse = open_blocks(small_cube, block_bytes=480)
    handles, _ = map_fold(moments, coarse, keep=["total"])
    fine = open_blocks(small_cube, block_bytes=80)
    _, sums = map_fold(moments, fine, handles["total"].to_dataarray(dtype="f8"))
    x = small_cube.values[small_cube["mask"].values].astype(np.int64)
    assert sums["aligned_0"].tolist() == [(x.sum(axis=1) * x[:, 0]).sum()]


def test_cubes_beside_the_first_reach_the_function_cut_at_its_pixels() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 9, (7, 9, n)).astype("u2") for n in (4, 6))
    used = rng.random((7, 9)) > 0.2
    cube = make_cube(first, energy=range(4), energy_units="eV", mask=used).chunk({"y": 3})
    other = make_cube(second, energy=range(6), energy_units="eV").chunk({"y": 2, "x": 5})
    for beside in (other, other.compute()):
        view = open_blocks(cube, beside=[beside], resident=False)
        assert view.block_bytes == max(view.grid[0]) * 9 * 10 * 2
        _, sums = map_fold(lambda x, y: ({}, {"product": x.T @ y}), view)
        np.testing.assert_array_equal(sums["product"], first[used].T @ second[used])
        assert view.reads == 1
    pairs = view.derive(lambda x, y: (x[:, :2], y + x[:, :1]), name="pairs")
    _, sums = map_fold(lambda x, y: ({}, {"product": x.T @ y}), pairs)
    np.testing.assert_array_equal(sums["product"], first[used][:, :2].T @ (second[used] + first[used][:, :1]))
    with pytest.raises(InputError, match="a view of several cubes has no halo"):
        view.feeds(halo=1)
