"""Turn a function into a command: options that all commands share, exit status, and errors in plain words.

Exit status: 0 done; 2 the user's input is wrong; 130 interrupted, by SIGINT or SIGTERM; 1 anything else.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import logging
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

from typer import Context, Option
from typer.models import OptionInfo

from scalehsi.cli.console import DONE, FAILED, INTERRUPTED, WRONG_INPUT, Console
from scalehsi.cli.run_fit import state_in
from scalehsi.cli.session import Session
from scalehsi.interrupt import stoppable
from scalehsi.schema import InputError, Interrupted, WorkersLost

FULL_DISK: Final = (errno.ENOSPC, errno.EDQUOT)


def _shared(
    *,
    cluster: Annotated[
        str | None,
        Option(
            metavar="KIND",
            help="Where to compute: local (worker processes on this machine), slurm, sge, pbs, lsf, or the address "
            "of a scheduler such as tcp://host:8786. Without it: the threads of this process.",
        ),
    ] = None,
    workers: Annotated[
        int | None, Option(min=1, metavar="N", help="Processes or jobs; threads without --cluster.")
    ] = None,
    memory: Annotated[str | None, Option(metavar="SIZE", help="Memory of one worker, such as 4GiB.")] = None,
    no_dashboard: Annotated[bool, Option("--no-dashboard", help="A cluster without web pages.")] = False,
    device: Annotated[str, Option(metavar="auto|cpu|cuda", help="What a fit computes on.")] = "auto",
    as_json: Annotated[
        bool, Option("--json", help="Write JSON alone to standard output, everything else to standard error.")
    ] = False,
    quiet: Annotated[
        bool, Option("--quiet", "-q", help="Leave out progress and remarks; fits that do not converge say so.")
    ] = False,
    debug: Annotated[bool, Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """The options that every command takes."""


def command(function: Callable[..., Any]) -> Callable[..., int]:
    """Give a function, whose first argument is a `Session`, the shared options and an exit status.

    What it returns is the answer for ``--json``. Its options have the names of the library's arguments, by which
    `command_line_words` finds them in messages.
    """
    own, shared = _parameters(function)[1:], _parameters(_shared)
    flags = {p.name: flag for p in (*own, *shared) if (flag := _flag(p))}
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=Context)

    @functools.wraps(function)
    def run(context: Context, **given: Any) -> int:
        options = {p.name: given.pop(p.name) for p in shared}
        return _run(functools.partial(function, **given), words=list(context.obj), flags=flags, **options)

    run.__signature__ = inspect.Signature([context, *own, *shared])  # type: ignore[attr-defined] # typer reads it
    run.__annotations__ = {p.name: p.annotation for p in [context, *own, *shared]}
    del run.__wrapped__  # or typer would read the signature of the function behind it
    return run


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    return [
        p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for p in inspect.signature(function).parameters.values()
    ]


def _run(
    function: Callable[..., Any],
    *,
    words: list[str],
    flags: Mapping[str, Flag],
    as_json: bool,
    quiet: bool,
    debug: bool,
    **where: Any,
) -> int:
    """Run a command, and return its exit status.

    Parameters
    ----------
    function : callable
        Takes the session, returns the answer for ``--json``.
    words : list of str
        What the user typed after ``scalehsi``.
    flags : mapping of str to Flag
        The options of the command by the library's name.
    as_json, quiet, debug : bool
    **where
        Fields of the session.
    """
    console = Console(quiet=quiet, as_json=as_json)
    translate = functools.partial(command_line_words, flags=flags)
    session = Session(console, translate=translate, **where)
    try:
        with stoppable(KeyboardInterrupt), _remarks(console, translate):
            session.check()
            answer = function(session)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        kept = state_in(getattr(function, "keywords", {}).get("checkpoint"))
        if session.written:
            error.add_note(f"{', '.join(map(repr, session.written))} is complete")
        elif type(error) is KeyboardInterrupt and kept:
            error = Interrupted("stopped outside of the iterations", checkpoint=kept)
        status, text, more = explain(error, words, translate)
        if debug:
            console.traceback()
        console.fail(words, status, text, **more)
        return status
    if as_json:
        console.json(answer)
    return DONE


def explain(
    error: BaseException, words: list[str], translate: Callable[[str], str] = str
) -> tuple[int, str, dict[str, Any]]:
    """Exit status, one line in plain words, and further values for ``--json``.

    Parameters
    ----------
    error : exception
    words : list of str
        What the user typed after ``scalehsi``.
    translate : callable
        Turns the library's messages into words of the command line.
    """
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", []))
    if isinstance(error, InputError):
        return WRONG_INPUT, translate(str(error)), {}
    if isinstance(error, KeyboardInterrupt):
        return _explain_stop(error, words)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
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
    if isinstance(error, WorkersLost):
        return FAILED, f"{translate(str(error))}{notes}", {}
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return FAILED, f"{text}{notes} (not foreseen; --debug shows where)", {}


def _explain_stop(error: KeyboardInterrupt, words: list[str]) -> tuple[int, str, dict[str, Any]]:
    if not isinstance(error, Interrupted):
        notes = getattr(error, "__notes__", ["what was half written is removed"])
        return INTERRUPTED, f"interrupted; {'; '.join(notes)}", {}
    stop = str(error).split(";")[0]
    more = {"checkpoint": error.checkpoint, "iteration": error.iteration}
    if error.checkpoint:
        again = words if "--resume" in words else [*words, "--resume"]
        text = f"{stop}; the state is in {error.checkpoint!r}, go on with: {shlex.join(['scalehsi', *again])}"
    elif any(w.split("=")[0] == "--checkpoint" for w in words):
        text = f"{stop}; there was no state to keep yet"
    else:
        text = f"{stop}; nothing is kept of it, name a folder with --checkpoint DIR next time"
    return INTERRUPTED, text, more


class Flag(NamedTuple):
    """How an option is typed: its first name, and what separates several values."""

    name: str
    separator: str


def _flag(parameter: inspect.Parameter) -> Flag | None:
    option = parameter.annotation.__metadata__[-1]
    if not isinstance(option, OptionInfo):
        return None
    # In Annotated the first name is where a default would be.
    names = (option.default, *(option.param_decls or ()), f"--{parameter.name.replace('_', '-')}")
    name = next(name for name in names if isinstance(name, str) and name.startswith("-"))
    return Flag(name, ":" if ":" in (option.metavar or "") else ",")


_PYTHON: Final = re.compile(
    r"""
      (?P<kept> (?<!\w)'[^']*'(?!\w) | --[\w-]+[ ]\w+=\S+ | [\w.]+\((?:[^()]|\([^()]*\))*\) )  # text, options, calls
    | (?<![\w/])scalehsi\.(?!zarr\b)(?P<command>[a-z]+)\b(?![.(_])
    | (?P<lead>\b(?:got|type)[ ])(?P<numbers>\([-+.,\d\ e]+\))
    | \b(?P<name>[a-z]\w*)
      (?: =(?P<value> \([^()]*\) | \[[^][]*\] | '[^']*' | \.\.\. | [^][\s,;:()']*[^][\s,;:().'] | (?=[\s,;.)]|$) )
          (?: [ ]\((?P<typed>--[^)]*?)(?:[ ]on[ ]the[ ]command[ ]line)?\) )? )?
    """,
    re.VERBOSE,
)


def command_line_words(message: str, flags: Mapping[str, Flag]) -> str:
    """Turn a message of the library into what a user of the command line types.

    Text in quotation marks and function calls stay.

    Parameters
    ----------
    message : str
    flags : mapping of str to Flag
        The options of the command by the library's name; other names are keys of ``--set``.

    Examples
    --------
    >>> flags = {"overwrite": Flag("--overwrite", ","), "lengthscale": Flag("--lengthscale", ":")}
    >>> command_line_words("replace it with overwrite=True (--overwrite)", flags)
    'replace it with --overwrite'
    >>> command_line_words("lengthscale=(5, 2) is upside down for shape=(64, 64), loss='poisson'", flags)
    '--lengthscale 5:2 is upside down for shape=64,64, loss=poisson'
    """

    def typed(found: re.Match[str]) -> str:
        if found["command"]:
            return f"scalehsi {found['command']}"
        if found["lead"]:
            return found["lead"] + _value(found["numbers"], ",")
        name, value = found["name"], found["value"]
        if found["typed"] or name is None:
            return found["typed"] or found[0]
        flag = flags.get(name)
        if flag is None:
            return name if value is None else f"{name}={_value(value, ',')}"
        if value is None:
            return flag.name if "_" in name else name
        return flag.name if value in ("", "True") else f"{flag.name} {_value(value, flag.separator)}"

    return _PYTHON.sub(typed, message)


def _value(text: str, separator: str) -> str:
    """A Python literal as it is typed on the command line."""
    if text[:1] in ("(", "["):
        return separator.join(_value(part.strip(), separator) for part in text[1:-1].split(",") if part.strip())
    return text[1:-1] if re.fullmatch(r"'[^\s']+'", text) else text


@contextlib.contextmanager
def _remarks(console: Console, translate: Callable[[str], str]) -> Iterator[None]:
    """Show the log of the library as remarks."""
    log, handler = logging.getLogger("scalehsi"), logging.Handler()
    level = log.level
    handler.emit = lambda record: console.remark(translate(record.getMessage()))  # type: ignore[method-assign]
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
