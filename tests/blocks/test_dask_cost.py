"""Tests of the benchmark of Dask's cost: it runs, and both sides of its comparison use the same blocks."""

from __future__ import annotations

import math

import pytest

from tests.bench import dask_cost

pytestmark = pytest.mark.bench


def test_the_table_of_a_few_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cost, "CHUNK_PIXELS", (8, 8))
    rows = dask_cost.table(
        cases=((8, 0.125),), stores=(("zstd", "uint16"), ("own", "float32")), where=("threads",), side=16, repeats=1
    )
    assert [row["kind"] for row in rows] == ["resident", "streamed", "streamed"]
    assert [row["blocks"] for row in rows] == [8, 1, 1]
    resident, *streamed = rows
    assert resident["ratio"] == pytest.approx(resident["dask_ms"] / resident["bare_ms"])
    assert math.isnan(resident["scheduler_ms_a_block"])
    for row in streamed:
        assert row["ratio_to_read"] == pytest.approx(row["dask_mb_s"] / row["read_mb_s"])
        assert 0.5 < row["compression"] < 10
    first, second = dask_cost.markdown(rows).split("\n\n")
    assert first.startswith("| resident: where | blocks |")
    assert len(first.splitlines()) == 3
    assert len(second.splitlines()) == 4
