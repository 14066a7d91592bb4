"""Collect the evidence of a fit in its last pass: a block function around the model's own, and the sums on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi import arrays
from scalehsi.arrays import Float, Int
from scalehsi.blocks import Tile
from scalehsi.cube import navigation_dims
from scalehsi.fitting.judge.evidence import Bins, Evidence, Regions
from scalehsi.fitting.judge.outliers import joined
from scalehsi.fitting.model import Model
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.statistics.fit_sums import MAP_BINS, WIDTHS, Grid, fit_sums, used_rows
from scalehsi.kernels.statistics.outliers import Search
from scalehsi.kernels.statistics.variance_index import variance_index, variance_index_of_sums
from scalehsi.schema import ABUNDANCES, COMPONENT, ENERGY, MASK

PREFIX: Final = "judge_"
MEASURED: Final = "measured"
"""Name of the values per pixel that say which ones are judged."""
PURE_PERCENTILE: Final = 99.5
PAIRED_VALUES: Final = 2**18
LEAST_PAIRS: Final = 64
"""Largest number of values in the pairs of neighbours for the variance index, and least number of pairs."""

Sums = dict[str, Any]
"""Lists of the blocks are taken out of it as they are added up, so that the client does not hold them twice."""


def judged(
    x: Any,
    *aligned: Any,
    tile: Tile,
    judge: Mapping[str, Any] | None,
    fn: Callable[..., tuple[dict[str, Any], dict[str, Any]]],
    needs_tile: bool,
    **shared: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Call a model's map function on a block, and add the sums for the judgement to those that it returns.

    x: pixels of the block. aligned: rows aligned with them. tile: where the block lies. judge: ``s`` (K, E), ``offset``
    (E,), ``mean`` (E,) of the fit and its ``grid``. fn: gives ``abundances``, and `MEASURED` where pixels of the first
    of several cubes were not measured. needs_tile: whether ``fn`` takes the
    tile. shared: arguments of ``fn``.
    """
    pixels, sums = fn(x, *aligned, **shared, **({"tile": tile} if needs_tile else {}))
    c = np.asarray(arrays.to_host(pixels[ABUNDANCES]), dtype=np.float64)
    rows = used_rows(tile.core & pixels.get(MEASURED, True), c)
    if judge is None or not len(rows):
        return pixels, sums
    values = x if isinstance(x, Counts) else arrays.to_host(x)
    if len(rows) < len(c):
        values, c = values.take(rows) if isinstance(values, Counts) else values[rows], c[rows]
    model: dict[str, Any] = {"s": arrays.to_host(judge["s"]), "offset": arrays.to_host(judge["offset"])}
    index, grid = tile.index[rows], judge["grid"]
    if judge["mean"] is None:
        return pixels, {**sums, **fit_sums(values, c, index=index, **model, grid=grid)[0]}
    search = Search(values, c, index=index, shape=grid.shape, mean=arrays.to_host(judge["mean"]), **model)
    found, totals = fit_sums(values, c, index=index, **model, grid=grid, each=search.strip)
    found |= search.result(totals)
    return pixels, {**sums, **found}


def evidence(
    sums: Sums,
    judge: Mapping[str, Any] | None,
    *,
    cube: xr.DataArray,
    model: Model,
    maps: xr.DataArray | None = None,
) -> Evidence | None:
    """The evidence of a fit from the sums of its last pass; None where there is none.

    sums: of `judged`. judge: as there. cube: that was fitted; its values are not read. model: with its settings. maps:
    the abundances, where they are in memory; without them purity is that of sampled pixels.
    """
    if judge is None or f"{PREFIX}moments" not in sums:
        return None
    s, offset, grid = np.asarray(judge["s"], float), np.asarray(judge["offset"], float), judge["grid"]
    k = len(s)
    regions = _regions(sums, grid, k)
    pixels = int(regions.pixels.sum())
    mean = regions.data.sum(axis=0) / max(1, pixels)
    bins = tuple(_bins(sums, f"{PREFIX}bins_{w}", w, grid.sampled, s) for w in grid.widths())
    moments = np.asarray(sums[f"{PREFIX}moments"], dtype=np.float64)
    squares = moments[2 * k : 3 * k]
    peaks, places = (np.stack(each) for each in zip(*sums[f"{PREFIX}peaks"], strict=True))
    strongest = np.argmax(peaks, axis=0)
    outer, purity = _map_moments(sums, grid, k, float(mean.sum()))
    if maps is not None:
        purity = purity_of(np.asarray(maps.transpose(COMPONENT, *navigation_dims(cube)).values))
    phi = _phi(bins[0], _bins(sums, f"{PREFIX}neighbours", 1, grid.sampled, s), s, offset)
    energy = cube.coords.get(ENERGY)
    return Evidence(
        endmembers=s,
        offset=offset,
        energy=np.arange(s.shape[1], dtype=float) if energy is None else np.asarray(energy.values, dtype=float),
        energy_unit="" if energy is None else str(energy.attrs.get("units", "")),
        signal=str(cube.attrs.get("signal", "")),
        dtype=str(cube.dtype),
        shape=grid.shape,
        pixels=pixels,
        mean=mean,
        variance_index=phi,
        regions=regions,
        bins=bins,
        outer=outer,
        component_total=np.stack([moments[:k], moments[k : 2 * k]]),
        total=(float(moments[-2]), float(moments[-1])),
        peak_share=peaks.max(axis=0) / np.where(squares > 0, squares, 1.0),
        peak_index=places[strongest, np.arange(k)],
        **joined(sums, shape=grid.shape, phi=phi, read=partial(_voxels, cube)),
        purity=purity,
        signed=bool((s < 0).any()),
        simplex=bool(getattr(model, "simplex", False)),
        priors_on_maps=model.priors_on_maps,
        loss=str(getattr(model, "loss", "")),
        model=model.name,
        coords={d: _axis(cube, d) for d in navigation_dims(cube) if d in cube.coords},
        dims=tuple(map(str, navigation_dims(cube))),
        settings=model.to_settings(),
        source=str(cube.attrs.get("source") or ""),
    )


def _voxels(cube: xr.DataArray, index: Int, channel: Int) -> Float:
    """Single voxels of a cube, NaN where the mask leaves the pixel out. index: pixels. channel: of each."""
    dims = navigation_dims(cube)
    at = np.unravel_index(index, [cube.sizes[d] for d in dims])
    points = {str(d): xr.DataArray(i, dims="point") for d, i in zip(dims, at, strict=True)}
    values = cube.isel({**points, ENERGY: xr.DataArray(channel, dims="point")}).compute()
    used = values.coords[MASK].values if MASK in values.coords else True
    return np.asarray(np.where(used, values.values, np.nan), dtype=np.float64)


def _axis(cube: xr.DataArray, dim: str) -> tuple[Float, str]:
    return np.asarray(cube.coords[dim].values, dtype=float), str(cube.coords[dim].attrs.get("units", ""))


def _joined(entries: list[tuple[Any, ...]], n: int) -> list[np.ndarray[Any, Any]]:
    """Add the entries of all blocks up by number; the columns as in `_bins`. n: numbers."""
    found = [np.zeros((n, *column.shape[1:]), dtype=column.dtype) for column in entries[0][1:]]
    for numbers, *columns in entries:
        for out, column in zip(found, columns, strict=True):
            out[numbers] += column  # a block has each number once
    return found


def _regions(sums: Sums, grid: Grid, k: int) -> Regions:
    """Sums of the regions. k: components."""
    rows, columns = grid.regions
    _, pixels, data, c = _joined(sums.pop(f"{PREFIX}regions"), rows * columns)
    return Regions((rows, columns), pixels.astype(np.int64), data, c.reshape(-1, k))


def _bins(sums: Sums, name: str, width: int, wanted: int, s: Float) -> Bins:
    """Sampled bins of one width, those without a pixel left out; ``index`` is the number of the first pixel.

    name: of the sums. wanted: the sample at most. s (K, E): for the sizes of an empty sample.
    """
    entries = sums.pop(name, None)
    if not entries:
        none = np.zeros(0, dtype=np.int64)
        return Bins(width, none, none, np.zeros((0, s.shape[1])), np.zeros((0, len(s))))
    first = np.full(wanted, np.iinfo(np.int64).max)
    np.minimum.at(first, np.concatenate([e[0] for e in entries]), np.concatenate([e[1] for e in entries]))
    _, pixels, data, c = _joined(entries, wanted)
    there = np.flatnonzero(pixels > 0)
    return Bins(width, first[there], pixels[there].astype(np.int64), data[there], c[there])


def _phi(sample: Bins, neighbours: Bins, s: Float, offset: Float) -> float:
    """The variance index: of the data, or of the residual where that is smaller. s (K, E), offset (E,): the model."""
    row_of = {int(i): row for row, i in enumerate(sample.index)}
    pairs = [(row, n) for n, i in enumerate(neighbours.index) if (row := row_of.get(int(i) - 1)) is not None]
    if not pairs:
        return float("nan")
    # The median over many channels needs few pairs, and several float64 copies are made of them.
    pairs = pairs[: max(LEAST_PAIRS, PAIRED_VALUES // s.shape[1])]
    a, b = (np.asarray(each) for each in zip(*pairs, strict=True))
    first, second = sample.data[a], neighbours.data[b]
    left = [d - c @ s - offset for d, c in ((first, sample.abundances[a]), (second, neighbours.abundances[b]))]
    squares, means = 0.5 * ((left[0] - left[1]) ** 2).sum(axis=0), 0.5 * (first + second).sum(axis=0)
    rest = variance_index_of_sums(squares, means) / max(1.0 - len(s) / s.shape[1], 0.1)
    known = [each for each in (variance_index(first, second), rest) if np.isfinite(each) and each > 0]
    return float(min(known)) if known else float("nan")


def purity_of(c: np.ndarray[Any, Any]) -> Float:
    """Percentile of the mean fraction of each component over all 2 x 2 pixels; c (K, ..., y, x), NaN without a pixel.

    Along a line scan 2 pixels count, in a map of one pixel that one.
    """
    if not c.size:
        return np.full(len(c), np.nan)
    whole = c.sum(axis=0)
    used = np.isfinite(whole)
    pixels = _added_windows(used.astype(np.float32))
    scale = np.where(used & (whole > 0), 1.0 / np.where(used & (whole > 0), whole, 1.0), 0.0).astype(np.float32)
    some = pixels > 0
    found = np.full(len(c), np.nan)
    for k, each in enumerate(c):
        share = _added_windows(np.where(used, each, 0.0) * scale)[some] / pixels[some]
        found[k] = np.percentile(share, PURE_PERCENTILE) if len(share) else np.nan
    return found


def _added_windows(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Sums over 2 x 2 pixels at every place, (..., y, x); over 2 pixels where one of the sides is one pixel."""
    for axis in range(max(-2, -a.ndim), 0):
        if a.shape[axis] > 1:
            n = a.shape[axis]
            a = a.take(range(n - 1), axis=axis) + a.take(range(1, n), axis=axis)
    return a


def _map_moments(sums: Sums, grid: Grid, k: int, total: float) -> tuple[Float, Float]:
    """``sum_b c_b c_b' / t_b`` of all bins for each width, and the percentile of purity over 2 x 2 pixels.

    grid: of the sums. k: components. total: of the data in the mean pixel, the unit of t_b.
    """
    outer, purity = np.zeros((len(WIDTHS), k, k)), np.full(k, np.nan)
    for i, width in enumerate(grid.widths()):
        entries = sums.pop(f"{PREFIX}maps_{width}", None)
        if not entries:
            continue
        (values,) = _joined(entries, MAP_BINS)
        values = values[values[:, -1] > 0]
        c, share, totals, pixels = values[:, :k], values[:, k : 2 * k], values[:, -2], values[:, -1]
        some = totals > 0
        relative = totals[some] / max(total, 1e-300)
        scale = grid.number_of_bins(width) / grid.samples(width, MAP_BINS)
        outer[i] = (c[some] / relative[:, None]).T @ c[some] * scale
        if width == 2:
            purity = np.percentile(share / pixels[:, None], PURE_PERCENTILE, axis=0)
    return outer, purity
