"""The passes of NMF over a block of pixels on an NVIDIA GPU: CuPy arrays in, the sums of the CPU's passes out.

Sources in CUDA C++ (``*.cu``) are compiled by CuPy when they are first needed, once for each data type and range of
components (up to 4, 8, 16, 32). This package needs numpy alone to be imported, and CuPy to be used.

What has been checked, and where: the sources are compiled for a CPU and give there, thread by thread, the sums and
abundances of the CPU's passes, and whole fits with ``device="cuda"`` run through them; nvcc compiles them without
warnings. **They have not run on a GPU yet**: ``pytest -m gpu tests/kernels/cuda tests/models/test_gpu.py`` and
``python -m tests.bench.gpu`` are what to run first on one.
"""

from scalehsi.kernels.cuda.frobenius import frobenius_abundances, frobenius_update
from scalehsi.kernels.cuda.poisson import Resident, poisson_abundances, poisson_update, resident
from scalehsi.kernels.cuda.sources import MAX_COMPONENTS

__all__ = [
    "MAX_COMPONENTS",
    "Resident",
    "frobenius_abundances",
    "frobenius_update",
    "poisson_abundances",
    "poisson_update",
    "resident",
]
