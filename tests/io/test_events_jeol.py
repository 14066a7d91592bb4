"""JEOL event streams: whole frames of the stream, whatever its head says about their number."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.io.events import bands, event_file
from scalehsi.io.events import file as files
from scalehsi.schema import InputError
from tests.io.cubes import hidden
from tests.io.event_files import jeol_words, write_jeol
from tests.paths import DATA

rosetta = pytest.importorskip("rsciio.jeol", reason="the extra io is not installed")

SIDE, FRAMES, CHANNELS = 16, 3, 4096
VENDOR = DATA / "vendor" / "jeol" / "Sample" / "00_View000" / "View000_0000006.pts"
FEW = {"energy": 64}
"""Channels that are joined, so that the stores are small."""


@pytest.fixture
def counts() -> np.ndarray[Any, Any]:
    return np.random.default_rng(2).poisson(0.002, (FRAMES, SIDE, SIDE, CHANNELS))


def oracle(path: Path, **options: Any) -> np.ndarray[Any, Any]:
    return rosetta.file_reader(str(path), SI_dtype=np.uint16, **options)[0]["data"]


def by_64(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return values.reshape(*values.shape[:-1], -1, 64).sum(axis=-1)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_counts_of_the_stream(
    tmp_path: Path, counts: np.ndarray[Any, Any], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", 4 * SIDE * 64)
    monkeypatch.setattr(files, "BAND_WORDS", 1500)
    counts[0, 4, 5, 100] = 300
    path = write_jeol(tmp_path / "a.pts", (SIDE, SIDE), jeol_words(counts), sweep=FRAMES)
    total = counts.sum(axis=0)
    with dask.config.set(num_workers=threads):
        np.testing.assert_array_equal(hsi.open_cube(path).values, total)
        np.testing.assert_array_equal(oracle(path), total)
        joint = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr", bin={"y": 2, "x": 2, **FEW}))
        wanted = by_64(total).reshape(8, 2, 8, 2, 64).sum(axis=(1, 3))
        np.testing.assert_array_equal(joint.values, wanted)
        assert joint.dtype == np.uint16
        kept = hsi.open_cube(hsi.convert(path, tmp_path / "b.zarr", frames="keep", bin=FEW))
        np.testing.assert_array_equal(kept.values, by_64(counts))
        np.testing.assert_array_equal(by_64(oracle(path, sum_frames=False)), by_64(counts))
        some = hsi.open_cube(hsi.convert(path, tmp_path / "c.zarr", frames=(1, 3), bin=FEW))
        np.testing.assert_array_equal(some.values, by_64(counts[1:].sum(axis=0)))
    assert event_file(path).counts_per_frame().tolist() == counts.sum(axis=(1, 2, 3)).tolist()
    assert joint.attrs["beam_energy_keV"] == 200


def test_the_count_of_frames_in_the_head_does_not_matter(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    """RosettaSciIO stops where the head says."""
    path = write_jeol(tmp_path / "a.pts", (SIDE, SIDE), jeol_words(counts), sweep=2)
    assert event_file(path).frames == FRAMES
    assert int(hsi.open_cube(path).sum()) == counts.sum()


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_a_frame_without_its_last_line_is_left_out(
    tmp_path: Path, counts: np.ndarray[Any, Any], frame: int, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [jeol_words(counts[f : f + 1, : SIDE - 1 if f == frame else SIDE]) for f in range(FRAMES)]
    # The parts are written for their own height, which does not change the step of a coordinate here.
    path = write_jeol(tmp_path / "a.pts", (SIDE, SIDE), np.concatenate(parts), sweep=FRAMES)
    whole = [f for f in range(FRAMES) if f != frame]
    with caplog.at_level(logging.WARNING, logger="scalehsi"):
        kept = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr", frames="keep", bin=FEW))
    np.testing.assert_array_equal(kept.values, by_64(counts[whole]))
    assert kept.attrs["history"][-1] == "convert: 1 frame without the last line left out"
    assert "1 frame without the last line left out" in caplog.text
    assert event_file(path).counts_per_frame().tolist() == counts[whole].sum(axis=(1, 2, 3)).tolist()


def test_lines_may_be_missing_and_x_holds_until_the_next(tmp_path: Path) -> None:
    step = 4096 // SIDE

    def y(row: int) -> int:
        return 0x9000 | row * step

    words = [y(0), 0x8000 | 3 * step, 0xB007, y(4), 0xB008, y(15), 0x8000 | 9 * step, 0xBFFF, y(15), 0xB001]
    path = write_jeol(tmp_path / "a.pts", (SIDE, SIDE), np.array(words, "<u2"))
    cube = hsi.open_cube(path).compute()
    assert np.argwhere(cube.values).tolist() == [[0, 3, 7], [4, 3, 8], [15, 9, 1], [15, 9, 4095]]
    np.testing.assert_array_equal(oracle(path), cube.values)


def test_a_map_that_is_not_square(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = write_jeol(tmp_path / "a.pts", (SIDE - 4, SIDE), jeol_words(counts[:, : SIDE - 4]), sweep=FRAMES)
    np.testing.assert_array_equal(hsi.open_cube(path).values, counts[:, : SIDE - 4].sum(axis=0))


@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_cut_file_has_fewer_frames(tmp_path: Path, counts: np.ndarray[Any, Any], part: float) -> None:
    words = jeol_words(counts)
    cut = words[: int(part * words.size)]
    path = write_jeol(tmp_path / "a.pts", (SIDE, SIDE), cut, sweep=FRAMES, length=2 * words.size)
    whole = int(part * FRAMES)
    cube = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr", bin=FEW))
    np.testing.assert_array_equal(cube.values, by_64(counts[:whole].sum(axis=0)))
    said = f"convert: the file is cut: {2 * cut.size} of {2 * words.size} bytes of X-rays are there"
    assert said in cube.attrs["history"]


def test_what_is_refused(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    words = jeol_words(counts[:1])
    whole = write_jeol(tmp_path / "a.pts", (SIDE, SIDE), words).read_bytes()
    (tmp_path / "b.pts").write_bytes(whole[:2000])
    with pytest.raises(InputError, match=r"'b\.pts' is truncated: its X-rays begin at byte 4096 of 2000"):
        hsi.open_cube(tmp_path / "b.pts")
    (tmp_path / "c.pts").write_bytes(whole[: 4096 + words.size])
    with pytest.raises(InputError, match=r"'c\.pts' has no complete frame of 16 lines"):
        hsi.convert(tmp_path / "c.pts", tmp_path / "a.zarr")
    with pytest.raises(InputError, match=r"'d\.pts' is damaged: it claims 8000 x 8000 pixels"):
        hsi.open_cube(write_jeol(tmp_path / "d.pts", (8000, 8000), words))
    assert hidden(tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(not VENDOR.exists(), reason="no test data beside the repository")
def test_the_file_of_jeol_equals_the_oracle(tmp_path: Path) -> None:
    lazy = {"lazy": True, "rebin_energy": 64, "SI_dtype": np.uint16}
    wanted = rosetta.file_reader(str(VENDOR), sum_frames=False, **lazy)[0]["data"]
    frames = hsi.open_cube(hsi.convert(VENDOR, tmp_path / "a.zarr", frames=(2, 9), bin=FEW))
    np.testing.assert_array_equal(frames.values, wanted[2:9].sum(axis=0).compute())
    total = hsi.open_cube(hsi.convert(VENDOR, tmp_path / "b.zarr", bin=FEW))
    np.testing.assert_array_equal(total.values, wanted.sum(axis=0).compute())
    assert int(total.sum()) == 308261
    signal = rosetta.file_reader(str(VENDOR))[0]
    cube = hsi.open_cube(VENDOR)
    np.testing.assert_array_equal(cube[100:132].values, signal["data"][100:132])
    energy = signal["axes"][2]
    np.testing.assert_array_equal(cube.energy, energy["offset"] + energy["scale"] * np.arange(4096))
    content = VENDOR.read_bytes()
    cut = tmp_path / VENDOR.name
    cut.write_bytes(content[: 16384 + int(0.6 * (len(content) - 16384))])
    few = hsi.open_cube(hsi.convert(cut, tmp_path / "c.zarr", bin=FEW))
    assert int(few.sum()) == 176171
    assert few.attrs["history"][0].endswith("8 frames of 512 x 512 x 4096")
