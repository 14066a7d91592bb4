"""The start of a coupled fit: noise of each Gaussian signal, and a joint factorisation of bins of all signals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import Pixels, Tile, map_fold, open_tiles
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.blocks.view import Blocks
from scalehsi.checks import require
from scalehsi.fitting.survey import Survey, survey
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.resampling import pixel_windows
from scalehsi.kernels.subspace import nndsvd
from scalehsi.kernels.subspace.moments import moments
from scalehsi.models.nmf.starts import LONG_ITERATIONS, attempt, bin_sides, side_by_side
from scalehsi.schema import InputError

GRAM_CHANNELS: Final = 512
"""Of more channels every second, third ... is used for the noise."""
BIN_PIXELS: Final = 4
LEAST_BINS: Final = 16
"""Bins a component; smaller bins are taken where there would be fewer."""
ROWS: Final = 4096
COUNTS_PER_COMPONENT: Final = 100


def surveyed(view: Blocks, name: str, *, counts: bool, seed: int, n_components: int) -> Survey:
    """Read one signal; refuse what no fit can use, with its name. counts: whether it has their likelihood."""
    try:
        seen = survey(view, seed=seed, counts=False, least=4 * n_components, missing=True)
    except InputError as error:
        raise InputError(f"{name!r}: {error}") from error
    require(
        not (counts and seen.negative),
        f"{name!r} has {seen.negative} negative values, which counts never are; give loss={{{name!r}: 'gaussian'}}",
    )
    total, least = float(seen.spectrum.sum()), COUNTS_PER_COMPONENT * n_components
    require(
        not counts or total >= least,
        f"{name!r} has {total:.4g} counts in all, {least} at least are needed for {n_components} components; "
        "leave it out",
    )
    require(total > 0, f"{name!r} has a sum of {total:.4g}, which is above 0 in spectra; take less background off")
    return seen


def noise(view: Blocks, cube: xr.DataArray, n_components: int, w: Float | None) -> float:
    """Variance of the weighted noise of a Gaussian signal: what K components leave, by one reading of it.

    ``phi = sum_(j > K) eig_j(W X' V X W) / ((P - K) (E - K))``.

    view: of the fit, for its blocks. cube: with the mask of the signal. w (E,): weights of the channels, or None.
    """
    stride = math.ceil(cube.shape[-1] / GRAM_CHANNELS)
    shared = {"stride": stride, "weigh_pixels": w is not None}
    _, sums = map_fold(_gram, open_tiles(cube, view.grid, device=view.device), shared=shared, name="coupled-noise")
    gram, pixels = np.asarray(sums["moment"]), int(sums["pixels"])
    if w is not None:
        root = np.sqrt(w[::stride])
        gram = gram * np.outer(root, root)
    with one_blas_thread():
        eigenvalues = np.linalg.eigvalsh(gram)
    k, channels = n_components, len(gram)
    rest = float(eigenvalues[: channels - k].sum()) / max(1, (pixels - k) * (channels - k))
    # Data without noise still need a variance.
    return max(rest, 1e-12 * float(np.trace(gram)) / max(1, pixels * channels))


def _gram(x: Any, *, stride: int, weigh_pixels: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Moments of every n-th channel of a block in float64. weigh_pixels: by one over their mean."""
    rows = np.asarray(x)
    if weigh_pixels:
        mean = rows.mean(axis=1, dtype=np.float64)
        root = np.where(mean > 0, 1 / np.sqrt(np.where(mean > 0, mean, 1.0)), 0.0)
        return moments(rows[:, ::stride] * root[:, None], weigh_pixels=False)
    return moments(rows[:, ::stride].astype(np.float64), weigh_pixels=False)


def joint_start(
    view: Blocks,
    exposures: Sequence[Pixels],
    scales: Mapping[str, Float],
    *,
    n_components: int,
    seed: int,
    restarts: int,
) -> dict[str, Float]:
    """Endmembers (K, E) of each signal by least squares of the weighted bins of all signals, from several starts.

    view: all signals. exposures: as for the passes, may be none. scales: one over the standard deviation of each
    channel (E,) of each signal, in the order of the passes. restarts: number of starts.
    """
    channels = sum(map(len, scales.values()))
    sides = _sides(view.shape, channels, n_components)
    shared = {"shape": view.shape, "sides": sides, "signals": len(scales)}
    _, sums = map_fold(
        *(_bins, view, *exposures), shared=shared, tile=True, combine=pixel_windows.merge_bins, name="coupled-bins"
    )
    (rows,) = sums["bins"]
    sizes = [len(each) for each in scales.values()]
    parts = np.split(rows.astype(np.float64), np.cumsum(sizes), axis=1)
    measured = parts.pop()
    whole = measured.max(axis=1, initial=0.0)
    used = (measured > 0.5 * whole[:, None]).all(axis=1)
    if used.sum() < n_components:
        used = (measured > 0).any(axis=1)
    share = np.where(measured > 0, measured, 1.0)
    columns = [
        part / share[:, m : m + 1] * whole[:, None] * scale
        for m, (part, scale) in enumerate(zip(parts, scales.values(), strict=True))
    ]
    x = np.concatenate(columns, axis=1)[used]
    level = float(np.abs(x).mean()) or 1.0
    x = np.ascontiguousarray(x / level)
    short = [partial(attempt, n_components=n_components, number=i, seed=seed) for i in range(restarts)]
    ends = side_by_side(view, x, short)
    best = min(range(len(ends)), key=lambda i: (round(ends[i][0] / max(ends[0][0], 1e-300), 6), i))
    further = partial(nndsvd.descend, s=ends[best][1], iterations=LONG_ITERATIONS, tol=1e-8)
    ((_, s),) = side_by_side(view, x, [further])
    split = np.split(np.asarray(s), np.cumsum(sizes)[:-1], axis=1)
    return {name: part / scales[name] for name, part in zip(scales, split, strict=True)}


def _sides(shape: tuple[int, ...], channels: int, n_components: int) -> tuple[int, ...]:
    """Pixels of a bin along each dim: 4 x 4, more for large maps, fewer for small ones."""
    sides = list(bin_sides(shape, channels))
    sides[-2:] = [max(BIN_PIXELS, side) for side in sides[-2:]]

    def number() -> int:
        return math.prod(-(-n // side) for n, side in zip(shape, sides, strict=True))

    while number() < LEAST_BINS * n_components and max(sides[-2:]) > 1:
        sides[-2:] = [max(1, side // 2) for side in sides[-2:]]
    return tuple(sides)


def _bins(
    x: Any, *rows: Any, tile: Tile, shape: tuple[int, ...], sides: tuple[int, ...], signals: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sums of bins of all signals, and last the measured pixels of each; the rows as in the passes."""
    cubes, total = (x, *rows[: signals - 1]), None
    for start in range(0, x.shape[0], ROWS):
        part = slice(start, start + ROWS)
        plain = [each[part].to_dense() if isinstance(each, Counts) else np.asarray(each)[part] for each in cubes]
        u = np.asarray(rows[signals - 1][part]) if len(rows) >= signals else np.ones((len(plain[0]), signals))
        known = [np.where(u[:, m : m + 1] > 0, each, 0).astype(np.float32) for m, each in enumerate(plain)]
        joined = np.concatenate([*known, u.astype(np.float32)], axis=1)
        _, found = pixel_windows.bin_sums(joined, index=tile.index[part], shape=shape, sides=sides)
        total = found if total is None else pixel_windows.merge_bins(total, found)
    assert total is not None
    return {}, total
