"""Fits whose state contains the maps: ALS, HALS and multiplicative updates, and spatially smoothed maps.

The maps are part of the state on the client, so a checkpoint contains them and a lost worker loses nothing; this limits
their size.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks, map_fold
from scalehsi.checks import require
from scalehsi.cube import navigation_dims
from scalehsi.fitting.model import State, Stats
from scalehsi.kernels import least_squares, poisson
from scalehsi.kernels.least_squares import endmember_update, textbook_rules
from scalehsi.models.nmf.settings import Settings
from scalehsi.schema import COMPONENT

LARGEST_MAPS_BYTES: Final = 256 * 2**20
"""Largest maps that may be part of the state."""
FIRST_RIDGE: Final = 1.0
"""First weight of the distance to the last step in "mals"; it falls while few values are clipped, else it rises."""
EDGE_SCALE: Final = 1e-3
"""With "tv", differences of neighbours below this fraction of the map's root mean square are smoothed."""


def needed(model: Settings) -> bool:
    """Whether the state of a fit with these settings contains the maps."""
    return bool(model.smoothness) or model.solver in textbook_rules.RULES


def check(model: Settings, cube: xr.DataArray) -> None:
    """Refuse a cube whose maps are too large for the state."""
    if needed(model):
        size, most = 4 * model.n_components * math.prod(cube.shape[:-1]), LARGEST_MAPS_BYTES
        what = f"smoothness={model.smoothness}" if model.smoothness else f"solver={model.solver!r}"
        require(
            size <= most,
            f"{what} keeps maps of {size / 2**20:.0f} MiB on the client, at most {most / 2**20:.0f} MiB are possible; "
            "bin the cube, or use solver='exact' without smoothness",
        )


def step(model: Settings, view: Blocks, state: State) -> tuple[State, Stats]:
    """One pass that starts from the last maps, and the step of the endmembers."""
    s, norm = state["s"], not np.isfinite(state["norm"])
    if model.smoothness:
        return _smooth_step(model, view, state, norm=norm)
    if model.loss == "poisson":
        return _multiplicative_step(view, state)
    ridge = float(state["ridge"])
    fn = partial(textbook_rules.update, rule=model.solver, ridge=ridge)
    given = [_maps(view, state["c"])] if "c" in state else []
    state, sums = _pass(fn, view, given, {"s": s, "norm": norm}, state, name=f"nmf-{model.solver}")
    value = least_squares.objective({**sums, "norm": state["norm"]}, s)
    new, clipped = textbook_rules.improve(sums, s, rule=model.solver, ridge=ridge)
    fixed = ~state["free"]
    new[fixed] = s[fixed]
    clipped = max(clipped, float(sums["clipped"]) / (float(state["pixels"]) * len(s)))
    ridge = min(FIRST_RIDGE, 2 * ridge) if clipped > 0.3 else max(1e-6, 0.7 * ridge)
    return {**state, "s": new, "kept": new, "ridge": np.asarray(ridge), "objective": np.asarray(value)}, Stats(value)


def _multiplicative_step(view: Blocks, state: State) -> tuple[State, Stats]:
    """The rule of Lee and Seung for counts; the first maps divide the counts of a pixel equally."""
    s = state["s"]
    given = [_maps(view, state["c"])] if "c" in state else []
    state, sums = _pass(_multiplied, view, given, {"s": s}, state, name="nmf-mu")
    value = poisson.objective(sums, s, float(state["entropy"]))
    new = np.where(state["free"][:, None], poisson.improve_multiplicative(sums, s), s)
    return {**state, "s": new, "kept": new, "objective": np.asarray(value)}, Stats(value)


def _multiplied(x: Any, c: Any = None, *, s: Float) -> tuple[dict[str, Any], dict[str, Any]]:
    """One multiplicative update of a block. x: counts (P, E). c: last maps (P, K), or None. s: (K, E)."""
    if c is None:
        even = np.asarray(x, dtype=np.float64).sum(axis=1)[:, None] / (len(s) * s.sum(axis=1))
        c = np.ascontiguousarray(even)
    return poisson.update_from(x, np.ascontiguousarray(c, dtype=np.float64), s=s)


def _smooth_step(model: Settings, view: Blocks, state: State, *, norm: bool) -> tuple[State, Stats]:
    """A step with smoothed maps. norm: also sum the squares of the data."""
    s = state["s"]
    diagonal, target = _pull(model, state) if "c" in state else (np.zeros((*view.shape, len(s))),) * 2
    given = [_maps(view, diagonal), _maps(view, target)]
    state, sums = _pass(textbook_rules.penalised, view, given, {"s": s, "norm": norm}, state, name="nmf-smooth")
    # The penalty is on the product of map and spectrum, so map differences act as a ridge on the spectra.
    weights, bonds = _bonds(model, state)
    rough = np.zeros(len(s))
    for axis, weight in weights.items():
        rough += (weight * bonds[axis] ** 2).reshape(-1, len(s)).sum(axis=0)
    value = least_squares.objective({**sums, "norm": state["norm"]}, s)
    value += 0.5 * float(np.sum(rough * np.diag(s @ s.T)))
    new = endmember_update.least_squares(sums["N"], sums["M"] + np.diag(rough), s, free=state["free"])
    return {**state, "s": new, "kept": new, "objective": np.asarray(value)}, Stats(value)


def _pass(
    fn: Any, view: Blocks, given: list[xr.DataArray], shared: dict[str, Any], state: State, *, name: str
) -> tuple[State, dict[str, Any]]:
    """One pass; returns the state with the new maps, and the sums.

    fn: block function. given: arrays aligned with the pixels. shared: its shared arguments. name: of the tasks.
    """
    handles, sums = map_fold(fn, view, *given, shared=shared, keep=["c"], name=name)
    maps = handles["c"].to_dataarray({COMPONENT: len(shared["s"])}, dtype=np.float32)
    c = np.moveaxis(np.asarray(maps.compute().values), 0, -1)
    new = {**state, "c": np.ascontiguousarray(c)}
    return ({**new, "norm": np.asarray(sums["norm"])} if "norm" in sums else new), sums


def _maps(view: Blocks, values: np.ndarray[Any, Any]) -> xr.DataArray:
    return xr.DataArray(np.nan_to_num(values), dims=(*navigation_dims(view.cube), COMPONENT))


def _bonds(model: Settings, state: State) -> tuple[dict[int, Float], dict[int, Float]]:
    """Weights and differences of neighbouring pixels along y and x; masked pixels (NaN) have no weight."""
    c = np.asarray(state["c"], dtype=np.float64)
    axes = (c.ndim - 3, c.ndim - 2)
    differences = {a: np.diff(c, axis=a) for a in axes}
    size = np.sqrt(np.nanmean(c**2, axis=tuple(range(c.ndim - 1)))) + 1e-300
    weights = {}
    for axis, step_ in differences.items():
        if model.smoothness_kind == "quadratic":
            weight = np.full(step_.shape, model.smoothness)
        else:
            weight = model.smoothness * size / np.maximum(np.abs(step_), EDGE_SCALE * size)
        weights[axis] = np.where(np.isfinite(step_), weight, 0.0)
        differences[axis] = np.nan_to_num(step_)
    return weights, differences


def _pull(model: Settings, state: State) -> tuple[Float, Float]:
    """Diagonal and target of the separable bound of the penalty at the last maps.

    De Pierro 1995, doi:10.1109/42.370409.
    """
    c = np.asarray(state["c"], dtype=np.float64)
    power = np.sum(state["s"] ** 2, axis=1)
    diagonal, target = np.zeros(c.shape), np.zeros(c.shape)
    weights, _ = _bonds(model, state)
    for axis, weight in weights.items():
        count = c.shape[axis]
        low = [slice(None)] * c.ndim
        high = [slice(None)] * c.ndim
        low[axis], high[axis] = slice(0, count - 1), slice(1, count)
        first, second = tuple(low), tuple(high)
        middle = np.nan_to_num(0.5 * (c[first] + c[second]))
        for side in (first, second):
            diagonal[side] += 2 * weight * power
            target[side] += 2 * weight * power * middle
    return diagonal, target
