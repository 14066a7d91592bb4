"""Chapter on what was done to the cube before the fit: steps, maps that they left, backgrounds of three pixels."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.cube import history_of
from scalehsi.plots.digest import Digest
from scalehsi.plots.preparation import (
    alignment_spectra,
    background_fits,
    draw_alignment,
    draw_background_fits,
    draw_preparation_maps,
    preparation_maps,
)
from scalehsi.plots.style import number_text
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing, Listing, Paragraph
from scalehsi.schema import ABUNDANCES, ENERGY

ORDER: Final = 45
STEPS: Final = (
    "dark(",
    "gain(",
    "spikes(",
    "align(",
    "crop(",
    "bin(",
    "mask(",
    "background(",
    "normalise(",
    "anscombe(",
)


def chapter(view: Digest, context: Context) -> Chapter | None:
    """What was prepared; None where the history of the result has no step that left a map."""
    data = context.cube if context.cube is not None else context.result.get(ABUNDANCES)
    if data is None:
        return None
    lines = [line for line in history_of(context.result.attrs) if line.startswith(STEPS)]
    maps = preparation_maps(data)
    if not maps:
        return None
    drawings = [
        Drawing(
            "preparation.png",
            partial(draw_preparation_maps, data),
            "Maps that the steps of preparation left.",
            "What the steps found in each pixel. Spikes lie at random; shifts follow the scan, and those that follow "
            "the specimen are suspicious, as chemical shifts look like them. A misfit of 1 is counting noise.",
        )
    ]
    moved = alignment_spectra(context.cube) if context.cube is not None else None
    if moved is not None:
        drawings.append(
            Drawing(
                "alignment.png",
                partial(draw_alignment, moved, str(data.coords[ENERGY].attrs.get("units", ""))),
                "Mean spectrum before and after the energy shifts were taken off.",
                "Drift widens the mean of many pixels: aligned, edges and peaks are steeper. Right: where the mean "
                "changed most, which is grey on the left.",
            )
        )
    fits = background_fits(context.cube) if context.cube is not None else None
    if fits is not None and context.cube is not None:
        unit = str(context.cube[ENERGY].attrs.get("units", ""))
        drawings.append(
            Drawing(
                "background_fits.png",
                partial(draw_background_fits, fits, unit),
                "Spectra before and after the background was removed, of three pixels and a mean.",
                "The background was fitted in the grey window and extrapolated. What remains is zero in the window "
                "and does not fall below zero behind the edges, where the law holds.",
            )
        )
    return Chapter("preparation", "Preparation", [Paragraph(_words(data, maps)), Listing(lines)], drawings)


def _words(data: xr.DataArray, maps: dict[str, np.ndarray]) -> str:
    """What the maps say, in a sentence each."""
    words = ["The data were prepared before the fit, in these steps."]
    if "spikes" in maps:
        spikes = np.nan_to_num(maps["spikes"])
        words.append(
            f"{int(spikes.sum()):,} spikes were replaced, in {int((spikes > 0).sum()):,} of {spikes.size:,} pixels."
        )
    if "energy_shift" in maps:
        shifts = maps["energy_shift"][np.isfinite(maps["energy_shift"])]
        unit = str(data["energy_shift"].attrs.get("units", ""))
        words.append(
            f"Energy shifts with a standard deviation of {number_text(float(shifts.std()), 2)} {unit} were taken off; "
            f"they range over {number_text(float(np.ptp(shifts)), 2)} {unit}."
        )
    if "background_exponent" in maps:
        exponents = maps["background_exponent"][np.isfinite(maps["background_exponent"])]
        words.append(
            f"The exponents of the background are {number_text(float(np.percentile(exponents, 5)), 3)} to "
            f"{number_text(float(np.percentile(exponents, 95)), 3)} in nine of ten pixels."
        )
    if "background_misfit" in maps:
        words.append(f"Its median misfit is {number_text(float(np.nanmedian(maps['background_misfit'])), 3)}.")
    return " ".join(words)
