"""Tests of the numba helpers: addition of short rows, aligned tables, compilation without reference counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from scalehsi.kernels.compiled import LANES, add_row, aligned_zeros, lean, lean_sums, padded_width


@lean
def add_rows(table: Any, rows: Any, factors: Any, shares: Any) -> None:
    for i in range(rows.shape[0]):
        add_row(table, rows[i], factors[i], shares)


@lean_sums
def ratio(a: Any, b: Any) -> float:
    total = 0.0
    for i in range(a.shape[0]):
        total += a[i] / b[i]
    return total


@pytest.mark.parametrize("width", [LANES, 2 * LANES, 5 * LANES])
@pytest.mark.parametrize("kind", ["i4", "i8", "u2"])
def test_rows_are_added_where_they_belong_and_nowhere_else(width: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    table = aligned_zeros(20, width)
    table += rng.integers(0, 9, table.shape)
    rows = rng.integers(0, 20, 50).astype(kind)
    factors, shares = rng.integers(1, 9, 50).astype("f8"), rng.integers(1, 9, width).astype("f8")
    want = table.copy()
    np.add.at(want, rows, factors[:, None] * shares)
    add_rows(table, rows, factors, shares)
    assert_array_equal(table, want)  # small integers: exact


def test_a_table_need_not_be_aligned() -> None:
    buffer = np.zeros(4 * LANES + 1)
    table = buffer[1:].reshape(4, LANES)
    add_rows(table, np.array([2]), np.array([3.0]), np.arange(float(LANES)))
    assert_array_equal(table[2], 3.0 * np.arange(LANES))
    assert not table[[0, 1, 3]].any()


@pytest.mark.parametrize(("rows", "width"), [(0, 8), (1, 8), (1000, 16), (7, 40)])
def test_tables_begin_with_a_line_of_the_cache(rows: int, width: int) -> None:
    table = aligned_zeros(rows, width)
    assert table.shape == (rows, width)
    assert table.flags.c_contiguous
    assert not table.any()
    assert rows == 0 or table.ctypes.data % 64 == 0


def test_widths_are_padded_to_whole_lanes() -> None:
    assert [padded_width(n, 4) for n in (0, 1, 4, 5)] == [0, 4, 4, 8]


def test_division_by_zero_is_no_error_and_nan_keeps_its_meaning() -> None:
    assert ratio(np.array([1.0, 2.0]), np.array([1.0, 0.0])) == np.inf
    assert np.isnan(ratio(np.array([0.0, 2.0]), np.array([0.0, 1.0])))
