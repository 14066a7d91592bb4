"""Fit endmembers to binned counts with a Dirichlet mixture model.

The concentration is annealed: a mixture has many optima, one for each choice of absent components, and lowering the
concentration in steps leads to a good one, where a start with the final value stays near the first guess. The
variational parameters, K numbers a bin, are kept in the fit's state.
"""

from __future__ import annotations

import math
from typing import Any, Final, Protocol

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks, Tile, map_fold
from scalehsi.cube import navigation_dims
from scalehsi.fitting.model import State, Stats
from scalehsi.kernels import least_squares
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson import mixture
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.kernels.statistics.survey import in_sample
from scalehsi.schema import COMPONENT

LADDER: Final = (0.5, 0.2, 0.1, 0.05)
"""Parameters of the prior before the last one."""
RUNGS: Final = 8
"""Passes with each."""
POWER: Final = 1.8
"""A step of the spectra goes so much further than the rule says, in logarithms; up to 2 it still converges."""
SAMPLE: Final = 16384
"""Bins, at least, by which the prior is lowered, and one of several starts chosen; then all of them are looked at."""
SLACK: Final = 1e-9
"""What the bound may fall by, relative, without meaning anything: posteriors travel as float32."""


class Mixed(Protocol):
    """What the settings of a mixture are asked for."""

    @property
    def concentration(self) -> float: ...


def begin(model: Mixed, bins: Blocks, s: Float, state: State) -> State:
    """From the spectra of larger bins (K, E) to those with the final prior; 33 passes over the bins, or a sample."""
    stride = max(1, math.prod(bins.shape) // SAMPLE)
    s, gamma = mixture.without_zeros(s), None
    for alpha in [a for a in LADDER if a > model.concentration]:
        for i in range(RUNGS):
            gamma, sums = _pass(bins, gamma, s, alpha, restart=i == 0, stride=stride)
            s = mixture.improve(sums, s, power=POWER)
    gamma, sums = _pass(bins, gamma, s, model.concentration, restart=True, stride=stride)
    return {**state, "stride": np.asarray(stride), **_reached(gamma, sums, s, -float(sums["bound"]))}


def sampled(state: State) -> bool:
    """Whether the state is that of a sample of the bins."""
    return int(state["stride"]) > 1


def whole(model: Mixed, bins: Blocks, state: State) -> State:
    """The state of all bins, from that of a sample; reads all bins once."""
    s = state["kept"]
    gamma, sums = _pass(bins, state["gamma"], s, model.concentration, restart=True)
    return {**state, "stride": np.asarray(1), **_reached(gamma, sums, s, -float(sums["bound"]))}


def step(model: Mixed, bins: Blocks, state: State) -> tuple[State, Stats]:
    """One pass at ``s``; then further on, or back to the step that cannot fail."""
    s, best = state["s"], float(state["objective"])
    gamma, sums = _pass(bins, state["gamma"], s, model.concentration, stride=int(state["stride"]))
    value = -float(sums["bound"])
    if value > best + SLACK * abs(best):
        tried = np.array_equal(s, state["safe"])
        return {**state, "s": state["safe"]}, Stats(best, done=tried, progressing=False)
    value = min(value, best)
    return {**state, **_reached(gamma, sums, s, value)}, Stats(value)


def _reached(gamma: Any, sums: dict[str, Any], s: Float, value: float) -> State:
    """What a pass at ``s`` leaves for the next one."""
    return {
        "s": mixture.improve(sums, s, power=POWER),
        "kept": s,
        "safe": mixture.improve(sums, s),
        "gamma": gamma,
        "T": np.asarray(sums["T"]),
        "TT": np.asarray(sums["TT"]),
        "objective": np.asarray(value),
    }


def spectra(state: State) -> tuple[Float, float]:
    """Spectra (K, E) of a bin that is all of one phase, and the number of pixels of a bin."""
    return state["safe"] * yields(state["TT"], state["T"])[:, None], float(np.prod(state["fine"]))


def yields(second: Float, first: Float) -> Float:
    """Counts of a bin that is all of one component, (K,): with them the fractions of the bins come nearest to one.

    Least squares over the bins, ``sum_b (sum_k t_bk / d_k - 1)^2``, from ``second`` = sum t t' and ``first`` = sum t. A
    component that never takes a whole bin is told from how the total falls or rises with it.

    Examples
    --------
    >>> counts = np.array([[100.0, 0.0], [50.0, 40.0], [0.0, 80.0]])
    >>> yields(counts.T @ counts, counts.sum(axis=0)).round(6).tolist()
    [100.0, 80.0]
    """
    inverse = nnls(np.asarray(second, dtype=np.float64), np.asarray(first, dtype=np.float64)[None])[0]
    total = float(np.sum(first))
    # A component without use for the sum gets the yield of the average bin.
    average = float(np.sum(second)) / total if total > 0 else 1.0
    return np.asarray(np.where(inverse > 0, 1.0 / np.where(inverse > 0, inverse, 1.0), average))


def moments(bins: Blocks, s: Float) -> dict[str, Any]:
    """Sums of the abundances of bins on given spectra, and of their products."""
    _, sums = map_fold(least_squares.update, bins, shared={"s": s, "norm": False}, name="psnmf-scale")
    return sums


def _pass(
    bins: Blocks, gamma: Any, s: Float, alpha: float, *, restart: bool = False, stride: int = 1
) -> tuple[Any, dict[str, Any]]:
    """One pass: posteriors (..., y, x, K), NaN where a bin is masked or not in the sample, and the sums."""
    dims = (*navigation_dims(bins.cube), COMPONENT)
    given = [] if gamma is None else [xr.DataArray(np.nan_to_num(gamma, nan=alpha), dims=dims)]
    shared = {"s": s, "alpha": alpha, "restart": restart, "stride": stride}
    _, sums = map_fold(_update, bins, *given, shared=shared, tile=True, name="psnmf-mixture")
    maps = np.full((math.prod(bins.shape), len(s)), np.nan, dtype=np.float32)
    maps[np.concatenate(sums["index"])] = np.concatenate(sums["gamma"])
    return maps.reshape(*bins.shape, len(s)), sums


def _update(
    x: Counts, gamma: Any = None, *, tile: Tile, s: Float, alpha: float, restart: bool, stride: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    index = tile.index
    if stride > 1:
        rows = np.flatnonzero(in_sample(index, stride=stride, seed=0))
        x, index, gamma = x.take(rows), index[rows], None if gamma is None else gamma[rows]
    # The posteriors come home as a sum: kept with the workers they would need a second graph in every pass.
    pixels, sums = mixture.update(x, gamma, s=s, alpha=alpha, restart=restart)
    return {}, {**sums, "gamma": [pixels["gamma"]], "index": [index]}
