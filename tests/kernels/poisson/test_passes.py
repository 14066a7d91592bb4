"""Poisson passes over blocks: optimal abundances, sums, and endmember updates that never raise the objective."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize
from sklearn.decomposition import NMF as SklearnNMF

import scalehsi as hsi
from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels import poisson
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson import channel_loops
from scalehsi.kernels.poisson.passes import NEWTON_FLOOR
from scalehsi.schema import InputError

seeds = st.integers(0, 10_000)
KINDS = ["dense", "sparse", "equal", "nearly equal", "background"]


def spectra(rng: np.random.Generator, kind: str, components: int, channels: int) -> Float:
    s = rng.random((components, channels)) + 0.01
    if kind == "sparse":
        s *= rng.random(s.shape) < 0.2
        s[:, 0] += 0.01
    if kind == "equal":
        s[-1] = s[0]
    if kind == "nearly equal":
        s[-1] = s[0] * (1 + 1e-4 * rng.standard_normal(channels))
    if kind == "background":
        s = 0.02 * s + (np.arange(1, channels + 1) / 5.0) ** -2
    made: Float = s / s.sum(axis=1, keepdims=True)
    return made


def scene(
    seed: int = 0,
    *,
    kind: str = "dense",
    pixels: int = 20,
    components: int = 3,
    channels: int = 25,
    dose: float = 100.0,
) -> tuple[Float, Float]:
    """Endmembers (K, E) of unit sum and counts (P, E), one pixel and one channel without any."""
    rng = np.random.default_rng(seed)
    s = spectra(rng, kind, components, channels)
    x = rng.poisson(dose * rng.random((pixels, components)) ** 3 @ s).astype(np.float64)
    x[pixels // 2] = 0.0
    x[:, channels // 2] = 0.0
    return s, x


def divergence(x: Float, y: Float) -> Float:
    """Generalised Kullback-Leibler divergence of each pixel, shape (P,)."""
    logarithm = np.log(np.where(x > 0, x, 1.0) / np.where(x > 0, np.maximum(y, 1e-290), 1.0))
    total: Float = (x * logarithm - x + y).sum(axis=1)
    return total


def constant(x: Float) -> float:
    return float((x * np.log(np.where(x > 0, x, 1.0)) - x).sum())


def solved(x: Float, s: Float) -> Float:
    found: Float = poisson.abundances(x, s=s)[0]["abundances"].astype(np.float64)
    return found


def best(x: Float, s: Float, start: Float) -> float:
    """The lowest divergence of one pixel that scipy finds."""

    def loss(c: Float) -> tuple[float, Float]:
        y = np.maximum(c @ s, 1e-290)
        return float(divergence(x[None], y[None])[0]), s.sum(axis=1) - s @ (x / y)

    starts = (start, np.full(len(s), x.sum() / s.sum()))
    return min(
        float(optimize.minimize(loss, c, jac=True, bounds=[(0, None)] * len(s), options={"ftol": 1e-14}).fun)
        for c in starts
    )


@given(seed=seeds, kind=st.sampled_from(KINDS), components=st.integers(2, 6), dose=st.sampled_from([3.0, 150.0, 1e5]))
def test_scipy_finds_no_better_abundances(seed: int, kind: str, components: int, dose: float) -> None:
    s, x = scene(seed, kind=kind, pixels=5, components=components, dose=dose)
    c = solved(x, s)
    assert (c >= 0).all()
    lowest = np.array([best(row, s, start) for row, start in zip(x, c, strict=True)])
    assert (divergence(x, c @ s) <= lowest + 1e-6 * (1 + x.sum(axis=1))).all()


@given(seed=seeds, kind=st.sampled_from(KINDS), exponent=st.integers(-6, 6))
def test_the_unit_of_the_data_does_not_decide_how_well_a_pixel_is_solved(seed: int, kind: str, exponent: int) -> None:
    # A Newton step damped by its decrement stops far from the optimum where counts are many (dense EELS), and
    # overshoots where "counts" are fractions.
    s, x = scene(seed, kind=kind, components=4)
    c = solved(10.0**exponent * x, s) / 10.0**exponent
    reference = divergence(x, solved(x, s) @ s)
    assert (np.abs(divergence(x, c @ s) - reference) <= 1e-5 * (1 + x.sum(axis=1))).all()


@given(seed=seeds, order=st.permutations(range(3)), exponents=st.lists(st.integers(-4, 4), min_size=3, max_size=3))
def test_unit_and_order_of_the_endmembers_change_nothing_else(
    seed: int, order: list[int], exponents: list[int]
) -> None:
    s, x = scene(seed)
    units = 10.0 ** np.array(exponents)
    found = solved(x, (s * units[:, None])[order])
    assert_allclose(found * units[order], solved(x, s)[:, order], rtol=1e-3, atol=1e-3)


def test_abundances_reach_the_optimum_of_scikit_learn_with_fixed_endmembers() -> None:
    s, x = scene(1, pixels=40)
    model = SklearnNMF(3, init="random", solver="mu", beta_loss="kullback-leibler", max_iter=2000, tol=1e-4)
    model.fit(x + 1e-9)
    model.components_, model.tol = s, 1e-9
    theirs = divergence(x, model.transform(x) @ s)
    ours = divergence(x, solved(x, s) @ s)
    assert (ours <= theirs + 1e-6).all()
    assert_allclose(ours, theirs, rtol=1e-3)


def test_sums_are_those_of_plain_numpy_and_give_the_divergence() -> None:
    s, x = scene(2)
    c = solved(x, s)
    y = np.maximum(c @ s, 1e-140)
    ratio = x / y
    square = ratio / y
    pixels, sums = poisson.update(x, s=s)
    assert pixels == {}
    lower = np.tril_indices(3)
    assert_allclose(sums["N"], ratio.T @ c, rtol=1e-4, atol=1e-4)
    hessian = np.einsum("pe,pk,pj->ekj", square, c, c)
    assert_allclose(sums["H"], hessian[:, lower[0], lower[1]], rtol=1e-4, atol=1e-3 * hessian.max())
    assert_allclose(sums["C"], c.sum(axis=0), rtol=1e-5)
    assert_allclose(sums["likelihood"], (x * np.log(np.where(x > 0, y, 1.0))).sum(), rtol=1e-6)
    assert_allclose(poisson.objective(sums, s, constant(x)), divergence(x, y).sum(), rtol=1e-6)


def test_a_pixel_has_as_much_model_as_counts() -> None:
    s, x = scene(3)
    assert_allclose((solved(x, s) @ s).sum(axis=1), x.sum(axis=1), rtol=1e-4)


def test_residuals_are_data_minus_model() -> None:
    s, x = scene(4)
    pixels, sums = poisson.abundances(x, s=s)
    rest = x - pixels["abundances"].astype(np.float64) @ s
    assert_allclose(pixels["residual"], np.sqrt((rest**2).mean(axis=1)), rtol=1e-4, atol=1e-5)
    assert_allclose(sums["residual_spectrum"], rest.sum(axis=0), rtol=1e-3, atol=1e-3)
    few, less = poisson.abundances(x, s=s, residual=False)
    assert (set(few), set(less)) == ({"abundances"}, {"likelihood", "C"})
    assert_array_equal(few["abundances"], pixels["abundances"])


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i4", "u8", "f2", "f4", ">f8"])
def test_every_dtype_and_byte_order_gives_the_same_bits(dtype: str) -> None:
    s, x = scene(5, pixels=150)  # more than two strips
    want = poisson.update(x, s=s)[1]
    for name, value in poisson.update(x.clip(0, 255).astype(dtype), s=s)[1].items():
        assert_array_equal(value, want[name], err_msg=name)


def test_the_arguments_stay_as_they_were_and_may_be_read_only_or_strided(put: Any) -> None:
    s, x = scene(6)
    counts = x.astype("u2")
    want = poisson.abundances(counts, s=s)
    block, columns = put(counts), put(np.asfortranarray(counts))
    for given_ in (block, columns):
        pixels, sums = poisson.abundances(given_, s=s)
        assert_array_equal(pixels["abundances"], want[0]["abundances"])
        assert_array_equal(sums["C"], want[1]["C"])
        assert_array_equal(arrays.to_host(given_), counts)
    frozen = s.copy()
    frozen.flags.writeable = False
    poisson.improve(poisson.update(block, s=frozen)[1], frozen)
    assert_array_equal(frozen, s)


@given(seed=seeds, cut=st.integers(1, 149))
def test_sums_over_two_blocks_are_those_over_one(seed: int, cut: int) -> None:
    s, x = scene(seed, pixels=150)
    for fn in (poisson.update, poisson.abundances):
        pixels, whole = fn(x, s=s)
        halves = [fn(part, s=s) for part in (x[:cut], x[cut:])]
        for name, value in whole.items():
            assert_allclose(halves[0][1][name] + halves[1][1][name], value, rtol=1e-9, atol=1e-9 * np.abs(value).max())
        for name, rows in pixels.items():
            assert_array_equal(np.concatenate([p[name] for p, _ in halves]), rows)


@given(seed=seeds, kind=st.sampled_from(KINDS), dose=st.sampled_from([2.0, 50.0, 1e5]))
def test_the_multiplicative_step_never_raises_the_objective(seed: int, kind: str, dose: float) -> None:
    s, x = scene(seed, kind=kind, dose=dose)
    assume(x.any())
    before = np.inf
    for _ in range(6):
        _, sums = poisson.update(x, s=s)
        value = poisson.objective(sums, s, constant(x))
        assert value <= before + 1e-9 * x.sum()
        _, s = poisson.improve(sums, s)
        assert (s >= 0).all()
        before = value


def test_the_newton_step_gains_more_than_the_multiplicative_one() -> None:
    s, x = scene(7, pixels=400, dose=1000.0)
    rng = np.random.default_rng(0)
    start = s * rng.uniform(0.7, 1.4, s.shape)
    values: dict[str, float] = {}
    for name, which in (("newton", 0), ("multiplicative", 1)):
        now = start
        for _ in range(5):
            now = poisson.improve(poisson.update(x, s=now)[1], now)[which]
            assert np.isfinite(now).all()
            assert (now >= 0).all()
        values[name] = poisson.objective(poisson.update(x, s=now)[1], now, constant(x))
    lowest = poisson.objective(poisson.update(x, s=now)[1], now, constant(x))
    for _ in range(60):
        now = poisson.improve(poisson.update(x, s=now)[1], now)[1]
        lowest = poisson.objective(poisson.update(x, s=now)[1], now, constant(x))
    assert values["newton"] - lowest < 0.25 * (values["multiplicative"] - lowest)


def test_the_newton_step_of_one_channel_is_that_of_plain_numpy() -> None:
    # One component and one channel, above the floor: s - gradient / curvature.
    s = np.array([[2.0]])
    x = np.array([[3.0], [5.0]])
    _, sums = poisson.update(x, s=s)
    c = x[:, 0] / 2.0
    gradient, curvature = c.sum() - (x[:, 0] / 2.0).sum(), (x[:, 0] * c**2 / x[:, 0] ** 2).sum()
    newton, multiplicative = poisson.improve(sums, s)
    assert_allclose(newton, 2.0 - gradient / curvature, rtol=1e-8)
    assert_allclose(multiplicative, 2.0, rtol=1e-8)


@given(seed=seeds, kind=st.sampled_from(KINDS))
def test_the_newton_step_is_the_minimum_of_each_channels_quadratic_model_above_its_floor(seed: int, kind: str) -> None:
    s, x = scene(seed, kind=kind, pixels=60)
    _, sums = poisson.update(x, s=s)
    assume((sums["C"] > 0).all())
    newton, multiplicative = poisson.improve(sums, s)
    floor = NEWTON_FLOOR * multiplicative
    assert (newton >= floor - 1e-15).all()
    lower = np.tril_indices(3)
    for e in np.flatnonzero(x.sum(axis=0)):
        hessian = np.zeros((3, 3))
        hessian[lower] = sums["H"][e]
        hessian += np.tril(hessian, -1).T
        own = np.diag(hessian)
        hessian += 1e-9 * np.diag(np.where(own > 0, own, own.max()))
        right = sums["N"][e] - sums["C"] + hessian @ (s[:, e] - floor[:, e])
        root = np.linalg.cholesky(hessian)
        best, _ = optimize.nnls(root.T, np.linalg.solve(root, right))

        def model(u: Float, hessian: Float = hessian, right: Float = right) -> float:
            return float(0.5 * u @ hessian @ u - right @ u)

        assert model(newton[:, e] - floor[:, e]) <= model(best) + 1e-9 * (1 + abs(model(best)))


def test_a_component_that_no_pixel_uses_keeps_its_spectrum() -> None:
    s, x = scene(8)
    x[:, 12] = 0.0
    s = np.vstack([s, 1.0 * (np.arange(25) == 12)])
    _, sums = poisson.update(x, s=s)
    assert sums["C"][3] == 0.0
    newton, safe = poisson.improve(sums, s)
    assert_allclose(newton[3], s[3], atol=1e-12)
    assert_allclose(safe[3], s[3], atol=1e-12)


@pytest.mark.parametrize(("components", "channels", "pixels"), [(1, 1, 1), (1, 9, 4), (3, 1, 4), (2, 9, 1), (5, 3, 7)])
def test_one_component_one_channel_one_pixel(components: int, channels: int, pixels: int) -> None:
    rng = np.random.default_rng(0)
    s = spectra(rng, "dense", components, channels)
    x = rng.poisson(20.0, (pixels, channels)).astype("u1")
    pixels_, sums = poisson.abundances(x, s=s)
    assert pixels_["abundances"].shape == (pixels, components)
    assert_allclose(sums["C"] @ s.sum(axis=1), x.sum(), rtol=1e-6)
    newton, safe = poisson.improve(poisson.update(x, s=s)[1], s)
    assert newton.shape == safe.shape == s.shape


def test_pixels_and_channels_without_counts_are_handled() -> None:
    s, _ = scene(9)
    pixels, sums = poisson.abundances(np.zeros((4, 25), "u1"), s=s)
    assert not pixels["abundances"].any()
    assert not pixels["residual"].any()
    assert sums["likelihood"] == 0.0
    x = np.zeros((4, 25), "u1")
    x[:, 3] = 7
    _, sums = poisson.update(x, s=s)
    used = sums["C"] > 0
    assert used.any()
    for found in poisson.improve(sums, s):
        assert (found[used][:, np.arange(25) != 3] == 0).all()
        assert_allclose(found[~used], s[~used])


@pytest.mark.parametrize("empty", ["one", "all", "where the counts are"])
def test_empty_endmembers_give_finite_abundances(empty: str) -> None:
    s, x = scene(10)
    if empty == "where the counts are":
        s[:, :6] = 0.0
    else:
        s[slice(None) if empty == "all" else 1] = 0.0
        x[:] = 3.0  # flat, as an empty spectrum raised a little from zero would be
    pixels, sums = poisson.abundances(x, s=s)
    assert np.isfinite(sums["likelihood"])
    assert np.isfinite(pixels["abundances"]).all()
    assert not pixels["abundances"][:, s.sum(axis=1) == 0].any()
    assert all(np.isfinite(v).all() for v in poisson.update(x, s=s)[1].values())
    assert all(np.isfinite(v).all() for v in poisson.improve(poisson.update(x, s=s)[1], s))


def test_large_counts_do_not_overflow() -> None:
    s = np.full((1, 50), 1 / 50)
    pixels, sums = poisson.abundances(np.full((3, 50), 2**32 - 1, "u4"), s=s)
    assert_allclose(pixels["abundances"], 50.0 * 2**32, rtol=1e-6)
    assert_allclose(sums["C"], 150.0 * (2**32 - 1))


@pytest.mark.parametrize("components", [1, 2, 3, 4, 5, 6, 7, 8, 11])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f8"])
def test_counts_without_their_zeros_give_the_same_bits(components: int, dtype: str) -> None:
    s, x = scene(11, pixels=150, components=components, channels=60, dose=40.0)
    block = x.astype(dtype)
    few = Counts.from_dense(block)
    for options in ({}, {"tau": np.full(components, 0.1), "ridge": np.full(components, 0.01)}, {"simplex": True}):
        for fn in (poisson.update, poisson.abundances):
            dense, sparse = fn(block, s=30 * s, **options), fn(few, s=30 * s, **options)
            for want, got in zip(dense, sparse, strict=True):
                assert set(want) == set(got)
                for name, value in want.items():
                    assert_array_equal(got[name], value, err_msg=name)
    c = np.ones((150, components))
    for want, got in zip(poisson.update_from(block, c, s=s), poisson.update_from(few, c, s=s), strict=True):
        for name, value in want.items():
            assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("components", [1, 2, 3, 4, 5, 6, 7, 8, 11, 70])
def test_sums_are_right_for_every_number_of_components(components: int) -> None:
    s, x = scene(12, pixels=70, components=components, channels=90, dose=60.0)
    _, sums = poisson.update(x, s=s)
    c = solved(x, s)
    y = c @ s
    lower = np.tril_indices(components)
    full = np.einsum("pe,pk,pj->ekj", x / np.maximum(y, 1e-140) ** 2, c, c)
    assert_allclose(sums["N"], (x / np.maximum(y, 1e-140)).T @ c, rtol=1e-4, atol=1e-3)
    assert_allclose(sums["H"], full[:, lower[0], lower[1]], rtol=1e-3, atol=1e-4 * full.max())
    gradient = s.sum(axis=1) - (x / np.maximum(y, 1e-140)) @ s.T
    assert (gradient > -1e-3).all()
    assert (np.abs(gradient * c) < 1e-2).all()


def test_the_logarithm_is_numpys() -> None:
    rng = np.random.default_rng(13)
    y = np.concatenate([10.0 ** rng.uniform(-139, 200, 500), 1 + rng.normal(size=523) / 1e4, [1.0]])
    x, room = rng.integers(0, 9, 1024).astype(float), np.empty((2, 1024))
    for i in range(0, 1024, 16):
        part = slice(i, i + 16)
        got = channel_loops.log_likelihood(x[part], y[part].view("i8"), 16, room[0], room[1], room[1].view("i8"))
        terms = x[part] * np.log(y[part])
        assert abs(got - terms.sum()) <= 1e-14 * np.abs(terms).sum() + 1e-16


def lowest(x: Float, s: Float, tau: Float, ridge: Float) -> float:
    """The lowest value, by scipy, of a pixel's divergence with linear and quadratic terms added."""

    def loss(c: Float) -> tuple[float, Float]:
        y = np.maximum(c @ s, 1e-290)
        value = float(divergence(x[None], y[None])[0] + tau @ c + 0.5 * ridge @ c**2)
        return value, s.sum(axis=1) - s @ (x / y) + tau + ridge * c

    start = np.full(len(s), max(float(x.sum()), 1.0))
    return float(optimize.minimize(loss, start, jac=True, bounds=[(0, None)] * len(s), options={"ftol": 1e-14}).fun)


@given(
    seed=seeds, kind=st.sampled_from(KINDS), components=st.integers(1, 6), strength=st.sampled_from([1e-3, 0.1, 3.0])
)
def test_no_abundances_are_better_under_a_prior(seed: int, kind: str, components: int, strength: float) -> None:
    s, x = scene(seed, kind=kind, pixels=4, components=components)
    rng = np.random.default_rng(seed)
    tau, ridge = strength * rng.random(components), strength * rng.random(components) / 10
    for options in ({"tau": tau}, {"ridge": ridge}, {"tau": tau, "ridge": ridge}):
        pixels, sums = poisson.abundances(x, s=s, **options)
        c = pixels["abundances"].astype(np.float64)
        assert (c >= 0).all()
        zero = np.zeros(components)
        linear, square = options.get("tau", zero), options.get("ridge", zero)
        values = divergence(x, c @ s) + c @ linear + 0.5 * c**2 @ square
        want = np.array([lowest(row, s, linear, square) for row in x])
        assert (values <= want + 1e-5 * (1 + x.sum(axis=1))).all()
        total = poisson.objective(sums, s, constant(x), **options)
        assert_allclose(total, values.sum(), rtol=1e-5, atol=1e-5)


def test_priors_of_nothing_change_no_bit() -> None:
    s, x = scene(14)
    want = poisson.update(x, s=s)[1]
    got = poisson.update(x, s=s, tau=np.zeros(3), ridge=np.zeros(3))[1]
    for name, value in want.items():
        assert_array_equal(got[name], value, err_msg=name)
    assert set(got) - set(want) == {"CC"}
    c = poisson.abundances(x, s=s, ridge=np.zeros(3))[0]["abundances"].astype(np.float64)
    assert_allclose(got["CC"], (c**2).sum(axis=0), rtol=1e-5)


def test_an_exponential_prior_empties_a_component() -> None:
    s, x = scene(15)
    found = poisson.abundances(x, s=s, tau=np.array([0.0, 50.0, 0.0]))[0]["abundances"]
    assert not found[:, 1].any()
    assert found[:, [0, 2]].any()


@given(
    seed=seeds,
    kind=st.sampled_from(KINDS),
    components=st.integers(1, 6),
    scale=st.sampled_from([0.3, 1.0, 20.0]),
    prior=st.booleans(),
)
def test_on_the_simplex_nothing_is_better(seed: int, kind: str, components: int, scale: float, prior: bool) -> None:
    s, x = scene(seed, kind=kind, pixels=6, components=components)
    s = s * scale * 40.0 * np.random.default_rng(seed).uniform(0.5, 2.0, (components, 1))
    tau = np.linspace(0, 5, components) if prior else np.zeros(components)
    ridge = np.linspace(0, 3, components) if prior else np.zeros(components)
    options = {"tau": tau, "ridge": ridge} if prior else {}
    c = poisson.abundances(x, s=s, simplex=True, **options)[0]["abundances"].astype(np.float64)
    assert (c >= 0).all()
    assert_allclose(c.sum(axis=1), 1.0, atol=1e-6)

    def values(c: Float) -> Float:
        total: Float = divergence(x, np.maximum(c @ s, 1e-290)) + c @ tau + 0.5 * c**2 @ ridge
        return total

    # A convex function is lowest where moving towards any corner does not lower it.
    here = values(c)
    for corner in np.eye(components):
        for step in (1e-4, 1e-2, 0.3):
            there = values(c + step * (corner - c))
            assert (there >= here - 1e-6 * (1 + x.sum(axis=1))).all()


def test_on_the_simplex_permutations_and_empty_pixels() -> None:
    s, x = scene(16)
    s = s * np.array([[50.0], [80.0], [20.0]])
    want = poisson.abundances(x, s=s, simplex=True)[0]["abundances"]
    order = [2, 0, 1]
    assert_allclose(poisson.abundances(x, s=s[order], simplex=True)[0]["abundances"], want[:, order], atol=1e-5)
    empty = x.sum(axis=1) == 0
    assert_allclose(want[empty], np.eye(3)[[2] * empty.sum()], atol=1e-6)  # the faintest endmember
    s[1] = 0.0  # shade: what is left of a pixel where the other endmembers are too bright
    dark = poisson.abundances(x / 20, s=s, simplex=True)[0]["abundances"].astype(np.float64)
    assert_allclose(dark.sum(axis=1), 1.0, atol=1e-6)
    assert dark[:, 1].mean() > 0.5
    free = solved(x / 20, s)
    inside = free.sum(axis=1) < 0.99
    assert_allclose(dark[inside][:, [0, 2]], free[inside][:, [0, 2]], atol=1e-4)
    assert_allclose(poisson.abundances(x, s=0 * s, simplex=True)[0]["abundances"], 1 / 3, atol=1e-6)


@pytest.mark.parametrize("faint", [1e-8, 8.55e-15, 1e-18, 1e-60, 1e-200])
@pytest.mark.parametrize("brightness", [[2.178, 2.782, 3.856], [2.0, 2.0, 2.0], [3.0, 2.0, 2.0 + 4e-16]])
def test_on_the_simplex_where_the_counts_are_an_endmember_may_be_next_to_nothing(
    faint: float, brightness: list[float]
) -> None:
    x = np.array([[0.0, 1.0]])
    there = np.array([faint, 0.147, 0.252])
    s = np.stack([np.array(brightness) - there, there], axis=1)
    c = poisson.abundances(x, s=s, simplex=True)[0]["abundances"][0].astype(np.float64)
    assert_allclose(c.sum(), 1.0, atol=1e-6)
    values = [float((w @ s).sum() - np.log(w @ there)) for w in (c, *(c + 1e-3 * (np.eye(3) - c)))]
    assert values[0] <= min(values) + 1e-9


def test_on_the_simplex_the_sums_lead_downhill() -> None:
    s, x = scene(17, pixels=80)
    now = s * x.sum(axis=1).mean()
    before = np.inf
    for _ in range(10):
        _, sums = poisson.update(x, s=now, simplex=True)
        assert_allclose(sums["C"].sum(), len(x), rtol=1e-9)
        value = poisson.objective(sums, now, constant(x))
        assert value <= before + 1e-9 * x.sum()
        before = value
        _, now = poisson.improve(sums, now)


@pytest.mark.parametrize("components", [2, 3, 6])
def test_multiplicative_updates_are_those_of_scikit_learn(components: int) -> None:
    s, x = scene(18, pixels=90, components=components)
    x = x[x.sum(axis=1) > 0] + 0.01  # scikit-learn treats zeros otherwise than by the formula
    c = np.random.default_rng(0).random((len(x), components)) + 0.1
    start = s + 0.001
    model = SklearnNMF(components, init="custom", solver="mu", beta_loss="kullback-leibler", max_iter=30, tol=0)
    theirs = model.fit_transform(x, W=c.copy(), H=start.copy())
    now = start
    for _ in range(30):
        pixels, sums = poisson.update_from(x, c, s=now)
        c, now = pixels["c"], poisson.improve_multiplicative(sums, now)
    assert_allclose(c, theirs, rtol=1e-9)
    assert_allclose(now, model.components_, rtol=1e-9)


@given(seed=seeds, dose=st.sampled_from([2.0, 50.0, 1e5]), prior=st.booleans())
def test_multiplicative_updates_never_raise_the_objective(seed: int, dose: float, prior: bool) -> None:
    s, x = scene(seed, dose=dose)
    options = {"tau": np.array([0.0, 0.5, 2.0]), "ridge": np.array([0.1, 0.0, 1.0])} if prior else {}
    c, before = np.full((len(x), 3), dose), np.inf
    for _ in range(8):
        pixels, sums = poisson.update_from(x, c, s=s, **options)
        value = poisson.objective(sums, s, constant(x), **options)
        assert value <= before + 1e-9 * (1 + x.sum())
        c, before, s = pixels["c"], value, poisson.improve_multiplicative(sums, s)
        assert_allclose(sums["C"], c.sum(axis=0))
        assert not c[len(x) // 2].any()  # no counts, no abundances


def test_one_multiplicative_update_leaves_its_arguments_as_they_were() -> None:
    s, x = scene(19)
    c = np.ones((20, 3))
    c.flags.writeable = False
    pixels, sums = poisson.update_from(x.astype("u1"), c, s=s)
    assert_array_equal(c, 1.0)
    y = np.maximum(c @ s, 1e-140)
    assert_allclose(pixels["c"], c * ((x / y) @ s.T) / s.sum(axis=1), rtol=1e-12)
    y = np.maximum(pixels["c"] @ s, 1e-140)
    assert_allclose(sums["N"], (x / y).T @ pixels["c"], rtol=1e-12)
    new = poisson.improve_multiplicative(sums, s)
    assert_allclose(new, s * sums["N"].T / sums["C"][:, None], rtol=1e-12)
    sums["C"][1] = 0.0
    assert_array_equal(poisson.improve_multiplicative(sums, s)[1], s[1])


def test_the_gpu_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    # Costs of counts are compiled for the CPU alone; a silent copy back from the GPU for every block must not happen.
    monkeypatch.setattr(arrays, "resolve_device", lambda device: "cpu" if device == "cpu" else "cuda")
    monkeypatch.setattr(arrays, "to_device", lambda x, device: pytest.fail("something was put on a GPU"))
    cube = hsi.make_cube(np.ones((4, 4, 5), "u1"), energy=np.arange(5.0), energy_units="keV")
    model = hsi.NMF(2, loss="poisson", sparsity=0.1, max_iter=2)
    with pytest.raises(InputError, match=r"NMF with these settings runs on cpu, not on cuda; fit with device='cpu'"):
        hsi.fit(cube, model, device="cuda")
    monkeypatch.setattr(arrays, "to_device", lambda x, device: x if device == "cpu" else pytest.fail("on a GPU"))
    assert hsi.fit(cube, model, device="auto").sizes["component"] == 2
