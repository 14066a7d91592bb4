"""The problem of a pixel with several signals against a general optimiser, and sums against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from scalehsi.kernels.coupled.passes import Signal, abundances, misfit, objective, update
from scalehsi.kernels.pixel_rows.sparse_counts import Counts

K, PIXELS = 3, 24


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    gaussian, counts = 10 * rng.random((K, 20)), 3 * rng.random((K, 30))
    c = 3 * rng.dirichlet(np.full(K, 0.5), PIXELS)
    return gaussian, counts, c @ gaussian + rng.normal(size=(PIXELS, 20)), rng.poisson(c @ counts).astype("u1")


@pytest.mark.parametrize("soft", [False, True])
def test_pixels_are_at_the_optimum_and_sums_give_the_objective(*, soft: bool) -> None:
    s, t, x, n = scene()
    gamma, place = (np.full(K, 3.0), 1) if soft else (None, 0)
    signals = [Signal("edx", t, counts=True), Signal("eels", s, counts=False, phi=1.0, place=place)]
    u = np.ones((PIXELS, 2))
    u[2, 0] = u[3, 1] = 0.0
    u[4, 0] = 0.5
    data, spoilt = np.where(u[:, 1:] > 0, x, np.nan), np.where(u[:, :1] > 0, n, 99).astype("u1")
    pixels, _ = abundances(spoilt, data, u, signals=signals, gamma=gamma)

    def loss(z: np.ndarray, p: int) -> float:
        c, a = z[:K], z[-K:]
        value = 0.5 * u[p, 1] * float(((x[p] - a @ s) ** 2).sum())
        if u[p, 0]:
            y = np.maximum(u[p, 0] * (c @ t), 1e-300)
            value += float((y - n[p] + n[p] * np.log(np.maximum(n[p], 1e-300) / y)).sum())
        return value + (0.5 * 3.0 * float(((a - c) ** 2).sum()) if soft else 0.0)

    total = 0.0
    for p in range(PIXELS):
        size = 2 * K if soft else K
        how: dict[str, Any] = {"method": "L-BFGS-B", "options": {"maxiter": 9999, "ftol": 1e-15, "gtol": 1e-10}}
        best = minimize(loss, np.ones(size), args=(p,), bounds=[(0, None)] * size, **how)
        total += best.fun
        np.testing.assert_allclose(pixels["abundances"][p], best.x[:K], atol=2e-3)
    _, sums = update(spoilt, data, u, signals=signals, gamma=gamma)
    assert objective(sums, signals, gamma) == pytest.approx(total, abs=1e-6)
    _, sparse = update(Counts.from_dense(spoilt), data, u, signals=signals, gamma=gamma)
    np.testing.assert_allclose(sparse["H_edx"], sums["H_edx"], rtol=1e-12)
    assert sums["seen_edx"] == sums["seen_eels"] == PIXELS - 1


def test_two_signals_of_counts_are_one_with_all_channels() -> None:
    _, t, _, n = scene()
    _, whole = update(n, signals=[Signal("a", t, counts=True)])
    parts = [Signal("a", t[:, :11], counts=True), Signal("b", t[:, 11:], counts=True)]
    _, sums = update(n[:, :11], n[:, 11:], signals=parts)
    np.testing.assert_allclose(np.concatenate([sums["H_a"], sums["H_b"]]), whole["H_a"], rtol=1e-9)
    assert objective(sums, parts) == pytest.approx(objective(whole, [Signal("a", t, counts=True)]), rel=1e-12)


def test_the_contrast_is_a_gaussian_signal_around_the_mean() -> None:
    s, t, x, n = scene()
    centre = np.full(K, 0.8)
    signal = Signal("eels", s, counts=False, contrast=0.6, centre=centre)
    pixels, _ = abundances(n, x, signals=[Signal("edx", t, counts=True), signal])
    _, sums = update(n, x, signals=[Signal("edx", t, counts=True), signal])
    c = pixels["abundances"].astype("f8")
    rest = x - (centre + 0.6 * (c - centre)) @ s
    assert misfit(sums, signal) == pytest.approx(0.5 * float((rest**2).sum()), rel=1e-5)
    np.testing.assert_allclose(pixels["deviation_eels"], -0.4 * (c - centre), atol=1e-5)
