"""The demo."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.cli.commands.demo import OTHERS
from scalehsi.io import open_dataset
from scalehsi.result import result_warnings

pytestmark = pytest.mark.examples


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


def test_demo_compares_with_the_usual_methods(demo):
    folder, out = demo
    cube, truth = hsi.open_cube(folder / "minerals.zarr"), open_dataset(folder / "minerals_truth.zarr")
    names = {**OTHERS, "PSNMF": "result.zarr"}
    results = {name: hsi.open_result(folder / file) for name, file in names.items()}
    assert [r.attrs["model"] for r in results.values()] == ["NMF", "NMF", "NMF", "PCA", "PSNMF"]
    fitted = [hsi.NMF.from_settings(json.loads(r.attrs["settings"])) for r in list(results.values())[:3]]
    assert [(model.loss, model.weighting) for model in fitted] == [
        ("frobenius", None),
        ("frobenius", "poisson"),
        ("poisson", None),
    ]
    table = hsi.metrics.denoise_report(cube, results, lines=["Nd La"], truth=truth)
    printed = {"As measured": "raw", **{name: name for name in names}}
    for name, method in printed.items():
        line = next(line for line in out.splitlines() if re.match(rf"{re.escape(name)}  ", line))
        correlation, error = line.split()[-3:-1]
        here = table.sel({"method": method})
        assert float(correlation) == pytest.approx(float(here["correlation"][0]), abs=6e-4)
        assert float(error) == pytest.approx(100 * float(here["cube_error"]), abs=0.06)
    for name in list(OTHERS)[:3]:
        angles = hsi.metrics.score(results[name], truth)["spectral_angle"]
        line = next(line for line in out.splitlines() if line.startswith(f"{name}  "))
        first = line.removeprefix(name).split()[0]
        assert float(first.rstrip("°")) == pytest.approx(np.degrees(float(angles[0])), abs=0.006)


def test_the_page_of_the_demo_tells_the_story(demo):
    folder, _ = demo
    text = (folder / "report" / "index.html").read_text()
    for words in (
        "Comparison with other methods",
        "NMF (least squares)</td><td>hsi.NMF(3, loss=&#39;frobenius&#39;)",
        "Effect of denoising",
        "Nd Lα (5.168 to 5.288 keV)",
        "Whole cube, error",
    ):
        assert words in text, words
    assert {"methods.png", "methods-spectra.png", "denoised.png"} <= {p.name for p in (folder / "report").iterdir()}


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
    assert [row["name"] for row in found["methods"]] == ["raw", *OTHERS, "PSNMF"]
    assert found["methods"][-1]["spectral_angles_deg"]["Fp"] == found["components"][1]["spectral_angle_deg"]
    assert Path(found["nmf_least_squares"]).is_dir()
    assert found["warnings"] == [each._asdict() for each in result_warnings(hsi.open_result(folder / "result.zarr"))]
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
