"""Tests of sparse counts: conversion to and from dense blocks, size, transport, and equal strips for the kernels."""

from __future__ import annotations

import pickle
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.schema import InputError

DTYPES = ["?", "u1", "u2", ">u2", "u4", "u8", "i2", ">i4", "i8", "f2", "f4", ">f4", "f8"]
shapes = st.tuples(st.integers(0, 150), st.integers(1, 40))


def sparse(rng: np.random.Generator, shape: tuple[int, int], filled: float = 0.1) -> np.ndarray[Any, Any]:
    return np.where(rng.random(shape) < filled, rng.integers(1, 200, shape), 0)


def rows_of(x: Any) -> tuple[np.ndarray[Any, Any], ...]:
    """All strips of a block joined: indptr, channel, value."""
    ends, channels, values = [np.zeros(1, dtype=np.int64)], [np.empty(0, np.int32)], [np.empty(0)]
    covered = 0
    for part, indptr, channel, value in sparse_counts.strips(x):
        assert part.start == covered
        assert len(indptr) == part.stop - part.start + 1
        covered = part.stop
        ends.append(ends[-1][-1] + indptr[1:])
        channels.append(channel.copy())
        values.append(value.copy())
    assert covered == x.shape[0]
    return np.concatenate(ends), np.concatenate(channels), np.concatenate(values)


@given(x=hnp.arrays("u2", shapes, elements=st.one_of(st.just(0), st.integers(0, 60_000))))
def test_a_block_survives_conversion_and_back(x: np.ndarray[Any, Any]) -> None:
    few = Counts.from_dense(x)
    assert_array_equal(few.to_dense(), x)
    assert few.shape == x.shape
    assert len(few) == len(x)
    assert few.density == pytest.approx((x > 0).mean() if x.size else 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(130, 37), (64, 8), (1, 1), (3, 0), (0, 5)])
def test_it_is_scipys_matrix_of_compressed_rows(dtype: str, shape: tuple[int, int]) -> None:
    x = sparse(np.random.default_rng(0), shape).clip(0, 100).astype(dtype)
    few = Counts.from_dense(x)
    want = sp.csr_array(x.astype("f8"))
    assert_array_equal(few.indptr, want.indptr)
    assert_array_equal(few.channel, want.indices)
    assert_array_equal(few.value, want.data)
    assert_array_equal(few.to_dense("f8"), x.astype("f8"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_and_sparse_blocks_yield_equal_rows(dtype: str) -> None:
    x = sparse(np.random.default_rng(1), (200, 33)).clip(0, 100).astype(dtype)
    for dense, few in zip(rows_of(x), rows_of(Counts.from_dense(x)), strict=True):
        assert_array_equal(dense, few)


def test_strips_end_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    x = sparse(np.random.default_rng(2), (150, 20), 0.5)
    want = rows_of(x)
    few = Counts.from_dense(x)
    for filled in (1, 7, 100):  # also fewer than in a row
        monkeypatch.setattr(sparse_counts, "FILLED_PER_STRIP", filled)
        for got, expected in zip(rows_of(few), want, strict=True):
            assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("highest", "dtype"), [(0, "u1"), (1, "u1"), (255, "u1"), (256, "u2"), (70_000, "u4"), (2**40, "u8")]
)
def test_values_take_the_smallest_type_that_holds_them(highest: int, dtype: str) -> None:
    x = np.zeros((4, 6), dtype="i8")
    x[2, 3] = highest
    few = Counts.from_dense(x)
    assert few.dtype == np.dtype(dtype)
    assert_array_equal(few.to_dense("i8"), x)


def test_channels_beyond_two_bytes() -> None:
    x = np.zeros((2, 65_537), dtype="u1")
    x[1, 65_536] = 3
    few = Counts.from_dense(x)
    assert few.channel.dtype == np.int32
    assert_array_equal(few.to_dense(), x)
    assert Counts.from_dense(x[:, 1:]).channel.dtype == np.uint16


def test_floats_become_single_precision() -> None:
    x = np.array([[0.0, 0.1], [3.5, 0.0]])
    few = Counts.from_dense(x)
    assert few.dtype == np.float32
    assert_array_equal(few.to_dense(), x.astype("f4"))


@given(start=st.integers(-12, 12), stop=st.integers(-12, 12))
def test_runs_of_rows(start: int, stop: int) -> None:
    x = sparse(np.random.default_rng(3), (10, 9), 0.4)
    few = Counts.from_dense(x)
    assert_array_equal(few[start:stop].to_dense("i8"), x[start:stop])
    assert np.shares_memory(few[:].value, few.value)


@pytest.mark.parametrize("rows", [3, slice(None, None, 2), np.array([1, 2])])
def test_other_rows_are_refused(rows: Any) -> None:
    with pytest.raises(InputError, match=r"runs of pixels, such as counts\[10:20\]"):
        Counts.from_dense(np.eye(4, dtype="u1"))[rows]


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_what_is_not_a_count_is_refused(bad: float) -> None:
    x = np.ones((100, 3))
    x[80, 1] = bad
    with pytest.raises(InputError, match=r"must be finite and not negative, but from row 64 on"):
        Counts.from_dense(x)


def test_it_is_pickled_and_reports_its_size() -> None:
    x = sparse(np.random.default_rng(4), (500, 64), 0.05)
    few = Counts.from_dense(x)
    packed = pickle.dumps(few)
    again = pickle.loads(packed)
    assert_array_equal(again.to_dense("i8"), x)
    assert len(packed) < few.nbytes + 1000
    assert len(pickle.dumps(few[:50])) < few.nbytes / 8 + 1000  # of a view, only its own rows
    assert few.nbytes == few.indptr.nbytes + few.channel.nbytes + few.value.nbytes
    assert few.nbytes <= sys.getsizeof(few) < few.nbytes + 200


def test_a_dask_cluster_moves_it_and_counts_its_bytes() -> None:
    protocol = pytest.importorskip("distributed.protocol")
    from dask.sizeof import sizeof

    few = Counts.from_dense(sparse(np.random.default_rng(5), (300, 50)))
    assert sizeof(few) >= few.nbytes
    again = protocol.deserialize(*protocol.serialize(few))
    assert_array_equal(again.to_dense(), few.to_dense())


def test_conversion_needs_no_second_block() -> None:
    x = sparse(np.random.default_rng(6), (4000, 512), 0.05).astype("u1")
    Counts.from_dense(x[:64])  # compiled
    tracemalloc.start()
    few = Counts.from_dense(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    buffers = 64 * 512 * (1 + 4 + 8)
    assert peak <= few.nbytes + 2 * buffers
    assert few.nbytes < 0.2 * x.nbytes


def test_read_only_and_strided_blocks(put: Any) -> None:
    x = sparse(np.random.default_rng(7), (70, 12)).astype("u2")
    want = Counts.from_dense(x)
    for block in (put(x), put(np.asfortranarray(x))):
        assert_array_equal(Counts.from_dense(block).to_dense(), want.to_dense())
    assert_array_equal(Counts.from_dense(x[::2, 1:]).to_dense(), x[::2, 1:])


@given(x=hnp.arrays("u2", shapes, elements=st.one_of(st.just(0), st.integers(0, 60_000))), data=st.data())
def test_pixels_are_selected_in_any_order_and_joined(x: np.ndarray[Any, Any], data: st.DataObject) -> None:
    few = Counts.from_dense(x)
    assert_array_equal(few.totals, x.sum(axis=1))
    rows = np.array(data.draw(st.lists(st.integers(0, len(x) - 1), max_size=9) if len(x) else st.just([])), dtype=int)
    assert_array_equal(few.take(rows).to_dense(), x[rows])
    cut = data.draw(st.integers(0, len(x)))
    joined = Counts.concatenate([few[:cut], few[cut:], few[:0]])
    assert_array_equal(joined.to_dense(), x)
    assert_array_equal(joined.indptr, few.indptr)


def test_blocks_of_different_dtypes_are_joined_in_the_widest() -> None:
    parts = [Counts.from_dense(np.array([[v, 0]], dtype=d)) for v, d in ((3, "u1"), (60_000, "u2"), (1, "u1"))]
    joined = Counts.concatenate(parts)
    assert joined.dtype == np.uint16
    assert_array_equal(joined.to_dense(), [[3, 0], [60_000, 0], [1, 0]])
