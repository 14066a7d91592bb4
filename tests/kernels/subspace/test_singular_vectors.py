"""Tests of singular vectors and NNDSVD from sums, against those of the whole matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from scalehsi.arrays import Float
from scalehsi.kernels.subspace.nndsvd import nndsvd
from scalehsi.kernels.subspace.singular_vectors import leading_vectors, nonnegative_rows, nystrom, sign_parts

seeds = st.integers(0, 10_000)


def matrix(seed: int = 0, *, pixels: int = 90, channels: int = 50, rank: int = 4) -> Float:
    rng = np.random.default_rng(seed)
    made: Float = rng.random((pixels, rank)) ** 3 @ rng.random((rank, channels)) ** 3
    return made + 1e-3 * rng.random((pixels, channels))


def largest_angle(a: Float, b: Float) -> float:
    return float(np.sqrt(max(0.0, 1 - np.linalg.svd(a.T @ b)[1].min() ** 2)))


@given(seed=seeds, n=st.integers(1, 4), shape=st.sampled_from([(90, 50), (9, 50), (90, 6)]))
def test_leading_vectors_are_those_of_numpy(seed: int, n: int, shape: tuple[int, int]) -> None:
    x = matrix(seed, pixels=shape[0], channels=shape[1])
    got = leading_vectors(x, n, seed=0)
    assert_allclose(got.T @ got, np.eye(n), atol=1e-9)
    assert largest_angle(got, np.linalg.svd(x)[2][:n].T) < 1e-3


@pytest.mark.parametrize("n", [2, 4])
def test_equal_rows_have_one_direction(n: int) -> None:
    """The Lanczos iteration ends with fewer pairs than were asked for."""
    got = leading_vectors(np.full((144, 40), 5.0, dtype="f4"), n, seed=0)
    assert_allclose(np.abs(got[:, 0]), 40**-0.5, rtol=1e-5)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("shape", [(1, 5), (2, 30), (3, 3)])
def test_fewer_pixels_than_vectors_leave_columns_of_zeros(shape: tuple[int, int]) -> None:
    got = leading_vectors(np.random.default_rng(0).random(shape), 4 if shape[1] > 3 else 3, seed=0)
    assert np.isfinite(got).all()
    assert np.linalg.matrix_rank(got) >= min(shape)


@given(seed=seeds, n=st.integers(1, 4))
def test_one_product_yields_eigenpairs(seed: int, n: int) -> None:
    x = matrix(seed)
    probe, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((50, 12)))
    values, vectors = nystrom(x.T @ (x @ probe), probe, n)
    _, sigma, right = np.linalg.svd(x)
    assert_allclose(values, sigma[:n] ** 2, rtol=1e-3)
    assert largest_angle(vectors, right[:n].T) < 0.02
    assert_allclose(vectors.T @ vectors, np.eye(n), atol=1e-9)


def test_pairs_beyond_the_rank_are_omitted() -> None:
    x = np.outer(np.arange(1.0, 9.0), np.ones(6))
    probe = np.eye(6)
    values, vectors = nystrom(x.T @ x @ probe, probe, 4)
    assert values.shape == (1,)
    assert_allclose(np.abs(vectors[:, 0]), 1 / np.sqrt(6))
    assert nystrom(np.zeros((6, 6)), probe, 4)[1].shape == (6, 0)


@pytest.mark.parametrize("weighted", [False, True])
def test_sign_parts_are_those_of_the_left_vectors(put: Callable[[Any], Any], weighted: bool) -> None:
    x = matrix(1, pixels=600)
    x[::7] = 0
    column = np.linspace(1, 2, 50)
    vectors = np.linalg.qr(np.random.default_rng(0).standard_normal((50, 3)))[0]
    _, sums = sign_parts(put(x), vectors=put(vectors), column=put(column), weigh_pixels=weighted)
    mean = x.mean(axis=1, keepdims=True)
    scaled = x / column / (np.sqrt(np.where(mean > 0, mean, 1.0)) if weighted else 1.0)
    left = scaled @ vectors
    assert_allclose(sums["positive"], (np.maximum(left, 0) ** 2).sum(axis=0), rtol=1e-9)
    assert_allclose(sums["negative"], (np.minimum(left, 0) ** 2).sum(axis=0), rtol=1e-9)
    assert_allclose(sums["total"], scaled.sum(), rtol=1e-9)
    assert sums["pixels"] == 600


@given(seed=seeds, n=st.integers(1, 4))
def test_rows_are_those_of_nndsvd(seed: int, n: int) -> None:
    x = matrix(seed)
    _, want = nndsvd(x, n, seed=0)
    vectors = np.linalg.svd(x)[2][:n].T
    _, sums = sign_parts(x, vectors=vectors, column=np.ones(50), weigh_pixels=False)
    got = nonnegative_rows(vectors, sums["positive"], sums["negative"], fill=0.0)
    assert_allclose(got, want, rtol=1e-5, atol=1e-8)
    filled = nonnegative_rows(vectors, sums["positive"], sums["negative"], fill=0.5)
    assert_allclose(filled, np.where(got > 0, got, 0.5))
