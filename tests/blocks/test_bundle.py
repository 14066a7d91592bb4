"""Tests of bundles: the number of blocks in a task changes no bit of a result, no count and no reading."""

from __future__ import annotations

import threading
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.blocks import Blocks, add, bundle, map_fold, open_blocks
from scalehsi.blocks.bundle import Bundle, bundle_size, cut_bundles, fold_bundle, fold_nodes, nodes_of, reduction_tasks
from scalehsi.blocks.graph import tasks
from scalehsi.cube import make_cube
from tests.helpers import CountingStore, assert_same, counts_cube, iterate, moments, random_mask, update
from tests.strategies import Case, cases

STEPS = [1, 2, 4, 8, 16, 32]


def opened(cube: xr.DataArray, step: int, **options: Any) -> Blocks:
    view = open_blocks(cube, **options)
    view.__dict__["blocks_per_task"] = step
    return view


# The tree of sums.


def slow_tree(leaves: list[Any]) -> Any:
    """The tree of the contract: four blocks are added, then four of these sums, and so on, from left to right."""
    while len(leaves) > 1:
        level = []
        for i in range(0, len(leaves), 4):
            total = leaves[i]
            for leaf in leaves[i + 1 : i + 4]:
                total = total + leaf
            level.append(total)
        leaves = level
    return leaves[0]


def folded(values: list[Any], step: int, combine: Any = add) -> list[Any]:
    sums = [None if v is None else {"s": v} for v in values]
    return [fold_bundle(iter(sums[part]), step, combine) for part in cut_bundles(len(sums), step)]


@given(n=st.integers(1, 150), step=st.sampled_from(STEPS), seed=st.integers(0, 99))
def test_any_bundling_gives_the_bits_of_the_tree_over_blocks(n: int, step: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = list(rng.standard_normal(n) * 10.0 ** rng.integers(-12, 12, n))
    nodes = folded(values, step)
    want = slow_tree(values)
    assert fold_nodes(nodes, add) == {"s": want}
    leaves = tasks("bundle", [(lambda found=found: found, ()) for found in nodes])
    (top,) = reduction_tasks(leaves, step, add, "reduce").compute(scheduler="synchronous")
    assert top == {"s": want}


@given(values=st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=70), step=st.sampled_from(STEPS))
def test_blocks_without_a_pixel_do_not_change_the_sums(values: list[int | None], step: int) -> None:
    combine = lambda a, b: {"s": f"{a['s']}{b['s']}"}  # noqa: E731 - in order, and each one once
    got = fold_nodes(folded(values, step, combine), combine)
    digits = "".join(str(v) for v in values if v is not None)
    assert got == ({"s": int(digits) if len(digits) == 1 else digits} if digits else None)


def test_empty_statistics_are_not_the_same_as_no_pixels() -> None:
    for step in STEPS:
        assert fold_nodes([fold_bundle(iter([None, {}, None]), max(4, step), add)], add) == {}
        assert fold_nodes([fold_bundle(iter([None, None]), step, add)], add) is None


@given(st.integers(1, 5000), st.integers(1, 200), st.integers(1, 2**31), st.booleans())
def test_a_bundle_is_a_power_of_two_of_blocks_and_every_thread_has_some(
    blocks: int, threads: int, block_bytes: int, resident: bool
) -> None:
    size = bundle_size(blocks, threads=threads, block_bytes=block_bytes, resident=resident)
    count, height = nodes_of(size)
    assert size == count * 4**height
    assert count in (1, 2)
    assert size == 1 or size * block_bytes <= bundle.MAX_BUNDLE_BYTES
    least = bundle.MIN_RESIDENT_BUNDLES_PER_THREAD if resident else bundle.MIN_STREAMED_BUNDLES_PER_THREAD
    assert size == 1 or blocks // size >= least * threads
    slices = cut_bundles(blocks, size)
    assert [i for part in slices for i in range(part.start, part.stop)] == list(range(blocks))


def test_bundles_of_small_blocks_are_few() -> None:
    for blocks in (1024, 100_000):
        size = bundle_size(blocks, threads=2, block_bytes=2**12, resident=True)
        assert blocks / size <= 4 * 2 * bundle.MIN_RESIDENT_BUNDLES_PER_THREAD


def test_a_bundle_has_the_size_of_its_values() -> None:
    assert Bundle((np.zeros(1000), np.zeros(50))).__sizeof__() >= 8400


# Passes.


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("lazy", [True, False])
def test_an_iteration_has_the_same_bits_in_any_bundling(scheduler: str, resident: bool, lazy: bool) -> None:
    cube = counts_cube((23, 10, 8), mask=random_mask((23, 10)))
    cube = cube.chunk(y=1) if lazy else cube
    found = []
    with dask.config.set(scheduler=scheduler):
        for step in STEPS:
            view = opened(cube, step, resident=resident, block_bytes=80)
            assert len(view) == 23
            found.append(iterate(view, passes=3))
    for other in found[1:]:
        assert_same(other, found[0])


@given(case=cases(), step=st.sampled_from(STEPS[:4]), other=st.sampled_from(STEPS[:4]))
def test_handles_and_maps_are_aligned_with_other_bundles(case: Case, step: int, other: int) -> None:
    with dask.config.set(scheduler="synchronous"):
        view = opened(case.cube, step, **case.options)
        handles, _ = map_fold(moments, view, keep=["total"])
        again = opened(case.cube, other, **case.options)
        weights = view.align(xr.DataArray(np.arange(case.used.size).reshape(case.used.shape), dims=case.cube.dims[:-1]))
        _, sums = map_fold(moments, again, handles["total"], weights)
    x = case.counts[case.used].astype(np.int64)
    assert sums["aligned_0"] == (x.sum(axis=1) * x[:, 0]).sum()
    assert sums["aligned_1"] == (np.arange(case.used.size)[case.used.reshape(-1)] * x[:, 0]).sum()
    assert len(handles["total"].parts) == len(view)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("keep", [[], ["total"]])
def test_the_report_counts_blocks_not_bundles(step: int, keep: list[str]) -> None:
    reported: list[tuple[int, int]] = []
    with dask.config.set(scheduler="synchronous"):
        view = opened(counts_cube((17, 2, 3)).chunk(y=1), step, block_bytes=6)
        map_fold(moments, view, keep=keep, report=lambda *count: reported.append(count))
    assert reported == [(i, 17) for i in range(1, 18)]


@pytest.mark.parametrize("resident", [True, False])
def test_a_pass_has_one_task_for_each_bundle(resident: bool) -> None:
    ran: list[str] = []
    posttask = lambda key, *_: ran.append(dask.utils.key_split(key))  # noqa: E731
    with dask.config.set(scheduler="synchronous"):
        view = opened(counts_cube((64, 2, 3)).chunk(y=1), 16, block_bytes=6, resident=resident)
        map_fold(moments, view, name="first")
        with dask.callbacks.Callback(posttask=posttask):
            map_fold(moments, view, name="first")
    # The sums were small in the pass before, so they are added up on the client.
    assert ran.count("first") == 4
    assert "first-reduce" not in ran
    assert len(ran) <= 4 + 1  # and the array that all blocks are cut from


def test_small_sums_are_added_on_the_client_and_large_ones_in_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    cube, ran = counts_cube((64, 2, 3)).chunk(y=1), list[str]()
    posttask = lambda key, *_: ran.append(dask.utils.key_split(key))  # noqa: E731
    view = opened(cube, 8, block_bytes=6)
    found = [map_fold(moments, view)[1]]
    for limit, reduced in ((2**20, False), (8 * view.sums_bytes["map-fold"], True)):
        monkeypatch.setattr("scalehsi.blocks.fold.MAX_CLIENT_SUMS_BYTES", limit)
        ran.clear()
        with dask.config.set(scheduler="synchronous"), dask.callbacks.Callback(posttask=posttask):
            found.append(map_fold(moments, view)[1])
        assert ("map-fold-reduce" in ran) is reduced
    for sums in found[1:]:
        assert_same(sums, found[0])


# Reading.


def test_a_streamed_bundle_has_one_block_and_the_next_one_in_memory() -> None:
    alive, peak, lock = 0, 0, threading.Lock()

    class Counted(np.ndarray[Any, Any]):
        def __del__(self) -> None:
            nonlocal alive
            if self.base is None:
                with lock:
                    alive -= 1

    def make(block_info: Any = None) -> Any:
        nonlocal alive, peak
        made = np.ndarray.__new__(Counted, (1, 8, 64), dtype=np.uint8)
        made[...] = 1
        with lock:
            alive += 1
            peak = max(peak, alive)
        return made

    data = dask.array.map_blocks(make, chunks=((1,) * 16, (8,), (64,)), dtype="u1", meta=np.empty((0, 0, 0), "u1"))
    cube = make_cube(data, energy=range(64), energy_units="eV")
    with dask.config.set(scheduler="synchronous"):
        view = opened(cube, 16, resident=False, block_bytes=512)
        _, sums = map_fold(lambda x: ({}, {"n": int(x.sum())}), view)
    assert sums["n"] == 16 * 8 * 64
    assert peak <= 3
    assert alive == 0


def test_the_next_block_is_read_while_one_is_computed() -> None:
    reading, working = threading.Event(), threading.Event()
    order: list[str] = []

    def make(block_info: Any = None) -> Any:
        (first, _), *_ = block_info[None]["array-location"]
        if first == 1:
            assert working.wait(60)
            reading.set()
        order.append(f"read {first}")
        return np.full((1, 2, 3), first, "u1")

    def work(x: Any) -> Any:
        if x[0, 0] == 0:
            working.set()
            assert reading.wait(60)
        order.append(f"work {x[0, 0]}")
        return {}, {"n": 1}

    data = dask.array.map_blocks(make, chunks=((1,) * 4, (2,), (3,)), dtype="u1", meta=np.empty((0, 0, 0), "u1"))
    with dask.config.set(scheduler="synchronous"):
        view = opened(make_cube(data, energy=range(3), energy_units="eV"), 4, resident=False, block_bytes=6)
        map_fold(work, view)
    assert [w for w in order if w.startswith("work")] == [f"work {i}" for i in range(4)]


def test_an_error_while_reading_comes_through_and_leaves_no_thread_behind() -> None:
    def make(block_info: Any = None) -> Any:
        if block_info[None]["chunk-location"][0] == 2:
            raise OSError("the disk is gone")
        return np.ones((1, 2, 3), "u1")

    data = dask.array.map_blocks(make, chunks=((1,) * 8, (2,), (3,)), dtype="u1", meta=np.empty((0, 0, 0), "u1"))
    before = threading.active_count()
    for resident in (True, False):
        with dask.config.set(scheduler="synchronous"), pytest.raises(OSError, match="the disk is gone"):
            map_fold(moments, opened(make_cube(data, energy=range(3), energy_units="eV"), 8, resident=resident))
    assert threading.active_count() == before


# The counter of readings.


@pytest.mark.parametrize("resident", [True, False])
def test_readings_are_counted_as_the_store_counts_them(resident: bool) -> None:
    store = CountingStore(counts_cube((8, 4, 6)).values)
    lazy = dask.array.from_array(store, chunks=(2, 4, 6), name=f"store-reads-{resident}", meta=store.values[:0])
    view = open_blocks(make_cube(lazy, energy=range(6), energy_units="eV"), resident=resident, block_bytes=48)
    assert view.reads == 0
    for passes in (1, 2, 3):
        map_fold(moments, view)
        assert view.reads == (1 if resident else passes)
        assert set(store.reads.values()) == {view.reads}
    map_fold(update, view, shared={"s": np.ones((1, 6))}, keep=["c"], halo=1)
    assert view.reads == (2 if resident else 4)
    view.release()
    map_fold(moments, view)
    assert view.reads == (3 if resident else 5)
    assert set(store.reads.values()) == {view.reads}
