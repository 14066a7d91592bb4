"""A fit that is stopped: what it says, and that it goes on to the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.cli import main
from scalehsi.fitting.checkpoint import FILE

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube whose fit takes some tens of milliseconds an iteration."""
    path = tmp_path_factory.mktemp("slow") / "map.zarr"
    settings = ("--set", "shape=96,96", "--set", "n_channels=512", "--set", "counts_per_pixel=400")
    assert main(["simulate", "chequerboard", str(path), *settings, "--quiet"]) == 0
    return path


def endless(cube: Path, result: Path, checkpoint: Path) -> list[str]:
    """The words of a fit that does not end by itself for a while."""
    how = [
        "-k",
        "4",
        "--set",
        "loss=poisson",
        "--set",
        "bin_factor=1",
        "--set",
        "tol=0",
        "--seed",
        "3",
        "--checkpoint",
        str(checkpoint),
    ]
    return ["fit", str(cube), str(result), *how, "--json"]


def iterations_in(checkpoint: Path) -> int:
    try:
        with np.load(checkpoint / FILE) as file:
            return len(file["objective"])
    except FileNotFoundError:
        return 0


def wait_for_iterations(process: subprocess.Popen[str], checkpoint: Path) -> None:
    """Wait until the fit of a process has done three iterations."""
    end = time.monotonic() + 120
    while iterations_in(checkpoint) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def stop_in_the_middle(words: list[str], checkpoint: Path, number: int) -> tuple[int, str, str]:
    """Start a command, send it a signal after its third iteration, and give how it ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scalehsi", *words, "--set", "max_iter=1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_iterations(process, checkpoint)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_fit_goes_on_to_the_same_numbers(run, answer, same, slow, tmp_path, number):
    checkpoint = tmp_path / "run.ckpt"
    words = endless(slow, tmp_path / "r.zarr", checkpoint)
    status, out, err = stop_in_the_middle(words, checkpoint, number)
    done = iterations_in(checkpoint)
    assert done >= 3
    assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]
    if number == signal.SIGKILL:
        assert status == -signal.SIGKILL
    else:
        assert status == 130, err[-3000:]
        said = json.loads(out)
        assert (said["exit"], said["checkpoint"], said["iteration"]) == (130, str(checkpoint), done)
        line = err.splitlines()[-1]
        assert f"stopped by {number.name} after {done} iterations; the state is in '{checkpoint}'" in line
        assert line.endswith("--resume")
    ending = ("--set", f"max_iter={done + 4}")
    resumed = answer(*words[:-1], *ending, "--resume")
    assert resumed["iterations"] == done + 4
    whole = endless(slow, tmp_path / "whole.zarr", tmp_path / "other.ckpt")[:-1]
    answer(*whole, *ending)
    same(tmp_path / "r.zarr", tmp_path / "whole.zarr")
    status, _, err = run(*whole, *ending, "--overwrite")
    assert status == 2
    assert "holds the state of an earlier fit; resume it with --resume, or give another folder" in err


@pytest.mark.cluster
def test_ctrl_c_on_a_terminal_stops_the_fit_and_not_its_workers(slow, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    words = [*endless(slow, tmp_path / "r.zarr", checkpoint), "--set", "max_iter=1000000"]
    where = ["--cluster", "local", "--workers", "2", "--memory", "700MiB"]
    process = subprocess.Popen(
        [sys.executable, "-m", "scalehsi", *words, *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_iterations(process, checkpoint)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert json.loads(out)["checkpoint"] == str(checkpoint)
    assert "Traceback" not in err
    assert "stopped by SIGINT" in err.splitlines()[-1]


def test_interruption_without_a_checkpoint_and_outside_of_a_fit(run, scene, tmp_path, monkeypatch):
    def stop(*_: Any, **__: Any) -> None:
        raise hsi.Interrupted("stopped by SIGTERM after 0 iterations; no checkpoint was set")

    monkeypatch.setattr(hsi, "fit", stop)
    words = ("fit", scene / "map.zarr", tmp_path / "r.zarr", "-k", "2")
    status, _, err = run(*words)
    assert status == 130
    assert "after 0 iterations; nothing is kept of it, name a folder with --checkpoint DIR next time" in err
    status, _, err = run(*words, "--checkpoint", tmp_path / "ck")
    assert status == 130
    assert "there was no state to keep yet" in err
    monkeypatch.setattr(hsi, "reconstruct", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    status, out, err = run("reconstruct", scene / "result.zarr", tmp_path / "d.zarr", "--json")
    assert status == 130
    assert "interrupted" in err
    assert json.loads(out)["exit"] == 130
    assert list(tmp_path.iterdir()) == []


def test_interruption_while_the_result_is_written_names_the_checkpoint(run, scene, tmp_path, monkeypatch):
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hsi, "save", stop)
    words = ("fit", scene / "map.zarr", tmp_path / "r.zarr", "-k", "2", "--checkpoint", tmp_path / "ck", "--json")
    status, out, err = run(*words)
    assert status == 130
    assert "stopped while the result was written; the state is in" in err
    assert json.loads(out)["checkpoint"] == str(tmp_path / "ck")
