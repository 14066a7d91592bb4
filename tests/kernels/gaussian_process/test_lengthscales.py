"""Likelihood of single maps against the formula on the whole matrix, and minima of its curve."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from scalehsi.kernels.gaussian_process import lengthscales
from scalehsi.kernels.gaussian_process.covariance import covariance
from scalehsi.kernels.gaussian_process.lengthscales import (
    BARRIER_NATS,
    Minimum,
    converged_lengths,
    local_minima,
    loss_at,
    recommend,
)
from scalehsi.kernels.gaussian_process.likelihood import fit

pytestmark = pytest.mark.long

SHAPE = (7, 9)


def maps(shape: tuple[int, int] = SHAPE, count: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    roots = [
        np.linalg.cholesky(covariance("matern52", np.subtract.outer(range(n), range(n)), 3.0)[0] + 1e-9 * np.eye(n))
        for n in shape
    ]
    smooth = np.stack([roots[0] @ rng.standard_normal(shape) @ roots[1].T for _ in range(count)], axis=-1)
    y = smooth + np.linspace(0.1, 0.5, count) * rng.standard_normal((*shape, count))
    return y - y.mean(axis=(0, 1))


def dense(values: np.ndarray, mask: np.ndarray, kernel: str, length: float) -> tuple[float, float]:
    """Least loss over signal and noise, and this noise, by a general minimiser on the whole matrix."""
    y, x = np.nonzero(mask)
    dy, dx = np.subtract.outer(y, y), np.subtract.outer(x, x)
    if kernel.endswith("-radial"):
        k = covariance(kernel.removesuffix("-radial"), np.hypot(dy, dx), length)[0]
    else:
        k = covariance(kernel, dy, length)[0] * covariance(kernel, dx, length)[0]
    v = values[mask]

    def loss(logs: np.ndarray) -> float:
        signal, noise = np.exp(logs)
        whole = signal * k + noise * np.eye(len(k))
        return float(0.5 * (np.linalg.slogdet(whole)[1] + v @ np.linalg.solve(whole, v) + len(v) * np.log(2 * np.pi)))

    starts = [np.log([a, b]) for a in (0.1, 1.0) for b in (0.02, 0.3)]
    found = min((minimize(loss, s, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}) for s in starts),
                key=lambda f: f.fun)  # fmt: skip
    return found.fun, float(np.exp(found.x[1] / 2))


@pytest.mark.parametrize("kernel", ["matern52", "rbf", "matern12-radial", "matern52-radial"])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_the_loss_is_the_best_of_the_whole_matrix(kernel: str, missing: float) -> None:
    y = maps()
    mask = np.random.default_rng(1).random(SHAPE) >= missing
    found = loss_at([np.where(mask[..., None], y, np.nan)], [mask], kernel=kernel, length=2.5)
    for k in range(2):
        value, noise = dense(y[..., k], mask, kernel, 2.5)
        assert found.loss[k] == pytest.approx(value, abs=1e-4)
        assert found.noise[k] == pytest.approx(noise, rel=0.01, abs=1e-3)
        v = y[mask][:, k]
        assert found.plain[k] == pytest.approx(0.5 * len(v) * (np.log(2 * np.pi * (v @ v) / len(v)) + 1))


def test_tiles_add_up_and_grouped_eigenvalues_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    y = maps((64, 80))
    mask = np.ones((64, 80), dtype=bool)
    whole = loss_at([y], [mask], kernel="matern52", length=3.0)
    fixed = fit([y[..., :1]], bounds=((3.0, 3.0), (3.0, 3.0)))
    assert whole.loss[0] == pytest.approx(fixed.loss, abs=1.0)
    assert whole.noise[0] == pytest.approx(fixed.noise[0], rel=0.01)
    halves = loss_at([y[:32], y[32:]], [mask[:32], mask[32:]], kernel="matern52", length=3.0)
    assert 0 < halves.loss[0] - whole.loss[0] < 0.1 * abs(whole.loss[0])
    monkeypatch.setattr(lengthscales, "NODE_COUNT", 10**6)
    np.testing.assert_allclose(loss_at([y], [mask], kernel="matern52", length=3.0).loss, whole.loss, atol=0.01)
    # With a missing pixel the whole matrix is used, without nodes.
    small = maps((48, 48))
    hole = np.ones((48, 48), dtype=bool)
    full = loss_at([small], [hole], kernel="matern52", length=3.0).loss
    hole[20, 20] = False
    assert np.abs(loss_at([small], [hole], kernel="matern52", length=3.0).loss - full).max() < 6


def test_a_map_without_structure_has_no_length() -> None:
    losses = [loss_at([np.zeros((8, 8, 1))], [np.ones((8, 8), bool)], kernel="rbf", length=ell) for ell in (1.0, 5.0)]
    assert losses[0].loss == losses[1].loss == losses[0].plain
    assert local_minima(LENGTHS, np.zeros(40)) == []
    # No minimum stops the descent: the result is the limit itself, as for a map that is mostly noise.
    np.testing.assert_array_equal(converged_lengths(LENGTHS, np.zeros(40), np.array([2.0, 24.0]), low=0.5), [2.0, 24.0])


LENGTHS = np.geomspace(0.5, 24, 40)


def two_minima(barrier: float = 20.0) -> np.ndarray:
    t = np.log(LENGTHS)
    return np.minimum(100 * (t - np.log(2.2)) ** 2, 40 * (t - np.log(12.3)) ** 2 + barrier)


def test_two_minima_and_where_a_descent_ends() -> None:
    found = local_minima(LENGTHS, two_minima())
    np.testing.assert_allclose([one.length for one in found], [2.2, 12.3], rtol=1e-3)
    np.testing.assert_allclose([one.loss for one in found], [0.0, 20.0], atol=0.1)
    limits = np.array([1.5, 2.0, 2.5, 3.0, 6.0, 11.0, 12.0, 16.0, 24.0])
    np.testing.assert_allclose(
        converged_lengths(LENGTHS, two_minima(), limits, low=0.5),
        [1.5, 2.0, 2.2, 2.2, 2.2, 11.0, 12.0, 12.3, 12.3],
        rtol=1e-3,
    )


def test_uneven_steps_give_the_same_vertex() -> None:
    t = np.sort(np.random.default_rng(0).uniform(np.log(0.5), np.log(24), 60))
    (minimum,) = local_minima(np.exp(t), (t - np.log(4.0)) ** 2 * 100)
    assert minimum.length == pytest.approx(4.0, rel=1e-6)
    assert minimum.loss == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 3.0))
def test_converged_lengths_are_low_places_of_any_curve(seed: int, rough: float) -> None:
    losses = np.cumsum(rough * np.random.default_rng(seed).standard_normal(40))
    limits = np.array([1.2, 2.0, 3.0, 7.0, 15.0, 24.0])
    minima = local_minima(LENGTHS, losses)
    assert all(a.length < b.length for a, b in pairwise(minima))
    for limit, end in zip(limits, converged_lengths(LENGTHS, losses, limits, low=0.5), strict=True):
        assert 0.5 <= end <= limit
        start = int(np.argmin(np.abs(LENGTHS - 0.5 * (0.5 + limit))))
        near = int(np.argmin(np.abs(np.log(LENGTHS / end))))
        assert losses[near] <= losses[start] + BARRIER_NATS + 3 * rough  # a vertex lies between steps
    shifted = local_minima(LENGTHS, losses + 1e3)
    np.testing.assert_allclose([one.length for one in shifted], [one.length for one in minima], rtol=1e-6)


def test_the_interval_is_around_the_finest_structure_that_is_clear() -> None:
    minima = [[Minimum(2.0, -90.0), Minimum(12.0, -99.0)], [Minimum(2.4, -50.0)], [Minimum(1.0, -2.0)], []]
    assert recommend(minima, np.zeros(4), low=0.5) == pytest.approx((2.0 / 3, 3.0))
    assert recommend(minima, np.zeros(4), low=0.8) == pytest.approx((0.8, 3.0))
    assert recommend(minima[2:], np.zeros(2), low=0.5) is None
