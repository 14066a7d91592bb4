"""What is handed on: bounds of versions agree wherever they are written, and a wheel holds what it needs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CONDA = {"dask": "dask-core", "lazy-loader": "lazy_loader", "matplotlib": "matplotlib-base"}
"""Names of conda-forge that differ from those of PyPI."""


def lower_bounds() -> dict[str, str]:
    """The lower bound of each package that the core needs."""
    found = (re.fullmatch(r"([\w-]+)(?:\[.*\])?>=(\S+)", each) for each in PROJECT["project"]["dependencies"])
    return {match[1]: match[2] for match in found if match}


def test_every_dependency_has_a_lower_bound_and_no_upper_one() -> None:
    assert len(lower_bounds()) == len(PROJECT["project"]["dependencies"])


@pytest.mark.parametrize(("name", "bound"), lower_bounds().items())
def test_oldest_versions_are_the_lower_bounds(name: str, bound: str) -> None:
    pinned = re.search(rf"^{name}==(\S+)$", (ROOT / "tests" / "oldest.txt").read_text("utf-8"), re.MULTILINE)
    assert pinned, name
    assert pinned[1].removesuffix(".*").split(".")[: len(bound.split("."))] == bound.split("."), pinned[1]


def test_the_recipe_of_conda_forge_asks_for_the_same() -> None:
    text = (ROOT / "deploy" / "conda" / "recipe.yaml").read_text("utf-8")
    run = text.partition("      run:\n")[2].partition("    tests:")[0]
    asked = dict(re.findall(r"- ([\w-]+) >=([\d.]+)$", run, re.MULTILINE))
    assert asked == {CONDA.get(name, name): bound for name, bound in lower_bounds().items()}
    assert f'version: "{PROJECT["tool"]["setuptools_scm"]["fallback_version"].removesuffix(".dev0")}"' in text


def test_every_file_of_the_package_goes_into_the_wheel() -> None:
    folder = ROOT / "scalehsi"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["scalehsi"]
    data = {found for pattern in patterns for found in folder.glob(pattern)}
    own: list[Path] = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    left_out = {path for path in own if path.suffix not in (".py", ".nbi", ".nbc")} - data
    assert {str(path.relative_to(folder)) for path in left_out} == set()
    for path in own:
        assert (path.parent / "__init__.py").is_file() or path in data, path
