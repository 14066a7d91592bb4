"""Names of components stay with a result, and its parts are written for other programs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr

import scalehsi as hsi
from scalehsi.io.reference_spectra import open_spectra
from scalehsi.plots.digest import digest
from scalehsi.result import names_of_components
from scalehsi.schema import InputError

NAMES = ("matrix", "Fe oxide", "film")


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    return hsi.simulate.oxide_particle((10, 12), counts_per_pixel=2e4)[0]


@pytest.fixture(scope="module")
def named(cube: xr.DataArray) -> xr.Dataset:
    result = hsi.fit(cube, hsi.NMF(3, max_iter=10), seed=0)
    return hsi.name_components(result, NAMES)


def test_names_stay_with_all_that_is_made_of_a_result(named: xr.Dataset, cube: xr.DataArray, tmp_path: Path) -> None:
    saved = hsi.open_result(hsi.save(named, tmp_path / "r.zarr"))
    upsampled = hsi.fit(saved, hsi.ParallelGP(max_iter=2))
    made = [
        saved,
        hsi.project(saved, cube),
        hsi.project(saved, cube, constraint="nnls"),
        hsi.reconstruct(saved),
        upsampled,
    ]
    for each in made:
        assert names_of_components(each.attrs) == NAMES
    assert digest(saved).names == NAMES
    page = hsi.report(saved, tmp_path / "report")
    assert "Fe oxide" in page.read_text(encoding="utf-8")
    assert "components" not in hsi.fit(hsi.reconstruct(saved), hsi.PCA(2)).attrs


def test_compositions_have_the_names() -> None:
    cube, _ = hsi.simulate.phases((8, 8))
    found = hsi.quantify(hsi.name_components(hsi.fit(cube, hsi.NMF(3, max_iter=5)), ["a", "b b", "c"]))
    assert names_of_components(found.attrs) == ("a", "b b", "c")


def test_a_single_name_may_have_blanks(named: xr.Dataset) -> None:
    one = named.isel(component=slice(1)).drop_attrs(deep=False).assign_attrs(model="NMF")
    assert names_of_components(hsi.name_components(one, ["Fe oxide"]).attrs) == ("Fe oxide",)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["a", "b"], r"2 names are given for 3 components; give 3 texts, such as \['phase 1', 'phase 2'\]"),
        ("abc", "1 names are given for 3"),
        (["a", "a", "b"], "'a' cannot name a component"),
        (["a", " ", "b"], "'' cannot name"),
        (["a,b", "c", "d"], "'a,b' cannot name"),
        (["a\nb", "c", "d"], "cannot name"),
        ([1, 2, 3], "names of components are texts"),
    ],
)
def test_names_that_would_be_misread_are_refused(named: xr.Dataset, names: list[str], match: str) -> None:
    with pytest.raises(InputError, match=match):
        hsi.name_components(named, names)


def test_a_table_has_units_and_is_read_again(named: xr.Dataset, tmp_path: Path) -> None:
    (file,) = hsi.export(named, tmp_path / "s.csv", components=["film", 1])
    assert file.read_text(encoding="utf-8").splitlines()[0] == "energy (eV),film (counts),matrix (counts)"
    spectra = open_spectra(file)
    assert spectra["name"].values.tolist() == ["film", "matrix"]
    np.testing.assert_allclose(spectra.values, named["endmembers"].values[[2, 0]], rtol=1e-8)
    np.testing.assert_allclose(spectra["energy"].values, named["energy"].values)


@pytest.mark.parametrize("even", [True, False])
def test_emsa_files_are_read_by_rosettasciio(named: xr.Dataset, tmp_path: Path, *, even: bool) -> None:
    msa = pytest.importorskip("rsciio.msa")
    if not even:
        named = named.assign_coords(energy=("energy", named["energy"].values ** 1.1, {"units": "eV"}))
    files = hsi.export(named, tmp_path / "s.msa")
    assert [file.name for file in files] == ["s_matrix.msa", "s_Fe_oxide.msa", "s_film.msa"]
    for file, row, name in zip(files, named["endmembers"].values, NAMES, strict=True):
        lines = file.read_text(encoding="ascii").splitlines()
        assert f"#TITLE       : {name}" in lines
        assert "#SIGNALTYPE  : ELS" in lines
        if not even:
            columns = np.array([[float(word) for word in line.split(",")] for line in lines if line[0] != "#"])
            np.testing.assert_allclose(columns, np.stack([named["energy"].values, row], axis=1), rtol=1e-8)
            continue
        (read,) = msa.file_reader(str(file))
        np.testing.assert_allclose(read["data"], row, rtol=1e-6)
        (axis,) = read["axes"]
        assert (axis["units"], axis["scale"], axis["offset"]) == ("eV", 0.5, float(named["energy"][0]))
        assert read["metadata"]["Signal"]["signal_type"] == "EELS"


def test_maps_have_names_and_scale_in_imagej(named: xr.Dataset, tmp_path: Path) -> None:
    (file,) = hsi.export(named.chunk(y=4), tmp_path / "maps.tif", components=[3, "matrix"])
    with tifffile.TiffFile(file) as opened:
        assert opened.imagej_metadata["Labels"] == ["film", "matrix"]
        assert opened.imagej_metadata["unit"] == "nm"
        assert opened.pages[0].tags["XResolution"].value == (1, 1)
        np.testing.assert_array_equal(opened.asarray(), named["abundances"].values[[2, 0]])


def test_series_and_other_maps_are_stacks_too(named: xr.Dataset, tmp_path: Path) -> None:
    series = xr.concat([named["abundances"], 2 * named["abundances"]], dim="frame").transpose("component", "frame", ...)
    hsi.export(series.rename(component="edge"), tmp_path / "series.tif")
    with tifffile.TiffFile(tmp_path / "series.tif") as opened:
        assert opened.series[0].axes == "TCYX"
        assert opened.imagej_metadata["Labels"][3] == "edge 1, frame 1"
        np.testing.assert_array_equal(opened.asarray(), series.values.swapaxes(0, 1))


def test_figures_have_names_and_scale_bars(named: xr.Dataset, tmp_path: Path) -> None:
    (svg,) = hsi.export(named, tmp_path / "f.svg", components=["Fe oxide"])
    text = "".join(ET.fromstring(svg.read_text(encoding="utf-8")).itertext())
    assert "Fe oxide" in text
    assert "matrix" not in text
    assert 'id="scale-bar"' in svg.read_text(encoding="utf-8")
    hsi.export(named, tmp_path / "f.pdf")
    assert (tmp_path / "f.pdf").read_bytes().startswith(b"%PDF")
    again = hsi.export(named, tmp_path / "g.svg", components=["Fe oxide"])[0]
    assert again.read_bytes() == svg.read_bytes()


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("r.xlsx", {}, r"export writes \.csv \(a table of spectra\)"),
        ("r.zarr", {}, "scalehsi.save"),
        ("s.csv", {"components": ["nothing"]}, "there is no component 'nothing'; there are 3, counted from 1: matrix"),
        ("s.csv", {"components": [0]}, "no component 0"),
        ("s.csv", {"components": []}, "no component is chosen"),
        ("missing/s.csv", {}, "does not exist"),
        ("taken_film.msa", {}, None),
    ],
)
def test_bad_wishes_write_nothing(
    named: xr.Dataset, tmp_path: Path, name: str, options: dict, match: str | None
) -> None:
    (tmp_path / "taken_film.msa").write_text("mine")
    with pytest.raises(InputError, match=match or "exists already"):
        hsi.export(named, tmp_path / ("taken.msa" if match is None else name), **options)
    assert [file.name for file in tmp_path.iterdir()] == ["taken_film.msa"]


@pytest.mark.long
def test_commands_name_and_export(named: xr.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scalehsi.cli import main

    store = hsi.save(named, tmp_path / "r.zarr")
    assert main(["name", str(store), "a", "b c", "d"]) == 0
    assert names_of_components(hsi.open_result(store).attrs) == ("a", "b c", "d")
    assert main(["export", str(store), str(tmp_path / "s.csv"), "--component", "b c", "--component", "1"]) == 0
    assert (tmp_path / "s.csv").read_text().startswith("energy (eV),b c (counts),a (counts)")
    assert main(["export", str(store), str(tmp_path / "s.doc")]) == 2
    assert main(["name", str(store), "a"]) == 2
    assert "1 names are given for 3 components" in capsys.readouterr().err
