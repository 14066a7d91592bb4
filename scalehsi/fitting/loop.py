"""The iteration loop of all fits, and when it ends."""

from __future__ import annotations

import logging
from typing import Final

import numpy as np

from scalehsi.blocks import Blocks
from scalehsi.fitting.checkpoint import Saved, _Saver
from scalehsi.fitting.model import Model, State
from scalehsi.fitting.progress import Tracker
from scalehsi.schema import Status

WINDOW: Final = 5
"""Iterations over which the tolerance is judged, so that one small step does not end a fit."""


PATIENCE: Final = 12
"""Rejected steps in a row after which a fit counts as stagnated."""


log = logging.getLogger("scalehsi")


def _iterate(
    view: Blocks, model: Model, seed: int, saved: Saved | None, saver: _Saver, tracker: Tracker
) -> tuple[State, list[float], Status, str]:
    status: Status | None = None
    advice = ""
    if saved is None:
        tracker.enter("start", 0)
        state, history, rejected = model.init(view, seed), [], 0
    else:
        state, history, rejected = saved.state, list(saved.objective), saved.rejected
        log.info("resumed after iteration %d", len(history))
        saver.iteration = len(history)
        # The tolerance may have changed since: judge again.
        status = "converged" if saved.done else _judge(history, model.tol, rejected=rejected)
    tracker.enter("iterate", len(history))
    while status is None and len(history) < model.max_iter:
        new, stats = model.step(view, state)
        if not np.isfinite(stats.objective):
            return state, history, "nonfinite", ""
        state = new
        advice = stats.advice
        history.append(float(stats.objective))
        rejected = 0 if stats.progressing else rejected + 1
        status = "converged" if stats.done else None
        if status is None and stats.settled:
            status = _judge(history, model.tol, rejected=rejected)
        saver.keep(Saved(state, list(history), stats.done, rejected), final=status is not None)
        tracker.finished(len(history), history[-1])
    return state, history, status or "max_iter", advice if status == "converged" else ""


def settle(view: Blocks, model: Model, seed: int, *, state: State | None = None) -> tuple[State, list[float]]:
    """Run the loop of a model to its end, as a part of another model: no checkpoint, no result, no word about it.

    From the given state, or from the model's first one.
    """
    state, history, rejected = model.init(view, seed) if state is None else state, [], 0
    while len(history) < model.max_iter:
        new, stats = model.step(view, state)
        if not np.isfinite(stats.objective):
            break
        state = new
        history.append(float(stats.objective))
        rejected = 0 if stats.progressing else rejected + 1
        if stats.done or (stats.settled and _judge(history, model.tol, rejected=rejected)):
            break
    return state, history


def _judge(history: list[float], tol: float, *, rejected: int) -> Status | None:
    """Converged when the mean relative gain of the last iterations is at most ``tol``; None to go on."""
    if rejected >= PATIENCE:
        return "stagnated"
    if len(history) <= WINDOW or rejected:
        return None
    gain = history[-1 - WINDOW] - history[-1]
    return "converged" if gain <= tol * WINDOW * max(abs(history[-1]), np.finfo(float).tiny) else None
