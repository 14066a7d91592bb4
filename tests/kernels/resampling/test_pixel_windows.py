"""Bins of pixels do not depend on the blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from scalehsi.kernels.resampling.pixel_windows import bin_sums, merge_bins


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    sides=st.tuples(*[st.integers(1, 4)] * 3),
    used=st.floats(0.1, 1.0),
    parts=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_bins_are_aligned_to_the_cube(
    shape: tuple[int, ...], sides: tuple[int, ...], used: float, parts: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.poisson(3.0, (*shape, 4)).astype("u1")
    index = np.flatnonzero(rng.random(shape).reshape(-1) <= used)
    index = index if index.size else np.array([0])
    rows = x.reshape(-1, 4)
    # Any division into parts in any order; the pixels of a part are in rising order, as in blocks.
    owner = rng.integers(0, parts, index.size)
    cut = [index[owner == i] for i in range(parts) if (owner == i).any()]
    got = reduce(merge_bins, [bin_sums(rows[i], index=i, shape=shape, sides=sides)[1] for i in cut])
    counts = [-(-n // side) for n, side in zip(shape, sides, strict=True)]
    want = np.zeros((*counts, 4))
    for p in index:
        place = np.unravel_index(p, shape)
        want[tuple(a // side for a, side in zip(place, sides, strict=True))] += rows[p]
    flat = np.zeros((np.prod(counts), 4))
    flat[got["number"][0]] = got["bins"][0]
    assert_array_equal(flat, want.reshape(-1, 4))
    assert (np.diff(got["number"][0]) > 0).all()


def test_bins_run_on_any_array_library(put: Callable[[Any], Any]) -> None:
    x = np.random.default_rng(0).poisson(5.0, (600, 7)).astype("f4")
    _, got = bin_sums(put(x), index=np.arange(600), shape=(20, 30), sides=(4, 7))
    _, want = bin_sums(x, index=np.arange(600), shape=(20, 30), sides=(4, 7))
    assert_array_equal(got["bins"][0], want["bins"][0])
    assert got["bins"][0].shape == (25, 7)
