"""Draw maps and spectra of several methods side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import NumpyArray
from scalehsi.physics.identify import Mark
from scalehsi.plots import style
from scalehsi.plots.digest import Digest
from scalehsi.plots.line_marks import component_marks
from scalehsi.plots.spectra import energy_label, name_row
from scalehsi.plots.truth import compare, shares_of, truth_name, unit_sum

if TYPE_CHECKING:
    from matplotlib.figure import Figure


BLACK: Final = "#000000"


MARGIN: Final = 1.12
"""The energy axis ends so much beyond the last line that is named."""


class Found(NamedTuple):
    """What a method found of one component of the reference.

    Attributes
    ----------
    number : int
        Its component.
    angle : float
        To the reference's spectrum, in degrees.
    similarity : float
        Correlation of the maps of shares; NaN when they cannot be compared.
    """

    number: int
    angle: float
    similarity: float


def matched(view: Digest, reference: Digest) -> dict[int, Found]:
    """For the reference's components the method's own; those that it lacks are left out."""
    return {pair.truth: Found(pair.estimate, pair.angle, pair.similarity) for pair in compare(view, reference)}


def draw_maps(reference: Digest, methods: Mapping[str, Digest], *, known: Digest | None) -> Figure:
    """Draw the maps of shares: a row for each component of the reference, a column for each method."""
    columns: list[tuple[str, Digest, dict[int, Found]]] = [
        (name, view, matched(view, reference)) for name, view in methods.items()
    ]
    if known is not None:
        own = {k: Found(k, 0.0, np.nan) for k in range(len(known.names))}
        columns.insert(0, ("Truth", known, own))
    rows, count = len(reference.names), max(len(columns), 2)
    height = 0.95 * style.WIDTH / count * style.panel_shape(reference) + 0.4
    figure = style.new_figure(style.WIDTH, min(max(height, 1.3), 4.5) * rows)
    grid = figure.subplots(rows, count, squeeze=False)
    for column, (name, view, found) in zip(grid.T, columns, strict=False):
        shares = shares_of(view)
        for k, axes in enumerate(column):
            if k not in found:
                axes.set_visible(False)
                continue
            values = shares[found[k].number, 0]
            style.show_map(axes, values, reference, cmap=style.colour_map(style.MAP_COLOURS), vmin=0.0, vmax=1.0)
            style.scale_bar(axes, reference)
            told = f" (correlation {found[k].similarity:.3f})" if np.isfinite(found[k].similarity) else ""
            phase = truth_name(reference, k) if known is not None else reference.names[k]
            axes.set_title(f"{phase}: {name}{told}", fontsize=style.TEXT, loc="left", color=style.INK, parse_math=False)
    for axes in grid[:, len(columns) :].ravel():
        axes.set_visible(False)
    return figure


def draw_spectra(reference: Digest, methods: Mapping[str, Digest], *, known: Digest | None) -> Figure:
    """Draw the spectra over each other, a panel for each component of the reference, its lines named."""
    marks = component_marks(reference)
    found = {name: matched(view, reference) for name, view in methods.items()}
    rows, aim = len(reference.names), "the truth" if known is not None else list(methods)[-1]
    figure = style.new_figure(style.WIDTH, 2.9 * rows)
    for k, axes in enumerate(figure.subplots(rows, 1, squeeze=False)[:, 0]):
        base = unit_sum(reference.endmembers[k])
        for order, (name, view) in enumerate(methods.items()):
            if k not in found[name]:
                continue
            mine = known is None and view is reference
            label = name if mine else f"{name}: {found[name][k].angle:.2f}° from {aim}"
            # The result itself, which comes last, has the first colour.
            look = style.colour(len(methods) - 1 - order)
            axes.plot(
                view.energy, unit_sum(view.endmembers[found[name][k].number]), color=look, linewidth=1.1, label=label
            )
        if known is not None:
            axes.plot(known.energy, base, color=BLACK, linewidth=0.8, linestyle=(0, (3, 1.5)), label="truth")
        _frame(axes, reference, base, marks[k])
        phase = truth_name(reference, k) if known is not None else reference.names[k]
        legend = axes.legend(
            fontsize=style.SMALL,
            title=phase,
            title_fontsize=style.TEXT,
            loc="upper right",
            edgecolor="white",
            framealpha=1,
        )
        for text in (*legend.get_texts(), legend.get_title()):
            text.set_parse_math(False)
    return figure


def _frame(axes: Any, view: Digest, base: NumpyArray, marks: Sequence[Mark]) -> None:
    """Scales, labels and names of lines of a panel."""
    top = float(np.nanmax(base, initial=0.0)) or 1.0
    high = top * 1.15
    if view.signal == "EDS":
        axes.set_yscale("log", nonpositive="clip")
        positive = base[base > 1e-6 * top]
        high = top * 2.0
        axes.set_ylim(max(0.3 * float(np.percentile(positive, 5)) if positive.size else 0.0, 1e-5 * top), high)
    else:
        axes.set_ylim(0.0, high)
    scale = float(view.energy[-1] / view.energy_kev[-1]) if view.energy_kev[-1] else 1.0
    last = max((mark.energy for mark in marks), default=np.inf) * scale * MARGIN
    axes.set_xlim(float(view.energy[0]), min(float(view.energy[-1]), last))
    style.tidy(axes, xlabel=energy_label(view), ylabel="Part of the intensity")
    name_row(axes, view, marks, base, high)
