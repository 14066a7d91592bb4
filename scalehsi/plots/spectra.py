"""Drawings of the spectra: all together, and one panel each with its lines or edges named."""

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

MOST_LABELS: Final = 22
PANEL_HEIGHT: Final = 2.7
ROW: Final = 1.05
"""Where the row of names begins, in heights of the axes."""

LABEL_GAP: Final = 1.3 * style.SMALL / 72
"""Inches between upright names."""


def energy_label(view: Digest) -> str:
    """Name and unit of the energy axis."""
    return f"Energy ({view.energy_unit})" if view.energy_unit not in ("", "channel") else "Channel"


def share_text(share: float, *, unit: str) -> str:
    """A share in words: ``84 % of the counts``; empty when it is not known."""
    if not np.isfinite(share):
        return ""
    percent = 100.0 * share
    number = f"{percent:.0f}" if percent >= 10 else f"{percent:.1f}" if percent >= 0.95 else f"{percent:.2g}"
    return f"{number} % of the {unit}"


def share_unit(view: Digest) -> str:
    """Of what a share is a part."""
    if view.explained is not None:
        return "variance"
    return view.intensity_unit if view.intensity_unit == "counts" else "total intensity"


def smoothed(view: Digest) -> bool:
    """Whether panels show a smoothed line over the spectrum: for counts of EDS, not for signed components."""
    return view.signal == "EDS" and not view.signed


def draw_spectra(
    view: Digest,
    *,
    components: Sequence[int] | None = None,
    overview: bool = True,
    scale: Scale = "auto",
    marks: Sequence[Sequence[Mark]] | None = None,
) -> Figure:
    """Draw the overview (if asked for) and one panel for each of `components` (all, when None).

    `marks` are those of `component_marks`, when they are known already.
    """
    chosen = list(range(len(view.names))) if components is None else list(components)
    heights = [0.55 * max(len(view.names), 3) + 0.9] * overview + [PANEL_HEIGHT] * len(chosen)
    figure = style.new_figure(style.WIDTH, max(sum(heights), 1.0))
    if not heights:
        return figure
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    if overview:
        _overview(panels[0], view)
    if marks is None:
        marks = component_marks(view) if chosen else []
    spectra = view.endmembers if view.signed else intensity_spectra(view)
    for axes, number in zip(panels[int(overview) :], chosen, strict=True):
        _panel(axes, view, number, spectra[number], marks[number], log=_use_log(view, spectra[number], scale))
    return figure


def _overview(axes: Axes, view: Digest) -> None:
    """All spectra, each scaled to its own maximum, one above the other: the first on top."""
    apart = 2.1 if view.signed else 1.12
    count = len(view.names)
    for number, row in enumerate(view.endmembers):
        base = (count - 1 - number) * apart
        top = float(np.max(np.abs(row), initial=0.0, where=np.isfinite(row))) or 1.0
        axes.axhline(base, color=style.FAINT, linewidth=0.5)
        axes.plot(
            view.energy, base + row / top, color=style.colour(number), linestyle=style.line(number), linewidth=1.2
        )
        axes.annotate(
            view.names[number],
            (1.0, base),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 6),
            textcoords="offset points",
            color=style.colour(number),
            fontsize=style.TEXT,
            fontweight="bold",
            parse_math=False,
        )
    style.tidy(axes, xlabel=energy_label(view), ylabel="Each scaled to\nits maximum")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlim(float(view.energy[0]), float(view.energy[-1]))


def _panel(axes: Axes, view: Digest, number: int, spectrum: NumpyArray, marks: Sequence[Mark], *, log: bool) -> None:
    """One spectrum with its scale and its names."""
    colour = style.colour(number)
    flat = smooth(view.energy_kev, np.nan_to_num(spectrum))[0] if smoothed(view) else spectrum
    if smoothed(view):
        axes.plot(view.energy, spectrum, color=colour, linewidth=0.5, alpha=0.35)
    axes.plot(view.energy, flat, color=colour, linewidth=1.2)
    low, high = _ends(view, spectrum, flat, log=log)
    if log:
        axes.set_yscale("log", nonpositive="clip")
    elif view.signed:
        axes.axhline(0.0, color=style.FAINT, linewidth=0.5)
    axes.set_ylim(low, high)
    axes.set_xlim(float(view.energy[0]), float(view.energy[-1]))
    unit = "Loading" if view.signed else f"{view.intensity_unit.capitalize()} per channel"
    style.tidy(axes, xlabel=energy_label(view), ylabel=f"{unit}\n(log scale)" if log else unit)
    if not log:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    name_row(axes, view, marks, flat, high)
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
        fontsize=style.TEXT,
        fontweight="bold",
        parse_math=False,
    )


def name_row(axes: Axes, view: Digest, marks: Sequence[Mark], flat: NumpyArray, high: float) -> None:
    """Upright names in a row above the axes, each joined to its energy by a thin line."""
    highest = sorted(marks, key=lambda mark: -mark.net)[:MOST_LABELS]
    chosen = sorted(highest)
    if not chosen:
        return
    per_kev = {"eV": 1e3, "meV": 1e6, "MeV": 1e-3}.get(view.energy_unit, 1.0)
    energies = np.array([mark.energy for mark in chosen]) * per_kev
    left, right = axes.get_xlim()
    gap = (right - left) * LABEL_GAP / (style.WIDTH - 1.7)
    places = style.spread(energies, gap, left + gap / 2, right - gap / 2)
    blended = axes.get_xaxis_transform()
    for mark, energy, place in zip(chosen, energies, places, strict=True):
        ink = style.INK if mark.certain else style.FAINT
        if view.signal == "EELS":
            axes.axvline(energy, color=style.FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        else:
            peak = float(np.interp(energy, view.energy, flat))
            axes.plot([energy, energy], [min(peak * 1.15, high), high], color=style.FAINT, linewidth=0.5, zorder=0)
        axes.plot(
            [energy, place], [1.0, ROW], color=style.FAINT, linewidth=0.5, transform=blended, clip_on=False, zorder=0
        )
        axes.text(
            place,
            ROW + 0.01,
            mark.label if mark.certain or not view.elements else f"{mark.label}?",
            transform=blended,
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=style.SMALL,
            color=ink if view.elements else style.INK,
            parse_math=False,
        ).set_gid(f"line {energy:.6g}")


def _crowded(flat: NumpyArray, low: float, high: float, *, log: bool) -> bool:
    """Whether the upper right corner is taken by the curve, and the upper left is not so much."""

    def reach(part: NumpyArray) -> float:
        top = float(np.max(part, initial=low, where=np.isfinite(part)))
        return float(np.log(max(top, low) / low) / np.log(high / low)) if log else (top - low) / (high - low)

    quarter = max(1, flat.size // 4)
    return reach(flat[-quarter:]) > max(0.7, reach(flat[:quarter]))


def _use_log(view: Digest, spectrum: NumpyArray, scale: Scale) -> bool:
    """A logarithmic axis for EDS, whose peaks span orders of magnitude; never where nothing is positive."""
    wanted = scale == "log" or (scale == "auto" and view.signal == "EDS" and not view.signed)
    return wanted and float(np.nanmax(spectrum, initial=0.0)) > 0


def _ends(view: Digest, spectrum: NumpyArray, flat: NumpyArray, *, log: bool) -> tuple[float, float]:
    """Lower and upper end of the intensity axis."""
    finite = spectrum[np.isfinite(spectrum)]
    top = float(finite.max(initial=0.0))
    if log:
        positive = flat[flat > 1e-6 * top]
        floor = float(np.percentile(positive, 3)) if positive.size else top * 1e-3
        # Below one count a line only says how sparse the counts are.
        least = 0.4 if view.intensity_unit == "counts" and top > 40 else 0.0
        return max(0.5 * floor, top * 1e-5, least), 2.0 * top
    low = float(finite.min(initial=0.0))
    room = 0.08 * ((top - low) or 1.0)
    return (low - room if view.signed or low < -room else 0.0), (top + room if top + room > 0 else 1.0)
