"""Draw the scan of bin sizes of PSNMF."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from scalehsi.plots import style
from scalehsi.schema import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DECADES: Final = 1.5
"""Scores that span more than this are drawn on a scale that is logarithmic away from the best."""


KEPT: Final = ("score", "score_error", "stability")


def scan_of(given: xr.Dataset) -> xr.Dataset:
    """The scan itself, of `scalehsi.scan_bins` or of a result that chose its bins by one; ``chosen`` in its attributes.

    Raises
    ------
    InputError
        When there is none.
    """
    if all(name in given for name in KEPT):
        return given
    if all(f"bin_{name}" in given for name in KEPT):
        scan = xr.Dataset({name: given[f"bin_{name}"].compute() for name in KEPT})
        used = {} if "bin_factor" not in given else {"chosen": int(np.asarray(given["bin_factor"].values).flat[0])}
        return scan.assign_attrs(used)
    raise InputError(
        "no scan of bins is in this Dataset; draw what hsi.scan_bins(cube) gives, or a result of "
        "hsi.PSNMF(n, bin_factor='auto')"
    )


def draw_bins(scan: xr.Dataset) -> Figure:
    """Draw score and stability against the side of a bin."""
    figure = style.new_figure(style.WIDTH, 3.4)
    left, right = figure.subplots(1, 2)
    bins, score = np.asarray(scan["bin"].values, dtype=float), np.asarray(scan["score"].values, dtype=float)
    look: dict[str, Any] = {"color": style.COLOURS[0], "linewidth": 1.2, "marker": "o", "markersize": 4.5}
    left.errorbar(bins, score, yerr=scan["score_error"].values, capsize=3, ecolor=style.COLOURS[0], **look)
    below = np.abs(score[score < 0])
    if below.size and np.log10(below.max() / below.min()) > DECADES:
        left.set_yscale("symlog", linthresh=float(10 ** np.floor(np.log10(below.min()))), linscale=0.5)
    style.tidy(left, ylabel="Likelihood of counts held out\n(below the best, per 1000 counts)")
    angles = np.asarray(scan["stability"].values, dtype=float)
    right.plot(bins, angles, **look)
    right.set_ylim(0.0, 1.15 * float(np.nanmax(angles, initial=1e-9)))
    style.tidy(right, ylabel="Largest angle between\nspectra of both halves (°)")
    for axes in (left, right):
        _bin_axis(axes, bins, scan.attrs.get("chosen"))
    return figure


def _bin_axis(axes: Axes, bins: Any, chosen: int | None) -> None:
    """Sizes on a logarithmic axis, each with its number, the chosen one shaded."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log", base=2)
    axes.set_xlim(bins.min() / 1.25, bins.max() * 1.25)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(bins, [f"{size:g}" for size in bins])
    axes.set_xlabel("Pixels along a side of a bin", fontsize=style.TEXT, color=style.INK)
    axes.grid(visible=True, axis="y", color="#e5e5e5", linewidth=0.6)
    if chosen is None:
        return
    axes.axvspan(chosen / 1.09, chosen * 1.09, color="#e3edf5", zorder=0).set_gid("chosen")
    axes.set_title(f"used: {chosen} × {chosen} pixels", fontsize=style.TEXT, loc="left", color=style.INK)
