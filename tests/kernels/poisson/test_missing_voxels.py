"""Poisson passes over counts with missing voxels, against passes over the measured voxels alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize

from scalehsi.arrays import Float
from scalehsi.kernels import poisson
from scalehsi.kernels.pixel_rows import sparse_counts
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson.passes import NEWTON_FLOOR

seeds = st.integers(0, 10_000)


def scene(
    seed: int = 0, *, share: float = 0.3, pixels: int = 70, components: int = 3, dose: float = 60.0, dtype: str = "f8"
) -> tuple[Float, Any]:
    """Endmembers (K, E) of unit sum and counts (P, E), NaN in a fraction ``share`` of them; one pixel has no counts."""
    rng = np.random.default_rng(seed)
    s = rng.random((components, 29)) ** 3 + 1e-3
    s /= s.sum(axis=1, keepdims=True)
    x = rng.poisson(dose * rng.random((pixels, components)) ** 2 @ s).astype(dtype)
    x[pixels // 3] = 0
    x[rng.random(x.shape) < share] = np.nan
    return s, x


def loss(x: Any, c: Float, s: Float) -> float:
    """``sum c s - x log(c s)`` over the measured voxels."""
    y, there = np.maximum(c @ s, 1e-290), np.isfinite(x)
    return float((y - np.nan_to_num(x) * np.log(y))[there].sum())


def solved(x: Any, s: Float, **options: Any) -> Float:
    found: Float = poisson.abundances(x, s=s, missing=True, **options)[0]["abundances"].astype(np.float64)
    return found


@settings(max_examples=15)
@given(seed=seeds, share=st.sampled_from([0.0, 0.05, 0.4, 0.9]), components=st.integers(1, 6), prior=st.booleans())
def test_abundances_are_the_best_for_the_measured_channels(
    seed: int, share: float, components: int, prior: bool
) -> None:
    s, x = scene(seed, share=share, pixels=6, components=components)
    tau = np.linspace(0.1, 2.0, components) if prior else np.zeros(components)
    c = solved(x, s, **({"tau": tau} if prior else {}))
    for row, here in zip(x, c, strict=True):
        there = np.isfinite(row)
        if not there.any():
            assert np.isnan(here).all()
            continue

        def value(c: Float, row: Float = row[there], s: Float = s[:, there]) -> tuple[float, Float]:
            y = np.maximum(c @ s, 1e-290)
            return float((y - row * np.log(y)).sum() + tau @ c), s.sum(axis=1) - s @ (row / y) + tau

        start = np.full(components, max(np.nansum(row), 1.0))
        options = {"ftol": 1e-14}
        best = optimize.minimize(value, start, jac=True, bounds=[(0, None)] * components, options=options).fun
        assert value(here)[0] <= best + 1e-5 * (1 + np.nansum(row))


@pytest.mark.parametrize("components", [1, 2, 3, 5])
@pytest.mark.parametrize("simplex", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_sums_are_those_of_plain_numpy(components: int, simplex: bool, dtype: str) -> None:
    s, x = scene(1, components=components, dtype=dtype)
    s = 30 * s if simplex else s
    _, sums = poisson.update(x, s=s, simplex=simplex, missing=True)
    c, there = solved(x, s, simplex=simplex), np.isfinite(x)
    weight = np.nan_to_num(x) / np.maximum(c @ s, 1e-140) ** 2
    lower = np.tril_indices(components)
    full = np.einsum("pe,pk,pj->ekj", weight, c, c)
    assert_allclose(sums["H"], full[:, lower[0], lower[1]], rtol=1e-3, atol=1e-4 * full.max())
    assert_allclose(sums["N"], np.einsum("ekj,je->ek", full, s), rtol=1e-3, atol=1e-3)
    assert_allclose(sums["C"], c.sum(axis=0), rtol=1e-5)
    assert_allclose(sums["missed"], (~there).T.astype("f8") @ c, rtol=1e-5, atol=1e-5)
    assert_allclose(poisson.objective(sums, s, 0.0), loss(x, c, s), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", ">f4"])
def test_nothing_missing_changes_no_bit(dtype: str) -> None:
    s, x = scene(2, share=0.0, dtype=dtype if dtype != "u1" else "f8")
    x = x.astype(dtype)
    for block in (x, Counts.from_dense(x)):
        _, sums = poisson.update(block, s=s, missing=True)
        _, plain = poisson.update(block, s=s)
        assert not sums["missed"].any()
        assert sums.keys() - plain.keys() == {"missed"}
        for name, value in plain.items():
            assert_array_equal(sums[name], value, err_msg=name)
        assert poisson.objective(sums, s, 3.0) == poisson.objective(plain, s, 3.0)
        for ours, theirs in zip(poisson.improve(sums, s), poisson.improve(plain, s), strict=True):
            assert_array_equal(ours, theirs)
        ours, theirs = poisson.abundances(block, s=s, missing=True), poisson.abundances(block, s=s)
        for part, other in zip(ours, theirs, strict=True):
            for name, value in other.items():
                assert_array_equal(part[name], value, err_msg=name)


@pytest.mark.parametrize("simplex", [False, True])
def test_a_pixel_without_measured_voxels_equals_a_masked_pixel(simplex: bool) -> None:
    s, x = scene(3)
    s = 30 * s if simplex else s
    x[[5, 64, 69]] = np.nan
    kept = np.delete(x, [5, 64, 69], axis=0)
    _, sums = poisson.update(x, s=s, simplex=simplex, missing=True)
    _, want = poisson.update(kept, s=s, simplex=simplex, missing=True)
    for name in ("N", "H", "likelihood"):
        assert_allclose(sums[name], want[name], rtol=1e-12)
    assert_allclose(poisson.objective(sums, s, 0.0), poisson.objective(want, s, 0.0), rtol=1e-12)
    for ours, theirs in zip(poisson.improve(sums, s), poisson.improve(want, s), strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-15)
    pixels, _ = poisson.abundances(x, s=s, simplex=simplex, missing=True)
    assert np.isnan(pixels["residual"][[5, 64, 69]]).all()
    assert np.isnan(pixels["abundances"][[5, 64, 69]]).all()


def test_a_channel_that_no_pixel_measured_equals_a_removed_channel() -> None:
    s, x = scene(4)
    x[:, 7] = np.nan
    cut = np.delete(x, 7, axis=1)
    _, sums = poisson.update(x, s=s, missing=True)
    _, want = poisson.update(cut, s=np.delete(s, 7, axis=1), missing=True)
    assert_allclose(sums["C"], want["C"], rtol=1e-9)
    ours, theirs = poisson.improve(sums, s), poisson.improve(want, np.delete(s, 7, axis=1))
    for found, other in zip(ours, theirs, strict=True):
        assert not found[:, 7].any()
        assert_allclose(np.delete(found, 7, axis=1), other, rtol=1e-9, atol=1e-15)
    _, left = poisson.abundances(x, s=s, missing=True)
    assert left["residual_spectrum"][7] == 0.0


def test_an_endmember_that_a_pixel_did_not_measure_has_no_abundance() -> None:
    s = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    x = np.array([[3.0, 5.0, np.nan, np.nan], [1.0, 2.0, 4.0, 3.0]])
    assert_allclose(solved(x, s), [[8.0, 0.0], [3.0, 7.0]], rtol=1e-6)
    _, sums = poisson.update(x, s=s, missing=True)
    for found in poisson.improve(sums, s):
        assert np.isfinite(found).all()
    # On the simplex the unmeasured endmember takes the remaining abundance, without cost.
    shares = solved(np.array([[2.0, 2.0, np.nan, np.nan]]), 8 * s, simplex=True)
    assert_allclose(shares, [[0.5, 0.5]], atol=1e-6)


def test_channels_measured_without_a_component_leave_its_spectrum_unchanged() -> None:
    s = np.array([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])
    # Channel 2 was measured where only the first component is.
    x = np.array([[5.0, 6.0, 0.0], [0.0, 7.0, np.nan]])
    _, sums = poisson.update(x, s=s, missing=True)
    newton, safe = poisson.improve(sums, s)
    assert newton[1, 2] == safe[1, 2] == s[1, 2]
    assert newton[0, 2] == pytest.approx(0.0, abs=1e-9)


@given(seed=seeds, share=st.sampled_from([0.1, 0.6]), simplex=st.booleans(), dose=st.sampled_from([3.0, 200.0]))
def test_multiplicative_steps_never_raise_the_objective(seed: int, share: float, simplex: bool, dose: float) -> None:
    _, x = scene(seed, share=share, dose=dose)
    s = np.random.default_rng(seed).random((3, 29)) * (dose if simplex else 1.0)
    before = np.inf
    for _ in range(8):
        _, sums = poisson.update(x, s=s, simplex=simplex, missing=True)
        value = poisson.objective(sums, s, 0.0)
        assert value <= before + 1e-9 * (1 + np.nansum(x))
        before, (_, s) = value, poisson.improve(sums, s)


def test_newton_steps_are_the_best_of_their_model() -> None:
    s, x = scene(6, pixels=200)
    _, sums = poisson.update(x, s=s, missing=True)
    newton, safe = poisson.improve(sums, s)
    measured = sums["C"] - sums["missed"]
    lower = np.tril_indices(3)
    for e in range(29):
        hessian = np.zeros((3, 3))
        hessian[lower] = sums["H"][e]
        hessian += np.tril(hessian, -1).T
        gradient = measured[e] - sums["N"][e] + hessian @ (newton[:, e] - s[:, e])
        free = newton[:, e] > NEWTON_FLOOR * safe[:, e] * (1 + 1e-9)
        scale = measured[e].max()
        assert (np.abs(gradient[free]) < 1e-5 * scale).all()
        assert (gradient[~free] > -1e-5 * scale).all()


@given(seed=seeds)
def test_blocks_add_up(seed: int) -> None:
    s, x = scene(seed)
    _, whole = poisson.update(x, s=s, missing=True)
    cut = int(np.random.default_rng(seed).integers(1, 69))
    parts = [poisson.update(part, s=s, missing=True)[1] for part in (x[:cut], x[cut:])]
    for name, value in whole.items():
        assert_allclose(parts[0][name] + parts[1][name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "f2"])
def test_strips_mark_the_voxels_that_were_not_measured(dtype: str) -> None:
    rng = np.random.default_rng(8)
    x = rng.poisson(0.5, (131, 21)).astype(dtype)
    x[rng.random(x.shape) < 0.2] = np.nan
    x[3, 4], x[70, 0] = np.inf, -np.inf
    x[64:128][~np.isfinite(x[64:128])] = 1.0  # a strip without holes
    before = x.copy()
    lost, dense = np.zeros(x.shape), np.zeros(x.shape)
    for (part, indptr, channel, value), mask in sparse_counts.measured_strips(x):
        height = part.stop - part.start
        assert len(mask) % 4 == 0
        assert not mask[height:].any()
        assert len(mask) == 0 or mask.any()
        lost[part] = mask[:height] if len(mask) else 0.0
        pixel = np.repeat(np.arange(part.start, part.stop), np.diff(indptr))
        dense[pixel, channel] = value
    assert_array_equal(lost, ~np.isfinite(x))
    assert_array_equal(dense, np.where(np.isfinite(x), x, 0.0))
    assert_array_equal(x, before)
