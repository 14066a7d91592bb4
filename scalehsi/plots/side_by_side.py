"""Figures that compare the results of several methods on one cube: maps and spectra of matched components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scalehsi.arrays import NumpyArray
from scalehsi.physics.identify import Mark
from scalehsi.physics.peaks import smooth
from scalehsi.plots import style
from scalehsi.plots.digest import Digest
from scalehsi.plots.line_marks import component_marks
from scalehsi.plots.spectra import draw_line_names, energy_label, smoothed
from scalehsi.plots.truth import (
    SHARE,
    Match,
    draw_truth_line,
    match_components,
    scaled_to_unit_sum,
    shares_of,
    truth_name,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENERGY_END_FACTOR: Final = 1.12
"""The energy axis ends at this factor times the highest labelled energy."""


def matched(view: Digest, reference: Digest) -> dict[int, Match]:
    """Matches of a method's components by the component of the reference; components without a match are left out."""
    return {pair.truth: pair for pair in match_components(view, reference)}


def reference_names(reference: Digest, *, truth: bool) -> list[str]:
    """Names of the reference's components; `truth` says whether the reference is the truth."""
    return [truth_name(reference, k) if truth else name for k, name in enumerate(reference.names)]


def draw_maps(reference: Digest, methods: Mapping[str, Digest], *, truth: Digest | None) -> Figure:
    """Draw the maps of shares: one row for each component of the reference, one column for each method.

    Parameters
    ----------
    reference : Digest
        The truth, or the result to which the methods are compared.
    methods : mapping of str to Digest
        The results by name.
    truth : Digest, optional
        Drawn in the first column.

    Returns
    -------
    Figure
    """
    columns = [(name, view, matched(view, reference)) for name, view in methods.items()]
    if truth is not None:
        columns.insert(0, ("Truth", truth, {k: Match(k, k, 0.0, np.nan, np.nan) for k in range(len(truth.names))}))
    rows, count = len(reference.names), max(len(columns), 2)
    height = 0.95 * style.WIDTH_INCHES / count * style.panel_shape(reference) + 0.4
    figure = style.new_figure(style.WIDTH_INCHES, min(max(height, 1.3), 4.5) * rows)
    grid = figure.subplots(rows, count, squeeze=False)
    names = reference_names(reference, truth=truth is not None)
    colours = style.colour_map(style.MAP_COLOURS)
    for column, (name, view, found) in zip(grid.T, columns, strict=False):
        shares = shares_of(view)
        for k, axes in enumerate(column):
            if k not in found:
                axes.set_visible(False)
                continue
            image = style.show_map(axes, shares[found[k].estimate, 0], reference, cmap=colours, vmin=0.0, vmax=1.0)
            style.scale_bar(axes, reference)
            similarity = found[k].similarity
            note = f"\ncorrelation {similarity:.3f}" if np.isfinite(similarity) else "\n"
            size = style.TEXT_POINTS if count < 4 else style.SMALL_POINTS
            style.set_title(axes, f"{names[k]}: {name}{note}", fontsize=size)
    for axes in grid[:, len(columns) :].ravel():
        axes.set_visible(False)
    for row in grid:
        style.colour_bar(figure, image, list(row), SHARE, extend="neither")
    return figure


def draw_spectra(reference: Digest, methods: Mapping[str, Digest], *, truth: Digest | None) -> Figure:
    """Draw the spectra of all methods in one panel for each component of the reference, with its lines labelled.

    The arguments are those of `draw_maps`. The last method is the result of the report and has the first colour.
    """
    marks = component_marks(reference)
    found = {name: matched(view, reference) for name, view in methods.items()}
    names = reference_names(reference, truth=truth is not None)
    compared_to = "the truth" if truth is not None else list(methods)[-1]
    figure = style.new_figure(style.WIDTH_INCHES, 2.9 * len(names))
    for k, axes in enumerate(figure.subplots(len(names), 1, squeeze=False)[:, 0]):
        for order, (name, view) in enumerate(methods.items()):
            if k not in found[name]:
                continue
            match = found[name][k]
            is_reference = truth is None and view is reference
            label = name if is_reference else f"{name}\n{match.angle:.2f}° from {compared_to}"
            colour = style.colour(len(methods) - 1 - order)
            spectrum = scaled_to_unit_sum(view.endmembers[match.estimate])
            if smoothed(view):
                spectrum = smooth(view.energy_kev, np.nan_to_num(spectrum))[0]
            axes.plot(view.energy, spectrum, color=colour, linewidth=1.1, label=label)
        if truth is not None:
            draw_truth_line(axes, truth, k)
        _frame(axes, reference, scaled_to_unit_sum(reference.endmembers[k]), marks[k])
        # Beside the panel: on it the legend would hide peaks.
        look: dict[str, Any] = {
            "loc": "upper left",
            "bbox_to_anchor": (1.0, 1.0),
            "frameon": False,
            "alignment": "left",
        }
        legend = axes.legend(fontsize=style.SMALL_POINTS, title=names[k], title_fontsize=style.TEXT_POINTS, **look)
        for text in (*legend.get_texts(), legend.get_title()):
            text.set_parse_math(False)
    return figure


def _frame(axes: Any, view: Digest, spectrum: NumpyArray, marks: Sequence[Mark]) -> None:
    """Set scales and labels of a panel for the reference's spectrum (E,), and label its lines."""
    top = float(np.nanmax(spectrum, initial=0.0)) or 1.0
    high = top * 1.15
    if view.signal == "EDS":
        high = style.log_spectrum(axes, spectrum)
    else:
        axes.set_ylim(0.0, high)
    last = max((mark.energy for mark in marks), default=np.inf) * view.units_per_kev * ENERGY_END_FACTOR
    axes.set_xlim(float(view.energy[0]), min(float(view.energy[-1]), last))
    style.style_axes(axes, xlabel=energy_label(view), ylabel="Fraction of the intensity")
    draw_line_names(axes, view, marks, spectrum, high)
