"""The command project."""

from __future__ import annotations

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.result import ResultWarning, result_warnings, warnings_text

pytestmark = pytest.mark.long


def test_project_gives_a_result_of_the_other_cube(answer, scene, tmp_path):
    answer("simulate", "chequerboard", tmp_path / "o.zarr", "--set", "shape=12,10", "--set", "n_channels=64")
    found = answer("project", scene / "result.zarr", tmp_path / "o.zarr", tmp_path / "p.zarr")
    assert (found["model"], found["components"]) == ("NMF", 4)
    projected, cube = hsi.open_result(tmp_path / "p.zarr"), hsi.open_cube(tmp_path / "o.zarr")
    expected = hsi.project(hsi.open_result(scene / "result.zarr"), cube)
    np.testing.assert_array_equal(projected["abundances"].values, expected.values)
    assert projected["abundances"].dims == ("component", "y", "x")
    assert projected.attrs["history"].splitlines()[-1] == "project: spectra of result.zarr (NMF), maps of o.zarr"
    assert "objective" not in projected
    denoised = hsi.open_cube(answer("reconstruct", tmp_path / "p.zarr", tmp_path / "d.zarr")["written"])
    assert denoised.sizes == cube.sizes


def test_project_says_what_the_fit_of_the_spectra_warned_of(run, scene, tmp_path):
    found = [ResultWarning("drift", "Spectra shift by at least 0.6 eV.", "prepare --step align")]
    hsi.save(hsi.open_result(scene / "result.zarr").assign_attrs(warnings=warnings_text(found)), tmp_path / "r.zarr")
    status, out, err = run("project", tmp_path / "r.zarr", scene / "map.zarr", tmp_path / "p.zarr", "--quiet")
    assert (status, out) == (0, "")
    assert err == (
        "warning (drift): When the spectra were fitted: Spectra shift by at least 0.6 eV. Try: prepare --step align\n"
    )
    (kept,) = result_warnings(hsi.open_result(tmp_path / "p.zarr"))
    assert kept.text == "When the spectra were fitted: Spectra shift by at least 0.6 eV."


def test_project_takes_a_table_of_references(answer, scene, tmp_path):
    cube = hsi.open_cube(scene / "map.zarr")
    spectra = hsi.open_result(scene / "result.zarr")["endmembers"]
    table = np.column_stack([cube.energy.values, spectra.values.T])
    head = f"energy ({cube.energy.attrs['units']}),A,B,C,D"
    np.savetxt(tmp_path / "r.csv", table, delimiter=",", header=head, comments="", fmt="%.12g")
    found = answer("project", tmp_path / "r.csv", scene / "map.zarr", tmp_path / "p.zarr", "--constraint", "fcls")
    assert (found["model"], found["components"]) == ("FCLS", 4)
    made = hsi.open_result(tmp_path / "p.zarr")
    np.testing.assert_allclose(made["abundances"].sum("component"), 1.0, atol=1e-6)
    np.testing.assert_allclose(made["endmembers"], spectra, rtol=1e-6)
    assert made.attrs["history"].splitlines()[-1] == "project: spectra of r.csv, fcls, maps of map.zarr"
    answer("report", tmp_path / "p.zarr", tmp_path / "report")
    again = answer("project", scene / "result.zarr", scene / "map.zarr", tmp_path / "q.zarr", "--constraint", "nnls")
    assert again["model"] == "NNLS"
