"""Progress of a fit: a record for callables, a bar for terminals."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """How far a fit is.

    Attributes
    ----------
    stage : {"start", "iterate", "maps"}
    iteration, max_iter : int
        Finished iterations and the most there will be.
    objective : float or None
        After the last finished iteration.
    done, total : int
        Blocks of the present pass.
    elapsed : float
        Seconds since the fit began.
    remaining : float or None
        Estimated seconds to the end, at most: a fit may converge earlier. None where no estimate is possible yet.
    """

    stage: str
    iteration: int
    max_iter: int
    objective: float | None
    done: int
    total: int
    elapsed: float
    remaining: float | None


Listener = Callable[[Progress], None]


class Tracker:
    """Turns blocks and iterations into `Progress` records."""

    def __init__(self, listener: Listener | None, max_iter: int) -> None:
        self._listener = listener
        self._max_iter = max_iter
        self._begin = time.perf_counter()
        self._stage_begin = self._begin
        self._first_iteration = 0
        self.iteration = 0
        self.objective: float | None = None
        self.stage = "start"

    def enter(self, stage: str, iteration: int) -> None:
        """Begin a stage; ``iteration`` is the number of finished iterations."""
        self.stage, self.iteration, self._first_iteration = stage, iteration, iteration
        self._stage_begin = time.perf_counter()
        self.tell(0, 0)

    def finished(self, iteration: int, objective: float) -> None:
        """Report a finished iteration."""
        self.iteration, self.objective = iteration, objective
        self.tell(0, 0)

    @property
    def report(self) -> Callable[[int, int], None] | None:
        """For the block primitive: reports the finished blocks of a pass. None without a listener."""
        return None if self._listener is None else self.tell

    def tell(self, done: int, total: int) -> None:
        """Send a record: ``done`` of ``total`` blocks of this pass are finished."""
        if self._listener is None:
            return
        now = time.perf_counter()
        part = done / total if total else 0.0
        self._listener(
            Progress(
                self.stage,
                self.iteration,
                self._max_iter,
                self.objective,
                done,
                total,
                now - self._begin,
                self._remaining(now - self._stage_begin, part),
            )
        )

    def _remaining(self, spent: float, part: float) -> float | None:
        if self.stage == "iterate":
            through = self.iteration - self._first_iteration + part
            left = self._max_iter - self.iteration - part + 1  # the pass for the maps costs about as much
        else:
            through = part
            left = 1 - part if self.stage == "maps" else 0.0
        if through <= 0 or (self.stage == "start"):
            return None
        return spent / through * left


class Bar:
    """A progress bar on standard error, drawn by rich; a no-op when that is no terminal."""

    def __init__(self, *, force: bool = False) -> None:
        self._force = force
        self._bar: Any = None
        self._task: Any = None
        self._stage = ""

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            if not (self._force or sys.stderr.isatty()):
                return
            self._bar, self._task = _rich_bar(progress.max_iter)
            self._bar.start()
        part = progress.done / progress.total if progress.total else 0.0
        words = {"start": "reading and starting", "iterate": "fitting", "maps": "making the maps"}[progress.stage]
        value = "" if progress.objective is None else f"objective {progress.objective:.6g}"
        seconds = "" if progress.remaining is None else f"at most {clock(progress.remaining)} left"
        done = progress.iteration + part if progress.stage != "maps" else progress.max_iter
        # A stage that ends before the next refresh of the bar is still shown.
        new, self._stage = progress.stage != self._stage, progress.stage
        self._bar.update(self._task, completed=done, description=words, value=value, seconds=seconds, refresh=new)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _rich_bar(max_iter: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[value]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[seconds]}"),
        console=Console(stderr=True),
        transient=True,
    )
    return bar, bar.add_task("", total=max_iter, value="", seconds="")


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
