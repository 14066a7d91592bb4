"""All signals of a file together: names of the nodes, what is left out, and the files of the test data."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.cli import main
from scalehsi.io.rosettasciio import read_contents, read_image
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes
from tests.io.event_files import END, jeol_words, write_jeol, write_velox
from tests.io.hspy_files import COUNTS, EDS, EELS, file_of
from tests.paths import DATA

h5py = pytest.importorskip("h5py", reason="the extra io is not installed")
pytest.importorskip("rsciio", reason="the extra io is not installed")

pytestmark = pytest.mark.long


def test_spectra_and_images_together(tmp_path: Path) -> None:
    path = file_of(
        tmp_path / "scan.hspy",
        ("HAADF", COUNTS[0, :, :, 0], 0, {}),
        ("Low loss", COUNTS[0], 2, EELS),
        ("High loss", COUNTS[1], 2, EELS),
        ("EDX map", COUNTS, 3, EDS),
        ("a stack", COUNTS[..., 0], 1, {}),
    )
    with raise_if_dask_computes():
        tree = hsi.open_tree(path)
    assert list(tree.children) == ["haadf", "low_loss", "high_loss", "eds"]
    assert tree.attrs["source"] == "scan.hspy"
    xr.testing.assert_identical(tree["haadf"]["image"], hsi.open_image(path))
    for name, number in (("low_loss", 1), ("high_loss", 2), ("eds", 3)):
        cube = tree[name]["counts"]
        xr.testing.assert_identical(cube, hsi.open_cube(path, dataset=number))
        assert isinstance(cube.data, da.Array)
    assert tree["eds"]["counts"].dims == ("frame", "y", "x", "energy")


@pytest.mark.parametrize(
    ("titles", "names"),
    [
        (("map", "map"), ["map_1", "map_2"]),
        (("", ""), ["spectra_1", "spectra_2"]),
        (("scan", "a - b (c)"), ["spectra", "a_b_c"]),
    ],
)
def test_names_of_nodes_are_different(tmp_path: Path, titles: tuple[str, str], names: list[str]) -> None:
    path = file_of(tmp_path / "scan.hspy", *((title, COUNTS[0], 2, EELS) for title in titles))
    assert list(hsi.open_tree(path).children) == names


def test_what_is_left_out_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = file_of(tmp_path / "a.hspy", ("stack", COUNTS[..., 0], 1, {}), ("HAADF", COUNTS[0, :, :, 0], 0, {}))
    with caplog.at_level(logging.INFO, logger="scalehsi"):
        assert list(hsi.open_tree(path).children) == ["haadf"]
    assert "dataset 0 'stack' (3, 4, 5) is left out" in caplog.text


def test_what_is_no_such_file(tmp_path: Path) -> None:
    store = hsi.save(hsi.make_cube(COUNTS[0], energy=np.arange(6.0), energy_units="eV"), tmp_path / "a.zarr")
    with pytest.raises(InputError, match=r"is a Zarr store; open its cube with scalehsi\.open_cube"):
        hsi.open_tree(store)
    with pytest.raises(InputError, match="there is no"):
        hsi.open_tree(tmp_path / "none.dm4")
    with pytest.raises(InputError, match="holds neither a spectrum image nor an image; scalehsi info lists"):
        hsi.open_tree(file_of(tmp_path / "b.hspy", ("stack", COUNTS[..., 0], 1, {})))
    (tmp_path / "c.dm4").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"'c\.dm4' cannot be read"):
        hsi.open_tree(tmp_path / "c.dm4")


def test_info_lists_everything_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = ("HAADF", COUNTS[0, :, :, 0], 0, {})
    path = file_of(tmp_path / "scan.hspy", image, ("EDX map", COUNTS[0], 2, EDS), ("stack", COUNTS[..., 0], 1, {}))
    assert main(["info", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["kind"], found["shape"]) == ("cube", [4, 5, 6])
    kinds = [(e["number"], e["title"], e["kind"], e["signal"], e["shape"]) for e in found["contents"]]
    assert kinds == [
        (0, "HAADF", "image", "", [4, 5]),
        (1, "EDX map", "cube", "EDS", [4, 5, 6]),
        (2, "stack", "", "", [3, 4, 5]),
    ]
    assert "--dataset" in err
    assert main(["info", str(file_of(tmp_path / "image.hspy", image)), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["kind"] == "file"
    assert "image.hspy: no spectrum image" in err
    assert "HAADF" in err


VENDOR = {
    "bruker_PDDL/P45_12bit_packed_8bit_compressed.bcf": ["bse", "se", "eds"],
    "bruker_rsciio/test_TEM.bcf": ["haadf", "eds"],
    "velox/fei_SI_SuperX-HAADF_10frames_10x50.emd": ["haadf", "eds"],
    "jeol/rawdata.ASW": ["img1", "c_k", "o_k", "s_k", "fe_k", "cu_k", "eds"],
    "jeol/Sample/00_View000/View000_0000001.map": ["c_k"],
    "jeol/Sample/00_View000/View000_0000006.pts": ["eds"],
    "gatan/EELS_SI.dm4": ["eels"],
}


@pytest.mark.skipif(not DATA.is_dir(), reason="no test data beside the repository")
@pytest.mark.parametrize(("path", "names"), VENDOR.items(), ids=[Path(p).name for p in VENDOR])
def test_files_of_the_test_data(path: str, names: list[str]) -> None:
    tree = hsi.open_tree(DATA / "vendor" / path)
    assert list(tree.children) == names
    for name, node in tree.children.items():
        dims = ("y", "x", "energy") if name in ("eds", "eels") else ("y", "x")
        (variable,) = node.data_vars.values()
        assert variable.dims == dims
        assert dims[-1] == "x" or isinstance(variable.data, da.Array)


def test_the_events_of_a_velox_file_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RosettaSciIO would take 6.8 GB for the events of a file of 120 MB, before anybody asks for a value."""
    words = np.tile(np.array([5, 7, END], "u2"), 12)
    path = write_velox(tmp_path / "scan.emd", (3, 4), [words, words], frames=1)
    wanted = read_image(path)
    sizes: list[int] = []

    def looked_at(file: Path) -> Any:
        with h5py.File(file) as opened:
            sizes.extend(stream["Data"].size for stream in opened["Data/SpectrumStream"].values())
        return read_contents(file)

    monkeypatch.setattr("scalehsi.io.tree.read_contents", looked_at)
    tree = hsi.open_tree(path)
    assert sizes == [1, 1]
    assert list(tree.children) == ["haadf", "eds"]
    np.testing.assert_array_equal(tree["eds"]["counts"][..., [5, 7]].values, np.full((3, 4, 2), 2))
    xr.testing.assert_identical(tree["haadf"]["image"], wanted.compute())
    xr.testing.assert_identical(hsi.open_image(path), wanted.compute())
    path.unlink()  # nothing holds it open
    assert int(tree["haadf"]["image"].sum()) == 12


def test_a_jeol_map_is_listed_without_its_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: Path) -> Any:
        raise AssertionError("RosettaSciIO would read all events")

    monkeypatch.setattr("scalehsi.io.tree.read_contents", read)
    counts = np.zeros((1, 4, 4, 4096), "u2")
    counts[0, 1, 2, 300] = 5
    tree = hsi.open_tree(write_jeol(tmp_path / "map.pts", (4, 4), jeol_words(counts)))
    assert list(tree.children) == ["eds"]
    np.testing.assert_array_equal(tree["eds"]["counts"].values, counts[0])
