"""Accept or reject a point, and go a little further than the improvement: few passes where alternation needs many.

Ang and Gillis 2019 (doi:10.1162/neco_a_01157), on the endmembers alone: the abundances are a function of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.fitting.model import State, Stats

BETA: Final = 0.5
"""First extrapolation; it grows by GROWTH while the objective falls, up to a cap that grows by CAP_GROWTH to one."""
GROWTH: Final = 1.1
CAP_GROWTH: Final = 1.05
SHRINK: Final = 1.5


def start(s: Float) -> State:
    """The part of a state that this module looks after.

    ``s`` is where the next pass goes, ``kept`` the last new ``s`` before extrapolation, ``safe`` one that cannot raise
    the objective.
    """
    return {
        "s": s,
        "kept": s,
        "safe": s,
        "objective": np.asarray(np.inf),
        "beta": np.asarray(BETA),
        "cap": np.asarray(1.0),
    }


def accepted(value: float, slack: float, state: State) -> bool:
    """Whether the pass at ``state["s"]`` found a value that is no worse than the best one."""
    return value <= float(state["objective"]) + slack


def back(state: State) -> tuple[State, Stats]:
    """Rejected: from an extrapolated point go back to the point itself, from that to the safe one."""
    s = state["s"]
    point = state["safe"] if np.array_equal(s, state["kept"]) else state["kept"]
    shrunk = np.asarray(float(state["beta"]) / SHRINK)
    new = {**state, "s": point, "kept": point, "cap": state["beta"], "beta": shrunk}
    return new, Stats(float(state["objective"]), done=np.array_equal(point, s), progressing=False)


def ahead(
    value: float, better: Float, safe: Float, state: State, unit: Callable[[Float, Float], Float], *, far: bool = True
) -> tuple[State, Stats]:
    """Accepted: the next point lies beyond the better one.

    Parameters
    ----------
    value : float
        Objective at ``state["s"]``.
    better, safe : array, shape (K, E)
        As the loss gives them, in its norm.
    state : State
    unit : callable
        ``unit(s, fallback)`` puts rows into the norm of the loss.
    far : bool
        False goes to the better point itself.
    """
    best, beta, cap = float(state["objective"]), float(state["beta"]), float(state["cap"])
    point = better
    if far and np.isfinite(best):
        point = unit(np.maximum(better + beta * (better - state["kept"]), 0.0), better)
    value = min(value, best) if far and np.isfinite(value) else value
    new = {
        **state,
        "s": point,
        "kept": better,
        "safe": safe,
        "objective": np.asarray(value),
        "beta": np.asarray(min(cap, beta * GROWTH)),
        "cap": np.asarray(min(1.0, cap * CAP_GROWTH)),
    }
    return new, Stats(value)
