"""Figure of one energy window, such as an X-ray line: the measured map beside the maps of several denoised cubes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.metrics.denoising import RAW
from scalehsi.physics.line_names import GREEK
from scalehsi.physics.peaks import find_peaks
from scalehsi.plots import style
from scalehsi.plots.coordinates import shown_positions
from scalehsi.plots.digest import Digest, block_mean, maps_at
from scalehsi.prepare.line_windows import channels_of, line_windows
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, MASK, InputError, X, Y

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Window = str | Sequence[float]
"""An X-ray line or an element by name, or (low, high) in the unit of the energy axis."""

MAX_COLUMNS: Final = 4


class EnergyWindow(NamedTuple):
    """A window of energy: its name, its ends in the unit of the axis, and its channels."""

    name: str
    low: float
    high: float
    channels: slice

    @property
    def label(self) -> str:
        """The name, with the Greek letter of a line."""
        return line_label(self.name)


def line_label(name: str) -> str:
    """Write a line with its Greek letter and its number; other names are unchanged.

    Examples
    --------
    >>> line_label("Nd Lb1"), line_label("1 to 2 keV")
    ('Nd Lβ1', '1 to 2 keV')
    """
    element, _, family = name.partition(" ")
    return f"{element} {family[0]}{GREEK.get(family[1], family[1])}{family[2:]}" if family[1:] else name


def energy_window(cube: xr.DataArray, window: Window) -> EnergyWindow:
    """Find the energy window of a line, or of given ends, on the axis of a cube.

    Raises
    ------
    InputError
        When it is neither a line nor two ends, or is not on the axis.
    """
    if isinstance(window, str):
        name, (low, high) = next(iter(line_windows(cube, [window]).items()))
    else:
        if len(window) != 2:
            raise InputError(f"a window is a line such as 'Fe Ka' or its ends (low, high), got {window!r}")
        low, high = (float(end) for end in window)
        name = f"{low:g} to {high:g} {cube[ENERGY].attrs.get('units', '')}".strip()
    first, last = channels_of(cube, {name: (low, high)})[name]
    return EnergyWindow(name, low, high, slice(first, last))


def draw_denoised(
    cube: xr.DataArray,
    results: Mapping[str, xr.Dataset],
    window: EnergyWindow,
    view: Digest,
    *,
    truth: xr.Dataset | None = None,
    correlations: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the map of a window as measured and as each result models it, on one colour scale.

    Parameters
    ----------
    cube : DataArray
        The measured cube.
    results : mapping of str to Dataset
        Results of its fits, by name.
    window : EnergyWindow
        The channels that are summed.
    view : Digest
        The digest of one of the results; its grid and pixel size are used.
    truth : Dataset, optional
        Drawn first; then the colour scale is that of the truth.
    correlations : mapping of str to float, optional
        Correlation of each map with the truth, written in its title.
    ax : Axes, optional
        Replaced by the panels.

    Returns
    -------
    Figure
    """
    panels = {"Measured": measured_map(cube, window, view.block)}
    panels |= {name: modelled_map(result, window, view.block) for name, result in results.items()}
    if truth is not None:
        panels = {"Truth": modelled_map(truth, window, view.block), **panels}
        scaled = panels["Truth"]
    else:
        modelled = np.stack([panels[name] for name in results])
        scaled = modelled if np.isfinite(modelled).any() else panels["Measured"]
    low, high = style.percentile_range(scaled)
    rows = -(-len(panels) // MAX_COLUMNS)
    columns = -(-len(panels) // rows)
    height = 0.92 * style.WIDTH_INCHES / columns * style.panel_shape(view) + 0.55
    figure = style.new_figure(style.WIDTH_INCHES, min(max(height, 1.5), 2.0 * style.WIDTH_INCHES) * rows, ax)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = style.colour_map(style.MAP_COLOURS)
    for axes, (name, values) in zip(grid, panels.items(), strict=False):
        image = style.show_map(axes, values, view, cmap=colours, vmin=low, vmax=high)
        style.scale_bar(axes, view)
        found = (correlations or {}).get(RAW if name == "Measured" else name, np.nan)
        note = f"\ncorrelation with truth {found:.3f}" if np.isfinite(found) else ""
        style.set_title(axes, f"{name}{note}", verticalalignment="bottom")
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    label = f"{view.intensity_unit} per pixel at {window.label}"
    style.colour_bar(figure, image, list(grid[: len(panels)]), label, extend="both")
    return figure


def weakest_line(cube: xr.DataArray, view: Digest) -> str:
    """The line of the cube's elements with the fewest counts in its window, among those whose peak is found.

    Raises
    ------
    InputError
        When the cube is no EDX cube with elements.
    """
    lines = element_windows(cube)
    if not lines:
        raise InputError(
            "which map is to be drawn? give line='Fe Ka' for X-ray maps, or line=(700, 730) in the unit of the energy "
            "axis for others"
        )
    mean = view.mean_spectrum if view.mean_spectrum is not None else np.nansum(view.endmembers, axis=0)
    channels = channels_of(cube, lines)
    peaks = find_peaks(view.energy_kev, mean)
    middles = {name: 0.5 * (low + high) / view.units_per_kev for name, (low, high) in lines.items()}
    found = [name for name, middle in middles.items() if peaks.nearest(middle) is not None]
    return min(found or channels, key=lambda name: float(np.nansum(mean[slice(*channels[name])])))


def element_windows(cube: xr.DataArray) -> dict[str, tuple[float, float]]:
    """The window of one line of each element of an EDX cube; empty for other cubes."""
    return line_windows(cube) if len(cube.attrs.get("elements", ())) and cube.attrs.get("signal") == "EDS" else {}


def modelled_map(result: xr.Dataset, window: EnergyWindow, block: int) -> NumpyArray:
    """Sum of the modelled counts in a window at the first of leading positions, averaged in blocks, (ny, nx)."""
    weights = np.asarray(result[ENDMEMBERS].transpose(COMPONENT, ENERGY)[:, window.channels].sum(ENERGY).values)
    maps = result[ABUNDANCES].reset_coords(drop=True)
    drawn = block_mean(maps_at(maps, shown_positions(result)[0][:1]), block)[:, 0]
    offset = float(result["offset"][window.channels].sum()) if "offset" in result else 0.0
    return np.asarray(np.einsum("kyx,k->yx", drawn.values, weights) + offset)


def measured_map(cube: xr.DataArray, window: EnergyWindow, block: int) -> NumpyArray:
    """Sum of the measured counts in a window at the first of leading positions, averaged in blocks, (ny, nx)."""
    total = cube.isel({ENERGY: window.channels}).sum(ENERGY, dtype=np.float64)
    used = total.where(cube[MASK]) if MASK in cube.coords else total
    place = {str(dim): 0 for dim in used.dims if dim not in (Y, X)}
    drawn = block_mean(maps_at(used.reset_coords(drop=True), [place]), block)
    return np.asarray(drawn[0].values)
