"""The command watch, with a clock that the test moves."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import scalehsi as hsi

pytestmark = pytest.mark.long


@pytest.fixture
def acquisition(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let each pause of the watch write a block; behind the last one call a function."""
    cube = hsi.open_cube(scene / "map.zarr").compute()

    def begin(blocks: int, then: Callable[[], Any] = lambda: None) -> None:
        writer: Iterator[Any] = hsi.simulate.acquire(cube, tmp_path / "scan.zarr", block=8)
        clock = {"now": 0.0, "blocks": 0}

        def sleep(seconds: float) -> None:
            clock["now"] += seconds
            if clock["blocks"] < blocks:
                next(writer, None)
            elif clock["blocks"] == blocks:
                then()
            clock["blocks"] += 1

        fake = SimpleNamespace(monotonic=lambda: clock["now"], sleep=sleep)
        monkeypatch.setattr("scalehsi.models.live.time", fake)
        monkeypatch.setattr("scalehsi.cli.commands.watch.time", fake)

    return begin


def test_watch_follows_to_the_end(answer: Any, scene: Path, tmp_path: Path, acquisition: Any) -> None:
    acquisition(5)  # the fifth marks the store as complete
    words = ("--model", scene / "result.zarr", "--figure", tmp_path / "maps.png", "--every", "0.3")
    found = answer("watch", tmp_path / "scan.zarr", *words)
    assert (found["blocks"], found["expected"], found["complete"], found["alarms"]) == (4, 4, True, [])
    maps = hsi.open_result(tmp_path / "scan_maps.zarr")
    fitted = hsi.open_result(scene / "result.zarr")
    want = hsi.project(fitted, hsi.open_cube(scene / "map.zarr"))
    np.testing.assert_allclose(maps["abundances"].values, want.values, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    assert hsi.report(maps, tmp_path / "report").is_file()


def test_ctrl_c_keeps_the_maps(run: Any, scene: Path, tmp_path: Path, acquisition: Any) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    acquisition(2, stop)
    status, _, err = run("watch", tmp_path / "scan.zarr", "--model", scene / "result.zarr", "--every", "1000")
    assert status == 130
    assert "interrupted; the maps of 2 of 4 blocks are in" in err
    maps = hsi.open_result(tmp_path / "scan_maps.zarr")
    assert np.isfinite(maps["residual"].values).sum() == 2 * 64


def test_a_signal_while_maps_are_written_waits(
    run: Any, scene: Path, tmp_path: Path, acquisition: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = hsi.save

    def signalled(*given: Any, **options: Any) -> Path:
        signal.raise_signal(signal.SIGINT)
        return save(*given, **options)

    monkeypatch.setattr(hsi, "save", signalled)
    acquisition(3)
    status, _, err = run("watch", tmp_path / "scan.zarr", "--model", scene / "result.zarr")
    assert status == 130
    assert "interrupted; the maps of 1 of 4 blocks are in" in err
    assert np.isfinite(hsi.open_result(tmp_path / "scan_maps.zarr")["residual"].values).sum() == 64


def test_another_energy_axis_later_keeps_the_maps(run: Any, scene: Path, tmp_path: Path, acquisition: Any) -> None:
    def replace() -> None:
        shutil.rmtree(tmp_path / "scan.zarr")
        next(hsi.simulate.acquire(hsi.open_cube(scene / "map.zarr")[..., :50], tmp_path / "scan.zarr", block=8))

    acquisition(2, replace)
    status, _, err = run("watch", tmp_path / "scan.zarr", "--model", scene / "result.zarr", "--every", "1000")
    assert status == 2
    assert "the maps of 2 of 4 blocks are in" in err
    assert "the result has 64 channels, the cube 50" in err


def test_idle_ends_the_watch(run: Any, scene: Path, tmp_path: Path, acquisition: Any) -> None:
    acquisition(3)
    words = ("--model", scene / "result.zarr", "--out", tmp_path / "m.zarr", "--until-idle", "30")
    status, out, err = run("watch", tmp_path / "scan.zarr", *words)
    assert status == 0
    assert "waiting: " in err
    assert "is not there yet" in err
    assert f"the maps of 3 of 4 blocks are in '{tmp_path / 'm.zarr'}'" in out


def test_wrong_input_is_one_line(run: Any, scene: Path, tmp_path: Path, acquisition: Any) -> None:
    model = ("--model", scene / "result.zarr")
    assert run("watch", scene / "map.zarr", *model, "--out", scene / "result.zarr")[0] == 2
    status, _, err = run("watch", scene / "map.zarr", *model, "--out", tmp_path / "m.zarr", "--figure", "m.pdf")
    assert (status, "a figure of maps ends in .png" in err) == (2, True)
    moved = hsi.open_result(scene / "result.zarr").isel(energy=slice(50))
    hsi.save(moved, tmp_path / "other.zarr")
    words = ("watch", scene / "map.zarr", "--model", tmp_path / "other.zarr", "--out", tmp_path / "m.zarr")
    status, _, err = run(*words)
    assert (status, err.count("\n")) == (2, 1)
    assert "the result has 50 channels, the cube 64" in err
    assert not (tmp_path / "m.zarr").exists()


def test_simulated_acquisitions_and_fits_that_go_on(answer: Any, run: Any, scene: Path, tmp_path: Path) -> None:
    small = ("--set", "shape=20,20", "--set", "n_channels=64")
    answer("simulate", "chequerboard", tmp_path / "live.zarr", *small, "--live", "0")
    found = answer("watch", tmp_path / "live.zarr", "--model", scene / "result.zarr")
    assert (found["blocks"], found["complete"]) == (4, True)
    assert run("simulate", "sines", tmp_path / "s.zarr", "--live", "0")[0] == 2
    words = ("fit", tmp_path / "live.zarr", tmp_path / "r.zarr", "-k", "4", "--start", scene / "result.zarr")
    answer(*words)
    one, other = hsi.open_result(tmp_path / "r.zarr"), hsi.open_result(scene / "result.zarr")
    assert np.degrees(hsi.metrics.spectral_angle(one["endmembers"].values, other["endmembers"].values)).max() < 15
