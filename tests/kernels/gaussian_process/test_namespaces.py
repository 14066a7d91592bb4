"""Predictions in other array libraries and on other devices, against those of numpy."""

from importlib.util import find_spec
from typing import Any

import array_api_compat
import array_api_strict
import numpy as np
import pytest

from scalehsi.arrays import to_host
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.missing_pixels import deviation, draw, fill
from scalehsi.kernels.gaussian_process.posterior import backend_of, filter_on, predict

SHAPE = (11, 14)
FACTOR = np.array([[1.0], [0.7], [0.2]])
KNOWN = Hyper(
    "matern52", (2.5, 3.5), FACTOR @ FACTOR.T + np.diag([0.05, 0.2, 0.1]), np.array([0.1, 0.3, 0.2]),
    np.array([2.0, -1.0, 0.5]), 0.0, np.empty((0, 2)), 0,
)  # fmt: skip


def strict(values: np.ndarray) -> Any:
    # A device that is not the default refuses numpy's functions and arrays of other devices, as a GPU does.
    return array_api_strict.asarray(values, device=array_api_strict.Device("device1"))


def torch(values: np.ndarray) -> Any:
    return pytest.importorskip("torch").asarray(values)


def torch_cuda(values: np.ndarray) -> Any:
    return pytest.importorskip("torch").asarray(values, device="cuda")


def cupy(values: np.ndarray) -> Any:
    return pytest.importorskip("cupy").asarray(values)


LIBRARIES = [
    strict,
    pytest.param(torch, marks=pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")),
    pytest.param(torch_cuda, marks=pytest.mark.gpu),
    pytest.param(cupy, marks=pytest.mark.gpu),
]


def measured() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((*SHAPE, 3)) + KNOWN.mean, rng.random(SHAPE) >= 0.4


def same_place(one: Any, other: Any) -> bool:
    device = array_api_compat.device
    return type(one) is type(other) and device(one) == device(other)


@pytest.mark.parametrize("there", LIBRARIES)
@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("kernel", ["matern52", "rbf"])
def test_mean_and_deviation(there: Any, upsample: int, kernel: str) -> None:
    y, _ = measured()
    hyper = Hyper(kernel, *(getattr(KNOWN, name) for name in list(KNOWN.__dataclass_fields__)[1:]))
    expected = predict(y, hyper, upsample=upsample)
    found = predict(there(y), hyper, upsample=upsample)
    for a, b in zip(found, expected, strict=True):
        assert same_place(a, there(y))
        np.testing.assert_allclose(to_host(a), b, rtol=1e-10, atol=1e-10)
    single = predict(there(y.astype(np.float32)), hyper, upsample=upsample, dtype=np.float32)
    for a, b in zip(single, expected, strict=True):
        assert to_host(a).dtype == np.float32
        np.testing.assert_allclose(to_host(a), b, rtol=1e-4, atol=1e-3 * expected[1].min())


@pytest.mark.parametrize("there", LIBRARIES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_missing_pixels(there: Any, dtype: Any) -> None:
    y, observed = measured()
    broken = np.where(observed[..., None], y, np.nan)
    expected = fill(broken, observed, KNOWN)
    found = fill(there(broken), there(observed), KNOWN, dtype=dtype)
    assert same_place(found.maps, there(y))
    assert found.residual <= 1e-5
    assert abs(found.steps - expected.steps) <= (0 if dtype == np.float64 else 2)
    off = 1e-9 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(to_host(found.maps), expected.maps, atol=off)
    whole = fill(there(y), there(np.ones(SHAPE, dtype=bool)), KNOWN)
    np.testing.assert_array_equal(to_host(whole.maps), y)


@pytest.mark.parametrize("there", LIBRARIES)
@pytest.mark.parametrize("upsample", [1, 2])
def test_draws_and_deviations_are_the_same_numbers(there: Any, upsample: int) -> None:
    y, observed = measured()
    expected = draw(y, observed, KNOWN, count=5, seed=3, upsample=upsample)
    found = draw(there(y), there(observed), KNOWN, count=5, seed=3, upsample=upsample)
    assert same_place(found, there(y))
    np.testing.assert_allclose(to_host(found), expected, atol=1e-7)
    for method in ("draws", "density"):
        expected = deviation(SHAPE, observed, KNOWN, method=method, count=5, seed=3, upsample=upsample)
        found = deviation(SHAPE, there(observed), KNOWN, method=method, count=5, seed=3, upsample=upsample)
        assert same_place(found, there(y))
        np.testing.assert_allclose(to_host(found), expected, atol=1e-7)


def test_filters_are_cached_on_their_device() -> None:
    there = strict(np.ones(3))
    keys = ("matern52", 6, 2.0, 1, "float64")
    one = filter_on(backend_of(there), *keys)
    assert filter_on(backend_of(strict(np.zeros(1))), *keys) is one
    assert filter_on(backend_of(np.ones(3)), *keys) is not one
    assert same_place(one.vectors, there)
