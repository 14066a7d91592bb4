"""Entry point of the command line: find the command that the user types, and run it.

A command is a file in `scalehsi.cli.commands`. Its docstring is the help text, its function `run` does the work, and
the options are in the signature of `run`. ``scalehsi --help`` reads the docstrings alone, so that it answers at once;
the module of a command is imported when the command is used.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

import scalehsi
from scalehsi.cli.console import DONE, FAILED, INTERRUPTED, WRONG_INPUT, Console
from scalehsi.interrupt import end_with, own_process
from scalehsi.schema import suggest

FOLDER: Final = Path(__file__).with_name("commands")
LOOK: Final[dict[str, Any]] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""How typer shows help and errors, for the group and for every command."""


class CommandFiles(TyperGroup):
    """The files of `scalehsi.cli.commands` as a group of commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(file.stem for file in FOLDER.glob("*.py") if not file.stem.startswith("_"))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command with its name and help alone, which is all that lists of commands show."""
        if cmd_name not in self.list_commands(ctx):
            return None
        source = (FOLDER / f"{cmd_name}.py").read_text(encoding="utf-8")
        return TyperCommand(cmd_name, help=ast.get_docstring(ast.parse(source)))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The whole command that the first word names, and the words behind it."""
        name, *words = args
        known = self.list_commands(ctx)
        if name in known:
            module = importlib.import_module(f"scalehsi.cli.commands.{name}")
            single = typer.Typer(add_completion=False, **LOOK)
            single.command(help=module.__doc__)(module.run)
            return name, typer.main.get_command(single), words
        if not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}; {suggest(name, known)}")
        return None, None, words


app = typer.Typer(
    name="scalehsi",
    cls=CommandFiles,
    help="Unmix spectrum images (STEM-EELS, STEM-EDX) of any size: a file in, spectra, maps and a report out.",
    epilog="First time here? Type: scalehsi demo",
    no_args_is_help=False,
    **LOOK,
)

_UsageError: Any = typer.BadParameter.__base__
"""What typer raises for words that it cannot read; it has no name that all versions of typer share."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scalehsi {scalehsi.__version__}")
        raise typer.Exit


@app.callback()
def _everything(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after ``scalehsi``; those of this process by default.

    Returns
    -------
    int
        0 done; 2 the user's input is wrong; 130 interrupted, by SIGINT or SIGTERM; 1 anything else.

    Examples
    --------
    >>> main(["--version"])
    scalehsi ...
    0
    """
    if arguments is not None:
        return _main(list(arguments))
    own_process()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # Python's warnings are for programmers
    status = _main(sys.argv[1:])
    sys.stderr.flush()
    if status == INTERRUPTED:
        os._exit(status)  # threads that still compute are not waited for
    end_with(status)
    return status


def _main(words: list[str]) -> int:
    """Run the command of these words, and return its exit status."""
    try:
        group = typer.main.get_command(app)
        status = group.main(words or ["--help"], prog_name="scalehsi", standalone_mode=False, obj=words)
        sys.stdout.flush()
    except _UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "scalehsi"
        text = f"{error.format_message().rstrip('.')}; type {path} --help"
        Console(as_json="--json" in words).fail(words, WRONG_INPUT, text)
        return WRONG_INPUT
    except BrokenPipeError:
        # Whoever read our output has left (scalehsi info map.zarr | head); nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except SystemExit as ended:  # typer ends so where it has installed or answered a shell's completion
        return int(ended.code or DONE)
    return int(status or DONE)


if __name__ == "__main__":
    sys.exit(main())
