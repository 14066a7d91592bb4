"""Figure of the sum spectrum of a cube, with the edges or lines of its elements, for `scalehsi info --figure`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scalehsi.arrays import Float
from scalehsi.cube import energy_factor
from scalehsi.physics.lines import emission_lines
from scalehsi.physics.onsets import edge_onsets
from scalehsi.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def element_marks(signal: str, elements: Sequence[str], energy: Float, unit: str) -> list[tuple[float, str]]:
    """Energies, in the unit of the axis, and names of the EELS edges or of the strongest X-ray lines of elements.

    signal: "EELS" or "EDS"; others have none. energy (E,): the axis. unit: of it.

    Examples
    --------
    >>> element_marks("EELS", ["O"], np.arange(400.0, 700.0), "eV")
    [(532.0, 'O K')]
    """
    factor = energy_factor(unit)
    if factor is None or signal not in ("EELS", "EDS") or not len(elements):
        return []
    low, high = (float(end) * factor for end in (energy.min(), energy.max()))
    if signal == "EELS":
        found = [(onset.energy_ev / factor, onset.name) for onset in edge_onsets(elements, (low, high))]
    else:
        inside = [
            [line for line in emission_lines(element) if low < 1e3 * line.energy_kev < high] for element in elements
        ]
        best = [max(lines, key=lambda line: line.intensity) for lines in inside if lines]
        found = [(1e3 * line.energy_kev / factor, line.label) for line in best]
    return sorted(found)


def draw_sum_spectrum(
    energy: Float, total: Float, marks: Sequence[tuple[float, str]], *, unit: str, title: str = ""
) -> Figure:
    """Draw a sum spectrum (E,) on a logarithmic scale, with names above it; marks: of `element_marks`."""
    figure = style.new_figure(style.WIDTH_INCHES, 2.8)
    axes = figure.subplots()
    axes.plot(energy, total, color=style.colour(0), linewidth=1.0)
    positive = total[np.isfinite(total) & (total > 0)]
    if positive.size and positive.max() < 20 * np.percentile(positive, 5):
        axes.set_ylim(0.0, 1.05 * float(positive.max()))
        axes.yaxis.set_major_formatter(style.tick_format())
    elif positive.size:
        style.log_spectrum(axes, total)
    axes.set_xlim(float(energy.min()), float(energy.max()))
    for place, _ in marks:
        axes.axvline(place, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    style.style_axes(axes, xlabel=f"Energy ({unit})" if unit else "Energy", ylabel="Sum of all pixels")
    if marks:
        style.label_row(axes, [m[0] for m in marks], [m[1] for m in marks], colours=[style.DARK] * len(marks))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=style.TEXT_POINTS, color=style.DARK, parse_math=False)
    return figure
