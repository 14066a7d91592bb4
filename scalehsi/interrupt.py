"""SIGINT and SIGTERM: a fit or a command cleans up before it ends, a second signal ends it at once.

The first signal raises an exception in the main thread, whatever that waits for. Library code replaces exceptions (by
that of an unfinished zip file) and loses them (in a finaliser); both are noticed here, so that a stop is never lost.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED: Final = 130
RAISE_AGAIN_SECONDS: Final = 0.01
_SHOW_CURSOR: Final = "\r\x1b[2K\x1b[?25h"
"""For a terminal on which a progress bar was drawn."""


class Stop(BaseException):
    """A signal asked to stop; raised in the main thread, whatever it waits for."""


class _State:
    """The signals of this process.

    Attributes
    ----------
    errors : list of type
        What is raised by the blocks of `stoppable` that run now, the innermost last.
    asked : int or None
        The first signal; None before it.
    held : int
        Blocks of `uninterrupted` that run now.
    pending : bool
        True when the exception of the first signal waits for the end of these blocks.
    before : dict of int to handler
        The handlers to restore.
    said : bool
        True when the user knows that the command is stopping.
    command : bool
        True when the process is a command, which may be ended at once.
    status : int
        With which it would end.
    """

    def __init__(self) -> None:
        self.errors: list[type[BaseException]] = []
        self.asked: int | None = None
        self.held = 0
        self.pending = self.said = self.command = False
        self.before: dict[int, Any] = {}
        self.hook: Any = None
        self.status = INTERRUPTED


_now = _State()


@contextlib.contextmanager
def stoppable(error: type[BaseException] = Stop) -> Iterator[None]:
    """Raise ``error`` with the signal's name in the block at the first SIGINT or SIGTERM, at the latest at its end.

    A second signal ends a command at once; elsewhere it does what it did before.

    Parameters
    ----------
    error : type
        What is raised.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    depth = len(_now.errors)
    _install()
    _now.errors.append(error)
    failure: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        failure = raised
        raise
    finally:
        _now.pending = False
        del _now.errors[depth:]
        asked = _now.asked
        _restore()
        if asked is not None and not isinstance(failure, (error, KeyboardInterrupt)):
            raise error(signal.Signals(asked).name) from failure


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the first signal wait until the end of the block, where half of the work is worse than a short wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _install()
    _now.held += 1
    try:
        yield
    finally:
        _now.held -= 1
        asked = _now.asked
        _restore()
        if _now.pending and not _now.held:
            _now.pending = False
            assert asked is not None
            if not _now.errors:
                signal.raise_signal(asked)
            else:
                raise _now.errors[-1](signal.Signals(asked).name)


def check() -> None:
    """Raise the exception of a stop that library code has swallowed."""
    if (
        _now.asked is not None
        and _now.errors
        and not _now.held
        and threading.current_thread() is threading.main_thread()
    ):
        raise _now.errors[-1](signal.Signals(_now.asked).name)


def _install() -> None:
    """Answer the signals, unless an outer block does already."""
    if not _now.errors and not _now.held:
        _now.asked, _now.said = None, False
        _now.hook, sys.unraisablehook = sys.unraisablehook, _raise_again
        _now.before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            signal.signal(number, _answer)


def _restore() -> None:
    """Restore the handlers at the end of the outermost block."""
    if not _now.errors and not _now.held:
        for number, handler in _now.before.items():
            signal.signal(number, handler)
        sys.unraisablehook = _now.hook
        _now.asked = None


def _answer(number: int, _: FrameType | None) -> None:
    if _now.asked is not None:
        if _now.command:
            _leave(number, None)
        _now.pending = False
        signal.signal(number, _now.before[number])
        signal.raise_signal(number)
        return
    _now.asked = number
    if _now.command and not _now.said:
        _now.said = True
        kept = " with the state of the last complete iteration" if Stop in _now.errors else ""
        _say(f"stopping: waits for what is being written and ends{kept}; a second Ctrl-C stops at once")
    if _now.held:
        _now.pending = True
    elif _now.errors:
        raise _now.errors[-1](signal.Signals(number).name)


def _raise_again(lost: Any) -> None:
    """Send the signal once more when its exception was raised in a finaliser, where Python only prints it."""
    if _now.asked is None or not isinstance(lost.exc_value, (Stop, KeyboardInterrupt)):
        _now.hook(lost)
        return
    number, _now.asked = _now.asked, None
    again = threading.Timer(RAISE_AGAIN_SECONDS, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def own_process() -> None:
    """Let the signals end this process at once wherever no block of `stoppable` runs, as it belongs to a command.

    That is while Python imports, while arguments are read, and while the interpreter shuts down.
    """
    if _now.command or threading.current_thread() is not threading.main_thread():
        return
    _now.command = True
    for number in SIGNALS:
        signal.signal(number, _leave)
    # Registered first, so called last: Python's own end knows no handlers any more.
    atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in SIGNALS])


def is_command() -> bool:
    """Whether this process was started as ``scalehsi`` or ``python -m scalehsi``; worker processes are not."""
    name = sys.argv[0] if sys.argv else ""
    words = sys.orig_argv
    return (name.rpartition("/")[2] == "scalehsi" and name in words) or (name == "-m" and "scalehsi" in words)


def end_with(status: int) -> None:
    """Say with which exit status a signal shall end this command from now on; its work is done."""
    _now.status = status


def _leave(number: int, _: FrameType | None) -> None:
    """End the process at once. Worker processes notice that and end, and the next run removes temporary files."""
    if _now.status == INTERRUPTED:
        _say("stopped at once" if _now.said else f"stopped by {signal.Signals(number).name}")
    os._exit(_now.status)


def _say(text: str) -> None:
    """Write a line to standard error past Python's buffers, which may be in use just now."""
    with contextlib.suppress(OSError):
        os.write(2, ((_SHOW_CURSOR if os.isatty(2) else "") + text + "\n").encode())
