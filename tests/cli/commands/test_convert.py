"""The command convert."""

from __future__ import annotations

import json

import numpy as np
import pytest

import scalehsi as hsi
from tests.io.event_files import END, velox_words, write_velox

pytestmark = pytest.mark.long


def test_convert(run, scene, tmp_path):
    status, out, _ = run("convert", scene / "map.zarr", tmp_path / "c.zarr", "--chunk-mb", "0.004", "--json")
    found = json.loads(out)
    cube = hsi.open_cube(tmp_path / "c.zarr")
    assert status == 0
    assert found["written"] == str(tmp_path / "c.zarr")
    assert found["dtype"] == str(cube.dtype) == "uint8"
    assert cube.data.npartitions > 1
    np.testing.assert_array_equal(cube.values, hsi.open_cube(scene / "map.zarr").values)


def test_an_event_stream_is_cut_and_joined_on_the_way(run, answer, tmp_path):
    pytest.importorskip("rsciio", reason="the extra io is not installed")
    counts = np.random.default_rng(0).poisson(0.3, (2, 3, 6, 4, 40))
    path = write_velox(tmp_path / "a.emd", (6, 4), [velox_words(c) for c in counts], frames=3, channels=40)
    told = answer("convert", path, "--frames", "list")
    assert told["frames"] == counts.sum(axis=(0, 2, 3, 4)).tolist()
    status, out, _ = run("convert", path, "--frames", "list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["frame", "0", "1", "2"]
    words = ["--frames", "1:3", "--keep-frames", "--energy", "-0.9:-0.75", "--bin", "y=2,x=2,energy=4"]
    answer("convert", path, tmp_path / "a.zarr", *words, "--detector", "1")
    cube = hsi.open_cube(tmp_path / "a.zarr")
    wanted = counts[1, 1:, :, :, 10:26].reshape(2, 3, 2, 2, 2, 4, 4).sum(axis=(2, 4, 6))
    np.testing.assert_array_equal(cube.values, wanted)
    assert answer("convert", path, tmp_path / "b.zarr", "--keep-detectors")["shape"] == [2, 6, 4, 40]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "the store to make is missing"),
        (("b.zarr", "--frames", "3"), "--frames '3': two numbers are expected"),
        (("b.zarr", "--frames", "2:9"), "--frames 2:9 is outside the file"),
        (("b.zarr", "--bin", "y"), "--bin 'y': key=value is expected"),
        (("b.zarr", "--detector", "0", "--keep-detectors"), "leave one out"),
    ],
)
def test_wrong_words_about_an_event_stream(run, tmp_path, monkeypatch, words, said):
    pytest.importorskip("rsciio", reason="the extra io is not installed")
    monkeypatch.chdir(tmp_path)
    path = write_velox(tmp_path / "a.emd", (1, 2), [np.array([5, END, END] * 3)], frames=3, channels=40)
    status, out, err = run("convert", path, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert len([line for line in err.splitlines() if line.startswith("scalehsi convert:")]) == 1


def test_frames_of_a_store_are_refused(run, tmp_path):
    store = hsi.save(hsi.make_cube(np.ones((2, 2, 3), "u1"), energy=[1, 2, 3], energy_units="keV"), tmp_path / "a.zarr")
    status, _, err = run("convert", store, "--frames", "list")
    assert status == 2
    assert "has no frames" in err
