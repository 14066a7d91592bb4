"""The part of the page on two acquisitions: where one lies on the other, and how well both agree there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.kernels.resampling.footprints import summed
from scalehsi.registration.rasters import Placing, Raster, rasters
from scalehsi.registration.register import COVERED, footprints
from scalehsi.reporting import style
from scalehsi.reporting.page import Chapter, Drawing, paragraph
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, X, Y

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN: Final = 2
"""Components that are drawn: those whose signal varies most."""
POOR: Final = 0.5
"""From this residual on the registration is not to be trusted."""


def chapter(result: xr.Dataset) -> Chapter | None:
    """The part of the page; None for results of one acquisition."""
    if "registration_shift" not in result or "coarse_abundances" not in result:
        return None
    drawing = Drawing(
        "registration",
        "registration.png",
        draw_registration(result),
        "Maps of the spectral acquisition, of the spatial one averaged over the same pixels, and their difference.",
        "Left: the map that the pixels of the spectral acquisition show. Middle: the map of the spatial one, averaged "
        "over each of them where it was found to lie. Right: the difference, which is noise where the registration "
        "and both scans are right; rims on one side of everything are a shift, or drift during the scans.",
    )
    return Chapter("registration", "How two acquisitions lie on each other", paragraph(words_of(result)), [drawing])


def words_of(result: xr.Dataset) -> str:
    """Shift, scale, probe and agreement in a few sentences."""
    unit = str(result["registration_shift"].attrs.get("units", ""))
    shift = np.asarray(result["registration_shift"].values, dtype=float)
    error = np.asarray(result["registration_shift_error"].values, dtype=float)
    along = [
        f"{s:+.3g}{f' ± {e:.1g}' if np.isfinite(e) else ''} {unit} along {dim}".replace("  ", " ")
        for s, e, dim in zip(shift, error, (Y, X), strict=True)
    ]
    left, blur = float(result["registration_residual"]), float(result["registration_blur"])
    scale, ratio = float(result["registration_scale"]), float(result["dose_ratio"])
    doubt = " That is much: look at the maps below before you rely on the details." if left >= POOR else ""
    probe = f" Its probe is wider than its pixels by a standard deviation of {blur:.2g} {unit}." if blur > 0 else ""
    return (
        f"The spectra come from an acquisition of large pixels, the details from one of small pixels. By its own axes "
        f"the first lies {along[0]} and {along[1]} off, at {scale:.4g} times the size.{probe} A small pixel has "
        f"{ratio:.2g} of the counts of a large one. Where both lie, their maps differ by {100 * left:.0f} % of their "
        f"variation.{doubt}"
    )


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
