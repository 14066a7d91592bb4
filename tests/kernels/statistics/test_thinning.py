"""Binomial thinning: independent parts that do not depend on the blocks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.stats import binom, chisquare

from scalehsi.kernels.statistics.thinning import thin

DTYPES = ["u1", "u2", "u4", "u8"]


def counts(shape: tuple[int, ...], dtype: str = "u2", seed: int = 0, mean: float = 3.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).poisson(mean, shape).astype(dtype)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.85])
def test_what_is_kept_is_binomial(fraction: float) -> None:
    n = 12
    kept = thin(np.full((200, 500), n, dtype="u1"), np.arange(200), seed=3, fraction=fraction)
    seen = np.bincount(kept.reshape(-1), minlength=n + 1)
    want = binom.pmf(np.arange(n + 1), n, fraction) * kept.size
    some = want > 10
    rest = ~some & (want[~some].sum() > 1)
    pooled = [np.append(v[some], v[rest].sum()) if rest.any() else v for v in (seen, want)]
    assert chisquare(*pooled).pvalue > 1e-4


def test_halves_of_poisson_counts_are_independent_of_each_other_and_of_their_neighbours() -> None:
    x = counts((400, 500), mean=2.0)
    kept = thin(x, np.arange(400), seed=1, fraction=0.5).astype(float)
    rest = x - kept
    noise = 5 / np.sqrt(x.size)
    for one, other in ((kept, rest), (kept[:, 1:], kept[:, :-1]), (kept[1:], kept[:-1]), (kept[:, 2:], rest[:, :-2])):
        assert abs(np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1]) < noise
    assert kept.var() == pytest.approx(kept.mean(), rel=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dtype_is_kept_and_does_not_change_the_counts(dtype: str) -> None:
    x = counts((30, 20), dtype)
    kept = thin(x, np.arange(30), seed=5, fraction=0.4)
    assert kept.dtype == x.dtype
    assert (kept <= x).all()
    assert_array_equal(kept, thin(x.astype("u2"), np.arange(30), seed=5, fraction=0.4))
    largest = thin(
        np.full((1, 1), np.iinfo(dtype).max if dtype in ("u1", "u2") else 100_000, dtype), [0], seed=0, fraction=0.5
    )
    assert 0 < int(largest[0, 0]) < np.iinfo(dtype).max


@given(
    cut=st.lists(st.integers(0, 24), max_size=4),
    order=st.permutations(range(24)),
    seed=st.integers(0, 2**40),
    fraction=st.floats(0.01, 0.99),
)
def test_blocks_do_not_change_the_counts(cut: list[int], order: list[int], seed: int, fraction: float) -> None:
    x, number = counts((24, 9)), np.arange(24) + 10**12
    whole = thin(x, number, seed=seed, fraction=fraction)
    ends = sorted({0, 24, *cut})
    parts = [thin(x[a:b], number[a:b], seed=seed, fraction=fraction) for a, b in itertools.pairwise(ends)]
    assert_array_equal(np.concatenate(parts), whole)
    shuffled = thin(x[order], number[order], seed=seed, fraction=fraction)
    assert_array_equal(shuffled, whole[order])
    assert_array_equal(
        thin(x.reshape(2, 12, 9), number.reshape(2, 12), seed=seed, fraction=fraction).reshape(24, 9), whole
    )


def test_another_seed_is_another_division_and_a_larger_chance_keeps_more() -> None:
    x, number = counts((50, 40)), np.arange(50)
    one = thin(x, number, seed=0, fraction=0.5)
    assert (one != thin(x, number, seed=1, fraction=0.5)).mean() > 0.3
    assert (one != thin(x, number + 50, seed=0, fraction=0.5)).mean() > 0.3
    assert (thin(x, number, seed=0, fraction=0.7) >= one).all()


def test_empty_blocks_and_zeros_stay_so() -> None:
    assert thin(np.zeros((0, 5), "u1"), np.zeros(0, int), seed=0, fraction=0.5).shape == (0, 5)
    assert not thin(np.zeros((3, 5), "u1"), np.arange(3), seed=0, fraction=0.5).any()
