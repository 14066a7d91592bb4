"""The pages of the documentation: every block of code on them runs, and every public name has a page."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.cli import main
from tests.io.event_files import END, write_velox
from tests.paths import ROOT
from tests.quantify.test_thickness import low_loss

pytestmark = [
    pytest.mark.examples,
    # HyperSpy 2.5 warns about an import of its own.
    pytest.mark.filterwarnings("ignore:Importing `.*` from `hyperspy"),
]

DOCS = ROOT / "docs"
DEMO = "scalehsi demo"
"""A minute of processor time, which `make demo` spends in CI."""


def code_of(page: Path) -> list[tuple[str, str]]:
    """The blocks of a page that can run: their language ("" for none), and their code without indentation."""
    fences = r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$"
    found = re.findall(fences, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    runs = [each for each in found if each[1] in ("python", "bash", "")]
    return [(language, re.sub(f"^{indent}", "", code, flags=re.MULTILINE)) for indent, language, code in runs]


def pages() -> list[str]:
    """The pages with code to run, by their path in docs/."""
    names = (str(page.relative_to(DOCS)) for page in sorted(DOCS.rglob("*.md")) if "gallery" not in page.parts)
    return [name for name in names if code_of(DOCS / name)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small stores that stand for the files of a reader: name on the pages -> path."""
    folder = tmp_path_factory.mktemp("files")
    edx = hsi.prepare.bin(hsi.simulate.phases((32, 32), seed=1).cube, energy=8).compute()
    eels = hsi.simulate.oxide_particle((24, 24)).cube.compute()
    cubes = {"scan.bcf": edx, "next.bcf": edx[::-1], "scan.dm4": eels, "lowloss.dm4": low_loss(0.5, shape=(6, 6))}
    rng = np.random.default_rng(0)
    streams = [
        np.concatenate([rng.integers(110, 2000, (4 * 4 * 210, 1)), np.full((4 * 4 * 210, 1), END)], 1).ravel()
    ] * 3
    events = {"scan.emd": str(write_velox(folder / "scan.emd", (4, 4), streams, frames=210))}
    return events | {name: str(hsi.save(cube, folder / name.replace(".", "_"))) for name, cube in cubes.items()}


@pytest.mark.parametrize("page", pages())
def test_the_code_of_a_page_runs(
    page: str, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    if "scan.zarr" in (text := (DOCS / page).read_text("utf-8")) and "convert scan.bcf scan.zarr" not in text:
        hsi.convert(files["scan.bcf"], "scan.zarr")
    if "scan.hspy" in text:
        pytest.importorskip("exspy", reason="the extra hyperspy is not installed")
        hsi.to_hyperspy(hsi.open_cube(files["scan.bcf"])[:12, :10].compute()).save("scan.hspy")
    names: dict[str, Any] = {"__name__": "page"}
    for language, code in code_of(DOCS / page):
        for name, path in files.items():
            code = code.replace(name, path)
        if language == "python":
            exec(compile(code, f"docs/{page}", "exec"), names)
        else:
            for line in code.splitlines():
                if line.startswith("scalehsi ") and line != DEMO:
                    small = " --set shape=16,16" if line.startswith("scalehsi simulate") else ""
                    assert main(shlex.split(line + small)[1:]) == 0, line
    plt.close("all")


@pytest.mark.cluster
def test_the_script_of_the_page_on_clusters_runs(files: dict[str, str], tmp_path: Path) -> None:
    """The page takes in deploy/README.md; tests/cluster/test_slurm.py runs what deploy/slurm/README.md describes."""
    [script] = [code for language, code in code_of(ROOT / "deploy" / "README.md") if language == "python"]
    (tmp_path / "script.py").write_text(script.replace("map.zarr", files["scan.bcf"]))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert hsi.open_result(tmp_path / "result.zarr").attrs["status"] == "converged"


def test_the_page_of_the_api_lists_public_names_once() -> None:
    """`make docs` refuses a site in which a public name has no page."""
    listed = re.findall(r"^   ([\w.]+)$", (DOCS / "api" / "index.md").read_text("utf-8"), re.MULTILINE)
    public = set(hsi.__all__)
    for name in hsi.__all__:
        module = getattr(hsi, name)
        if isinstance(module, ModuleType):
            public |= {f"{name}.{each}" for each in module.__all__}
    assert len(listed) == len(set(listed)) > 100
    assert set(listed) <= public


def test_numbers_on_pages_come_from_the_page_of_benchmarks() -> None:
    """What pages take in from another file must still be there, or Sphinx includes nothing or all of it."""
    for page in DOCS.rglob("*.md"):
        for file, options in re.findall(r"```\{include\} (\S+)\n((?::.*\n)*)", page.read_text("utf-8")):
            text = (page.parent / file).read_text("utf-8")
            for mark in re.findall(r': "(.*)"$', options, re.MULTILINE):
                assert text.count(mark) == 1, (page.name, mark)
