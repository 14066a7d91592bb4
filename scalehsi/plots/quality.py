"""Figures of the quality of a fit: objective, residual map and spectrum, eigenvalues and Malinowski's indicator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scalehsi.arrays import NumpyArray
from scalehsi.plots import style
from scalehsi.plots.digest import Digest
from scalehsi.plots.maps import PANEL_TITLE_INCHES
from scalehsi.plots.spectra import energy_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LOG_SCALE_DECADES: Final = 1.5
"""The objective above its lowest value is drawn on a log scale when it spans more decades than this."""

CLOSE_TO_LOWEST: Final = 0.01
"""An objective that stays within this fraction of its lowest value is drawn relative to it."""

MIN_EIGENVALUES_SHOWN: Final = 30


def draw_objective(view: Digest, ax: Axes | None = None) -> Figure:
    """Draw the objective against the iteration."""
    assert view.objective is not None
    assert view.iteration is not None
    figure, axes = style.one_panel(style.WIDTH_INCHES * 0.62, 3.2, ax)
    objective = np.asarray(view.objective, dtype=np.float64)
    good = np.isfinite(objective)
    iteration, objective = view.iteration[good], objective[good]
    best = float(objective.min()) if objective.size else 0.0
    excess = objective - best
    above = excess > 0
    decades = np.log10(excess.max() / excess[above].min()) if above.any() else 0.0
    marker = "" if len(iteration) > 40 else "o"
    look: dict[str, Any] = {"color": style.COLOURS[0], "linewidth": 1.4, "marker": marker, "markersize": 3.5}
    if decades > LOG_SCALE_DECADES:
        axes.plot(iteration[above], excess[above], **look)
        axes.set_yscale("log")
        style.style_axes(
            axes,
            xlabel="Iteration",
            ylabel="Objective above its lowest value",
            title=f"Lowest value {style.number_text(best, 7)}",
        )
    else:
        # Where it hardly changes, its ticks would be long numbers that are all alike.
        close = best != 0 and excess.max(initial=0.0) < CLOSE_TO_LOWEST * abs(best)
        million = close and excess.max(initial=0.0) < 1e-4 * abs(best)
        scaled = excess / abs(best) * (1e6 if million else 100) if close else objective
        axes.plot(iteration, scaled, **look)
        axes.yaxis.set_major_formatter(style.tick_format())
        unit = "millionths" if million else "%"
        words = f"Objective above its\nlowest value ({unit})" if close else "Objective"
        title = f"Lowest value {style.number_text(best, 7)}" if close else ""
        style.style_axes(axes, xlabel="Iteration", ylabel=words, title=title)
    axes.grid(visible=True, axis="y", color=style.GRID_COLOUR, linewidth=0.6)
    style.integer_ticks(axes)
    return figure


def draw_residual(view: Digest, ax: Axes | None = None) -> Figure:
    """Draw the residual map, also in units of counting noise where nothing is negative, and the residual spectrum."""
    panels = _residual_panels(view)
    with_spectrum = view.residual_spectrum is not None
    columns = max((len(row) for row in panels), default=1)
    panel = style.WIDTH_INCHES / max(columns, 2)
    map_height = min(max(0.85 * panel * style.panel_shape(view) + PANEL_TITLE_INCHES, 1.2), 2.0 * style.WIDTH_INCHES)
    heights = [map_height * len(panels)] * bool(panels) + [4.2] * with_spectrum
    figure = style.new_figure(style.WIDTH_INCHES, sum(heights), ax)
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    if panels:
        grid = parts[0].subplots(len(panels), max(columns, 2), squeeze=False)
        for row, entries in zip(grid, panels, strict=True):
            for axes, (values, title, label, scale) in zip(row, entries, strict=False):
                colours = style.colour_map(style.RESIDUAL_COLOURS)
                image = style.show_map(axes, values, view, cmap=colours, vmin=scale[0], vmax=scale[1])
                style.scale_bar(axes, view)
                style.set_title(axes, title)
                style.colour_bar(parts[0], image, [axes], label, extend=style.beyond(values, *scale))
            for axes in row[len(entries) :]:
                axes.set_visible(False)
    if with_spectrum:
        _residual_spectrum(parts[-1], view)
    return figure


def _residual_panels(view: Digest) -> list[list[tuple[NumpyArray, str, str, tuple[float, float]]]]:
    """The residual panels in rows: map, title, label of the colour bar, and ends of the scale of each."""
    if view.residual is None:
        return []
    places = [f"\n{where}" if where else "" for where in view.positions]
    ends = _ends(view.residual)
    plain = [
        (values, f"RMS residual{where}", f"{view.intensity_unit} per channel", ends)
        for values, where in zip(view.residual, places, strict=True)
    ]
    if view.relative_residual is None:
        return [plain]
    ends = _ends(view.relative_residual)
    relative = [
        (values, f"RMS residual / counting noise{where}", "1 = Poisson noise", ends)
        for values, where in zip(view.relative_residual, places, strict=True)
    ]
    return [plain + relative] if len(places) == 1 else [plain, relative]


def _ends(values: NumpyArray) -> tuple[float, float]:
    """Ends of the colour scale of residuals; it does not start at zero, so that structure is visible."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [1.0, 99.5]).tolist() if finite.size else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _residual_spectrum(part: Any, view: Digest) -> None:
    """Draw the mean of data minus model, below the mean spectrum for comparison of their sizes."""
    assert view.residual_spectrum is not None
    residual = np.asarray(view.residual_spectrum, dtype=np.float64)
    above, below = part.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    if view.mean_spectrum is not None:
        mean = np.asarray(view.mean_spectrum, dtype=np.float64)
        above.plot(view.energy, mean, color=style.DARK, linewidth=1.0)
        if view.signal == "EDS" and (mean > 0).any():
            above.set_yscale("log")
            above.set_ylim(max(float(mean[mean > 0].min()), 1e-5 * float(mean.max())), 2 * float(mean.max()))
    style.style_axes(above, ylabel="Mean of\nthe data")
    below.axhline(0.0, color=style.GREY, linewidth=0.6)
    below.plot(view.energy, residual, color=style.COLOURS[1], linewidth=0.9)
    style.style_axes(below, xlabel=energy_label(view), ylabel=f"Data minus model\n({view.intensity_unit} per channel)")
    below.yaxis.set_major_formatter(style.tick_format())
    below.set_xlim(float(view.energy[0]), float(view.energy[-1]))
    part.align_ylabels()


def draw_scree(view: Digest, ax: Axes | None = None) -> Figure:
    """Draw the eigenvalues and Malinowski's indicator against the number of components."""
    assert view.eigenvalues is not None
    best = indicator_minimum(view)
    wanted = max(MIN_EIGENVALUES_SHOWN, 3 * len(view.names), min(best or 0, 4 * MIN_EIGENVALUES_SHOWN) + 5)
    shown = min(view.eigenvalues.size, wanted)
    figure = style.new_figure(style.WIDTH_INCHES, 3.3, ax)
    grid = figure.subplots(1, 1 if best is None else 2, squeeze=False)[0]
    _ranked(grid[0], view.eigenvalues[:shown], view, ylabel="Eigenvalue (variance)")
    if best is not None and view.malinowski is not None:
        _ranked(grid[1], view.malinowski[:shown], view, ylabel="Malinowski's indicator (lowest is best)")
        if best <= shown:
            lowest = float(view.malinowski[best - 1])
            grid[1].plot([best], [lowest], "o", color=style.COLOURS[1], markersize=6)
            grid[1].annotate(
                f"lowest at {best}",
                (best, lowest),
                xytext=(6, -13),
                textcoords="offset points",
                fontsize=style.SMALL_POINTS,
                color=style.COLOURS[1],
            )
    return figure


def _ranked(axes: Axes, heights: NumpyArray, view: Digest, *, ylabel: str) -> None:
    """Draw a value of each principal component on axes, with the kept ones shaded; logarithmic over a decade.

    `heights` are the values in rank order, `ylabel` is their name.
    """
    kept, shown = len(view.names), heights.size
    heights = np.where(heights > 0, heights, np.nan)
    axes.axvspan(0.5, kept + 0.5, color="#eaf1f7", zorder=0)
    axes.plot(np.arange(1, shown + 1), heights, color=style.COLOURS[0], linewidth=1.0, marker="o", markersize=3.5)
    finite = heights[np.isfinite(heights)]
    if finite.size and finite.max() > 10.0 * finite.min():
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_formatter(style.tick_format())
    axes.margins(y=0.16)
    axes.set_xlim(0.5, shown + 0.5)
    style.style_axes(axes, xlabel="Number of the component", ylabel=ylabel)
    style.integer_ticks(axes)
    axes.text(
        kept / 2 / shown,
        0.97,
        "kept",
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=style.SMALL_POINTS,
        color=style.GREY,
    )


def indicator_minimum(view: Digest) -> int | None:
    """Number of components at the minimum of Malinowski's indicator; None when the result has no indicator."""
    if view.malinowski is None or not np.isfinite(view.malinowski).any():
        return None
    # Near the full rank the indicator divides by a number close to zero, so only its first half is used.
    half = view.malinowski[: max(1, view.malinowski.size // 2)]
    if not np.isfinite(half).any():
        return None
    return int(np.nanargmin(half)) + 1
