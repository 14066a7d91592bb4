"""The command info: of cubes, results and truths."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.cli import console
from scalehsi.cube import make_cube
from scalehsi.result import ResultWarning, warnings_text
from tests.helpers import raise_if_dask_computes
from tests.prepare.eels import edge_cube

pytestmark = pytest.mark.long


def test_info_of_a_cube(run, scene):
    status, out, err = run("info", scene / "map.zarr", "--json")
    found = json.loads(out)
    counts = hsi.open_cube(scene / "map.zarr").compute()
    totals = counts.sum("energy")
    assert status == 0
    assert found["kind"] == "cube"
    assert found["shape"] == [16, 16, 64]
    assert found["axes"]["energy"] == {"size": 64, "first": 250.0, "last": 754.0, "units": "eV", "step": 8.0}
    assert found["values"]["mean_per_pixel"] == pytest.approx(float(totals.mean()))
    assert found["values"]["most_per_pixel"] == int(totals.max())
    assert found["values"]["largest_value"] == int(counts.max())
    assert found["values"]["empty_channels"] == int((counts.sum(["y", "x"]) == 0).sum())
    assert found["disk_bytes"] == sum(p.stat().st_size for p in (scene / "map.zarr").rglob("*") if p.is_file())
    assert "EELS spectrum image, 16 x 16 pixels, 64 channels" in err
    assert re.search(r"^energy +64 +250 +754 +8 +eV$", err, re.MULTILINE)
    assert re.search(rf"Counts per pixel +mean {console.number(float(totals.mean()))}, from", err)
    assert "1. simulate.chequerboard(" in err
    assert "reading all values once" in err


def test_info_reads_the_values_once_and_some_pixels_for_the_noise_and_quick_nothing(answer, scene):
    with raise_if_dask_computes(2) as scheduler:
        assert {"values", "signal"} <= set(answer("info", scene / "map.zarr"))
    assert scheduler.computes == 2
    with raise_if_dask_computes(0):
        assert "values" not in answer("info", scene / "map.zarr", "--quick")


def test_info_shows_the_sum_spectrum_with_the_edges_of_given_elements_and_the_angles(run, tmp_path):
    cube = edge_cube()
    cube.attrs |= {"convergence_angle_mrad": 20.0, "collection_angle_mrad": 35.5}
    hsi.save(cube, tmp_path / "m.zarr")
    picture = tmp_path / "sum.png"
    status, out, err = run("info", tmp_path / "m.zarr", "--elements", "O,Ti", "--figure", picture, "--json")
    assert status == 0
    found = json.loads(out)
    np.testing.assert_array_equal(found["spectrum"]["sum"], cube.sum(["y", "x"]))
    assert [mark["name"] for mark in found["spectrum"]["marks"]] == ["Ti L3", "O K"]
    assert set(found["signal"]["edges"]) == {"Ti L3", "O K"}
    rows = err.splitlines()
    bars = next(row for row in rows if row.startswith("Sum spectrum"))
    names = rows[rows.index(bars) + 1]
    assert len(bars.split()[-1]) == 64
    # 532 eV is in bar 28 of 64 from 400 to 699 eV, behind 44 of 5 and 20 of 4 channels.
    assert names.index("^O K") - bars.index(bars.split()[-1]) == 132 // 5
    assert re.search(r"^Convergence angle \(mrad\) +20$", err, re.MULTILINE)
    assert re.search(r"^Collection angle \(mrad\) +35.5$", err, re.MULTILINE)
    assert picture.read_bytes().startswith(b"\x89PNG")
    status, _, err = run("info", tmp_path / "m.zarr", "--figure", picture)
    assert status == 2
    assert "--overwrite" in err
    assert run("info", tmp_path / "m.zarr", "--quick", "--figure", tmp_path / "q.png")[0] == 2
    assert "did you mean" in run("info", tmp_path / "m.zarr", "--elements", "Tii")[2]


def test_info_counts_what_the_mask_leaves(answer, tmp_path):
    data = np.arange(24, dtype="f4").reshape(2, 3, 4)
    data[1, 2, 3] = np.nan
    mask = np.array([[False, True, True], [True, True, False]])
    hsi.save(make_cube(data, energy=range(4), energy_units="eV", mask=mask), tmp_path / "m.zarr")
    values = answer("info", tmp_path / "m.zarr")["values"]
    totals = data.sum(-1)[mask]
    assert values["pixels"] == 4
    assert values["not_finite"] == 0
    assert values["mean_per_pixel"] == pytest.approx(float(totals.mean()))
    assert (values["least_per_pixel"], values["largest_value"]) == (float(totals.min()), 19.0)


def test_info_counts_values_that_are_not_finite(run, tmp_path):
    data = np.ones((2, 2, 3), "f4")
    data[0, 0, :2] = np.nan, np.inf
    hsi.save(make_cube(data, energy=range(3), energy_units="eV"), tmp_path / "n.zarr")
    status, out, err = run("info", tmp_path / "n.zarr", "--json")
    assert status == 0
    assert "2 values are NaN or Inf" in err
    assert json.loads(out)["values"]["not_finite"] == 2


def test_info_of_a_result_and_of_a_truth(run, scene):
    status, out, err = run("info", scene / "result.zarr", "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["kind"], found["model"], found["status"]) == ("result", "NMF", "converged")
    assert "a result of NMF, 4 components, 16 x 16 pixels" in err
    assert found["settings"]["n_components"] == 4
    status, out, err = run("info", scene / "map_truth.zarr", "--json")
    assert (status, json.loads(out)["kind"]) == (0, "truth")
    assert "the truth of a simulation" in err


def test_info_of_a_result_lists_its_warnings(run, scene, tmp_path):
    found = [
        ResultWarning("drift", "Spectra shift by at least 0.6 eV.", "prepare --step align"),
        ResultWarning("below_noise", "The data hold 3.", "n_components=3"),
    ]
    result = hsi.open_result(scene / "result.zarr")
    stores = {"two": result.assign_attrs(warnings=warnings_text(found)), "none": result.assign_attrs(warnings="[]")}
    stores["old"] = result.drop_attrs(deep=False).assign_attrs(
        {k: v for k, v in result.attrs.items() if k != "warnings"}
    )
    for name, each in stores.items():
        hsi.save(each, tmp_path / f"{name}.zarr")
    _, out, err = run("info", tmp_path / "two.zarr", "--json")
    answer = json.loads(out)
    assert answer["warnings"] == [each._asdict() for each in found]
    assert "warnings" not in answer["attrs"]
    assert re.search(r"^Warnings +drift: Spectra shift by at least 0\.6 eV\. Try: prepare --step align$", err, re.M)
    assert re.search(r"^ +below_noise: The data hold 3\. Try: -k 3$", err, re.M)
    assert re.search(r"^Warnings +none$", run("info", tmp_path / "none.zarr")[1], re.M)
    assert re.search(r"^Warnings +not looked for", run("info", tmp_path / "old.zarr")[1], re.M)
