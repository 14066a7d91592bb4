"""Figure of maps of edges: net counts of each edge, with a scale bar."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.cube import pixel_size_nm
from scalehsi.plots import style
from scalehsi.plots.maps import PANEL_TITLE_INCHES, colour_limits
from scalehsi.schema import X, Y

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_COLUMNS: Final = 4


def draw_edge_maps(found: xr.Dataset) -> Figure:
    """Draw the net counts of each edge of `scalehsi.quantify.edge_maps`, at the first of leading positions."""
    maps = {str(n): first_position(found["net"].sel(edge=n)) for n in found["edge"].values}
    titles = {name: f"{name}, {_window(found, name)}" for name in maps}
    return draw_maps_of_pixels(maps, titles, found, label="net counts per pixel")


def draw_maps_of_pixels(
    maps: dict[str, Float],
    titles: dict[str, str],
    scene: xr.Dataset | xr.DataArray,
    *,
    label: str,
    signed: Collection[str] = (),
) -> Figure:
    """Draw maps (ny, nx) side by side, to scale.

    maps: by name. titles: by name. scene: its coordinates y and x give the scale. label: of the colour bars. signed:
    colours that are neutral at zero.
    """
    shape = next(iter(maps.values())).shape
    size = _pixel_sizes(scene)
    ratio = min(max(shape[0] * size[0] / (shape[1] * size[1]), 0.1), 3.0)
    columns = min(MAX_COLUMNS, max(3, len(maps)))
    rows = -(-len(maps) // columns)
    height = 0.85 * style.WIDTH_INCHES / columns * ratio + PANEL_TITLE_INCHES + 0.1
    figure = style.new_figure(style.WIDTH_INCHES, min(max(height, 1.3), 6.0) * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, values) in zip(grid, maps.items(), strict=False):
        low, high = colour_limits(values, signed=name in signed)
        if low == 0.0 < np.nanmin(values) and np.nanmin(values) > 0.5 * high:
            # Exponents and misfits do not begin at zero.
            low = float(np.nanpercentile(values, 0.2))
        colours = style.colour_map(style.SIGNED_COLOURS if name in signed else style.MAP_COLOURS)
        aspect = size[0] / size[1]
        image = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=low, vmax=high, aspect=aspect)
        axes.set_xticks([])
        axes.set_yticks([])
        style.set_title(axes, titles[name])
        style.colour_bar(figure, image, [axes], label, extend=style.beyond(values, low, high))
        _scale_bar(axes, scene, shape)
    for axes in grid[len(maps) :]:
        axes.set_visible(False)
    return figure


def first_position(array: xr.DataArray) -> Float:
    """The map (ny, nx) of an array at the first of its leading positions."""
    first = array.isel({d: 0 for d in array.dims if d not in (Y, X)})
    return np.asarray(first.transpose(Y, X).values, dtype=np.float64)


def _window(found: xr.Dataset, name: str) -> str:
    low, high = (float(v) for v in found["signal_window"].sel(edge=name).values)
    return f"{low:.4g} to {high:.4g} {found['signal_window'].attrs.get('units', '')}".strip()


def _pixel_sizes(scene: xr.Dataset | xr.DataArray) -> tuple[float, float]:
    sizes = [pixel_size_nm(scene, dim) or 1.0 for dim in (Y, X)]
    return (sizes[0], sizes[1]) if all(pixel_size_nm(scene, dim) for dim in (Y, X)) else (1.0, 1.0)


def _scale_bar(axes: object, scene: xr.Dataset | xr.DataArray, shape: tuple[int, int]) -> None:
    """A bar of a round length in the lower left corner, with an outline; nothing without calibration."""
    import matplotlib.patheffects as effects
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

    step = pixel_size_nm(scene, X)
    if step is None or not isinstance(axes, Axes):
        return
    length = style.round_length(0.4 * shape[1] * step)
    wide, high = length / step, max(0.02 * shape[0], 0.15)
    corner = (0.05 * shape[1] - 0.5, shape[0] - 0.5 - 0.05 * shape[0] - high)
    axes.add_patch(Rectangle(corner, wide, high, facecolor="white", edgecolor="black", linewidth=0.5))
    text = axes.text(
        corner[0] + wide / 2,
        corner[1] - high,
        style.length_text(length),
        color="white",
        ha="center",
        va="bottom",
        fontsize=7,
    )
    text.set_path_effects([effects.withStroke(linewidth=1.5, foreground="black")])
