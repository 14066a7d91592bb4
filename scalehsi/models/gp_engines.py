"""The engines of `ParallelGP` behind one interface: learn the hyperparameters, then smooth a tile."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.blocks.blas import one_blas_thread
from scalehsi.kernels.gaussian import iterative, missing, posterior, profile, radial
from scalehsi.kernels.gaussian.profile import Hyper

Float = np.ndarray[Any, np.dtype[np.float64]]
Bool = np.ndarray[Any, np.dtype[np.bool_]]
Bounds = tuple[tuple[float, float], tuple[float, float]]

RADIAL: Final = "-radial"
"""What the name of a kernel ends with that is a function of the distance, and no product of one for each axis."""


INCOMPLETE: Final = 4
"""Windows with missing pixels that are learned from, at most: each costs a hundred times what a complete one costs."""


class Smoothed(NamedTuple):
    """A tile without its noise.

    Attributes
    ----------
    mean, std : array, shape (H * r, W * r, T)
    steps : int
        Of conjugate gradients, at most; 0 where there was a closed form.
    residual : float
        Relative to the right side, at the end.
    """

    mean: Float
    std: Float
    steps: int
    residual: float


def learn(model: Any, tiles: list[Float], masks: list[Bool], *, seed: int) -> Hyper:
    """The hyperparameters of windows, of one size, by the engine of the model."""
    how: dict[str, Any] = {
        "kernel": model.kernel,
        "bounds": model.bounds,
        "isotropic": model.isotropic,
        "rank": model.rank,
    }
    complete = all(mask.all() for mask in masks)
    with one_blas_thread():
        if model.solver == "iterative":
            return radial.fit(tiles, masks, **how)
        if complete:
            return profile.fit(tiles, **how)
        return missing.fit_missing(tiles[:INCOMPLETE], masks[:INCOMPLETE], seed=seed, **how)


def smooth(
    solver: str,
    y: Float,
    observed: Bool,
    hyper: Hyper,
    *,
    upsample: int,
    draws: int,
    rng: np.random.Generator,
) -> Smoothed:
    """Mean and standard deviation of a tile."""
    if solver == "iterative":
        found = iterative.solve(
            y,
            observed,
            hyper,
            upsample=upsample,
            draws=draws,
            seed=int(rng.integers(2**31)),
            tolerance=missing.TOLERANCE,
        )
        assert found.std is not None  # draws are at least two
        return Smoothed(found.mean, found.std, found.steps, found.residual)
    filled = missing.fill(y, observed, hyper)
    mean, std = posterior.predict(filled.maps, hyper, upsample=upsample)
    if not observed.all():
        number = int(rng.integers(2**31))
        std = missing.draw(y, observed, hyper, count=draws, seed=number, upsample=upsample).std(axis=0, ddof=1)
    return Smoothed(mean, std, filled.steps, filled.residual)
