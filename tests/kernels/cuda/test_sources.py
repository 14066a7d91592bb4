"""Tests of the CUDA sources: nvcc compiles them, constants agree with Python, and unsupported input is refused."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalehsi.kernels import cuda
from scalehsi.kernels.cuda import sources
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson import passes
from scalehsi.schema import InputError
from tests.cuda_host import Host


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("name", "macros"),
    [
        ("frobenius", {"DATA": "float", "COMPONENTS": 8, "TILE_PIXELS": 4, "PACKS": 1}),
        ("poisson", {"COMPONENTS": 4, "CHANNEL": "unsigned short", "VALUE": "unsigned char"}),
        *(
            pytest.param(name, macros, marks=pytest.mark.slow)
            for name, macros in [
                ("frobenius", {"DATA": "unsigned char", "COMPONENTS": 4, "TILE_PIXELS": 8, "PACKS": 4}),
                ("frobenius", {"DATA": "float", "COMPONENTS": 8, "TILE_PIXELS": 2, "PACKS": 2}),
                ("frobenius", {"DATA": "unsigned short", "COMPONENTS": 16, "TILE_PIXELS": 2, "PACKS": 1}),
                ("frobenius", {"DATA": "float", "COMPONENTS": 32, "TILE_PIXELS": 1, "PACKS": 1}),
                ("poisson", {"COMPONENTS": 8, "CHANNEL": "unsigned short", "VALUE": "unsigned short"}),
                ("poisson", {"COMPONENTS": 16, "CHANNEL": "int", "VALUE": "float"}),
                ("poisson", {"COMPONENTS": 32, "CHANNEL": "unsigned short", "VALUE": "unsigned int"}),
            ]
        ),
    ],
)
def test_nvcc_compiles_every_source_without_warnings(tmp_path: Path, name: str, macros: dict[str, Any]) -> None:
    (tmp_path / "whole.cu").write_text(sources.source(name), encoding="utf-8")
    targets = [f"-gencode=arch=compute_{cc},code=sm_{cc}" for cc in (80, 90)]
    options = ["-std=c++17", "-Werror", "all-warnings", "--threads", "2", *(f"-D{k}={v}" for k, v in macros.items())]
    command = ["nvcc", *targets, *options, "-c", "-o", str(tmp_path / "out.o"), str(tmp_path / "whole.cu")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_constants_of_both_languages_agree() -> None:
    text = sources.source("frobenius")
    from_c = {name: int(value) for name, value in re.findall(r"constexpr int (\w+) = (\d+);", text)}
    wrappers = importlib.import_module("scalehsi.kernels.cuda.frobenius")
    assert (from_c["THREADS"], from_c["MAX_FLOAT32_PIXELS"]) == (wrappers.THREADS, wrappers.MAX_FLOAT32_PIXELS)
    text = sources.source("poisson")
    from_c = dict(re.findall(r"constexpr \w+ (\w+) = ([\d.e-]+)f?;", text))
    rows = importlib.import_module("scalehsi.kernels.poisson.pixel_solver")
    for name in ("EM_STEPS", "NEWTON_STEPS", "HALVINGS", "MAX_END_SLOPE", "DECREMENT", "RIDGE"):
        assert float(from_c[name]) == getattr(rows, name), name
    wrappers = importlib.import_module("scalehsi.kernels.cuda.poisson")
    assert int(from_c["THREADS"]) == wrappers.THREADS
    assert wrappers.MIN_ENDMEMBER == passes.MIN_ENDMEMBER
    assert wrappers.MAX_UINT16_CHANNELS == sparse_counts.MAX_UINT16_CHANNELS


def test_without_cupy_the_repair_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match=r"need CuPy.*pip install 'scalehsi\[cuda12\]'"):
        cuda.frobenius_update(np.ones((2, 3), dtype="f4"), s=np.ones((1, 3)))


def test_too_many_components_are_refused(host: Host) -> None:
    with pytest.raises(InputError, match="1 to 32 components, not 33; fit with device='cpu'"):
        cuda.frobenius_update(host.asarray(np.ones((2, 40), dtype="f4")), s=np.ones((33, 40)))
    with pytest.raises(InputError, match="1 to 32 components, not 33"):
        cuda.poisson_update(Counts.from_dense(np.ones((2, 40), dtype="u1")), s=np.ones((33, 40)))


def test_importing_the_wrappers_loads_neither_cupy_nor_numba() -> None:
    check = "import sys, scalehsi.kernels.cuda; sys.exit(bool({'cupy', 'numba', 'dask'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
