"""Dirichlet mixture of counts: fixed point and bound against numpy, and the effect of neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from scipy.special import digamma, gammaln

from scalehsi.arrays import Float
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson import mixture, mixture_loops


def spectra(k: int, channels: int, seed: int = 0) -> Float:
    s = np.random.default_rng(seed).gamma(0.5, size=(k, channels)) + 1e-3
    return s / s.sum(axis=1, keepdims=True)


def drawn(pixels: int, s: Float, counts: float = 60.0, seed: int = 0) -> np.ndarray[Any, Any]:
    """Counts of pixels that are mostly pure, and one pixel without any."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(counts * rng.dirichlet(np.full(len(s), 0.2), pixels) @ s)
    x[pixels // 2] = 0
    return x.astype("u2")


# The same in numpy.


def fixed_point(x: Any, s: Float, prior: Any, gamma: Float, steps: int, tol: float) -> Float:
    """``gamma_k = alpha_k + w_k sum_e x_e s_ke / (w s)_e`` for each pixel alone."""
    prior = np.broadcast_to(prior, gamma.shape)
    found = gamma.copy()
    for p in range(len(x)):
        for _ in range(steps if x[p].any() else 0):
            w = np.exp(digamma(found[p]))
            new = prior[p] + w * (s @ (x[p] / (w @ s)))
            change = np.abs(new - found[p]).sum()
            found[p] = new
            if change < tol * (x[p].sum() + prior[p].sum()):
                break
    return found


def first(x: Any, parts: Any, alpha: Any) -> Float:
    """Start of the fixed point: the prior plus the counts, divided in these proportions."""
    part = np.broadcast_to(parts, (len(x), np.shape(parts)[-1])).astype(float)
    return alpha + x.sum(axis=1, keepdims=True) * np.maximum(part / part.sum(axis=1, keepdims=True), 1e-4)


def bound(x: Any, s: Float, alpha: float, gamma: Float) -> float:
    """Variational lower bound of the evidence with optimal fractions of each count (Blei, Ng and Jordan, eq. 15)."""
    k, level = len(s), digamma(gamma) - digamma(gamma.sum(axis=1, keepdims=True))
    counts = np.sum(np.where(x > 0, x * np.log(np.exp(level) @ s), 0.0))
    prior = len(x) * (gammaln(k * alpha) - k * gammaln(alpha)) + ((alpha - 1) * level).sum()
    entropy = gammaln(gamma).sum() - gammaln(gamma.sum(axis=1)).sum() - ((gamma - 1) * level).sum()
    return float(counts + prior + entropy)


def taken(x: Any, s: Float, gamma: Float) -> Float:
    """Counts (E, K) of each channel assigned to each component."""
    w = np.exp(digamma(gamma))
    return np.einsum("pe,pk,ke->ek", x / (w @ s), w, s)


# One pass.


@pytest.mark.parametrize("k", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("alpha", [0.02, 1.5])
def test_a_pass_is_that_of_numpy(k: int, alpha: float) -> None:
    s = spectra(k, 50)
    x = drawn(40, s)
    pixels, sums = mixture.update(x, s=s, alpha=alpha, steps=7)
    gamma = fixed_point(x, s, alpha, first(x, np.ones(k), alpha), 7, 1e-4)
    assert_allclose(pixels["gamma"], gamma, rtol=1e-5)
    assert_allclose(sums["bound"], bound(x, s, alpha, gamma), rtol=1e-9)
    assert_allclose(sums["N"], taken(x, s, gamma), rtol=1e-7, atol=1e-12)
    assert_allclose(sums["N"].sum(), x.sum(), rtol=1e-9)


def test_a_pass_continues_from_the_last_one_or_from_its_fractions() -> None:
    s = spectra(3, 40)
    x = drawn(30, s)
    last = mixture.update(x, s=s, alpha=0.5)[0]["gamma"]
    on = mixture.update(x, last, s=s, alpha=0.5, steps=3, tol=0.0)[0]["gamma"]
    assert_allclose(on, fixed_point(x, s, 0.5, last.astype(float), 3, 0.0), rtol=1e-5)
    again = mixture.update(x, last, s=s, alpha=0.1, restart=True, steps=3, tol=0.0)[0]["gamma"]
    assert_allclose(again, fixed_point(x, s, 0.1, first(x, last, 0.1), 3, 0.0), rtol=1e-5)
    assert not np.allclose(on, again, rtol=0.1)


@given(seed=st.integers(0, 99), k=st.integers(1, 6), alpha=st.floats(0.02, 2.0), counts=st.floats(0.1, 300.0))
def test_the_bound_never_falls(seed: int, k: int, alpha: float, counts: float) -> None:
    s = spectra(k, 30, seed)
    x = drawn(20, s, counts, seed)
    guess, gamma, bounds = spectra(k, 30, seed + 1), None, []
    for _ in range(8):
        pixels, sums = mixture.update(x, gamma, s=guess, alpha=alpha, steps=4)
        gamma, guess = pixels["gamma"], mixture.improve(sums, guess)
        bounds.append(sums["bound"])
        assert_allclose(guess.sum(axis=1), 1.0, rtol=1e-9)
    # The posteriors are stored as float32; without counts the bound is zero apart from rounding.
    assert (np.diff(bounds) >= -1e-7 * np.abs(bounds[:-1]) - 1e-9).all(), bounds


def test_longer_steps_lead_to_the_same_spectra_in_fewer_passes() -> None:
    s = spectra(3, 60)
    x, passes = drawn(400, s, 200.0), {}
    for power in (1.0, 1.8):
        guess, gamma, last = spectra(3, 60, 5), None, -np.inf
        for number in range(1, 400):
            passes[power] = number
            pixels, sums = mixture.update(x, gamma, s=guess, alpha=0.2)
            gamma, guess = pixels["gamma"], mixture.improve(sums, guess, power=power)
            if sums["bound"] - last < 1e-7 * abs(sums["bound"]):
                break
            last = sums["bound"]
    assert passes[1.8] < 0.75 * passes[1.0], passes


def test_spectra_without_counts_stay_unchanged() -> None:
    s = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    sums = {"N": np.array([[3.0, 0.0], [1.0, 0.0], [0.0, 0.0]])}
    assert_allclose(mixture.improve(sums, s), [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]])
    assert_allclose(mixture.improve(sums, s, power=2.0)[0], np.array([0.75**2, 0.25**2, 0]) / (0.75**2 + 0.25**2))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i8", "f8"])
def test_counts_and_dense_blocks_give_the_same_bits(dtype: str) -> None:
    s = spectra(3, 70)
    x = drawn(300, s)
    few, dense = Counts.from_dense(x), x.astype(dtype)
    for got, want in zip(mixture.update(few, s=s, alpha=0.1), mixture.update(dense, s=s, alpha=0.1), strict=True):
        for name in want:
            if name in ("N", "bound"):  # added up in strips of other lengths
                assert_allclose(got[name], want[name], rtol=1e-10)
            else:
                assert_array_equal(got[name], want[name])
    assert_array_equal(mixture.fractions(few, s=s, alpha=0.1), mixture.fractions(dense, s=s, alpha=0.1))


def test_a_pixel_without_counts_has_its_prior() -> None:
    s = spectra(3, 20)
    x = np.zeros((2, 20), dtype="u1")
    pixels, sums = mixture.update(x, s=s, alpha=0.3)
    assert_allclose(pixels["gamma"], 0.3, rtol=1e-6)
    assert (sums["bound"], sums["N"].any()) == (pytest.approx(0.0, abs=1e-9), False)
    assert_allclose(mixture.fractions(x, s=s, alpha=np.array([[1.0, 2.0, 1.0]] * 2)), [[0.25, 0.5, 0.25]] * 2)
    assert mixture.update(x[:0], s=s, alpha=0.3)[0]["gamma"].shape == (0, 3)


def test_zeros_in_a_spectrum_exclude_no_component() -> None:
    s = np.array([[1.0, 0.0], [1.0, 0.0]])
    pixels, sums = mixture.update(np.array([[1, 5]], dtype="u1"), s=s, alpha=1.0)
    assert np.isfinite(sums["bound"])
    assert_allclose(pixels["gamma"], [[4.0, 4.0]], rtol=1e-6)
    filled = mixture.without_zeros(np.array([[4.0, 0.0], [0.0, 1.0]]))
    assert (filled > 0).all()
    assert_allclose(filled.sum(axis=1), 1.0)
    assert_allclose(filled, np.eye(2), atol=1e-3)


# Fractions, and the likelihood of other counts.


def test_fractions_are_the_mean_of_the_posterior() -> None:
    s = spectra(4, 40)
    x = drawn(30, s)
    prior = np.random.default_rng(3).gamma(1.0, size=(30, 4)) + 0.1
    gamma = fixed_point(x, s, prior, first(x, prior, prior), 20, 1e-3)
    assert_allclose(mixture.fractions(x, s=s, alpha=prior), gamma / gamma.sum(axis=1, keepdims=True), rtol=1e-9)


@given(seed=st.integers(0, 99), k=st.integers(1, 6), counts=st.floats(0.1, 200.0))
def test_the_likelihood_of_other_counts_is_that_of_numpy(seed: int, k: int, counts: float) -> None:
    s = mixture.without_zeros(spectra(k, 30, seed))
    x, other = drawn(20, s, counts, seed), drawn(20, s, counts, seed + 1)
    theta = mixture.fractions(x, s=s, alpha=0.1)
    want = np.sum(other * np.log(theta @ s), axis=1)
    assert_allclose(mixture.log_predictive(other, theta, s=s), want, rtol=1e-10, atol=1e-10)
    assert_array_equal(mixture.log_predictive(Counts.from_dense(other), theta, s=s)[len(x) // 2], 0.0)


# Neighbours.


PURE = np.array([1.0, 2.0, 0.5])


def neighbours(x: Any, s: Float, shape: Any, used: Any, alpha: float, neighbour_counts: float, widths: Any) -> Float:
    exact: Any = {"steps": 80, "tol": 2.5e-4}  # the counts of pure pixels differ by a factor of 4
    found = mixture.fractions(x, s=s, alpha=1.0, **exact)
    weight = used.reshape(shape).astype(float)
    for width in widths:
        maps = found / PURE / (found / PURE).sum(axis=1, keepdims=True)
        near = np.empty_like(found)
        for k in range(len(s)):
            blur = [
                gaussian_filter(v, width, mode="constant", radius=math.ceil(3 * width), axes=(-2, -1))
                for v in (maps[:, k].reshape(shape) * weight, weight)
            ]
            near[:, k] = PURE[k] * (blur[0] / np.maximum(blur[1], 1e-12)).reshape(-1)
        few, level = (
            gaussian_filter(v, width, mode="constant", radius=math.ceil(3 * width), axes=(-2, -1))
            for v in (x.sum(axis=1).reshape(shape) * weight, weight)
        )
        pull = neighbour_counts * np.sqrt(few / np.maximum(level, 1e-12)).reshape(-1, 1)
        prior = alpha + pull * near / np.maximum(near.sum(axis=1, keepdims=True), 1e-300)
        found = mixture.fractions(x, s=s, alpha=prior, **exact)
    return found


@pytest.mark.parametrize("shape", [(9, 8), (2, 6, 7)])
def test_neighbours_are_a_prior(shape: tuple[int, ...]) -> None:
    s, used = spectra(3, 40), np.random.default_rng(1).random(math.prod(shape)) < 0.8
    x = drawn(math.prod(shape), s, 10.0)
    given_ = {"s": s, "shape": shape, "used": used, "alpha": 0.02, "neighbours": 1.0, "widths": (1.5, 1.0),
              "pure_counts": PURE}  # fmt: skip
    got = mixture.fractions_with_neighbours(x, **given_)
    assert_allclose(got, neighbours(x, s, shape, used, 0.02, 1.0, (1.5, 1.0)), rtol=1e-9)
    assert_allclose(got.sum(axis=1), 1.0)
    alone = mixture.fractions_with_neighbours(x, **{**given_, "neighbours": 0.0})
    assert_array_equal(alone, mixture.fractions(x, s=s, alpha=0.02, steps=100, tol=2.5e-4))


def test_pixels_that_are_not_used_have_no_effect_on_others() -> None:
    s, used = spectra(2, 30), np.ones((7, 7), dtype=bool)
    x = drawn(49, s, 20.0).reshape(7, 7, 30)
    used[3, 3] = False
    given_ = {
        "s": s,
        "shape": (7, 7),
        "used": used.reshape(-1),
        "alpha": 0.02,
        "neighbours": 4.0,
        "widths": (1.0, 1.0),
        "pure_counts": np.ones(2),
    }
    before = mixture.fractions_with_neighbours(x.reshape(49, 30), **given_)
    x[3, 3] = 50 * (np.arange(30) == 4)
    after = mixture.fractions_with_neighbours(x.reshape(49, 30), **given_)
    assert_array_equal(before[used.reshape(-1)], after[used.reshape(-1)])


@given(
    seed=st.integers(0, 30),
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    top=st.integers(0, 19),
    left=st.integers(0, 19),
    widths=st.lists(st.sampled_from([0.5, 1.0, 1.3]), min_size=1, max_size=2),
)
def test_a_window_with_its_halo_is_the_window_of_the_whole(
    seed: int, rows: int, columns: int, top: int, left: int, widths: list[float]
) -> None:
    s = spectra(3, 20)
    rng = np.random.default_rng(seed)
    x = drawn(400, s, 8.0, seed).reshape(20, 20, 20)
    used = rng.random((20, 20)) < 0.9
    halo = mixture.halo(widths)

    def fractions_of(window: tuple[slice, slice]) -> Float:
        part = x[window]
        return mixture.fractions_with_neighbours(
            part.reshape(-1, 20),
            s=s,
            shape=part.shape[:2],
            used=used[window].reshape(-1),
            alpha=0.05,
            neighbours=3.0,
            widths=widths,
            pure_counts=PURE,
        ).reshape(*part.shape[:2], 3)

    core = slice(top, min(20, top + rows)), slice(left, min(20, left + columns))
    outer = tuple(slice(max(0, c.start - halo), min(20, c.stop + halo)) for c in core)
    inside = tuple(slice(c.start - o.start, c.stop - o.start) for c, o in zip(core, outer, strict=True))
    whole = fractions_of((slice(None), slice(None)))[core]
    # Sums of a Gaussian over zeros outside and over nothing at all differ in the last digit.
    assert_allclose(fractions_of((outer[0], outer[1]))[inside], whole, rtol=1e-6, atol=1e-9)


# The special functions.


def test_special_functions_are_those_of_scipy() -> None:
    x = np.geomspace(0.02, 1e7, 3001)
    logs = np.array([mixture_loops._gamma_logs(v) for v in x])
    assert_allclose(logs[:, 0], gammaln(x), rtol=1e-11, atol=1e-11)
    assert_allclose(logs[:, 1], digamma(x), rtol=1e-9, atol=1e-10)
    assert_allclose([mixture_loops._exp_digamma(v) for v in x], np.exp(digamma(x)), rtol=1e-9)
