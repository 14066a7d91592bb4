"""Iterations with relevances (ARD) or orthogonality multipliers: a fixed point, not a descent."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scalehsi.fitting.model import State, Stats
from scalehsi.kernels.priors import relevance
from scalehsi.models.nmf import extrapolation
from scalehsi.models.nmf.losses import UNDAMPED_ITERATIONS, Loss
from scalehsi.models.nmf.settings import Settings

FIXED_POINT_CHANGE: Final = 1e-4
"""Largest change of an endmember at a fixed point, relative to its largest value."""
MULTIPLIER_CHANGE: Final = 0.01
"""Largest change of an orthogonality multiplier there, relative to the largest one, or to this value if larger."""


def step(model: Settings, sums: dict[str, Any], value: float, state: State, loss: Loss) -> tuple[State, Stats]:
    """A step with relevances and orthogonality multipliers of the last pass; components may be removed.

    It is not a descent, so no step is rejected.

    model: the settings. sums: of the pass at ``state["s"]``. value: its objective. loss: that of the settings.
    """
    s = state["s"]
    state = {**state, **loss.lag(sums, s, state)}
    better = loss.unit(loss.improve(sums, s, state)[0], s, state)
    steady = float(np.abs(better - s).max()) <= FIXED_POINT_CHANGE * float(s.max())
    if model.orthogonality and int(state["passes"]) >= UNDAMPED_ITERATIONS:
        better = loss.unit(s + relevance.endmember_step(state["ease"]) * (better - s), s, state)
    new, _ = extrapolation.ahead(
        value, better, better, state, lambda at, fallback: loss.unit(at, fallback, state), far=False
    )
    steady = steady and float(np.abs(state["drift"]).max()) <= MULTIPLIER_CHANGE * max(
        float(state["xi"].max()), MULTIPLIER_CHANGE
    )
    if not model.ard:
        return new, Stats(value, settled=steady)
    keep = _kept(model, new, sums)
    for name in ("s", "kept", "safe", "free", "lam", "xi", "ease", "drift"):
        new[name] = new[name][keep]
    settled = steady and bool(keep.all()) and int(state["passes"]) >= UNDAMPED_ITERATIONS
    advice = f"The objective settled; {len(new['s'])} of {model.n_components} components are relevant."
    return new, Stats(value, settled=settled, advice=advice)


def _kept(model: Settings, state: State, sums: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Components to keep: relevant ones, the stronger of near duplicates, and fixed ones."""
    lam = state["lam"]
    floor = relevance.scales(
        str(model.ard), 0 * lam, 0 * lam, pixels=float(state["pixels"]), shape=model.ard_shape,
        scale=float(state["prior"]),
    ).min()  # fmt: skip
    keep = relevance.needed(lam, float(floor)) if int(state["passes"]) >= UNDAMPED_ITERATIONS else sums["C"] > 0
    if int(state["passes"]) > 3:
        keep = keep & relevance.distinct(state["s"], sums["C"])
    if not keep.any():
        keep[np.argmax(sums["C"])] = True
    return np.asarray(keep | ~state["free"])
