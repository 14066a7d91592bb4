"""Poisson abundances with known maps of some components, against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize

from scalehsi.arrays import Float
from scalehsi.kernels import poisson
from scalehsi.kernels.pixel_rows.sparse_counts import Counts

pytestmark = pytest.mark.long

seeds = st.integers(0, 10_000)
# Up to four components take the loops in registers, more take the tiles; some or all components are known.
KNOWN = [(4, [0]), (4, [3, 1]), (4, [0, 1, 2, 3]), (2, [1]), (7, [2]), (7, [0, 4, 6]), (6, [5, 0])]


def scene(
    seed: int, components: int, *, pixels: int = 20, channels: int = 25, dose: float = 100.0
) -> tuple[Float, Float, Float]:
    """Endmembers (K, E) of unit sum, counts (P, E), and maps (P, K) near the abundances of the counts."""
    rng = np.random.default_rng(seed)
    s = rng.random((components, channels)) ** 2 + 0.01
    s /= s.sum(axis=1, keepdims=True)
    c = dose * rng.random((pixels, components)) ** 3
    x = rng.poisson(c @ s).astype(np.float64)
    x[pixels // 2] = 0.0
    x[:, channels // 2] = 0.0
    return s, x, c * rng.uniform(0.5, 1.2, c.shape) + 0.01


def divergence(x: Float, y: Float) -> Float:
    """Generalised Kullback-Leibler divergence of each pixel, shape (P,)."""
    logarithm = np.log(np.where(x > 0, x, 1.0) / np.where(x > 0, np.maximum(y, 1e-290), 1.0))
    total: Float = (x * logarithm - x + y).sum(axis=1)
    return total


def constant(x: Float) -> float:
    return float((x * np.log(np.where(x > 0, x, 1.0)) - x).sum())


def lowest(x: Float, s: Float, ground: Float, start: Float) -> float:
    """The lowest divergence of one pixel that scipy finds with a background."""

    def loss(c: Float) -> tuple[float, Float]:
        y = np.maximum(c @ s + ground, 1e-290)
        return float(divergence(x[None], y[None])[0]), s.sum(axis=1) - s @ (x / y)

    starts = (start, np.full(len(s), x.sum() / len(s)))
    return min(
        float(optimize.minimize(loss, c, jac=True, bounds=[(0, None)] * len(s), options={"ftol": 1e-14}).fun)
        for c in starts
    )


@given(seed=seeds, case=st.sampled_from(KNOWN), dose=st.sampled_from([3.0, 150.0, 1e5]))
def test_scipy_finds_no_better_abundances_with_known_maps(seed: int, case: tuple[int, list[int]], dose: float) -> None:
    components, known = case
    s, x, maps = scene(seed, components, pixels=5, dose=dose)
    c = poisson.abundances(x, maps[:, known], s=s, known=known)[0]["abundances"].astype(np.float64)
    assert (c >= 0).all()
    assert_allclose(c[:, known], maps[:, known], rtol=1e-6)
    free = [k for k in range(components) if k not in known]
    if free:
        ground = c[:, known] @ s[known]
        best = [lowest(row, s[free], base, start) for row, base, start in zip(x, ground, c[:, free], strict=True)]
        assert (divergence(x, c @ s) <= np.array(best) + 1e-6 * (1 + x.sum(axis=1))).all()


@pytest.mark.parametrize(("components", "known"), KNOWN, ids=str)
def test_sums_are_those_of_plain_numpy_and_give_the_divergence(components: int, known: list[int]) -> None:
    s, x, maps = scene(2, components)
    c = poisson.abundances(x, maps[:, known], s=s, known=known)[0]["abundances"].astype(np.float64)
    y = c @ s
    pixels, sums = poisson.update(x, maps[:, known], s=s, known=known)
    assert pixels == {}
    lower = np.tril_indices(components)
    assert_allclose(sums["N"], (x / y).T @ c, rtol=1e-4, atol=1e-4)
    hessian = np.einsum("pe,pk,pj->ekj", x / y**2, c, c)[:, lower[0], lower[1]]
    assert_allclose(sums["H"], hessian, rtol=1e-4, atol=1e-4 * hessian.max())
    assert_allclose(sums["C"], c.sum(axis=0), rtol=1e-5)
    assert_allclose(poisson.objective(sums, s, constant(x)), divergence(x, y).sum(), rtol=1e-6)


@pytest.mark.parametrize(("components", "known"), KNOWN, ids=str)
def test_optimal_maps_change_nothing_when_they_are_given(components: int, known: list[int]) -> None:
    s, x, _ = scene(3, components, pixels=150)
    free, sums = poisson.abundances(x, s=s)
    maps = free["abundances"][:, known].astype(np.float64)
    with_known, other = poisson.abundances(x, maps, s=s, known=known)
    assert_allclose(with_known["abundances"], free["abundances"], atol=2e-3 * float(free["abundances"].max()))
    assert_allclose(other["likelihood"], sums["likelihood"], rtol=1e-5)


@given(seed=seeds, case=st.sampled_from(KNOWN), dose=st.sampled_from([2.0, 50.0, 1e5]))
def test_the_multiplicative_step_never_raises_the_objective(
    seed: int, case: tuple[int, list[int]], dose: float
) -> None:
    components, known = case
    s, x, maps = scene(seed, components, dose=dose)
    before = np.inf
    for _ in range(6):
        _, sums = poisson.update(x, maps[:, known], s=s, known=known)
        value = poisson.objective(sums, s, constant(x))
        assert value <= before + 1e-9 * x.sum()
        _, s = poisson.improve(sums, s)
        before = value


@pytest.mark.parametrize(("components", "known"), KNOWN, ids=str)
def test_counts_without_their_zeros_give_the_same_bits(components: int, known: list[int]) -> None:
    s, x, maps = scene(5, components, pixels=150)
    block, few = x.clip(0, 255).astype("u1"), Counts.from_dense(x.clip(0, 255).astype("u1"))
    options = {"s": s, "known": known, "tau": np.full(components, 0.1), "ridge": np.full(components, 0.01)}
    for fn in (poisson.update, poisson.abundances):
        for want, got in zip(fn(block, maps[:, known], **options), fn(few, maps[:, known], **options), strict=True):
            assert set(want) == set(got)
            for name, value in want.items():
                assert_array_equal(got[name], value, err_msg=name)


def test_a_known_map_of_zeros_is_no_background() -> None:
    s, x, _ = scene(6, 4)
    want = poisson.abundances(x, s=s[1:])[0]["abundances"]
    found = poisson.abundances(x, np.zeros((20, 1)), s=s, known=[0])[0]["abundances"]
    assert_allclose(found[:, 1:], want, rtol=1e-4, atol=1e-4)
    assert not found[:, 0].any()


def test_the_simplex_is_refused() -> None:
    s, x, maps = scene(7, 4)
    with pytest.raises(ValueError, match="on the simplex"):
        poisson.update(x, maps[:, :1], s=s, known=[0], simplex=True)
