"""Tests of `map_fold` on worker processes: the same numbers, whatever happens to the workers, and no growth."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
import xarray as xr

from scalehsi.blocks import Blocks, capacity, map_fold, map_pixels, open_blocks
from scalehsi.blocks.compute import PROCESS_BYTES, WORKER_SHARE
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.helpers import FailEveryThird, KillWorker, assert_same, counts_cube, iterate, moments, random_mask, update

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    """Counts of shape (24, 10, 8), chunked in six times two, a third of the pixels masked."""
    return counts_cube((24, 10, 8), mask=random_mask((24, 10))).chunk(y=4, x=5)


def opened(cube: xr.DataArray, *, resident: bool = True) -> Blocks:
    view = open_blocks(cube, resident=resident, block_bytes=4 * 5 * 8)
    assert len(view) == 12
    return view


@pytest.fixture(scope="module")
def want(cube: xr.DataArray) -> dict[str, Any]:
    """The numbers of four passes in this thread."""
    with dask.config.set(scheduler="synchronous"):
        return iterate(opened(cube), passes=4)


def settled(value: Callable[[], int], *, seconds: float = 60.0) -> int:
    """The value once it has not changed for 0.3 s: the scheduler releases tasks in its own time."""
    last, since, end = value(), time.monotonic(), time.monotonic() + seconds
    while time.monotonic() - since < 0.3 and time.monotonic() < end:
        time.sleep(0.05)
        if (now := value()) != last:
            last, since = now, time.monotonic()
    return last


def scheduler_of(client: Any) -> Any:
    return client.cluster.scheduler


def test_the_cluster_is_seen(client: Any) -> None:
    here = capacity()
    assert (here.workers, here.threads, here.remote) == (2, 2, True)
    assert here.memory == 2 * (int(WORKER_SHARE * 2**30) - PROCESS_BYTES)
    with dask.config.set(scheduler="threads"):
        assert not capacity().remote


@pytest.mark.parametrize("resident", [True, False])
def test_two_processes_give_the_bits_of_one_thread(
    client: Any, cube: xr.DataArray, want: dict[str, Any], resident: bool
) -> None:
    assert_same(iterate(opened(cube, resident=resident), passes=4), want)
    assert_same(iterate(opened(cube, resident=resident), passes=4, report=lambda *_: None), want)


def test_a_cube_in_memory_travels_once(client: Any, cube: xr.DataArray) -> None:
    view = open_blocks(cube.compute(), block_bytes=160)
    assert view.resident
    handles, sums = map_fold(moments, view, keep=["total"])
    x = cube.values[cube["mask"].values].astype(np.int64)
    assert_same(sums, {"n": len(x), "spectrum": x.sum(axis=0), "gram": x.T @ x})
    got = handles["total"].to_dataarray(dtype="f8").values
    np.testing.assert_array_equal(got, np.where(cube["mask"], cube.values.sum(axis=-1), np.nan))


def test_halo_lazy_mask_and_aligned_maps(client: Any, cube: xr.DataArray) -> None:
    lazy = cube.assign_coords(mask=cube.drop_vars("mask").sum("energy") > 20)
    maps = lazy.isel(energy=0, drop=True).drop_vars("mask")

    def near(x: Any, rows: Any, *, tile: Any) -> Any:
        assert x.shape[0] == rows.shape[0] == tile.core.size
        return {"own": x.sum(axis=1)}, {"pixels": int(tile.core.sum()), "read": x.shape[0]}

    view = opened(lazy)
    handles, sums = map_fold(near, view, maps, halo=2, tile=True, keep=["own"])
    assert sums["pixels"] == int((cube.sum("energy") > 20).sum())
    assert sums["read"] > 24 * 10
    total = cube.values.sum(axis=-1, dtype=int)
    np.testing.assert_array_equal(handles["own"].to_dataarray().values, np.where(total > 20, total, np.nan))


def test_a_cube_and_a_mask_that_the_user_persisted(client: Any, cube: xr.DataArray, want: dict[str, Any]) -> None:
    lazy = cube.assign_coords(mask=cube["mask"].compute().chunk(y=7)).persist()
    assert isinstance(lazy["mask"].data, dask.array.Array)
    assert_same(iterate(opened(lazy), passes=4), want)
    # Also where the blocks are not the chunks.
    _, sums = map_fold(moments, open_blocks(lazy, block_bytes=10 * 10 * 8))
    assert sums["n"] == cube["mask"].sum()


def test_dasks_own_processes(cube: xr.DataArray) -> None:
    with dask.config.set(scheduler="processes", num_workers=2):
        view = opened(cube)
        _, sums = map_fold(moments, view)
        handles, again = map_fold(moments, view, keep=["total"])
        got = handles["total"].to_dataarray(dtype="f8").values
    x = cube.values[cube["mask"].values].astype(np.int64)
    for found in (sums, again):
        assert_same(found, {"n": len(x), "spectrum": x.sum(axis=0), "gram": x.T @ x})
    np.testing.assert_array_equal(got, np.where(cube["mask"], cube.values.sum(axis=-1), np.nan))


def test_opening_and_lazy_maps_start_no_tasks(client: Any, cube: xr.DataArray) -> None:
    before = settled(lambda: len(scheduler_of(client).tasks))
    view = opened(cube)
    maps = map_pixels(moments, view, keep=["total"])["total"].to_dataarray()
    assert settled(lambda: len(scheduler_of(client).tasks)) == before
    assert maps.notnull().sum().compute() == cube["mask"].sum()


def test_large_cubes_of_this_process_are_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalehsi.blocks.opening.MAX_INLINE_CUBE_BYTES", 100)
    with pytest.raises(InputError, match=r"fit scalehsi\.open_cube"):
        map_fold(moments, counts_cube((4, 4, 8)))


def test_errors_are_raised_unchanged_on_the_client(client: Any, cube: xr.DataArray) -> None:
    def wrong(x: Any) -> Any:
        raise InputError("negative counts under a Poisson loss")

    for report in (None, lambda *_: None):
        with pytest.raises(InputError, match="negative counts"):
            map_fold(wrong, opened(cube), report=report)


# What the dashboard and the progress bar show.


def test_tasks_are_named(client: Any, cube: xr.DataArray) -> None:
    iterate(opened(cube), passes=1)
    names = {"load", "nmf-update", "nmf-update-c", "nmf-update-sums", "nmf-update-reduce"}
    assert names <= set(scheduler_of(client).task_prefixes)


def test_small_shared_values_are_sent_inside_tasks_and_large_ones_as_a_task(
    client: Any, cube: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, s = opened(cube), np.arange(24.0).reshape(3, 8)
    _, inside = map_fold(update, view, shared={"s": s}, name="small")
    monkeypatch.setattr("scalehsi.blocks.fold.MAX_INLINE_SHARED_BYTES", s.nbytes)
    _, task = map_fold(update, view, shared={"s": s}, name="large")
    assert_same(inside, task)
    assert {"small", "large", "large-shared"} <= set(scheduler_of(client).task_prefixes)
    assert "small-shared" not in scheduler_of(client).task_prefixes


@pytest.mark.parametrize("keep", [[], ["total"]])
@pytest.mark.parametrize("resident", [True, False])
def test_the_report_counts_every_block_once(client: Any, cube: xr.DataArray, keep: list[str], resident: bool) -> None:
    view = opened(cube, resident=resident)
    for _ in range(2):
        reported: list[tuple[int, int]] = []
        map_fold(moments, view, keep=keep, report=lambda *count, reported=reported: reported.append(count))
        assert reported == [(i, 12) for i in range(1, 13)]


def test_the_report_does_not_keep_the_sums_of_all_blocks(client: Any) -> None:
    cube = counts_cube((64, 2, 2)).chunk(y=1)
    view = open_blocks(cube, block_bytes=4)
    assert len(view) == 64
    token, size, kept = view.cuts._token, view.blocks_per_task, dict[int, int]()
    assert 1 < size <= 16

    def look(done: int, total: int) -> None:
        if done in (32, 64):
            kept[done] = settled(lambda: sum(f"heavy-sums-{token}" in str(key) for key in list(client.futures)))

    map_fold(lambda x: ({}, {"gram": np.ones((100, 100))}), view, name="heavy-sums", report=look)
    assert kept[32] <= 32 // size + 1
    assert kept[64] <= 1


# Faults.


@pytest.mark.parametrize("resident", [True, False])
def test_every_third_task_fails_once(
    client: Any, cube: xr.DataArray, want: dict[str, Any], resident: bool, tmp_path: Path
) -> None:
    got = iterate(opened(cube, resident=resident), passes=4, fn=FailEveryThird(tmp_path), tile=True)
    assert_same(got, want)
    assert len(list(tmp_path.glob("seen-*"))) == 48
    assert len(list(tmp_path.glob("failed-*"))) == 16


@pytest.mark.parametrize("report", [None, lambda *_: None], ids=["quiet", "reported"])
def test_a_killed_worker_changes_nothing(
    client: Any, cube: xr.DataArray, want: dict[str, Any], tmp_path: Path, report: Any
) -> None:
    before = set(client.run(os.getpid).values())
    # In the middle of the third of four passes; its blocks, and the rows of the pass before, die with the worker.
    view = opened(cube)
    got = iterate(view, passes=4, fn=KillWorker(tmp_path, at_call=30), tile=True, report=report)
    assert (tmp_path / "killed").exists()
    client.wait_for_workers(2, timeout=300)
    assert set(client.run(os.getpid).values()) != before
    assert_same(got, want)
    # The blocks of the dead worker are computed again for later passes too.
    _, sums = map_fold(moments, view)
    assert sums["n"] == cube["mask"].sum()


# Growth.


def test_two_hundred_iterations_leave_no_tasks_and_no_memory(client: Any) -> None:
    ones = dask.array.ones((4, 4096, 2048), dtype="u1", chunks=(2, -1, -1))
    view = open_blocks(make_cube(ones, energy=range(2048), energy_units="eV"), resident=True, block_bytes=2**24)
    assert (len(view), view.block_bytes) == (2, 2**24)

    def light(x: Any, *, s: Any) -> Any:
        return {"c": x[:, :1] + s[0, 0]}, {"n": x.shape[0], "s": s}

    def some(n: int) -> tuple[int, int]:
        s = np.ones((3, 2048))
        for _ in range(n):
            handles, sums = map_fold(light, view, shared={"s": s}, keep=["c"])
            s = sums["s"] / 2
        del handles
        gc.collect()
        tasks = settled(lambda: len(scheduler_of(client).tasks))
        # The scheduler runs in this process too.
        return tasks, psutil.Process().memory_info().rss

    tasks_before, bytes_before = some(30)
    tasks_after, bytes_after = some(200)
    assert tasks_after == tasks_before
    assert bytes_after - bytes_before < view.block_bytes


def test_handles_are_released_with_their_names(client: Any, cube: xr.DataArray) -> None:
    gc.collect()  # what earlier tests left
    before = settled(lambda: len(scheduler_of(client).tasks))
    view = opened(cube)
    handles, _ = map_fold(update, view, shared={"s": np.ones((3, 8))}, keep=["c"])
    assert settled(lambda: len(scheduler_of(client).tasks)) > before
    del view, handles
    gc.collect()
    assert settled(lambda: len(scheduler_of(client).tasks)) == before
