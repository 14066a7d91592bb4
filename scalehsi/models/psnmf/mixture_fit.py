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
from scalehsi.fitting import binning
from scalehsi.fitting.model import State, Stats
from scalehsi.kernels import least_squares
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson import mixture
from scalehsi.kernels.poisson.mixture_yields import pure_pixel_counts
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
        "objective": np.asarray(value),
    }


def spectra(view: Blocks, state: State, concentration: float) -> tuple[Float, float]:
    """Spectra (K, E) of pixels that consist of one component, and the fraction of the bins without specimen.

    view: the cube. state: of the fit. concentration: final value.
    """
    gamma = np.asarray(state["gamma"], dtype=np.float64)
    amount = gamma.sum(axis=-1)
    totals = np.maximum(amount - concentration * gamma.shape[-1], 0.0)
    fine = [int(side) for side in state["fine"]]
    pixels = binning.used_pixels(view, *fine)
    group = tuple(max(1, int(large) // small) for large, small in zip(state["sides"], fine, strict=True))
    counts, empty = pure_pixel_counts(gamma / amount[..., None], totals, pixels, group=group)
    return counts @ state["safe"], float(empty.mean())


def scaled_spectra(view: Blocks, s: Float, sides: tuple[int, int]) -> tuple[Float, float]:
    """The same of spectra ``s`` (K, E) of bins by least squares; ``sides`` are pixels of a bin along y and x."""
    bins = binning.binned(view, *sides)
    shared = {"s": s, "stride": max(1, math.prod(bins.shape) // SAMPLE_BINS)}
    _, sums = map_fold(_component_counts, bins, shared=shared, tile=True, name="psnmf-scale")
    parts = np.full((math.prod(bins.shape), len(s)), np.nan)
    totals = np.full(math.prod(bins.shape), np.nan)
    index = np.concatenate(sums["index"])
    parts[index], totals[index] = np.concatenate(sums["parts"]), np.concatenate(sums["totals"])
    amount = parts.sum(axis=1, keepdims=True)
    theta = np.where(amount > 0, parts / np.where(amount > 0, amount, 1.0), 1.0 / len(s))
    shape = bins.shape
    counts, empty = pure_pixel_counts(
        np.where(np.isnan(amount), np.nan, theta).reshape(*shape, -1),
        totals.reshape(shape),
        binning.used_pixels(view, *sides),
    )
    return counts @ (s / np.maximum(s.sum(axis=1, keepdims=True), 1e-300)), float(empty.mean())


def _component_counts(x: Any, *, tile: Tile, s: Float, stride: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Counts of sampled bins of a block: in all, and by component. s (K, E): spectra. stride: one bin of this many."""
    rows = np.flatnonzero(in_sample(tile.index, stride=stride, seed=0))
    some = np.asarray(x)[rows]
    c = least_squares.abundances(some, s=s, residual=False)[0]["abundances"]
    parts = np.asarray(c, dtype=np.float64) * s.sum(axis=1)
    totals = some.sum(axis=1, dtype=np.float64)
    return {}, {"parts": [parts], "totals": [totals], "index": [tile.index[rows]]}


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
    x: Any, gamma: Any = None, *, tile: Tile, s: Float, alpha: float, restart: bool, stride: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`mixture.update` on the bins of a block (P, E), or on the sampled ones; the arguments as in `_pass`."""
    index = tile.index
    if stride > 1:
        rows = np.flatnonzero(in_sample(index, stride=stride, seed=0))
        x = x.take(rows) if isinstance(x, Counts) else x[rows]
        index, gamma = index[rows], None if gamma is None else gamma[rows]
    # The posteriors return to the client as a sum: kept on the workers they would need a second graph in every pass.
    pixels, sums = mixture.update(x, gamma, s=s, alpha=alpha, restart=restart)
    return {}, {**sums, "gamma": [pixels["gamma"]], "index": [index]}
