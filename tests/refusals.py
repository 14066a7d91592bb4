"""What the tests of bad input share: small cubes, a picture of a folder, and a command that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from scalehsi.cli import main
from scalehsi.cube import make_cube

CHANNELS = 16


def counts(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(3.0, (6, 5, CHANNELS)).astype("u1")


def cube_of(data: np.ndarray, **more: Any) -> xr.DataArray:
    return make_cube(data, energy=np.linspace(1.0, 3.0, CHANNELS), energy_units="keV", signal="EDS", **more)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Name, size and time of change of all that a folder holds."""
    return {
        str(p.relative_to(folder)): (p.stat().st_size if p.is_file() else -1, p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
    }


def refused(capsys: pytest.CaptureFixture[str], words: list[str], *, status: int = 2) -> str:
    """Run a command that shall be refused; gives its one line."""
    capsys.readouterr()
    assert main([*words, "--json", "--quiet"]) == status
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1, err
    said = json.loads(out)
    assert said["exit"] == status
    assert err == f"scalehsi {words[0]}: {said['error']}\n"
    return str(said["error"])
