"""A report on disk: written in one step, only over an earlier report, from one reading of lazy maps."""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from scalehsi.report.chapters import quality
from scalehsi.report.write import report
from scalehsi.schema import InputError
from tests.report.results import eds_result

pytestmark = pytest.mark.long


def test_the_public_name_is_called_however_it_was_imported(tmp_path: Path, no_figures: None) -> None:
    result, _ = eds_result(8)
    assert sys.modules["scalehsi.report"](result, tmp_path / "a") == tmp_path / "a" / "index.html"


def test_lazy_maps_are_computed_once_and_in_one_go(tmp_path: Path, no_figures: None) -> None:
    result, truth = eds_result(40)
    calls: list[int] = []

    def block(values: np.ndarray) -> np.ndarray:
        calls.append(1)
        return values

    lazy = da.from_array(result.abundances.values, chunks=(3, 10, 20)).map_blocks(
        block, dtype="f4", meta=np.empty((0,) * 3, "f4")
    )
    result = result.assign(abundances=(("component", "y", "x"), lazy))
    with dask.config.set(scheduler="synchronous"):
        report(result, tmp_path / "r", truth=truth)
    assert len(calls) == 8


def test_an_existing_folder_is_refused(tmp_path: Path, small: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"exists already.*overwrite=True \(--overwrite"):
        report(small, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file; give the report a folder of its own"):
        report(small, tmp_path / "file", overwrite=True)


@pytest.mark.parametrize("name", ["notes.txt", "maps-of-mine.png", "spectrum-9.png"])
def test_only_a_report_is_ever_replaced(tmp_path: Path, small: xr.Dataset, no_figures: None, name: str) -> None:
    path = report(small, tmp_path / "r")
    (path.parent / name).write_bytes(b"mine")
    with pytest.raises(InputError, match=rf"files that no report wrote \({name}\)"):
        report(small, tmp_path / "r", overwrite=True)
    (path.parent / name).unlink()
    path.write_text("<html>a page of mine</html>")
    with pytest.raises(InputError, match="no report wrote"):
        report(small, tmp_path / "r", overwrite=True)
    assert path.read_text() == "<html>a page of mine</html>"


def test_a_picture_of_the_report_that_was_changed_is_not_deleted(
    tmp_path: Path, small: xr.Dataset, no_figures: None
) -> None:
    path = report(small, tmp_path / "r")
    (path.parent / "maps.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"no report wrote \(maps.png\)"):
        report(small, tmp_path / "r", overwrite=True)


def test_overwriting_leaves_nothing_of_the_old_report(tmp_path: Path, small: xr.Dataset, no_figures: None) -> None:
    path = report(small, tmp_path / "r")
    report(small.isel(component=[0]), str(tmp_path / "r"), overwrite=True, title="Second")
    assert "<h1>Second</h1>" in path.read_text("utf-8")
    assert "spectrum-2.png" not in {file.name for file in path.parent.iterdir()}
    assert [file.name for file in tmp_path.iterdir()] == ["r"]


OLD_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="scalehsi report">
<title>Old</title>
</head>
<body>
<figure>
<img class="part" style="width:651px" src="data:image/png;base64,{maps}" alt="Maps.">
</figure>
<figure>
<img src="data:image/png;base64,{seams}" alt="Difference.">
</figure>
</body>
</html>
"""
"""What version 0.1.0 wrote, shortened."""


def test_a_report_of_an_earlier_version_is_replaced(tmp_path: Path, small: xr.Dataset, no_figures: None) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    pictures = {"maps": b"\x89PNG one", "seams": b"\x89PNG two"}
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    embedded = {name: base64.b64encode(png).decode() for name, png in pictures.items()}
    (folder / "index.html").write_text(OLD_PAGE.format(**embedded))
    report(small, folder, overwrite=True, title="Second")
    assert "<h1>Second</h1>" in (folder / "index.html").read_text("utf-8")
    assert not (folder / "seams.png").exists()


def test_a_report_replaces_one_with_more_chapters(
    written: Path, tmp_path: Path, small: xr.Dataset, no_figures: None
) -> None:
    shutil.copytree(written.parent, tmp_path / "page")
    report(small, tmp_path / "page", overwrite=True)
    names = {file.name for file in (tmp_path / "page").iterdir()}
    assert "maps.png" in names
    assert not names & {"truth.png", "denoised.png", "bins.png"}


def test_a_link_to_a_report_is_followed(tmp_path: Path, small: xr.Dataset, no_figures: None) -> None:
    report(small, tmp_path / "r")
    (tmp_path / "latest").symlink_to(tmp_path / "r")
    path = report(small, tmp_path / "latest", overwrite=True, title="Second")
    assert path == tmp_path / "latest" / "index.html"
    assert "<h1>Second</h1>" in (tmp_path / "r" / "index.html").read_text("utf-8")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["latest", "r"]


def test_a_drawing_that_fails_leaves_nothing(
    tmp_path: Path, small: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(view: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(quality, "draw_residual", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        report(small, tmp_path / "deep" / "r")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_report(
    tmp_path: Path, small: xr.Dataset, no_figures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = report(small, tmp_path / "r")
    before = path.read_bytes()
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "index.html":
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="the disk is full"):
        report(small, tmp_path / "r", overwrite=True, title="Second")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["r"]


def test_a_rename_that_fails_puts_the_old_report_back(
    tmp_path: Path, small: xr.Dataset, no_figures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = report(small, tmp_path / "r")
    before = path.read_bytes()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(InputError, match=r"cannot write .*Permission denied"):
        report(small, tmp_path / "r", overwrite=True, title="Second")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda r: r.abundances, "got a DataArray"),
        (lambda r: r.drop_vars("abundances"), "it lacks abundances"),
        (
            lambda r: r.transpose("energy", "component", "y", "x", "iteration"),
            "endmembers has dims .*expected .component, ..., energy",
        ),
        (
            lambda r: r.rename(y="row"),
            r"abundances of a result has the dims \(component, ..., y, x\), got \(component, row, x\)",
        ),
        (lambda r: r.isel(x=slice(0)), "abundances of this result is empty"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, small: xr.Dataset, spoil: object, match: str) -> None:
    with pytest.raises(InputError, match=match):
        report(spoil(small), tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_a_truth_that_does_not_fit_is_refused(tmp_path: Path, small: xr.Dataset) -> None:
    _, truth = eds_result(8)
    with pytest.raises(
        InputError, match="the truth has 500 channels, the result 1000; give the truth the same preparation"
    ):
        report(small, tmp_path / "r", truth=truth.isel(energy=slice(500)))
    with pytest.raises(InputError, match=r"truth: .*lacks abundances.*scalehsi\.simulate"):
        report(small, tmp_path / "r", truth=truth.drop_vars("abundances"))
