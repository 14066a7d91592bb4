"""A stand-in for CuPy on machines without a GPU: numpy arrays, and kernels compiled for the CPU by g++.

The text of a kernel is that for a GPU. `cuda_host.h` in this folder provides threads, barriers and exchanges between
lanes; threads run one after the other, in one order or its reverse.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

KERNELS = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\(.*\)\s+)?(\w+)\(')
H100 = {"MaxSharedMemoryPerBlockOptin": 232448, "MaxSharedMemoryPerMultiprocessor": 233472}


class HostArray(np.ndarray[Any, Any]):
    """A numpy array with CuPy's attribute for its address."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)


class HostModule:
    """Replacement for ``cupy.RawModule``, compiled by g++ once for a text and its macros."""

    def __init__(self, folder: Path, *, backwards: bool, code: str, options: tuple[str, ...]) -> None:
        names = KERNELS.findall(code)
        text = '#include "cuda_host.h"\n' + code + "".join(f"\nHOST_KERNEL({name})" for name in names) + "\n"
        stem = folder / hashlib.sha256((text + repr(options)).encode()).hexdigest()[:16]
        if not stem.with_suffix(".so").exists():
            stem.with_suffix(".cpp").write_text(text, encoding="utf-8")
            flags = "-O1 -w -shared -fPIC -fno-gnu-unique -fvisibility=hidden -U_FORTIFY_SOURCE".split()
            visible = '-DHOST_VISIBLE=__attribute__((visibility("default")))'
            here = f"-I{Path(__file__).parent}"
            built = stem.with_suffix(f".{os.getpid()}")
            command = ["g++", *flags, visible, *options, here, "-o", str(built), str(stem.with_suffix(".cpp"))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            built.rename(stem.with_suffix(".so"))
        self._library = ctypes.CDLL(str(stem.with_suffix(".so")))
        self._backwards = backwards

    def get_function(self, name: str) -> Any:
        function = self._library[f"host_{name}"]
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_uint] * 3 + [ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
        return HostKernel(function, int(self._backwards))


class HostKernel:
    """Replacement for a CuPy kernel, with the same call."""

    max_dynamic_shared_size_bytes = 0

    def __init__(self, function: Any, backwards: int) -> None:
        self._function, self._backwards = function, backwards

    def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int) -> None:
        assert shared_mem <= self.max_dynamic_shared_size_bytes
        assert all(isinstance(argument, np.generic) or argument.flags.c_contiguous for argument in arguments)
        values = [np.intp(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments]
        copies = [np.array(value) for value in values]
        table = (ctypes.c_void_p * len(copies))(*(value.ctypes.data for value in copies))
        columns, rows = (*grid, 1)[:2]
        problem = self._function(columns, rows, block[0], shared_mem, self._backwards, table)
        assert problem is None, problem.decode()


class Host:
    """Replacement for the module ``cupy``: the functions that the wrappers use, and a device of two multiprocessors."""

    ndarray = HostArray

    def __init__(self, folder: Path, *, backwards: bool = False, **device: int) -> None:
        only = SimpleNamespace(id=0, attributes={"MultiProcessorCount": 2, **H100, **device})
        self.cuda = SimpleNamespace(Device=lambda number=0: only)
        self._folder, self._backwards = folder, backwards

    def __getattr__(self, name: str) -> Any:
        function = getattr(np, name)
        return lambda *args, **options: self._ours(function(*args, **options))

    def RawModule(self, *, code: str, options: tuple[str, ...]) -> HostModule:
        return HostModule(self._folder, backwards=self._backwards, code=code, options=options)

    def asnumpy(self, values: Any) -> Any:
        return np.array(values)

    def _ours(self, values: Any) -> Any:
        return values.view(HostArray) if isinstance(values, np.ndarray) else values
