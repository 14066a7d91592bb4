"""Draw the standard deviations, length scales and tile seams of a Gaussian process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.plots import style
from scalehsi.plots.coordinates import places_of
from scalehsi.plots.digest import Digest, block_mean, take
from scalehsi.schema import ABUNDANCES_STD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NEEDED: Final = (ABUNDANCES_STD, "lengthscale", "noise_std", "length_scan")


BAND: Final = 1.96
"""Standard deviations on each side that hold 95 % of a normal distribution."""


def draw_uncertainty(view: Digest, deviation: NumpyArray) -> Figure:
    """Draw mean, deviation and a profile with its band, a row for each component."""
    count = len(view.names)
    height = 0.9 * style.WIDTH / 3 * style.panel_shape(view) + 0.4
    figure = style.new_figure(style.WIDTH, min(max(height, 1.6), 4.0) * count)
    grid = figure.subplots(count, 3, squeeze=False, width_ratios=(1, 1, 1.25))
    for k, (left, middle, right) in enumerate(grid):
        mean, std = view.maps[k, 0], deviation[k]
        for axes, values, colours, name in (
            (left, mean, style.MAP_COLOURS, view.names[k]),
            (middle, std, "magma", "Standard deviation"),
        ):
            shown = values[np.isfinite(values)]
            low, high = np.percentile(shown, [0.2, 99.8]).tolist() if shown.size else (0.0, 1.0)
            low = 0.0 if axes is middle else low
            image = style.show_map(
                axes, values, view, cmap=style.colour_map(colours), vmin=low, vmax=high if high > low else low + 1.0
            )
            style.scale_bar(axes, view)
            axes.set_title(name, fontsize=style.TEXT, loc="left", color=style.INK, parse_math=False)
            style.colour_bar(figure, image, [axes], "", extend="both")
        _profile(right, view, mean, std, k)
    return figure


def _profile(axes: Axes, view: Digest, mean: NumpyArray, std: NumpyArray, component: int) -> None:
    """A row through the middle of a map with its 95 % band."""
    row = mean.shape[0] // 2
    step = view.pixel_nm[1] if view.pixel_nm else float(view.block)
    places = (np.arange(mean.shape[1]) + 0.5) * step
    colour = style.colour(component)
    low, high = mean[row] - BAND * std[row], mean[row] + BAND * std[row]
    axes.fill_between(places, low, high, color=colour, alpha=0.25, linewidth=0).set_gid("band")
    axes.plot(places, mean[row], color=colour, linewidth=1.2)
    axes.set_xlim(places[0], places[-1] if places.size > 1 else places[0] + step)
    style.tidy(axes, xlabel=f"x ({'nm' if view.pixel_nm else 'pixels'})", title="Middle row, 95 % band")


def draw_lengths(result: xr.Dataset) -> Figure:
    """Draw the negative logarithm of the evidence against the length, above its least."""
    scan = result["length_scan"]
    lengths, loss = np.asarray(scan["length"].values, dtype=float), np.asarray(scan.values, dtype=float)
    figure = style.new_figure(style.WIDTH, 3.0)
    axes = figure.subplots()
    axes.plot(lengths, loss - loss.min(), color=style.COLOURS[0], linewidth=1.2, marker="o", markersize=4)
    axes.set_xscale("log")
    if loss.size > 1 and loss.max() > loss.min():
        axes.set_yscale("symlog", linthresh=10.0, linscale=0.5)
    for value, name, dash in zip(result["lengthscale"].values, ("y", "x"), ((0, (4, 2)), (0, (1, 1.5))), strict=True):
        axes.axvline(float(value), color=style.INK, linewidth=0.9, linestyle=dash, label=f"found along {name}")
    axes.set_ylim(bottom=0.0)
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if lengths.min() <= t <= lengths.max()]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.legend(fontsize=style.SMALL, edgecolor="white")
    style.tidy(axes, xlabel="Length (pixels)", ylabel="Less likely by (nats)")
    return figure


def draw_seam(seam: xr.DataArray) -> Figure:
    """Draw the difference around a corner of tiles, in per cent of the standard deviation."""
    y, x = (np.asarray(seam[d].values, dtype=float) for d in seam.dims)
    figure = style.new_figure(0.55 * style.WIDTH, 0.46 * style.WIDTH)
    axes = figure.subplots()
    edges = tuple(float(v) for v in (x[0] - 0.5, x[-1] + 0.5, y[-1] + 0.5, y[0] - 0.5))
    image = axes.imshow(100 * seam.values, extent=edges, cmap=style.colour_map("viridis"), vmin=0.0)
    axes.axhline(0.0, color="white", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.axvline(0.0, color="white", linewidth=0.8, linestyle=(0, (4, 3)))
    style.tidy(axes, xlabel="x from the corner (pixels)", ylabel="y from the corner (pixels)")
    style.colour_bar(figure, image, [axes], "difference (% of the standard deviation)", extend="neither")
    return figure


def _drawn(maps: xr.DataArray, result: xr.Dataset, view: Digest) -> NumpyArray:
    """Maps at the first of leading positions, averaged as those of the digest are."""
    place = places_of(result)[0][:1]
    return np.asarray(block_mean(take(maps.reset_coords(drop=True), place), view.block).values)[:, 0]
