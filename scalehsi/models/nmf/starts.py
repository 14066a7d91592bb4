"""Starting endmembers of a factorisation: a method by name, or given spectra.

Every start uses the whole cube, at least by a sample that is spread over it: a start from a part of the cube ruins maps
whose phases are in separate places.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks, Tile, map_fold
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.blocks.compute import run
from scalehsi.blocks.graph import tasks
from scalehsi.checks import choice, require
from scalehsi.fitting.energy_axis import check_axis
from scalehsi.fitting.survey import SAMPLE_BYTES, Survey
from scalehsi.kernels import least_squares, poisson
from scalehsi.kernels.extraction import vca
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.kernels.resampling import pixel_windows as binned
from scalehsi.kernels.subspace import moments, singular_vectors
from scalehsi.kernels.subspace import nndsvd as kernels
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, InputError

READINGS: Final = {"sample": 0, "nndsvd": 2, "nndsvda": 2, "vca": 1, "random": 0, "multistart": 1}
"""Readings of the cube by each start, after the survey."""
STARTS: Final = tuple(READINGS)

OVERSAMPLE: Final = 8
"""Columns in addition to K in the search for singular vectors; half of them are random."""
BIN_SIDE: Final = 8
"""Pixels of a bin along y and x: 256 x 256 pixels give 1024 bins with an eighth of the noise."""
LEAST_BINS: Final = 1024
"""A short fit has at least this many bins; smaller maps get smaller bins."""
AVERAGED_COUNTS: Final = 1000.0
"""Target for the counts of an average of similar pixels."""
MOST_AVERAGED_PIXELS: Final = 64
SHORT_ITERATIONS: Final = 30
"""Iterations of each of several starts, on bins; a millisecond each."""
LONG_ITERATIONS: Final = 100
"""Further iterations of the best start, at most."""
BRIGHTNESS_RANGE: Final = 100.0
"""An endmember is at most this many times brighter or darker than the mean of the data."""
EQUAL_OBJECTIVES: Final = 1e-6
"""Objectives with a smaller relative difference are equal: the start with the lower number is chosen."""

log = logging.getLogger("scalehsi")


def first_endmembers(
    view: Blocks, seen: Survey, how: str, n_components: int, *, counts: bool, seed: int, restarts: int = 10
) -> Float:
    """Starting endmembers by one of several methods.

    Parameters
    ----------
    view : Blocks
    seen : Survey
        Survey of the same view: its sample and sums are used.
    how : str
        - "sample": a factorisation of the sample, itself started by NNDSVD. Reads nothing more.
        - "nndsvd", "nndsvda": non-negative parts of the singular vectors of the whole cube, with zeros or with the mean
          in their place. Two readings, the first of 4 P E (K + 8) flops.
        - "vca": vertex component analysis of the sample and of the extreme pixels of the whole cube, which finds nearly
          pure pixels of rare phases. One reading.
        - "random": random pixels of the sample, each averaged with the most similar ones. Reads nothing more.
        - "multistart": short fits to the binned cube, from NNDSVD and from random bins, in parallel on the workers; the
          best one is continued. One reading.
    n_components : int
        K.
    counts : bool
        Weight pixels and channels for counting noise (Keenan and Kotula 2004, doi:10.1002/sia.1657).
    seed : int
    restarts : int, default 10
        Short fits of "multistart".

    Returns
    -------
    array, shape (K, E)
        Rows of unit sum, not negative, none empty and no two the same.

    Raises
    ------
    InputError
        For an unknown name, and for missing values with "nndsvd" and "nndsvda".
    """
    choice("start", how, STARTS)
    mean = seen.spectrum / max(1, seen.pixels)
    sample = np.ascontiguousarray(seen.sample, dtype=np.float64 if seen.sample.dtype == np.float64 else np.float32)
    if len(sample) == 0:
        s = np.zeros((0, view.n_energies))
    elif how == "sample":
        s = kernels.sampled_endmembers(sample, n_components, weighted=counts, seed=seed)
    elif how == "random":
        scaled, column = kernels.weigh(np.maximum(sample, 0), weighted=counts)
        near = _neighbours(sample, n_components, counts=counts)
        s = kernels.pixel_endmembers(scaled, n_components, seed=seed, neighbours=near) * column
    elif how == "vca":
        s = _corners(view, sample, n_components, counts=counts, seed=seed)
    elif how == "multistart":
        s = _best_of(view, n_components, counts=counts, seed=seed, restarts=restarts)
    else:
        s = _singular(view, seen, sample, n_components, counts=counts, seed=seed, fill=how == "nndsvda")
    missing = np.zeros((max(0, n_components - len(s)), view.n_energies))
    return kernels.distinct(np.concatenate([s, missing]), mean, seed=seed)


def brightness(seen: Survey, s: Float, *, counts: bool) -> Float:
    """Total of a pure pixel of each endmember, shape (K,): the scale of a start on the simplex.

    Divided by these totals, the abundances of the sample should sum to one; their inverses are found by non-negative
    least squares. Noise makes all of them too large, so their mean is set to that of the sample. An endmember that is
    absent from the sample has the mean of the data.

    Parameters
    ----------
    seen : Survey
    s : array, shape (K, E)
        Rows of unit sum.
    counts : bool
        True for abundances by the likelihood of counts.
    """
    sample = np.maximum(seen.sample, 0)
    solve = poisson.abundances if counts else least_squares.abundances
    c = solve(sample, s=s, residual=False)[0]["abundances"].astype(np.float64)
    mean = float(seen.spectrum.sum()) / max(1, seen.pixels)
    inverse = nnls(c.T @ c, c.sum(axis=0)[None])[0]
    inverse /= max(float((c @ inverse).mean()), 1e-300)
    least = 1.0 / (BRIGHTNESS_RANGE * mean)
    return 1.0 / np.where(inverse > least, np.minimum(inverse, BRIGHTNESS_RANGE / mean), 1.0 / mean)


def _singular(
    view: Blocks, seen: Survey, sample: Any, n_components: int, *, counts: bool, seed: int, fill: bool
) -> Float:
    """NNDSVD of the whole cube: singular vectors from one reading, signs of their parts from another.

    view: the cube. seen: its survey. sample: its sampled pixels. n_components: K. counts: weight for counting noise.
    seed: of the random columns. fill: replace zeros by the mean (NNDSVDa).
    """
    column = kernels.root_mean(seen.spectrum) if counts else np.ones(view.n_energies)
    width = min(n_components + OVERSAMPLE, view.n_energies)
    known = max(1, width - OVERSAMPLE // 2)
    scaled = kernels.weigh_rows(sample, weighted=counts) / column.astype(sample.dtype)
    drawn = np.random.default_rng(seed).standard_normal((view.n_energies, width))
    drawn[:, :known] = singular_vectors.leading_vectors(scaled, known, seed=seed)
    probe, _ = np.linalg.qr(drawn)
    shared: dict[str, Any] = {"probe": probe / column[:, None], "weigh_pixels": counts}
    _, sums = map_fold(moments.moments, view, shared=shared, name="nndsvd-range")
    require(
        np.isfinite(sums["moment"]).all(),
        "singular vectors need every value, and some of this cube are missing; take start='sample' or 'multistart'",
    )
    _, vectors = singular_vectors.nystrom(sums["moment"] / column[:, None], probe, n_components)
    shared = {"vectors": vectors, "column": column, "weigh_pixels": counts}
    _, sums = map_fold(singular_vectors.sign_parts, view, shared=shared, name="nndsvd-signs")
    level = max(0.0, float(sums["total"]) / (float(sums["pixels"]) * view.n_energies))
    # Scaled to data with a mean of one, so that the unit of intensity does not change the effect of the fill.
    parts = [sums[name] / level**2 if level > 0 else sums[name] for name in ("positive", "negative")]
    rows = singular_vectors.nonnegative_rows(vectors, *parts, fill=1.0 if fill and level > 0 else 0.0)
    return np.asarray(rows * column)


def _corners(view: Blocks, sample: Any, n_components: int, *, counts: bool, seed: int) -> Float:
    """Vertices among the sample and the extreme pixels of the whole cube.

    view: the cube. sample: its sampled pixels. n_components: K. counts: weight channels for counting noise.
    """
    column = kernels.root_mean(np.maximum(sample.mean(axis=0, dtype=np.float64), 0.0)) if counts else 1.0
    column = np.broadcast_to(column, view.n_energies)
    scaled = sample / column.astype(sample.dtype)
    cloud = vca.projection(scaled, n_components, seed=seed)
    points, bright = vca.coordinates(scaled, cloud)
    points = points[bright]
    if len(points) == 0:
        return np.zeros((0, view.n_energies))
    found = vca.corners(points, n_components, seed=seed)
    axes = vca.directions(points, found, seed=seed)
    shared = {"cloud": cloud, "axes": axes, "scale": column}
    _, far = map_fold(_extremes, view, shared=shared, tile=True, combine=vca.farther, name="vca-extremes")
    reached = far["point"][np.isfinite(far["far"])]
    together = np.concatenate([points[found], reached])
    corners = together[vca.corners(together, n_components, seed=seed)]
    return np.asarray(vca.spectra_of(corners, cloud) * column)


def _extremes(x: Any, *, tile: Tile, **shared: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return vca.extremes(x, index=tile.index, **shared)


def _neighbours(x: Any, n_components: int, *, counts: bool) -> int:
    """Number of similar pixels to average: enough counts, but not all pixels of a phase."""
    level = float(np.maximum(x, 0).sum(axis=1, dtype=np.float64).mean())
    wanted = AVERAGED_COUNTS / level if counts and level > 0 else 8.0
    return int(np.clip(math.ceil(wanted), 1, max(1, min(MOST_AVERAGED_PIXELS, len(x) // (4 * n_components)))))


def _best_of(view: Blocks, n_components: int, *, counts: bool, seed: int, restarts: int) -> Float:
    """The best of several starts after a few iterations on bins, continued for some more.

    view: the cube. n_components: K. counts: weight for counting noise. seed: of the starts. restarts: their number.
    """
    require(restarts >= 1, f"restarts is a whole number of at least 1, got {restarts!r}")
    sides = bin_sides(view.shape, view.n_energies)
    shared: dict[str, Any] = {"shape": view.shape, "sides": sides}
    _, sums = map_fold(_bin_sums, view, shared=shared, tile=True, combine=binned.merge_bins, name="nmf-bins")
    (bins,) = sums["bins"]
    bins = bins[bins.any(axis=1)]
    scaled, column = kernels.weigh(np.maximum(bins, 0) if counts else bins, weighted=counts)
    short = [partial(attempt, n_components=n_components, number=i, seed=seed) for i in range(restarts)]
    ends = side_by_side(view, scaled, short)
    values = np.array([value for value, _ in ends])
    best = int(np.flatnonzero(values <= values.min() + EQUAL_OBJECTIVES * abs(values.min()))[0])
    spread = (values - values.min()) / max(abs(float(values.min())), 1e-300)
    log.info(
        "multistart: %d starts on %d bins of %s pixels; number %d is best, the others are %.2g to %.2g above it",
        restarts, len(bins), " x ".join(map(str, sides)), best, np.sort(spread)[min(1, restarts - 1)], spread.max(),
    )  # fmt: skip
    ((_, s),) = side_by_side(
        view,
        scaled,
        [partial(kernels.descend, s=ends[best][1], iterations=LONG_ITERATIONS, tol=kernels.SAMPLE_TOLERANCE / 10)],
    )
    return np.asarray(s * column)


def _bin_sums(x: Any, *, tile: Tile, **shared: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return binned.bin_sums(x, index=tile.index, **shared)


def bin_sides(shape: tuple[int, ...], n_energies: int) -> tuple[int, ...]:
    """Pixels of a bin along each navigation dim: bins that fit the memory of the client, and enough of them for a fit.

    Bins grow along y and x first, and along the leading dims only when a whole map is one bin.

    Examples
    --------
    >>> bin_sides((256, 256), 1024), bin_sides((1024, 1024), 2048), bin_sides((20, 30), 100)
    ((8, 8), (19, 19), (1, 1))
    >>> bin_sides((90000, 2, 2), 4096)
    (59, 2, 2)
    """
    most = max(1, SAMPLE_BYTES // (4 * n_energies))
    sides = [1] * len(shape)

    def number() -> int:
        return math.prod(-(-n // side) for n, side in zip(shape, sides, strict=True))

    side = 1
    while side < max(shape[-2:]) and (number() > most or (number() > LEAST_BINS and side < BIN_SIDE)):
        side += 1
        sides[-2:] = [min(side, n) for n in shape[-2:]]
    for axis in reversed(range(len(shape) - 2)):
        left = max(1, shape[axis] * most // number())
        sides[axis] = -(-shape[axis] // min(shape[axis], left))
    return tuple(sides)


def side_by_side(view: Blocks, x: Any, calls: list[Any]) -> list[tuple[float, Float]]:
    """Fits to the same pixels in parallel, each a task of the current scheduler."""
    (data,) = tasks(view.key("nmf-start-data"), [(partial(np.asarray, x), ())])
    fits = tasks(view.key("nmf-start"), [(partial(_alone, call), (data,)) for call in calls])
    (root,) = tasks(view.key("nmf-start-all"), [(_listed, fits)])
    found, _ = run(root, {}, fits)
    return list(found)


def _alone(call: Any, x: Any) -> tuple[float, Float]:
    with one_blas_thread():
        value, s = call(x)
    return value, s


def _listed(*found: tuple[float, Float]) -> list[tuple[float, Float]]:
    return list(found)


def attempt(x: Any, *, n_components: int, number: int, seed: int) -> tuple[float, Float]:
    """A short fit to the rows ``x`` from one of many starts: number 0 is NNDSVD, the others are random bins."""
    if number == 0:
        _, s = kernels.nndsvd(np.maximum(x, 0), n_components, seed=seed)
    else:
        s = kernels.pixel_endmembers(x, n_components, seed=[seed, number])
        s = np.concatenate([s, np.zeros((n_components - len(s), x.shape[1]))])
    s = kernels.distinct(s.astype(np.float64), x.mean(axis=0, dtype=np.float64), seed=seed)
    return kernels.descend(x, s, iterations=SHORT_ITERATIONS)


def given_endmembers(
    start: xr.Dataset | xr.DataArray | np.ndarray[Any, Any], cube: xr.DataArray, n_components: int
) -> Float:
    """Starting endmembers that the user gives: a result, a DataArray or an array.

    Parameters
    ----------
    start : Dataset, DataArray or array
        A result with ``endmembers``; dims (component, energy) in any order; shape (K, E).
    cube : DataArray
    n_components : int
        K.

    Returns
    -------
    array, shape (K, E)
        Rows of unit sum.

    Raises
    ------
    InputError
        When they do not fit the cube or the model.
    """
    if isinstance(start, xr.Dataset):
        require(
            ENDMEMBERS in start,
            f"start is a Dataset without {ENDMEMBERS!r}; give the result of a fit, or one of {', '.join(STARTS)}",
        )
        start = start[ENDMEMBERS]
    if isinstance(start, xr.DataArray):
        require(
            set(start.dims) == {COMPONENT, ENERGY},
            f"start has the dims {tuple(start.dims)}; (component, energy) is expected: "
            "rename them with .rename(old='component')",
        )
        start = start.transpose(COMPONENT, ENERGY)
        check_axis("start", start, cube)
    try:
        s = np.array(start, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"start is a result, a DataArray (component, energy), an array (K, E) or one of {', '.join(STARTS)}, "
            f"got {type(start).__name__}"
        ) from error
    wanted = (n_components, int(cube.shape[-1]))
    require(
        s.ndim == 2 and s.shape[1] == wanted[1],
        f"start has the shape {s.shape}; {wanted} is expected, a row for each component",
    )
    require(
        len(s) == n_components,
        f"start has {len(s)} spectra and n_components={n_components}; type n_components={len(s)}",
    )
    require(np.isfinite(s).all(), "start has NaN or Inf; fill them with .fillna(0)")
    require((s >= 0).all(), "start has negative values, which no endmember of NMF has; clip them with .clip(min=0)")
    empty = np.flatnonzero(~s.any(axis=1))
    require(
        not empty.size,
        f"start has {empty.size} spectra of zeros, the first is number {empty[:1].sum()}; leave them out",
    )
    return np.asarray(s / s.sum(axis=1, keepdims=True))
