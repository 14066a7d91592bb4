"""Scan of bin sizes, and the number of components, by dividing the counts at random into two halves.

The model fitted to one half is scored by the other half, so no truth is needed. Small bins give noisy spectra, large
bins mix the phases; both predict the other half badly.
"""

from __future__ import annotations

import logging
import math
import numbers
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import scipy
import xarray as xr

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

BIN_SIDES: Final = (1, 2, 4, 6, 8, 12, 16, 24, 32)
"""Sides of the tested bins, in pixels."""
LEAST_COUNTS: Final = 600.0
"""Bins with fewer counts are not tested."""
SCORING_COUNTS: Final = 500.0
"""Counts of the bins that score the spectra, both halves together. Few counts show whether a spectrum contains a part
of another one; with many counts a mixture of wrong spectra fits as well."""
BINS_PER_MAP: Final = 8
"""A map has at least this many bins along its shorter side."""
WINDOW_SIDE: Final = 192
"""Side in pixels of the windows that represent a large map: a multiple of all tested bins."""
WINDOWS: Final = 4
BLOCK_ROWS: Final = 96
"""Rows of a block in pixels: also a multiple of all tested bins."""
CONCENTRATION: Final = 0.02
CHANNEL_GROUPS: Final = 512
"""Largest number of groups of channels in the test of the number of components."""
LEAST_GROUP_COUNTS: Final = 25.0
"""Groups of channels with fewer total counts are ignored."""
SIGNIFICANT_RATIO: Final = 1.5
"""A component is significant when its eigenvalue is this many times the largest one of noise."""

log = logging.getLogger("scalehsi")


def scan_bins(
    cube: xr.DataArray, bins: Sequence[int] | None = None, *, n_components: int | None = None, seed: int = 0
) -> xr.Dataset:
    """Score bin sizes without a known truth, and estimate the number of components.

    The counts are divided at random into two halves (`scalehsi.prepare.thin`). For each size the spectra and maps are
    fitted to the bins of one half; the score is the likelihood of the counts of the other half. Then the halves are
    exchanged.

    Parameters
    ----------
    cube : xarray.DataArray
        Counts. A map of more than 4 x 192 x 192 pixels is represented by four windows that are spread over it.
    bins : sequence of int, optional
        Pixels of a bin along y and x. Default: sizes from 600 counts a bin up to an eighth of the map.
    n_components : int, optional
        Default: the estimated number, ``attrs["rank"]``.
    seed : int
        Seed of the random division.

    Returns
    -------
    xarray.Dataset
        By ``bin``: ``score``, logarithm of the likelihood of the held-out counts relative to the best size, per
        thousand counts; ``score_error``, standard error of that difference; ``stability``, the largest angle in degrees
        between spectra of the two halves; ``plausible``, within one standard error of the best. By ``rank``:
        ``eigenvalue`` of the signal that both halves have in common, in units of the largest one of noise. ``attrs``:
        ``chosen``, the middle one of the plausible sizes, and ``rank``. Draw it with `scalehsi.plots.bins`.

    Raises
    ------
    InputError
        For bins larger than the map, and for data that are not counts.

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
            f"scan_bins needs counts, which are whole numbers, and this cube has {cube.dtype}; if they are counts "
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
        # Few blocks, cut at the edges of bins, because hundreds of short passes follow.
        region = region.chunk({Y: BLOCK_ROWS, X: 2 * BLOCK_ROWS})
    # All larger bins are sums of these.
    halves = tuple(_added(half, base).persist() for half in thin(region, seed=seed))
    inner = [size // base for size in sizes]
    rank, eigenvalues = _rank(halves, min(inner))
    k = rank if n_components is None else n_components
    model = NMF(k, loss="frobenius", weighting="poisson", start="nndsvd", max_iter=200, tol=1e-6, compress=False)
    side = max(1, round(math.sqrt(SCORING_COUNTS / max(per_pixel, 1e-9)) / base))
    values, angles = _judged(halves, inner, min(side, *halves[0].shape[-3:-1]), model, seed)
    found = _table(sizes, values, angles, total)
    chosen = int(found["bin"].values[found["plausible"].values][(int(found["plausible"].sum()) - 1) // 2])
    log.info("bins of %d x %d pixels predict held-out counts best; plausible are %s", chosen, chosen, [
        int(b) for b in found["bin"].values[found["plausible"].values]])  # fmt: skip
    found["eigenvalue"] = ("rank", eigenvalues, {"long_name": "eigenvalue over the largest one of noise"})
    found.attrs = {"chosen": chosen, "rank": rank, "counts_per_pixel": per_pixel, "n_components": k, "seed": seed}
    return found


def _sizes(bins: Sequence[int] | None, region: xr.DataArray, per_pixel: float) -> list[int]:
    """Sides of the tested bins: those given, or a selection. region: the counts. per_pixel: counts of a pixel."""
    rows, columns = region.shape[-3:-1]
    most = min(rows, columns)
    if bins is None:
        fit = [b for b in BIN_SIDES if b * b * per_pixel >= LEAST_COUNTS and b * BINS_PER_MAP <= most]
        return fit or [max(1, most // BINS_PER_MAP)]
    listed = isinstance(bins, (Sequence, np.ndarray)) and not isinstance(bins, str)
    require(listed, f"bins is a list of sizes such as [2, 4, 8], got {bins!r}; components are n_components={bins!r}")
    good = len(bins) > 0 and all(is_number(b, numbers.Integral) and b >= 1 for b in bins)
    require(good, f"bins is a list of whole numbers of at least 1, got {bins!r}")
    for b in bins:
        require(b <= most, f"a bin of {b} x {b} pixels is larger than the map of {rows} x {columns}; take smaller bins")
    return sorted({int(b) for b in bins})


def _windows(cube: xr.DataArray) -> xr.DataArray:
    """The cube itself, or windows that are spread over it, concatenated along y."""
    if math.prod(cube.shape[:-1]) <= WINDOWS * WINDOW_SIDE**2 and cube.ndim == 3:
        return cube
    starts = []
    for i in range(WINDOWS):
        # A window in each quarter of the map, at different places along the leading dims.
        place = {Y: (i // 2 + 0.5) / 2, X: (i % 2 + 0.5) / 2}
        window: dict[str, Any] = {}
        for dim in navigation_dims(cube):
            size = cube.sizes[dim]
            if dim in place:
                first = min(max(0, round(place[dim] * size) - WINDOW_SIDE // 2), max(0, size - WINDOW_SIDE))
                window[dim] = slice(first, first + WINDOW_SIDE)
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
    """For each size the score of every scoring bin (sizes, bins), and the largest angle between spectra of the halves.

    halves: the counts. sizes: tested bins in pixels. side: of a scoring bin. model: of the spectra. seed: of the fits.
    """
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
    """Logarithm of the likelihood of the other half of each bin, with fractions from this half."""
    theta = mixture.fractions(x, s=s, alpha=CONCENTRATION)
    return {"value": mixture.log_predictive(other, theta, s=s)}, {"n": 1}


def _table(sizes: list[int], values: Float, angles: Float, total: float) -> xr.Dataset:
    """The scan as a Dataset. sizes: of bins. values: scores (sizes, bins). angles: (sizes,). total: counts."""
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
    return float(angles[scipy.optimize.linear_sum_assignment(angles)].max())


def _rank(halves: tuple[xr.DataArray, ...], size: int) -> tuple[int, Float]:
    """Number of components that both halves have in common, and the eigenvalues in units of the noise.

    The product of two independent halves has no noise on average. Noise makes positive and negative eigenvalues of the
    same size, so the most negative one is the noise level of the positive ones.
    """
    first, second = (_added(half, size) for half in halves)
    channels = first.shape[-1]
    cuts = np.unique(np.linspace(0, channels, min(CHANNEL_GROUPS, channels) + 1).astype(int))[:-1]
    mean = np.asarray((first.sum(navigation_dims(first)) + second.sum(navigation_dims(second))).values, dtype=float)
    level = np.add.reduceat(mean, cuts)
    keep = level >= LEAST_GROUP_COUNTS
    scale = np.where(keep, 1.0 / np.sqrt(np.maximum(level, 1.0)), 0.0)
    shared = {"cuts": cuts, "scale": scale}
    other = second.drop_vars(MASK, errors="ignore")
    _, sums = map_fold(_common, open_blocks(first, resident=True), other, shared=shared, name="psnmf-rank")
    product = 0.5 * (sums["product"] + sums["product"].T)
    values = np.linalg.eigvalsh(product)[::-1]
    noise = max(-float(values[-1]), 1e-300)
    rank = max(1, int(np.sum(values > SIGNIFICANT_RATIO * noise)))
    return rank, values[: min(20, len(values))] / noise


def _common(x: Any, other: Any, *, cuts: Any, scale: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Product of two halves of the counts. cuts: first channels of groups. scale: weight of each group."""
    one, two = (np.add.reduceat(np.asarray(v, dtype=np.float64), cuts, axis=1) for v in (x, other))
    # Both halves are divided by their common total, so that all bins have the same noise.
    total = np.maximum(one.sum(axis=1) + two.sum(axis=1), 1e-300)
    weight = 1.0 / np.sqrt(total)[:, None]
    return {}, {"product": (one * weight * scale).T @ (two * weight * scale)}


def choose_bins(cube: xr.DataArray, n_components: int, *, seed: int) -> xr.Dataset:
    """The scan by which `scalehsi.PSNMF` chooses its bins; for data that are not counts a fixed rule."""
    if cube.dtype.kind in "ui":
        return scan_bins(cube, n_components=n_components, seed=seed)
    side = max(1, min(cube.shape[-3:-1]) // (4 * BINS_PER_MAP))
    return xr.Dataset({"score": ("bin", [0.0])}, coords={"bin": [side]}, attrs={"chosen": side})
