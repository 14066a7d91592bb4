"""The engines of `ParallelGP` behind one interface: learn the hyperparameters, then smooth a tile."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Bool, Float
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.kernels.gaussian_process import likelihood, missing_pixels, posterior, radial_kernel, radial_solver
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.sampling_points import Points
from scalehsi.models.gp import dense

Bounds = tuple[tuple[float, float], tuple[float, float]]

RADIAL: Final = radial_kernel.ENDING
"""What the name of a kernel ends with that is a function of the distance, and no product of one for each axis."""
LAST: Final = 20
"""Steps of training whose gain is told."""
INCOMPLETE: Final = 4
"""Windows with missing pixels that are learned from, at most: each costs a hundred times what a complete one costs."""


class Smoothed(NamedTuple):
    """A tile without its noise.

    Attributes
    ----------
    mean, std : array of the library of the maps, shape (H * r, W * r, T)
    steps : int
        Of conjugate gradients, at most; 0 where there was a closed form.
    residual : float
        Relative to the right side, at the end.
    """

    mean: Any
    std: Any
    steps: int
    residual: float


class Learned(NamedTuple):
    """Hyperparameters, and how they were come by.

    Attributes
    ----------
    hyper : Hyper
    losses : array, shape (n,)
        Negative logarithm of the evidence along the way; empty where the engine keeps none.
    advice : str
        How far it came, in one sentence.
    """

    hyper: Hyper
    losses: Float
    advice: str


def learn(solver: str, tiles: list[Float], masks: list[Bool], *, steps: int, seed: int, **how: Any) -> Learned:
    """The hyperparameters of windows, of one size; ``how`` is kernel, bounds, isotropic and rank."""
    complete = all(mask.all() for mask in masks)
    none = np.zeros(0)
    if solver == "dense":
        found, losses = dense.fit(tiles[0], masks[0], steps=steps, **how)
        last = losses[-LAST:]
        gained = f"After {steps} steps of Adam, of which the last {len(last)} gained {last[0] - last[-1]:.2g} nats."
        return Learned(found, losses, gained)
    with one_blas_thread():
        if solver == "iterative":
            found = radial_kernel.fit(tiles, masks, **how)
        elif complete:
            found = likelihood.fit(tiles, **how)
        else:
            found = missing_pixels.fit_missing(tiles[:INCOMPLETE], masks[:INCOMPLETE], seed=seed, **how)
            count = len(found.history)
            steady = "settled" if count < missing_pixels.ROUNDS else "did not settle"
            rounds = f"Lengths and noise {steady} in {count} rounds in which missing pixels were drawn."
            return Learned(found, none, rounds)
    return Learned(found, none, f"The evidence settled within 0.01 nats after {found.evaluations} evaluations.")


class How(NamedTuple):
    """How tiles are made.

    Attributes
    ----------
    solver : {"structured", "iterative", "dense"}
    uncertainty : {"auto", "draws", "density"}
        Of tiles with missing pixels.
    draws : int
    seed : int
    """

    solver: str
    uncertainty: str
    draws: int
    seed: int


def smooth(y: Any, observed: Any, hyper: Hyper, how: How, *, upsample: Points, first: tuple[int, int]) -> Smoothed:
    """Mean and standard deviation of a tile, in the precision of its maps; "structured" takes arrays of any library."""
    seed = int(np.random.default_rng([how.seed, *first]).integers(2**31))
    if how.solver == "dense":
        mean, std = dense.predict(y, observed, hyper, upsample=upsample)
        return Smoothed(mean, std, 0, 0.0)
    if how.solver == "iterative":
        assert isinstance(upsample, int)  # the settings see to it
        found = radial_solver.solve(
            y, observed, hyper, upsample=upsample, draws=how.draws, seed=seed, tolerance=missing_pixels.TOLERANCE
        )
        assert found.std is not None  # draws are at least two
        return Smoothed(found.mean, found.std, found.steps, found.residual)
    filled = missing_pixels.fill(y, observed, hyper)
    dtype = np.float32 if str(y.dtype).endswith("float32") else np.float64
    mean, std = posterior.predict(filled.maps, hyper, upsample=upsample, dtype=dtype)
    if not bool(observed.all()):
        std = missing_pixels.deviation(
            (int(y.shape[0]), int(y.shape[1])),
            observed,
            hyper,
            method=how.uncertainty,
            count=how.draws,
            seed=seed,
            upsample=upsample,
        )
    return Smoothed(mean, std, filled.steps, filled.residual)
