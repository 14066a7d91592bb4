"""The contrast of signals that are less localised, in a coupled fit of a tilt series: a scan of one number a signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from scalehsi.blocks import Blocks
from scalehsi.fitting.loop import fit_inner
from scalehsi.fitting.model import IterativeModel, State
from scalehsi.models.nmf import extrapolation

KAPPAS: Final = (0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7)
"""Contrasts that are tried first."""
REFINED: Final = 0.02
"""The best contrast is searched to this precision."""
SETTLED_PASSES: Final = 20
"""Passes in which the scale of deviations and the middle of the contrast still follow the abundances."""
ITERATIONS: Final = 600
"""Of a fit with one contrast, at most."""


def scanned(model: IterativeModel, view: Blocks, state: State, names: Sequence[str], *, seed: int) -> State:
    """The state with the contrast of each other signal at which the objective is lowest.

    model: its settings. view: of the fit. state: before the first step. names: of the signals. seed: of the fit.
    """
    inner = replace(model, max_iter=ITERATIONS)

    def tried(at: State, m: int, kappa: float) -> tuple[float, State]:
        new = at["kappa"].copy()
        new[m] = kappa
        begin = {**at, "kappa": new, "passes": np.asarray(0), **extrapolation.start(at["kept"])}
        ended = fit_inner(view, inner, seed, purpose=f"contrast {kappa:.3g} of {names[m]}", state=begin)
        return ended.objective[-1], ended.state

    for m in range(1, len(names)):
        found = {kappa: tried(state, m, kappa) for kappa in KAPPAS}
        while True:
            values = sorted(found)
            best = min(values, key=lambda kappa: found[kappa][0])
            i = values.index(best)
            near = [values[j] for j in (i - 1, i + 1) if 0 <= j < len(values)]
            wide = max(near, key=lambda kappa: abs(kappa - best))
            if abs(wide - best) <= REFINED:
                break
            between = 0.5 * (best + wide)
            found[between] = tried(found[best][1], m, between)
        state = found[best][1]
    return {**state, "passes": np.asarray(SETTLED_PASSES), **extrapolation.start(state["kept"])}
