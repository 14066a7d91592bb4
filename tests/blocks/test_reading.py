"""Tests of reading blocks outside the Dask graph: the same values, each task once, shared tasks unchanged."""

from __future__ import annotations

from collections import Counter
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given

from scalehsi.blocks import map_fold, open_blocks
from scalehsi.blocks.feed import call_with_retries
from scalehsi.blocks.reading import TaskChain, prefetched, separate_readers, task_readers
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.helpers import CountingStore, counts_cube, moments
from tests.strategies import Case, cases


def parts_of(data: da.Array) -> tuple[Any, ...]:
    return tuple(data.to_delayed().reshape(-1))


def values_of(readers: Any) -> list[Any]:
    with dask.config.set(scheduler="synchronous"):
        return [reader.read(*dask.compute(*reader.takes)) for reader in readers]


@given(case=cases())
def test_blocks_of_any_cube_are_read_as_dask_reads_them(case: Case) -> None:
    cuts = open_blocks(case.cube, **case.options).cuts
    parts = cuts.cut(case.cube.data)
    want = dask.compute(*parts, scheduler="synchronous")
    for readers in (separate_readers("common", parts) or task_readers(parts), task_readers(parts)):
        for got, block in zip(values_of(readers), want, strict=True):
            np.testing.assert_array_equal(got, block)


def test_tasks_of_one_block_run_in_its_reader_and_once() -> None:
    ran: Counter[Any] = Counter()

    def make(block_info: Any = None) -> Any:
        ran[block_info[None]["chunk-location"]] += 1
        return np.ones((2, 3))

    data = da.map_blocks(make, chunks=((2,) * 6, (3,)), dtype=float, meta=np.empty((0, 0)))
    readers = separate_readers("common", parts_of((data + 1).rechunk((4, 3)) * 2))
    assert readers is not None
    assert len(readers) == 3
    assert not any(reader.takes for reader in readers)
    assert all(isinstance(reader.read, TaskChain) for reader in readers)
    for got in values_of(readers):
        np.testing.assert_array_equal(got, np.full((4, 3), 4.0))
    assert set(ran.values()) == {1}
    assert len(ran) == 6


def test_tasks_that_all_blocks_need_stay_tasks() -> None:
    ran: list[int] = []

    @dask.delayed(pure=True)
    def dark() -> Any:
        ran.append(1)
        return np.full((1, 3), 0.5)

    noise = da.from_delayed(dark(), (1, 3), float)
    data = da.ones((8, 3), chunks=(2, 3)) - noise
    readers = separate_readers("common", parts_of(data))
    assert readers is not None
    assert {len(reader.takes) for reader in readers} == {1}
    assert len({reader.takes[0].key for reader in readers}) == 1
    ran.clear()
    view = open_blocks(make_cube(data[None], energy=range(3), energy_units="eV"), resident=False, block_bytes=48)
    view.__dict__["blocks_per_task"] = 4
    with dask.config.set(scheduler="synchronous"):
        _, sums = map_fold(lambda x: ({}, {"sum": x.sum()}), view)
    assert sums["sum"] == 12
    assert len(view) == 4
    assert len(ran) == 1


def test_blocks_that_share_a_chunk_have_no_readers_and_read_nothing_twice() -> None:
    store = CountingStore(counts_cube((12, 4, 6)).values)
    lazy = dask.array.from_array(store, chunks=(4, 4, 6), name="store-shared-chunks", meta=store.values[:0])
    assert separate_readers("common", parts_of(lazy.rechunk((2, 4, 6)))) is None
    overlap = lazy.map_overlap(lambda x: x, depth=1, boundary="none")
    cube = make_cube(overlap, energy=range(6), energy_units="eV")
    view = open_blocks(cube, resident=False, block_bytes=96)
    assert (len(view), view.blocks_per_task) == (3, 1)
    map_fold(moments, view)
    assert set(store.reads.values()) == {1}


def test_a_persisted_cube_of_this_process_is_read_without_copies() -> None:
    with dask.config.set(scheduler="synchronous"):
        data = da.ones((8, 2, 3), chunks=(2, 2, 3)).persist()
        readers = separate_readers("common", parts_of(data))
        assert readers is not None
        want = dask.compute(*parts_of(data))
        assert all(got is block for got, block in zip(values_of(readers), want, strict=True))


# Prefetching, and retries.


def test_results_come_in_order_and_one_ahead() -> None:
    for n in (0, 1, 2, 9):
        assert list(prefetched([lambda i=i: i for i in range(n)])) == list(range(n))
    made: list[int] = []
    results = prefetched([lambda i=i: made.append(i) for i in range(9)])
    next(results)
    next(results)
    results.close()
    assert made == [0, 1, 2]


def test_an_error_is_retried_but_a_wrong_input_is_not() -> None:
    calls: list[int] = []

    def fails(times: int, error: type[Exception]) -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error("hiccup")
        return "done"

    assert call_with_retries(3, lambda: fails(2, OSError)) == "done"
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(OSError, match="hiccup"):
        call_with_retries(3, lambda: fails(3, OSError))
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(InputError, match="hiccup"):
        call_with_retries(3, lambda: fails(1, InputError))
    assert len(calls) == 1
