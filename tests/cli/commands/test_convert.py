"""Commands that make a store: simulate, convert, prepare, project, reconstruct."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi.io import open_dataset, open_maps


def test_simulate_stores_the_truth_beside(run, tmp_path):
    words = ("simulate", "chequerboard", tmp_path / "s.zarr", "--set", "shape=(8, 9)", "--set", "n_channels=32")
    status, out, _ = run(*words, "--json")
    found = json.loads(out.splitlines()[-1])
    assert status == 0
    assert found["shape"] == [8, 9, 32]
    assert found["truth"] == str(tmp_path / "s_truth.zarr")
    assert f"{tmp_path / 's_truth.zarr'}: the truth" in out
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


def test_convert(run, scene, tmp_path):
    status, out, _ = run("convert", scene / "map.zarr", tmp_path / "c.zarr", "--chunk-mb", "0.004", "--json")
    found = json.loads(out.splitlines()[-1])
    cube = hsi.open_cube(tmp_path / "c.zarr")
    assert status == 0
    assert found["written"] == str(tmp_path / "c.zarr")
    assert found["dtype"] == str(cube.dtype) == "uint8"
    assert cube.data.npartitions > 1
    np.testing.assert_array_equal(cube.values, hsi.open_cube(scene / "map.zarr").values)


def test_prepare_does_the_steps_in_order(run, scene, tmp_path):
    words = (
        "prepare",
        scene / "map.zarr",
        tmp_path / "p.zarr",
        "--step",
        "crop:energy=300:600",
        "--step",
        "bin:y=2,x=2",
    )
    status, out, _ = run(*words, "--json")
    cube = hsi.open_cube(tmp_path / "p.zarr")
    expected = hsi.prepare.bin(hsi.prepare.crop(hsi.open_cube(scene / "map.zarr"), energy=(300, 600)), y=2, x=2)
    assert status == 0
    np.testing.assert_array_equal(cube.values, expected.values)
    assert cube.attrs["history"][-2:] == ["crop(energy=300:600)", "bin(y=2, x=2)"]
    assert json.loads(out.splitlines()[-1])["shape"] == list(cube.shape)
    assert out.index("did crop(energy=300:600)") < out.index("did bin(y=2, x=2)")


def test_prepare_stores_a_mask(answer, scene, tmp_path):
    totals = hsi.open_cube(scene / "map.zarr").sum("energy").values
    threshold = int(np.median(totals))
    answer("prepare", scene / "map.zarr", tmp_path / "m.zarr", "--step", f"mask:min_counts={threshold}")
    np.testing.assert_array_equal(hsi.open_cube(tmp_path / "m.zarr").mask, totals >= threshold)


def test_project_gives_a_result_of_the_other_cube(answer, scene, tmp_path):
    answer("simulate", "chequerboard", tmp_path / "o.zarr", "--set", "shape=12,10", "--set", "n_channels=64")
    found = answer("project", scene / "result.zarr", tmp_path / "o.zarr", tmp_path / "p.zarr")
    assert (found["model"], found["components"]) == ("NMF", 4)
    projected, cube = hsi.open_result(tmp_path / "p.zarr"), hsi.open_cube(tmp_path / "o.zarr")
    expected = hsi.project(hsi.open_result(scene / "result.zarr"), cube)
    np.testing.assert_array_equal(projected["abundances"].values, expected.values)
    assert projected["abundances"].dims == ("component", "y", "x")
    assert projected.attrs["history"][-1] == "project: spectra of result.zarr (NMF), maps of o.zarr"
    assert "objective" not in projected
    denoised = hsi.open_cube(answer("reconstruct", tmp_path / "p.zarr", tmp_path / "d.zarr")["written"])
    assert denoised.sizes == cube.sizes


def test_reconstruct(answer, scene, tmp_path):
    answer("reconstruct", scene / "result.zarr", tmp_path / "d.zarr")
    result = hsi.open_result(scene / "result.zarr")
    denoised = hsi.open_cube(tmp_path / "d.zarr")
    product = np.einsum("kyx,ke->yxe", result["abundances"].values, result["endmembers"].values)
    np.testing.assert_allclose(denoised.values, product, rtol=1e-5, atol=1e-6)


def test_simulate_makes_maps_without_spectra(run, tmp_path):
    words = ("simulate", "sines", tmp_path / "m.zarr", "--set", "shape=16,20", "--set", "alpha=2", "--set", "sigma0=.5")
    status, out, err = run(*words, "--json")
    assert status == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["shape"] == [3, 16, 20]
    assert f"{tmp_path / 'm_truth.zarr'}: the truth, the maps without noise" in out
    expected, truth = hsi.simulate.sines((16, 20), alpha=2.0, sigma0=0.5)
    np.testing.assert_array_equal(open_maps(tmp_path / "m.zarr"), expected)
    np.testing.assert_array_equal(open_maps(tmp_path / "m_truth.zarr"), truth)
    noise = ("--set", "noise=0.1,0.2,0.3", "--set", "kind=smooth")
    assert run("simulate", "maps", tmp_path / "n.zarr", *noise)[0] == 0
    np.testing.assert_array_equal(open_maps(tmp_path / "n.zarr")["noise"], [0.1, 0.2, 0.3])
    status, _, err = run("simulate", "maps", tmp_path / "o.zarr", "--set", "noise=0.1,0.2")
    assert status == 2
    assert "2 numbers for 3 maps" in err
