"""Mean and deviation for a kernel of distance against the dense formulas on the whole covariance matrix."""

import numpy as np
import pytest

from scalehsi.kernels.gaussian_process import radial_variance
from scalehsi.kernels.gaussian_process.fft_kernel import FFTCovariance, Prior
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.posterior import decoupled
from scalehsi.kernels.gaussian_process.radial_kernel import radial_covariance
from scalehsi.kernels.gaussian_process.radial_solver import Solved, solve

pytestmark = pytest.mark.long

FACTOR = np.array([[1.0], [0.7]])


def known(kernel: str = "matern52-radial", noise: tuple[float, float] = (0.1, 0.3)) -> Hyper:
    signal = FACTOR @ FACTOR.T + np.diag([0.05, 0.2])
    return Hyper(kernel, (2.5, 3.5), signal, np.array(noise), np.array([2.0, -1.0]), 0.0, np.empty((0, 2)), 0)


def places(shape: tuple[int, int], upsample: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = ((np.arange(n * upsample) + 0.5) / upsample - 0.5 for n in shape)
    return np.repeat(y, len(x)), np.tile(x, len(y))


def dense(y: np.ndarray, observed: np.ndarray, hyper: Hyper, upsample: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.nonzero(observed)
    k = radial_covariance(
        hyper.kernel, np.subtract.outer(rows, rows), np.subtract.outer(columns, columns), hyper.lengths
    )[0]
    whole = np.kron(k, hyper.signal) + np.kron(np.eye(len(k)), np.diag(hyper.noise**2))
    py, px = places(observed.shape, upsample)
    cross = radial_covariance(hyper.kernel, np.subtract.outer(py, rows), np.subtract.outer(px, columns), hyper.lengths)[
        0
    ]
    cross = np.kron(cross, hyper.signal)
    gain = np.linalg.solve(whole, cross.T).T
    mean = gain @ (y - hyper.mean)[observed].ravel()
    variance = np.tile(np.diag(hyper.signal), len(py)) - np.einsum("ij,ij->i", gain, cross)
    shape = (observed.shape[0] * upsample, observed.shape[1] * upsample, 2)
    return mean.reshape(shape) + hyper.mean, np.sqrt(variance).reshape(shape)


@pytest.mark.parametrize("kernel", ["matern12-radial", "matern32-radial", "matern52-radial", "rbf-radial"])
@pytest.mark.parametrize("missing", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("upsample", [1, 2, 3])
@pytest.mark.parametrize("shape", [(11, 14), (9, 8), (1, 12)])
def test_mean_and_deviation_are_those_of_the_dense_formulas(
    kernel: str, missing: float, upsample: int, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    y, observed = rng.standard_normal((*shape, 2)), rng.random(shape) >= missing
    mean, deviation = dense(y, observed, known(kernel), upsample)
    broken = np.where(observed[..., None], y, np.nan)
    found = solve(broken, observed, known(kernel), upsample=upsample, tolerance=1e-12)
    assert found.residual <= 1e-12
    np.testing.assert_allclose(found.mean, mean, atol=1e-10)
    np.testing.assert_allclose(found.std, deviation, rtol=1e-6)
    loose = solve(broken, observed, known(kernel), upsample=upsample)
    assert (np.abs(loose.mean - mean) / deviation).max() < 0.01
    assert loose.steps < found.steps or loose.steps <= 4


@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("noise", [(0.03, 0.3), (1.0, 0.3)])
def test_the_deviation_of_a_large_map_from_a_patch(upsample: int, noise: tuple[float, float]) -> None:
    hyper = known(noise=noise)
    s, *_ = decoupled(hyper)
    shape = (44, 60)
    patch = radial_variance.exact_variance(hyper, np.ones(shape, dtype=bool), s, upsample=upsample)
    whole = radial_variance.patch_variance(hyper, shape, s, upsample)
    assert patch is not None
    assert patch.shape == (2, 44 * upsample, 60 * upsample)
    np.testing.assert_allclose(np.sqrt(patch), np.sqrt(whole), rtol=1e-4)


def test_no_patch_where_lengths_are_too_long() -> None:
    long = Hyper("rbf-radial", (60.0, 60.0), np.eye(1), np.ones(1), np.zeros(1), 0.0, np.empty((0, 2)), 0)
    assert radial_variance.exact_variance(long, np.ones((130, 130), dtype=bool), np.ones(1), upsample=1) is None
    y = np.random.default_rng(0).standard_normal((130, 130, 1))
    found = solve(y, None, long, draws=4)
    assert found.std is not None
    # The deviation is about one over the square root of the number of pixels within some lengths.
    assert 0.003 < found.std.mean() < 0.1


@pytest.mark.parametrize("upsample", [1, 2, 3])
def test_draws_have_the_deviation_of_the_posterior(upsample: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    y, observed = rng.standard_normal((9, 8, 2)), rng.random((9, 8)) >= 0.4
    exact = solve(y, observed, known(), upsample=upsample)
    monkeypatch.setattr(radial_variance, "MAX_DENSE_PIXELS", 0)
    assert solve(y, observed, known(), upsample=upsample).std is None
    found = solve(y, observed, known(), upsample=upsample, draws=120, seed=1)
    again = solve(y, observed, known(), upsample=upsample, draws=120, seed=1)
    np.testing.assert_array_equal(found.std, again.std)
    error = found.std / exact.std - 1
    assert abs(error.mean()) < 0.03
    assert np.sqrt((error**2).mean()) < 1.4 / np.sqrt(240)


@pytest.mark.parametrize("upsample", [1, 2, 3])
def test_the_prior_has_its_covariance(upsample: int) -> None:
    shape, lengths = (4, 5), (1.2, 0.8)
    prior = Prior("matern52-radial", shape, lengths, upsample=upsample)
    assert abs(prior.negative) < 1e-9
    pixels, points = (f.reshape(len(f), -1) for f in prior.draw(np.random.default_rng(0), 1500))
    (py, px), (qy, qx) = places(shape, 1), places(shape, upsample)
    for left, right, (ay, ax), (by, bx) in (
        (pixels, pixels, (py, px), (py, px)),
        (pixels, points, (py, px), (qy, qx)),
    ):
        expected = radial_covariance("matern52-radial", np.subtract.outer(ay, by), np.subtract.outer(ax, bx), lengths)[
            0
        ]
        np.testing.assert_allclose(left.T @ right / 1500, expected, atol=5 / np.sqrt(1500))


def test_a_prior_on_a_periodic_grid_that_is_too_small_says_so() -> None:
    small = Prior("rbf-radial", (16, 16), (12.0, 12.0), largest=1)
    assert small.negative > 1e-5
    wide = Prior("rbf-radial", (16, 16), (12.0, 12.0))
    assert abs(wide.negative) < 1e-6
    fields = small.draw(np.random.default_rng(0), 400)[0]
    assert fields.var() == pytest.approx(1.0, rel=0.2)


def test_products_are_exact_on_a_periodic_grid_shorter_than_twice_the_grid() -> None:
    shape, lengths = (90, 3), (2.0, 0.8)
    fft = FFTCovariance("matern52-radial", shape, lengths, (0.25, -0.4))
    assert fft.sizes[0] < 2 * shape[0] - 1
    y, x = places(shape, 1)
    k = radial_covariance("matern52-radial", np.subtract.outer(y + 0.25, y), np.subtract.outer(x - 0.4, x), lengths)[0]
    v = np.random.default_rng(0).standard_normal(shape)
    np.testing.assert_allclose(fft.product(v).ravel(), k @ v.ravel(), atol=1e-11)


def test_nothing_measured_leaves_the_prior() -> None:
    found = solve(np.full((5, 6, 2), np.nan), np.zeros((5, 6), dtype=bool), known(), upsample=2)
    assert isinstance(found, Solved)
    np.testing.assert_allclose(found.mean, np.broadcast_to(known().mean, (10, 12, 2)))
    np.testing.assert_allclose(found.std, np.broadcast_to(np.sqrt(np.diag(known().signal)), (10, 12, 2)))


def test_a_map_without_signal() -> None:
    silent = Hyper(
        "matern52-radial", (2.0, 2.0), np.diag([1.0, 0.0]), np.ones(2), np.zeros(2), 0.0, np.empty((0, 2)), 0
    )
    found = solve(np.ones((6, 6, 2)), None, silent)
    np.testing.assert_array_equal(found.mean[..., 1], 0.0)
    np.testing.assert_allclose(found.std[..., 1], 0.0, atol=1e-12)
