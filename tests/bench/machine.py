"""Measure the speed of this machine and of functions: minima of repeats on one thread, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numba
import numpy as np
from threadpoolctl import threadpool_limits


def seconds(fn: Callable[[], object], *, repeats: int = 5, wall: bool = False) -> float:
    """Return the least time of a call after one that compiles: CPU time, which other programs disturb less, or wall."""
    clock = time.perf_counter if wall else time.process_time
    fn()
    return min(_once(fn, clock) for _ in range(repeats))


def _once(fn: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    fn()
    return clock() - start


@numba.njit(fastmath=True, nogil=True)
def _total(values: np.ndarray) -> float:
    total = np.float32(0)
    for i in range(values.size):
        total += values[i]
    return total


def read_rate(megabytes: int = 256) -> float:
    """Return the bytes that one core reads from memory in a second."""
    values = np.ones(megabytes * 2**18, dtype=np.float32)
    return values.nbytes / seconds(lambda: _total(values))


def product_rate(size: int = 1536) -> float:
    """Return the floating-point operations of a square float32 matrix product on one core in a second."""
    a = np.random.default_rng(0).random((size, size), dtype=np.float32)
    with threadpool_limits(1):
        return 2 * size**3 / seconds(lambda: a @ a)


def floor(pixels: int, energies: int, components: int, *, read: float, product: float) -> float:
    """Return a lower bound of the seconds of a pass: reading the data once, or its two products at full speed."""
    return max(4 * pixels * energies / read, 4 * pixels * energies * components / product)


def markdown(rows: Sequence[dict[str, object]]) -> str:
    """Format rows as a Markdown table; columns are in the order in which they first appear."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    return "\n".join(lines)
