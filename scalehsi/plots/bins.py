"""Figure of a bin-size scan of PSNMF: prediction of held-out counts, and scatter of the spectra, for each bin size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from scalehsi.plots import style
from scalehsi.schema import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOG_SCALE_DECADES: Final = 1.5
"""Scores that span more decades than this get a logarithmic axis, linear near the best score."""

SCAN_VARIABLES: Final = ("score", "score_error", "stability")


def bin_scan_in(given: xr.Dataset) -> xr.Dataset:
    """Return the scan of `scalehsi.scan_bins`, or the one in a PSNMF result; ``chosen`` is in its attributes.

    Raises
    ------
    InputError
        When the Dataset holds no scan.
    """
    if all(name in given for name in SCAN_VARIABLES):
        return given
    if all(f"bin_{name}" in given for name in SCAN_VARIABLES):
        scan = xr.Dataset({name: given[f"bin_{name}"].compute() for name in SCAN_VARIABLES})
        used = {} if "bin_factor" not in given else {"chosen": int(np.asarray(given["bin_factor"].values).flat[0])}
        return scan.assign_attrs(used)
    raise InputError(
        "no scan of bins is in this Dataset; draw what hsi.scan_bins(cube) gives, or a result of "
        "hsi.PSNMF(n, bin_factor='auto')"
    )


def draw_bins(scan: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw the score (left) and the stability of the spectra (right) against the side of a bin."""
    figure = style.new_figure(style.WIDTH_INCHES, 3.4, ax)
    left, right = figure.subplots(1, 2)
    bins, score = np.asarray(scan["bin"].values, dtype=float), np.asarray(scan["score"].values, dtype=float)
    look: dict[str, Any] = {"color": style.COLOURS[0], "linewidth": 1.2, "marker": "o", "markersize": 4.5}
    left.errorbar(bins, score, yerr=scan["score_error"].values, capsize=3, ecolor=style.COLOURS[0], **look)
    below = np.abs(score[score < 0])
    if below.size and np.log10(below.max() / below.min()) > LOG_SCALE_DECADES:
        left.set_yscale("symlog", linthresh=float(10 ** np.floor(np.log10(below.min()))), linscale=0.5)
    style.style_axes(left, ylabel="Likelihood of held-out counts\n(below the best, per 1000 counts)")
    angles = np.asarray(scan["stability"].values, dtype=float)
    right.plot(bins, angles, **look)
    right.set_ylim(0.0, 1.15 * float(np.nanmax(angles, initial=1e-9)))
    style.style_axes(right, ylabel="Largest angle between\nspectra of both halves (°)")
    for axes in (left, right):
        _bin_axis(axes, bins, scan.attrs.get("chosen"))
    return figure


def _bin_axis(axes: Axes, bins: Any, chosen: int | None) -> None:
    """Make a logarithmic x axis with a tick at each of the ``bins``, and shade the ``chosen`` one."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xlim(bins.min() / 1.25, bins.max() * 1.25)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(bins, [f"{size:g}" for size in bins])
    axes.set_xlabel("Pixels along a side of a bin", fontsize=style.TEXT_POINTS, color=style.DARK)
    axes.grid(visible=True, axis="y", color=style.GRID_COLOUR, linewidth=0.6)
    if chosen is not None:
        axes.axvspan(chosen / 1.09, chosen * 1.09, color=style.SHADE_COLOUR, zorder=0).set_gid("chosen")
        style.set_title(axes, f"used: {chosen} × {chosen} pixels")
