"""Figures of a length-scale scan, and of the similarity of reconstructed maps to the truth at several noise ratios."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from scalehsi.plots import style
from scalehsi.schema import COMPONENT, InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCAN_VARIABLES: Final = ("loss", "converged", "basin", "recommended")
NOISE_RATIO_DIMS: Final = (COMPONENT, "sigma0", "alpha")


def draw_scan(scan: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw the length scale of each component against its upper limit, and the loss against the length scale.

    Raises
    ------
    InputError
        When the Dataset is no scan of length scales.
    """
    missing = [name for name in SCAN_VARIABLES if name not in scan]
    if missing:
        raise InputError(
            f"this Dataset has no {missing[0]!r}; draw what hsi.lengthscale_scan(maps) gives, or its stored copy"
        )
    scan = scan.compute()
    figure = style.new_figure(style.WIDTH_INCHES, 4.2, ax)
    left, right = figure.subplots(1, 2)
    limits, lengths = (np.asarray(scan[name].values, dtype=float) for name in ("limit", "length"))
    left.plot(limits, limits, color=style.GREY, linewidth=0.8, linestyle=":", zorder=1)
    for k, name in enumerate(scan[COMPONENT].values.tolist()):
        look: dict[str, Any] = {"color": style.colour(k), "linestyle": style.line_style(k), "linewidth": 1.4}
        left.plot(limits, scan["converged"].values[k], marker="o", markersize=3.5, label=_label(name), **look)
        curve = np.asarray(scan["loss"].values[k], dtype=float)
        top = max(float(curve.max()), 1e-300)
        right.plot(lengths, curve / top, label=_label(name), **look)
        minima = np.asarray(scan["basin"].values[k], dtype=float)
        minima = minima[np.isfinite(minima)]
        depth = np.interp(np.log(minima), np.log(lengths), curve / top)
        right.plot(minima, depth, color=style.colour(k), linestyle="", marker="v", markersize=6)
    low, high = (float(v) for v in scan["recommended"].values)
    for axes, shade in ((left, left.axhspan), (right, right.axvspan)):
        if np.isfinite(low):
            shade(low, high, color=style.SHADE_COLOUR, zorder=0).set_gid("recommended")
        axes.grid(visible=True, color=style.GRID_COLOUR, linewidth=0.6)
    style.style_axes(
        left,
        xlabel="Upper limit of the length scale (pixels)",
        ylabel="Length scale found (pixels)",
        title=_interval_words(scan, low, high),
    )
    style.style_axes(right, xlabel="Length scale (pixels)", ylabel="Loss above its minimum,\nrelative to its maximum")
    _log2_axis(left.xaxis, limits, left.set_xscale)
    _log2_axis(left.yaxis, np.concatenate([limits, scan["converged"].values.ravel()]), left.set_yscale)
    _log2_axis(right.xaxis, lengths, right.set_xscale)
    left.legend(fontsize=style.SMALL_POINTS, frameon=False, labelcolor=style.DARK)
    return figure


def _label(name: Any) -> str:
    """Name of a component in the legend."""
    return f"Component {name}" if isinstance(name, int | float) else str(name)


def _interval_words(scan: xr.Dataset, low: float, high: float) -> str:
    """The recommended interval, low to high in pixels, and in nm where the scan has lengths."""
    if not np.isfinite(low):
        return "no length scale below the last limit"
    words = f"recommended: {style.number_text(low, 2)} to {style.number_text(high, 2)} pixels"
    if "recommended_nm" not in scan:
        return words
    ends = np.asarray(scan["recommended_nm"].values, dtype=float)
    if not np.allclose(ends[0], ends[1], rtol=0.01):
        return words
    return f"{words} ({style.length_text(ends[0, 0], 2)} to {style.length_text(ends[0, 1], 2)})"


def _log2_axis(axis: Any, values: Any, set_scale: Any) -> None:
    """Make an axis logarithmic, with ticks at powers of two.

    `axis` is the x or y axis, `values` are the drawn lengths in pixels, `set_scale` sets the scale of that axis.
    """
    from matplotlib.ticker import NullLocator

    set_scale("log", base=2)
    finite = np.asarray(values, dtype=float)
    low, high = float(np.nanmin(finite)), float(np.nanmax(finite))
    ticks = 2.0 ** np.arange(np.floor(np.log2(low)), np.ceil(np.log2(high)) + 1)
    ticks = ticks[(ticks >= low / 1.05) & (ticks <= high * 1.05)]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def draw_noise_ratios(table: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw similarity to the truth against noise: one column for each component, one line for each noise ratio.

    Raises
    ------
    InputError
        When a variable has other dims than (component, sigma0, alpha).
    """
    names = [str(name) for name, v in table.data_vars.items() if set(v.dims) == set(NOISE_RATIO_DIMS)]
    if not names:
        raise InputError(
            f"noise ratios have the dims {NOISE_RATIO_DIMS}, got {dict(table.sizes)}; "
            "give a Dataset with one variable of similarities for each method of reconstruction"
        )
    table = table[names].transpose(*NOISE_RATIO_DIMS).compute()
    components = table[COMPONENT].values.tolist()
    figure = style.new_figure(style.WIDTH_INCHES, 0.9 + 2.1 * len(names), ax)
    grid = figure.subplots(len(names), len(components), squeeze=False, sharex=True, sharey=True)
    for i, (row, name) in enumerate(zip(grid, names, strict=True)):
        for k, axes in enumerate(row):
            _draw_ratios(axes, table[name].values[k], table)
            style.style_axes(
                axes,
                xlabel="Noise σ₀" if i == len(names) - 1 else "",
                ylabel="Similarity" if k == 0 else "",
                title=f"{_label(components[k])}, {name}",
            )
            axes.grid(visible=True, color=style.GRID_COLOUR, linewidth=0.6)
    grid[0, 0].set_ylim(-0.1, 1.04)
    grid[0, 0].legend(fontsize=style.SMALL_POINTS, frameon=False, labelcolor=style.DARK)
    return figure


def _draw_ratios(axes: Axes, values: Any, table: xr.Dataset) -> None:
    """Draw similarities, values (sigma0, alpha), of one component with the coordinates of the table."""
    for i, alpha in enumerate(table["alpha"].values.tolist()):
        axes.plot(
            table["sigma0"].values,
            values[:, i],
            color=style.colour(i),
            linestyle=style.line_style(i),
            linewidth=1.4,
            marker="o",
            markersize=3,
            label=f"α = {alpha:g}",
        )
