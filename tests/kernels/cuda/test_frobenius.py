"""Least-squares passes for a GPU against those of the CPU: on a GPU if there is one, and always on the stand-in.

`cuda_host.Host` stands in for CuPy: it compiles the same text by g++ and runs the threads one after the other. This
tests the arithmetic, the barriers and the wrappers, but not the speed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from scalehsi.kernels import cuda, least_squares
from scalehsi.kernels.cuda.frobenius import plan
from scalehsi.schema import InputError
from tests.cuda_cases import SUMS_OF, assert_close, scene
from tests.cuda_host import Host


@pytest.mark.parametrize(
    ("dtype", "weights"),
    [
        ("f4", "none"),
        ("f4", "channels"),
        ("f4", "channels and pixels"),
        ("u1", "channels and pixels"),
        ("u2", "none"),
        ("i4", "channels"),
    ],
)
def test_least_squares_gives_the_sums_of_the_cpu_for_any_dtype(cupy: Any, dtype: str, weights: str) -> None:
    x, s = scene(150, 70, 3)
    options: dict[str, Any] = {} if weights == "none" else {"w": 1 / np.maximum(x.mean(axis=0), 0.05)}
    options |= {"weigh_pixels": True} if "pixels" in weights else {}
    pixels, found = cuda.frobenius_update(cupy.asarray(x.astype(dtype)), s=s, **options)
    _, wanted = least_squares.update(x.astype(dtype), s=s, **options)
    assert pixels == {}
    assert_close(found, wanted, SUMS_OF["frobenius"], rtol=1e-6)
    assert_allclose(
        least_squares.objective(found, s, options.get("w")),
        least_squares.objective(wanted, s, options.get("w")),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("pixels", "channels", "components"),
    [(1, 1, 1), (33, 1, 1), (200, 5, 2), (64, 2048, 4), (65, 1500, 8), (70, 64, 12), (40, 48, 20), (40, 33, 32)],
)
def test_least_squares_gives_the_sums_of_the_cpu_for_any_shape(
    cupy: Any, pixels: int, channels: int, components: int
) -> None:
    x, s = scene(pixels, channels, components)
    x = x.astype("u1")
    _, found = cuda.frobenius_update(cupy.asarray(x), s=s)
    _, wanted = least_squares.update(x, s=s)
    if components <= channels:
        assert_close(found, wanted, SUMS_OF["frobenius"], rtol=5e-6)
    loss = least_squares.objective(wanted, s)
    assert_allclose(least_squares.objective(found, s), loss, rtol=1e-5, atol=1e-9 * wanted["norm"])


@pytest.mark.parametrize(("channels", "components"), [(2100, 8), (600, 20)])
def test_many_sums_take_a_second_reading_and_are_the_same(cupy: Any, channels: int, components: int) -> None:
    x, s = scene(50, channels, components)
    assert not plan(components, channels, 1, per_block=232448, per_processor=233472).fused
    _, found = cuda.frobenius_update(cupy.asarray(x.astype("u1")), s=s, weigh_pixels=True)
    _, wanted = least_squares.update(x.astype("u1"), s=s, weigh_pixels=True)
    assert_close(found, wanted, SUMS_OF["frobenius"], rtol=2e-6)


def test_tiles_of_little_shared_memory_change_nothing(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, s = scene(90, 300, 3)
    found = []
    for size in (232448, 18000, 8000):
        small = Host(built, MaxSharedMemoryPerBlockOptin=size, MaxSharedMemoryPerMultiprocessor=size + 1024)
        monkeypatch.setitem(sys.modules, "cupy", small)
        found.append(cuda.frobenius_update(small.asarray(x.astype("f4")), s=s)[1])
    assert_close(found[1], found[0], SUMS_OF["frobenius"], rtol=1e-6)
    assert_close(found[2], found[0], SUMS_OF["frobenius"], rtol=1e-6)


def test_abundances_of_least_squares_are_those_of_the_cpu(cupy: Any) -> None:
    x, s = scene(150, 70, 3)
    options: dict[str, Any] = {"w": 1 / np.maximum(x.mean(axis=0), 0.05), "weigh_pixels": True}
    pixels, sums = cuda.frobenius_abundances(cupy.asarray(x.astype("u2")), s=s, **options)
    wanted_pixels, wanted = least_squares.abundances(x.astype("u2"), s=s, **options)
    pixels = {name: cupy.asnumpy(values) for name, values in pixels.items()}
    assert_close(pixels, wanted_pixels, ("abundances", "residual"), rtol=1e-6)
    assert_close(sums, wanted, ("residual_spectrum", "objective"), rtol=1e-6)
    assert pixels["abundances"].dtype == np.float32
    alone, nothing = cuda.frobenius_abundances(cupy.asarray(x.astype("u2")), s=s, residual=False, **options)
    assert_array_equal(cupy.asnumpy(alone["abundances"]), pixels["abundances"])
    assert set(alone) == {"abundances"}
    assert nothing == {}


@pytest.mark.parametrize(("components", "dtype"), [(1, "u2"), (3, "f4"), (4, "u2"), (7, "u2"), (11, "f4")])
def test_abundances_that_sum_to_one_are_those_of_the_cpu(cupy: Any, components: int, dtype: str) -> None:
    rng = np.random.default_rng(components)
    s = 200 * np.linspace(1.0, 3.0, 80) ** -rng.uniform(1, 3, (components, 1)) + 20 * rng.random((components, 80))
    x = rng.poisson(rng.dirichlet(np.full(components, 0.5), 150) @ s).astype(dtype)
    options: dict[str, Any] = {"s": s, "w": 1 / np.maximum(x.mean(axis=0), 1), "simplex": True}
    pixels, sums = cuda.frobenius_abundances(cupy.asarray(x), **options)
    wanted_pixels, wanted = least_squares.abundances(x, **options)
    found = cupy.asnumpy(pixels["abundances"])
    assert_allclose(found, wanted_pixels["abundances"], rtol=0, atol=1e-5)
    assert_allclose(found.sum(axis=1), 1.0, atol=1e-6)
    assert (found >= 0).all()
    assert_close(sums, wanted, ("residual_spectrum", "objective"), rtol=1e-5)
    assert_close(
        cuda.frobenius_update(cupy.asarray(x), **options)[1],
        least_squares.update(x, **options)[1],
        SUMS_OF["frobenius"],
        rtol=1e-4,
    )


def test_a_matrix_and_a_shift_of_priors_are_those_of_the_cpu(cupy: Any) -> None:
    x, s = scene(120, 40, 4)
    options = {"gram": s @ s.T + np.diag([0.5, 0.0, 2.0, 0.1]), "shift": np.array([3.0, -2.0, 0.0, 50.0])}
    _, found = cuda.frobenius_update(cupy.asarray(x.astype("f4")), s=s, norm=False, **options)
    _, wanted = least_squares.update(x.astype("f4"), s=s, norm=False, **options)
    assert "norm" not in found
    assert (found["C"] > 0).any()
    assert_close(found, wanted, ("N", "M", "C"), rtol=1e-6)


@pytest.mark.parametrize("components", [3, 7, 12])
def test_equal_and_empty_endmembers_leave_the_best_fit(cupy: Any, components: int) -> None:
    x, s = scene(100, 60, components)
    s[1], s[-1] = s[0], 0.0
    pixels, sums = cuda.frobenius_abundances(cupy.asarray(x.astype("f4")), s=s)
    wanted_pixels, wanted = least_squares.abundances(x.astype("f4"), s=s)
    c = cupy.asnumpy(pixels["abundances"])
    assert (c >= 0).all()
    assert (c[:, -1] == 0).all()
    fit, best = c @ s, wanted_pixels["abundances"] @ s
    assert_allclose(fit, best, rtol=0, atol=2e-5 * best.max())
    assert_allclose(sums["objective"], wanted["objective"], rtol=1e-6)


def test_nearly_equal_endmembers_are_solved_as_on_the_cpu(cupy: Any) -> None:
    x, s = scene(100, 60, 5)
    s[1] = s[0] * (1 + 1e-3 * np.sin(np.arange(60)))
    _, found = cuda.frobenius_update(cupy.asarray(x.astype("f4")), s=s)
    _, wanted = least_squares.update(x.astype("f4"), s=s)
    assert_allclose(least_squares.objective(found, s), least_squares.objective(wanted, s), rtol=1e-5)


def test_data_of_no_whole_words_are_read_rightly(host: Host) -> None:
    x, s = scene(60, 64, 3)
    wanted = cuda.frobenius_update(host.asarray(x.astype("u1")), s=s)[1]
    buffer = np.zeros(x.size + 16, dtype="u1")
    shifted = buffer[3 : 3 + x.size].reshape(x.shape)
    shifted[:] = x
    found = cuda.frobenius_update(host.asarray(shifted), s=s)[1]
    assert shifted.ctypes.data % 16 != 0
    for name in SUMS_OF["frobenius"]:
        assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("weigh_pixels", [False, True])
def test_empty_pixels_add_nothing(cupy: Any, weigh_pixels: bool) -> None:
    _, s = scene(10, 30, 4)
    _, sums = cuda.frobenius_update(cupy.zeros((70, 30), dtype="u2"), s=s, weigh_pixels=weigh_pixels)
    for name in SUMS_OF["frobenius"]:
        assert (sums[name] == 0).all(), name


@pytest.mark.parametrize("itemsize", [1, 2, 4])
@pytest.mark.parametrize("components", [1, 6, 11, 32])
@pytest.mark.parametrize("channels", [1, 100, 1024, 2048, 4096, 30000])
def test_plans_fit_the_shared_memory(components: int, channels: int, itemsize: int) -> None:
    for per_block, per_processor in ((101376, 102400), (166912, 167936), (232448, 233472)):
        try:
            cut = plan(components, channels, itemsize, per_block=per_block, per_processor=per_processor)
        except InputError:
            assert channels * itemsize > 0.8 * per_block
            continue
        assert cut.shared <= per_block
        assert (cut.shared + 1024) * cut.blocks_per_processor <= per_processor
        assert 0 < cut.rows <= 64
        assert cut.rows % cut.tile_pixels == 0
        assert not cut.fused or cut.packs * cut.wide * 256 >= cut.pitch


def test_a_pixel_too_long_for_shared_memory_is_refused() -> None:
    with pytest.raises(InputError, match=r"100000 channels of 4 bytes do not fit.*crop or bin the energy axis"):
        plan(3, 100_000, 4, per_block=232448, per_processor=233472)


def test_a_matrix_that_is_not_symmetric_is_refused(host: Host) -> None:
    x, s = scene(5, 20, 2)
    with pytest.raises(InputError, match="symmetric matrix; fit penalties between components on device='cpu'"):
        cuda.frobenius_update(host.asarray(x), s=s, gram=np.array([[1.0, 0.5], [0.0, 1.0]]))
