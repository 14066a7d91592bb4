"""Maps with missing pixels against the dense formulas on the measured pixels."""

import numpy as np
import pytest

from scalehsi import InputError
from scalehsi.kernels.gaussian_process.covariance import covariance, cross_covariance
from scalehsi.kernels.gaussian_process.likelihood import Hyper, fit
from scalehsi.kernels.gaussian_process.missing_fit import fit_missing
from scalehsi.kernels.gaussian_process.missing_pixels import deviation, draw, fill
from scalehsi.kernels.gaussian_process.posterior import predict

SHAPE = (8, 9)
FACTOR = np.array([[1.0], [0.7]])
KNOWN = Hyper(
    "matern52", (2.5, 3.5), FACTOR @ FACTOR.T + np.diag([0.05, 0.2]), np.array([0.1, 0.3]), np.array([2.0, -1.0]), 0.0,
    np.empty((0, 2)), 0,
)  # fmt: skip


def along(size: int, length: float) -> np.ndarray:
    return covariance("matern52", np.subtract.outer(np.arange(size), np.arange(size)), length)[0]


def measured(shape: tuple[int, int] = SHAPE, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows, columns = (
        np.linalg.cholesky(along(n, ell) + 1e-10 * np.eye(n)) for n, ell in zip(shape, KNOWN.lengths, strict=True)
    )
    raw = rows @ rng.standard_normal((2, *shape)) @ columns.T
    truth = np.einsum("uhw,tu->hwt", raw, np.linalg.cholesky(KNOWN.signal)) + KNOWN.mean
    return truth, truth + KNOWN.noise * rng.standard_normal(truth.shape)


def dense(y: np.ndarray, observed: np.ndarray, upsample: int) -> tuple[np.ndarray, np.ndarray]:
    k = np.kron(np.kron(along(SHAPE[0], 2.5), along(SHAPE[1], 3.5)), KNOWN.signal)
    keep = np.repeat(observed.ravel(), 2)
    whole = (k + np.kron(np.eye(observed.size), np.diag(KNOWN.noise**2)))[np.ix_(keep, keep)]
    cross = np.kron(
        np.kron(
            cross_covariance("matern52", SHAPE[0], 2.5, upsample), cross_covariance("matern52", SHAPE[1], 3.5, upsample)
        ),
        KNOWN.signal,
    )[:, keep]
    gain = np.linalg.solve(whole, cross.T).T
    mean = gain @ (y - KNOWN.mean).ravel()[keep]
    variance = np.tile(np.diag(KNOWN.signal), len(cross) // 2) - np.einsum("ij,ij->i", gain, cross)
    shape = (SHAPE[0] * upsample, SHAPE[1] * upsample, 2)
    return mean.reshape(shape) + KNOWN.mean, np.sqrt(variance).reshape(shape)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.8])
@pytest.mark.parametrize("upsample", [1, 2])
def test_the_mean_is_that_of_the_observed_pixels_alone(share: float, upsample: int) -> None:
    _, y = measured()
    observed = np.random.default_rng(1).random(SHAPE) >= share
    broken = np.where(observed[..., None], y, np.nan)
    filled = fill(broken, observed, KNOWN)
    assert filled.residual <= 1e-5
    mean, deviation = dense(y, observed, upsample)
    found, _ = predict(filled.maps, KNOWN, upsample=upsample)
    assert (np.abs(found - mean) / deviation).max() < 0.01


def test_nothing_missing_costs_nothing() -> None:
    _, y = measured()
    filled = fill(y, np.ones(SHAPE, dtype=bool), KNOWN)
    assert filled.steps == 0
    np.testing.assert_array_equal(filled.maps, y)


@pytest.mark.parametrize("upsample", [1, 2, 3])
def test_draws_have_the_mean_and_the_deviation_of_the_posterior(upsample: int) -> None:
    _, y = measured()
    observed = np.random.default_rng(2).random(SHAPE) >= 0.4
    mean, deviation = dense(y, observed, upsample)
    drawn = draw(y, observed, KNOWN, count=400, seed=0, upsample=upsample)
    assert (np.abs(drawn.mean(axis=0) - mean) / deviation).max() < 5 / np.sqrt(400)
    np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.25)
    assert drawn.std(axis=0).mean() == pytest.approx(deviation.mean(), rel=0.03)


@pytest.mark.parametrize("upsample", [1, 2])
def test_the_deviation_alone(upsample: int) -> None:
    _, y = measured()
    observed = np.random.default_rng(2).random(SHAPE) >= 0.4
    expected = dense(y, observed, upsample)[1]
    drawn = deviation(SHAPE, observed, KNOWN, method="draws", count=400, seed=0, upsample=upsample)
    error = drawn / expected - 1
    assert abs(error.mean()) < 0.02
    assert np.sqrt((error**2).mean()) < 1.3 / np.sqrt(800)
    again = deviation(SHAPE, observed, KNOWN, method="draws", count=400, seed=0, upsample=upsample)
    np.testing.assert_array_equal(drawn, again)


@pytest.mark.parametrize(("share", "off"), [(0.0, 1e-5), (0.05, 0.05), (0.3, 0.12)])
@pytest.mark.parametrize("upsample", [1, 2, 3])
def test_the_deviation_by_density(share: float, off: float, upsample: int) -> None:
    _, y = measured()
    observed = np.random.default_rng(5).random(SHAPE) >= share
    expected = dense(y, observed, upsample)[1]
    quick = deviation(SHAPE, observed, KNOWN, method="density", upsample=upsample)
    error = quick / expected - 1
    assert np.sqrt((error**2).mean()) < off
    if share:
        complete = predict(y, KNOWN, upsample=upsample)[1]
        assert np.sqrt((error**2).mean()) < 0.5 * np.sqrt(((complete / expected - 1) ** 2).mean())


def test_auto_chooses_the_method_by_the_missing_pixels() -> None:
    shape, rng = (30, 32), np.random.default_rng(0)
    few, half, hole = (rng.random(shape) >= share for share in (0.02, 0.5, 0.02))
    hole[10:20, 10:20] = False
    for observed, method in ((few, "density"), (half, "draws"), (hole, "draws"), (np.zeros(shape, bool), "draws")):
        chosen = deviation(shape, observed, KNOWN, count=3)
        np.testing.assert_array_equal(chosen, deviation(shape, observed, KNOWN, method=method, count=3))
    complete = deviation(shape, np.ones(shape, dtype=bool), KNOWN, method="draws", count=2)
    np.testing.assert_allclose(complete, predict(np.zeros((*shape, 2)), KNOWN)[1], rtol=1e-6)


def test_nothing_measured_leaves_the_prior() -> None:
    nothing = np.zeros(SHAPE, dtype=bool)
    filled = fill(np.full((*SHAPE, 2), np.nan), nothing, KNOWN)
    np.testing.assert_allclose(filled.maps, np.broadcast_to(KNOWN.mean, (*SHAPE, 2)))
    expected = np.broadcast_to(np.sqrt(np.diag(KNOWN.signal)), (*SHAPE, 2))
    np.testing.assert_allclose(deviation(SHAPE, nothing, KNOWN, method="density"), expected, rtol=0.03)
    np.testing.assert_allclose(deviation(SHAPE, nothing, KNOWN, count=400), expected, rtol=0.2)


def test_unknown_methods_and_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match="method='drawn' is not known; did you mean 'draws'"):
        deviation(SHAPE, np.ones(SHAPE, dtype=bool), KNOWN, method="drawn")
    with pytest.raises(InputError, match=r"observed has shape \(3, 3\)"):
        deviation(SHAPE, np.ones((3, 3), dtype=bool), KNOWN)


def test_hyperparameters_are_found_with_half_of_the_pixels_missing() -> None:
    truth, y = measured((40, 40), seed=3)
    observed = np.random.default_rng(4).random((40, 40)) >= 0.5
    found = fit_missing([np.where(observed[..., None], y, np.nan)], [observed], rounds=6)
    whole = fit([y])
    np.testing.assert_allclose(found.lengths, whole.lengths, rtol=0.35)
    np.testing.assert_allclose(found.noise, KNOWN.noise, rtol=0.35)
    mean, _ = predict(fill(y, observed, found).maps, found)
    assert np.corrcoef(mean[~observed, 0], truth[~observed, 0])[0, 1] > 0.9
