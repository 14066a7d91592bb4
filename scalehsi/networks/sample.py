"""The training sample: spectra from all blocks of a cube, chosen by absolute pixel, and their scaling.

Everything in training sees one array in the order of the pixel numbers, so chunks and schedulers do not change a bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float, Int, NumpyArray
from scalehsi.blocks import Blocks, Tile, map_fold
from scalehsi.fitting.survey import Survey
from scalehsi.kernels.extraction.simplex import best_vca, share_outside, smooth_maps
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.kernels.subspace.singular_vectors import leading_vectors

SAMPLE_BYTES: Final = 512 * 2**20
"""Largest training sample, as float32."""
LEAST_CHANNEL_COUNTS: Final = 25
"""Channels with fewer counts in the whole cube are left out: their weight would be noise."""
LEAST_RELATIVE_MEAN: Final = 1e-2
"""Channel means are not below this part of their average when they are turned into weights."""
VCA_RUNS: Final = 20
"""Searches of vertices with different random directions; that of the largest simplex is taken."""
NEIGHBOURS: Final = ((0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Rows and columns from a pixel to those that are averaged with it before vertices are searched."""


@dataclass(frozen=True)
class Scaling:
    """How counts become what a network and its loss see.

    Attributes
    ----------
    weight : array, shape (E,)
        Counts times this are the data of the loss, with a mean of about one; zero for channels that are left out.
    centre, factor : arrays, shape (E,)
        ``(counts - centre) * factor`` are the inputs of the network.
    """

    weight: Float
    centre: Float
    factor: Float

    def inputs(self, x: NumpyArray) -> NumpyArray:
        """Inputs of the network (n, E), float32, of counts (n, E)."""
        single = np.asarray(x, dtype=np.float32)
        return (single - self.centre.astype(np.float32)) * self.factor.astype(np.float32)

    def counts(self, spectra: NumpyArray) -> Float:
        """Spectra (K, E) of weighted data in the unit of the cube; zero in channels that are left out."""
        return np.asarray(spectra / np.where(self.weight > 0, self.weight, np.inf), dtype=np.float64)


def choose_pixels(
    seen: Survey, shape: tuple[int, ...], *, wanted: int, channels: int, seed: int, window: int = 1
) -> Int:
    """Absolute numbers of random pixels of the whole cube, sorted; masked ones are among them.

    seen: survey of the cube. shape: of its pixels. wanted: used pixels to expect. channels: E. seed: of the choice.
    window: pixels that are read for each of them.
    """
    total = math.prod(shape)
    most = max(1, min(wanted, SAMPLE_BYTES // (4 * channels * min(window, total))))
    number = min(total, math.ceil(most * total / max(1, seen.filled)))
    if number == total:
        return np.arange(total, dtype=np.int64)
    return np.sort(np.random.default_rng([seed, 0]).choice(total, number, replace=False)).astype(np.int64)


def gather(view: Blocks, index: Int) -> tuple[Int, NumpyArray]:
    """Read single pixels of a cube: the absolute numbers of those that are used, sorted, and their spectra (n, E)."""
    shared = {"wanted": np.asarray(index)}
    _, sums = map_fold(_rows_of, view, shared=shared, tile=True, name="network-sample")
    numbers, rows = np.concatenate(sums["index"]), np.concatenate(sums["rows"])
    order = np.argsort(numbers)
    return numbers[order], rows[order].astype(np.float32)


def _rows_of(x: Any, *, tile: Tile, wanted: Int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The wanted pixels of one block; lists are joined by addition."""
    wanted = arrays.to_host(wanted)
    rows = np.flatnonzero(np.isin(tile.index, wanted, assume_unique=True))
    return {}, {"index": [tile.index[rows]], "rows": [arrays.to_host(x[rows])]}


def scaling_of(x: NumpyArray, seen: Survey, *, weighted: bool, counts: bool) -> Scaling:
    """Weights and standardisation from the training sample.

    x (n, E): its spectra. seen: survey of the cube. weighted: divide channels by the root of their mean, as counting
    noise asks for, and standardise the inputs; else divide by the maximum alone, as the public networks do.
    counts: True for counts, whose nearly empty channels are left out.
    """
    if not weighted:
        flat = np.full(x.shape[1], 1.0 / max(float(x.max()), 1e-300))
        return Scaling(flat, np.zeros(x.shape[1]), flat)
    mean = x.mean(axis=0, dtype=np.float64)
    level = max(float(mean.mean()), 1e-300)
    weight = 1.0 / np.sqrt(np.maximum(mean, LEAST_RELATIVE_MEAN * level))
    if counts:
        kept = seen.spectrum >= LEAST_CHANNEL_COUNTS
        weight = np.where(kept, weight, 0.0) if kept.any() else weight
    weight = weight / max(float((mean * weight).mean()), 1e-300)
    spread = np.sqrt(((x - mean) ** 2).mean(axis=0, dtype=np.float64))
    known = (spread > 1e-6 * max(level, 1e-300)) & (weight > 0)
    factor = np.where(known, 1.0 / np.where(known, spread, 1.0), 0.0) / math.sqrt(x.shape[1])
    return Scaling(weight, mean, factor)


def vertices(view: Blocks, x: NumpyArray, weight: Float, n_components: int, *, seed: int) -> tuple[Float, Int, float]:
    """Vertices of the simplex of all pixels, from score maps averaged over 3 x 3 pixels (VCA, best of 20 searches).

    view: the cube; read twice. x (n, E): the training sample, for the subspace. weight (E,): of the channels.
    n_components: K. seed: of the search. Returns weighted spectra (K, E), not negative, the numbers of the averaged
    pixels, and the share of all pixels outside of the simplex by more than noise.
    """
    z = x * weight.astype(np.float32)
    mean = z.mean(axis=0, dtype=np.float64)
    basis = leading_vectors(z - mean.astype(np.float32), n_components - 1, seed=seed) if n_components > 1 else None
    basis = np.zeros((x.shape[1], 0)) if basis is None else np.asarray(basis, dtype=np.float64)
    shared = {"loadings": weight[:, None] * basis, "offset": mean @ basis}
    handles, _ = map_fold(_scores, view, shared=shared, keep=["scores"], name="network-scores")
    maps = handles["scores"].to_dataarray({"axis": n_components}, dtype=np.float64).transpose(..., "axis").values
    used = np.isfinite(maps[..., -1])
    points = smooth_maps(maps, used, 3)[used]
    reach = float(np.sqrt((points[:, :-1] ** 2).sum(axis=1).max(initial=0.0))) or 1.0
    points[:, -1] = reach  # lifted: the determinant of K points is the volume of their simplex
    corners = best_vca(points, n_components, restarts=VCA_RUNS, seed=seed)
    rest = z - mean.astype(np.float32)
    rest -= (rest @ basis.astype(np.float32)) @ basis.T.astype(np.float32)
    freedom = max(1, len(mean) - n_components)
    noise = float(np.sqrt((rest**2).sum(dtype=np.float64) / len(z) / freedom))
    outside = share_outside(points, points[corners], noise / 3) if len(corners) == n_components else 0.0
    found = np.flatnonzero(used)[corners]
    around = window_pixels(found, view.shape, *np.asarray(NEIGHBOURS).T)
    index, spectra = gather(view, np.unique(around[around >= 0]))
    weighted = spectra.astype(np.float64) * weight
    at = np.clip(np.searchsorted(index, around), 0, len(index) - 1)
    there = (index[at] == around)[..., None]
    corner = (weighted[at] * there).sum(axis=1) / there.sum(axis=1)
    flat = mean + (corner - mean) @ basis @ basis.T
    if len(flat) < n_components:  # fewer pixels than components
        flat = np.concatenate([flat, np.repeat(mean[None], n_components - len(flat), axis=0)])
    return np.maximum(flat, 0.0), around[around >= 0], outside


def window_pixels(index: Int, shape: tuple[int, ...], rows: Int, columns: Int) -> Int:
    """Numbers of the pixels at some rows and columns from each pixel, (n, W); -1 beyond the border.

    index (n,): pixels. shape: of the cube's pixels. rows, columns (W,): to go.
    """
    *lead, y, x = (each[:, None] for each in np.unravel_index(index, shape))
    y, x = y + rows, x + columns
    inside = (y >= 0) & (y < shape[-2]) & (x >= 0) & (x < shape[-1])
    lead = [np.broadcast_to(each, inside.shape) for each in lead]
    number = np.ravel_multi_index((*lead, np.where(inside, y, 0), np.where(inside, x, 0)), shape)
    return np.where(inside, number, -1).astype(np.int64)


def _scores(x: Any, *, loadings: Float, offset: Float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores of a block, (P, K - 1), in float64: where a vertex lies must not depend on the chunks."""
    xp = arrays.array_namespace(x)
    loadings, offset = (arrays.to_device_like(arrays.to_host(each), x, xp.float64) for each in (loadings, offset))
    rows = [arrays.to_host(xp.astype(strip, xp.float64) @ loadings - offset) for _, strip in strips(x)]
    scores = np.concatenate(rows)
    # The last column marks the pixels that are used.
    return {"scores": np.concatenate([scores, np.ones((len(scores), 1))], axis=1)}, {"pixels": x.shape[0]}
