"""Figures of the abundance maps: one panel for each component, and composites of all components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scalehsi.arrays import NumpyArray
from scalehsi.plots import style
from scalehsi.plots.digest import Digest, intensity_maps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_COLUMNS: Final = 3
BACKGROUND_PIXEL_FRACTION: Final = 0.95
"""A component that is strongest in more than this fraction of the pixels is left out of the composite."""

MIN_RELATIVE_INTENSITY: Final = 0.15
"""Without the background, pixels where no component reaches this fraction of its maximum are white."""

FLAT_HEIGHT_TO_WIDTH: Final = 0.35
"""Maps with a smaller ratio of height to width get one row each."""

STRUCTURED_CORRELATION: Final = 0.3
"""Maps whose neighbouring pixels correlate less than this are noise."""

PANEL_TITLE_INCHES: Final = 0.45


def colour_limits(values: NumpyArray, *, signed: bool) -> tuple[float, float]:
    """Ends of the colour scale: 0 and the 99.8th percentile, or symmetric about 0 for signed values.

    The percentile keeps single hot pixels from darkening the map.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    top = float(np.percentile(np.abs(finite) if signed else finite, 99.8)) or float(np.abs(finite).max()) or 1.0
    return (-top, top) if signed else (0.0, top)


def draw_maps(view: Digest, ax: Axes | None = None) -> Figure:
    """Draw the map of each component, to scale, with scale bars and colour bars."""
    count, places = len(view.names), len(view.positions)
    flat = style.panel_shape(view) < FLAT_HEIGHT_TO_WIDTH
    columns = places if places > 1 else 1 if flat else 2 if count == 4 else min(MAX_COLUMNS, count)
    rows = count if places > 1 else -(-count // columns)
    width = style.WIDTH_INCHES * (1.0 if flat else {1: 0.5, 2: 0.76}.get(columns, 1.0))
    # A colour bar takes about a tenth of a panel's width.
    height = 0.85 * width / columns * style.panel_shape(view) + PANEL_TITLE_INCHES
    figure = style.new_figure(width, min(max(height, 1.2), 2.0 * width) * rows, ax)
    grid = figure.subplots(rows, columns, squeeze=False)
    drawn = intensity_maps(view)
    for number in range(count):
        axes_of = grid[number] if places > 1 else grid.ravel()[number : number + 1]
        draw_component(figure, list(axes_of), view, number, drawn[number])
    for axes in grid.ravel()[count if places == 1 else grid.size :]:
        axes.set_visible(False)
    return figure


def draw_map(view: Digest, number: int, ax: Axes | None = None) -> Figure:
    """Draw the map of component `number`, from 0, with scale bar and colour bar; at the first of leading positions."""
    width = 0.5 * style.WIDTH_INCHES
    height = min(max(0.85 * width * style.panel_shape(view) + PANEL_TITLE_INCHES, 1.2), 2.0 * width)
    figure, axes = style.one_panel(width, height, ax)
    draw_component(figure, [axes], view, number, intensity_maps(view)[number])
    return figure


def draw_component(figure: Any, axes_of: list[Axes], view: Digest, number: int, maps: NumpyArray) -> None:
    """Draw the maps (N, ny, nx) of component `number` on axes, and their colour bar in the figure."""
    colours = style.colour_map(style.SIGNED_COLOURS if view.signed else style.MAP_COLOURS)
    low, high = colour_limits(maps, signed=view.signed)
    for values, where, axes in zip(maps, view.positions, axes_of, strict=False):
        image = style.show_map(axes, values, view, cmap=colours, vmin=low, vmax=high)
        style.scale_bar(axes, view)
        below = f"\n{where}" if where else ""
        style.set_title(axes, f"{view.names[number]}{below}", color=style.colour(number), fontweight="bold")
    style.colour_bar(figure, image, axes_of, map_unit(view), extend=style.beyond(maps, low, high))


def map_unit(view: Digest) -> str:
    """Quantity on the colour bar of a map."""
    return "score" if view.signed else f"{view.intensity_unit} per pixel"


def draw_composite(view: Digest, ax: Axes | None = None) -> Figure:
    """Draw all components in one figure: colours mixed by share, and the strongest component of each pixel.

    The digest must not be signed: shares of negative values are undefined.
    """
    places = len(view.positions)
    rows, columns = (1, 2) if places == 1 else (2, places)
    panel = style.WIDTH_INCHES / columns
    height = 0.95 * panel * style.panel_shape(view) + PANEL_TITLE_INCHES
    figure = style.new_figure(style.WIDTH_INCHES, rows * min(max(height, 1.2), 2.0 * style.WIDTH_INCHES) + 0.4, ax)
    grid = figure.subplots(rows, columns, squeeze=False)
    drawn, shown = _composite_maps(view)
    total = np.sum(drawn, axis=0)
    # Full strength from the 90th percentile on, so that noise in bright pixels does not make the figure pale.
    top = float(np.nanpercentile(total, 90)) if np.isfinite(total).any() else 1.0
    for place, where in enumerate(view.positions):
        mixed_axes, main_axes = grid[:, place] if places > 1 else grid[0]
        style.show_map(mixed_axes, mixed_colours(drawn[:, place], top or 1.0), view)
        style.show_map(main_axes, dominant_colours(drawn[:, place]), view)
        _write_numbers(main_axes, drawn[:, place], view)
        style.scale_bar(mixed_axes, view)
        style.scale_bar(main_axes, view)
        below = f"\n{where}" if where else ""
        style.style_axes(mixed_axes, title=f"Mixture{below}")
        style.style_axes(main_axes, title=f"Strongest component{below}")
        for axes in (mixed_axes, main_axes):
            for spine in axes.spines.values():
                spine.set_visible(False)
    _legend(figure, view, shown)
    return figure


def background_component(view: Digest) -> int | None:
    """The component that is strongest in nearly every pixel, such as a background in EELS; None without one.

    A composite by intensity would show its colour alone. It is left out of the composite, and the other components
    that are more than noise are scaled to their own maxima.
    """
    if len(view.names) < 3:
        return None
    drawn = intensity_maps(view)
    used = np.isfinite(drawn).all(axis=0) & (drawn.sum(axis=0) > 0)
    pixels = np.bincount(np.argmax(drawn, axis=0)[used], minlength=len(view.names))
    background = int(np.argmax(pixels))
    others = [number for number in range(len(view.names)) if number != background]
    if pixels[background] <= BACKGROUND_PIXEL_FRACTION * pixels.sum() or not _structured(view)[others].any():
        return None
    return background


def _structured(view: Digest) -> NumpyArray:
    """Which maps are more than noise, boolean (K,)."""
    return np.array([neighbour_correlation(values) > STRUCTURED_CORRELATION for values in view.maps])


def _composite_maps(view: Digest) -> tuple[NumpyArray, NumpyArray]:
    """Maps of the composite (K, N, ny, nx), and which components it shows, boolean (K,)."""
    drawn = np.maximum(intensity_maps(view), 0.0)
    background = background_component(view)
    if background is None:
        return drawn, np.ones(len(view.names), dtype=bool)
    shown = _structured(view)
    shown[background] = False
    scale = np.array([1.0 / colour_limits(values, signed=False)[1] for values in drawn]) * shown
    drawn = drawn * scale[:, None, None, None]
    # Where no other component is near its maximum, the background is all there is.
    return np.where(drawn.max(axis=0) < MIN_RELATIVE_INTENSITY, drawn * 0.0, drawn), shown


def mixed_colours(maps: NumpyArray, top: float) -> NumpyArray:
    """Mix the colours of the components by their shares of a pixel; faint pixels are white, unused ones grey.

    Parameters
    ----------
    maps : array (K, ny, nx)
        Intensity per pixel, not negative.
    top : float
        Intensity from which on a colour has full strength.

    Returns
    -------
    array (ny, nx, 3)
        Red, green, blue in 0 to 1.
    """
    total = np.sum(maps, axis=0)
    shares = maps / np.where(total > 0, total, 1.0)
    strength = np.clip(total / top, 0.0, 1.0)[..., None]
    blend = np.einsum("kyx,kc->yxc", shares, _palette(maps.shape[0]))
    return np.where(np.isfinite(total)[..., None], 1.0 - strength * (1.0 - blend), _rgb(style.NO_DATA_COLOUR))


def dominant_colours(maps: NumpyArray) -> NumpyArray:
    """Colour of the strongest component of each pixel, (ny, nx, 3); white where all are 0, grey in unused pixels."""
    total = np.sum(maps, axis=0)
    colours = _palette(maps.shape[0])[np.argmax(np.nan_to_num(maps), axis=0)]
    colours = np.where((total > 0)[..., None], colours, 1.0)
    return np.where(np.isfinite(total)[..., None], colours, _rgb(style.NO_DATA_COLOUR))


def _write_numbers(axes: Any, maps: NumpyArray, view: Digest) -> None:
    """Write the number of each component into the widest part of its region, for readers who see no colours.

    `maps` (K, ny, nx) are those of the composite on these axes.
    """
    from matplotlib.patheffects import withStroke
    from scipy.ndimage import distance_transform_edt

    left, right, bottom, _ = style.extent(view)
    total = np.sum(maps, axis=0)
    winner = np.where(total > 0, np.argmax(np.nan_to_num(maps), axis=0), -1)
    ny, nx = winner.shape
    for number in range(maps.shape[0]):
        depth = distance_transform_edt(np.pad(winner == number, 1))[1:-1, 1:-1]
        if depth.max(initial=0.0) < 1.5:
            continue
        row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
        axes.text(
            left + (column + 0.5) / nx * (right - left),
            (row + 0.5) / ny * bottom,
            str(number + 1),
            ha="center",
            va="center",
            fontsize=style.TEXT_POINTS,
            fontweight="bold",
            color="white",
            path_effects=[withStroke(linewidth=2, foreground="black")],
            parse_math=False,
        )


def _legend(figure: Figure, view: Digest, shown: NumpyArray) -> None:
    """Draw the legend of a composite; `shown` (K,) says which components it has."""
    from matplotlib.patches import Patch

    entries = [
        Patch(color=style.colour(k), label=f"{k + 1}  {name}" if name != f"Component {k + 1}" else name)
        for k, name in enumerate(view.names)
        if shown[k]
    ]
    if view.pixels_used < view.pixels_total:
        entries.append(Patch(color=style.NO_DATA_COLOUR, label="not used"))
    legend = figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=min(len(entries), 6),
        frameon=False,
        fontsize=style.TEXT_POINTS,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _palette(count: int) -> NumpyArray:
    return np.array([_rgb(style.colour(k)) for k in range(count)])


def _rgb(colour: str) -> NumpyArray:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def neighbour_correlation(maps: NumpyArray) -> float:
    """Correlation between neighbouring pixels of maps (N, ny, nx); 0 for noise, and with too few pixels."""
    pairs = [(maps[:, :, 1:], maps[:, :, :-1]), (maps[:, 1:], maps[:, :-1])]
    values = []
    for one, other in pairs:
        both = np.isfinite(one) & np.isfinite(other)
        if both.sum() > 30 and np.std(one[both]) > 0 and np.std(other[both]) > 0:
            values.append(float(np.corrcoef(one[both], other[both])[0, 1]))
    return float(np.mean(values)) if values else 0.0
