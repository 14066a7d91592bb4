"""scalehsi quantify: the numbers of the library, what it writes, and how it refuses."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.cli import main
from scalehsi.io import open_dataset
from tests.refusals import refused, tree

pytestmark = pytest.mark.long

ELEMENTS = "Mg,Si,Al,Ca,Fe,Nd,Sm,O,Cu,U"


@pytest.fixture(scope="module")
def minerals(tmp_path_factory):
    """A small EDX map and its truth; nobody writes into the folder."""
    folder = tmp_path_factory.mktemp("minerals")
    settings = ("--set", "shape=12,12", "--set", "counts_per_pixel=500")
    assert main(["simulate", "phases", str(folder / "map.zarr"), *settings, "--quiet"]) == 0
    return folder


def test_components_of_a_result(run, minerals):
    status, out, err = run(
        *("quantify", minerals / "map_truth.zarr", "-e", ELEMENTS, "--thickness", "100", "--density", "4.5", "--json")
    )
    assert status == 0
    found = json.loads(out)
    library = hsi.quantify(
        open_dataset(minerals / "map_truth.zarr"), ELEMENTS.split(","), thickness_nm=100, density=4.5
    )
    assert [s["name"] for s in found["spectra"]] == ["Brg", "Fp", "CaPv"]
    fp = found["spectra"][1]["elements"]
    assert fp["Mg"]["atomic_percent"] == float(library["atomic_percent"][1, 0])
    assert fp["O"]["atomic_percent"] == pytest.approx(50.0, abs=0.05)
    assert found["lines"]["Nd"] == "Nd La"
    assert found["k_factors"]["Si"] == 1.0
    line = next(line for line in err.splitlines() if line.startswith("Fe "))
    assert line.split()[:2] == ["Fe", "Kα"]
    assert len(line.split()) == 8  # two errors each in atomic and mass per cent
    assert "± counting   ± k-factors" in err
    assert "of counting statistics" in err
    assert fp["Si"]["atomic_percent"] is None
    assert 0 < fp["Si"]["atomic_percent_limit"] < 0.1
    assert re.search(r"^Si +Kα +< 0\.\d+ +< 0\.\d+$", err, re.MULTILINE)


def test_the_sum_of_a_map_and_a_table(answer, minerals, tmp_path):
    found = answer("quantify", minerals / "map.zarr", "--method", "windows", "--out", tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[:4] == ["spectrum", "element", "line", "k_factor"]
    assert [row["element"] for row in rows] == list(found["spectra"][0]["elements"])
    for row in rows:
        value = found["spectra"][0]["elements"][row["element"]]
        for name in ("atomic_percent", "atomic_percent_std", "atomic_percent_k_std", "atomic_percent_limit"):
            wanted = np.nan if value[name] is None else value[name]
            assert float(row[name]) == pytest.approx(wanted, rel=1e-5, nan_ok=True)
    assert np.nansum([float(row["weight_percent"]) for row in rows]) == pytest.approx(100, abs=1e-3)


def test_maps_of_every_pixel(answer, minerals, tmp_path):
    found = answer("quantify", minerals / "map.zarr", "-e", "Mg,Si,O,Fe", "--maps", "--out", tmp_path / "c.zarr")
    maps = open_dataset(tmp_path / "c.zarr")
    assert maps["atomic_percent"].dims == ("element", "y", "x")
    assert found["mean_atomic_percent"]["O"] == pytest.approx(float(maps["atomic_percent"].sel(element="O").mean()))
    assert np.isfinite(maps["atomic_percent_std"]).all()


def test_a_store_and_a_figure(answer, minerals, tmp_path):
    words = ("-e", "Mg,Si,O,Fe", "--out", tmp_path / "c.zarr", "--figure", tmp_path / "c.png", "--fwhm", "124")
    found = answer("quantify", minerals / "map_truth.zarr", *words)
    assert found["figure"].endswith("c.png")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    stored = open_dataset(tmp_path / "c.zarr")
    assert json.loads(stored.attrs["settings"])["fwhm_MnKa_eV"] == pytest.approx(124)
    again = answer("quantify", minerals / "map_truth.zarr", *words, "--overwrite")
    assert again["spectra"] == found["spectra"]
    answer("quantify", minerals / "map_truth.zarr", "-e", "Mg,O", "--figure", tmp_path / "c.svg")
    assert (tmp_path / "c.svg").read_text("utf-8").startswith("<?xml")


def test_given_k_factors_and_lines(answer, minerals):
    k = ("--k-factor", "Mg_Ka=1.08", "--k-factor", "O=1.892", "--k-factor", "Fe_La=0.9", "--k-units", "atomic")
    found = answer("quantify", minerals / "map_truth.zarr", "-e", "Mg,O,Fe", *k, "--line", "Fe_La", "--extra", "Cu")
    assert found["lines"] == {"Mg": "Mg Ka", "O": "O Ka", "Fe": "Fe La"}
    assert json.loads(found["settings"])["k_factors"] == "given"
    assert json.loads(found["settings"])["extra"][0] == "Cu"
    assert set(json.loads(found["settings"])["extra_found"]) == {"Si", "Ca", "Al", "Nd", "Sm", "U"}
    assert found["warnings"][0]["code"] == "unexplained_peak"


REFUSED = [
    (["-e", "Mg,Xx"], "no element is called 'Xx'"),
    (["-e", "Mg", "--maps"], "name a store for them with --out composition.zarr"),
    (["-e", "Mg", "--maps", "--out", "a.zarr", "--figure", "b.png"], "leave one of them out"),
    (["-e", "Mg", "--out", "b.xlsx"], "--out writes a .csv table or a .zarr store, no .xlsx file; type --out b.csv"),
    (["-e", "Mg", "--maps", "--out", "b.xlsx"], "--out writes a .csv table or a .zarr store"),
    (["-e", "Mg", "--figure", "b.jpg"], "a figure ends in .png, .svg, .pdf"),
    (["-e", "Mg", "--out", "no/where.csv"], "does not exist; make it first"),
    (["-e", "Mg", "--k-factor", "Mg"], "--k-factor 'Mg': key=value is expected, for example --k-factor Fe_Ka=1.32"),
    (["-e", "Mg,O", "--k-factor", "Mg_Ka=1"], "no factor for O Ka"),
    (["-e", "Mg", "--thickness", "-4", "--density", "3"], "--thickness -4.0; a number above 0"),
    (["-e", "Mg", "--thickness", "4"], "add density (g/cm^3), such as --density 4.5"),
    (["-e", "Mg", "--line", "Mg_Lz"], "Mg has no line 'Lz'"),
    (["-e", "Mg", "--fwhm", "wide"], "--fwhm wide"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_wrong_words_get_one_line_and_change_nothing(capsys, minerals, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    before = tree(minerals)
    assert said in refused(capsys, ["quantify", str(minerals / "map.zarr"), *words])
    assert tree(minerals) == before
    assert not list(tmp_path.iterdir())


def test_without_elements_it_names_what_the_peaks_look_like(capsys, tmp_path):
    scene = hsi.simulate.phases((10, 10), counts_per_pixel=5000)
    cube = scene.cube.compute()
    del cube.attrs["elements"]
    hsi.save(cube, tmp_path / "unknown.zarr")
    line = refused(capsys, ["quantify", str(tmp_path / "unknown.zarr")])
    assert "no elements are named" in line
    for element in ("Mg", "Si", "O", "Fe"):
        assert element in line.split("--elements ")[1].split(",")


def test_an_eels_map_is_refused(capsys, scene):
    assert "the signal is EELS" in refused(capsys, ["quantify", str(scene / "map.zarr"), "-e", "C"])


def test_warnings_get_one_line_each_also_with_quiet(run, minerals):
    status, out, err = run("quantify", minerals / "map.zarr", "-e", "Mg,Si,O,Fe,Nd,Sm,U,Al,Cu,Ti", "--quiet", "--json")
    assert status == 0
    lines = err.splitlines()
    warned = json.loads(out)["warnings"]
    assert [each["code"] for each in warned] == ["unexplained_peak", "element_not_found"]
    assert len(lines) == 2
    assert lines[0].startswith("warning (unexplained_peak): A peak at 3.69 keV (Ca Ka?), ")
    assert lines[0].endswith(" Try: --extra Ca")
    assert lines[1].startswith("warning (element_not_found): ")
    assert "Ti (Ka, 4.51 keV)" in lines[1]
