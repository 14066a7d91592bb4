"""How large bins should be, and how many components the counts show: both by dividing the counts at random.

What is fitted to one half of the counts is judged by the other half, so that no truth is needed. Bins that are too
small give noisy spectra, bins that are too large mix the phases; both predict the other half badly.
"""

from __future__ import annotations

import logging
import math
import numbers
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

from scalehsi.arrays import Float
from scalehsi.blocks import map_fold, open_blocks
from scalehsi.checks import is_number, require
from scalehsi.cube import check_cube, navigation_dims
from scalehsi.fitting.loop import fit_inner
from scalehsi.kernels.poisson import mixture
from scalehsi.models.nmf import NMF
from scalehsi.prepare import bin as add_up
from scalehsi.prepare import thin
from scalehsi.schema import ENERGY, MASK, InputError, X, Y

LADDER: Final = (1, 2, 4, 6, 8, 12, 16, 24, 32)
"""Bins that are tried."""
LEAST: Final = 600.0
"""Counts that a bin should have to be tried."""
TESTED: Final = 500.0
"""Counts of a bin by which spectra are judged, both halves together: few, as there it shows whether a spectrum has
taken a part of another one; with many counts a mixture of the wrong spectra does as well."""
SPAN: Final = 8
"""A map should be so many bins long."""
WINDOW: Final = 192
"""Side of the windows of a large map that are looked at: a multiple of all bins that are tried."""
WINDOWS: Final = 4
TILE: Final = 96
"""Rows of a block: a multiple of all bins that are tried, too."""
ALPHA: Final = 0.02
GROUPS: Final = 512
"""Groups of channels at most in the test of the number of components."""
FEW: Final = 25.0
"""Groups of channels with fewer counts in all are left out of it."""
CLEAR: Final = 1.5
"""A component shows when its eigenvalue is so many times the largest that noise makes."""

log = logging.getLogger("scalehsi")


def scan_bins(
    cube: xr.DataArray, bins: Sequence[int] | None = None, *, n_components: int | None = None, seed: int = 0
) -> xr.Dataset:
    """Score sizes of bins without knowing the truth, and count the components that the data show.

    The counts are divided at random into two halves (`scalehsi.prepare.thin`). For each size the spectra are found on
    the bins of one half; how well they predict the counts of the other half, its maps fitted to the first, is the
    score. Both halves take turns.

    Parameters
    ----------
    cube : xarray.DataArray
        Counts. Of a map of more than 4 x 192 x 192 pixels, four windows that are spread over it are looked at.
    bins : sequence of int, optional
        Pixels of a bin along y and x. Default: sizes from 600 counts a bin up to an eighth of the map.
    n_components : int, optional
        Default: as many as the counts show, ``attrs["rank"]``.
    seed : int

    Returns
    -------
    xarray.Dataset
        By ``bin``: ``score``, logarithm of the likelihood of the held-out counts, above the best one, in units per
        thousand counts; ``score_error``, standard error of that difference; ``stability``, the largest angle in degrees
        between spectra of the two halves; ``plausible``, within one standard error of the best. By ``rank``:
        ``eigenvalue``, of what both halves have in common, in units of the noise's largest. ``attrs``: ``chosen``, the
        middle one of the plausible sizes, and ``rank``. Draw it with `scalehsi.plots.bins`.

    Raises
    ------
    InputError
        For bins larger than the map, and data that are no counts.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.phases((72, 72), counts_per_pixel=100, seed=1)
    >>> scan = hsi.scan_bins(cube, [3, 6, 12], n_components=3)
    >>> scan.attrs["chosen"] in (3, 6, 12), scan["score"].dims
    (True, ('bin',))
    """
    check_cube(cube)
    if cube.dtype.kind not in "ui":
        raise InputError(
            f"scan_bins divides counts at random, whole numbers, and this cube holds {cube.dtype}; if they are counts "
            "type cube.round().astype('uint16')"
        )
    region = _windows(cube)
    if cube.dtype.kind == "i":
        negative = int((region < 0).sum())
        require(not negative, f"{negative} values are negative, which counts never are; clip them: cube.clip(min=0)")
        region = region.astype(f"u{cube.dtype.itemsize}")
    counted = region.where(region[MASK], 0) if MASK in region.coords else region
    total = float(counted.sum(dtype=np.float64))
    pixels = int(region[MASK].sum()) if MASK in region.coords else math.prod(region.shape[:-1])
    per_pixel = total / max(1, pixels)
    require(total > 0, "every count of the cube is zero; is it the right file, or the right dataset of it?")
    sizes = _sizes(bins, region, per_pixel)
    base = math.gcd(*sizes)
    if region.chunks is not None:
        # Few blocks, which are cut where bins end: what follows are hundreds of short passes.
        region = region.chunk({Y: TILE, X: 2 * TILE})
    # All further bins are made of these.
    halves = tuple(_added(half, base).persist() for half in thin(region, seed=seed))
    inner = [size // base for size in sizes]
    rank, eigenvalues = _rank(halves, min(inner))
    k = rank if n_components is None else n_components
    model = NMF(k, weighting="poisson", start="nndsvd", max_iter=200, tol=1e-6, compress=False)
    side = max(1, round(math.sqrt(TESTED / max(per_pixel, 1e-9)) / base))
    values, angles = _judged(halves, inner, min(side, *halves[0].shape[-3:-1]), model, seed)
    found = _table(sizes, values, angles, total)
    chosen = int(found["bin"].values[found["plausible"].values][(int(found["plausible"].sum()) - 1) // 2])
    log.info("bins of %d x %d pixels predict held-out counts best; plausible are %s", chosen, chosen, [
        int(b) for b in found["bin"].values[found["plausible"].values]])  # fmt: skip
    found["eigenvalue"] = ("rank", eigenvalues, {"long_name": "eigenvalue over the largest one of noise"})
    found.attrs = {"chosen": chosen, "rank": rank, "counts_per_pixel": per_pixel, "n_components": k, "seed": seed}
    return found


def _sizes(bins: Sequence[int] | None, region: xr.DataArray, per_pixel: float) -> list[int]:
    rows, columns = region.shape[-3:-1]
    most = min(rows, columns)
    if bins is None:
        fit = [b for b in LADDER if b * b * per_pixel >= LEAST and b * SPAN <= most]
        return fit or [max(1, most // SPAN)]
    good = len(bins) > 0 and all(is_number(b, numbers.Integral) and b >= 1 for b in bins)
    require(good, f"bins is a list of whole numbers of at least 1, got {bins!r}")
    for b in bins:
        require(b <= most, f"a bin of {b} x {b} pixels is larger than the map of {rows} x {columns}; take smaller bins")
    return sorted({int(b) for b in bins})


def _windows(cube: xr.DataArray) -> xr.DataArray:
    """The cube itself, or windows that are spread over it, put one below the other."""
    if math.prod(cube.shape[:-1]) <= WINDOWS * WINDOW**2 and cube.ndim == 3:
        return cube
    starts = []
    for i in range(WINDOWS):
        # A window in each quarter of the map; leading dims are gone through as well.
        place = {Y: (i // 2 + 0.5) / 2, X: (i % 2 + 0.5) / 2}
        window: dict[str, Any] = {}
        for dim in navigation_dims(cube):
            size = cube.sizes[dim]
            if dim in place:
                first = min(max(0, round(place[dim] * size) - WINDOW // 2), max(0, size - WINDOW))
                window[dim] = slice(first, first + WINDOW)
            else:
                window[dim] = min(size - 1, int((i + 0.5) / WINDOWS * size))
        starts.append(cube.isel(window))
    plain = [part.drop_vars([n for n in part.coords if n != ENERGY and n != MASK]) for part in starts]
    joined: xr.DataArray = xr.concat(plain, dim=Y, combine_attrs="override")
    coords = {d: xr.DataArray(np.arange(float(joined.sizes[d])), dims=d, attrs=dict(cube[d].attrs)) for d in (Y, X)}
    return joined.transpose(Y, X, ENERGY).assign_coords(coords)


def _judged(
    halves: tuple[xr.DataArray, ...], sizes: list[int], side: int, model: NMF, seed: int
) -> tuple[Float, Float]:
    """For each size the score of every tested bin (sizes, bins), and the largest angle between the halves' spectra."""
    values: list[list[Float]] = []
    spectra: list[list[Float]] = []
    for train, test in (halves, halves[::-1]):
        judge = open_blocks(_added(train, side), resident=True)
        tested = _added(test, side).drop_vars(MASK, errors="ignore")
        own, found = [], []
        for size in sizes:
            bins = open_blocks(_added(train, size), resident=True)
            state = fit_inner(bins, model, seed, purpose=f"half of the counts, {size} x {size} bins").state
            s = mixture.without_zeros(state["kept"])
            handles, _ = map_fold(_predict, judge, tested, shared={"s": s}, keep=["value"], name="psnmf-scan")
            maps = handles["value"].to_dataarray(dtype=np.float64).compute().values.ravel()
            own.append(maps[np.isfinite(maps)])
            found.append(s)
        values.append(own)
        spectra.append(found)
    scores = np.array([first + second for first, second in zip(*values, strict=True)])
    angles = np.array([_largest_angle(first, second) for first, second in zip(*spectra, strict=True)])
    return scores, angles


def _added(cube: xr.DataArray, size: int) -> xr.DataArray:
    return cube if size == 1 else add_up(cube, **{Y: size, X: size})


def _predict(x: Any, other: Any, *, s: Float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Logarithm of the likelihood of the other half of each bin, shares from this one."""
    theta = mixture.shares(x, s=s, alpha=ALPHA)
    return {"value": mixture.log_predictive(other, theta, s=s)}, {"n": 1}


def _table(sizes: list[int], values: Float, angles: Float, total: float) -> xr.Dataset:
    mean = values.mean(axis=1)
    best = int(np.argmax(mean))
    behind = values[best] - values
    error = behind.std(axis=1) * math.sqrt(values.shape[1])
    below = behind.sum(axis=1)
    unit = 1000.0 / total
    words = "logarithm of the likelihood of held-out counts, relative to the best bins, per thousand counts"
    return xr.Dataset(
        {
            "score": ("bin", -unit * below, {"long_name": words}),
            "score_error": ("bin", unit * error, {"long_name": "standard error of the difference to the best bins"}),
            "stability": ("bin", angles, {"long_name": "largest angle between spectra of both halves", "units": "deg"}),
            "plausible": ("bin", below <= error),
        },
        coords={"bin": ("bin", sizes, {"long_name": "pixels of a bin along y and x"})},
    )


def _largest_angle(a: Float, b: Float) -> float:
    one, other = (m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-300) for m in (a, b))
    angles = np.degrees(np.arccos(np.clip(one @ other.T, -1.0, 1.0)))
    return float(angles[linear_sum_assignment(angles)].max())


def _rank(halves: tuple[xr.DataArray, ...], size: int) -> tuple[int, Float]:
    """How many components both halves have in common, and the eigenvalues that say so, in units of the noise.

    The product of two independent halves has no noise on average, and noise makes its eigenvalues positive and negative
    alike: so the most negative one tells how large a positive one may be by chance.
    """
    first, second = (_added(half, size) for half in halves)
    channels = first.shape[-1]
    cuts = np.unique(np.linspace(0, channels, min(GROUPS, channels) + 1).astype(int))[:-1]
    mean = np.asarray((first.sum(navigation_dims(first)) + second.sum(navigation_dims(second))).values, dtype=float)
    level = np.add.reduceat(mean, cuts)
    keep = level >= FEW
    scale = np.where(keep, 1.0 / np.sqrt(np.maximum(level, 1.0)), 0.0)
    shared = {"cuts": cuts, "scale": scale}
    other = second.drop_vars(MASK, errors="ignore")
    _, sums = map_fold(_common, open_blocks(first, resident=True), other, shared=shared, name="psnmf-rank")
    product = 0.5 * (sums["product"] + sums["product"].T)
    values = np.linalg.eigvalsh(product)[::-1]
    noise = max(-float(values[-1]), 1e-300)
    rank = max(1, int(np.sum(values > CLEAR * noise)))
    return rank, values[: min(20, len(values))] / noise


def _common(x: Any, other: Any, *, cuts: Any, scale: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    one, two = (np.add.reduceat(np.asarray(v, dtype=np.float64), cuts, axis=1) for v in (x, other))
    # Both halves by their common total: the noise of all bins is then alike.
    total = np.maximum(one.sum(axis=1) + two.sum(axis=1), 1e-300)
    weight = 1.0 / np.sqrt(total)[:, None]
    return {}, {"product": (one * weight * scale).T @ (two * weight * scale)}


def choose_bins(cube: xr.DataArray, n_components: int, *, seed: int) -> xr.Dataset:
    """The scan by which `scalehsi.PSNMF` chooses its bins; cubes of other numbers than counts are cut by a rule."""
    if cube.dtype.kind in "ui":
        return scan_bins(cube, n_components=n_components, seed=seed)
    side = max(1, min(cube.shape[-3:-1]) // (4 * SPAN))
    return xr.Dataset({"score": ("bin", [0.0])}, coords={"bin": [side]}, attrs={"chosen": side})
