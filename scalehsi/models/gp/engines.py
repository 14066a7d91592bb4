"""The three engines of `ParallelGP` behind one interface: fit the hyperparameters, then smooth each tile."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Bool, Float, Int
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.kernels.gaussian_process import (
    likelihood,
    missing_fit,
    missing_pixels,
    posterior,
    radial_kernel,
    radial_solver,
)
from scalehsi.kernels.gaussian_process.gaps import choose_tiles, common_gaps_of
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.sampling_points import Points
from scalehsi.models.gp import dense

REPORTED_STEPS: Final = 20
"""Last steps of the training, whose gain the advice reports."""
MAX_INCOMPLETE: Final = 4
"""Most windows with missing pixels in a fit: each costs a hundred times as much as a complete one."""


class Smoothed(NamedTuple):
    """Posterior of the maps in one tile.

    Attributes
    ----------
    mean, std : array of the library of the maps, shape (H * upsample, W * upsample, T)
    steps : int
        Of conjugate gradients, at most; 0 where there is a closed form.
    residual : float
        Of conjugate gradients at the end, relative to the right side.
    """

    mean: Any
    std: Any
    steps: int
    residual: float


class Fitted(NamedTuple):
    """Fitted hyperparameters, and the course of the fit.

    Attributes
    ----------
    hyper : Hyper
    losses : array, shape (n,)
        Negative log evidence before each training step; empty for engines that record none.
    advice : str
        One sentence about the convergence.
    settled : bool
        False where the rounds of a fit with missing pixels were used up.
    pixels : array, shape (T,)
        Measured pixels of each map in the windows that were used.
    """

    hyper: Hyper
    losses: Float
    advice: str
    settled: bool
    pixels: Int


def fit(solver: str, tiles: list[Float], masks: list[Bool], *, steps: int, seed: int, **how: Any) -> Fitted:
    """Fit the hyperparameters to windows of the maps.

    Parameters
    ----------
    solver : {"structured", "iterative", "dense"}
    tiles : list of arrays, shape (H, W, T)
        Windows of one size.
    masks : list of bool arrays, shape (H, W, T)
        True where each map was measured.
    steps : int
        Training steps of "dense".
    seed : int
    **how
        kernel, bounds, isotropic and rank, as of `scalehsi.kernels.gaussian_process.likelihood.fit`.
    """
    complete, none = all(mask.all() for mask in masks), np.zeros(0)
    if not complete:
        kept = choose_tiles(masks, MAX_INCOMPLETE if solver == "structured" else len(masks))
        tiles, masks = [tiles[i] for i in kept], [masks[i] for i in kept]
    pixels = np.sum([mask.sum(axis=(0, 1)) for mask in masks], axis=0)
    masks = common_gaps_of(masks)
    if solver == "dense":
        found, losses = dense.fit(tiles[0], masks[0], steps=steps, **how)
        last = losses[-REPORTED_STEPS:]
        gained = f"After {steps} steps of Adam, of which the last {len(last)} gained {last[0] - last[-1]:.2g} nats."
        return Fitted(found, losses, gained, settled=True, pixels=pixels)
    with one_blas_thread():
        if solver == "iterative" and masks[0].ndim == 2:
            found = radial_kernel.fit(tiles, masks, **how)
        elif complete:
            found = likelihood.fit(tiles, **how)
        else:
            found = missing_fit.fit_missing(tiles, masks, seed=seed, **how)
            settled = len(found.history) < missing_fit.MAX_ROUNDS
            rounds = f"{len(found.history)} rounds in which missing pixels were drawn"
            said = f"Lengths and noise {'settled' if settled else 'did not settle'} in {rounds}."
            return Fitted(found, none, said, settled=settled, pixels=pixels)
    said = f"The evidence settled within 0.01 nats after {found.evaluations} evaluations."
    return Fitted(found, none, said, settled=True, pixels=pixels)


class Engine(NamedTuple):
    """Engine and its settings, the same for all tiles.

    Attributes
    ----------
    solver : {"structured", "iterative", "dense"}
    uncertainty : {"auto", "draws", "density"}
        Method of the deviation of tiles with missing pixels.
    draws : int
    seed : int
    """

    solver: str
    uncertainty: str
    draws: int
    seed: int


def smooth(y: Any, seen: Any, hyper: Hyper, engine: Engine, *, upsample: Points, first: tuple[int, int]) -> Smoothed:
    """Compute mean and standard deviation of a tile, in the precision of its maps.

    Parameters
    ----------
    y : array, shape (H, W, T)
        Of any library for "structured", else of numpy.
    seen : array of bool, shape (H, W, T)
        True where each map was measured.
    hyper : Hyper
    engine : Engine
    upsample : int or two tuples of float
        Points per pixel, or the positions of points.
    first : (int, int)
        Identifies the tile; part of the seed of its draws.
    """
    seed = int(np.random.default_rng([engine.seed, *first]).integers(2**31))
    if engine.solver == "dense":
        mean, std = dense.predict(y, seen, hyper, upsample=upsample)
        return Smoothed(mean, std, 0, 0.0)
    if engine.solver == "iterative":
        assert isinstance(upsample, int)  # checked with the settings
        found = radial_solver.solve(
            y, seen, hyper, upsample=upsample, draws=engine.draws, seed=seed, tolerance=missing_pixels.TOLERANCE
        )
        assert found.std is not None  # there are at least two draws
        return Smoothed(found.mean, found.std, found.steps, found.residual)
    filled = missing_pixels.fill(y, seen, hyper)
    dtype = np.float32 if str(y.dtype).endswith("float32") else np.float64
    mean, std = posterior.predict(filled.maps, hyper, upsample=upsample, dtype=dtype)
    if not bool(seen.all()):
        std = missing_pixels.deviation(
            (int(y.shape[0]), int(y.shape[1])),
            seen,
            hyper,
            method=engine.uncertainty,
            count=engine.draws,
            seed=seed,
            upsample=upsample,
        )
    return Smoothed(mean, std, filled.steps, filled.residual)
