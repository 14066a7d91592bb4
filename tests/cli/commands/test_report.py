"""The command report."""

from __future__ import annotations

from pathlib import Path

import pytest

import scalehsi as hsi
from scalehsi.result import ResultWarning, warnings_text

pytestmark = pytest.mark.long


def test_report(answer, run, scene, tmp_path):
    words = (
        "report",
        scene / "result.zarr",
        tmp_path / "page",
        "--truth",
        scene / "map_truth.zarr",
        "--title",
        "Board",
    )
    page = Path(answer(*words)["report"])
    assert page == tmp_path / "page" / "index.html"
    text = page.read_text()
    assert "Board" in text
    assert "TiO2" in text
    status, _, err = run(*words)
    assert status == 2
    assert "exists already; give another folder, or replace it with --overwrite" in err
    assert answer(*words, "--overwrite")["report"] == str(page)


def test_elements_mark_their_edges(answer, run, scene, tmp_path):
    page = answer("report", scene / "result.zarr", tmp_path / "page", "--elements", "Fe")["report"]
    text = Path(page).read_text()
    assert "Fe L3" in text
    assert "Ti L3" not in text
    assert run("report", scene / "result.zarr", tmp_path / "no", "-e", "Feo")[0] == 2
    assert not (tmp_path / "no").exists()


def test_the_command_shows_the_warnings_that_the_page_shows(run, scene, tmp_path):
    found = [ResultWarning("drift", "Spectra shift by at least 0.6 eV.")]
    hsi.save(hsi.open_result(scene / "result.zarr").assign_attrs(warnings=warnings_text(found)), tmp_path / "r.zarr")
    status, out, err = run("report", tmp_path / "r.zarr", tmp_path / "page", "--quiet")
    assert (status, out, err) == (0, "", "warning (drift): Spectra shift by at least 0.6 eV.\n")
    page = (tmp_path / "page" / "index.html").read_text()
    assert "Converged, with a warning." in page
    assert "Spectra shift by at least 0.6 eV." in page
