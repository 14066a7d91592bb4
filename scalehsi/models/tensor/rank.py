"""How many components a tensor has: core consistency, and what one more component gains over noise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import xarray as xr

from scalehsi.blocks import open_blocks
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.checks import require
from scalehsi.models.tensor.cpd import CORCONDIA, CPD, LEAST_CONSISTENCY, NOISE_GAINS, least_gain
from scalehsi.models.tensor.modes import MODES
from scalehsi.schema import RELATIVE_RESIDUAL

CANDIDATES: Final = "k"


def suggest_rank(
    cube: xr.DataArray, candidates: Iterable[int] = range(1, 7), *, seed: int = 0, **settings: Any
) -> xr.Dataset:
    """Fit several numbers of components to a sample of the pixels, and say which one the data support.

    It is the largest one whose core consistency is at least 80 %, and which lowers the logarithm of the squared
    residual by at least three times what a component of noise would, ``(T + E + P) / (P T E)``.

    Parameters
    ----------
    cube : xarray.DataArray
        Read once.
    candidates : iterable of int, default 1 to 6
        Numbers of components.
    seed : int, default 0
        Of the sample and of the starts.
    **settings
        Of `scalehsi.CPD`: ``modes``, ``nonnegative``, ``weighting``.

    Returns
    -------
    xarray.Dataset
        ``relative_residual``, ``corcondia`` (per cent) and ``gain`` (over that of noise) by ``k``;
        ``attrs["suggested"]``. Candidates and the numbers below them are fitted.

    Raises
    ------
    InputError
        For what `scalehsi.fit` of a `scalehsi.CPD` refuses, and without candidates.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.tensor_stack((24, 24), frames=8, counts_per_pixel=2000)
    >>> suggest_rank(cube, range(1, 5)).attrs["suggested"]
    3
    """
    wanted = sorted({int(k) for k in candidates})
    require(wanted and wanted[0] >= 1, f"candidates are whole numbers of at least 1, got {wanted}; type range(1, 7)")
    model = CPD(wanted[-1], **settings)
    view = open_blocks(model.select_inputs(cube).cube)
    sample, state = model.sampled(view, seed)
    sizes = view.cube.attrs[MODES].sizes
    with one_blas_thread():
        fits = {k: replace(model, n_components=k).best_start(sample, sizes, state, seed) for k in _fitted(wanted)}
    norm = float(next(iter(fits.values()))["norm"])
    objective = {0: 0.5 * norm, **{k: float(fit["objective"]) for k, fit in fits.items()}}
    noise = least_gain(len(sample), sizes) / NOISE_GAINS
    gains = [math.log(max(objective[k - 1], 1e-300) / max(objective[k], 1e-300)) / noise for k in wanted]
    consistencies = [float(fits[k][CORCONDIA]) for k in wanted]
    good = [
        k
        for k, gain, consistency in zip(wanted, gains, consistencies, strict=True)
        if consistency >= LEAST_CONSISTENCY and gain >= NOISE_GAINS
    ]
    return xr.Dataset(
        {
            RELATIVE_RESIDUAL: (CANDIDATES, [math.sqrt(2 * objective[k] / norm) for k in wanted]),
            CORCONDIA: (CANDIDATES, consistencies, {"long_name": "core consistency", "units": "%"}),
            "gain": (CANDIDATES, gains, {"long_name": "gain over that of a component of noise"}),
        },
        coords={CANDIDATES: wanted},
        attrs={"suggested": max(good, default=0)},
    )


def _fitted(wanted: list[int]) -> list[int]:
    """The candidates and the numbers below them."""
    return sorted({*wanted, *(k - 1 for k in wanted)} - {0})
