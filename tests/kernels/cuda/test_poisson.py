"""Poisson passes for a GPU against those of the CPU: on a GPU if there is one, and always on the stand-in."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from scalehsi import arrays
from scalehsi.kernels import cuda, poisson
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.schema import InputError
from tests.cuda_cases import SUMS_OF, assert_close, scene


@pytest.mark.parametrize(
    ("pixels", "channels", "components", "level"),
    [
        (1, 1, 1, 20),
        (60, 1, 1, 20),
        (150, 70, 3, 20),
        (200, 300, 4, 0.3),
        (90, 200, 6, 5),
        (40, 64, 12, 20),
        (20, 48, 20, 9),
    ],
)
def test_poisson_gives_the_sums_of_the_cpu(
    cupy: Any, pixels: int, channels: int, components: int, level: float
) -> None:
    x, s = scene(pixels, channels, components, level=level)
    if pixels == 1:
        x[:] = 7
    _, found = cuda.poisson_update(Counts.from_dense(x.astype("u1")), s=s)
    _, wanted = poisson.update(x, s=s)
    assert_close(found, wanted, SUMS_OF["poisson"], rtol=2e-6)
    assert_allclose(found["likelihood"], wanted["likelihood"], rtol=1e-7)


@pytest.mark.parametrize("dtype", ["u2", "f4", "i8"])
def test_poisson_gives_the_sums_of_the_cpu_for_any_dtype(cupy: Any, dtype: str) -> None:
    x, s = scene(60, 70, 3)
    if dtype == "f4":
        x *= 0.75
    counts = Counts.from_dense(x.astype("u1" if dtype == "i8" else dtype))
    given = Counts(counts.indptr, counts.channel, counts.value.astype(dtype), counts.n_channels)
    assert_close(cuda.poisson_update(given, s=s)[1], poisson.update(x, s=s)[1], SUMS_OF["poisson"], rtol=2e-6)


def test_poisson_takes_channel_numbers_of_four_bytes(cupy: Any) -> None:
    x, s = scene(50, 90, 2)
    narrow = Counts.from_dense(x.astype("u1"))
    counts = Counts(narrow.indptr, narrow.channel.astype(np.int32), narrow.value, narrow.n_channels)
    assert_close(cuda.poisson_update(counts, s=s)[1], poisson.update(x, s=s)[1], SUMS_OF["poisson"], rtol=2e-6)


def test_channels_of_many_pieces_are_added_up(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("scalehsi.kernels.cuda.poisson"), "COUNTS_PER_PIECE", 150)
    rng = np.random.default_rng(3)
    x, s = rng.poisson(2.0, (700, 3)).astype(np.float64), rng.random((2, 3)) + 0.1
    counts = cuda.counts_to_device(Counts.from_dense(x.astype("u1")))
    assert counts.shape == (700, 3)
    assert len(counts.pieces[1]) == 3 * 4
    assert_close(cuda.poisson_update(counts, s=s)[1], poisson.update(x, s=s)[1], SUMS_OF["poisson"], rtol=2e-6)


def test_abundances_of_poisson_are_those_of_the_cpu(cupy: Any) -> None:
    x, s = scene(150, 70, 3)
    counts = cuda.counts_to_device(Counts.from_dense(x.astype("u1")))
    pixels, sums = cuda.poisson_abundances(counts, s=s)
    wanted_pixels, wanted = poisson.abundances(x, s=s)
    pixels = {name: cupy.asnumpy(values) for name, values in pixels.items()}
    assert_close(pixels, wanted_pixels, ("abundances", "residual"), rtol=1e-5)
    assert_close(sums, wanted, ("residual_spectrum", "likelihood", "C"), rtol=1e-6)
    alone, few = cuda.poisson_abundances(counts, s=s, residual=False)
    assert set(alone) == {"abundances"}
    assert set(few) == {"likelihood", "C"}


@pytest.mark.parametrize("components", [3, 7])
def test_poisson_with_equal_and_empty_endmembers_finds_the_same_model(cupy: Any, components: int) -> None:
    x, s = scene(80, 60, components)
    s[1], s[-1] = s[0], 0.0
    pixels, sums = cuda.poisson_abundances(Counts.from_dense(x.astype("u1")), s=s)
    wanted_pixels, wanted = poisson.abundances(x, s=s)
    c = cupy.asnumpy(pixels["abundances"])
    assert (c >= 0).all()
    assert (c[:, -1] == 0).all()
    assert_allclose(c @ s, wanted_pixels["abundances"] @ s, rtol=0, atol=2e-5 * (c @ s).max())
    assert_allclose(sums["likelihood"], wanted["likelihood"], rtol=1e-6)


def test_counts_that_meet_hardly_any_endmember_stay_finite(cupy: Any) -> None:
    """Newton's steps overshoot here and are shortened."""
    rng = np.random.default_rng(1)
    s = np.where(rng.random((5, 80)) < 0.15, rng.random((5, 80)), 0.0)
    x = rng.poisson(1.5, (60, 80)).astype(np.float64)
    _, found = cuda.poisson_update(Counts.from_dense(x.astype("u1")), s=s)
    _, wanted = poisson.update(x, s=s)
    assert all(np.isfinite(found[name]).all() for name in SUMS_OF["poisson"])
    assert_allclose(found["C"], wanted["C"], rtol=1e-4)
    assert_allclose(found["likelihood"], wanted["likelihood"], rtol=1e-6)


def test_a_block_without_counts_has_sums_of_zero(cupy: Any) -> None:
    _, s = scene(10, 30, 4)
    _, sums = cuda.poisson_update(Counts.from_dense(np.zeros((9, 30), dtype="u1")), s=s)
    assert {name: np.shape(sums[name]) for name in SUMS_OF["poisson"]} == {
        "N": (30, 4),
        "H": (30, 10),
        "C": (4,),
        "likelihood": (),
    }
    assert all((sums[name] == 0).all() for name in SUMS_OF["poisson"])


# Counts on the device, and the kernels that process them.


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_counts_of_a_dense_block_are_those_of_its_rows(cupy: Any, dtype: str) -> None:
    x, _ = scene(40, 30, 2)
    dense = cuda.counts_to_device(cupy.asarray(x.astype(dtype)))
    rows = cuda.counts_to_device(Counts.from_dense(x.astype(dtype)))
    assert dense.shape == rows.shape == (40, 30)
    for name in ("indptr", "channel", "value", "pixel", "value_by_channel"):
        assert_array_equal(cupy.asnumpy(getattr(dense, name)), cupy.asnumpy(getattr(rows, name)), err_msg=name)
    assert dense.channel.dtype == rows.channel.dtype == np.uint16
    filled = int(np.count_nonzero(x))
    assert dense.nbytes >= filled * (2 + 4 + 2 * np.dtype(dtype).itemsize) + 41 * 8


def test_the_kernels_for_counts_take_what_lies_on_a_gpu(device: Any) -> None:
    x, s = scene(60, 40, 3)
    wanted = poisson.update(x, s=s)[1]
    dense = device.asarray(x.astype("u1"))
    for block in (dense, cuda.counts_to_device(dense)):
        pixels, found = poisson.update(block, s=device.asarray(s))
        assert pixels == {}
        assert_close(found, wanted, SUMS_OF["poisson"], rtol=2e-6)
        assert all(isinstance(value, np.ndarray | np.floating) for value in found.values())
        maps, sums = poisson.abundances(block, s=device.asarray(s))
        assert arrays.is_cupy(maps["abundances"])
        assert_close(sums, poisson.abundances(x, s=s)[1], ("residual_spectrum", "likelihood", "C"), rtol=1e-5)


@pytest.mark.parametrize(
    "more", [{"tau": np.full(3, 0.1)}, {"ridge": np.full(3, 0.1)}, {"simplex": True}, {"missing": True}], ids=str
)
def test_what_the_gpu_does_not_do_is_done_on_the_host_or_refused(device: Any, more: dict[str, Any]) -> None:
    x, s = scene(30, 40, 3)
    s /= s.sum(axis=1, keepdims=True)
    dense = device.asarray(x.astype("u1"))
    wanted = poisson.update(x.astype("u1"), s=s, **more)[1]
    found = poisson.update(dense, s=s, **more)[1]
    for name, value in wanted.items():
        assert_array_equal(found[name], value, err_msg=name)
    with pytest.raises(InputError, match=r"fitted without costs and constraints.*device='cpu'"):
        poisson.update(cuda.counts_to_device(dense), s=s, **more)
