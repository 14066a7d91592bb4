"""Drawings of the maps: one panel a component, and all components together in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scalehsi.arrays import NumpyArray
from scalehsi.plots import style
from scalehsi.plots.digest import Digest, intensity_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COLUMNS = 3
ONE_COLOUR = 0.95
"""Part of the pixels that one component may win before a composite is drawn relative to each one's maximum."""

FAINTEST = 0.15
"""Part of its maximum that a component must reach to be shown beside a background that was left out."""

FLAT = 0.35
"""Maps lower than this part of their width get a row each."""

STRUCTURE = 0.3
"""Neighbouring pixels of a map that is more than noise agree by more than this."""

PANEL_HEAD = 0.45
"""Inches above a map for its title."""


def limits(values: NumpyArray, *, signed: bool) -> tuple[float, float]:
    """Ends of the colour scale: 0 (or symmetric about it) and the 99.8th percentile; a hot pixel hides nothing."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    top = float(np.percentile(np.abs(finite) if signed else finite, 99.8)) or float(np.abs(finite).max()) or 1.0
    return (-top, top) if signed else (0.0, top)


def draw_maps(view: Digest) -> Figure:
    """Draw every component's map, to scale, with scale bars and colour bars."""
    count, places = len(view.names), len(view.positions)
    columns = (
        places if places > 1 else 1 if style.panel_shape(view) < FLAT else 2 if count == 4 else min(COLUMNS, count)
    )
    rows = count if places > 1 else -(-count // columns)
    width = style.WIDTH * (1.0 if style.panel_shape(view) < FLAT else {1: 0.5, 2: 0.76}.get(columns, 1.0))
    # A colour bar takes about a tenth of a panel's width.
    height = 0.85 * width / columns * style.panel_shape(view) + PANEL_HEAD
    figure = style.new_figure(width, min(max(height, 1.2), 2.0 * width) * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    drawn = view.maps if view.signed else intensity_maps(view)
    for number in range(count):
        axes_of = grid[number] if places > 1 else grid.ravel()[number : number + 1]
        low, high = limits(drawn[number], signed=view.signed)
        for place, axes in enumerate(axes_of):
            image = style.show_map(
                axes,
                drawn[number, place],
                view,
                cmap=style.colour_map(style.SIGNED_COLOURS if view.signed else style.MAP_COLOURS),
                vmin=low,
                vmax=high,
            )
            style.scale_bar(axes, view)
            where = f"\n{view.positions[place]}" if view.positions[place] else ""
            axes.set_title(
                f"{view.names[number]}{where}",
                fontsize=style.TEXT,
                loc="left",
                color=style.colour(number),
                fontweight="bold",
                parse_math=False,
            )
            if place == len(axes_of) - 1:
                extend = _extend(drawn[number], high, signed=view.signed)
                style.colour_bar(figure, image, list(axes_of), map_unit(view), extend=extend)
    for axes in grid.ravel()[count if places == 1 else grid.size :]:
        axes.set_visible(False)
    return figure


def map_unit(view: Digest) -> str:
    """What the numbers of a map mean, in a word or two."""
    return "score" if view.signed else f"{view.intensity_unit} per pixel"


def draw_composite(view: Digest) -> Figure:
    """Draw all components in one picture: mixed colours, and the strongest component of each pixel.

    The view must not be signed: shares of a negative amount mean nothing.
    """
    places = len(view.positions)
    rows, columns = (1, 2) if places == 1 else (2, places)
    panel = style.WIDTH / columns
    height = 0.95 * panel * style.panel_shape(view) + PANEL_HEAD
    figure = style.new_figure(style.WIDTH, rows * min(max(height, 1.2), 2.0 * style.WIDTH) + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    drawn, shown = _composed(view)
    total = np.sum(drawn, axis=0)
    # Full strength from the 90th percentile on: noise at the bright end shall not make the picture pale.
    top = float(np.nanpercentile(total, 90)) if np.isfinite(total).any() else 1.0
    for place, where in enumerate(view.positions):
        mixed_axes, main_axes = grid[:, place] if places > 1 else grid[0]
        style.show_map(mixed_axes, mixed_colours(drawn[:, place], top or 1.0), view)
        style.show_map(main_axes, dominant_colours(drawn[:, place]), view)
        _write_numbers(main_axes, drawn[:, place], view)
        style.scale_bar(mixed_axes, view)
        style.scale_bar(main_axes, view)
        below = f"\n{where}" if where else ""
        style.tidy(mixed_axes, title=f"Mixture{below}")
        style.tidy(main_axes, title=f"Strongest component{below}")
        for axes in (mixed_axes, main_axes):
            for spine in axes.spines.values():
                spine.set_visible(False)
    _legend(figure, view, shown)
    return figure


def outshining(view: Digest) -> int | None:
    """The component that wins nearly every pixel, as a background in EELS does; None when there is none.

    A composite by intensity would be of its colour alone, so it is left out of the composite, and those of the others
    that are more than noise are taken relative to their own maxima.
    """
    if len(view.names) < 3:
        return None
    drawn = intensity_maps(view)
    used = np.isfinite(drawn).all(axis=0) & (drawn.sum(axis=0) > 0)
    wins = np.bincount(np.argmax(drawn, axis=0)[used], minlength=len(view.names))
    background = int(np.argmax(wins))
    others = [number for number in range(len(view.names)) if number != background]
    if wins[background] <= ONE_COLOUR * wins.sum() or not _structured(view)[others].any():
        return None
    return background


def _structured(view: Digest) -> NumpyArray:
    """Which maps are more than noise, (K,)."""
    return np.array([neighbour_correlation(values) > STRUCTURE for values in view.maps])


def _composed(view: Digest) -> tuple[NumpyArray, NumpyArray]:
    """What a composite is made of: maps (K, N, ny, nx), and which components are shown (K,)."""
    drawn = np.maximum(intensity_maps(view), 0.0)
    background = outshining(view)
    if background is None:
        return drawn, np.ones(len(view.names), dtype=bool)
    shown = _structured(view)
    shown[background] = False
    scale = np.array([1.0 / limits(values, signed=False)[1] for values in drawn]) * shown
    drawn = drawn * scale[:, None, None, None]
    # Where none of the others is near its maximum, there is nothing but the component that was left out.
    return np.where(drawn.max(axis=0) < FAINTEST, drawn * 0.0, drawn), shown


def mixed_colours(maps: NumpyArray, top: float) -> NumpyArray:
    """Blend the components' colours by their shares of a pixel; faint pixels fade to white, unused ones are grey.

    Parameters
    ----------
    maps : array (K, ny, nx)
        Intensity per pixel, not negative.
    top : float
        Intensity shown in full strength.

    Returns
    -------
    array (ny, nx, 3)
        Red, green, blue in 0 to 1.
    """
    total = np.sum(maps, axis=0)
    shares = maps / np.where(total > 0, total, 1.0)
    strength = np.clip(total / top, 0.0, 1.0)[..., None]
    blend = np.einsum("kyx,kc->yxc", shares, _palette(maps.shape[0]))
    return np.where(np.isfinite(total)[..., None], 1.0 - strength * (1.0 - blend), _rgb(style.NO_DATA))


def dominant_colours(maps: NumpyArray) -> NumpyArray:
    """Colour of the strongest component of each pixel, (ny, nx, 3); white where all are 0, grey where none is."""
    total = np.sum(maps, axis=0)
    colours = _palette(maps.shape[0])[np.argmax(np.nan_to_num(maps), axis=0)]
    colours = np.where((total > 0)[..., None], colours, 1.0)
    return np.where(np.isfinite(total)[..., None], colours, _rgb(style.NO_DATA))


def _write_numbers(axes: Any, maps: NumpyArray, view: Digest) -> None:
    """Write the number of a component into the widest place of its region: colour is never the only sign."""
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
            fontsize=style.TEXT,
            fontweight="bold",
            color="white",
            path_effects=[withStroke(linewidth=2, foreground="black")],
            parse_math=False,
        )


def _legend(figure: Figure, view: Digest, shown: NumpyArray) -> None:
    from matplotlib.patches import Patch

    entries = [
        Patch(color=style.colour(k), label=f"{k + 1}  {name}" if name != f"Component {k + 1}" else name)
        for k, name in enumerate(view.names)
        if shown[k]
    ]
    if view.pixels_used < view.pixels_total:
        entries.append(Patch(color=style.NO_DATA, label="not used"))
    legend = figure.legend(
        handles=entries, loc="outside lower center", ncols=min(len(entries), 6), frameon=False, fontsize=style.TEXT
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _extend(values: NumpyArray, high: float, *, signed: bool) -> str:
    """At which ends values lie beyond the colour scale."""
    finite = np.abs(values[np.isfinite(values)])
    return "neither" if not (finite > high).any() else "both" if signed else "max"


def _palette(count: int) -> NumpyArray:
    return np.array([_rgb(style.colour(k)) for k in range(count)])


def _rgb(colour: str) -> NumpyArray:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def neighbour_correlation(maps: NumpyArray) -> float:
    """Correlation between neighbouring pixels of maps (N, ny, nx): 0 for noise, and where pixels are too few."""
    pairs = [(maps[:, :, 1:], maps[:, :, :-1]), (maps[:, 1:], maps[:, :-1])]
    values = []
    for one, other in pairs:
        both = np.isfinite(one) & np.isfinite(other)
        if both.sum() > 30 and np.std(one[both]) > 0 and np.std(other[both]) > 0:
            values.append(float(np.corrcoef(one[both], other[both])[0, 1]))
    return float(np.mean(values)) if values else 0.0
