"""Preview of the spatial cube from one pass: component maps averaged over square cells, and a sample of pixels."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float, Int
from scalehsi.blocks import Blocks, Tile, map_fold
from scalehsi.kernels.pixel_rows.strips import strips
from scalehsi.kernels.resampling.pixel_windows import bin_sums, merge_bins
from scalehsi.kernels.statistics.survey import in_sample
from scalehsi.registration.images import Images
from scalehsi.registration.rasters import Raster

MOST_CELLS: Final = 2**20
"""Largest number of cells that are sent to the client."""
CELLS_PER_FOOTPRINT: Final = 6.0
"""Cells along a footprint of the coarse map; more do not improve the registration."""
SAMPLE_PIXELS: Final = 4096
"""Pixels of the random sample."""


class Sample(NamedTuple):
    """Sampled pixels: values (S, E), and their rows and columns (S,)."""

    values: Float
    rows: Int
    columns: Int


def cells_of(fine: Raster, coarse: Raster) -> int:
    """Side, in fine pixels, of the cells in which a fine map is compared with a coarse one."""
    footprint = min(abs(c / f) for c, f in zip(coarse.step, fine.step, strict=True))
    return max(1, math.floor(footprint / CELLS_PER_FOOTPRINT), math.ceil(math.sqrt(math.prod(fine.shape) / MOST_CELLS)))


def look(view: Blocks, raster: Raster, back: Float, factor: int, *, seed: int) -> tuple[Images, Sample]:
    """Component maps ``x @ back`` averaged over square cells, and a random sample of pixels; one reading.

    Parameters
    ----------
    view : Blocks
        Cube of dims (y, x, energy).
    raster : Raster
        Raster of the cube.
    back : array, shape (E, K)
        Unmixing matrix.
    factor : int
        Side of a cell in pixels.
    seed : int
        Seed of the sample.
    """
    stride = max(1, math.prod(raster.shape) // SAMPLE_PIXELS)
    shared = {"back": back, "shape": raster.shape, "factor": factor, "stride": stride, "seed": seed}
    _, sums = map_fold(_cells, view, shared=shared, combine=_together, tile=True, name="pansharpen-look")
    numbers = np.concatenate(sums["numbers"])
    order = np.argsort(numbers)
    sample = np.concatenate(sums["sample"])[order].astype(np.float64)
    small = raster.binned(factor)
    table = np.zeros((math.prod(small.shape), back.shape[1] + 1))
    table[sums["number"][0]] = sums["bins"][0]
    table = table.reshape(*small.shape, -1)
    pixels = table[..., -1]
    images = Images(table[..., :-1] / np.maximum(pixels, 1.0)[..., None], pixels / factor**2, small)
    return images, Sample(sample, *np.divmod(numbers[order], raster.shape[1]))


def _cells(
    x: Any, *, tile: Tile, back: Float, shape: tuple[int, int], factor: int, stride: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sums over cells and sampled pixels of a block; arguments as in `look`, shape: of the whole map."""
    rows = np.ones((x.shape[0], back.shape[1] + 1))
    for part, strip in strips(x):
        rows[part, :-1] = strip @ back
    pixels, sums = bin_sums(rows, index=tile.index, shape=shape, sides=(factor, factor))
    chosen = np.flatnonzero(in_sample(tile.index, stride=stride, seed=seed))
    return pixels, {**sums, "sample": [x[chosen]], "numbers": [tile.index[chosen]]}


def _together(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    joined = {name: left[name] + right[name] for name in ("sample", "numbers")}
    return {**merge_bins(left, right), **joined}
