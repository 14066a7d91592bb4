"""Limit the BLAS libraries to one thread while blocks are computed.

Dask computes one block in each thread, and BLAS threads on top of these cost 2.5x to 20x in time.

This is done by hand because `threadpoolctl.threadpool_limits` does not serve threads that overlap in time:

- Most libraries have one limit for the whole process. The first block that starts sets it, the last block that ends
  restores it, and the blocks in between leave it alone.
- An OpenBLAS built on OpenMP has one limit for each thread, so each thread sets its own.
- threadpoolctl 3.7 and later lets only the thread that set the limit of an OpenBLAS change it again. The block that
  ends last seldom runs in that thread; the library would silently keep one thread for the rest of the process.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController


class _OneThread:
    """Context manager that counts the blocks inside it, in all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limits_before: list[tuple[Any, int]] = []
        self._of_thread = threading.local()

    def __enter__(self) -> None:
        with self._lock:
            per_process, per_thread = _libraries(len(sys.modules))
            if not self._inside:
                self._limits_before = _limit(per_process)
            self._inside += 1
            stack = self._of_thread.__dict__.setdefault("limits_before", [])
            stack.append(_limit(per_thread))

    def __exit__(self, *_: object) -> None:
        with self._lock:
            _restore(self._of_thread.limits_before.pop())
            self._inside -= 1
            if not self._inside:
                _restore(self._limits_before)


def _limit(libraries: list[Any]) -> list[tuple[Any, int]]:
    """Set each library to one thread and return the limits that it had."""
    before = [(library, library.num_threads) for library in libraries]
    _restore([(library, 1) for library in libraries])
    return before


def _restore(limits: list[tuple[Any, int]]) -> None:
    for library, threads in limits:
        with _in_control(library):
            library.set_num_threads(threads)


@contextlib.contextmanager
def _in_control(library: Any) -> Iterator[None]:
    """Let this thread set the library's limit, and any thread afterwards."""
    release = getattr(library, "clear_controlling_thread", lambda **_: None)
    release(force=True)
    try:
        yield
    finally:
        release(force=True)


@lru_cache(maxsize=1)
def _libraries(modules: int) -> tuple[list[Any], list[Any]]:
    """Find the BLAS libraries with one limit for the process, and those with one limit for each thread.

    Finding them takes milliseconds, so it is repeated only when the number of imported ``modules`` changes.
    """
    blas = ThreadpoolController().select(user_api="blas").lib_controllers
    found = [library for library in blas if library.num_threads]
    own = [lib for lib in found if lib.internal_api == "openblas" and getattr(lib, "threading_layer", "") == "openmp"]
    return [library for library in found if library not in own], own


_ONE_THREAD = _OneThread()


def one_blas_thread() -> contextlib.AbstractContextManager[None]:
    """Return a context in which the BLAS libraries of this process use one thread; cheap, and thread-safe."""
    return _ONE_THREAD
