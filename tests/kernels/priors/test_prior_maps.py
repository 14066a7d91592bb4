"""Abundances with prior maps against independent solvers, and the estimated weights of prior maps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize, nnls

from scalehsi.kernels.priors import prior_maps

RNG = np.random.default_rng(3)
S = RNG.random((3, 20)) * np.array([[40.0], [25.0], [10.0]]) + 0.2
C = RNG.gamma(2.0, 0.6, (60, 3))
X = RNG.poisson(C @ S).astype("u2")
WEIGHT = np.array([0.3, 2.0, 0.7])


def test_counts_with_a_gamma_prior_are_at_the_maximum():
    prior = C * RNG.gamma(20, 1 / 20, C.shape)
    found = prior_maps.abundances_of_counts(X, prior, s=S, weight=WEIGHT)
    dose = WEIGHT * S.sum(axis=1)
    for x, m, c in zip(X[:8].astype(float), prior[:8], found[:8].astype(float), strict=True):

        def loss(v, x=x, m=m):
            model = v @ S
            return model.sum() - x @ np.log(model) + (dose * v).sum() - (dose * m) @ np.log(v)

        best = minimize(loss, np.full(3, 1.0), bounds=[(1e-9, None)] * 3, method="L-BFGS-B", options={"ftol": 1e-15})
        assert loss(np.maximum(c, 1e-9)) <= best.fun + 1e-4 * abs(best.fun)
        np.testing.assert_allclose(c, best.x, rtol=0.02, atol=0.01)


def test_values_with_a_gaussian_prior_are_nnls_with_more_rows():
    prior = C + RNG.normal(0, 0.2, C.shape)
    found = prior_maps.abundances_of_intensities(X.astype("f4"), prior, s=S, weight=WEIGHT)
    more = np.sqrt(WEIGHT * np.square(S).sum(axis=1))
    for x, m, c in zip(X[:10], prior, found, strict=False):
        want = nnls(np.vstack([S.T, np.diag(more)]), np.concatenate([x, more * m]))[0]
        np.testing.assert_allclose(c, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solve", [prior_maps.abundances_of_counts, prior_maps.abundances_of_intensities])
def test_pixels_without_a_prior_are_solved_alone(solve):
    prior = C.copy()
    prior[5:9] = np.nan
    mixed = solve(X, prior, s=S, weight=WEIGHT)
    np.testing.assert_allclose(mixed[5:9], solve(X[5:9], None, s=S), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixed[:5], solve(X[:5], prior[:5], s=S, weight=WEIGHT), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("solve", [prior_maps.abundances_of_counts, prior_maps.abundances_of_intensities])
def test_strips_do_not_change_the_result(solve):
    many = np.tile(X, (40, 1))
    prior = np.tile(C, (40, 1))
    assert len(many) > 2 * prior_maps.STRIP_PIXELS
    np.testing.assert_array_equal(
        solve(many, prior, s=S, weight=WEIGHT), np.tile(solve(X, prior[:60], s=S, weight=WEIGHT), (40, 1))
    )


def test_unmixing_is_unbiased():
    weight = 1.0 / (C @ S).mean(axis=0)
    np.testing.assert_allclose((C @ S) @ prior_maps.unmixing_matrix(S, weight), C, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_the_weight_of_a_prior_follows_its_error(spread):
    rng = np.random.default_rng(0)
    c = rng.gamma(4.0, 0.5, (20_000, 2))
    s = np.array([[300.0, 100.0, 5.0], [5.0, 100.0, 300.0]])
    x = rng.poisson(c @ s).astype(float)
    prior = np.maximum(c + rng.normal(0, spread, c.shape), 0)
    weight, misfit = prior_maps.weights_of_counts(x, prior, s=s)
    np.testing.assert_allclose(misfit, spread**2, atol=2e-3)
    if spread:
        np.testing.assert_allclose(weight, prior.mean(axis=0) / (spread**2 * s.sum(axis=1)), rtol=0.05)
    else:
        assert (weight > 1).all()


def test_the_noise_of_intensities_is_estimated_from_their_residual():
    rng = np.random.default_rng(1)
    c = rng.random((20_000, 3))
    x = c @ S + rng.normal(0, 0.5, (20_000, 20))
    weight, misfit = prior_maps.weights_of_intensities(x, c + rng.normal(0, 0.2, c.shape), s=S)
    np.testing.assert_allclose(misfit, 0.04, rtol=0.1)
    np.testing.assert_allclose(weight, 0.25 / np.square(S).sum(axis=1) / 0.04, rtol=0.1)
