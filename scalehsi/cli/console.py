"""What a command shows: results on standard output; progress, remarks and errors on standard error.

Colours and bars are for terminals only, and `NO_COLOR` is respected; a log file gets a line now and then instead.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPE_WIDTH: Final = 160
"""Characters in a line where standard output is no terminal: wide enough for every table."""
REMARK_SECONDS: Final = 60.0
"""How often a long computation tells a log file how far it is."""

Listener = Callable[[int, int], None]


class Console:
    """Where a command writes.

    Parameters
    ----------
    quiet : bool
        Leave out everything but answers and errors.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._out = _rich(stderr=False)
        self._err = _rich(stderr=True)

    @property
    def drawing(self) -> bool:
        """True where a progress bar makes sense."""
        return self._err.is_terminal and not self.quiet

    def answer(self, text: str = "") -> None:
        """A line that the user asked for."""
        self._out.print(text, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """A line of the result that `quiet` leaves out."""
        if not self.quiet:
            self.answer(text)

    def remark(self, text: str) -> None:
        """A line about how it goes."""
        if not self.quiet:
            self._err.print(text, soft_wrap=True)

    def error(self, command: str, text: str) -> None:
        """The one line that says what went wrong."""
        self._err.print(f"[bold red]{command}:[/] ", markup=True, end="")
        self._err.print(text, soft_wrap=True)

    def traceback(self) -> None:
        """Where the error that is being handled came from."""
        self._err.print(traceback.format_exc().rstrip(), soft_wrap=True)

    def json(self, values: Mapping[str, Any]) -> None:
        """One JSON object on one line."""
        self._out.file.write(json.dumps(plain(values)) + "\n")
        self._out.file.flush()

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values in two columns."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in rows:
            grid.add_row(name, value)
        self._lay_out(grid)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: the first column is text, the others are set flush right."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        for position, head in enumerate(heads):
            table.add_column(head, justify="right" if position else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self._lay_out(table)

    def _lay_out(self, table: Table) -> None:
        """Print a table without the blanks that fill its lines."""
        with self._out.capture() as held:
            self._out.print(table)
        self._out.file.write("".join(f"{line.rstrip()}\n" for line in held.get().splitlines()))

    @contextlib.contextmanager
    def bar(self, words: str) -> Iterator[Listener]:
        """Show how far something is; gives a callable that is told the parts done and their total."""
        if not self.drawing:
            yield _Remarks(self, words).parts
            return
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._err,
            transient=True,
        )
        begin = time.monotonic()
        with bar:
            task = bar.add_task(words, total=None, left="")

            def update(done: int, total: int) -> None:
                # Not rich's own estimate: it takes long to settle where parts are few.
                left = f"about {clock((time.monotonic() - begin) / done * (total - done))} left" if done else ""
                bar.update(task, completed=done, total=total, left=left)

            yield update

    @contextlib.contextmanager
    def busy(self, words: str) -> Iterator[None]:
        """Show that something goes on whose length nobody knows."""
        if not self.drawing:
            yield
            return
        with Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=self._err, transient=True
        ) as bar:
            bar.add_task(words, total=None)
            yield

    def fit_listener(self) -> Callable[[Any], None] | bool:
        """What `scalehsi.fit` takes as ``progress``: its own bar on a terminal, remarks in a log file."""
        if self.quiet:
            return False
        return True if self.drawing else _Remarks(self, "fitting").fit


class _Remarks:
    """Tells a log file how far a computation is, once in a while."""

    def __init__(self, console: Console, words: str) -> None:
        self._console, self._words = console, words
        self._begin = self._last = time.monotonic()

    def _due(self) -> bool:
        now = time.monotonic()
        due = now - self._last >= REMARK_SECONDS
        self._last = now if due else self._last
        return due

    def parts(self, done: int, total: int) -> None:
        if done and self._due():
            left = clock((time.monotonic() - self._begin) / done * (total - done))
            self._console.remark(f"{self._words}: {100 * done // total} %, about {left} left")

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


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any.

    Examples
    --------
    >>> clock(75), clock(3700)
    ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


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


def size(count: float) -> str:
    """Bytes in a unit that fits.

    Examples
    --------
    >>> size(900), size(64_000_000)
    ('900 B', '61.0 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


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
