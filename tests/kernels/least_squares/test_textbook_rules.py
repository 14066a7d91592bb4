"""Tests of the textbook rules against scikit-learn's iterates, or against the equations of the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import optimize
from sklearn.decomposition import NMF

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.least_squares import textbook_rules
from scalehsi.kernels.pixel_rows.residual import residual_of_block
from scalehsi.kernels.pixel_rows.sparse_counts import Counts

seeds = st.integers(0, 10_000)


def scene(seed: int = 0) -> tuple[Float, Float, Float]:
    rng = np.random.default_rng(seed)
    x = rng.random((60, 3)) ** 2 @ rng.random((3, 15)) ** 2 + 0.05 * rng.random((60, 15))
    return x, rng.random((60, 3)) + 0.1, rng.random((3, 15)) + 0.1


@pytest.mark.filterwarnings("ignore:Maximum number of iterations")
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize(("rule", "solver"), [("hals", "cd"), ("mu", "mu")])
def test_iterates_are_those_of_scikit_learn(rule: str, solver: str, steps: int) -> None:
    x, c, s = scene()
    model = NMF(3, init="custom", solver=solver, max_iter=steps, tol=0)
    want_c = model.fit_transform(x, W=c.copy(), H=s.copy())
    for _ in range(steps):
        pixels, sums = textbook_rules.update(x, c, s=s, rule=rule)
        c = pixels["c"]
        s, _ = textbook_rules.improve(sums, s, rule=rule)
    assert_allclose(c, want_c, rtol=1e-6, atol=1e-9)
    assert_allclose(s, model.components_, rtol=1e-6, atol=1e-9)


def test_alternating_least_squares_clips_the_free_solution() -> None:
    x, c, s = scene()
    pixels, sums = textbook_rules.update(x, c, s=s, rule="als")
    free = np.linalg.lstsq(s.T, x.T, rcond=None)[0].T
    assert_allclose(pixels["c"], np.maximum(free, 0.0), rtol=1e-6, atol=1e-9)
    assert sums["clipped"] == (free < 0).sum()
    found, share = textbook_rules.improve(sums, s, rule="als")
    free = np.linalg.lstsq(pixels["c"], x, rcond=None)[0]
    assert_allclose(found, np.maximum(free, 0.0), rtol=1e-6, atol=1e-9)
    assert_allclose(share, (free < 0).mean())


@pytest.mark.parametrize("ridge", [0.1, 1e6])
def test_modified_least_squares_stays_near_the_last_step(ridge: float) -> None:
    x, c, s = scene()
    pixels, sums = textbook_rules.update(x, c, s=s, rule="mals", ridge=ridge)
    damping = ridge * np.trace(s @ s.T) / 3
    want = np.maximum((x @ s.T + damping * c) @ np.linalg.inv(s @ s.T + damping * np.eye(3)), 0.0)
    assert_allclose(pixels["c"], want, rtol=1e-6, atol=1e-9)
    if ridge > 1e3:
        assert_allclose(pixels["c"], c, rtol=1e-4)
        assert_allclose(textbook_rules.improve(sums, s, rule="mals", ridge=ridge)[0], s, rtol=1e-4)


@pytest.mark.parametrize("rule", textbook_rules.RULES)
def test_every_library_returns_the_same(rule: str, put: Any) -> None:
    x, c, s = scene()
    want = textbook_rules.update(x, c, s=s, rule=rule, ridge=0.3)
    found = textbook_rules.update(put(x), put(c), s=s, rule=rule, ridge=0.3)
    assert_allclose(arrays.to_host(found[0]["c"]), want[0]["c"], rtol=1e-6, atol=1e-9)
    for name, value in want[1].items():
        assert_allclose(found[1][name], value, rtol=1e-6, atol=1e-9, err_msg=name)


@given(seed=seeds)
def test_penalised_abundances_are_optimal(seed: int) -> None:
    x, _, s = scene(seed)
    rng = np.random.default_rng(seed)
    diagonal, target = rng.random((60, 3)), rng.random((60, 3))
    pixels, sums = textbook_rules.penalised(x, diagonal, target, s=s)
    for row, d, t, c in zip(x, diagonal, target, pixels["c"], strict=True):
        root = np.sqrt(d)
        want = optimize.nnls(np.vstack([s.T, np.diag(root)]), np.concatenate([row, t / root]))[0]
        assert_allclose(c, want, atol=1e-7)
    assert_allclose(sums["N"], pixels["c"].T @ x, rtol=1e-6)


def test_residual_is_data_minus_model() -> None:
    x, c, s = scene()
    pixels, sums = residual_of_block(x, c, s=s)
    assert_allclose(pixels["residual"], np.sqrt(((x - c @ s) ** 2).mean(axis=1)), rtol=1e-6)
    assert_allclose(sums["residual_spectrum"], (x - c @ s).sum(axis=0), rtol=1e-6, atol=1e-9)


@given(seed=seeds, counts=st.floats(0.05, 200.0))
def test_residuals_of_counts_are_those_of_dense_blocks(seed: int, counts: float) -> None:
    rng = np.random.default_rng(seed)
    c, s = rng.random((30, 3)), rng.random((3, 15)) * counts
    x = rng.poisson(c @ s).astype("u2")
    residual = x - c @ s
    for given_ in (x, Counts.from_dense(x)):
        pixels, sums = residual_of_block(given_, c, s=s)
        assert_allclose(pixels["residual"], np.sqrt((residual**2).mean(axis=1)), rtol=1e-4)
        assert_allclose(sums["residual_spectrum"], residual.sum(axis=0), rtol=1e-4, atol=1e-4 * counts)
