"""Draw line maps of raw and denoised cubes side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import NumpyArray
from scalehsi.metrics.denoising import RAW
from scalehsi.physics.identify import GREEK
from scalehsi.plots import style
from scalehsi.plots.coordinates import places_of
from scalehsi.plots.digest import Digest, block_mean, take
from scalehsi.prepare.line_windows import channels_of, line_windows
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, MASK, InputError, X, Y

if TYPE_CHECKING:
    from matplotlib.figure import Figure


Window = str | Sequence[float]


COLUMNS = 4


class Band(NamedTuple):
    """A window of energy: its name, its ends in the unit of the axis, and its channels."""

    name: str
    low: float
    high: float
    channels: slice

    @property
    def label(self) -> str:
        """The name with the Greek letter of a line."""
        element, _, family = self.name.partition(" ")
        return f"{element} {family[0]}{GREEK.get(family[1], family[1])}{family[2:]}" if family[1:] else self.name


def band_of(cube: xr.DataArray, window: Window) -> Band:
    """A window by the name of a line, or by its ends."""
    if isinstance(window, str):
        name, (low, high) = next(iter(line_windows(cube, [window]).items()))
    else:
        if len(window) != 2:
            raise InputError(f"a window is a line such as 'Fe Ka' or its ends (low, high), got {window!r}")
        low, high = (float(end) for end in window)
        name = f"{low:g} to {high:g} {cube[ENERGY].attrs.get('units', '')}".strip()
    first, last = channels_of(cube, {name: (low, high)})[name]
    return Band(name, low, high, slice(first, last))


def draw_denoised(
    cube: xr.DataArray,
    results: Mapping[str, xr.Dataset],
    band: Band,
    view: Digest,
    *,
    truth: xr.Dataset | None = None,
    correlations: Mapping[str, float] | None = None,
) -> Figure:
    """Draw the map of a window as measured and as each result has it, on one colour scale; the truth first.

    `view` is the digest of one of the results, for the size of the picture; `correlations` are written over the maps.
    """
    panels = {name: product_map(result, band, view.block) for name, result in results.items()}
    scale = np.concatenate([values[np.isfinite(values)] for values in panels.values()])
    measured = {"Measured": raw_map(cube, band, view.block)}
    first = {} if truth is None else {"Truth": product_map(truth, band, view.block)}
    panels = {**first, **measured, **panels}
    if truth is not None:
        scale = panels["Truth"][np.isfinite(panels["Truth"])]
    elif not scale.size:
        scale = panels["Measured"][np.isfinite(panels["Measured"])]
    low, high = np.percentile(scale, [0.2, 99.8]).tolist() if scale.size else (0.0, 1.0)
    rows = -(-len(panels) // COLUMNS)
    columns = -(-len(panels) // rows)
    height = 0.92 * style.WIDTH / columns * style.panel_shape(view) + 0.55
    figure = style.new_figure(style.WIDTH, min(max(height, 1.5), 2.0 * style.WIDTH) * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, values) in zip(grid, panels.items(), strict=False):
        image = style.show_map(
            axes,
            values,
            view,
            cmap=style.colour_map(style.MAP_COLOURS),
            vmin=low,
            vmax=high if high > low else low + 1.0,
        )
        style.scale_bar(axes, view)
        found = (correlations or {}).get(RAW if name == "Measured" else name, np.nan)
        told = f"\ncorrelation with truth {found:.3f}" if np.isfinite(found) else ""
        axes.set_title(
            f"{name}{told}",
            fontsize=style.TEXT,
            loc="left",
            color=style.INK,
            parse_math=False,
            verticalalignment="bottom",
        )
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    label = f"{view.intensity_unit} per pixel at {band.label}"
    style.colour_bar(figure, image, list(grid[: len(panels)]), label, extend="both")
    return figure


def weakest(cube: xr.DataArray, view: Digest) -> str:
    """The line of the cube's elements with the fewest counts in its window."""
    if not _all_lines(cube):
        raise InputError(
            "which map shall be drawn? give line='Fe Ka' for X-ray maps, line=(700, 730), in the unit of the energy "
            "axis, for others"
        )
    lines = line_windows(cube)
    mean = view.mean_spectrum if view.mean_spectrum is not None else np.nansum(view.endmembers, axis=0)
    cuts = channels_of(cube, lines)
    return min(cuts, key=lambda name: float(np.nansum(mean[slice(*cuts[name])])))


def _all_lines(cube: xr.DataArray) -> dict[str, tuple[float, float]]:
    return line_windows(cube) if len(cube.attrs.get("elements", ())) and cube.attrs.get("signal") == "EDS" else {}


def product_map(result: xr.Dataset, band: Band, block: int) -> NumpyArray:
    """Sum of the modelled counts in a window, (ny, nx), averaged in blocks; at the first of leading positions."""
    weights = np.asarray(result[ENDMEMBERS].transpose(COMPONENT, ENERGY)[:, band.channels].sum(ENERGY).values)
    maps = result[ABUNDANCES].reset_coords(drop=True)
    drawn = block_mean(take(maps, places_of(result)[0][:1]), block)[:, 0]
    offset = float(result["offset"][band.channels].sum()) if "offset" in result else 0.0
    return np.asarray(np.einsum("kyx,k->yx", drawn.values, weights) + offset)


def raw_map(cube: xr.DataArray, band: Band, block: int) -> NumpyArray:
    """Sum of the counts in a window, likewise."""
    total = cube.isel({ENERGY: band.channels}).sum(ENERGY, dtype=np.float64)
    used = total.where(cube[MASK]) if MASK in cube.coords else total
    place = {str(dim): 0 for dim in used.dims if dim not in (Y, X)}
    drawn = block_mean(take(used.reset_coords(drop=True), [place]), block)
    return np.asarray(drawn[0].values)
