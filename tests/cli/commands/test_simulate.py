"""The command simulate: the truth beside, both or neither, maps without spectra."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.io import open_dataset, open_maps

pytestmark = pytest.mark.long


def test_simulate_stores_the_truth_beside(run, tmp_path):
    words = ("simulate", "chequerboard", tmp_path / "s.zarr", "--set", "shape=8,9", "--set", "n_channels=32")
    status, out, err = run(*words, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["shape"] == [8, 9, 32]
    assert found["truth"] == str(tmp_path / "s_truth.zarr")
    assert f"{tmp_path / 's_truth.zarr'}: the truth" in err
    expected, truth = hsi.simulate.chequerboard((8, 9), n_channels=32)
    xr.testing.assert_equal(hsi.open_cube(tmp_path / "s.zarr").compute(), expected.compute().rename("counts"))
    np.testing.assert_allclose(open_dataset(tmp_path / "s_truth.zarr")["endmembers"], truth["endmembers"])


def test_simulate_writes_both_or_neither(run, tmp_path, monkeypatch):
    save = hsi.save

    def fail(data: Any, path: Path, **options: Any) -> Path:
        if "truth" not in Path(path).name:
            raise OSError("the cable was pulled")
        return save(data, path, **options)

    monkeypatch.setattr(hsi, "save", fail)
    status, _, err = run(
        "simulate", "chequerboard", tmp_path / "s.zarr", "--set", "shape=8,8", "--set", "n_channels=32"
    )
    assert status == 1
    assert "the cable was pulled" in err
    assert list(tmp_path.iterdir()) == []


def test_simulate_makes_maps_without_spectra(run, tmp_path):
    words = ("simulate", "sines", tmp_path / "m.zarr", "--set", "shape=16,20", "--set", "alpha=2", "--set", "sigma0=.5")
    status, out, err = run(*words, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["shape"] == [3, 16, 20]
    assert f"{tmp_path / 'm_truth.zarr'}: the truth, the maps without noise" in err
    expected, truth = hsi.simulate.sines((16, 20), alpha=2.0, sigma0=0.5)
    np.testing.assert_array_equal(open_maps(tmp_path / "m.zarr"), expected)
    np.testing.assert_array_equal(open_maps(tmp_path / "m_truth.zarr"), truth)
    noise = ("--set", "noise=0.1,0.2,0.3", "--set", "kind=smooth")
    assert run("simulate", "maps", tmp_path / "n.zarr", *noise)[0] == 0
    np.testing.assert_array_equal(open_maps(tmp_path / "n.zarr")["noise"], [0.1, 0.2, 0.3])
    status, _, err = run("simulate", "maps", tmp_path / "o.zarr", "--set", "noise=0.1,0.2")
    assert status == 2
    assert "2 numbers for 3 maps" in err
