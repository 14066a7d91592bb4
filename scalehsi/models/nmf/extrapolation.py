"""Extrapolation of the endmembers, with rejection of steps that raise the objective.

It needs far fewer passes than plain alternation. Ang and Gillis 2019 (doi:10.1162/neco_a_01157), applied to the
endmembers alone, because the abundances are a function of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.fitting.model import State, Stats

FIRST_FACTOR: Final = 0.5
"""First extrapolation factor, relative to the last step."""
FACTOR_GROWTH: Final = 1.1
"""The factor grows by this much while the objective falls, up to its cap."""
CAP_GROWTH: Final = 1.05
"""The cap grows by this much, up to one."""
FACTOR_SHRINK: Final = 1.5
"""The factor is divided by this when a step is rejected."""


def start(s: Float) -> State:
    """The part of the state that this module owns.

    ``s`` is the point of the next pass, ``kept`` the last improved point before extrapolation, ``safe`` a point that
    cannot raise the objective.
    """
    return {
        "s": s,
        "kept": s,
        "safe": s,
        "objective": np.asarray(np.inf),
        "beta": np.asarray(FIRST_FACTOR),
        "cap": np.asarray(1.0),
    }


def accepted(value: float, slack: float, state: State) -> bool:
    """Whether the value of the pass at ``state["s"]`` is not above the best one by more than the slack."""
    return value <= float(state["objective"]) + slack


def back(state: State) -> tuple[State, Stats]:
    """After a rejected pass: return from the extrapolated point to the improved one, from that to the safe one."""
    s = state["s"]
    point = state["safe"] if np.array_equal(s, state["kept"]) else state["kept"]
    shrunk = np.asarray(float(state["beta"]) / FACTOR_SHRINK)
    new = {**state, "s": point, "kept": point, "cap": state["beta"], "beta": shrunk}
    return new, Stats(float(state["objective"]), done=np.array_equal(point, s), progressing=False)


def ahead(
    value: float, better: Float, safe: Float, state: State, unit: Callable[[Float, Float], Float], *, far: bool = True,
    lowest: float = 0.0,
) -> tuple[State, Stats]:  # fmt: skip
    """After an accepted pass: extrapolate beyond the improved point.

    Parameters
    ----------
    value : float
        Objective at ``state["s"]``.
    better, safe : array, shape (K, E)
        Improved and safe points of the loss, in its norm.
    state : State
    unit : callable
        ``unit(s, fallback)`` normalises rows as the loss does.
    far : bool
        False: the next point is the improved one, without extrapolation.
    lowest : float
        Values of the extrapolated point are at least this.
    """
    best, beta, cap = float(state["objective"]), float(state["beta"]), float(state["cap"])
    point = better
    if far and np.isfinite(best):
        point = unit(np.maximum(better + beta * (better - state["kept"]), lowest), better)
    # At the floor of rounding, steps that gain nothing are accepted, too: extrapolated, they would wander for ever.
    factor = FACTOR_GROWTH if value < best else 1 / FACTOR_SHRINK
    value = min(value, best) if far and np.isfinite(value) else value
    new = {
        **state,
        "s": point,
        "kept": better,
        "safe": safe,
        "objective": np.asarray(value),
        "beta": np.asarray(min(cap, beta * factor)),
        "cap": np.asarray(min(1.0, cap * CAP_GROWTH)),
    }
    return new, Stats(value)
