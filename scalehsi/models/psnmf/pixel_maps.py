"""Abundances of single pixels with the spectra of the bins: the last pass of a fit, and projections."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from scalehsi.arrays import Bool, Float
from scalehsi.kernels import least_squares, poisson
from scalehsi.kernels.pixel_rows.residual import residual_of_block
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.poisson import mixture
from scalehsi.kernels.poisson.mixture_yields import EMPTY_RATE, empty_pixels

NEIGHBOUR_WIDTHS: Final = (2.0, 1.5, 1.25, 1.25, 1.25)
"""Standard deviation in pixels of the Gaussian that averages the neighbours, in each round."""


def mixture_maps(
    x: Any, *, s: Float, simplex: bool, alpha: float, neighbours: float, residual: bool = True, tile: Any = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Abundances of the pixels of a block by the mixture model, and their residual.

    x: counts of the block and its halo. s: endmembers (K, E). simplex: abundances sum to one, and are NaN in pixels
    without specimen. alpha: concentration. neighbours: strength of the spatial prior. tile: place of the block and
    its halo.
    """
    few = x if isinstance(x, Counts) else Counts.from_dense(x)
    totals = s.sum(axis=1)
    unit = s / np.where(totals > 0, totals, 1.0)[:, None]
    pixels = few.shape[0]
    core = np.ones(pixels, dtype=bool) if tile is None else tile.core
    shape = (1, pixels) if tile is None else tile.shape
    found = mixture.fractions_with_neighbours(
        few,
        s=unit,
        shape=shape,
        used=core if tile is None else tile.used,
        alpha=alpha,
        neighbours=neighbours,
        widths=NEIGHBOUR_WIDTHS,
        pure_counts=np.maximum(totals, _faintest(totals)) if simplex and totals.any() else np.ones(len(s)),
    )
    c = np.where(totals > 0, found / np.where(totals > 0, totals, 1.0), 0.0)
    empty = np.zeros(pixels, dtype=bool)
    if simplex:
        c /= np.maximum(c.sum(axis=1, keepdims=True), 1e-300)
        empty = empty_pixels(few.totals, _faintest(totals), shape=shape, used=None if tile is None else tile.used)
    else:
        c *= few.totals[:, None]
    rows = {"abundances": c.astype(np.float32)}
    sums: dict[str, Any] = {}
    if residual:
        rows["residual"] = np.zeros(pixels, dtype=np.float32)
        kept = np.where(empty[:, None], np.float32(0), rows["abundances"])
        left, sums = residual_of_block(few.take(np.flatnonzero(core)), kept[core], s=s)
        rows["residual"][core] = left["residual"]
    return _without_empty(rows, empty), sums


def simplex_maps(x: Any, *, s: Float, likely: bool, residual: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Abundances that sum to one, pixel by pixel, and their residual; NaN in pixels without specimen.

    x: values of the block. s: endmembers (K, E). likely: by the Poisson likelihood, for counts, or by least squares.
    """
    solve = poisson.abundances if likely else least_squares.abundances
    rows, sums = solve(x, s=s, simplex=True, residual=residual)
    totals = x.totals if isinstance(x, Counts) else np.asarray(x).sum(axis=1, dtype=np.float64)
    faintest = _faintest(s.sum(axis=1))
    empty = empty_pixels(totals, faintest, shape=totals.shape, used=None) if likely else totals < EMPTY_RATE * faintest
    if residual and empty.any():
        model = s.T @ np.asarray(rows["abundances"][empty], dtype=np.float64).sum(axis=0)
        sums = {**sums, "residual_spectrum": sums["residual_spectrum"] + model}
    return _without_empty(rows, empty), sums


def _faintest(totals: Float) -> float:
    """Least counts (K,) of a pure pixel, of the components that have any."""
    return float(totals[totals > 0].min(initial=np.inf)) if (totals > 0).any() else 0.0


def _without_empty(rows: dict[str, Any], empty: Bool) -> dict[str, Any]:
    """Results of pixels with NaN where ``empty`` (P,)."""
    if empty.any():
        rows = {
            name: np.where(empty[:, None] if v.ndim > 1 else empty, np.float32(np.nan), v) for name, v in rows.items()
        }
    return rows
