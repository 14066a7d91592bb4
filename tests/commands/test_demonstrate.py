"""The demo."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.io import open_dataset


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small demo and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "scalehsi-demo"
    words = [sys.executable, "-m", "scalehsi", "demo", str(folder), "--size", "40"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return folder, done.stdout


def test_demo_goes_from_cube_to_report_in_words(demo):
    folder, out = demo
    steps = [out.index(step) for step in ("1. Cube", "2. Unmix", "3. Report", "Spectral angle", "Brg (bridgmanite)")]
    assert steps == sorted(steps)
    assert out.splitlines()[-1] == str(folder / "report" / "index.html")
    assert "CaPv" in (folder / "report" / "index.html").read_text()
    found = re.search(r"^Fp \(ferropericlase\) +\d +([0-9.]+)° +([0-9.]+) ", out, re.MULTILINE)
    scores = hsi.metrics.score(hsi.open_result(folder / "result.zarr"), open_dataset(folder / "minerals_truth.zarr"))
    assert float(found[1]) == pytest.approx(np.degrees(float(scores["spectral_angle"][1])), abs=0.006)
    assert float(found[2]) == pytest.approx(float(scores["map_similarity"][1]), abs=6e-4)


def test_demo_replaces_only_what_it_made(demo, run, answer, tmp_path):
    folder, _ = demo
    status, _, err = run("demo", folder, "--size", "40")
    assert status == 2
    assert "holds an earlier demo (its report:" in err
    assert "--overwrite" in err
    (folder / "notes.txt").write_text("mine")
    found = answer("demo", folder, "--size", "40", "--overwrite")
    assert (folder / "notes.txt").read_text() == "mine"
    assert found["largest_angle_deg"] == max(row["spectral_angle_deg"] for row in found["components"])
    hsi.save(hsi.open_cube(folder / "minerals.zarr"), tmp_path / "minerals.zarr")
    for extra in ([], ["--overwrite"]):
        status, _, err = run("demo", tmp_path, *extra)
        assert status == 2
        assert "'minerals.zarr', which the demo did not make" in err
    assert [p.name for p in tmp_path.iterdir()] == ["minerals.zarr"]


def test_demo_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(hsi, "fit", lambda *_, **__: 1 / 0)
    status, _, err = run("demo", tmp_path / "d", "--size", "20")
    assert status == 1
    assert "ZeroDivisionError" in err
    assert list(tmp_path.iterdir()) == []
    assert run("demo", tmp_path / "d", "--counts", "-1")[0] == 2
    assert list(tmp_path.iterdir()) == []
