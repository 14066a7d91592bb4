"""Velox event streams: the counts of the file, in bounded memory, whatever frames, detectors and bins are asked for."""

from __future__ import annotations

import logging
import pickle
import threading
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pytest
import zarr

import scalehsi as hsi
from scalehsi.io.events import bands, event_file
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes
from tests.io.cubes import hidden
from tests.io.event_files import END, velox_words, write_velox
from tests.paths import DATA

rosetta = pytest.importorskip("rsciio.emd", reason="the extra io is not installed")

CHANNELS = 64
FRAMES, ROWS, COLUMNS = 3, 6, 5
VENDOR = sorted((DATA / "vendor" / "velox").glob("*.emd"))


@pytest.fixture
def counts() -> np.ndarray[Any, Any]:
    """Detectors, frames, y, x, channels."""
    return np.random.default_rng(0).poisson(0.3, (2, FRAMES, ROWS, COLUMNS, CHANNELS))


def written(path: Path, counts: np.ndarray[Any, Any], **options: Any) -> Path:
    streams = [velox_words(detector) for detector in counts]
    given = {"frames": counts.shape[1], "channels": CHANNELS, **options}
    return write_velox(path, counts.shape[2:4], streams, **given)


def oracle(path: Path, **options: Any) -> np.ndarray[Any, Any]:
    found = rosetta.file_reader(str(path), **options)
    return next(s["data"] for s in found if s["data"].ndim > 2)


def small_bands(monkeypatch: pytest.MonkeyPatch, rows: int = 2) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", rows * COLUMNS * CHANNELS)


def joined(values: np.ndarray[Any, Any], y: int, x: int, energy: int) -> np.ndarray[Any, Any]:
    ny, nx, ne = (n // f for n, f in zip(values.shape, (y, x, energy), strict=True))
    cut = values[: ny * y, : nx * x, : ne * energy]
    return cut.reshape(ny, y, nx, x, ne, energy).sum(axis=(1, 3, 5))


def test_it_opens_lazily_with_the_counts_and_axes_of_the_file(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = written(tmp_path / "a.emd", counts)
    with raise_if_dask_computes():
        cube = hsi.open_cube(path)
    np.testing.assert_array_equal(cube.values, counts.sum(axis=(0, 1)))
    np.testing.assert_array_equal(cube[1:3, 2:, 10:20].values, counts.sum(axis=(0, 1))[1:3, 2:, 10:20])
    assert cube.attrs["signal"] == "EDS"
    assert cube.attrs["beam_energy_keV"] == 200
    np.testing.assert_allclose(cube.x, 2 * np.arange(COLUMNS))
    np.testing.assert_allclose(cube.energy, -1 + 0.01 * np.arange(CHANNELS))
    h5py.File(path, "a").close()  # nothing keeps it open


TAKEN = [
    (3,),
    (slice(None), 2),
    (slice(5, 0, -2), slice(None, None, 3), slice(10, 50, 7)),
    ([4, 0, 5], slice(1, 4)),
    (slice(None), slice(None), 7),
    (slice(2, 2),),
]


@pytest.mark.parametrize("taken", TAKEN, ids=str)
def test_any_part_can_be_taken(tmp_path: Path, counts: np.ndarray[Any, Any], taken: tuple[Any, ...]) -> None:
    cube = hsi.open_cube(written(tmp_path / "a.emd", counts))
    np.testing.assert_array_equal(cube[taken].values, counts.sum(axis=(0, 1))[taken])


def test_the_oracle_agrees(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = written(tmp_path / "a.emd", counts)
    np.testing.assert_array_equal(hsi.open_cube(path).values, oracle(path))


@pytest.mark.parametrize("threads", [1, 4])
def test_frames_energies_bins_and_detectors(
    tmp_path: Path, counts: np.ndarray[Any, Any], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_bands(monkeypatch)
    path = written(tmp_path / "a.emd", counts)
    cases: list[tuple[dict[str, Any], np.ndarray[Any, Any]]] = [
        ({}, counts.sum(axis=(0, 1))),
        ({"frames": (1, 3)}, counts[:, 1:].sum(axis=(0, 1))),
        ({"frames": "keep"}, counts.sum(axis=0)),
        ({"frames": ("keep", 0, 2), "detectors": "keep"}, counts[:, :2]),
        ({"detectors": [1]}, counts[1].sum(axis=0)),
        ({"energy": (-0.9, -0.5)}, counts.sum(axis=(0, 1))[..., 10:51]),
        ({"bin": {"y": 4, "x": 2, "energy": 3}}, joined(counts.sum(axis=(0, 1)), 4, 2, 3)),
    ]
    with dask.config.set(num_workers=threads):
        for number, (how, wanted) in enumerate(cases):
            cube = hsi.open_cube(hsi.convert(path, tmp_path / f"{number}.zarr", chunk_mb=1e-3, **how))
            np.testing.assert_array_equal(cube.values, wanted)
            assert cube.dtype == np.uint8
    assert "convert: y joined by 4, the last 2 left out" in cube.attrs["history"]
    np.testing.assert_allclose(cube.energy[:2], [-0.99, -0.96])
    np.testing.assert_allclose(cube.x, [1, 5])


def test_threads_write_the_same_bytes(
    tmp_path: Path, counts: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_bands(monkeypatch)
    counts[0, 0, 3, 2, 7] = 300  # the store becomes uint16 on the way
    path = written(tmp_path / "a.emd", counts)
    stores = []
    for threads in (1, 4):
        with dask.config.set(num_workers=threads):
            stores.append(hsi.convert(path, tmp_path / f"{threads}.zarr", chunk_mb=1e-3))
    files = [{p.relative_to(s): p.read_bytes() for p in s.rglob("*") if p.is_file()} for s in stores]
    assert files[0] == files[1]
    assert len(files[0]) > 5
    assert hsi.open_cube(stores[0]).dtype == np.uint16


@pytest.mark.parametrize(("most", "dtype"), [(255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4")])
def test_integers_are_as_wide_as_the_counts(
    tmp_path: Path, counts: np.ndarray[Any, Any], most: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_bands(monkeypatch)
    counts[0, :, 5, 4, 9] = (most // 2, 0, most - most // 2)
    counts[1, :, 5, 4, 9] = 0
    path = written(tmp_path / "a.emd", counts)
    with dask.config.set(num_workers=2):
        store = hsi.convert(path, tmp_path / "a.zarr")
    cube = hsi.open_cube(store)
    assert cube.dtype == dtype
    np.testing.assert_array_equal(cube.values, counts.sum(axis=(0, 1)))
    assert sorted(p.name for p in store.iterdir()) == ["counts", "energy", "x", "y", "zarr.json"]
    if most > 65535:
        with pytest.raises(InputError, match="more than 65535 counts in a channel"):
            hsi.open_cube(path).compute()


def test_words_above_the_last_channel_are_left_out_and_said(
    tmp_path: Path, counts: np.ndarray[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """RosettaSciIO puts such a word into another pixel, so it is no oracle here."""
    words = velox_words(counts[0])
    path = write_velox(
        tmp_path / "a.emd", (ROWS, COLUMNS), [np.insert(words, [3, 50], [5000, CHANNELS])], frames=3, channels=CHANNELS
    )
    with caplog.at_level(logging.WARNING, logger="scalehsi"):
        cube = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr"))
    np.testing.assert_array_equal(cube.values, counts[0].sum(axis=0))
    assert "2 words above the last channel, 63, are left out" in caplog.text
    assert "convert: 2 words above the last channel, 63, are left out" in cube.attrs["history"]
    assert event_file(path).counts_per_frame().tolist() == counts[0].sum(axis=(1, 2, 3)).tolist()


@pytest.mark.parametrize("claimed", [2, 3, 7])
def test_as_many_frames_as_the_file_names(tmp_path: Path, counts: np.ndarray[Any, Any], claimed: int) -> None:
    path = written(tmp_path / "a.emd", counts, frames=claimed)
    events = event_file(path)
    assert events.counts_per_frame()[:FRAMES].tolist() == counts.sum(axis=(0, 2, 3, 4)).tolist()
    assert events.frames == claimed
    cube = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr", frames="keep"))
    assert cube.sizes["frame"] == claimed
    held = min(claimed, FRAMES)
    np.testing.assert_array_equal(cube[:held].values, counts[:, :held].sum(axis=0))
    assert int(cube[held:].sum()) == 0
    said = "convert: the stream holds 3 frames, the file names"
    assert any(line.startswith(said) for line in cube.attrs["history"]) == (claimed != FRAMES)
    np.testing.assert_array_equal(hsi.open_cube(path).values, oracle(path))


@pytest.mark.parametrize("lost", [1, 3, 17])
def test_the_last_markers_may_be_missing(tmp_path: Path, counts: np.ndarray[Any, Any], lost: int) -> None:
    words = velox_words(counts[0])
    end = np.flatnonzero(words == END)[-lost]
    path = write_velox(tmp_path / "a.emd", (ROWS, COLUMNS), [words[:end]], frames=FRAMES, channels=CHANNELS)
    cut = counts[0].copy().reshape(-1, CHANNELS)
    cut[len(cut) - lost + 1 :] = 0
    wanted = cut.reshape(counts[0].shape).sum(axis=0)
    np.testing.assert_array_equal(hsi.open_cube(path).values, wanted)
    np.testing.assert_array_equal(oracle(path), wanted)
    assert int(event_file(path).counts_per_frame().sum()) == int(cut.sum())


def test_images_that_are_not_chunked(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    """Newer Velox writes them so, and RosettaSciIO's lazy reader refuses them."""
    path = written(tmp_path / "a.emd", counts, chunked_image=False)
    np.testing.assert_array_equal(hsi.open_cube(path).values, counts.sum(axis=(0, 1)))


def test_the_image_of_the_file_is_still_there(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = written(tmp_path / "a.emd", counts)
    assert hsi.open_image(path).shape == (ROWS, COLUMNS)
    with pytest.raises(InputError, match=r"dataset 'HAADF' of 'a\.emd' is no spectrum image"):
        hsi.open_cube(path, dataset="HAADF")
    assert hsi.open_cube(path, dataset="EDS").shape == (ROWS, COLUMNS, CHANNELS)


def test_the_index_travels_with_the_file(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    events = event_file(written(tmp_path / "a.emd", counts))
    events.index()
    again = pickle.loads(pickle.dumps(events))
    assert [s.tolist() for s in again.starts] == [s.tolist() for s in events.starts]
    assert again.counts_per_frame().tolist() == events.counts_per_frame().tolist()


def test_progress_counts_words(tmp_path: Path, counts: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    small_bands(monkeypatch)
    seen: list[tuple[int, int]] = []
    path = written(tmp_path / "a.emd", counts)
    hsi.convert(path, tmp_path / "a.zarr", progress=lambda done, total: seen.append((done, total)))
    total = 2 * int(counts.sum() + counts[..., 0].size)
    assert {t for _, t in seen} == {total}
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert seen[-1][0] == total


# What is refused -----------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, counts: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_bands(monkeypatch)
    path = written(tmp_path / "a.emd", counts)
    written_bands = threading.Semaphore(2)
    write = bands.Target.__setitem__

    def fails(self: Any, region: Any, block: Any) -> None:
        if not written_bands.acquire(blocking=False):
            raise KeyboardInterrupt
        write(self, region, block)

    monkeypatch.setattr(bands.Target, "__setitem__", fails)
    with pytest.raises(KeyboardInterrupt):
        hsi.convert(path, tmp_path / "a.zarr", chunk_mb=1e-3)
    assert hidden(tmp_path) == []
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"frames": (2, 9)}, r"frames=\(2, 9\) is outside the file.*there are 3 frames"),
        ({"frames": "all"}, r"frames='all' is no choice of frames"),
        ({"frames": (1,)}, r"frames=\(1,\) is no choice of frames"),
        ({"detectors": [2]}, r"detectors=\[2\] names a detector that is not there.*from 0 to 1"),
        ({"detectors": "first"}, r"detectors='first' is no choice"),
        ({"energy": (50, 60)}, r"energy=\(50, 60\) leaves nothing; the axis runs from -1 to -0\.37 keV"),
        ({"energy": (3, 1)}, r"energy=\(3, 1\) is no range"),
        ({"bin": {"z": 2}}, r"bin: the map has no axis 'z'"),
        ({"bin": {"y": 7}}, r"bin: y=7; a whole number from 1 to 6 is expected"),
        ({"axes": "y,x,energy"}, r"names its own, leave it out"),
    ],
    ids=str,
)
def test_a_choice_that_the_file_does_not_have(
    tmp_path: Path, counts: np.ndarray[Any, Any], how: dict[str, Any], message: str
) -> None:
    path = written(tmp_path / "a.emd", counts)
    with pytest.raises(InputError, match=message) as refused:
        hsi.convert(path, tmp_path / "a.zarr", **how)
    assert "\n" not in str(refused.value)
    assert hidden(tmp_path) == []


def test_the_choices_are_for_event_streams(tmp_path: Path) -> None:
    cube = hsi.make_cube(np.ones((2, 2, 3), "u1"), energy=[1, 2, 3], energy_units="keV")
    with pytest.raises(InputError, match=r"frames=\(0, 1\) is for event streams, and a cube is none"):
        hsi.convert(cube, tmp_path / "a.zarr", frames=(0, 1))


def test_cut_and_pruned_files_are_named(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = written(tmp_path / "a.emd", counts)
    (tmp_path / "cut.emd").write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"'cut\.emd' is truncated .*copy it again"):
        hsi.open_cube(tmp_path / "cut.emd")
    with h5py.File(path, "r+") as file:
        del file["Data/SpectrumStream"]
    with pytest.raises(InputError, match=r"it was saved pruned.*save it in Velox without pruning"):
        hsi.open_cube(path)


def test_a_stream_of_next_to_nothing(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = write_velox(tmp_path / "a.emd", (40, 50), [np.array([3, END, 4, END])], frames=1, channels=CHANNELS)
    with pytest.raises(InputError, match=r"is truncated: its stream ends at pixel 2 of 2000"):
        hsi.convert(path, tmp_path / "a.zarr")
    assert hidden(tmp_path) == []


def test_another_encoding_is_refused(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = written(tmp_path / "a.emd", counts, encoding="uint32")
    with pytest.raises(InputError, match="in the encoding 'uint32', one column of uint16 is known"):
        hsi.open_cube(path)


@pytest.mark.parametrize("how", ["image", "frames", "channels"])
def test_claims_are_checked_before_anything_is_made_of_them(
    tmp_path: Path, counts: np.ndarray[Any, Any], how: str
) -> None:
    claims: dict[str, Any] = {"frames": {"frames": 10**9}, "channels": {"channels": 10**7}}.get(how, {})
    path = written(tmp_path / "a.emd", counts, **claims)
    if how == "image":
        with h5py.File(path, "r+") as file:
            del file["Data/Image/a0/Data"]
            file["Data/Image/a0"].create_dataset("Data", (10**6, 10**6, 10), "u2", chunks=(100, 100, 1))
    with pytest.raises(InputError, match=r"'a\.emd' is damaged: it claims .*, which no map of events has"):
        hsi.open_cube(path)


# Files of the vendor -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not VENDOR, reason="no test data beside the repository")
@pytest.mark.parametrize("path", VENDOR, ids=lambda p: p.name)
def test_files_of_velox_equal_the_oracle(path: Path, tmp_path: Path) -> None:
    whole = oracle(path)
    cube = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr"))
    np.testing.assert_array_equal(cube.values, whole)
    joint = hsi.open_cube(hsi.convert(path, tmp_path / "b.zarr", frames=(1, 3), bin={"energy": 4}))
    np.testing.assert_array_equal(joint.values, oracle(path, first_frame=1, last_frame=3, rebin_energy=4))
    frames = hsi.open_cube(hsi.convert(path, tmp_path / "c.zarr", frames="keep"))
    np.testing.assert_array_equal(frames.values, oracle(path, sum_frames=False))
    low, high = float(cube.energy[100]), float(cube.energy[2099])
    binned = hsi.convert(path, tmp_path / "d.zarr", energy=(low, high), bin={"y": 2, "x": 2, "energy": 2})
    np.testing.assert_array_equal(hsi.open_cube(binned).values, joined(whole[..., 100:2100], 2, 2, 2))
    with h5py.File(path) as file:
        assert isinstance(file, h5py.File)
    assert zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["scalehsi"]["kind"] == "cube"
