"""A fit on worker processes: the numbers of threads when a worker is killed, one line when all are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.blocks import lost_workers
from scalehsi.fitting.checkpoint import FILE
from scalehsi.fitting.progress import Progress

pytestmark = pytest.mark.long

MODEL = hsi.NMF(4, loss="poisson", max_iter=8, tol=0)


@pytest.fixture
def stored(tmp_path: Path) -> xr.DataArray:
    cube, _ = hsi.simulate.chequerboard((48, 40), n_channels=64, seed=3, chunk=12)
    hsi.save(cube, tmp_path / "cube.zarr")
    return hsi.open_cube(tmp_path / "cube.zarr")


@pytest.mark.cluster
def test_two_processes_give_the_numbers_of_threads(client: Any, stored: xr.DataArray) -> None:
    result = hsi.fit(stored, MODEL)
    with dask.config.set(scheduler="threads"):
        reference = hsi.fit(stored, MODEL)
    assert float(hsi.metrics.spectral_angle(result["endmembers"], reference["endmembers"]).max()) < 1e-4
    np.testing.assert_allclose(result["objective"], reference["objective"], rtol=1e-5)
    np.testing.assert_allclose(result["abundances"], reference["abundances"], rtol=1e-3, atol=1e-4)


@pytest.mark.cluster
def test_kill_9_of_a_worker_changes_nothing_but_the_time(client: Any, stored: xr.DataArray) -> None:
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.iteration == 3 and not killed:
            pid = next(iter(client.run(os.getpid).values()))
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    result = hsi.fit(stored, MODEL, progress=kill)
    assert killed
    with dask.config.set(scheduler="threads"):
        reference = hsi.fit(stored, MODEL)
    assert result.attrs["status"] == reference.attrs["status"]
    np.testing.assert_allclose(result["objective"], reference["objective"], rtol=1e-5)
    assert float(hsi.metrics.spectral_angle(result["endmembers"], reference["endmembers"]).max()) < 1e-4


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """Address and process of a scheduler in another process, and its only worker, which nobody restarts."""
    run = [sys.executable, "-m"]
    file = tmp_path / "scheduler.json"
    quiet: dict[str, Any] = {"stderr": subprocess.DEVNULL, "cwd": tmp_path}
    words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    first = subprocess.Popen([*run, "distributed.cli.dask_scheduler", *words], **quiet)
    end = time.monotonic() + 60
    while not file.exists() or not file.read_text().strip():
        assert time.monotonic() < end
        time.sleep(0.05)
    address = json.loads(file.read_text())["address"]
    words = ["--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "900MiB"]
    second = subprocess.Popen([*run, "distributed.cli.dask_worker", address, *words], **quiet)
    yield address, first, second
    for process in (second, first):
        process.kill()
        process.wait()


@pytest.mark.cluster
@pytest.mark.parametrize("lost", ["scheduler", "worker"])
def test_what_is_lost_for_good_ends_the_fit_with_its_checkpoint(
    lost: str, scheduler: Any, stored: xr.DataArray, tmp_path: Path
) -> None:
    address, first, second = scheduler
    words = ["fit", str(tmp_path / "cube.zarr"), str(tmp_path / "r.zarr"), "-k", "4", "--set", "loss=poisson"]
    words += ["--set", "tol=0", "--set", "max_iter=1000000", "--checkpoint", str(tmp_path / "ck")]
    client = subprocess.Popen(
        [sys.executable, "-m", "scalehsi", *words, "--cluster", address, "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not (tmp_path / "ck" / FILE).exists():
        assert client.poll() is None, client.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    (first if lost == "scheduler" else second).kill()
    begin = time.monotonic()
    _, err = client.communicate(timeout=120)
    assert client.returncode == 1
    assert time.monotonic() - begin < 60
    reason = {
        "scheduler": "connection to the cluster's scheduler is lost",
        "worker": "all workers of the cluster are gone",
    }
    assert err.startswith("scalehsi fit: ")
    assert reason[lost] in err
    assert f"the state is in {tmp_path / 'ck'}: fit again with --resume" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "r.zarr").exists()


def test_workers_that_are_lost_within_the_first_second_were_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, cancelled = threading.Event(), threading.Event()

    class Client:
        status = "running"
        workers: tuple[str, ...] = ("a",)

        def scheduler_info(self, **_: Any) -> dict[str, Any]:
            seen.set()
            return {"workers": {name: {"id": name} for name in self.workers}}

    monkeypatch.setattr(lost_workers, "POLL_SECONDS", 0.3)
    monkeypatch.setattr(lost_workers, "TIMEOUT", "100ms")
    client = Client()
    watch = lost_workers._Watch(client)
    monkeypatch.setattr(watch, "_cancel", cancelled.set)
    watch.start()
    assert seen.wait(0.2), "the first look is at once"
    client.workers = ()
    assert cancelled.wait(10)
    watch.stop()
    assert watch.reason.startswith("all workers of the cluster are gone")


def test_workers_that_die_again_and_again_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(range(1000))
    cancelled = []

    class Client:
        status = "running"
        alive: tuple[str, ...] = ("a",)

        def scheduler_info(self, **_: Any) -> dict[str, Any]:
            return {"workers": {name: {"id": name} for name in self.alive}}

    client = Client()
    watch = lost_workers._Watch(client)
    monkeypatch.setattr(watch, "_cancel", lambda: cancelled.append(True))
    client.alive = ()
    watch._look(0.0)
    watch._look(1000.0)
    assert not watch.reason  # a queue may be long before the first worker comes
    client.alive = ("a",)
    for second in range(1000, 1100, 2):
        watch._look(float(second))
    assert not watch.reason
    for second in range(1100, 1140, 2):
        client.alive = (str(next(names)),)
        watch._look(float(second))
    assert cancelled
    assert watch.explain(RuntimeError()) == "all workers of the cluster die again and again, for 30 s now"
