"""The benchmark of Dask's cost runs, and its two sides work on the same blocks."""

from __future__ import annotations

import importlib.util
import math
from types import ModuleType

import pytest

from tests.paths import ROOT

BENCH = ROOT / "tests" / "bench" / "dask_cost.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dask_cost", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_a_few_small_blocks(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CHUNK", (8, 8))
    rows = bench.table(
        cases=((8, 0.125),), stores=(("zstd", "uint16"), ("own", "float32")), where=("threads",), side=16, repeats=1
    )
    assert [row["kind"] for row in rows] == ["resident", "streamed", "streamed"]
    assert [row["blocks"] for row in rows] == [8, 1, 1]
    held, *read = rows
    assert held["ratio"] == pytest.approx(held["dask_ms"] / held["bare_ms"])
    assert math.isnan(held["scheduler_ms_a_block"])
    for row in read:
        assert row["ratio_to_read"] == pytest.approx(row["dask_mb_s"] / row["read_mb_s"])
        assert 0.5 < row["compression"] < 10
    first, second = bench.markdown(rows).split("\n\n")
    assert first.startswith("| resident: where | blocks |")
    assert len(first.splitlines()) == 3
    assert len(second.splitlines()) == 4
