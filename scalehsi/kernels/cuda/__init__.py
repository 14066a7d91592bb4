"""Passes of NMF over a block of pixels on an NVIDIA GPU: they take CuPy arrays and return the sums of the CPU passes.

CuPy compiles the CUDA C++ sources (``*.cu``) at first use, once for each data type and range of components (up to 4, 8,
16, 32). Importing this package needs only numpy; using it needs CuPy.

Tests so far: compiled for a CPU and run thread by thread, the sources return the sums and abundances of the CPU passes,
and whole fits with ``device="cuda"`` run with them; nvcc compiles them without warnings. **They have not run on a GPU
yet**: on one, first run ``pytest -m gpu tests/kernels/cuda tests/models/nmf/test_cuda.py``, then
``python -m tests.bench.gpu``.
"""

from scalehsi.kernels.cuda.frobenius import frobenius_abundances, frobenius_update
from scalehsi.kernels.cuda.poisson import DeviceCounts, counts_to_device, poisson_abundances, poisson_update
from scalehsi.kernels.cuda.sources import MAX_COMPONENTS

__all__ = [
    "MAX_COMPONENTS",
    "DeviceCounts",
    "counts_to_device",
    "frobenius_abundances",
    "frobenius_update",
    "poisson_abundances",
    "poisson_update",
]
