"""How the tests of the command line run commands, and the small cube that they share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):
    """A function that runs one command in this process: its exit status, standard output and standard error."""

    def once(*words: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    return once


@pytest.fixture
def answer(run):
    """A function that runs a command with ``--json``, which must succeed, and returns the values on standard output."""

    def once(*words: Any) -> Any:
        status, out, err = run(*words, "--json")
        assert status == 0, err
        return json.loads(out)

    return once


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a simulated cube ``map.zarr``, its truth, and a result; nobody writes into it."""
    folder = tmp_path_factory.mktemp("scene")
    settings = ("--set", "shape=16,16", "--set", "n_channels=64")
    assert main(["simulate", "chequerboard", str(folder / "map.zarr"), *settings, "--quiet"]) == 0
    assert main(["fit", str(folder / "map.zarr"), str(folder / "result.zarr"), "-k", "4", "--quiet"]) == 0
    return folder


@pytest.fixture
def same() -> Callable[[Path, Path], None]:
    """Assert that two results hold the same bits."""

    def check(a: Path, b: Path) -> None:
        one, two = hsi.open_result(a), hsi.open_result(b)
        assert set(one.data_vars) == set(two.data_vars)
        for name in one.data_vars:
            np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=str(name))

    return check
