"""The GPU's passes against the CPU's: on a GPU where there is one, and everywhere else the same sources on the CPU.

`cuda_host.Host` stands in for CuPy: it compiles the same text by g++ and runs the threads one after the other. That
checks the arithmetic, the barriers and the wrappers, not the speed.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_host import Host
from numpy.testing import assert_allclose, assert_array_equal

from scalehsi.kernels import cuda, frobenius, poisson
from scalehsi.kernels.counts import Counts
from scalehsi.kernels.cuda import sources
from scalehsi.kernels.cuda.frobenius import plan
from scalehsi.schema import InputError

Float = np.ndarray[Any, np.dtype[np.float64]]

SUMS_OF = {"frobenius": ("N", "M", "C", "norm"), "poisson": ("N", "H", "C", "likelihood")}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compiled kernels lie for the whole session."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to compile kernels for the CPU")
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """CuPy, or its stand-in."""
    if request.param == "gpu":
        module = pytest.importorskip("cupy")
        try:
            module.cuda.runtime.getDeviceCount()
        except module.cuda.runtime.CUDARuntimeError:
            pytest.skip("needs an NVIDIA GPU")
        yield module
        return
    host = Host(request.getfixturevalue("built"))
    monkeypatch.setitem(sys.modules, "cupy", host)
    yield host


@pytest.fixture
def host(built: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """The stand-in alone."""
    found = Host(built)
    monkeypatch.setitem(sys.modules, "cupy", found)
    return found


def scene(pixels: int, channels: int, components: int, *, seed: int = 0, level: float = 20.0) -> tuple[Float, Float]:
    """Counts up to 255 (P, E) and endmembers (K, E); the first pixel and the middle channel are empty."""
    rng = np.random.default_rng(seed)
    s = rng.random((components, channels)) ** 4 + 0.01
    x = rng.poisson(rng.gamma(0.7, level, (pixels, components)) @ s).clip(0, 255).astype(np.float64)
    x[0], x[:, channels // 2] = 0, (0 if channels > 1 else x[:, 0])
    return x, s


def assert_close(found: dict[str, Any], wanted: dict[str, Any], names: tuple[str, ...], *, rtol: float) -> None:
    """Relative to the largest of each kind of number."""
    assert set(names) <= set(found)
    for name in names:
        assert np.shape(found[name]) == np.shape(wanted[name]), name
        scale = np.abs(wanted[name]).max()
        assert_allclose(found[name], wanted[name], rtol=0, atol=rtol * max(scale, 1e-300), err_msg=name)


# Least squares.


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
    _, wanted = frobenius.update(x.astype(dtype), s=s, **options)
    assert pixels == {}
    assert_close(found, wanted, SUMS_OF["frobenius"], rtol=1e-6)
    assert_allclose(
        frobenius.objective(found, s, options.get("w")), frobenius.objective(wanted, s, options.get("w")), rtol=1e-6
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
    _, wanted = frobenius.update(x, s=s)
    if components <= channels:
        assert_close(found, wanted, SUMS_OF["frobenius"], rtol=5e-6)
    loss = frobenius.objective(wanted, s)
    assert_allclose(frobenius.objective(found, s), loss, rtol=1e-5, atol=1e-9 * wanted["norm"])


@pytest.mark.parametrize(("channels", "components"), [(2100, 8), (600, 20)])
def test_many_sums_take_a_second_reading_and_are_the_same(cupy: Any, channels: int, components: int) -> None:
    x, s = scene(50, channels, components)
    assert not plan(components, channels, 1, per_block=232448, per_processor=233472).fused
    _, found = cuda.frobenius_update(cupy.asarray(x.astype("u1")), s=s, weigh_pixels=True)
    _, wanted = frobenius.update(x.astype("u1"), s=s, weigh_pixels=True)
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
    wanted_pixels, wanted = frobenius.abundances(x.astype("u2"), s=s, **options)
    pixels = {name: cupy.asnumpy(values) for name, values in pixels.items()}
    assert_close(pixels, wanted_pixels, ("abundances", "residual"), rtol=1e-6)
    assert_close(sums, wanted, ("residual_spectrum", "objective"), rtol=1e-6)
    assert pixels["abundances"].dtype == np.float32
    alone, nothing = cuda.frobenius_abundances(cupy.asarray(x.astype("u2")), s=s, residual=False, **options)
    assert_array_equal(cupy.asnumpy(alone["abundances"]), pixels["abundances"])
    assert set(alone) == {"abundances"}
    assert nothing == {}


def test_a_matrix_and_a_shift_of_priors_are_those_of_the_cpu(cupy: Any) -> None:
    x, s = scene(120, 40, 4)
    options = {"gram": s @ s.T + np.diag([0.5, 0.0, 2.0, 0.1]), "shift": np.array([3.0, -2.0, 0.0, 50.0])}
    _, found = cuda.frobenius_update(cupy.asarray(x.astype("f4")), s=s, norm=False, **options)
    _, wanted = frobenius.update(x.astype("f4"), s=s, norm=False, **options)
    assert "norm" not in found
    assert (found["C"] > 0).any()
    assert_close(found, wanted, ("N", "M", "C"), rtol=1e-6)


@pytest.mark.parametrize("components", [3, 7, 12])
def test_equal_and_empty_endmembers_leave_the_best_fit(cupy: Any, components: int) -> None:
    x, s = scene(100, 60, components)
    s[1], s[-1] = s[0], 0.0
    pixels, sums = cuda.frobenius_abundances(cupy.asarray(x.astype("f4")), s=s)
    wanted_pixels, wanted = frobenius.abundances(x.astype("f4"), s=s)
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
    _, wanted = frobenius.update(x.astype("f4"), s=s)
    assert_allclose(frobenius.objective(found, s), frobenius.objective(wanted, s), rtol=1e-5)


def test_data_of_no_whole_words_are_read_rightly(host: Host) -> None:
    x, s = scene(60, 64, 3)
    wanted = cuda.frobenius_update(host.asarray(x.astype("u1")), s=s)[1]
    room = np.zeros(x.size + 16, dtype="u1")
    shifted = room[3 : 3 + x.size].reshape(x.shape)
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
        assert (cut.shared + 1024) * cut.resident <= per_processor
        assert 0 < cut.rows <= 64
        assert cut.rows % cut.tile_pixels == 0
        assert not cut.fused or cut.packs * cut.wide * 256 >= cut.pitch


# Counts.


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
    monkeypatch.setattr(importlib.import_module("scalehsi.kernels.cuda.poisson"), "PIECE", 150)
    rng = np.random.default_rng(3)
    x, s = rng.poisson(2.0, (700, 3)).astype(np.float64), rng.random((2, 3)) + 0.1
    counts = cuda.resident(Counts.from_dense(x.astype("u1")))
    assert counts.shape == (700, 3)
    assert len(counts.pieces[1]) == 3 * 4
    assert_close(cuda.poisson_update(counts, s=s)[1], poisson.update(x, s=s)[1], SUMS_OF["poisson"], rtol=2e-6)


def test_abundances_of_poisson_are_those_of_the_cpu(cupy: Any) -> None:
    x, s = scene(150, 70, 3)
    counts = cuda.resident(Counts.from_dense(x.astype("u1")))
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
    """Newton's steps go too far here, and are shortened."""
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


# Order, compilers, refusals.


@pytest.mark.parametrize(
    ("which", "channels", "components"),
    [("frobenius", 90, 6), ("frobenius", 600, 20), ("poisson", 60, 6), ("poisson", 50, 12)],
)
def test_no_order_of_threads_and_blocks_changes_a_bit(
    built: Path, monkeypatch: pytest.MonkeyPatch, which: str, channels: int, components: int
) -> None:
    """A missing barrier shows here: a warp that runs first overwrites what another has yet to read."""
    x, s = scene(700 if which == "frobenius" else 90, channels, components)
    found = []
    for backwards in (False, True):
        monkeypatch.setitem(sys.modules, "cupy", host := Host(built, backwards=backwards))
        if which == "frobenius":
            found.append(cuda.frobenius_update(host.asarray(x.astype("f4")), s=s, weigh_pixels=True)[1])
        else:
            found.append(cuda.poisson_update(Counts.from_dense(x.astype("u1")), s=s)[1])
    for name in SUMS_OF[which]:
        assert_array_equal(found[0][name], found[1][name])


@pytest.mark.parametrize(
    ("kernel", "problem"),
    [
        ("if (threadIdx.x < 7) return; __syncthreads(); out[0] = 1;", "wait for others that have left"),
        ("if (threadIdx.x % 32 < 7) __syncwarp(); else __syncthreads(); out[0] = 1;", "wait for others"),
        (
            "if (threadIdx.x % 2) __syncwarp(); else __ballot_sync(0xffffffffu, true); out[0] = 1;",
            "different exchanges",
        ),
    ],
)
def test_the_stand_in_finds_barriers_that_would_hang(host: Host, kernel: str, problem: str) -> None:
    text = f'extern "C" __global__ void wrong(double* out) {{ {kernel} }}'
    wrong = host.RawModule(code=text, options=("-std=c++17",)).get_function("wrong")
    with pytest.raises(AssertionError, match=problem):
        wrong((1,), (64,), (np.zeros(1),), shared_mem=0)


def test_the_stand_in_shows_a_missing_barrier(built: Path) -> None:
    text = """extern "C" __global__ void wrong(double* out) {
        __shared__ double all[64];
        all[threadIdx.x] = threadIdx.x + blockIdx.x;
        out[blockIdx.x * 64 + threadIdx.x] = all[63 - threadIdx.x];
    }"""
    found = []
    for backwards in (False, True):
        kernel = Host(built, backwards=backwards).RawModule(code=text, options=("-std=c++17",)).get_function("wrong")
        found.append(np.zeros(128))
        kernel((2,), (64,), (found[-1],), shared_mem=0)
    assert (found[0] != found[1]).any()


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize(
    ("name", "macros"),
    [
        ("frobenius", {"DATA": "float", "COMPONENTS": 8, "TILE_PIXELS": 4, "PACKS": 1}),
        ("poisson", {"COMPONENTS": 4, "CHANNEL": "unsigned short", "VALUE": "unsigned char"}),
        *(
            pytest.param(name, macros, marks=pytest.mark.slow)
            for name, macros in [
                ("frobenius", {"DATA": "unsigned char", "COMPONENTS": 4, "TILE_PIXELS": 8, "PACKS": 4}),
                ("frobenius", {"DATA": "float", "COMPONENTS": 8, "TILE_PIXELS": 2, "PACKS": 2}),
                ("frobenius", {"DATA": "unsigned short", "COMPONENTS": 16, "TILE_PIXELS": 2, "PACKS": 1}),
                ("frobenius", {"DATA": "float", "COMPONENTS": 32, "TILE_PIXELS": 1, "PACKS": 1}),
                ("poisson", {"COMPONENTS": 8, "CHANNEL": "unsigned short", "VALUE": "unsigned short"}),
                ("poisson", {"COMPONENTS": 16, "CHANNEL": "int", "VALUE": "float"}),
                ("poisson", {"COMPONENTS": 32, "CHANNEL": "unsigned short", "VALUE": "unsigned int"}),
            ]
        ),
    ],
)
def test_nvcc_compiles_every_source_without_warnings(tmp_path: Path, name: str, macros: dict[str, Any]) -> None:
    (tmp_path / "whole.cu").write_text(sources.source(name), encoding="utf-8")
    targets = [f"-gencode=arch=compute_{cc},code=sm_{cc}" for cc in (80, 90)]
    options = ["-std=c++17", "-Werror", "all-warnings", "--threads", "2", *(f"-D{k}={v}" for k, v in macros.items())]
    command = ["nvcc", *targets, *options, "-c", "-o", str(tmp_path / "out.o"), str(tmp_path / "whole.cu")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_constants_of_both_languages_agree() -> None:
    text = sources.source("frobenius")
    from_c = {name: int(value) for name, value in re.findall(r"constexpr int (\w+) = (\d+);", text)}
    wrappers = importlib.import_module("scalehsi.kernels.cuda.frobenius")
    assert (from_c["THREADS"], from_c["FLUSH"]) == (wrappers.THREADS, wrappers.FLUSH)
    text = sources.source("poisson")
    from_c = dict(re.findall(r"constexpr \w+ (\w+) = ([\d.e-]+)f?;", text))
    rows = importlib.import_module("scalehsi.kernels.poisson_rows")
    for name in ("EM_STEPS", "NEWTON_STEPS", "HALVINGS", "PAST", "DECREMENT", "RIDGE"):
        assert float(from_c[name]) == getattr(rows, name), name
    wrappers = importlib.import_module("scalehsi.kernels.cuda.poisson")
    assert int(from_c["THREADS"]) == wrappers.THREADS
    assert wrappers.TINY == poisson.TINY


def test_without_cupy_the_repair_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match=r"need CuPy.*pip install 'scalehsi\[cuda12\]'"):
        cuda.frobenius_update(np.ones((2, 3), dtype="f4"), s=np.ones((1, 3)))


def test_too_many_components_are_refused(host: Host) -> None:
    with pytest.raises(InputError, match="1 to 32 components, not 33; fit with device='cpu'"):
        cuda.frobenius_update(host.asarray(np.ones((2, 40), dtype="f4")), s=np.ones((33, 40)))
    with pytest.raises(InputError, match="1 to 32 components, not 33"):
        cuda.poisson_update(Counts.from_dense(np.ones((2, 40), dtype="u1")), s=np.ones((33, 40)))


def test_a_pixel_too_long_for_shared_memory_is_refused() -> None:
    with pytest.raises(InputError, match=r"100000 channels of 4 bytes do not fit.*crop or bin the energy axis"):
        plan(3, 100_000, 4, per_block=232448, per_processor=233472)


def test_a_matrix_that_is_not_symmetric_is_refused(host: Host) -> None:
    x, s = scene(5, 20, 2)
    with pytest.raises(InputError, match="symmetric matrix; fit coupled components with device='cpu'"):
        cuda.frobenius_update(host.asarray(x), s=s, gram=np.array([[1.0, 0.5], [0.0, 1.0]]))


def test_importing_the_wrappers_loads_neither_cupy_nor_numba() -> None:
    check = "import sys, scalehsi.kernels.cuda; sys.exit(bool({'cupy', 'numba', 'dask', 'xarray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_benchmark_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    assert benchmark().main() == 2
    assert capsys.readouterr().out == "no usable GPU\n"


def test_the_benchmark_prints_a_table(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """On the stand-in, with a clock that always shows a millisecond."""
    gpu = benchmark()
    host.random = np.random
    monkeypatch.setattr(gpu, "usable", lambda: "stand-in")
    monkeypatch.setattr(gpu, "gpu_time", lambda run, repeats: 1e-3 if run() is not None else 0.0)
    monkeypatch.setattr(sys, "argv", "gpu --pixels 60 --channels 64 --components 3".split())
    assert gpu.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 + 5
    assert {line.count("|") for line in lines[2:]} == {10}
    assert all(float(line.split("|")[-2]) < 1e-5 for line in lines[4:])


def benchmark() -> Any:
    """The module tests/bench/gpu.py."""
    file = Path(__file__).parents[1] / "bench" / "gpu.py"
    spec = importlib.util.spec_from_file_location("gpu_benchmark", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
