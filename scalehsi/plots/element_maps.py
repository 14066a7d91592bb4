"""Figure of the elements of an EDX result: the net counts of each line that was found, in every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.physics.line_names import pretty_family, split_name
from scalehsi.plots import style
from scalehsi.plots.digest import Digest, intensity_maps
from scalehsi.plots.maps import PANEL_TITLE_INCHES, colour_limits
from scalehsi.schema import COMPONENT, ENERGY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_COLUMNS: Final = 4


def element_maps(view: Digest, found: xr.Dataset) -> dict[str, NumpyArray]:
    """Maps (ny, nx) of the net counts of each line that some component shows, at the first of leading positions.

    Parameters
    ----------
    view : Digest
        Of the result.
    found : Dataset
        The composition of its components.
    """
    net = found["intensity"].transpose(COMPONENT, "element")
    total = found["spectrum"].sum(ENERGY).values
    share = net.fillna(0).values / np.where(total > 0, total, 1.0)[:, None]
    maps = np.einsum("kyx,ke->eyx", intensity_maps(view)[:, 0], share)
    shown = net.notnull().any(COMPONENT).values
    return {str(found["line"].values[number]): maps[number] for number in np.flatnonzero(shown)}


def draw_element_maps(view: Digest, found: xr.Dataset) -> Figure:
    """Draw the net counts of each line that was found, to scale; parameters as in `element_maps`."""
    maps = element_maps(view, found)
    columns = min(MAX_COLUMNS, len(maps))
    rows = -(-len(maps) // columns)
    height = 0.85 * style.WIDTH_INCHES / MAX_COLUMNS * style.panel_shape(view) + PANEL_TITLE_INCHES
    figure = style.new_figure(style.WIDTH_INCHES * columns / MAX_COLUMNS, min(max(height, 1.2), 8.0) * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (line, values) in zip(grid, maps.items(), strict=False):
        low, high = colour_limits(values, signed=False)
        colours = style.colour_map(style.MAP_COLOURS)
        image = style.show_map(axes, values, view, cmap=colours, vmin=low, vmax=high)
        style.scale_bar(axes, view)
        element, family = split_name(line)
        style.set_title(axes, f"{element} {pretty_family(family)}")
        style.colour_bar(figure, image, [axes], f"net {view.intensity_unit} per pixel", extend="max")
    for axes in grid[len(maps) :]:
        axes.set_visible(False)
    return figure
