"""Likelihood, mean and deviation of complete maps against the dense formulas on the whole covariance matrix."""

import numpy as np
import pytest

from scalehsi import InputError
from scalehsi.kernels.gaussian_process import likelihood, spectral_nodes
from scalehsi.kernels.gaussian_process.covariance import covariance, cross_covariance
from scalehsi.kernels.gaussian_process.likelihood import Hyper, fit
from scalehsi.kernels.gaussian_process.posterior import predict

SHAPE, MAPS = (7, 9), 3
LENGTHS = (2.3, 3.1)


def along(kernel: str, size: int, length: float) -> np.ndarray:
    return covariance(kernel, np.subtract.outer(np.arange(size), np.arange(size)), length)[0]


def drawn(kernel: str = "matern52", seed: int = 0) -> tuple[np.ndarray, Hyper]:
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((MAPS, 1))
    signal, noise = factor @ factor.T + np.diag([0.1, 0.2, 0.3]), np.array([0.05, 0.1, 0.2])
    k = np.kron(along(kernel, SHAPE[0], LENGTHS[0]), along(kernel, SHAPE[1], LENGTHS[1]))
    whole = np.kron(k, signal) + np.kron(np.eye(len(k)), np.diag(noise))
    y = np.linalg.cholesky(whole) @ rng.standard_normal(len(whole))
    mean = np.array([1.5, -2.0, 0.0])
    return y.reshape(*SHAPE, MAPS) + mean, Hyper(
        kernel, LENGTHS, signal, np.sqrt(noise), mean, 0.0, np.empty((0, 2)), 0
    )


@pytest.mark.parametrize("kernel", ["matern52", "rbf", "matern32*periodic(4)"])
@pytest.mark.parametrize("upsample", [1, 2, 3])
def test_mean_and_deviation_are_those_of_the_dense_formulas(kernel: str, upsample: int) -> None:
    y, hyper = drawn(kernel)
    k = np.kron(along(kernel, SHAPE[0], LENGTHS[0]), along(kernel, SHAPE[1], LENGTHS[1]))
    whole = np.kron(k, hyper.signal) + np.kron(np.eye(len(k)), np.diag(hyper.noise**2))
    cross = np.kron(
        np.kron(
            cross_covariance(kernel, SHAPE[0], LENGTHS[0], upsample),
            cross_covariance(kernel, SHAPE[1], LENGTHS[1], upsample),
        ),
        hyper.signal,
    )
    gain = np.linalg.solve(whole, cross.T).T
    mean = (gain @ (y - hyper.mean).ravel()).reshape(SHAPE[0] * upsample, SHAPE[1] * upsample, MAPS) + hyper.mean
    variance = np.tile(np.diag(hyper.signal), len(cross) // MAPS) - np.einsum("ij,ij->i", gain, cross)
    found, deviation = predict(y, hyper, upsample=upsample)
    np.testing.assert_allclose(found, mean, atol=1e-9)
    np.testing.assert_allclose(deviation.ravel(), np.sqrt(variance), rtol=1e-5)
    single = predict(y, hyper, upsample=upsample, dtype=np.float32)
    assert single[0].dtype == np.float32
    np.testing.assert_allclose(single[0], mean, atol=1e-3 * deviation.min())
    np.testing.assert_allclose(single[1], deviation, rtol=1e-4)


@pytest.mark.parametrize(("count", "off"), [(200, 0.3), (20000, 1e-3)])
def test_the_likelihood_is_that_of_the_whole_matrix(count: int, off: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral_nodes, "NODE_COUNT", count)
    y, _ = drawn()
    tile = np.moveaxis(y - y.mean(axis=(0, 1)), -1, 0)
    work = likelihood.SeparableLikelihood([tile], "matern52", 1)
    value = work.loss(LENGTHS)
    signal, noise = work.signal_and_noise(LENGTHS)
    flat = np.moveaxis(tile, 0, -1).ravel()

    def dense(lengths: tuple[float, float]) -> float:
        k = np.kron(along("matern52", SHAPE[0], lengths[0]), along("matern52", SHAPE[1], lengths[1]))
        whole = np.kron(k, signal) + np.kron(np.eye(len(k)), np.diag(noise))
        size = flat.size * np.log(2 * np.pi)
        return float(0.5 * (np.linalg.slogdet(whole)[1] + flat @ np.linalg.solve(whole, flat) + size))

    assert value == pytest.approx(dense(LENGTHS), abs=off)
    # B and D are at their best, so that the derivative by the lengths is that with B and D fixed.
    y_up, y_down, x_up, x_down = (
        dense((LENGTHS[0] * np.exp(a), LENGTHS[1] * np.exp(b)))
        for a, b in ((1e-4, 0), (-1e-4, 0), (0, 1e-4), (0, -1e-4))
    )
    numeric = [(y_up - y_down) / 2e-4, (x_up - x_down) / 2e-4]
    np.testing.assert_allclose(work.value_and_slope(LENGTHS)[1], numeric, rtol=1e-5)


def draw(shape: tuple[int, int], lengths: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two maps with common structure, true and noisy."""
    rng = np.random.default_rng(seed)
    rows, columns = (
        np.linalg.cholesky(along("matern52", n, ell) + 1e-9 * np.eye(n)) for n, ell in zip(shape, lengths, strict=True)
    )
    first, second = (rows @ rng.standard_normal(shape) @ columns.T for _ in range(2))
    truth = np.stack([first, 0.8 * first + 0.6 * second], axis=-1)
    return truth, truth + np.array([0.1, 0.4]) * rng.standard_normal(truth.shape)


def test_lengths_and_noise_are_found() -> None:
    truth, y = draw((48, 40), (4.0, 6.0), seed=3)
    found = fit([y])
    np.testing.assert_allclose(found.lengths, (4.0, 6.0), rtol=0.25)
    np.testing.assert_allclose(found.noise, [0.1, 0.4], rtol=0.12)
    mean, deviation = predict(y, found)
    assert np.corrcoef(mean[..., 1].ravel(), truth[..., 1].ravel())[0, 1] > 0.98
    assert 0.92 < (np.abs(mean - truth) < 1.96 * deviation).mean() < 0.98


def test_a_fit_to_tiles_is_close_to_that_of_the_whole() -> None:
    _, y = draw((64, 64), (4.0, 5.0), seed=1)
    whole, parts = fit([y]), fit([y[:32, :32], y[32:, 32:], y[:32, 32:]])
    np.testing.assert_allclose(parts.lengths, whole.lengths, rtol=0.3)
    np.testing.assert_allclose(parts.noise, whole.noise, rtol=0.2)


def test_bounds_hold_and_units_do_not_matter() -> None:
    _, y = draw((32, 32), (4.0, 4.0), seed=2)
    limited = fit([y], bounds=((1.0, 2.0), (1.0, 1.5)))
    assert 1.0 <= limited.lengths[0] <= 2.0
    assert 1.0 <= limited.lengths[1] <= 1.5
    fixed = fit([y], bounds=((2.0, 2.0), (3.0, 3.0)))
    assert fixed.lengths == (2.0, 3.0)
    with pytest.raises(InputError, match="no length is within both"):
        fit([y], bounds=((1.0, 2.0), (3.0, 4.0)), isotropic=True)
    alike = fit([y], isotropic=True)
    assert alike.lengths[0] == alike.lengths[1]
    one, other = fit([y]), fit([1e4 * y + 7.0])
    np.testing.assert_allclose(other.lengths, one.lengths, rtol=0.02)
    np.testing.assert_allclose(other.noise, 1e4 * one.noise, rtol=0.01)


def test_a_constant_map_and_a_single_row() -> None:
    _, y = draw((1, 40), (3.0, 4.0), seed=5)
    y[..., 0] = 3.0
    found = fit([y])
    mean, deviation = predict(y, found)
    assert np.isfinite(mean).all()
    assert np.isfinite(deviation).all()
    np.testing.assert_allclose(mean[..., 0], 3.0, atol=1e-2)
