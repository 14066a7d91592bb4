"""Kernels of distance: even and odd maps, the likelihood on dense tiles, and fitted hyperparameters."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from scalehsi import InputError
from scalehsi.kernels.gaussian_process import spectral_nodes
from scalehsi.kernels.gaussian_process.fft_kernel import Prior
from scalehsi.kernels.gaussian_process.likelihood import standardised
from scalehsi.kernels.gaussian_process.radial_kernel import (
    DenseLikelihood,
    EvenOddMaps,
    cut_evenly,
    fit,
    is_radial,
    radial_covariance,
)

KERNELS = ["matern12-radial", "matern32-radial", "matern52-radial", "rbf-radial"]
LENGTHS = (2.3, 3.1)


def between(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    return np.subtract.outer(y, y), np.subtract.outer(x, x)


def drawn(shape: tuple[int, int], lengths: tuple[float, float], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two maps with common structure, true and noisy."""
    first, second = Prior("matern52-radial", shape, lengths).draw(np.random.default_rng(seed), 2)[0]
    truth = np.stack([first, 0.8 * first + 0.6 * second], axis=-1)
    return truth, truth + np.array([0.1, 0.4]) * np.random.default_rng(seed + 1).standard_normal(truth.shape)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_at_zero_and_the_derivatives(kernel: str) -> None:
    dy, dx = np.meshgrid(np.linspace(0, 9, 7), np.linspace(-6, 6, 9), indexing="ij")
    value, by_y, by_x = radial_covariance(kernel, dy, dx, LENGTHS)
    assert value.max() == pytest.approx(1.0)
    h = 1e-5
    up, down = (radial_covariance(kernel, dy, dx, (LENGTHS[0] * np.exp(a), LENGTHS[1]))[0] for a in (h, -h))
    np.testing.assert_allclose(by_y, (up - down) / (2 * h), atol=1e-8)
    up, down = (radial_covariance(kernel, dy, dx, (LENGTHS[0], LENGTHS[1] * np.exp(a)))[0] for a in (h, -h))
    np.testing.assert_allclose(by_x, (up - down) / (2 * h), atol=1e-8)


@pytest.mark.parametrize("kernel", ["matern5-radial", "matern52", "periodic(3)-radial", "-radial"])
def test_another_kernel_is_refused(kernel: str) -> None:
    with pytest.raises(InputError, match="no kernel of distance"):
        fit([np.zeros((4, 4, 1))], kernel=kernel)
    assert is_radial(kernel) == (kernel != "matern52")


@pytest.mark.parametrize("shape", [(6, 8), (7, 8), (5, 3), (1, 9), (2, 1), (1, 1)])
def test_even_and_odd_maps_lose_nothing(shape: tuple[int, int]) -> None:
    whole = radial_covariance("matern52-radial", *between(shape), LENGTHS)
    y = np.random.default_rng(0).standard_normal((2, *shape))
    even_odd = EvenOddMaps(shape)
    folded = [even_odd.fold(y, signs) for signs in even_odd.signs]
    assert sum(f.shape[-1] for f in folded) == shape[0] * shape[1]
    for part in range(3):
        blocks = [m[part] for m in even_odd.covariances("matern52-radial", LENGTHS)]
        found = sum(f[0] @ block @ f[1] for f, block in zip(folded, blocks, strict=True))
        assert found == pytest.approx(y[0].ravel() @ whole[part] @ y[1].ravel(), abs=1e-11)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_the_likelihood_is_that_of_the_whole_matrix(missing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral_nodes, "NODE_COUNT", 20000)
    shape = (7, 9)
    _, y = drawn(shape, LENGTHS, 1)
    mask = np.random.default_rng(2).random(shape) >= missing
    found = fit([np.where(mask[..., None], y, np.nan)], [mask], bounds=((2.0, 2.0), (3.0, 3.0)))
    assert found.lengths == (2.0, 3.0)
    keep = mask.ravel()
    k = radial_covariance("matern52-radial", *between(shape), found.lengths)[0][np.ix_(keep, keep)]
    whole = np.kron(k, found.signal) + np.kron(np.eye(len(k)), np.diag(found.noise**2))
    flat = (y - found.mean)[mask].ravel()
    assert found.loss == pytest.approx(-multivariate_normal(cov=whole).logpdf(flat), abs=1e-2)


def test_the_slope_of_the_likelihood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral_nodes, "NODE_COUNT", 20000)
    shape = (12, 11)
    (tile,), *_ = standardised([drawn(shape, (3.0, 4.0), 5)[1]])
    even_odd = EvenOddMaps(shape)
    sets = [even_odd.fold(tile[None], signs) for signs in even_odd.signs]
    work = DenseLikelihood(sets, lambda lengths: even_odd.covariances("matern52-radial", lengths), 1)
    h = 0.02
    up, down = (work.loss((2.5 * np.exp(a), 3.0)) for a in (h, -h))
    left, right = (work.loss((2.5, 3.0 * np.exp(a))) for a in (-h, h))
    numeric = [(up - down) / (2 * h), (right - left) / (2 * h)]
    np.testing.assert_allclose(work.value_and_slope((2.5, 3.0))[1], numeric, rtol=0.02, atol=0.1)


def test_lengths_and_noise_are_found_from_tiles() -> None:
    _, y = drawn((96, 80), (4.0, 6.0), seed=3)
    found = fit([y])
    np.testing.assert_allclose(found.lengths, (4.0, 6.0), rtol=0.15)
    np.testing.assert_allclose(found.noise, [0.1, 0.4], rtol=0.06)
    other = fit([1e4 * y + 7.0])
    np.testing.assert_allclose(other.lengths, found.lengths, rtol=0.02)
    np.testing.assert_allclose(other.noise, 1e4 * found.noise, rtol=0.01)
    assert other.loss - found.loss == pytest.approx(3 * 4 * 24 * 26 * 2 * np.log(1e4), rel=0.1)


def test_lengths_and_noise_are_found_with_half_of_the_pixels_missing() -> None:
    _, y = drawn((60, 60), (4.0, 6.0), seed=6)
    mask = np.random.default_rng(4).random((60, 60)) >= 0.5
    found = fit([np.where(mask[..., None], y, np.nan)], [mask])
    whole = fit([y])
    np.testing.assert_allclose(found.lengths, whole.lengths, rtol=0.15)
    np.testing.assert_allclose(found.noise, [0.1, 0.4], rtol=0.12)
    alike = fit([y], isotropic=True, bounds=((1.0, 2.0), (1.0, 3.0)))
    assert alike.lengths[0] == alike.lengths[1] <= 2.0


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(InputError, match="no pixel was measured"):
        fit([np.zeros((5, 5, 1))], [np.zeros((5, 5), dtype=bool)])


def test_a_constant_map_a_single_row_and_a_single_pixel() -> None:
    y = drawn((1, 40), (3.0, 4.0), seed=5)[1]
    y[..., 0] = 3.0
    for tile in (y, np.ones((1, 1, 2))):
        found = fit([tile])
        assert np.isfinite([found.loss, *found.lengths, *found.noise, *found.signal.ravel()]).all()


def test_equal_parts() -> None:
    parts = cut_evenly(np.arange(59 * 28).reshape(59, 28), 28)
    assert [part.shape for part in parts] == [(19, 28)] * 3
    assert parts[1][0, 0] == 19 * 28
