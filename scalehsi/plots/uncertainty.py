"""Figures of a Gaussian process: standard deviation of its maps, likelihood of length scales, and tile borders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.plots import style
from scalehsi.plots.coordinates import shown_positions
from scalehsi.plots.digest import Digest, block_mean, map_scale, maps_at
from scalehsi.plots.maps import map_unit
from scalehsi.schema import ABUNDANCES_STD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REQUIRED_VARIABLES: Final = (ABUNDANCES_STD, "lengthscale", "noise_std", "length_scan")
"""Variables that only the result of a Gaussian process has."""

SIGMAS_OF_95_PERCENT: Final = 1.96
"""Standard deviations on each side of the mean that contain 95 % of a normal distribution."""


def draw_uncertainty(view: Digest, deviation: NumpyArray) -> Figure:
    """Draw mean, standard deviation and a profile with its 95 % band, one row for each component.

    `deviation` (K, ny, nx) is in the unit of the abundances; all is drawn in that of `maps.draw_maps`.
    """
    count = len(view.names)
    height = 0.9 * style.WIDTH_INCHES / 3 * style.panel_shape(view) + 0.4
    figure = style.new_figure(style.WIDTH_INCHES, min(max(height, 1.6), 4.0) * count)
    grid = figure.subplots(count, 3, squeeze=False, width_ratios=(1, 1, 1.25))
    scale = map_scale(view)
    for k, (left, middle, right) in enumerate(grid):
        mean, std = view.maps[k, 0] * scale[k], deviation[k] * scale[k]
        for axes, values, colours, name in (
            (left, mean, style.MAP_COLOURS, view.names[k]),
            (middle, std, style.DEVIATION_COLOURS, "Standard deviation"),
        ):
            low, high = style.percentile_range(values)
            low = 0.0 if axes is middle else low
            image = style.show_map(axes, values, view, cmap=style.colour_map(colours), vmin=low, vmax=high)
            style.scale_bar(axes, view)
            style.set_title(axes, name)
            style.colour_bar(figure, image, [axes], map_unit(view), extend=style.beyond(values, low, high))
        _profile(right, view, mean, std, k)
    return figure


def _profile(axes: Axes, view: Digest, mean: NumpyArray, std: NumpyArray, component: int) -> None:
    """Draw the middle row of a component's map, mean (ny, nx), with its 95 % band from the standard deviation."""
    row = mean.shape[0] // 2
    step = view.pixel_nm[1] if view.pixel_nm else float(view.block)
    places = (np.arange(mean.shape[1]) + 0.5) * step
    unit = "pixels"
    if view.pixel_nm:
        factor, unit = style.length_unit(places[-1])
        places, step = places / factor, step / factor
    colour = style.colour(component)
    half = SIGMAS_OF_95_PERCENT * std[row]
    axes.fill_between(places, mean[row] - half, mean[row] + half, color=colour, alpha=0.25, linewidth=0).set_gid("band")
    axes.plot(places, mean[row], color=colour, linewidth=1.2)
    axes.set_xlim(places[0], places[-1] if places.size > 1 else places[0] + step)
    axes.yaxis.set_major_formatter(style.tick_format())
    axes.xaxis.set_major_formatter(style.tick_format())
    style.style_axes(axes, xlabel=f"x ({unit})", title="Middle row, 95 % band")


def draw_lengths(result: xr.Dataset) -> Figure:
    """Draw the negative log evidence, above its minimum, against the length scale."""
    scan = result["length_scan"]
    lengths, loss = np.asarray(scan["length"].values, dtype=float), np.asarray(scan.values, dtype=float)
    figure = style.new_figure(style.WIDTH_INCHES, 3.0)
    axes = figure.subplots()
    axes.plot(lengths, loss - loss.min(), color=style.COLOURS[0], linewidth=1.2, marker="o", markersize=4)
    axes.set_xscale("log")
    if loss.size > 1 and loss.max() > loss.min():
        axes.set_yscale("symlog", linthresh=10.0, linscale=0.5)
    for value, name, dash in zip(result["lengthscale"].values, ("y", "x"), ((0, (4, 2)), (0, (1, 1.5))), strict=True):
        axes.axvline(float(value), color=style.DARK, linewidth=0.9, linestyle=dash, label=f"found along {name}")
    axes.set_ylim(bottom=0.0)
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if lengths.min() <= t <= lengths.max()]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.legend(fontsize=style.SMALL_POINTS, edgecolor="white")
    style.style_axes(axes, xlabel="Length (pixels)", ylabel="Less likely by (nats)")
    return figure


def draw_seam(seam: xr.DataArray) -> Figure:
    """Draw the difference between tiled and untiled maps around a corner of tiles, in % of the standard deviation."""
    y, x = (np.asarray(seam[d].values, dtype=float) for d in seam.dims)
    figure = style.new_figure(0.55 * style.WIDTH_INCHES, 0.46 * style.WIDTH_INCHES)
    axes = figure.subplots()
    edges = tuple(float(v) for v in (x[0] - 0.5, x[-1] + 0.5, y[-1] + 0.5, y[0] - 0.5))
    image = axes.imshow(100 * seam.values, extent=edges, cmap=style.colour_map(style.MAP_COLOURS), vmin=0.0)
    axes.axhline(0.0, color="white", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.axvline(0.0, color="white", linewidth=0.8, linestyle=(0, (4, 3)))
    style.style_axes(axes, xlabel="x from the corner (pixels)", ylabel="y from the corner (pixels)")
    style.colour_bar(figure, image, [axes], "difference (% of the standard deviation)", extend="neither")
    return figure


def at_drawn_resolution(maps: xr.DataArray, result: xr.Dataset, view: Digest) -> NumpyArray:
    """Maps of a result at the first of leading positions, averaged in the blocks of the digest, (K, ny, nx)."""
    place = shown_positions(result)[0][:1]
    return np.asarray(block_mean(maps_at(maps.reset_coords(drop=True), place), view.block).values)[:, 0]
