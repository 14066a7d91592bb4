"""The command fit, on files of our own and of other programs, on threads and on worker processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from tests.paths import DATA

pytestmark = pytest.mark.long

EDX = DATA / "edx_88ESLP" / "88_ES-LP_G8_selection2_cropped2.hspy"


def test_fit_says_what_came_of_it(run, scene, tmp_path):
    status, out, err = run("fit", scene / "map.zarr", tmp_path / "r.zarr", "-k", "4", "--set", "max_iter=2", "--json")
    found = json.loads(out)
    result = hsi.open_result(tmp_path / "r.zarr")
    assert status == 0
    assert (found["status"], found["iterations"]) == ("max_iter", 2)
    assert found["objective"] == float(result["objective"][-1])
    assert sum(found["signal_share"]) == pytest.approx(1)
    assert "NMF: stopped at the iteration limit after 2 iterations" in err
    assert f"next: scalehsi report {tmp_path / 'r.zarr'}" in err
    assert "--device auto chose" in err
    direct = hsi.fit(hsi.open_cube(scene / "map.zarr"), hsi.NMF(4, max_iter=2), seed=0)
    np.testing.assert_array_equal(result["endmembers"].values, direct["endmembers"].values)


def test_nothing_is_opened_when_the_destination_is_taken(run, scene, monkeypatch):
    monkeypatch.setattr(hsi, "open_cube", None)
    status, _, err = run("fit", scene / "map.zarr", scene / "result.zarr", "-k", "4")
    assert status == 2
    assert "exists already; give another name, or replace it" in err


def test_fit_takes_settings_of_every_kind(answer, scene, tmp_path):
    settings = ("--set", "loss=poisson", "--set", "tol=1e-3", "--set", "weighting=null", "--set", "max_iter=4")
    answer("fit", scene / "map.zarr", tmp_path / "r.zarr", "-k", "2", *settings, "--seed", "5")
    attrs = hsi.open_result(tmp_path / "r.zarr").attrs
    stored = json.loads(attrs["settings"])
    assert (
        stored.items() >= {"n_components": 2, "loss": "poisson", "tol": 1e-3, "weighting": None, "max_iter": 4}.items()
    )
    assert stored == hsi.NMF(2, loss="poisson", tol=1e-3, max_iter=4).to_settings()
    assert attrs["seed"] == 5


def test_elements_are_named_for_the_result(answer, run, scene, tmp_path):
    words = ("fit", scene / "map.zarr", tmp_path / "r.zarr", "-k", "2", "--set", "max_iter=2")
    answer(*words, "--elements", "Ti, O")
    assert hsi.open_result(tmp_path / "r.zarr").attrs["elements"] == "Ti, O"
    status, _, err = run(*words, "--overwrite", "--elements", "Ti,Xx")
    assert status == 2
    assert "no element is called 'Xx'" in err


def test_fit_of_pca_with_a_report(answer, scene, tmp_path):
    words = ("fit", scene / "map.zarr", tmp_path / "r.zarr", "--model", "PCA", "-k", "3", "--report", tmp_path / "page")
    found = answer(*words)
    assert len(found["explained_variance"]) == 3
    assert "signal_share" not in found
    assert Path(found["report"]).is_file()


def test_threads_of_a_command_change_nothing(answer, same, scene, tmp_path):
    answer("fit", scene / "map.zarr", tmp_path / "r.zarr", "-k", "4", "--workers", "1")
    same(tmp_path / "r.zarr", scene / "result.zarr")


def fit_file(answer, source: Path, folder: Path, *more: str) -> xr.Dataset:
    """Fit a file and report, as a user would; gives the result."""
    name = f"r{len(list(folder.iterdir()))}"
    settings = ("-k", "3", "--set", "loss=poisson", "--set", "max_iter=30")
    words = ("fit", source, folder / f"{name}.zarr", *settings, "--report", folder / f"{name}_page", *more)
    found = answer(*words)
    assert "<svg" in (text := Path(found["report"]).read_text()) or "data:image/png" in text
    return hsi.open_result(folder / f"{name}.zarr")


def hspy_file(folder: Path) -> Path:
    """A simulated EDX map as a HyperSpy file."""
    hspy = pytest.importorskip("rsciio.hspy")
    cube = hsi.simulate.phases((24, 24), n_channels=400, counts_per_pixel=300).cube.compute()
    axes = [
        {
            "name": dim,
            "size": cube.sizes[dim],
            "offset": float(cube[dim][0]),
            "scale": float(cube[dim][1] - cube[dim][0]),
            "units": cube[dim].attrs["units"],
            "navigate": dim != "energy",
            "index_in_array": position,
            "_type": "UniformDataAxis",
        }
        for position, dim in enumerate(cube.dims)
    ]
    content = {
        "data": cube.values,
        "axes": axes,
        "metadata": {"General": {"title": "minerals"}, "Signal": {"signal_type": "EDS_TEM"}},
        "attributes": {"_lazy": False},
        "package_info": {},
    }
    empty: dict = {name: {} for name in ("original_metadata", "learning_results", "tmp_parameters", "models")}
    hspy.file_writer(str(folder / "minerals.hspy"), {**content, **empty})
    return folder / "minerals.hspy"


def angles(a: xr.Dataset, b: xr.Dataset) -> np.ndarray:
    return np.asarray(hsi.metrics.spectral_angle(a["endmembers"], b["endmembers"]))


def test_fit_of_a_hyperspy_file(answer, tmp_path):
    result = fit_file(answer, hspy_file(tmp_path), tmp_path)
    assert result["endmembers"].energy.attrs["units"] == "keV"
    assert result.attrs["signal"] == "EDS"
    stored = answer("convert", tmp_path / "minerals.hspy", tmp_path / "map.zarr")["written"]
    assert angles(result, fit_file(answer, Path(stored), tmp_path)).max() < 1e-4


@pytest.mark.cluster
def test_fit_of_a_hyperspy_file_on_two_processes(answer, tmp_path):
    source = hspy_file(tmp_path)
    alone = fit_file(answer, source, tmp_path)
    together = fit_file(answer, source, tmp_path, "--cluster", "local", "--workers", "2")
    assert angles(alone, together).max() < 1e-4


@pytest.mark.skipif(not EDX.is_file(), reason="the measured map is not on this machine")
def test_fit_of_the_measured_map(answer, tmp_path):
    result = fit_file(answer, EDX, tmp_path)
    assert dict(result["abundances"].sizes) == {"component": 3, "y": 80, "x": 80}
    page = next(tmp_path.glob("*_page/index.html")).read_text()
    assert all(line in page for line in ("Mg Kα", "Si Kα", "Ca Kα", "Fe Kα"))


@pytest.mark.slow  # that of a HyperSpy file is the same on fewer counts
@pytest.mark.cluster
@pytest.mark.skipif(not EDX.is_file(), reason="the measured map is not on this machine")
def test_fit_of_the_measured_map_on_two_processes(answer, tmp_path):
    alone = fit_file(answer, EDX, tmp_path)
    together = fit_file(answer, EDX, tmp_path, "--cluster", "local", "--workers", "2")
    assert angles(alone, together).max() < 1e-4


@pytest.mark.cluster
def test_every_command_runs_on_a_cluster(run, answer, scene, tmp_path, monkeypatch):
    where = ("--cluster", "local", "--workers", "1", "--memory", "700MiB")
    steps = ("--step", "crop:energy=300:600")
    assert answer("prepare", scene / "map.zarr", tmp_path / "p.zarr", *steps, *where)["shape"][-1] == 37
    assert answer("plan", tmp_path / "p.zarr", "-k", "3", *where)["workers"] == 1
    status, out, err = run("info", tmp_path / "p.zarr", *where)
    assert status == 0
    assert "Counts per pixel" in out
    assert "computing on 'local'" in err
    status, _, err = run("fit", tmp_path / "p.zarr", tmp_path / "r.zarr", "-k", "38", *where)
    assert status == 2
    assert "more than the 37 channels" in err
    monkeypatch.chdir(tmp_path)
    answer("fit", "p.zarr", "r.zarr", "-k", "3", *where)
    answer("reconstruct", "r.zarr", "d.zarr", *where)
    assert hsi.open_cube(tmp_path / "d.zarr").sizes["energy"] == 37
