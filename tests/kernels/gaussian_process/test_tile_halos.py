"""Halos of tiles: wide enough for their tolerance, and infinite where a covariance does not decay."""

import math

import numpy as np
import pytest

from scalehsi.kernels.gaussian_process import tile_halos
from scalehsi.kernels.gaussian_process.covariance import covariance
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.posterior import predict


def scene(kernel, length, noise, shape=(96, 24), seed=0):
    """Draw a map from the model itself."""
    rng = np.random.default_rng(seed)
    roots = []
    for size in shape:
        values, vectors = np.linalg.eigh(covariance(kernel, np.subtract.outer(range(size), range(size)), length)[0])
        roots.append(vectors * np.sqrt(np.maximum(values, 0)))
    truth = roots[0] @ rng.standard_normal(shape) @ roots[1].T
    hyper = Hyper(kernel, (length, length), np.eye(1), np.array([noise]), np.zeros(1), 0.0, np.zeros((0, 2)), 0)
    return (truth + noise * rng.standard_normal(shape))[..., None], hyper


@pytest.mark.parametrize("noise", [0.03, 0.3])
@pytest.mark.parametrize(
    ("kernel", "length"),
    [("matern12", 3.0), ("matern32", 3.0), ("matern52", 3.0), ("rbf", 2.0), ("matern52*periodic(6)", 3.0)],
)
def test_a_tile_with_its_halo_is_the_whole(kernel, length, noise):
    y, hyper = scene(kernel, length, noise)
    halo = int(tile_halos.halo_pixels(kernel, length))
    whole, std = predict(y, hyper)
    core = 32
    tile, tile_std = predict(y[: core + halo], hyper)
    off = np.abs(tile[:core] - whole[:core]) / std[:core]
    assert off.max() <= tile_halos.TOLERANCE
    assert off.mean() <= tile_halos.TOLERANCE / 10
    assert np.abs(tile_std[:core] / std[:core] - 1).max() <= 1e-3
    none, _ = predict(y[:core], hyper)
    assert (np.abs(none - whole[:core]) / std[:core]).max() > 10 * off.max()


def test_a_covariance_that_does_not_decay_has_an_infinite_halo():
    assert math.isinf(tile_halos.halo_pixels("periodic(6)", 4.0))
    assert math.isinf(tile_halos.halo_pixels("matern52+periodic(6)", 4.0))
    assert math.isfinite(tile_halos.halo_pixels("matern52*periodic(6)", 4.0))


@pytest.mark.parametrize("kernel", ["matern12", "matern52", "rbf"])
def test_a_smaller_tolerance_needs_a_wider_halo(kernel):
    halo = tile_halos.halo_pixels
    assert halo(kernel, 5.0, 1e-3) > halo(kernel, 5.0, 1e-2) > halo(kernel, 2.0, 1e-2)
