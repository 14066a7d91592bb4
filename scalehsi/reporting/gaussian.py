"""Drawing of maps that a Gaussian process reconstructed: how sure they are, at which lengths, and without seams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.reporting import style
from scalehsi.reporting.coordinates import places_of
from scalehsi.reporting.digest import Digest, block_mean, take
from scalehsi.reporting.lengths import draw_scan
from scalehsi.reporting.page import Chapter, Drawing, paragraph, table
from scalehsi.schema import ABUNDANCES_STD, InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NEEDED: Final = (ABUNDANCES_STD, "lengthscale", "noise_std", "length_scan")
BAND: Final = 1.96
"""Standard deviations on each side that hold 95 % of a normal distribution."""


def chapter(result: xr.Dataset, view: Digest, scan: xr.Dataset | None = None) -> Chapter | None:
    """The part of the page on a Gaussian process; None for other results. `scan` is that of its lengths."""
    if any(name not in result for name in NEEDED):
        if scan is not None:
            raise InputError(f"scan= belongs to the report of a ParallelGP, and this result is of {view.model}")
        return None
    deviation = _drawn(result[ABUNDANCES_STD], result, view)
    y, x = (float(v) for v in result["lengthscale"].values)
    nm = [float(v) for v in result["lengthscale_nm"].values] if "lengthscale_nm" in result else None
    lengths = (
        f"{nm[0]:.3g} nm along y and {nm[1]:.3g} nm along x ({y:.3g} and {x:.3g} pixels)"
        if nm
        else (f"{y:.3g} pixels along y and {x:.3g} along x")
    )
    words = (
        "All maps were reconstructed together from noisy ones, as smooth functions of the place that share one "
        f"covariance: values stay alike over {lengths}. Each map has its own noise, and maps of the same structure "
        "help each other. The standard deviation says how far the map may be wrong at a point if the model is right; "
        "it holds none of the noise of a single measurement."
    )
    drawings = [
        Drawing(
            "gaussian",
            "uncertainty.png",
            draw_uncertainty(view, deviation),
            f"Mean, standard deviation and a profile of {', '.join(view.names)}.",
            "Left: the mean. Middle: its standard deviation, larger where less was measured and at the edges. Right: "
            "the row through the middle, with the band that holds the true value with a probability of 95 %.",
        ),
        Drawing(
            "gaussian",
            "lengths.png",
            draw_lengths(result),
            "Likelihood of the maps at each length of the covariance.",
            "How much less likely the measured maps are with another length, the same along y and x. Several valleys "
            "mean structures of several sizes: set lengthscale=(low, high) around the one that is wanted.",
        ),
    ]
    body = paragraph(words) + _table(result, view, deviation)
    if scan is not None:
        drawings.append(
            Drawing(
                "gaussian",
                "scan.png",
                draw_scan(scan),
                "Length scale of each component against its upper limit, and the likelihood behind it.",
                "Left: the length that each component ends at when it may not be longer than the limit; a plateau is a "
                "length that it shows, the dotted line the limit itself. Right: the likelihood at each length, with "
                f"its basins. {scan.attrs.get('advice', '')}".strip(),
            )
        )
    if "seam_difference" in result:
        seam = result["seam_difference"]
        worst, mean = float(seam.max()), float(seam.mean())
        body += paragraph(
            f"The maps were made tile by tile, each with {int(seam.attrs.get('halo', 0))} pixels around it. Around one "
            "corner where four tiles meet they were made again as one tile: the largest difference is "
            f"{100 * worst:.2g} % of the standard deviation, the mean one {100 * mean:.2g} %."
        )
        drawings.append(
            Drawing(
                "gaussian",
                "seams.png",
                draw_seam(seam),
                "Difference of tiled maps from those of one tile, around a corner of tiles.",
                "Lines: borders of the tiles. A seam would show as a step along them.",
            )
        )
    return Chapter("gaussian", "How sure are the maps?", body, drawings)


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


def _table(result: xr.Dataset, view: Digest, deviation: NumpyArray) -> str:
    """Noise of a pixel before, and deviation of the map after."""
    rows = []
    for k, name in enumerate(view.names):
        noise = float(result["noise_std"].values[k])
        after = float(np.nanmedian(deviation[k]))
        rows.append((name, f"{noise:.3g}", f"{after:.3g}", f"{noise / after:.1f}" if after else "-"))
    head = ("Component", "Noise of a pixel", "Standard deviation of the map (median)", "Smaller by")
    return table(head, rows, numbers=range(1, len(head)))
