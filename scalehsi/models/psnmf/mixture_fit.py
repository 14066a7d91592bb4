"""Fit endmembers to binned counts with a Dirichlet mixture model.

The concentration of the prior is annealed (`scalehsi.kernels.poisson.mixture.annealing_schedule`). The variational
parameters, K numbers per bin, are kept in the fit's state.
"""

from __future__ import annotations

import math
from typing import Any, Final

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

SAMPLE_BINS: Final = 16384
"""A larger number of bins is annealed on a sample of at least this many, before all bins are read."""
BOUND_TOLERANCE: Final = 1e-9
"""Relative decrease of the bound that is rounding, because posteriors are stored as float32."""


def anneal(concentration: float, bins: Blocks, s: Float, state: State) -> State:
    """Return the state at the final concentration, after at most 33 passes over the bins or a sample of them.

    s (K, E): spectra of larger bins. state: what the fit keeps besides.
    """
    stride = max(1, math.prod(bins.shape) // SAMPLE_BINS)
    s, gamma = mixture.without_zeros(s), None
    sums: dict[str, Any] = {}
    for alpha, changed in mixture.annealing_schedule(concentration):
        s = mixture.improve(sums, s, power=mixture.OVERRELAXATION) if sums else s
        gamma, sums = _pass(bins, gamma, s, alpha, restart=changed, stride=stride)
    return {**state, "stride": np.asarray(stride), **_next_state(gamma, sums, s, -float(sums["bound"]))}


def is_sample(state: State) -> bool:
    """Whether the state is that of a sample of the bins."""
    return int(state["stride"]) > 1


def extend_to_all_bins(concentration: float, bins: Blocks, state: State) -> State:
    """Return the state of all bins from that of a sample, by one pass over all bins."""
    s = state["kept"]
    gamma, sums = _pass(bins, state["gamma"], s, concentration, restart=True)
    return {**state, "stride": np.asarray(1), **_next_state(gamma, sums, s, -float(sums["bound"]))}


def step(concentration: float, bins: Blocks, state: State) -> tuple[State, Stats]:
    """Make one pass at ``s``, then an over-relaxed step, or return to the step that cannot lower the bound."""
    s, best = state["s"], float(state["objective"])
    gamma, sums = _pass(bins, state["gamma"], s, concentration, stride=int(state["stride"]))
    value = -float(sums["bound"])
    if value > best + BOUND_TOLERANCE * abs(best):
        tried = np.array_equal(s, state["safe"])
        return {**state, "s": state["safe"]}, Stats(best, done=tried, progressing=False)
    value = min(value, best)
    return {**state, **_next_state(gamma, sums, s, value)}, Stats(value)


def _next_state(gamma: Any, sums: dict[str, Any], s: Float, value: float) -> State:
    """The state after a pass at ``s`` (K, E), with its posteriors ``gamma`` (..., y, x, K), sums and objective."""
    return {
        "s": mixture.improve(sums, s, power=mixture.OVERRELAXATION),
        "kept": s,
        "safe": mixture.improve(sums, s),
        "gamma": gamma,
        "T": np.asarray(sums["T"]),
        "TT": np.asarray(sums["TT"]),
        "objective": np.asarray(value),
    }


def spectra(state: State) -> tuple[Float, float]:
    """Spectra (K, E) of bins that consist of one component, and the number of pixels of a bin."""
    return state["safe"] * pure_bin_counts(state["TT"], state["T"])[:, None], float(np.prod(state["fine"]))


def pure_bin_counts(second: Float, first: Float) -> Float:
    """Estimate the counts d (K,) of a bin that consists of one component, so that the fractions of a bin add up to one.

    Minimises ``sum_b (sum_k t_bk / d_k - 1)^2`` over the bins, where t_bk are the counts of component k in bin b, from
    ``second`` (K, K) = sum t t' and ``first`` (K,) = sum t. A component that never fills a bin is estimated from how
    the total counts depend on it.

    Examples
    --------
    >>> counts = np.array([[100.0, 0.0], [50.0, 40.0], [0.0, 80.0]])
    >>> pure_bin_counts(counts.T @ counts, counts.sum(axis=0)).round(6).tolist()
    [100.0, 80.0]
    """
    inverse = nnls(np.asarray(second, dtype=np.float64), np.asarray(first, dtype=np.float64)[None])[0]
    total = float(np.sum(first))
    # A component with an inverse of zero gets the counts of the average bin.
    average = float(np.sum(second)) / total if total > 0 else 1.0
    return np.asarray(np.where(inverse > 0, 1.0 / np.where(inverse > 0, inverse, 1.0), average))


def moments(bins: Blocks, s: Float) -> dict[str, Any]:
    """Sums of the least-squares abundances of the bins with the spectra ``s`` (K, E), and of their products."""
    _, sums = map_fold(least_squares.update, bins, shared={"s": s, "norm": False}, name="psnmf-scale")
    return sums


def _pass(
    bins: Blocks, gamma: Any, s: Float, alpha: float, *, restart: bool = False, stride: int = 1
) -> tuple[Any, dict[str, Any]]:
    """Make one pass; return posteriors (..., y, x, K), NaN where a bin is masked or not in the sample, and the sums.

    gamma: posteriors of the last pass, or None. s (K, E): spectra. alpha: concentration. restart: whether it changed.
    stride: one bin of this many is used.
    """
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
    """`mixture.update` on the bins of a block, or on the sampled ones; the arguments as in `_pass`."""
    index = tile.index
    if stride > 1:
        rows = np.flatnonzero(in_sample(index, stride=stride, seed=0))
        x, index, gamma = x.take(rows), index[rows], None if gamma is None else gamma[rows]
    # The posteriors return to the client as a sum: kept on the workers they would need a second graph in every pass.
    pixels, sums = mixture.update(x, gamma, s=s, alpha=alpha, restart=restart)
    return {}, {**sums, "gamma": [pixels["gamma"]], "index": [index]}
