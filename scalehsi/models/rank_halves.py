"""Fit both halves of a cube: which components come out the same, and how well does one half predict the other?"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import scipy
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.cube import navigation_dims
from scalehsi.fitting.fit import fit
from scalehsi.models.nmf import NMF
from scalehsi.prepare import bin as add_up
from scalehsi.prepare import thin
from scalehsi.result import component_share
from scalehsi.schema import ABUNDANCES, ENDMEMBERS, ENERGY, MASK, X, Y

COUNTS_PER_BIN: Final = 500.0
MOST_BYTES: Final = 24 * 2**20
"""Of one half in float32; bins are larger where it would have more."""
MOST_ITERATIONS: Final = 100
SAME_SPECTRA: Final = 0.95
"""Least cosine between matched spectra of the halves."""
SAME_MAPS: Final = 0.6
"""Least correlation of their maps."""
BLEND: Final = 0.02
"""Share of the mean spectrum in a prediction, so that no expected count is zero."""
SWITCHED_OFF: Final = 1e-3
"""A component with a smaller share of the signal was switched off by relevance determination."""


class Halves(NamedTuple):
    """Two halves of a cube, as binned cubes in memory.

    Attributes
    ----------
    first, second : DataArray
    independent : bool
        True where counts were divided at random; False where the halves are even and odd pixels.
    counts : bool
        True for whole numbers, whose deviance is defined.
    weighting : str or None
        Of the fits.
    """

    first: xr.DataArray
    second: xr.DataArray
    independent: bool
    counts: bool
    weighting: str | None


def halves_of(cube: xr.DataArray, *, seed: int, whole: bool, mean: float) -> Halves:
    """Divide a cube into two halves, in one reading.

    Parameters
    ----------
    cube : DataArray
    seed : int
        Of the division.
    whole : bool
        True for counts, which are divided at random; other data into even and odd pixels.
    mean : float
        Counts of a pixel.
    """
    width = _bin_width(cube, mean if whole else COUNTS_PER_BIN)
    if whole:
        unsigned = cube if cube.dtype.kind == "u" else cube.astype(np.uint32)
        pair = thin(unsigned, seed=seed)
    else:
        pair = _even_odd(cube)
    factors = {Y: min(width, cube.sizes[Y]), X: min(width, cube.sizes[X])}
    binned = [add_up(part, **factors).rename(name) for part, name in zip(pair, ("first", "second"), strict=True)]
    loaded = xr.Dataset({str(part.name): part.drop_vars(MASK, errors="ignore") for part in binned}).compute()
    first, second = (
        loaded[name].assign_coords({MASK: _used(loaded[name], part)}) for name, part in zip(loaded, binned, strict=True)
    )
    negative = bool((loaded["first"] < 0).any())
    return Halves(first, second, whole, whole, None if negative else "poisson")


def compare_halves(
    pair: Halves, ranks: list[int], *, seed: int, significant: int
) -> tuple[dict[str, Float], dict[str, int]]:
    """Fit both halves with every number of components, and compare.

    Parameters
    ----------
    pair : Halves
    ranks : list of int
    seed : int
        Of the fits.
    significant : int
        Largest number of components that can be resolved.

    Returns
    -------
    scores : dict
        Of each rank: "spectra", "maps" and, for counts, "deviance".
    numbers : dict
        "resolved", "deviance" and "relevance": the number that each criterion gives; -1 where it does not apply.
    """
    spectra, maps, deviance = (np.full(len(ranks), np.nan) for _ in range(3))
    for i, k in enumerate(ranks):
        if k > _most_components(pair):
            continue
        a, b = (_fit(half, k, seed=seed, weighting=pair.weighting) for half in (pair.first, pair.second))
        spectra[i], maps[i] = _agreement(a, b, maps=pair.independent)
        if pair.counts:
            deviance[i] = _deviance(a, pair.second) + _deviance(b, pair.first)
    same = (spectra >= SAME_SPECTRA) & ~(maps < SAME_MAPS)
    resolved = [k for k, good in zip(ranks, same, strict=True) if good and k <= significant]
    numbers = {"resolved": max(resolved, default=-1), "deviance": -1, "relevance": -1}
    if np.isfinite(deviance).any():
        numbers["deviance"] = ranks[int(np.nanargmin(deviance))]
        deviance = deviance - np.nanmin(deviance)
    most = min(significant + 2, _most_components(pair))
    kept = _fit(pair.first, most, seed=seed, weighting=pair.weighting, ard="exponential")
    numbers["relevance"] = int(np.sum(component_share(kept).values > SWITCHED_OFF))
    return {"spectra": spectra, "maps": maps, "deviance": deviance}, numbers


def _bin_width(cube: xr.DataArray, mean: float) -> int:
    """Pixels of a bin along y and x: enough counts in each, and not too many bins. mean: counts of a pixel."""
    width = max(1, round(math.sqrt(COUNTS_PER_BIN / max(mean, 1e-9))))
    rows, columns = cube.sizes[Y], cube.sizes[X]
    size = 4 * math.prod(cube.shape)
    width = max(width, math.ceil(math.sqrt(size / MOST_BYTES)))
    return min(width, max(1, min(n for n in (rows, columns) if n > 1) // 4))


def _even_odd(cube: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The cube with a mask of every second pixel, as on a chequerboard, and with the others."""
    dims = navigation_dims(cube)
    number: Any = sum(xr.DataArray(np.arange(cube.sizes[d]), dims=d) for d in dims)
    even = (number % 2 == 0).transpose(*dims)
    used = cube[MASK] if MASK in cube.coords else xr.ones_like(even)
    return cube.assign_coords({MASK: used & even}), cube.assign_coords({MASK: used & ~even})


def _used(half: xr.DataArray, binned: xr.DataArray) -> xr.DataArray:
    """Bins that are used and not empty."""
    filled: Any = (half != 0).any(ENERGY)
    return filled & binned[MASK].compute() if MASK in binned.coords else filled


def _most_components(pair: Halves) -> int:
    """Largest number of components that both halves can be fitted with."""
    pixels = min(int(half[MASK].sum()) for half in (pair.first, pair.second))
    return max(1, min(pixels // 2, pair.first.sizes[ENERGY]))


def _fit(half: xr.DataArray, k: int, *, seed: int, weighting: str | None, **settings: Any) -> xr.Dataset:
    """Weighted least squares of one half. k: number of components."""
    model = NMF(k, loss="frobenius", weighting=weighting, max_iter=MOST_ITERATIONS, **settings)
    return fit(half, model, seed=seed, device="cpu", residual=False)


def _agreement(a: xr.Dataset, b: xr.Dataset, *, maps: bool) -> tuple[float, float]:
    """Least cosine between matched spectra, and least correlation of their maps; NaN without ``maps``."""
    first, second = (r[ENDMEMBERS].values / np.linalg.norm(r[ENDMEMBERS].values, axis=1, keepdims=True) for r in (a, b))
    cosine = first @ second.T
    left, right = scipy.optimize.linear_sum_assignment(-cosine)
    least = float(cosine[left, right].min())
    if not maps or len(first) == 1:
        # The map of a single component is the thickness, which may be the same everywhere.
        return least, 1.0 if maps else np.nan
    c, d = (r[ABUNDANCES].values.reshape(len(first), -1) for r in (a, b))
    there = np.isfinite(c).all(axis=0) & np.isfinite(d).all(axis=0)
    with np.errstate(invalid="ignore"):
        together = [np.corrcoef(c[i][there], d[j][there])[0, 1] for i, j in zip(left, right, strict=True)]
    return least, float(np.nan_to_num(np.min(together)))


def _deviance(result: xr.Dataset, other: xr.DataArray) -> float:
    """``sum y - x log y`` of the other half under the model of this one, in nats a count."""
    c, s = result[ABUNDANCES].values, result[ENDMEMBERS].values
    x = other.values.reshape(-1, s.shape[1]).astype(np.float64)
    y = c.reshape(len(s), -1).T @ s
    used = np.isfinite(y).all(axis=1) & other[MASK].values.reshape(-1)
    x, y = x[used], y[used]
    mean = x.sum(axis=0) / max(x.sum(), 1.0)
    y = (1 - BLEND) * y + BLEND * y.sum(axis=1, keepdims=True) * mean
    there = mean > 0
    return float((y[:, there] - x[:, there] * np.log(np.maximum(y[:, there], 1e-300))).sum() / max(x.sum(), 1.0))
