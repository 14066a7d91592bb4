"""Tests of `map_fold`: numbers do not depend on chunks, residency or scheduler, and nothing is computed unasked."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import dataclass, field
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scalehsi import arrays
from scalehsi.blocks import add, map_fold, map_pixels, open_blocks
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.helpers import (
    CountingStore,
    assert_same,
    counts_cube,
    iterate,
    moments,
    raise_if_dask_computes,
    random_mask,
    update,
)
from tests.strategies import Case, cases, with_halo

pytestmark = pytest.mark.long

LOCAL = ["synchronous", "threads"]


def truth(case: Case) -> dict[str, Any]:
    x = case.counts[case.used].astype(np.int64)
    return {"n": len(x), "spectrum": x.sum(axis=0), "gram": x.T @ x}


# Equality over chunkings and schedulers.


@given(case=cases())
def test_sums_and_maps_are_those_of_numpy_for_any_shape_chunks_mask_and_residency(case: Case) -> None:
    with dask.config.set(scheduler="synchronous"):
        handles, sums = map_fold(moments, open_blocks(case.cube, **case.options), keep=["total", "two"])
        total = handles["total"].to_dataarray(dtype="f8")
        two = handles["two"].to_dataarray({"pair": min(2, case.counts.shape[-1])}, dtype="i8", fill=-1)
        assert_same(sums, truth(case))
        np.testing.assert_array_equal(total.values, np.where(case.used, case.counts.sum(axis=-1), np.nan))
        pairs = np.where(case.used[..., None], case.counts[..., :2].astype(np.int64), -1)
        np.testing.assert_array_equal(two.values, np.moveaxis(pairs, -1, 0))
    assert total.dims == case.cube.dims[:-1]
    assert two.dims == ("pair", *case.cube.dims[:-1])


@given(case=cases(max_side=5))
def test_threads_give_the_numbers_of_one_thread(case: Case) -> None:
    with dask.config.set(scheduler="threads"):
        handles, sums = map_fold(moments, open_blocks(case.cube, **case.options), keep=["total"])
        assert_same(sums, truth(case))
        got = handles["total"].to_dataarray(dtype="f8").values
    np.testing.assert_array_equal(got, np.where(case.used, case.counts.sum(axis=-1), np.nan))


@pytest.mark.parametrize("scheduler", LOCAL)
@pytest.mark.parametrize("chunks", [None, (12, 10), (5, 3), (1, 1)], ids=["memory", "one", "ragged", "many"])
def test_an_iteration_gives_the_same_numbers(small_cube: xr.DataArray, chunks: Any, scheduler: str) -> None:
    with dask.config.set(scheduler="synchronous"):
        want = iterate(open_blocks(small_cube), passes=5)
    cube = small_cube if chunks is None else small_cube.chunk(y=chunks[0], x=chunks[1])
    block = 1 if chunks is None else chunks[0] * chunks[1] * 8
    with dask.config.set(scheduler=scheduler):
        for resident in (True, False):
            got = iterate(open_blocks(cube, block_bytes=block, resident=resident), passes=5)
            for name, value in want.items():
                np.testing.assert_allclose(got[name], value, rtol=1e-11, err_msg=name)


def test_the_same_blocks_give_the_same_bits_on_any_scheduler_resident_or_streamed(small_cube: xr.DataArray) -> None:
    cube = small_cube.chunk(y=3, x=4)
    results = []
    for scheduler in LOCAL:
        for resident in (True, False):
            with dask.config.set(scheduler=scheduler):
                results.append(iterate(open_blocks(cube, block_bytes=96, resident=resident), passes=4))
    for other in results[1:]:
        assert_same(other, results[0])


@given(case=cases(), seed=st.integers(0, 2**31))
def test_random_numbers_counted_on_the_pixel_do_not_depend_on_chunks(case: Case, seed: int) -> None:
    def draw(x: Any, *, tile: Any) -> Any:
        values = [np.random.Generator(np.random.Philox(key=[seed, int(i)])).random() for i in tile.index]
        return {"r": np.array(values)}, {"index": int(tile.index.sum())}

    with dask.config.set(scheduler="synchronous"):
        handles, sums = map_fold(draw, open_blocks(case.cube, **case.options), keep=["r"], tile=True)
        got = handles["r"].to_dataarray(dtype="f8").values
    numbers = np.arange(case.used.size).reshape(case.used.shape)
    want = [np.random.Generator(np.random.Philox(key=[seed, int(i)])).random() for i in numbers.flat]
    np.testing.assert_array_equal(got, np.where(case.used, np.reshape(want, case.used.shape), np.nan))
    assert sums["index"] == numbers[case.used].sum()


# Masks.


def test_masked_pixels_are_dropped(small_cube: xr.DataArray) -> None:
    used = small_cube["mask"].values
    alone = make_cube(small_cube.values[used][None], energy=small_cube.energy.values, energy_units="keV")
    _, got = map_fold(moments, open_blocks(small_cube, block_bytes=100))
    _, want = map_fold(moments, open_blocks(alone, block_bytes=100))
    assert_same(got, want)


def test_a_block_without_a_used_pixel_is_skipped() -> None:
    mask = np.zeros((6, 4), dtype=bool)
    mask[2] = True
    cube = counts_cube((6, 4, 3), mask=mask)
    view = open_blocks(cube, block_bytes=12)

    def never_empty(x: Any, *aligned: Any) -> Any:
        assert x.shape[0] > 0
        return moments(x, *aligned)

    handles, first = map_fold(never_empty, view, keep=["total"])
    _, second = map_fold(never_empty, view, handles["total"], keep=["total"])
    assert len(view) == 6
    assert first["n"] == second["n"] == 4
    assert np.isfinite(handles["total"].to_dataarray().values).sum() == 4


def test_a_lazy_mask_that_leaves_nothing_is_refused_with_the_repair() -> None:
    mask = xr.DataArray(np.zeros((4, 3), dtype=bool), dims=("y", "x")).chunk(y=2)
    cube = counts_cube((4, 3, 5)).assign_coords(mask=mask)
    for keep in ([], ["total"]):
        with pytest.raises(InputError, match=r"leaves no pixel.*assign_coords\(mask=~cube"):
            map_fold(moments, cube, keep=keep)


def test_sums_may_be_empty(small_cube: xr.DataArray) -> None:
    handles, sums = map_fold(lambda x: ({"a": x[:, 0]}, {}), open_blocks(small_cube, block_bytes=80), keep=["a"])
    assert sums == {}
    assert handles["a"].to_dataarray().sizes == {"y": 12, "x": 10}


# Sums.


@pytest.mark.parametrize("block_bytes", [None, 64], ids=["one block", "many"])
def test_sums_neither_overflow_nor_round_away(block_bytes: int | None) -> None:
    cube = make_cube(np.full((64, 64, 1), 255, "u1"), energy=[1.0], energy_units="eV")

    def narrow(x: Any) -> Any:
        sums = {
            "unsigned": np.add.reduce(x[:1, 0], dtype=np.uint8),
            "signed": np.int8(127),
            "single": np.float32(2**24 + 2),
            "flag": np.True_,
            "array": np.full(3, 255, np.uint8),
            "pure": 1,
            "complex": np.complex64(1j),
        }
        return {}, sums

    view = open_blocks(cube, block_bytes=block_bytes)
    _, sums = map_fold(narrow, view)
    n = len(view)
    assert n == (1 if block_bytes is None else 64)
    assert sums["unsigned"] == 255 * n
    assert sums["signed"] == 127 * n
    assert sums["single"] == (2**24 + 2) * n
    assert sums["flag"] == n
    assert sums["array"].tolist() == [255 * n] * 3
    assert sums["pure"] == n
    assert sums["complex"] == 1j * n
    kinds = {name: np.asarray(value).dtype for name, value in sums.items()}
    assert kinds["unsigned"] == kinds["signed"] == kinds["flag"] == kinds["array"] == kinds["pure"] == np.int64
    assert kinds["single"] == np.float64
    # A number is a number, however many blocks it came from.
    assert isinstance(sums["single"], np.float64)
    assert isinstance(sums["pure"], np.int64)


dicts_of_sums = st.dictionaries(st.sampled_from("abcd"), st.integers(-(2**40), 2**40), max_size=4)


@given(a=dicts_of_sums, b=dicts_of_sums, c=dicts_of_sums)
def test_add_is_associative_and_commutative_with_empty_as_its_zero(a: Any, b: Any, c: Any) -> None:
    assert add(add(a, b), c) == add(a, add(b, c))
    assert add(a, b) == add(b, a)
    assert add(a, {}) == a


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 16, 17, 64, 65, 257])
def test_the_tree_combines_every_block_once_and_in_order(blocks: int) -> None:
    cube = counts_cube((blocks, 1, 2))

    def ends(x: Any, *, tile: Any) -> Any:
        return {}, {"first": int(tile.index[0]), "last": int(tile.index[-1]), "seen": [int(i) for i in tile.index]}

    def concatenate(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        return {"first": left["first"], "last": right["last"], "seen": [*left["seen"], *right["seen"]]}

    view = open_blocks(cube, block_bytes=2)
    assert len(view) == blocks
    _, sums = map_fold(ends, view, combine=concatenate, tile=True)
    assert sums == {"first": 0, "last": blocks - 1, "seen": list(range(blocks))}


@given(case=cases())
def test_a_combine_of_ones_own_finds_the_largest_pixel(case: Case) -> None:
    def brightest(x: Any, *, tile: Any) -> Any:
        totals = x.sum(axis=1, dtype=np.int64)
        i = int(totals.argmax())
        return {}, {"best": int(totals[i]), "at": int(tile.index[i])}

    def larger(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
        return max(left, right, key=lambda s: (s["best"], -s["at"]))

    with dask.config.set(scheduler="synchronous"):
        _, got = map_fold(brightest, open_blocks(case.cube, **case.options), combine=larger, tile=True)
    totals = np.where(case.used, case.counts.sum(axis=-1, dtype=np.int64), -1)
    assert (got["best"], got["at"]) == (totals.max(), totals.argmax())


# Computing: once, and never unasked.


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("lazy", [True, False])
def test_opening_lazy_maps_and_handles_compute_nothing(small_cube: xr.DataArray, lazy: bool, resident: bool) -> None:
    cube = small_cube.chunk(y=5, x=4) if lazy else small_cube
    with raise_if_dask_computes(0):
        view = open_blocks(cube, resident=resident, block_bytes=160)
        handles = map_pixels(moments, view, view.align(cube.isel(energy=0)), keep=["total"])
        maps = handles["total"].to_dataarray(dtype="f8")
    np.testing.assert_array_equal(maps.values, cube.sum("energy").where(cube["mask"]).values)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("keep", [[], ["total"]])
def test_a_pass_computes_once(small_cube: xr.DataArray, lazy: bool, keep: list[str]) -> None:
    calls: list[int] = []

    def counted(x: Any) -> Any:
        calls.append(x.shape[0])
        return moments(x)

    with raise_if_dask_computes(1):
        cube = small_cube.chunk(y=5, x=4) if lazy else small_cube
        view = open_blocks(cube, resident=False, block_bytes=160)
        map_fold(counted, view, keep=keep)
    assert len(calls) == len(view)


def test_resident_blocks_are_loaded_in_a_compute_of_their_own(small_cube: xr.DataArray) -> None:
    with raise_if_dask_computes(3) as scheduler:
        view = open_blocks(small_cube.chunk(y=5), resident=True, block_bytes=160)
        map_fold(moments, view)
        map_fold(moments, view)
    assert scheduler.computes == 3


@pytest.mark.parametrize(("resident", "reads"), [(True, 1), (False, 5)])
@pytest.mark.parametrize("scheduler", LOCAL)
def test_resident_cubes_are_read_once_and_streamed_ones_once_a_pass(scheduler: str, resident: bool, reads: int) -> None:
    store = CountingStore(counts_cube((8, 12, 6)).values)
    lazy = dask.array.from_array(store, chunks=(3, 4, 6), name=f"store-{scheduler}-{resident}", meta=store.values[:0])
    cube = make_cube(lazy, energy=range(6), energy_units="eV")
    with dask.config.set(scheduler=scheduler):
        view = open_blocks(cube, resident=resident, block_bytes=144)
        assert not store.reads
        assert 1 < len(view) <= 9
        iterate(view, passes=5)
    assert len(store.reads) == 9
    assert set(store.reads.values()) == {reads}


def test_a_mask_computed_from_the_cube_reads_it_once_more_and_no_more() -> None:
    store = CountingStore(counts_cube((8, 4, 6)).values)
    lazy = dask.array.from_array(store, chunks=(2, 4, 6), name="store-lazy-mask", meta=store.values[:0])
    cube = make_cube(lazy, energy=range(6), energy_units="eV")
    cube = cube.assign_coords(mask=cube.sum("energy") > 10)
    view = open_blocks(cube, resident=True, block_bytes=48)
    handles, _ = map_fold(moments, view, keep=["total"])
    map_fold(moments, view, handles["total"])
    handles["total"].to_dataarray().compute()
    assert set(store.reads.values()) == {2}


# Aligned, shared and kept values.


@given(case=cases())
def test_aligned_maps_are_cut_pixel_by_pixel(case: Case) -> None:
    maps = xr.DataArray(
        np.arange(2 * case.used.size).reshape(2, *case.used.shape), dims=("component", *case.cube.dims[:-1])
    )
    shuffled = maps.transpose(*case.cube.dims[:-1], "component")
    with dask.config.set(scheduler="synchronous"):
        view = open_blocks(case.cube, **case.options)
        lazy = maps.chunk({"component": 1, maps.dims[-1]: 1})
        _, sums = map_fold(moments, view, maps, shuffled, view.align(lazy), maps.isel(component=1))
    weights = case.counts[case.used].astype(np.int64)[:, :1]
    want = (np.moveaxis(maps.values, 0, -1)[case.used] * weights).sum(axis=0)
    for name in ("aligned_0", "aligned_1", "aligned_2"):
        np.testing.assert_array_equal(sums[name], want)
    np.testing.assert_array_equal(sums["aligned_3"], want[1:])


def test_aligned_values_that_do_not_fit_are_refused(small_cube: xr.DataArray) -> None:
    view = open_blocks(small_cube, block_bytes=160)
    handles, _ = map_fold(moments, view, keep=["total"])
    other = open_blocks(small_cube, block_bytes=80)
    with pytest.raises(InputError, match=r"cut into other blocks; open the cube once"):
        map_fold(moments, other, handles["total"])
    with pytest.raises(InputError, match=r"handle\.to_dataarray"):
        map_fold(moments, view, handles["total"], halo=1)
    wrong = xr.DataArray(np.ones((12, 9)), dims=("y", "x"))
    for halo in (0, 1):
        with pytest.raises(InputError, match=r"\{'y': 12, 'x': 10\} are expected, got \{'y': 12, 'x': 9\}"):
            map_fold(moments, view, wrong, halo=halo)
        with pytest.raises(InputError, match="are expected, got"):
            map_fold(moments, view, wrong.rename(x="z"), halo=halo)


def test_shared_values_arrive_unchanged(small_cube: xr.DataArray) -> None:
    @dataclass(frozen=True)
    class Settings:
        weight: int
        doubled: int = field(init=False, default=0)

        def __post_init__(self) -> None:
            object.__setattr__(self, "doubled", 2 * self.weight)

    settings = Settings(3)
    spectra = np.arange(16.0).reshape(2, 8)
    nested = {"levels": [[1, 2], [3]], "word": "mask"}

    def check(x: Any, *, settings: Any, spectra: Any, nested: Any) -> Any:
        same = settings.doubled == 6 and spectra is here and nested == {"levels": [[1, 2], [3]], "word": "mask"}
        return {}, {"same": same, "blocks": 1}

    here = spectra
    view = open_blocks(small_cube, block_bytes=160)
    _, sums = map_fold(check, view, shared={"settings": settings, "spectra": spectra, "nested": nested})
    assert sums["same"] == sums["blocks"] == len(view)


def test_kept_rows_do_not_keep_their_block_in_memory() -> None:
    cube = counts_cube((64, 64, 256)).chunk(y=16)
    view = open_blocks(cube, resident=False)
    handles, _ = map_fold(moments, view, keep=["two"])
    (parts,) = dask.compute(list(handles["two"].parts))
    assert all(part.base is None or part.base.nbytes <= part.nbytes for part in parts)


def test_kept_rows_follow_the_device(small_cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    class OnDevice(np.ndarray[Any, Any]):
        """Stands for a CuPy array; an array of another class is on the host."""

    monkeypatch.setattr(arrays, "resolve_device", lambda device: device)
    monkeypatch.setattr(arrays, "to_device", lambda x, device: x.view(OnDevice) if device == "cuda" else x)

    def check(x: Any, maps: Any, c: Any = None, *, s: Any, scale: float) -> Any:
        for value in (x, maps, s) if c is None else (x, maps, c, s):
            assert isinstance(value, OnDevice), type(value)
        return {"c": x * scale}, {"s": s}

    view = open_blocks(small_cube, device="cuda", block_bytes=160)
    maps = small_cube.isel(energy=0)
    shared = {"s": np.ones(8), "scale": 2.0}
    handles, _ = map_fold(check, view, maps, shared=shared, keep=["c"])
    handles, sums = map_fold(check, view, maps, handles["c"], shared=shared, keep=["c"])
    assert type(sums["s"]) is not OnDevice or isinstance(arrays.to_host(sums["s"]), np.ndarray)
    want = small_cube.values[..., 3] * 2.0
    got = handles["c"].to_dataarray({"channel": 8}, dtype="f8").isel(channel=3)
    np.testing.assert_array_equal(got.values, np.where(small_cube["mask"], want, np.nan))


def test_the_error_of_a_block_function_comes_through(small_cube: xr.DataArray) -> None:
    def wrong(x: Any) -> Any:
        raise InputError("negative counts under a Poisson loss")

    for scheduler in LOCAL:
        with dask.config.set(scheduler=scheduler), pytest.raises(InputError, match="negative counts"):
            map_fold(wrong, small_cube)


# Halo.


def box_sum(x: Any, maps: Any = None, *, tile: Any, halo: int) -> Any:
    """The sum over a square window of neighbours within the cube, and its total over the core."""
    cells = x.reshape(*tile.shape, -1).astype(np.int64)
    if maps is not None:
        cells = cells + maps.reshape(*tile.shape, 1)
    reach = [(0, 0)] * (cells.ndim - 3) + [(halo, halo)] * 2 + [(0, 0)]
    padded = np.pad(cells, reach)
    ny, nx = cells.shape[-3:-1]
    total = sum(padded[..., dy : dy + ny, dx : dx + nx, :] for dy in range(2 * halo + 1) for dx in range(2 * halo + 1))
    rows = np.asarray(total).reshape(x.shape)
    return {"box": rows}, {"sum": rows[tile.core].sum(axis=0), "n": int(tile.core.sum())}


@given(pair=with_halo())
def test_tiles_with_a_halo_equal_the_whole_cube_at_once(pair: tuple[Case, int]) -> None:
    case, halo = pair
    channels = case.counts.shape[-1]
    maps = xr.DataArray(np.arange(case.used.size).reshape(case.used.shape), dims=case.cube.dims[:-1])
    with dask.config.set(scheduler="synchronous"):
        view = open_blocks(case.cube, **case.options)
        handles, sums = map_fold(box_sum, view, maps, halo=halo, tile=True, keep=["box"], shared={"halo": halo})
        got = handles["box"].to_dataarray({"channel": channels}, dtype="i8", fill=-1).values

    cells = case.counts.astype(np.int64) + maps.values[..., None]
    reach = [(0, 0)] * (cells.ndim - 3) + [(halo, halo)] * 2 + [(0, 0)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(cells, reach), (2 * halo + 1, 2 * halo + 1), axis=(-3, -2)
    )
    want = windows.sum(axis=(-2, -1))
    np.testing.assert_array_equal(np.moveaxis(got, 0, -1)[case.used], want[case.used])
    np.testing.assert_array_equal(np.moveaxis(got, 0, -1)[~case.used], -1)
    np.testing.assert_array_equal(sums["sum"], want[case.used].sum(axis=0))
    assert sums["n"] == case.used.sum()


def test_masked_neighbours_stay_in_a_tile_with_a_halo_even_in_a_single_block(small_cube: xr.DataArray) -> None:
    def shape(x: Any, *, tile: Any) -> Any:
        return {}, {"rows": x.shape[0], "cells": int(np.prod(tile.shape)), "core": int(tile.core.sum())}

    for block_bytes in (None, 80):
        view = open_blocks(small_cube, block_bytes=block_bytes)
        _, sums = map_fold(shape, view, halo=2, tile=True)
        assert sums["rows"] == sums["cells"]
        assert sums["core"] == small_cube["mask"].sum()


def test_a_halo_is_read_at_most_once_more_per_neighbour(small_cube: xr.DataArray) -> None:
    store = CountingStore(counts_cube((12, 12, 6)).values)
    lazy = dask.array.from_array(store, chunks=(4, 4, 6), name="store-halo", meta=store.values[:0])
    cube = make_cube(lazy, energy=range(6), energy_units="eV")
    view = open_blocks(cube, resident=False, block_bytes=96)
    assert len(view) == 9
    map_fold(box_sum, view, halo=1, tile=True, shared={"halo": 1})
    assert set(store.reads.values()) == {1}


# Memory and names.


@pytest.mark.parametrize("resident", [True, False])
def test_two_hundred_iterations_need_no_more_memory(resident: bool) -> None:
    cube = counts_cube((16, 64, 512)).chunk(y=8)
    view = open_blocks(cube, resident=resident, block_bytes=2**18)

    def light(x: Any, c: Any = 0.0) -> Any:
        return {"c": x[:, :1] + c}, {"n": x.shape[0]}

    handles, _ = map_fold(light, view, keep=["c"])

    def some(n: int) -> int:
        nonlocal handles
        for _ in range(n):
            handles, _ = map_fold(light, view, handles["c"], keep=["c"])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = some(10)
        growth = some(200) - before
    finally:
        tracemalloc.stop()
    assert view.block_bytes == 2**18
    assert growth < view.block_bytes


def test_tasks_are_named_for_the_dashboard(small_cube: xr.DataArray) -> None:
    names: set[str] = set()
    with (
        dask.config.set(scheduler="synchronous"),
        dask.callbacks.Callback(posttask=lambda key, *_: names.add(dask.utils.key_split(key))),
    ):
        view = open_blocks(small_cube.chunk(y=6), block_bytes=480)
        map_fold(update, view, shared={"s": np.ones((1, 8))}, keep=["c"], name="nmf-update")
    assert {"load", "nmf-update", "nmf-update-c", "nmf-update-sums", "nmf-update-reduce"} <= names


def test_no_key_is_used_twice(small_cube: xr.DataArray) -> None:
    seen: list[Any] = []
    with dask.config.set(scheduler="synchronous"), dask.callbacks.Callback(posttask=lambda key, *_: seen.append(key)):
        for _ in range(2):
            view = open_blocks(small_cube, block_bytes=480)
            for _ in range(2):
                map_fold(update, view, shared={"s": np.ones((1, 8))}, keep=["c"], name="nmf-update")
    assert len(seen) == len(set(seen))


def test_random_mask_is_not_trivial() -> None:
    assert 0 < random_mask((12, 10)).mean() < 1
