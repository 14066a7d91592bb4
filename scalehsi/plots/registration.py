"""Draw how well two acquisitions are registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.kernels.resampling.footprints import summed
from scalehsi.plots import style
from scalehsi.registration.rasters import Placing, Raster, rasters
from scalehsi.registration.register import COVERED, footprints
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, X, Y

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SHOWN: Final = 2
"""Components that are drawn: those whose signal varies most."""


def draw_registration(result: xr.Dataset) -> Figure:
    """Draw maps of both acquisitions on the coarse pixels, and what is between them."""
    coarse = np.asarray(result["coarse_abundances"].values, dtype=np.float64)
    total = np.abs(np.asarray(result[ENDMEMBERS].sum(ENERGY).values))
    varies = np.nanstd(coarse, axis=(1, 2)) * total
    order = np.sort(np.argsort(-varies)[: min(SHOWN, len(coarse))])
    raster = rasters({"coarse": result["coarse_abundances"].rename(coarse_y=Y, coarse_x=X)})["coarse"]
    high, wide = (abs(n * s) for n, s in zip(raster.shape, raster.step, strict=True))
    figure = style.new_figure(style.WIDTH, (0.3 * style.WIDTH * min(high / wide, 2.0) + 0.35) * len(order))
    grid = figure.subplots(len(order), 3, squeeze=False)
    for row, number in zip(grid, order.tolist(), strict=True):
        seen = coarse[number]
        fine = averaged(result, number, raster)
        low, top = np.nanmin(seen), np.nanmax(seen)
        most = float(np.nanmax(np.abs(seen - fine), initial=0.0)) or 1.0
        name = f"component {result[COMPONENT].values[number]}"
        looks = (
            (seen, f"{name}: spectral", style.MAP_COLOURS, low, top),
            (fine, "spatial, averaged", style.MAP_COLOURS, low, top),
            (seen - fine, "difference", style.SIGNED_COLOURS, -most, most),
        )
        for axes, (values, title, colours, least, largest) in zip(row, looks, strict=True):
            shown = np.ma.masked_invalid(values)
            image = axes.imshow(
                shown, cmap=style.colour_map(colours), vmin=least, vmax=largest, aspect=(high / wide) / _shape(shown)
            )
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title(title, fontsize=style.TEXT, loc="left", color=style.INK, parse_math=False)
            if title != looks[0][1]:
                style.colour_bar(figure, image, [axes], "", extend="neither")
    return figure


def averaged(result: xr.Dataset, number: int, raster: Raster) -> Float:
    """Map of a component averaged over coarse pixels, NaN where they are not covered."""
    maps = result[ABUNDANCES].isel({COMPONENT: number}).transpose(Y, X)
    fine = np.asarray(maps.values, dtype=np.float64)
    there = np.isfinite(fine)
    tables = summed(np.where(there, fine, 0.0)), summed(there.astype(np.float64))
    means, covered = footprints(tables, rasters({"fine": maps})["fine"], raster, Placing((0.0, 0.0)))
    return np.where(covered >= COVERED, means, np.nan)


def _shape(values: Any) -> float:
    return float(values.shape[0] / values.shape[1])
