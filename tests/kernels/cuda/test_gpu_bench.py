"""Tests of the benchmark of the GPU passes: its message without a GPU, and its table on the stand-in."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest

from tests.cuda_host import Host
from tests.paths import ROOT

pytestmark = pytest.mark.bench


def test_the_benchmark_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert benchmark().main() == 2
    assert capsys.readouterr().out == "no usable GPU\n"


def test_the_benchmark_prints_a_table(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Run on the stand-in, with a clock that always returns a millisecond."""
    gpu = benchmark()
    host.random = np.random
    monkeypatch.setattr(gpu, "usable", lambda: "stand-in")
    monkeypatch.setattr(gpu, "gpu_time", lambda run, repeats: 1e-3 if run() is not None else 0.0)
    monkeypatch.setattr(sys, "argv", "gpu --pixels 60 --channels 64 --components 3".split())
    assert gpu.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 + 5
    assert {line.count("|") for line in lines[2:]} == {10}
    assert all(float(line.split("|")[-2]) < 1e-5 for line in lines[4:])


def benchmark() -> Any:
    """The module tests/bench/gpu.py."""
    file = ROOT / "tests" / "bench" / "gpu.py"
    spec = importlib.util.spec_from_file_location("gpu_benchmark", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
