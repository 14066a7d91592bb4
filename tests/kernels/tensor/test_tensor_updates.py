"""Host updates of tensor models against plain numpy: they are the best factors for the sums of a pass."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from scalehsi.arrays import Float
from scalehsi.kernels import least_squares
from scalehsi.kernels.tensor import polyadic, tucker
from scalehsi.kernels.tensor.products import contracted, mode_products, outer

SIZES = (5, 3, 7)


def scene(*, signed: bool = False, noise: float = 0.0, k: int = 3) -> tuple[Float, Float, list[Float]]:
    """Pixels (P, n_1 n_2 n_3), abundances (P, K) and unit factors (K, n_i)."""
    rng = np.random.default_rng(0)
    draw = rng.standard_normal if signed else rng.random
    factors = [polyadic.unit_rows(np.asarray(draw((k, n)))) for n in SIZES]
    c = np.asarray(draw((40, k)))
    x = c @ outer(factors)
    return x + noise * rng.standard_normal(x.shape), c, factors


def sums(x: Float, factors: list[Float], *, signed: bool) -> tuple[Float, Float]:
    found = least_squares.update(x, s=outer(factors), signed=signed)[1]
    return found["N"].reshape(-1, *SIZES), found["M"]


def test_products_are_those_of_einsum() -> None:
    x, _, (a, b, s) = scene()
    np.testing.assert_allclose(outer([a, b, s]), np.einsum("ka,kb,ke->kabe", a, b, s).reshape(3, -1))
    z = x[:3].reshape(3, *SIZES)
    np.testing.assert_allclose(contracted(z, [a, b, s], 1), np.einsum("kabe,ka,ke->kb", z, a, s))
    np.testing.assert_allclose(mode_products(z, [a, None, s]), np.einsum("kabe,ia,je->kibj", z, a, s))


def test_signed_abundances_are_those_of_plain_least_squares() -> None:
    x, _, factors = scene(signed=True, noise=0.1)
    found = least_squares.abundances(x, s=outer(factors), signed=True)[0]["abundances"]
    np.testing.assert_allclose(found, np.linalg.lstsq(outer(factors).T, x.T, rcond=None)[0].T, rtol=2e-5, atol=1e-6)
    assert found.min() < 0


@pytest.mark.parametrize("signed", [False, True])
def test_the_factors_are_the_best_for_the_abundances_of_the_pass(signed: bool) -> None:
    """No step of a general minimiser from there lowers the objective, and the truth is a fixed point."""
    x, c, truth = scene(signed=signed, noise=0.05)
    z, m = (c.T @ x).reshape(-1, *SIZES), c.T @ c
    start = [np.abs(f + 0.02) if not signed else f + 0.02 for f in truth]
    found = polyadic.improve(z, m, start, signed=signed)
    splits = np.cumsum([f.size for f in found])[:-1]

    def value(flat: Float) -> float:
        rows = outer([part.reshape(3, -1) for part in np.split(flat, splits)])
        return float(0.5 * np.sum(m * (rows @ rows.T)) - np.sum(z.reshape(3, -1) * rows))

    flat = np.concatenate([f.reshape(-1) for f in found])
    bounds = None if signed else [(0, None)] * len(flat)
    other = optimize.minimize(value, flat, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500})
    assert value(flat) <= other.fun + 1e-6 * abs(other.fun)
    clean, _, exact = scene(signed=signed)
    again = polyadic.improve(*sums(clean, exact, signed=signed), exact, signed=signed)
    for a, b in zip(again, exact, strict=True):
        np.testing.assert_allclose(polyadic.unit_rows(a), b, atol=1e-5)


def test_core_consistency_is_100_for_the_truth_and_falls_with_a_component_too_many() -> None:
    x, _, factors = scene(noise=1e-3)
    assert polyadic.corcondia(*sums(x, factors, signed=True), factors) > 97
    rng = np.random.default_rng(1)
    doubled = [polyadic.unit_rows(np.vstack([f, f[:1] + 0.1 * rng.random((1, f.shape[1]))])) for f in factors]
    assert polyadic.corcondia(*sums(x, doubled, signed=True), doubled) < 50
    assert polyadic.corcondia(np.zeros((2, *SIZES)), np.zeros((2, 2)), [f[:2] for f in factors]) == -100


def test_orthogonal_iteration_finds_a_tensor_of_low_rank() -> None:
    rng = np.random.default_rng(2)
    ranks = (2, 2, 3)
    factors = [np.linalg.qr(rng.standard_normal((n, r)))[0].T for n, r in zip(SIZES, ranks, strict=True)]
    x = rng.standard_normal((40, 4)) @ tucker.spectra(rng.standard_normal((4, *ranks)), factors)
    v = np.linalg.svd(x, full_matrices=False)[2][:4]
    q = x @ v.T
    start = [np.linalg.qr(rng.standard_normal((n, r)))[0].T for n, r in zip(SIZES, ranks, strict=True)]
    core, found = tucker.orthogonal((q.T @ x).reshape(4, *SIZES), q.T @ q, start)
    np.testing.assert_allclose((core**2).sum(), (x**2).sum())
    rows = tucker.spectra(tucker.orthonormal(core), found)
    np.testing.assert_allclose(rows @ rows.T, np.eye(4), atol=1e-10)
    np.testing.assert_allclose(x @ rows.T @ rows, x, atol=1e-8)
    flat = tucker.orthonormal(np.concatenate([core[:3], 0 * core[:1]]))
    np.testing.assert_allclose(flat.reshape(4, -1) @ flat.reshape(4, -1).T, np.eye(4), atol=1e-10)


def test_large_modes_give_the_same_directions_as_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(3).standard_normal((30, 50)) * 0.9 ** np.arange(30)[:, None]
    dense = tucker.leading(matrix, 3)
    monkeypatch.setattr(tucker, "DENSE_SIZE", 5)
    np.testing.assert_allclose(np.abs(tucker.leading(matrix, 3) @ dense.T), np.eye(3), atol=1e-8)
    np.testing.assert_allclose(
        np.abs(tucker.leading(matrix[:, :10], 3) @ tucker.leading(matrix[:, :10], 3).T), np.eye(3), atol=1e-8
    )


def test_non_negative_rounds_lower_the_objective_to_the_truth() -> None:
    rng = np.random.default_rng(4)
    ranks, c = (2, 2, 3), rng.random((40, 3))
    truth = [rng.random((r, n)) for r, n in zip(ranks, SIZES, strict=True)]
    x = c @ tucker.spectra(rng.random((3, *ranks)), truth)
    z, m = (c.T @ x).reshape(-1, *SIZES), c.T @ c

    def value(core: Float, factors: list[Float]) -> float:
        rows = tucker.spectra(core, factors)
        return float(0.5 * (x**2).sum() + 0.5 * np.sum(m * (rows @ rows.T)) - np.sum(z.reshape(3, -1) * rows))

    core, factors = rng.random((3, *ranks)), [rng.random(f.shape) for f in truth]
    values = [value(core, factors)]
    for _ in range(30):
        core, factors = tucker.non_negative(z, m, core, factors)
        values.append(value(core, factors))
    assert np.all(np.diff(values) <= 1e-9 * values[0])
    assert values[-1] < 1e-4 * 0.5 * (x**2).sum()
    assert min(core.min(), *(f.min() for f in factors)) >= 0
    np.testing.assert_array_equal(tucker.non_negative(0 * z, 0 * m, core, factors)[0], core)
