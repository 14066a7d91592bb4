"""Sums that compare denoised cubes with data: the same from any blocks, and accurate far from zero."""

from __future__ import annotations

import functools
import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from scalehsi.blocks.tile import Tile
from scalehsi.kernels.statistics.fidelity import Factors, fidelity, merge, moments, squared_distance, squared_residual


def tile(x: np.ndarray, first: int) -> Tile:
    used = np.ones(len(x), dtype=bool)
    return Tile(x, np.arange(first, first + len(x)), used, used, (1, len(x)))


@given(seed=st.integers(0, 99), cuts=st.lists(st.integers(0, 30), max_size=4), split=st.booleans())
def test_any_blocks_give_the_same_sums(seed: int, cuts: list[int], split: bool) -> None:
    rng = np.random.default_rng(seed)
    x, maps = rng.poisson(3.0, (30, 12)).astype("u1"), rng.random((30, 5))
    maps[rng.integers(30)] = np.nan
    factors = [
        Factors(slice(0, 2), rng.random((2, 12)), np.zeros(12)),
        Factors(slice(2, 5), rng.normal(size=(3, 12)), rng.random(12), int(split)),
    ]
    shared = {"factors": factors, "windows": [(0, 12), (3, 5)], "seed": 4 if split else None}
    whole = fidelity(x, maps, tile=tile(x, 0), **shared)[1]
    edges = sorted({0, 30, *cuts})
    parts = [fidelity(x[a:b], maps[a:b], tile=tile(x[a:b], a), **shared)[1] for a, b in itertools.pairwise(edges)]
    found = functools.reduce(merge, parts)
    assert (
        set(found)
        == set(whole)
        == {
            *("n", "mean", "comoment", "gram", "cross", "power", "total", "between"),
            *(("deviance",) if split else ()),
        }
    )
    for name, value in whole.items():
        assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
    good = np.isfinite(maps).all(axis=1)
    cubes = [maps[good][:, f.columns] @ f.s + f.offset for f in factors]
    assert_allclose(squared_distance(whole["gram"], *factors), ((cubes[0] - cubes[1]) ** 2).sum(), rtol=1e-9)
    if not split:
        left = squared_residual(whole["gram"], whole["cross"][0], whole["power"][0], factors[1])
        assert_allclose(left, ((x[good] - cubes[1]) ** 2).sum(), rtol=1e-9)


def test_co_moments_keep_their_digits_far_from_zero() -> None:
    rng = np.random.default_rng(0)
    values = 1e7 + rng.normal(size=(2000, 1, 3))
    found = functools.reduce(merge, [moments(part) for part in np.array_split(values, 7)])
    assert_allclose(found["comoment"][0] / found["n"], np.cov(values[:, 0].T, bias=True), rtol=1e-7, atol=1e-9)
