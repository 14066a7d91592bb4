"""Oxford files, written here after the published specification of .h5oina (format 7.0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.io.events import bands
from scalehsi.schema import InputError

ROWS, COLUMNS, CHANNELS = 6, 5, 64


@pytest.fixture
def counts() -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).poisson(0.5, (ROWS, COLUMNS, CHANNELS)).astype("i4")


def written(path: Path, *counts: np.ndarray[Any, Any], **header: Any) -> Path:
    """A file with one acquisition, and these counts (y, x, channels) for each detector."""
    numbers = {"X Cells": COLUMNS, "Y Cells": ROWS, "X Step": 0.2, "Y Step": 0.2, "Channel Width": 10.0}
    numbers |= {"Start Channel": -200.0, "Number Channels": CHANNELS, "Beam Voltage": 15.0, "Magnification": 500.0}
    numbers |= {"Detector Elevation": 0.61, **header}
    with h5py.File(path, "w") as file:
        file["Format Version"] = "7.0"
        file["1/Electron Image/Data/SE/SE1"] = np.zeros((ROWS * COLUMNS, 1), "u1")
        for number, each in enumerate(counts):
            group = file.create_group(f"1/EDS{number + 1 if len(counts) > 1 else ''}")
            flat = each.reshape(-1, each.shape[-1])
            group.create_dataset("Data/Spectrum", data=flat, compression="lzf", chunks=(7, each.shape[-1]))
            group["Data/Live Time"] = np.full((len(flat), 1), 0.01, "f4")
            for name, value in numbers.items():
                if value is not None:
                    kind = "i4" if isinstance(value, int) else "f4"
                    group[f"Header/{name}"] = np.array([[value]], kind)
            group["Header/Acquisition Date"] = np.array([[b"2026-05-04T10:11:12"]])
            group["Header/Analysis Label"] = "map 3"
    return path


def test_the_map_with_its_axes(tmp_path: Path, counts: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", 2 * COLUMNS * CHANNELS)
    counts[3, 2, 7] = 300
    path = written(tmp_path / "a.h5oina", counts)
    cube = hsi.open_cube(path)
    np.testing.assert_array_equal(cube.values, counts)
    np.testing.assert_allclose(cube.energy, -0.2 + 0.01 * np.arange(CHANNELS), rtol=1e-6)
    np.testing.assert_allclose(cube.x, 200 * np.arange(COLUMNS), rtol=1e-6)
    assert cube.energy.attrs["units"] == "keV"
    assert cube.attrs["beam_energy_keV"] == 15
    assert cube.attrs["signal"] == "EDS"
    assert cube.attrs["elevation_angle_deg"] == pytest.approx(34.95, abs=0.01)
    assert (cube.attrs["title"], cube.attrs["date"], cube.attrs["time"]) == ("map 3", "2026-05-04", "10:11:12")
    stored = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr"))
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored.values, counts)


def test_energies_and_pixels_are_joined(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = written(tmp_path / "a.h5oina", counts)
    store = hsi.convert(path, tmp_path / "a.zarr", energy=(0.0, 0.3), bin={"y": 4, "x": 2, "energy": 3})
    wanted = counts[:4, :4, 20:50].reshape(1, 4, 2, 2, 10, 3).sum(axis=(1, 3, 5))
    np.testing.assert_array_equal(hsi.open_cube(store).values, wanted)


def test_detectors(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    path = written(tmp_path / "a.h5oina", counts, counts[::-1])
    np.testing.assert_array_equal(hsi.open_cube(path).values, counts + counts[::-1])
    kept = hsi.open_cube(hsi.convert(path, tmp_path / "a.zarr", detectors="keep"))
    np.testing.assert_array_equal(kept.values, [counts, counts[::-1]])


def test_what_is_refused(tmp_path: Path, counts: np.ndarray[Any, Any]) -> None:
    whole = written(tmp_path / "a.h5oina", counts)
    (tmp_path / "b.h5oina").write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"'b\.h5oina' is truncated or no HDF5 file"):
        hsi.open_cube(tmp_path / "b.h5oina")
    with pytest.raises(InputError, match=r"has no EDX spectra.*AZtec 6\.2"):
        hsi.open_cube(written(tmp_path / "c.h5oina"))
    with pytest.raises(InputError, match=r"its header says 6 x 50 pixels, its spectra are int32 of \(30, 64\)"):
        hsi.open_cube(written(tmp_path / "d.h5oina", counts, **{"X Cells": 50}))
    with pytest.raises(InputError, match="its header has no 'Channel Width'"):
        hsi.open_cube(written(tmp_path / "e.h5oina", counts, **{"Channel Width": None}))
    with pytest.raises(InputError, match=r"there is no dataset '2' in 'a\.h5oina'; it holds 1"):
        hsi.open_cube(whole, dataset="2")
    with pytest.raises(InputError, match="counts below zero"):
        hsi.open_cube(written(tmp_path / "f.h5oina", counts - 1)).compute()
    pytest.importorskip("rsciio", reason="the extra io is not installed")
    (tmp_path / "a.oip").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no reader for 'a\.oip'.*export \.h5oina from AZtec 6\.2"):
        hsi.open_cube(tmp_path / "a.oip")
