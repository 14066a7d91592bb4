"""Output of the command line: results on standard output; progress, remarks and errors on standard error.

With ``--json`` standard output gets one JSON value and nothing else. Colours and bars are for terminals only, and
`NO_COLOR` is respected; a log file gets a line now and then instead. Titles, histories and names of files come from
others: what they hold for a terminal is shown and not sent (`harmless`).
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from scalehsi.fitting.progress import clock

DONE: Final = 0
FAILED: Final = 1
WRONG_INPUT: Final = 2
INTERRUPTED: Final = 130
PIPE_WIDTH: Final = 160
"""Characters in a line where standard output is no terminal: wide enough for every table."""
REMARK_SECONDS: Final = 60.0
"""Seconds between two lines in a log file about the progress of a long computation."""

Listener = Callable[[int, int], None]


class Console:
    """Where a command writes.

    Parameters
    ----------
    quiet : bool
        Leave out everything but answers, warnings and errors.
    as_json : bool
        Keep standard output free for `json`; the answers in words go to standard error, or nowhere with ``quiet``.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json
        self._out = _rich(stderr=as_json)
        self._out.quiet = quiet and as_json
        self._err = _rich(stderr=True)

    @property
    def drawing(self) -> bool:
        """True where a progress bar makes sense."""
        return self._err.is_terminal and not self.quiet

    def answer(self, text: str = "") -> None:
        """A line that the user asked for."""
        self._out.print(harmless(text), soft_wrap=True)

    def say(self, text: str = "") -> None:
        """A line of the result that `quiet` leaves out."""
        if not self.quiet:
            self.answer(text)

    def remark(self, text: str) -> None:
        """A line about the progress of a command."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """A line on standard error that `quiet` keeps."""
        self._err.print(harmless(text), soft_wrap=True)

    def show_warnings(self, result: Any, translate: Callable[[str], str] = str) -> list[dict[str, str]]:
        """Show what a result warns of, one line each on standard error that `quiet` keeps; return it for ``--json``.

        Parameters
        ----------
        result : Dataset or DataArray
            With ``attrs["warnings"]``, as `scalehsi.fit` and `scalehsi.quantify` write it.
        translate : callable
            Turns a remedy of the library into words of the command line: that of the session.
        """
        # As `result_warnings`, which is not imported here: it loads xarray, which --help does without.
        found: list[dict[str, str]] = json.loads(result.attrs.get("warnings", "[]"))
        for each in found:
            words = f"warning ({each['code']}): {each['text']}{remedy_words(each['remedy'], translate)}"
            self.warn(" ".join(words.split()))
        return found

    def fail(self, words: Sequence[str], status: int, text: str, **more: Any) -> None:
        """Show an error in one line, and as JSON where that was asked for.

        Parameters
        ----------
        words : sequence of str
            What the user typed after ``scalehsi``.
        status : int
            The exit status.
        text : str
            The error.
        **more
            Further values of the JSON object.
        """
        command = next((word for word in words if not word.startswith("-")), "")
        text = " ".join(text.split())
        self._err.print(harmless(f"scalehsi {command}".strip() + ": "), style="bold red", end="")
        self.warn(text)
        if self.as_json:
            self.json({"error": text, "exit": status, **more})

    def traceback(self) -> None:
        """Where the error that is being handled came from."""
        self.warn(traceback.format_exc().rstrip())

    def json(self, values: Any) -> None:
        """One JSON value on one line."""
        sys.stdout.write(json.dumps(plain(values)) + "\n")
        sys.stdout.flush()

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values in two columns."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        self._fill(grid, rows)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool = False) -> None:
        """A table: the first column is text, the others are set flush right; with ``text`` all are text, in lines."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        for position, head in enumerate(heads):
            wraps = text and position > 0
            table.add_column(head, justify="left" if text or not position else "right", no_wrap=not wraps)
        self._fill(table, rows)

    def _fill(self, table: Table, rows: Sequence[Sequence[str]]) -> None:
        """Print a table of these rows without the blanks that fill its lines."""
        for row in rows:
            table.add_row(*map(harmless, row))
        with self._out.capture() as captured:
            self._out.print(table)
        for line in captured.get().splitlines():
            self._out.file.write(f"{line.rstrip()}\n")

    @contextlib.contextmanager
    def bar(self, words: str, *, unit: str = "") -> Iterator[Listener]:
        """Show the progress of a computation; yields a callable that takes the parts done and their total.

        With a ``unit`` the parts are counted in millions of it, and the time left is estimated in the second half,
        which is the longer one: an event stream is indexed first.
        """
        if not self.drawing:
            yield _Remarks(self, words, unit).parts
            return
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._err,
            transient=True,
        )
        clock_of = _TimeLeft(unit)
        with bar:
            task = bar.add_task(harmless(words), total=None, left="")

            def update(done: int, total: int) -> None:
                # Not rich's own estimate: it takes long to settle where parts are few.
                bar.update(task, completed=done, total=total, left=clock_of(done, total))

            yield update

    @contextlib.contextmanager
    def busy(self, words: str) -> Iterator[None]:
        """Show that a computation of unknown length is running."""
        if not self.drawing:
            yield
            return
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=self._err,
            transient=True,
        ) as bar:
            bar.add_task(harmless(words), total=None)
            yield

    def fit_listener(self) -> Callable[[Any], None] | bool:
        """What `scalehsi.fit` takes as ``progress``: its own bar on a terminal, remarks in a log file."""
        if self.quiet:
            return False
        return True if self.drawing else _Remarks(self, "fitting").fit


class _TimeLeft:
    """The parts done, where they have a unit, and the time left, as a text."""

    def __init__(self, unit: str = "") -> None:
        self._unit, self._begin, self._first = unit, time.monotonic(), 0

    def __call__(self, done: int, total: int) -> str:
        now = time.monotonic()
        if self._unit and 2 * done <= total:
            self._begin, self._first = now, done
        counted = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} million {self._unit}" if self._unit else ""
        through = done - self._first
        left = f"about {clock((now - self._begin) / through * (total - done))} left" if through > 0 else ""
        return ", ".join(filter(None, (counted, left)))


class _Remarks:
    """Writes the progress of a computation into a log file, once in a while."""

    def __init__(self, console: Console, words: str, unit: str = "") -> None:
        self._console, self._words, self._left = console, words, _TimeLeft(unit)
        self._last = time.monotonic()

    def _due(self) -> bool:
        now = time.monotonic()
        due = now - self._last >= REMARK_SECONDS
        self._last = now if due else self._last
        return due

    def parts(self, done: int, total: int) -> None:
        left = self._left(done, total)
        if done and self._due():
            self._console.remark(f"{self._words}: {100 * done // total} %, {left}")

    def fit(self, progress: Any) -> None:
        if progress.objective is not None and self._due():
            left = "" if progress.remaining is None else f", at most {clock(progress.remaining)} left"
            self._console.remark(
                f"{self._words}: {progress.iteration} of at most {progress.max_iter} iterations, "
                f"objective {progress.objective:.6g}{left}"
            )


def _rich(*, stderr: bool) -> RichConsole:
    console = RichConsole(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def remedy_words(remedy: str, translate: Callable[[str], str] = str) -> str:
    """The remedy of a warning as it is typed on the command line, after " Try: "; empty where there is none.

    `translate` knows the options of the command; other settings are for ``--set``.

    Examples
    --------
    >>> remedy_words("loss='frobenius', lengthscale=(2, 20)"), remedy_words("scalehsi prepare a b --step bin:y=2")
    (" Try: --set loss=frobenius --set 'lengthscale=(2, 20)'", ' Try: scalehsi prepare a b --step bin:y=2')
    >>> remedy_words("n_components=4")
    ' Try: -k 4'
    """
    if not remedy:
        return ""
    try:
        call = ast.parse(f"f({remedy})", mode="eval").body
        assert isinstance(call, ast.Call)
        given = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError):
        return f" Try: {translate(remedy)}"
    if call.args or not given or ... in given.values():
        return f" Try: {translate(remedy)}"
    words = []
    for name, value in given.items():
        option = f"-k {value}" if name == "n_components" else translate(f"{name}={value!r}")
        typed = f"{name}={value if isinstance(value, str) else repr(value)}"
        words.append(option if option.startswith("-") else f"--set {shlex.quote(typed)}")
    return f" Try: {' '.join(words)}"


# Controls (C0 without tab and line feed, delete, C1), marks and overrides of the writing direction, separators of lines
# and paragraphs, and halves of surrogate pairs, which stand for bytes of file names that are not UTF-8.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """Text with every character that a terminal would obey shown as its escape.

    Examples
    --------
    >>> print(harmless("a title\x1b[31m of \u202eothers"))
    a title\\x1b[31m of \\u202eothers
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def plain(value: Any) -> Any:
    """Values as JSON has them: no NaN, no numpy scalars, paths as text.

    Examples
    --------
    >>> plain({"a": float("nan"), "b": (1, 2)})
    {'a': None, 'b': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def duration(seconds: float) -> str:
    """A time in words.

    Examples
    --------
    >>> duration(4.26), duration(75), duration(3700)
    ('4.3 s', '1 min 15 s', '1 h 01 min')
    """
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def number(value: float) -> str:
    """A number with four digits, or whole with thousands where it is large.

    Examples
    --------
    >>> number(0.0123456), number(147.0), number(1234567.8)
    ('0.01235', '147', '1,234,568')
    """
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def coordinate(value: float) -> str:
    """A place on an axis, with six digits.

    Examples
    --------
    >>> coordinate(0.0100051), coordinate(1228800.4)
    ('0.0100051', '1,228,800')
    """
    return f"{value:,.0f}" if abs(value) >= 1e6 else f"{value:.6g}"


def several(count: int, one: str, many: str = "") -> str:
    """A count with its noun.

    Examples
    --------
    >>> several(1, "chunk"), several(1200, "chunk"), several(2, "axis", "axes")
    ('1 chunk', '1,200 chunks', '2 axes')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
