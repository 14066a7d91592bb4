"""The examples, every block of Python in the README, and the model of CONTRIBUTING run as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import scalehsi as hsi
from tests.paths import ROOT

pytestmark = pytest.mark.examples


def run(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "error::FutureWarning"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_unmixing_edx(tmp_path: Path) -> None:
    out = run([str(ROOT / "examples" / "01_unmix_edx.py"), "here"], tmp_path)
    assert out.splitlines()[-1].endswith("index.html")
    assert (tmp_path / "here" / "report" / "index.html").is_file()


@pytest.mark.cluster
def test_local_cluster(tmp_path: Path) -> None:
    out = run([str(ROOT / "examples" / "02_local_cluster.py"), "here"], tmp_path)
    found = re.search(r"largest angle between the two: (\S+) rad", out)
    assert found
    assert float(found[1]) < 1e-4


def test_network_series(tmp_path: Path) -> None:
    out = run([str(ROOT / "examples" / "06_network_series.py"), "here"], tmp_path)
    assert [float(a) < 0.5 for a in re.findall(r"within (\S+) degrees", out)] == [True]
    assert [float(s) >= 0.99 for s in re.findall(r"at least (\S+)", out)] == [True, True]
    assert (tmp_path / "here" / "report" / "index.html").is_file()


def test_own_model(tmp_path: Path) -> None:
    out = run([str(ROOT / "examples" / "03_own_model.py")], tmp_path)
    angles = [float(a) for a in re.findall(r"\d+\.\d", out.split("angles")[1])]
    assert len(angles) == 4
    assert max(angles) < 10


def test_noise_ratios(tmp_path: Path) -> None:
    """Figures 7 and 8 of the paper: what a clean map does for a noisy one, and what intervals do."""
    out = run([str(ROOT / "examples" / "04_noise_ratios.py"), "here"], tmp_path)
    rows = re.findall(r"model (\d), sigma0 (\S+), alpha (\S+), +(.+?): +(\S+) +(\S+) +(\S+)", out)
    found = {(m, s, a, way): [float(v) for v in values] for m, s, a, way, *values in rows}
    assert len(found) == len(rows) == 32
    ratio = ("0.5", "2")
    # Without noise on the first map the third, which is equal, comes back whole where alone it fails.
    assert found["1", *ratio, "together"][2] > 0.999
    assert found["1", *ratio, "alone"][2] < 0.7
    assert found["2", *ratio, "together"][2] - found["2", *ratio, "alone"][2] >= 0.15
    # A wrong interval fails, the right one bears more noise than none.
    assert found["2", *ratio, "together, 10 to 11 pixels"][0] < 0.2
    free, right = found["2", "1", "2", "together"], found["2", "1", "2", "together, 2 to 5 pixels"]
    assert min(r - f for r, f in zip(right, free, strict=True)) > 0.03
    assert (tmp_path / "here" / "model_1.png").is_file()
    assert out.splitlines()[-1].endswith("model_2.png")


def test_classical_unmixing(tmp_path: Path) -> None:
    out = run([str(ROOT / "examples" / "05_classical_unmixing.py"), "here"], tmp_path)
    angle = {name.strip(): float(sad) for name, sad in re.findall(r"^(.{20}) +(0\.\d{4}) ", out, re.M)}
    assert len(angle) == 7
    assert angle["VCA"] < 0.01 < angle["ICA"]
    assert angle["VCA"] < angle["VCA, single pixels"]
    assert (tmp_path / "here" / "unmixing.png").is_file()


README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_the_first_code_of_the_readme(tmp_path: Path) -> None:
    assert len([line for line in README[0].splitlines() if line.strip()]) <= 12
    (tmp_path / "readme.py").write_text(README[0])
    run(["-c", "import scalehsi as h; h.save(h.simulate.phases((48, 48))[0], 'scan.zarr')"], tmp_path)
    run(["readme.py"], tmp_path)
    assert (tmp_path / "report" / "index.html").is_file()


@pytest.fixture(scope="module")
def data_of_the_readme() -> dict[str, Any]:
    """What the other blocks of code take for given."""
    pair = hsi.simulate.acquisitions((24, 24), footprint=4, image_counts=100, seed=1)
    cubes = {name: hsi.prepare.bin(cube, energy=8) for name, cube in pair.cubes.items() if "energy" in cube.dims}
    counts = hsi.prepare.bin(hsi.simulate.phases((32, 32), seed=1).cube, energy=8).compute()
    result = hsi.fit(counts, hsi.NMF(3, loss="poisson", max_iter=20))
    given = {"hsi": hsi, "cube": counts, "result": result, "maps": result["abundances"]}
    return {**given, "fine": cubes["spatial"], "coarse": cubes["spectral"], "haadf": pair.cubes["image"]}


@pytest.mark.parametrize("number", range(1, len(README)))
def test_the_other_code_of_the_readme(number: int, data_of_the_readme: dict[str, Any]) -> None:
    exec(README[number], dict(data_of_the_readme))


def test_contributing_names_the_example_that_is_tested() -> None:
    assert "examples/03_own_model.py" in (ROOT / "CONTRIBUTING.md").read_text()
