"""The command report."""

from __future__ import annotations

from pathlib import Path


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
