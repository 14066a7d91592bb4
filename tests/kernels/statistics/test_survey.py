"""Survey of a cube: sums, bad values, and a sample that does not depend on the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from scalehsi import arrays
from scalehsi.kernels.statistics.survey import in_sample, splitmix64, survey

seeds = st.integers(0, 10_000)


def data(seed: int = 0, *, pixels: int = 600, channels: int = 7) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(seed).poisson(2.0, (pixels, channels)).astype(np.float64)
    x[pixels // 2] = 0.0
    return x


def look(x: Any, **kwargs: Any) -> dict[str, Any]:
    pixels, sums = survey(x, **{"index": np.arange(x.shape[0]), "stride": 10, "seed": 0, **kwargs})
    assert pixels == {}
    return sums


def entropy(x: np.ndarray[Any, Any]) -> float:
    positive = x[np.isfinite(x) & (x > 0)]
    return float((positive * np.log(positive) - positive).sum())


@pytest.mark.parametrize("dtype", ["u1", ">u2", "i4", "f2", "f4", "f8"])
def test_sums_are_those_of_numpy_for_any_dtype(dtype: str) -> None:
    x = data()
    sums = look(x.astype(dtype))
    assert sums["pixels"] == 600
    assert_array_equal(sums["spectrum"], x.sum(axis=0))
    assert (sums["negative"], sums["bad"], sums["empty"]) == (0, 0, 1 + int((x[:300].sum(1) == 0).sum()))
    assert_allclose(sums["norm"], (x**2).sum(), rtol=1e-6)
    assert_allclose(sums["entropy"], entropy(x), rtol=1e-5)


def test_bad_and_negative_values_are_counted_and_left_out_of_the_sums() -> None:
    x = data().astype("f4")
    x[3, 2], x[400, 0], x[401, 1], x[5, 5], x[6, 6] = np.nan, np.inf, -np.inf, -2.0, -3.0
    sums = look(x)
    assert (sums["bad"], sums["negative"]) == (3, 2)
    clean = np.where(np.isfinite(x), x, 0).astype(np.float64)
    assert_allclose(sums["spectrum"], clean.sum(axis=0), rtol=1e-6)
    assert_allclose(sums["entropy"], entropy(x), rtol=1e-5)
    assert np.isfinite(sums["norm"])


@pytest.mark.parametrize(("dtype", "value"), [("u1", 255), ("u2", 65535), ("u4", 2**32 - 1), ("i2", -32768)])
def test_the_largest_counts_do_not_overflow(dtype: str, value: int) -> None:
    sums = look(np.full((600, 5), value, dtype=dtype))
    assert_allclose(sums["spectrum"], 600.0 * value, rtol=1e-6)
    assert_allclose(sums["norm"], 3000.0 * float(value) ** 2, rtol=1e-6)
    assert sums["negative"] == (3000 if value < 0 else 0)


def test_without_entropy_the_other_sums_are_unchanged() -> None:
    with_it, without = look(data()), look(data(), entropy=False)
    assert without.pop("entropy") == 0.0
    assert with_it.pop("entropy") != 0.0
    assert {k: v for k, v in without.items() if np.ndim(v) == 0} == {
        k: v for k, v in with_it.items() if np.ndim(v) == 0
    }


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (300, 1)])
def test_one_pixel_and_one_channel(shape: tuple[int, int]) -> None:
    sums = look(np.full(shape, 3, "u1"), stride=1)
    assert_array_equal(sums["spectrum"], np.full(shape[1], 3.0 * shape[0]))
    assert_array_equal(np.concatenate(sums["sample"]), np.full(shape, 3))


@given(seed=seeds, cut=st.integers(1, 599), stride=st.integers(1, 80))
def test_two_blocks_give_the_sums_and_the_sample_of_one(seed: int, cut: int, stride: int) -> None:
    x, index = data(seed), np.arange(600)
    whole = look(x, stride=stride, seed=seed)
    parts = [look(x[i], index=index[i], stride=stride, seed=seed) for i in (slice(cut), slice(cut, None))]
    for name in ("pixels", "spectrum", "negative", "bad", "norm", "entropy", "empty"):
        assert_allclose(parts[0][name] + parts[1][name], whole[name], rtol=1e-9)
    for name in ("sample", "sample_index"):
        assert_array_equal(np.concatenate(parts[0][name] + parts[1][name]), np.concatenate(whole[name]))


def test_the_sample_holds_the_rows_of_its_numbers_in_their_own_dtype() -> None:
    x = data().astype("u2")
    index = np.arange(10**12, 10**12 + 600)  # numbers beyond 32 bits: cubes are that large
    sums = look(x, index=index)
    (rows,), (numbers,) = sums["sample"], sums["sample_index"]
    assert rows.dtype == np.uint16
    assert_array_equal(rows, x[numbers - 10**12])
    assert 55 <= len(rows) <= 65


def test_a_block_without_a_sampled_pixel_adds_nothing_to_the_sample() -> None:
    outside = np.flatnonzero(~in_sample(np.arange(100), stride=50, seed=0))
    sums = look(data(pixels=len(outside)), index=outside, stride=50)
    assert (sums["sample"], sums["sample_index"]) == ([], [])


@given(seed=seeds, stride=st.integers(1, 300))
def test_one_pixel_of_every_stride_is_in_the_sample(seed: int, stride: int) -> None:
    chosen = in_sample(np.arange(20 * stride), stride=stride, seed=seed)
    assert_array_equal(chosen.reshape(20, stride).sum(axis=1), 1)


def test_sampled_places_are_spread_and_depend_on_the_seed() -> None:
    places = [in_sample(np.arange(64_000), stride=64, seed=seed).reshape(-1, 64).argmax(axis=1) for seed in (0, 1)]
    # A regular stride would always take the same place, and with it the same column of a scan 64 pixels wide.
    for place in places:
        counts = np.bincount(place, minlength=64)
        assert ((counts - 1000 / 64) ** 2 / (1000 / 64)).sum() < 110  # chi square of 63 degrees of freedom, p = 2e-4
    assert (places[0] == places[1]).mean() < 0.05


def test_numbers_are_those_of_splitmix64() -> None:
    # The first outputs of the published generator for the seeds 0 and 1234567.
    assert splitmix64(np.array([0]), 0).tolist() == [0xE220A8397B1DCDAF]
    gamma = 0x9E3779B97F4A7C15
    start = np.array([1234567 + i * gamma for i in range(3)], dtype=object) % 2**64
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(start.astype(np.uint64), 0).tolist() == expected


def test_every_library_and_device_gives_the_same_and_leaves_its_arguments(put: Any) -> None:
    x = data().astype("f4")
    block = put(x)
    want, found = look(x), look(block)
    assert_array_equal(arrays.to_host(block), x)
    for name, value in want.items():
        if name.startswith("sample"):
            assert_array_equal(np.concatenate(found[name]), np.concatenate(value))
        else:
            assert_allclose(found[name], value, rtol=1e-6)
