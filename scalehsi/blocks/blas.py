"""One thread for the BLAS libraries while blocks are being computed.

Dask runs a block a thread, and BLAS threads on top of them cost 2.5x to 20x in time.

Libraries differ in what a limit belongs to. Most have one for the process: blocks that overlap in time share it, the
first one sets it and the last one takes it away. An OpenBLAS on OpenMP has one for each thread. And threadpoolctl (from
3.7) lets only the thread that set the limit of an OpenBLAS set it again, which for us is seldom the one that ends last:
without a word the library would stay at one thread for the rest of the process.
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
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[Any, int]] = []
        self._own = threading.local()

    def __enter__(self) -> None:
        with self._lock:
            shared, own = _libraries(len(sys.modules))
            if not self._inside:
                self._before = _limit(shared)
            self._inside += 1
            stack = self._own.__dict__.setdefault("before", [])
            stack.append(_limit(own))

    def __exit__(self, *_: object) -> None:
        with self._lock:
            _restore(self._own.before.pop())
            self._inside -= 1
            if not self._inside:
                _restore(self._before)


def _limit(libraries: list[Any]) -> list[tuple[Any, int]]:
    """Set one thread, and give what was set before."""
    before = [(library, library.num_threads) for library in libraries]
    _restore([(library, 1) for library in libraries])
    return before


def _restore(limits: list[tuple[Any, int]]) -> None:
    for library, threads in limits:
        with _taken_over(library):
            library.set_num_threads(threads)


@contextlib.contextmanager
def _taken_over(library: Any) -> Iterator[None]:
    """Control of the library for this thread, and for nobody afterwards."""
    release = getattr(library, "clear_controlling_thread", lambda **_: None)
    release(force=True)
    try:
        yield
    finally:
        release(force=True)


@lru_cache(maxsize=1)
def _libraries(modules: int) -> tuple[list[Any], list[Any]]:
    """The BLAS libraries with a limit for the process, and those with one for each thread.

    Finding them takes milliseconds, so it is done again only when modules came that may bring one.
    """
    blas = ThreadpoolController().select(user_api="blas").lib_controllers
    found = [library for library in blas if library.num_threads]
    own = [lib for lib in found if lib.internal_api == "openblas" and getattr(lib, "threading_layer", "") == "openmp"]
    return [library for library in found if library not in own], own


_ONE_THREAD = _OneThread()


def one_blas_thread() -> contextlib.AbstractContextManager[None]:
    """A context in which the BLAS libraries of this process use one thread; cheap, and safe from several threads."""
    return _ONE_THREAD
