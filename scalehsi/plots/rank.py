"""Figure of `scalehsi.select_rank`: components above noise for each size of bins, and what both halves agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from scalehsi.plots import style
from scalehsi.schema import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_rank(found: xr.Dataset, ax: Axes | None = None) -> Figure:
    """Draw the eigenvalues over the edge of noise (left), and the agreement of both halves (right)."""
    if "eigenvalue" not in found or "score" not in found:
        raise InputError("this Dataset is no choice of a rank; draw what hsi.select_rank(cube) gives")
    halves = "spectra" in found["criterion"].values
    figure = style.new_figure(style.WIDTH_INCHES if halves else 0.55 * style.WIDTH_INCHES, 3.6, ax)
    panels = figure.subplots(1, 2 if halves else 1, squeeze=False)[0]
    _draw_eigenvalues(panels[0], found)
    if halves:
        _draw_halves(panels[1], found)
    for axes in panels:
        axes.grid(visible=True, axis="y", color=style.GRID_COLOUR, linewidth=0.6)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _draw_eigenvalues(axes: Axes, found: xr.Dataset) -> None:
    """One line for each size of bins, and the edge of noise."""
    rank = found["rank"].values
    for number, row in enumerate(found["eigenvalue"].values):
        width = int(found["bins"].values[number])
        label = "single pixels" if width == 1 else f"bins of {width} × {width}"
        look: dict[str, Any] = {"color": style.COLOURS[number], "linewidth": 1.2, "marker": "o", "markersize": 4}
        axes.plot(rank, row, label=label, **look)
    axes.axhline(1.0, color=style.DARK, linewidth=1.0, linestyle="--")
    axes.annotate(
        "largest that noise reaches", (rank[-1], 1.0), (0, 4), textcoords="offset points", ha="right",
        fontsize=style.SMALL_POINTS, color=style.DARK,
    )  # fmt: skip
    axes.set_yscale("log")
    style.style_axes(axes, xlabel="Component", ylabel="Squared singular value\nover that of noise")
    axes.legend(fontsize=style.SMALL_POINTS, frameon=False)
    style.set_title(axes, f"{found.attrs['significant']} above the noise")


def _draw_halves(axes: Axes, found: xr.Dataset) -> None:
    """Agreement of spectra and maps against the number of components; the resolved number is shaded."""
    k = found["k"].values
    for number, (name, label, limit) in enumerate(
        (("spectra", "spectra (least cosine)", 0.95), ("maps", "maps (least correlation)", 0.6))
    ):
        values = found["score"].sel(criterion=name).values
        if np.isfinite(values).any():
            colour = style.COLOURS[number]
            axes.plot(k, values, color=colour, linewidth=1.2, marker="o", markersize=4, label=label)
            axes.axhline(limit, color=colour, linewidth=0.8, linestyle=":")
    resolved = int(found.attrs["resolved"])
    if resolved > 0:
        axes.axvspan(resolved - 0.25, resolved + 0.25, color=style.SHADE_COLOUR, zorder=0)
    axes.set_ylim(-0.05, 1.08)
    style.style_axes(axes, xlabel="Number of components", ylabel="Agreement of both halves")
    axes.legend(fontsize=style.SMALL_POINTS, frameon=False, loc="lower left")
    style.set_title(axes, f"{resolved} come out the same" if resolved > 0 else "none comes out the same")
