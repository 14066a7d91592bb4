"""The one loop of all fits, inner fits included, and the rule by which it ends."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scalehsi.blocks import Blocks
from scalehsi.fitting.checkpoint import Saved, Saver
from scalehsi.fitting.model import DirectModel, IterativeModel, Model, State
from scalehsi.fitting.progress import Tracker
from scalehsi.fitting.turning import LARGEST_TURN_DEG, largest_turn, longer_path, no_path
from scalehsi.interrupt import check
from scalehsi.schema import Status

TOLERANCE_ITERATIONS: Final = 5
"""The tolerance is compared with the mean gain of this many iterations, so that one small step does not end a fit."""
REJECTED_STEPS: Final = 12
"""A fit stagnates after this many rejected steps in a row."""

log = logging.getLogger("scalehsi")

_inner: ContextVar[list[dict[str, Any]] | None] = ContextVar("inner fits", default=None)


@dataclass(frozen=True)
class Ended:
    """A fit at the end of its loop.

    Attributes
    ----------
    state : State
        The last finite state.
    objective : list of float
        After each iteration.
    status : Status
    advice : str
        A sentence in place of the standard one for that status; empty for the standard one.
    flat : bool
        True where the objective alone says that the fit has converged.
    turn : float
        Largest turn of an endmember in the last five iterations, in degrees; NaN where the model has no endmembers.
    """

    state: State
    objective: list[float]
    status: Status
    advice: str
    flat: bool = False
    turn: float = math.nan


def run_loop(
    view: Blocks,
    model: Model,
    seed: int,
    *,
    state: State | None = None,
    saved: Saved | None = None,
    saver: Saver | None = None,
    tracker: Tracker | None = None,
) -> Ended:
    """Run a model to its end.

    Parameters
    ----------
    view : Blocks
        The cube that is fitted.
    model : IterativeModel or DirectModel
    seed : int
    state : State, optional
        Where to start, in place of the model's own first state.
    saved : Saved, optional
        Where to resume.
    saver : Saver, optional
        Receives the state after each iteration.
    tracker : Tracker, optional
        Reports the progress.
    """
    saver = saver or Saver()
    tracker = tracker or Tracker(None, model.max_iter)
    status: Status | None = None
    current: State = state or {}
    history, rejected, advice, path = [], 0, "", no_path()
    if saved is not None:
        current, history, rejected, path = saved.state, list(saved.objective), saved.rejected, saved.path
        log.info("resumed after iteration %d", len(history))
        saver.iteration = len(history)
        # The tolerance may have changed since: test again. Checkpoints of earlier versions have no path.
        status = "converged" if saved.done else _status_of(history, model.tol, rejected, largest_turn(path))
    elif state is None and isinstance(model, IterativeModel):
        tracker.enter("start", 0)
        current = model.init(view, seed)
    tracker.enter("iterate", len(history))
    while status is None and len(history) < model.max_iter:
        check()
        if isinstance(model, DirectModel):
            new, stats = model.solve(view, seed)
        else:
            assert isinstance(model, IterativeModel)
            new, stats = model.step(view, current)
        if not np.isfinite(stats.objective):
            return Ended(current, history, "nonfinite", "")
        current, advice = new, stats.advice
        history.append(float(stats.objective))
        rejected = 0 if stats.progressing else rejected + 1
        path = longer_path(path, model.spectra(current) if isinstance(model, IterativeModel) else None)
        status = "converged" if stats.done else None
        if status is None and stats.settled:
            status = _status_of(history, model.tol, rejected, largest_turn(path))
        kept = Saved(current, list(history), stats.done, rejected, list(_inner.get() or []), path)
        saver.keep(kept, final=status is not None)
        tracker.finished(len(history), history[-1])
    return Ended(
        *(current, history, status or "max_iter", advice if status == "converged" else ""),
        flat=_flat(history, model.tol),
        turn=largest_turn(path),
    )


def fit_inner(view: Blocks, model: Model, seed: int, *, purpose: str, state: State | None = None) -> Ended:
    """Fit a model as a part of another fit; how it ended becomes part of the outer result.

    Parameters
    ----------
    view : Blocks
        The data of the inner fit, for example bins of pixels.
    model : Model
    seed : int
    purpose : str
        For the user, such as "endmembers of the bins".
    state : State, optional
        Where to start, in place of the model's own first state.
    """
    found = run_loop(view, model, seed, state=state)
    if found.status == "nonfinite":
        log.warning(
            "the inner fit (%s, by %s) became non-finite after %d iterations; its last finite state is used",
            *(purpose, model.name, len(found.objective)),
        )
    records = _inner.get()
    if records is not None:
        ended: dict[str, Any] = {"status": found.status, "iterations": len(found.objective)}
        if found.status == "max_iter" and found.flat and math.isfinite(found.turn):
            ended["turn"] = round(found.turn, 4)
        records.append({"purpose": purpose, "model": model.name, **ended})
    return found


@contextmanager
def recorded_inner_fits(known: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Collect purpose, model, status and iterations of all inner fits; ``known`` are those before a resume."""
    records = list(known)
    token = _inner.set(records)
    try:
        yield records
    finally:
        _inner.reset(token)


def _status_of(history: list[float], tol: float, rejected: int, turn: float) -> Status | None:
    """Converged when the objective is flat and no endmember turns any more; None to go on.

    history: objective after each iteration. tol: relative gain. rejected: rejected steps in a row. turn: in degrees.
    """
    if rejected >= REJECTED_STEPS:
        return "stagnated"
    # A model without endmembers has a turn of NaN.
    return "converged" if not rejected and _flat(history, tol) and not turn > LARGEST_TURN_DEG else None


def _flat(history: list[float], tol: float) -> bool:
    """Whether the mean relative gain of the last iterations is at most ``tol``."""
    if len(history) <= TOLERANCE_ITERATIONS:
        return False
    gain = history[-1 - TOLERANCE_ITERATIONS] - history[-1]
    floor = max(abs(history[-1]), np.finfo(float).tiny)
    return gain <= tol * TOLERANCE_ITERATIONS * floor
