"""Figures of the component spectra: all in one panel, and one panel each with labels at its lines or edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from scalehsi.arrays import NumpyArray
from scalehsi.physics.identify import Mark
from scalehsi.physics.peaks import smooth
from scalehsi.plots import style
from scalehsi.plots.digest import Digest, intensity_spectra
from scalehsi.plots.line_marks import component_marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scale = Literal["auto", "linear", "log"]

MAX_LABELS: Final = 22
PANEL_HEIGHT_INCHES: Final = 2.7
OVERVIEW_DECADES: Final = 3
"""Of a logarithmic overview, below the maximum of each spectrum."""


def energy_label(view: Digest) -> str:
    """Name and unit of the energy axis."""
    return f"Energy ({view.energy_unit})" if view.energy_unit not in ("", "channel") else "Channel"


def share_text(share: float, *, unit: str) -> str:
    """Write a share as text, such as ``84 % of the counts``; empty when the share is NaN."""
    if not np.isfinite(share):
        return ""
    percent = 100.0 * share
    number = f"{percent:.0f}" if percent >= 10 else f"{percent:.1f}" if percent >= 0.95 else f"{percent:.2g}"
    return f"{number} % of the {unit}"


def share_unit(view: Digest) -> str:
    """The quantity of which a share is a fraction."""
    if view.explained is not None:
        return "variance"
    return view.intensity_unit if view.intensity_unit == "counts" else "total intensity"


def smoothed(view: Digest) -> bool:
    """Whether panels show a smoothed line over the spectrum, as they do for EDS spectra that are not signed."""
    return view.signal == "EDS" and not view.signed


def draw_spectra(
    view: Digest,
    *,
    components: Sequence[int] | None = None,
    overview: bool = True,
    scale: Scale = "auto",
    marks: Sequence[Sequence[Mark]] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the spectra.

    Parameters
    ----------
    view : Digest
    components : sequence of int, optional
        Components that get a panel of their own; all by default.
    overview : bool
        Whether the first panel shows all spectra.
    scale : {"auto", "linear", "log"}
        Intensity axis of the panels; "auto" is logarithmic for EDS.
    marks : list of lists of Mark, optional
        Labels of all components, of `component_marks`; found here by default.
    ax : Axes, optional
        Where a single panel is drawn; replaced by several.

    Returns
    -------
    Figure
    """
    chosen = list(range(len(view.names))) if components is None else list(components)
    row = 0.7 if smoothed(view) else 0.55
    heights = [row * max(len(view.names), 3) + 0.9] * overview + [PANEL_HEIGHT_INCHES] * len(chosen)
    height = max(sum(heights), 1.0)
    if len(heights) == 1:
        figure, axes = style.one_panel(style.WIDTH_INCHES, height, ax)
        panels = np.array([axes])
    else:
        figure = style.new_figure(style.WIDTH_INCHES, height, ax)
        panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0] if heights else []
    if overview:
        _overview(panels[0], view)
    if marks is None:
        marks = component_marks(view) if chosen else []
    spectra = view.endmembers if view.signed else intensity_spectra(view)
    for axes, number in zip(panels[int(overview) :], chosen, strict=True):
        draw_panel(axes, view, number, spectra[number], marks[number], scale=scale)
    return figure


def _overview(axes: Axes, view: Digest) -> None:
    """Draw all spectra, each scaled to its maximum, one above the other with the first on top.

    Those of EDS are logarithmic over `OVERVIEW_DECADES`, or nothing but the strongest line would be seen.
    """
    log = view.signal == "EDS" and not view.signed
    apart = 2.1 if view.signed else 1.12
    count = len(view.names)
    for number, row in enumerate(view.endmembers):
        base = (count - 1 - number) * apart
        flat = smooth(view.energy_kev, np.nan_to_num(row))[0] if log else row
        top = float(np.max(np.abs(flat), initial=0.0, where=np.isfinite(flat))) or 1.0
        height = 1 + np.log10(np.maximum(flat / top, 10.0**-OVERVIEW_DECADES)) / OVERVIEW_DECADES if log else flat / top
        axes.axhline(base, color=style.GREY, linewidth=0.5)
        axes.plot(
            view.energy, base + height, color=style.colour(number), linestyle=style.line_style(number), linewidth=1.2
        )
        axes.annotate(
            view.names[number],
            (1.0, base),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 6),
            textcoords="offset points",
            color=style.colour(number),
            fontsize=style.TEXT_POINTS,
            fontweight="bold",
            parse_math=False,
        )
    scaled = (
        f"Each scaled to its maximum,\n{OVERVIEW_DECADES} decades (log scale)" if log else "Each scaled to\nits maximum"
    )
    style.style_axes(axes, xlabel=energy_label(view), ylabel=scaled)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(float(view.energy[0]), float(view.energy[-1]))


def draw_panel(
    axes: Axes,
    view: Digest,
    number: int,
    spectrum: NumpyArray,
    marks: Sequence[Mark],
    *,
    scale: Scale,
    inches: float = style.AXES_INCHES,
) -> None:
    """Draw one spectrum (E,) of component `number` with its labels, on axes of a width in inches.

    `scale` is that of the intensity axis, as in `draw_spectra`.
    """
    log = _use_log(view, spectrum, scale)
    colour = style.colour(number)
    flat = smooth(view.energy_kev, np.nan_to_num(spectrum))[0] if smoothed(view) else spectrum
    if smoothed(view):
        axes.plot(view.energy, spectrum, color=colour, linewidth=0.5, alpha=0.35)
    axes.plot(view.energy, flat, color=colour, linewidth=1.2)
    low, high = _ends(view, spectrum, flat, log=log)
    if log:
        axes.set_yscale("log", nonpositive="clip")
    elif view.signed:
        axes.axhline(0.0, color=style.GREY, linewidth=0.5)
    axes.set_ylim(low, high)
    axes.set_xlim(float(view.energy[0]), float(view.energy[-1]))
    unit = "Loading" if view.signed else f"{view.intensity_unit.capitalize()} per channel"
    style.style_axes(axes, xlabel=energy_label(view), ylabel=f"{unit}\n(log scale)" if log else unit)
    if not log:
        axes.yaxis.set_major_formatter(style.tick_format())
    draw_line_names(axes, view, marks, flat, high, inches=inches)
    share = share_text(view.shares[number], unit=share_unit(view))
    left = _crowded(flat, low, high, log=log)
    axes.text(
        0.01 if left else 0.995,
        0.96,
        f"{view.names[number]}\n{share}" if share else view.names[number],
        transform=axes.transAxes,
        ha="left" if left else "right",
        va="top",
        color=colour,
        fontsize=style.TEXT_POINTS,
        fontweight="bold",
        parse_math=False,
    )


def draw_line_names(
    axes: Axes,
    view: Digest,
    marks: Sequence[Mark],
    spectrum: NumpyArray,
    high: float,
    *,
    inches: float = style.AXES_INCHES,
) -> None:
    """Label the highest peaks, or the edges, in a row above the axes.

    `spectrum` (E,) is the drawn line at whose peaks thin vertical lines begin; `high` is the upper end of the axes;
    `inches` is their width.
    """
    most = int(MAX_LABELS * inches / style.AXES_INCHES)
    chosen = sorted(sorted(marks, key=lambda mark: -mark.net)[:most])
    energies = np.array([mark.energy for mark in chosen]) * view.units_per_kev
    labels = [mark.label if mark.certain or not view.elements else f"{mark.label}?" for mark in chosen]
    colours = [style.DARK if mark.certain or not view.elements else style.GREY for mark in chosen]
    for energy in energies:
        if view.signal == "EELS":
            axes.axvline(energy, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        else:
            peak = float(np.interp(energy, view.energy, spectrum))
            axes.plot([energy, energy], [min(peak * 1.15, high), high], color=style.GREY, linewidth=0.5, zorder=0)
    for energy, text in zip(
        energies, style.label_row(axes, energies, labels, colours=colours, inches=inches), strict=True
    ):
        text.set_gid(f"line {energy:.6g}")


def _crowded(spectrum: NumpyArray, low: float, high: float, *, log: bool) -> bool:
    """Whether the curve fills the upper right corner more than the upper left one.

    `spectrum` (E,) is the curve, `low` and `high` are the ends of its axis, `log` its scale.
    """

    def reach(part: NumpyArray) -> float:
        top = float(np.max(part, initial=low, where=np.isfinite(part)))
        return float(np.log(max(top, low) / low) / np.log(high / low)) if log else (top - low) / (high - low)

    quarter = max(1, spectrum.size // 4)
    return reach(spectrum[-quarter:]) > max(0.7, reach(spectrum[:quarter]))


def _use_log(view: Digest, spectrum: NumpyArray, scale: Scale) -> bool:
    """Whether the intensity axis is logarithmic: as `scale` says, for EDS by default, if any value is positive."""
    wanted = scale == "log" or (scale == "auto" and view.signal == "EDS" and not view.signed)
    return wanted and float(np.nanmax(spectrum, initial=0.0)) > 0


def _ends(view: Digest, spectrum: NumpyArray, flat: NumpyArray, *, log: bool) -> tuple[float, float]:
    """Lower and upper end of the intensity axis for a spectrum (E,) and its smoothed line `flat` (E,)."""
    finite = spectrum[np.isfinite(spectrum)]
    top = float(finite.max(initial=0.0))
    if log:
        positive = flat[flat > 1e-6 * top]
        floor = float(np.percentile(positive, 3)) if positive.size else top * 1e-3
        # Below one count the axis would only show how sparse the counts are.
        least = 0.4 if view.intensity_unit == "counts" and top > 40 else 0.0
        return max(0.5 * floor, top * 1e-5, least), 2.0 * top
    low = float(finite.min(initial=0.0))
    room = 0.08 * ((top - low) or 1.0)
    return (low - room if view.signed or low < -room else 0.0), (top + room if top + room > 0 else 1.0)
