"""From a function to a command: the options that all commands share, and the exit status of whatever happens.

Exit status: 0 done; 2 the user's input is wrong; 130 interrupted; 1 anything else.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import inspect
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Annotated, Any, Final, get_type_hints

import typer

from scalehsi.cli.console import Console
from scalehsi.schema import InputError, Interrupted

DONE: Final = 0
FAILED: Final = 1
WRONG_INPUT: Final = 2
INTERRUPTED: Final = 130
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def _shared(
    *,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Where to compute: local (worker processes on this machine), slurm, sge, pbs, lsf, or the address "
            "of a scheduler such as tcp://host:8786. Without it: the threads of this process.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Worker processes or jobs; threads without --cluster.")
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of one worker, such as 4GiB.")] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="What a fit computes on.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Give the answer also as JSON, in the last line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave out progress and remarks.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """The options that every command takes."""


def command(function: Callable[..., dict[str, Any]]) -> Callable[..., int]:
    """Give a function, whose first argument is a `Session`, the shared options and an exit status.

    What it returns is the answer for ``--json``.
    """
    own, shared = _parameters(function)[1:], _parameters(_shared)
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    @functools.wraps(function)
    def run(context: typer.Context, **given: Any) -> int:
        options = {p.name: given.pop(p.name) for p in shared}
        return _run(functools.partial(function, **given), words=list(context.obj), **options)

    run.__signature__ = inspect.Signature([context, *own, *shared])  # type: ignore[attr-defined] # typer reads it
    run.__annotations__ = {p.name: p.annotation for p in [context, *own, *shared]}
    del run.__wrapped__  # or typer would look at the function behind it
    return run


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    # The session's class is not loaded for the sake of its name.
    hints = get_type_hints(function, localns={"Session": object}, include_extras=True)
    return [
        p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for p in inspect.signature(function).parameters.values()
    ]


def _run(
    function: Callable[..., dict[str, Any]], *, words: list[str], as_json: bool, quiet: bool, debug: bool, **where: Any
) -> int:
    """Do it, and tell what came of it."""
    console = Console(quiet=quiet)
    try:
        with _terminable(), _remarks(console):
            session = importlib.import_module("scalehsi.cli.session").Session(console, **where)
            session.check()
            answer = function(session)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        status, text, more = explain(error, words)
        if debug:
            console.traceback()
        fail(console, words, status, text, as_json=as_json, **more)
        return status
    if as_json:
        console.json(answer)
    return DONE


_UsageError: Any = typer.BadParameter.__base__
"""What typer raises for words that it cannot read; it has no name that all versions of typer share."""


def start(app: Any, words: list[str]) -> int:
    """Run the command that the words name, and give its exit status."""
    try:
        status = app.main(words or ["--help"], prog_name="scalehsi", standalone_mode=False, obj=words)
        sys.stdout.flush()
    except _UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "scalehsi"
        text = f"{error.format_message().rstrip('.')}; type {path} --help"
        fail(Console(), words, WRONG_INPUT, text, as_json="--json" in words)
        return WRONG_INPUT
    except BrokenPipeError:
        # Whoever read our output has left (scalehsi info map.zarr | head); nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return int(status or DONE)


def fail(console: Console, words: list[str], status: int, text: str, *, as_json: bool, **more: Any) -> None:
    """The one line about an error, and the same for machines."""
    name = next((w for w in words if not w.startswith("-")), "")
    text = " ".join(text.split())
    console.error(f"scalehsi {name}".strip(), text)
    if as_json:
        console.json({"error": text, "exit": status, **more})


def explain(error: BaseException, words: list[str]) -> tuple[int, str, dict[str, Any]]:
    """Exit status, one line in plain words, and more for machines."""
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", []))
    if isinstance(error, InputError):
        return WRONG_INPUT, str(error), {}
    if isinstance(error, KeyboardInterrupt):
        return _explain_stop(error, words)
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" for {str(error.filename)!r}" if error.filename else ""
        what = "no space left on the disk" if error.errno == errno.ENOSPC else "no space left in the disk quota"
        return FAILED, f"{what}{where}; free some space, or write elsewhere{notes}", {}
    if isinstance(error, OSError) and error.strerror and error.filename:
        return FAILED, f"{error.strerror}: {str(error.filename)!r}{notes}", {}
    if isinstance(error, ValueError) and "checksum" in str(error):
        return WRONG_INPUT, f"a chunk of the data is damaged ({error}); copy or convert the data again{notes}", {}
    if isinstance(error, MemoryError):
        ways = "use smaller blocks (scalehsi convert --chunk-mb 4) or fewer --workers"
        return FAILED, f"this process ran out of memory; {ways}{notes}", {}
    if type(error).__name__ == "KilledWorker":
        return FAILED, f"workers died again and again on the same block; give them more --memory{notes}", {}
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return FAILED, f"{text}{notes} (not foreseen; --debug shows where)", {}


def _explain_stop(error: KeyboardInterrupt, words: list[str]) -> tuple[int, str, dict[str, Any]]:
    if not isinstance(error, Interrupted):
        return INTERRUPTED, "interrupted; what was half written is removed", {}
    told = str(error).split(";")[0]
    more = {"checkpoint": error.checkpoint, "iteration": error.iteration}
    if error.checkpoint:
        again = words if "--resume" in words else [*words, "--resume"]
        text = f"{told}; the state is in {error.checkpoint!r}, go on with: {shlex.join(['scalehsi', *again])}"
    elif any(w.split("=")[0] == "--checkpoint" for w in words):
        text = f"{told}; there was no state to keep yet"
    else:
        text = f"{told}; nothing is kept of it, name a folder with --checkpoint DIR next time"
    return INTERRUPTED, text, more


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, as queues send it, do what Ctrl-C does: clean up and leave."""
    default = signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, None)
    if threading.current_thread() is not threading.main_thread() or not default:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _ToConsole(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.remark(record.getMessage())


@contextlib.contextmanager
def _remarks(console: Console) -> Iterator[None]:
    """Show what the library logs, as remarks."""
    log = logging.getLogger("scalehsi")
    level, handler = log.level, _ToConsole(console)
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
