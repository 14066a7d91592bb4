"""The figure of chosen components for a paper: the map and the spectrum of each side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from scalehsi.plots import style
from scalehsi.plots.digest import Digest, intensity_maps, intensity_spectra
from scalehsi.plots.line_marks import component_marks
from scalehsi.plots.maps import PANEL_TITLE_INCHES, draw_component
from scalehsi.plots.spectra import PANEL_HEIGHT_INCHES, draw_panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAP_SHARE: Final = 0.34
"""Of the width, for the maps; the spectra have the rest."""


def draw_components(view: Digest, chosen: Sequence[int], ax: Axes | None = None) -> Figure:
    """Draw map and spectrum of the components at these positions, from 0; maps at the first of leading positions."""
    width = MAP_SHARE * style.WIDTH_INCHES
    row = max(0.85 * width * style.panel_shape(view) + PANEL_TITLE_INCHES, PANEL_HEIGHT_INCHES)
    figure = style.new_figure(style.WIDTH_INCHES, min(row, style.WIDTH_INCHES) * len(chosen), ax)
    grid = figure.subplots(len(chosen), 2, squeeze=False, width_ratios=[MAP_SHARE, 1 - MAP_SHARE])
    maps, marks = intensity_maps(view), component_marks(view)
    spectra = view.endmembers if view.signed else intensity_spectra(view)
    inches = (1 - MAP_SHARE) * style.WIDTH_INCHES - 1.0
    for (left, right), number in zip(grid, chosen, strict=True):
        draw_component(figure, [left], view, number, maps[number])
        draw_panel(right, view, number, spectra[number], marks[number], scale="auto", inches=inches)
    return figure
