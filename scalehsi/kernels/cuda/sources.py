"""Compilation and launch of CUDA kernels: from the text of a ``.cu`` file to kernels on the current device."""

from __future__ import annotations

import functools
import importlib
import re
from importlib import resources
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.schema import InputError

MAX_COMPONENTS: Final = 32
"""Each lane of a warp processes one component."""
C_TYPES: Final = {
    "u1": "unsigned char",
    "u2": "unsigned short",
    "u4": "unsigned int",
    "i4": "int",
    "f4": "float",
}
"""C types of the numpy dtypes that kernels read without conversion."""
THREADS_TO_ADD: Final = 128
"""Threads per block of the kernels that only add."""


def source(name: str) -> str:
    """Return the text of ``name``.cu with its included files inserted, because CuPy compiles a single text.

    Examples
    --------
    >>> "#include" in source("frobenius"), "solve_members" in source("frobenius")
    (False, True)
    """
    text = resources.files(__package__).joinpath(f"{name}.cu").read_text(encoding="utf-8")
    return re.sub(r'^#include "(\w+)\.cu"$', lambda found: source(found.group(1)), text, flags=re.MULTILINE)


def padded_k(n: int) -> int:
    """Round n components up to a number for which kernels are compiled.

    Raises
    ------
    InputError
        For no components, or for more than 32.

    Examples
    --------
    >>> [padded_k(n) for n in (1, 4, 5, 12, 32)]
    [4, 4, 8, 16, 32]
    """
    if not 1 <= n <= MAX_COMPONENTS:
        raise InputError(
            f"the GPU kernels take 1 to {MAX_COMPONENTS} components, not {n}; fit with device='cpu' for more"
        )
    return next(k for k in (4, 8, 16, 32) if k >= n)


def runtime() -> Any:
    """Import CuPy.

    Raises
    ------
    InputError
        If CuPy is not installed.
    """
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise InputError(
            "the GPU kernels need CuPy, which is not installed; pip install 'scalehsi[cuda12]' or 'scalehsi[cuda13]'"
        ) from error


@functools.cache
def module(cupy: Any, name: str, macros: tuple[tuple[str, str | int], ...]) -> Any:
    """Compile the kernels of source ``name`` with macros (name, value); a second call returns the same module.

    The text is passed to CuPy, not a path, so that this also works from a zipped package. CuPy caches the result on
    disk.
    """
    options = ("-std=c++17", *(f"-D{key}={value}" for key, value in macros))
    return cupy.RawModule(code=source(name), options=options)


def launch(kernel: Any, grid: tuple[int, ...], threads: int, arguments: tuple[Any, ...], *, shared: int = 0) -> None:
    """Start a kernel on the current stream.

    grid is the number of thread blocks along each axis, threads the threads per block, shared the bytes of dynamic
    shared memory. Numbers in arguments must have the numpy type of the C parameter (``int`` or ``long long``).
    """
    if shared > 0:
        kernel.max_dynamic_shared_size_bytes = shared
    kernel(grid, (threads,), arguments, shared_mem=shared)


def add(cupy: Any, kernels: Any, parts: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Sum ``parts`` (blocks, ...) over blocks, in order, with ``kernels`` of `module`, and copy the sum to the host."""
    size = int(np.prod(parts.shape[1:]))
    out = cupy.empty(parts.shape[1:], dtype=np.float64)
    grid = (-(-size // THREADS_TO_ADD),)
    arguments = (parts, np.int32(parts.shape[0]), np.int64(size), out)
    launch(kernels.get_function("add_blocks"), grid, THREADS_TO_ADD, arguments)
    return to_host(cupy, out)


def to_host(cupy: Any, values: Any) -> np.ndarray[Any, Any]:
    """Copy an array to host memory."""
    host: np.ndarray[Any, Any] = cupy.asnumpy(values)
    return host


class Device(NamedTuple):
    """Limits of a GPU: multiprocessors, and bytes of shared memory per thread block and per multiprocessor."""

    processors: int
    per_block: int
    per_processor: int


def current_device(cupy: Any) -> Device:
    """Limits of the device that CuPy uses."""
    return _device(cupy, int(cupy.cuda.Device().id))


@functools.cache
def _device(cupy: Any, number: int) -> Device:
    found = cupy.cuda.Device(number).attributes
    names = "MultiProcessorCount", "MaxSharedMemoryPerBlockOptin", "MaxSharedMemoryPerMultiprocessor"
    return Device(*(int(found[name]) for name in names))
