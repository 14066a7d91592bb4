"""Measure a pass of NMF on a GPU, two matrix products by cuBLAS, and the same pass on the CPU, for one block.

Prints a Markdown table of times, the rate at which the data were read, and the largest difference to the CPU's sums.

Run with: python -m tests.bench.gpu [--pixels 262144] [--channels 1024] [--components 4 8 16] [--repeats 7]
Needs CuPy, an NVIDIA GPU, numpy and scipy; numba too for the CPU's pass, whose columns are empty without it.
Exits with 2 where there is no usable GPU. There are no results yet, because it has not run on a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import sparse

from scalehsi.kernels import cuda
from scalehsi.schema import InputError

CHECKED = 16384
"""Number of pixels for which sums are compared with the CPU's, and the CPU is timed."""


def usable() -> str:
    """Return the name of the GPU, or an empty string."""
    try:
        cupy = importlib.import_module("cupy")
        return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())
    except Exception:  # a broken driver raises errors of many types; all of them mean that there is no GPU
        return ""


def scene(pixels: int, channels: int, components: int, *, level: float) -> tuple[Any, np.ndarray]:
    """Make counts (P, E) as float32 on the GPU, about ``level`` in a pixel, and endmembers (K, E) of unit sum."""
    cupy = importlib.import_module("cupy")
    rng = np.random.default_rng(0)
    energy = np.linspace(0, 1, channels)
    peaks = rng.random((components, 6, 1))
    s = np.exp(-0.5 * ((energy - peaks) / 0.01) ** 2).sum(axis=1) + 0.05 * np.exp(-3 * energy)
    s /= s.sum(axis=1, keepdims=True)
    device = cupy.random.default_rng(0)
    x = cupy.empty((pixels, channels), dtype=np.float32)
    ends = cupy.asarray(s, dtype=np.float32)
    for start in range(0, pixels, 8192):  # in parts, because random numbers have 8 bytes each
        part = x[start : start + 8192]
        c = device.gamma(0.5, 1.0, (len(part), components)).astype(np.float32)
        c *= level / cupy.maximum(c.sum(axis=1, keepdims=True), 1e-6)
        part[:] = device.poisson(cupy.maximum(c @ ends, 1e-9))
    return x, s


def gpu_time(run: Callable[[], object], repeats: int) -> float:
    """Return the best time in seconds by the GPU's clock, with the transfer of results, after a call to compile."""
    cupy = importlib.import_module("cupy")
    run()
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    found = []
    for _ in range(repeats):
        begin.record()
        run()
        end.record()
        end.synchronize()
        found.append(cupy.cuda.get_elapsed_time(begin, end) / 1000)
    return min(found)


def cpu_time(run: Callable[[], object], repeats: int) -> float:
    run()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def furthest(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Return the largest difference of a sum, relative to the largest number of its kind."""
    return max(float(np.abs(found[name] - wanted[name]).max() / np.abs(wanted[name]).max()) for name in wanted)


def cpu_twin(name: str) -> Any:
    """Return a module of the CPU's passes, or None without numba."""
    try:
        return importlib.import_module(f"scalehsi.kernels.{name}")
    except ImportError:
        return None


def row(*cells: object) -> str:
    return "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"


def least_squares(x: Any, s: np.ndarray, dtype: str, repeats: int) -> str:
    cupy = importlib.import_module("cupy")
    x = cupy.minimum(x, 255).astype(dtype)
    ends = cupy.asarray(s, dtype=np.float32)

    def two_products() -> Any:
        floats = x.astype(np.float32, copy=False)
        c = floats @ ends.T
        return cupy.asnumpy(c.T @ floats)

    ours = gpu_time(lambda: cuda.frobenius_update(x, s=s, norm=False), repeats)
    blas = gpu_time(two_products, repeats)
    part = x[:CHECKED]
    twin = cpu_twin("least_squares")
    cpu: Any = "no numba"
    far: Any = "no numba"
    if twin is not None:
        host = cupy.asnumpy(part)
        far = furthest(cuda.frobenius_update(part, s=s)[1], twin.update(host, s=s)[1])
        cpu = 1000 * cpu_time(lambda: twin.update(host, s=s, norm=False), 3) * len(x) / len(part)
    return row("least squares", dtype, len(s), 1000 * ours, x.nbytes / ours / 1e9, 1000 * blas, blas / ours, cpu, far)


def counts_of(x: np.ndarray) -> Any:
    """Convert to counts without zeros, as `cuda.counts_to_device` takes them."""
    rows = sparse.csr_array(x)
    channel, value = rows.indices.astype(np.uint16), np.minimum(rows.data, 255).astype(np.uint8)
    return SimpleNamespace(indptr=rows.indptr.astype(np.int64), channel=channel, value=value, n_channels=x.shape[1])


def counting(x: Any, s: np.ndarray, repeats: int) -> str:
    cupy = importlib.import_module("cupy")
    host = cupy.asnumpy(x)
    counts = cuda.counts_to_device(counts_of(host))
    filled = len(counts.value)
    ours = gpu_time(lambda: cuda.poisson_update(counts, s=s), repeats)
    ends = cupy.asarray(s, dtype=np.float32)

    def two_products() -> Any:  # of a multiplicative update on the dense block, without the division between them
        c = x @ ends.T
        return cupy.asnumpy(c.T @ x)

    blas = gpu_time(two_products, repeats)
    twin = cpu_twin("poisson")
    cpu: Any = "no numba"
    far: Any = "no numba"
    if twin is not None:
        part = np.minimum(host[:CHECKED], 255)
        far = furthest(cuda.poisson_update(counts_of(part), s=s)[1], twin.update(part, s=s)[1])
        cpu = 1000 * cpu_time(lambda: twin.update(part, s=s), 3) * len(host) / len(part)
    label = f"Poisson, {filled / len(host):.0f} filled a pixel"
    return row(label, "u1", len(s), 1000 * ours, 1e-9 * filled / ours, 1000 * blas, blas / ours, cpu, far)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=262144)
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--components", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    name = usable()
    if not name:
        print("no usable GPU")
        return 2
    print(f"{name}; {options.pixels} pixels x {options.channels} channels; best of {options.repeats}; ms a pass\n")
    print(
        "| pass | data | K | ours | GB/s or 1e9 counts/s | two products | products / ours | CPU | difference from CPU |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    try:
        for components in options.components:
            x, s = scene(options.pixels, options.channels, components, level=20000.0)
            for dtype in ("float32", "uint16", "uint8"):
                print(least_squares(x, s, dtype, options.repeats), flush=True)
            for level in (150.0, 20.0):
                x, s = scene(options.pixels, options.channels, components, level=level)
                print(counting(x, s, options.repeats), flush=True)
    except InputError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
