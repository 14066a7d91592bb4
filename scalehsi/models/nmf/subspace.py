"""Fit in a subspace of the data: a few readings of the cube instead of one per iteration.

The subspace is spanned by the strongest directions of the sample, which is spread over the whole cube. One reading
projects each pixel to L numbers, which the workers keep, and all iterations use these. A last reading compares the
objective with that of the cube, and is also an iteration of the full fit. If the two differ, or if the step would still
gain, the fit continues with the cube.
"""

from __future__ import annotations

import logging
from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks, branch, capacity, map_fold
from scalehsi.fitting.model import State, Stats
from scalehsi.fitting.survey import Survey
from scalehsi.fitting.turning import LARGEST_TURN_DEG, largest_turn, longer_path, no_path
from scalehsi.kernels import least_squares
from scalehsi.kernels.subspace import projection
from scalehsi.models.nmf import known_maps
from scalehsi.models.nmf.losses import channel_weights
from scalehsi.models.nmf.settings import Settings

FULL: Final = 0
SMALL: Final = 1
CHECK: Final = 2
"""Phases of a fit: passes over the cube; passes over the subspace; the reading that compares both."""
LARGEST_DIFFERENCE: Final = 1e-3
"""Largest relative difference between the objective in the subspace and that of the cube."""
LARGEST_GAIN: Final = 1e-3
"""Largest relative gain of the last step on the cube at which the fit is finished."""
TOLERANCE_ITERATIONS: Final = 5
"""The tolerance is compared with the mean gain of this many iterations."""

log = logging.getLogger("scalehsi")


def size(n_components: int) -> int:
    """L, the dimension of the subspace."""
    return 3 * n_components + 8


def wanted(model: Settings, view: Blocks) -> bool:
    """Whether a fit uses the subspace: on request, or because the cube is read again each pass."""
    if not model.compress or not model.compressible or view.n_energies <= 2 * size(model.n_components):
        return False
    fits = 4 * int(np.prod(view.shape)) * size(model.n_components) <= capacity().memory // 2
    return fits and (model.compress is True or not view.resident)


def begin(model: Settings, seen: Survey, state: State) -> State:
    """Start in the subspace of the strongest directions of the sample; reads nothing."""
    basis, share = projection.leading_directions(seen.sample, size(model.n_components), **_weights(model, state))
    # As a checkpoint gives it back: BLAS rounds differently in another layout.
    basis = np.ascontiguousarray(basis)
    return {
        **state,
        "phase": np.asarray(SMALL),
        "basis": basis,
        "share": np.asarray(share),
        "trace": np.full(TOLERANCE_ITERATIONS + 1, np.nan),
        "path": no_path(),
    }


def sums_of(model: Settings, view: Blocks, s: Float, state: State) -> dict[str, Any]:
    """The sums of a pass at ``s``, computed in the subspace."""
    weights, basis = _weights(model, state), state["basis"]
    given = {"basis": basis, **weights}
    small = branch(view, "compress", lambda: view.derive(projection.compress, shared=given, name="nmf-compress"))
    root = np.sqrt(weights["w"]) if weights else np.ones(s.shape[1])
    scaled = s * root
    # The sum of squares of the whole data is estimated until the last reading measures it.
    new = not np.isfinite(state["norm"])
    shared = {"s": scaled @ basis, "gram": scaled @ scaled.T, "norm": new}
    if model.simplex:
        shared["simplex"] = True
    if own := known_maps.numbers(model.fixed):
        shared["known"] = own
    rows = known_maps.aligned_maps(model.fixed, view)
    _, sums = map_fold(least_squares.update, small, *rows, shared=shared, name="nmf-subspace")
    guess = {"norm": sums["norm"] / float(state["share"])} if new else {}
    return {**sums, **guess, "N": (sums["N"] @ basis.T) / root}


def followed(model: Settings, state: State, stats: Stats) -> tuple[State, Stats]:
    """After a step in the subspace: decide whether to compare with the cube now."""
    trace = np.append(state["trace"][1:], stats.objective)
    gain = trace[0] - trace[-1]
    flat = bool(np.isfinite(trace).all()) and bool(gain <= model.tol * TOLERANCE_ITERATIONS * abs(trace[-1]))
    path = longer_path(state.get("path", no_path()), state["kept"])
    check = stats.done or (flat and stats.progressing and largest_turn(path) <= LARGEST_TURN_DEG)
    new = {**state, "trace": trace, "path": path, "phase": np.asarray(CHECK if check else SMALL)}
    if check:
        new |= {"s": new["kept"], "guess": new["norm"], "norm": np.asarray(np.nan)}
    return new, Stats(stats.objective, progressing=stats.progressing, settled=False)


def agreed(value: float, after: float, better: Float, state: State) -> bool:
    """Whether the cube agrees with the subspace; logs when it does not.

    Parameters
    ----------
    value, after : float
        Objective of the cube at the end of the fit in the subspace, and after one more step of the endmembers.
    better : array, shape (K, E)
        Endmembers after that step.
    state : State
    """
    promised = float(state["objective"] + 0.5 * (state["norm"] - state["guess"]))
    scale = max(abs(value), 1e-300)
    apart, gain = abs(value - promised) / scale, (value - after) / scale
    turn = largest_turn(longer_path(state.get("path", no_path()), better))
    if apart <= LARGEST_DIFFERENCE and gain <= LARGEST_GAIN and turn <= LARGEST_TURN_DEG:
        return True
    text = (
        "the objective of the subspace differs by %.1e, a step on the cube gains %.1e and turns endmembers by %.2g "
        "degrees; the fit continues on the cube"
    )
    log.info(text, apart, gain, turn)
    return False


def _weights(model: Settings, state: State) -> dict[str, Any]:
    if not model.weighting:
        return {}
    return {"w": channel_weights(state["spectrum"] / float(state["pixels"])), "weigh_pixels": True}
