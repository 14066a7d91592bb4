"""Best B and D at given lengths, also where one map has next to no noise and another one much."""

import numpy as np
import pytest

from scalehsi.kernels.gaussian_process import likelihood, spectral_nodes
from scalehsi.kernels.gaussian_process.posterior import predict
from scalehsi.metrics import similarity
from scalehsi.simulate import maps, sines


@pytest.mark.parametrize(("sigma0", "alpha"), [(0.25, 1.0), (1.0, 2.0), (1.0, 4.0)])
def test_a_map_without_noise_restores_an_equal_map(sigma0: float, alpha: float) -> None:
    """Model 1 of the paper: after a descent that ends some nats too high the third map has a part of its own."""
    scene = sines((32, 32), model=1, sigma0=sigma0, alpha=alpha)
    y, truth = (np.moveaxis(v.values, 0, -1).astype(float) for v in scene)
    mean, _ = predict(y, likelihood.fit([y]))
    assert similarity(mean[..., 0], truth[..., 0]) > 0.9999
    assert similarity(mean[..., 2], truth[..., 2]) > 0.999


@pytest.mark.parametrize("length", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("scene", ["sines", "smooth"])
def test_no_other_start_ends_lower(scene: str, length: float) -> None:
    made = sines((32, 32), model=1, sigma0=0.25) if scene == "sines" else maps((32, 32), noise=0.03)
    y = np.moveaxis(made.maps.values, 0, -1).astype(float)
    tiles, _, _ = likelihood.standardised([y])
    work = likelihood.SeparableLikelihood(tiles, "matern52", 1)
    axes = work.axes((length, length))
    numbers, g, sums = spectral_nodes.group_eigenvalues(np.outer(axes[0].values, axes[1].values), work.rotated(axes))
    value, signal, noise = spectral_nodes.fit_signal_and_noise(numbers, g, sums, rank=1)

    def loss(b: np.ndarray, d: np.ndarray) -> float:
        whole = g[:, None, None] * b + np.diag(d)
        each = np.linalg.slogdet(whole)[1] * numbers + np.einsum("bii->b", np.linalg.solve(whole, sums))
        return float(0.5 * each.sum() + 0.5 * numbers.sum() * 3 * np.log(2 * np.pi))

    assert value == pytest.approx(loss(signal, noise), abs=1e-3)
    # The order of the maps, which is another start, must not change the minimum.
    turn = [2, 0, 1]
    other = spectral_nodes.fit_signal_and_noise(numbers, g, sums[:, turn][:, :, turn], rank=1)[0]
    assert other == pytest.approx(value, abs=0.5)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 0.1):
        factor = np.linalg.cholesky(signal + 1e-12 * np.eye(3))
        for _ in range(10):
            # Nearby matrices of the same kind: other scales of the maps, and other noise.
            scale = np.exp(size * rng.standard_normal(3))
            near = (scale[:, None] * factor) @ (scale[:, None] * factor).T
            assert loss(near, np.maximum(noise * np.exp(size * rng.standard_normal(3)), 1e-6)) > value - 0.05


def test_line_searches_do_not_overflow() -> None:
    """Line searches over the logarithm of the noise once overflowed here; the warning is an error in tests."""
    scene = sines((32, 32), model=1, sigma0=0.25, alpha=1.0, seed=1)
    y = np.moveaxis(scene.maps.values, 0, -1).astype(float)
    found = likelihood.fit([y], bounds=((10.0, 11.0), (10.0, 11.0)))
    assert np.isfinite(found.signal).all()
    np.testing.assert_allclose(found.noise[1:], 0.25, rtol=0.15)
