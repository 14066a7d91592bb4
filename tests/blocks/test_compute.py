"""Tests of the scheduler's capacity, of the count of finished blocks, and of the limit on BLAS threads."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import pytest
import xarray as xr
from dask.system import CPU_COUNT
from threadpoolctl import threadpool_info, threadpool_limits

from scalehsi.blocks import Capacity, blas, capacity, compute, map_fold, open_blocks
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.blocks.compute import PROCESS_BYTES, WORKER_SHARE, free_memory
from scalehsi.schema import InputError
from tests.helpers import counts_cube, moments

# Capacity.


def test_one_thread_when_dask_is_synchronous() -> None:
    with dask.config.set(scheduler="synchronous"):
        here = capacity()
    assert (here.workers, here.threads, here.remote) == (1, 1, False)
    assert 0 < here.memory <= psutil.virtual_memory().total


def test_threads_follow_dasks_setting() -> None:
    assert capacity().threads == CPU_COUNT
    with dask.config.set(scheduler="threads", num_workers=5):
        here = capacity()
    assert (here.workers, here.threads, here.remote) == (1, 5, False)


def test_processes_are_remote() -> None:
    with dask.config.set(scheduler="processes", num_workers=3):
        here = capacity()
    assert (here.workers, here.threads, here.remote) == (3, 3, True)


def test_the_smallest_worker_of_a_cluster_sets_the_memory() -> None:
    gib = 2**30
    workers = {
        "a": {"memory_limit": 4 * gib, "nthreads": 4},
        "b": {"memory_limit": 2 * gib, "nthreads": 2},
    }
    here = compute._cluster_capacity(workers)
    assert here == Capacity(2, 6, 2 * (int(WORKER_SHARE * 2 * gib) - PROCESS_BYTES), remote=True)
    small = compute._cluster_capacity({"a": {"memory_limit": PROCESS_BYTES, "nthreads": 1}})
    assert small.memory == PROCESS_BYTES // 4
    unlimited = compute._cluster_capacity({"a": {"memory_limit": 0, "nthreads": 1}})
    assert unlimited.memory == int(WORKER_SHARE * psutil.virtual_memory().total) - PROCESS_BYTES


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 8), (4, 4), (3, 12)])
def test_blocks_of_all_threads_and_their_copies_fill_at_most_half_of_the_memory(workers: int, threads: int) -> None:
    here = Capacity(workers, threads, 10**9, remote=True)
    in_use = 3 * here.block_limit * threads
    assert 0.45e9 < in_use <= 0.5e9


def test_block_limit_is_never_zero() -> None:
    assert Capacity(2, 64, 10, remote=True).block_limit == 1


def control_group(tmp_path: Path, line: str, limits: dict[str, str]) -> list[int]:
    for file, text in limits.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    (tmp_path / "self").write_text(f"9:name=systemd:/elsewhere\n{line}\n")
    return compute._memory_limits(tmp_path / "self", tmp_path / "fs")


def test_the_limit_of_a_batch_job_is_found_in_either_version_of_control_groups(tmp_path: Path) -> None:
    two = {
        "fs/job_7/step_0/memory.max": "max\n",
        "fs/job_7/memory.max": "4000\n",
        "fs/memory.max": "9000",
        "memory.max": "1",
    }
    assert control_group(tmp_path / "v2", "0::/job_7/step_0", two) == [4000, 9000]
    one = {"fs/memory/job_7/memory.limit_in_bytes": "5000\n", "fs/job_7/memory.max": "3"}
    assert control_group(tmp_path / "v1", "4:cpu,memory:/job_7", one) == [5000]
    assert control_group(tmp_path / "root", "0::/", {"fs/memory.max": "max"}) == []
    assert compute._memory_limits(tmp_path / "no such file") == []


def test_free_memory_is_limited_by_the_batch_job(monkeypatch: pytest.MonkeyPatch) -> None:
    used = psutil.Process().memory_info().rss
    monkeypatch.setattr(compute, "_memory_limits", lambda: [2**50, used + 2**28])
    assert abs(free_memory() - 2**28) < 2**26
    monkeypatch.setattr(compute, "_memory_limits", lambda: [1])
    assert free_memory() == 0
    monkeypatch.setattr(compute, "_memory_limits", lambda: [])
    assert free_memory() > 2**28


# The report.


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("keep", [[], ["total"]])
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("blocks", [1, 17])
def test_the_report_counts_every_block_once(scheduler: str, keep: list[str], resident: bool, blocks: int) -> None:
    cube = counts_cube((blocks, 2, 3)).chunk(y=1)
    with dask.config.set(scheduler=scheduler):
        view = open_blocks(cube, block_bytes=6, resident=resident)
        for _ in range(2):
            reported: list[tuple[int, int]] = []
            map_fold(moments, view, keep=keep, report=lambda *count, reported=reported: reported.append(count))
            assert reported == [(i, blocks) for i in range(1, blocks + 1)]


def test_a_view_reports_the_passes_that_bring_no_report(small_cube: xr.DataArray) -> None:
    reported: list[tuple[int, int]] = []
    own: list[tuple[int, int]] = []
    view = open_blocks(small_cube, block_bytes=480)
    view.report = lambda *count: reported.append(count)
    map_fold(moments, view)
    map_fold(moments, view, report=lambda *count: own.append(count))
    assert reported == own == [(1, 2), (2, 2)]


def test_another_compute_at_the_same_time_is_not_counted(small_cube: xr.DataArray) -> None:
    reported: list[tuple[int, int]] = []
    view = open_blocks(small_cube.chunk(y=1), block_bytes=80)

    def slow(x: Any) -> Any:
        other.wait(0.01)
        return moments(x)

    other = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: dask.array.ones((50, 50), chunks=5).sum().compute())
        map_fold(slow, view, report=lambda *count: reported.append(count))
        assert running.result() == 2500
    assert reported == [(i, 12) for i in range(1, 13)]


def test_a_report_may_stop_the_pass(small_cube: xr.DataArray) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise InputError("enough")

    view = open_blocks(small_cube, block_bytes=80)
    with pytest.raises(InputError, match="enough"):
        map_fold(moments, view, report=stop)
    # The next pass is not disturbed.
    assert map_fold(moments, view)[1]["n"] == small_cube["mask"].sum()


# BLAS threads.


def blas_threads() -> list[int]:
    return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]


@pytest.fixture
def two_blas_threads() -> Any:
    with threadpool_limits(2, user_api="blas"):
        if 2 not in blas_threads():
            pytest.skip("the number of threads of numpy's BLAS library cannot be set")
        yield


@pytest.mark.usefixtures("two_blas_threads")
def test_one_blas_thread_nests_and_restores() -> None:
    before = blas_threads()
    with one_blas_thread():
        assert set(blas_threads()) == {1}
        with one_blas_thread():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


@pytest.mark.usefixtures("two_blas_threads")
def test_one_blas_thread_restores_after_an_error() -> None:
    before = blas_threads()
    with pytest.raises(InputError, match="inside"), one_blas_thread():
        raise InputError("inside")
    assert blas_threads() == before


@pytest.mark.usefixtures("two_blas_threads")
def test_threads_that_overlap_share_the_limit() -> None:
    before = blas_threads()
    inside, first_left, leave = threading.Barrier(2, timeout=60), threading.Event(), threading.Event()
    seen: list[list[int]] = []

    def short() -> None:
        with one_blas_thread():
            inside.wait()
        first_left.set()

    def long() -> None:
        with one_blas_thread():
            inside.wait()
            assert first_left.wait(60)
            seen.append(blas_threads())
            assert leave.wait(60)

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(short), pool.submit(long)]
        assert first_left.wait(60)
        seen.append(blas_threads())
        leave.set()
        for job in jobs:
            job.result()
    assert [set(threads) for threads in seen] == [{1}, {1}]
    assert blas_threads() == before


@pytest.mark.usefixtures("two_blas_threads")
def test_blocks_run_with_one_blas_thread_each(small_cube: xr.DataArray) -> None:
    before = blas_threads()

    def look(x: Any) -> Any:
        return {}, {"threads": max(blas_threads()), "blocks": 1}

    with dask.config.set(scheduler="threads", num_workers=4):
        _, sums = map_fold(look, open_blocks(small_cube, block_bytes=80))
    assert sums["threads"] == sums["blocks"] == 12
    assert blas_threads() == before


class Library:
    """Stands for a BLAS library with one limit for each thread, as an OpenBLAS on OpenMP."""

    user_api, internal_api, threading_layer = "blas", "openblas", "openmp"

    def __init__(self) -> None:
        self.limits: dict[int, int] = {}

    @property
    def num_threads(self) -> int:
        return self.limits.get(threading.get_ident(), 8)

    def set_num_threads(self, threads: int) -> None:
        self.limits[threading.get_ident()] = threads


class Controller:
    """Stands for threadpoolctl's controller, and counts how often it searches for libraries."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1
        self.lib_controllers = [Library()]

    def select(self, **_: str) -> Controller:
        return self


@pytest.fixture
def other_libraries(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(blas, "ThreadpoolController", Controller)
    monkeypatch.setattr(Controller, "made", 0)
    blas._libraries.cache_clear()
    yield
    blas._libraries.cache_clear()


@pytest.mark.usefixtures("other_libraries")
def test_libraries_with_a_limit_for_each_thread_are_limited_in_each() -> None:
    (library,) = blas._libraries(len(sys.modules))[1]
    together = threading.Barrier(3, timeout=60)

    def work() -> tuple[int, int, int]:
        with one_blas_thread():
            together.wait()
            one = library.num_threads
            with one_blas_thread():
                nested = library.num_threads
            together.wait()
        return one, nested, library.num_threads

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(work) for _ in range(3)]
        assert [job.result() for job in jobs] == [(1, 1, 8)] * 3


@pytest.mark.usefixtures("other_libraries")
def test_libraries_that_are_loaded_later_are_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        with one_blas_thread():
            pass
    assert Controller.made == 1
    monkeypatch.setitem(sys.modules, "a library that brings a BLAS", np)
    with one_blas_thread():
        pass
    assert Controller.made == 2


@pytest.mark.usefixtures("two_blas_threads")
def test_another_thread_may_end_last_and_the_limit_is_free_again() -> None:
    before = blas_threads()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(one_blas_thread().__enter__).result()
        assert set(blas_threads()) == {1}
        with one_blas_thread():
            pool.submit(one_blas_thread().__exit__).result()
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        # The pool's thread still exists, and other threads can set limits.
        with threadpool_limits(1, user_api="blas"):
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
