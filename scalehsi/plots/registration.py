"""Figure of the registration of two acquisitions: maps of both on the same pixels, and their difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.kernels.resampling.footprints import summed_area
from scalehsi.plots import style
from scalehsi.registration.rasters import Placement, Raster, rasters
from scalehsi.registration.register import MIN_COVERED, footprints
from scalehsi.result import names_of_components
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, X, Y

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPONENTS_SHOWN: Final = 2
"""Number of components in the figure: those whose intensity varies most."""


def draw_registration(result: xr.Dataset) -> Figure:
    """Draw maps of both acquisitions on the coarse pixels, and their difference."""
    coarse = np.asarray(result["coarse_abundances"].values, dtype=np.float64)
    total = np.abs(np.asarray(result[ENDMEMBERS].sum(ENERGY).values))
    varies = np.nanstd(coarse, axis=(1, 2)) * total
    order = np.sort(np.argsort(-varies)[: min(COMPONENTS_SHOWN, len(coarse))])
    raster = rasters({"coarse": result["coarse_abundances"].rename(coarse_y=Y, coarse_x=X)})["coarse"]
    high, wide = (abs(n * s) for n, s in zip(raster.shape, raster.step, strict=True))
    row_height = 0.3 * style.WIDTH_INCHES * min(high / wide, 2.0) + 0.35
    figure = style.new_figure(style.WIDTH_INCHES, row_height * len(order))
    grid = figure.subplots(len(order), 3, squeeze=False)
    for row, number in zip(grid, order.tolist(), strict=True):
        spectral = coarse[number]
        spatial = averaged_over_coarse_pixels(result, number, raster)
        low, top = np.nanmin(spectral), np.nanmax(spectral)
        most = float(np.nanmax(np.abs(spectral - spatial), initial=0.0)) or 1.0
        given = names_of_components(result.attrs)
        name = given[number] if given else f"component {result[COMPONENT].values[number]}"
        panels = (
            (spectral, f"{name}: spectral", style.MAP_COLOURS, low, top),
            (spatial, "spatial, averaged", style.MAP_COLOURS, low, top),
            (spectral - spatial, "difference", style.SIGNED_COLOURS, -most, most),
        )
        for axes, (values, title, colours, least, largest) in zip(row, panels, strict=True):
            shown = np.ma.masked_invalid(values)
            square = (high / wide) / (shown.shape[0] / shown.shape[1])
            image = axes.imshow(shown, cmap=style.colour_map(colours), vmin=least, vmax=largest, aspect=square)
            axes.set_xticks([])
            axes.set_yticks([])
            style.set_title(axes, title)
            if axes is not row[0]:
                style.colour_bar(figure, image, [axes], "", extend="neither")
    return figure


def averaged_over_coarse_pixels(result: xr.Dataset, number: int, raster: Raster) -> Float:
    """Map of a component averaged over the coarse pixels of a raster; NaN where the map does not cover them."""
    maps = result[ABUNDANCES].isel({COMPONENT: number}).transpose(Y, X)
    fine = np.asarray(maps.values, dtype=np.float64)
    used = np.isfinite(fine)
    tables = summed_area(np.where(used, fine, 0.0)), summed_area(used.astype(np.float64))
    means, covered = footprints(tables, rasters({"fine": maps})["fine"], raster, Placement((0.0, 0.0)))
    return np.where(covered >= MIN_COVERED, means, np.nan)
