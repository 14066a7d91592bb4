"""Tests of moments, scores and Malinowski's indicator against numpy's singular values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scalehsi import arrays
from scalehsi.arrays import Float
from scalehsi.kernels.subspace import moments

seeds = st.integers(0, 10_000)
DTYPES = ["u1", ">u2", "i4", "f4", "f8"]


def counts(seed: int = 0, *, pixels: int = 300, channels: int = 12, rank: int = 3) -> Float:
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.random((pixels, rank)) @ (20 * rng.random((rank, channels)))).clip(0, 255).astype(np.float64)
    x[pixels // 2] = 0.0
    x[:, channels // 2] = 0.0
    return x


def weights(x: Float, *, weigh_pixels: bool) -> Float:
    mean = x.mean(axis=1)
    return np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > 0) if weigh_pixels else np.ones(len(x))


@pytest.mark.parametrize("weigh_pixels", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_are_those_of_numpy_for_any_dtype(dtype: str, weigh_pixels: bool) -> None:
    x = counts()
    v = weights(x, weigh_pixels=weigh_pixels)
    probe = np.random.default_rng(1).standard_normal((12, 4))
    pixels, sums = moments.moments(x.astype(dtype), weigh_pixels=weigh_pixels)
    assert pixels == {}
    want = {
        "moment": (x * v[:, None]).T @ x,
        "spectrum": x.sum(axis=0),
        "weighted_spectrum": (x * v[:, None]).sum(axis=0),
        "weight": v.sum(),
        "power": (v[:, None] * x**2).sum(axis=0),
        "pixels": 300,
    }
    assert set(sums) == set(want)
    for name, value in want.items():
        assert_allclose(sums[name], value, rtol=1e-5, err_msg=name)
    _, sketch = moments.moments(x.astype(dtype), weigh_pixels=weigh_pixels, probe=probe)
    assert_allclose(sketch["moment"], want["moment"] @ probe, rtol=1e-4, atol=1e-5 * np.abs(want["moment"]).max())


@given(seed=seeds, cut=st.integers(1, 299), sketched=st.booleans())
def test_moments_over_two_blocks_are_those_over_one(seed: int, cut: int, sketched: bool) -> None:
    x = counts(seed)
    probe = np.random.default_rng(seed).standard_normal((12, 3)) if sketched else None
    _, whole = moments.moments(x, weigh_pixels=True, probe=probe)
    halves = [moments.moments(part, weigh_pixels=True, probe=probe)[1] for part in (x[:cut], x[cut:])]
    for name, value in whole.items():
        assert_allclose(halves[0][name] + halves[1][name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("dtype", "value"), [("u1", 255), ("u2", 65535), ("u4", 2**32 - 1), ("i2", -32768)])
def test_the_largest_counts_do_not_overflow(dtype: str, value: int) -> None:
    _, sums = moments.moments(np.full((600, 5), value, dtype=dtype), weigh_pixels=False)
    assert_allclose(sums["moment"], 600.0 * float(value) ** 2, rtol=1e-6)
    assert_allclose(sums["spectrum"], 600.0 * value, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_are_those_of_the_singular_value_decomposition(dtype: str) -> None:
    x = counts()
    offset = x.mean(axis=0)
    u, sigma, vt = np.linalg.svd(x - offset, full_matrices=False)
    pixels, sums = moments.scores(x.astype(dtype), loadings=vt[:3].T, offset=offset, basis=vt[:3])
    assert pixels["abundances"].dtype == np.float32
    assert_allclose(pixels["abundances"], u[:, :3] * sigma[:3], rtol=1e-4, atol=1e-4)
    rest = x - offset - (u[:, :3] * sigma[:3]) @ vt[:3]
    assert_allclose(pixels["residual"], np.sqrt((rest**2).mean(axis=1)), rtol=1e-3, atol=1e-4)
    assert_allclose(sums["residual_spectrum"], rest.sum(axis=0), atol=1e-2)


def test_without_residual_only_scores_are_returned() -> None:
    x = counts()
    pixels, sums = moments.scores(
        x, loadings=np.eye(12)[:, :2], offset=np.zeros(12), basis=np.eye(12)[:2], residual=False
    )
    assert (set(pixels), sums) == ({"abundances"}, {})
    assert_array_equal(pixels["abundances"], x[:, :2].astype("f4"))


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (300, 1)])
def test_one_pixel_and_one_channel(shape: tuple[int, int]) -> None:
    x = np.full(shape, 2, "u1")
    _, sums = moments.moments(x, weigh_pixels=True)
    assert_allclose(sums["moment"], np.full((shape[1], shape[1]), 2.0 * shape[0]))
    pixels, _ = moments.scores(x, loadings=np.eye(shape[1]), offset=np.zeros(shape[1]), basis=np.eye(shape[1]))
    assert_array_equal(pixels["abundances"], x)
    assert not pixels["residual"].any()


def test_a_block_of_zeros_gives_zeros() -> None:
    _, sums = moments.moments(np.zeros((30, 5), "u1"), weigh_pixels=True)
    assert not np.any(sums["moment"])
    assert sums["weight"] == 0.0


@pytest.mark.parametrize("dtype", ["u1", "f8"])
def test_every_library_and_device_returns_the_same_and_keeps_its_arguments(dtype: str, put: Any) -> None:
    x = counts(pixels=600).astype(dtype)
    rng = np.random.default_rng(2)
    given_ = {
        "probe": rng.standard_normal((12, 4)),
        "loadings": rng.standard_normal((12, 3)),
        "offset": rng.random(12),
        "basis": rng.standard_normal((3, 12)),
    }
    here = {k: put(v) for k, v in given_.items()}
    block = put(x)

    def run(x: Any, probe: Any, **kwargs: Any) -> list[dict[str, Any]]:
        sums = [moments.moments(x, weigh_pixels=weigh, probe=p)[1] for weigh in (False, True) for p in (None, probe)]
        return [*sums, *moments.scores(x, **kwargs)]

    for expected, got in zip(run(x, **given_), run(block, **here), strict=True):
        assert set(expected) == set(got)
        for name, value in expected.items():
            assert_allclose(
                arrays.to_host(got[name]) if hasattr(got[name], "shape") else got[name],
                value,
                rtol=1e-4,
                atol=1e-5 * np.abs(value).max(),
            )
    assert_array_equal(arrays.to_host(block), x)
    for name, value in given_.items():
        assert_array_equal(arrays.to_host(here[name]), value)


@given(seed=seeds, pixels=st.integers(2, 60), channels=st.integers(2, 30))
def test_malinowskis_indicator_is_that_of_his_paper(seed: int, pixels: int, channels: int) -> None:
    x = np.random.default_rng(seed).standard_normal((pixels, channels))
    values = np.linalg.svd(x, compute_uv=False) ** 2
    r, c = max(pixels, channels), min(pixels, channels)
    want = [np.sqrt(values[n:].sum() / (r * (c - n))) / (c - n) ** 2 for n in range(1, c)]
    padded = np.append(values, np.zeros(channels - c))  # the moment matrix has as many eigenvalues as channels
    assert_allclose(moments.malinowski(padded, pixels=pixels, channels=channels), want, rtol=1e-6, atol=1e-15)
    few = np.append(values[: c // 2 + 1], values[c // 2 + 1 :].sum())  # of a sketch: the last is the sum of the others
    found = moments.malinowski(few, pixels=pixels, channels=channels)
    assert_allclose(found, want[: len(found)], rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_malinowskis_indicator_is_lowest_at_the_number_of_phases(rank: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((400, rank)) @ rng.random((rank, 40)) + 0.01 * rng.standard_normal((400, 40))
    values = np.linalg.eigvalsh(x.T @ x)[::-1]
    assert moments.malinowski(values, pixels=400, channels=40)[:20].argmin() + 1 == rank


def test_malinowskis_indicator_stays_finite_for_rounding_below_zero() -> None:
    assert np.isfinite(moments.malinowski(np.array([3.0, 1.0, -1e-12]), pixels=9, channels=3)).all()
    assert moments.malinowski(np.array([3.0]), pixels=9, channels=1).size == 0
