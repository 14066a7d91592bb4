"""Turn SIGINT and SIGTERM into an exception, so that a fit or a command can clean up before it ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Stop(BaseException):
    """A signal asked to stop; raised in the main thread, whatever it waits for."""


@contextlib.contextmanager
def uninterrupted(numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)) -> Iterator[None]:
    """Hold the signals back until the end of the block, where half of the work is worse than a short wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {number: signal.signal(number, lambda number, _: held.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in held[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def stoppable(
    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM), error: type[BaseException] = Stop
) -> Iterator[None]:
    """Raise ``error`` with the signal's name at the first of the signals; a second one does what it did before.

    Parameters
    ----------
    numbers : tuple of int
        The signals.
    error : type
        What is raised.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, _: FrameType | None) -> None:
        restore()
        raise error(signal.Signals(number).name)

    for number in numbers:
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
