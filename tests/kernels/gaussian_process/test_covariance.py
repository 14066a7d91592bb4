"""Covariances along an axis: derivatives, eigenvectors, and points between the pixels."""

import numpy as np
import pytest

from scalehsi import InputError
from scalehsi.kernels.gaussian_process.covariance import covariance, cross_covariance, decompose_axis, parse

KERNELS = ["matern12", "matern32", "matern52", "rbf", "periodic(6)", "matern52*periodic(6)", "rbf+matern12*periodic(4)"]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("length", [0.7, 3.0, 11.0])
def test_one_at_zero_and_the_derivative(kernel: str, length: float) -> None:
    d = np.linspace(0, 20, 41)
    value, slope = covariance(kernel, d, length)
    assert value[0] == pytest.approx(1.0)
    assert (np.abs(value) <= 1 + 1e-12).all()
    h = 1e-5
    up, down = (covariance(kernel, d, length * np.exp(sign * h))[0] for sign in (1, -1))
    np.testing.assert_allclose(slope, (up - down) / (2 * h), atol=1e-8)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 33])
@pytest.mark.parametrize("kernel", ["matern52", "rbf", "matern12*periodic(3)"])
def test_eigenvectors_from_the_even_and_odd_halves(kernel: str, size: int) -> None:
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    k, change = covariance(kernel, distance, 2.5)
    found = decompose_axis(kernel, size, 2.5)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(found.vectors * found.values @ found.vectors.T, k, atol=1e-7)
    np.testing.assert_allclose(found.vectors @ found.slope @ found.vectors.T, change, atol=1e-10)
    assert (np.diff(found.values) <= 0).all()


def test_the_upsampled_grid_has_the_same_centre() -> None:
    fine = cross_covariance("rbf", 5, 2.0, 3)
    assert fine.shape == (15, 5)
    np.testing.assert_allclose(fine[1::3], covariance("rbf", np.subtract.outer(range(5), range(5)), 2.0)[0], atol=1e-12)
    np.testing.assert_allclose(fine, fine[::-1, ::-1], atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "words"),
    [("matern5", "matern52"), ("periodic", "period in pixels"), ("rbf(3)", "nothing else"), ("", "not known")],
)
def test_an_unknown_kernel_is_refused(kernel: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse(kernel)
