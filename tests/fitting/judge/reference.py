"""The evidence of a fit by plain numpy over whole arrays: what the detectors' tests start from."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from scalehsi.arrays import Bool, Float
from scalehsi.fitting.judge.evidence import (
    BIN_WIDTHS,
    LINE_REGIONS,
    REGIONS,
    SAMPLE_PIXELS,
    Bins,
    Bright,
    Evidence,
    Extremes,
    Regions,
    Voxels,
)


def evidence_of(
    x: np.ndarray[Any, Any],
    c: Float,
    s: Float,
    *,
    energy: Float | None = None,
    energy_unit: str = "eV",
    signal: str = "",
    mask: Bool | None = None,
    **others: Any,
) -> Evidence:
    """The evidence that a fit of x by c s leaves.

    x: the data, (..., y, x, E). c: the maps, (..., y, x, K). s: the spectra, (K, E). mask: True = use. others: fields
    of `Evidence` to put in place of what is computed here; spikes and bright pixels are empty unless given.
    """
    shape, n_energies, k = x.shape[:-1], x.shape[-1], s.shape[0]
    used = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
    wide = np.where(used[..., None], x, 0).astype(np.float64)
    maps = np.where(used[..., None], c, 0.0).astype(np.float64)
    offset = np.asarray(others.get("offset", np.zeros(n_energies)), np.float64)
    model = np.where(used[..., None], maps @ s + offset, 0.0)
    pixels = int(used.sum())
    mean = wide[used].sum(axis=0) / max(pixels, 1)
    rows, row_maps = wide.reshape(-1, n_energies), maps.reshape(-1, k)
    totals = np.stack([rows.sum(axis=1), model.reshape(-1, n_energies).sum(axis=1)])
    squares = row_maps**2
    sampled = [bins_of(wide, maps, used, width) for width in BIN_WIDTHS if bins_fit(shape, width)]
    values = x[used]
    top = float(values.max(initial=0))
    found: dict[str, Any] = dict(
        endmembers=np.asarray(s, np.float64),
        offset=offset,
        energy=np.arange(n_energies, dtype=np.float64) if energy is None else np.asarray(energy, np.float64),
        energy_unit=energy_unit,
        signal=signal,
        dtype=str(x.dtype),
        shape=tuple(shape),
        pixels=pixels,
        mean=mean,
        variance_index=variance_index(wide, wide - model, used, k),
        regions=regions_of(wide, maps, used),
        bins=tuple(bins for bins, _ in sampled),
        outer=outer_of(sampled, mean.sum(), k),
        component_total=totals @ row_maps,
        total=(float(totals[0].sum()), float(totals[1].sum())),
        peak_share=squares.max(axis=0) / np.maximum(squares.sum(axis=0), 1e-300),
        peak_index=squares.argmax(axis=0),
        extremes=Extremes(
            top,
            int((values == top).sum()),
            int(((values >= top - np.sqrt(max(top, 0))) & (values < top)).sum()),
            int((values < 0).sum()),
            values.size,
            float(values.min(initial=0)),
        ),
        spikes=Voxels(*[np.zeros(0, int)] * 2, *[np.zeros(0)] * 3, np.zeros(0, int), 0),
        bright=Bright(np.zeros(0, int), np.zeros(0), np.zeros(0)),
        purity=purity_of(maps, used),
        dims=("time", "tilt", "y", "x")[-len(shape) :],
    )
    return Evidence(**{**found, **others})


def map_size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Leading size, y, x."""
    y, x = (1, *shape)[-2:]
    return int(np.prod(shape)) // (y * x), y, x


def region_grid(shape: tuple[int, ...]) -> tuple[int, int]:
    """Regions along y and along x."""
    _, y, x = map_size(shape)
    if y == 1:
        return 1, LINE_REGIONS
    return (LINE_REGIONS, 1) if x == 1 else (REGIONS, REGIONS)


def regions_of(x: Float, c: Float, used: Bool) -> Regions:
    """Sums over equal regions of the map."""
    _, height, width = map_size(used.shape)
    grid = region_grid(used.shape)
    number = (np.arange(height) * grid[0] // height)[:, None] * grid[1] + np.arange(width) * grid[1] // width
    number = np.broadcast_to(number, used.shape).ravel()
    sums = []
    for values in (used[..., None].astype(np.int64), x, c):
        total = np.zeros((grid[0] * grid[1], values.shape[-1]), values.dtype)
        np.add.at(total, number, values.reshape(number.size, -1))
        sums.append(total)
    return Regions(grid, sums[0][:, 0], sums[1], sums[2])


def bins_fit(shape: tuple[int, ...], width: int) -> bool:
    """Whether one bin fits into the map; along a line scan it has one dimension."""
    _, y, x = map_size(shape)
    return min(size for size in (y, x) if size > 1 or y == x) >= width


def bins_of(x: Float, c: Float, used: Bool, width: int) -> tuple[Bins, int]:
    """At most SAMPLE_PIXELS whole bins with a pixel in use, evenly spread; and the number of all such bins."""
    lead, y, x_size = map_size(used.shape)
    high, wide = min(width, y), min(width, x_size)
    index = np.arange(used.size).reshape(lead, y, x_size)[:, : y // high * high, : x_size // wide * wide]
    index = index.reshape(lead, y // high, high, x_size // wide, wide).swapaxes(2, 3).reshape(-1, high * wide)
    pixels = used.ravel()[index].sum(axis=1)
    index, pixels = index[pixels > 0], pixels[pixels > 0]
    n = len(index)
    keep = np.arange(n) if n <= SAMPLE_PIXELS else np.arange(SAMPLE_PIXELS) * n // SAMPLE_PIXELS
    data, maps = (a.reshape(used.size, -1)[index[keep]].sum(axis=1) for a in (x, c))
    return Bins(width, index[keep, 0], pixels[keep], data, maps), n


def outer_of(sampled: list[tuple[Bins, int]], pixel_total: float, k: int) -> Float:
    """``sum_b c_b c_b' / t_b`` over all bins of each width, t_b = total of the bin / mean total of a pixel."""
    outer = np.zeros((len(BIN_WIDTHS), k, k))
    for i, (bins, n) in enumerate(sampled):
        total = bins.data.sum(axis=1) / (pixel_total or 1.0)
        some = total > 0
        c = bins.abundances[some]
        outer[i] = (c / total[some, None]).T @ c * n / max(len(total), 1)
    return outer


def variance_index(x: Float, r: Float, used: Bool, k: int) -> float:
    """Half the mean squared difference of neighbours along x (or y), over the mean; the smaller of x and r."""
    if used.shape[-1] == 1:
        used, x, r = (a.swapaxes(len(used.shape) - 1, len(used.shape) - 2) for a in (used, x, r))
    both = used[..., 1:] & used[..., :-1]
    left, right = (a[both] for a in (x[..., :-1, :], x[..., 1:, :]))
    w = (left + right).sum(axis=0) / 2
    kept = (w >= 0.05 * w.mean()) & (w > 0)
    if not kept.any():
        return float("nan")
    data = ((left - right) ** 2).sum(axis=0) / 2
    rest = ((r[..., 1:, :] - r[..., :-1, :])[both] ** 2).sum(axis=0) / 2 / max(1 - k / x.shape[-1], 1e-3)
    return float(min(np.median(v[kept] / w[kept]) for v in (data, rest)))


def purity_of(c: Float, used: Bool) -> Float:
    """99.5th percentile over 2 x 2 pixels of the mean fraction of each component."""
    share = c / np.maximum(np.abs(c).sum(axis=-1, keepdims=True), 1e-300)
    lead, y, x = map_size(used.shape)
    share, used = share.reshape(lead, y, x, -1), used.reshape(lead, y, x)
    mean = []
    for i, j in itertools.product(range(max(1, y - 1)), range(max(1, x - 1))):
        window = np.s_[:, i : i + 2, j : j + 2]
        for values, there in zip(share[window], used[window], strict=True):
            mean += [values[there].mean(axis=0)] if there.any() else []
    found: Float = np.percentile(mean, 99.5, axis=0) if mean else np.zeros(c.shape[-1])
    return found
