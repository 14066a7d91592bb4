"""Chapter with the composition of the components of an EDX map, from a quantification of their spectra."""

from __future__ import annotations

import json
import numbers
from functools import partial
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.physics.line_templates import Foil
from scalehsi.physics.lines import symbols
from scalehsi.plots.composition import draw_fits, is_found, names_of_spectra, table_of
from scalehsi.plots.digest import Digest
from scalehsi.plots.element_maps import draw_element_maps, element_maps
from scalehsi.quantify import quantify, sources
from scalehsi.report.chapters import Context
from scalehsi.report.page import Box, Cell, Chapter, Drawing, Paragraph, Table
from scalehsi.result import result_warnings
from scalehsi.schema import COMPONENT, ENERGY, ENERGY_UNITS, InputError

ORDER: Final = 30


def chapter(view: Digest, context: Context) -> Chapter | None:
    """The composition of an EDX result whose elements are known; None for other results."""
    found = component_composition(context.result, view)
    if found is None:
        return None
    drawing = Drawing(
        "composition.png",
        partial(draw_fits, found),
        f"Spectra of {', '.join(names_of_spectra(found))} with the fit of their lines and of the continuum.",
        "The fit behind the table: data (black), continuum (grey) and lines (coloured). Bold labels are measured "
        "lines; grey labels are further lines, or lines of elements that were not found. Below each spectrum: the "
        "residual in units of counting noise, which should mostly stay within 3. A positive and a negative swing "
        "across a peak mean an offset of the energy axis.",
    )
    objections = [Box("warning", text, lead=f"{code}:", remedy=remedy) for code, text, remedy in result_warnings(found)]
    parts = [Paragraph(_words(found)), *objections, Paragraph(_normalisation(found)), _table(found)]
    lines = ", ".join(element_maps(view, found))
    maps = Drawing(
        "elements.png",
        partial(draw_element_maps, view, found),
        f"Maps of the net counts of {lines}.",
        "Net counts of each line that was found: the maps of the components times the net counts of their spectra, "
        "without the continuum and without the lines of other elements. Elements whose peak was not found have no map.",
    )
    return Chapter("composition", "Composition", parts, [drawing, maps])


def component_composition(result: xr.Dataset, view: Digest) -> xr.Dataset | None:
    """Quantify the components of a result; None when it is no EDX result with elements, or no element has a line.

    The maps are not read again, because the digest has their sums.
    """
    if view.signal != "EDS" or view.signed or view.energy_unit not in ENERGY_UNITS or not view.elements:
        return None
    strength = np.nansum(view.endmembers, axis=1)
    map_sums = np.where(strength > 0, view.totals / np.where(strength > 0, strength, 1.0), 0.0)
    spectra = xr.DataArray(
        sources.raw_endmembers(result).values * map_sums[:, None],
        dims=(COMPONENT, ENERGY),
        coords={COMPONENT: list(view.names), ENERGY: (ENERGY, view.energy, {"units": view.energy_unit})},
        attrs={"signal": "EDS", "units": view.intensity_unit, "elements": [e for e in view.elements if e in symbols()]},
    )
    if "variance_index" in result.attrs:
        spectra.attrs["variance_index"] = result.attrs["variance_index"]
    recorded = result.attrs.get("beam_energy_keV")
    beam = float(recorded) if isinstance(recorded, numbers.Real) and recorded > 0 else Foil().beam_kev
    try:
        return quantify(spectra, beam_kev=beam)
    except InputError:
        return None


def _words(found: xr.Dataset) -> str:
    """How the table was computed, and its accuracy."""
    words = (
        "Overlapping lines were fitted together with the continuum, and converted by Cliff-Lorimer ratios with "
        "computed k-factors. Absorption is not corrected, so soft lines (C, N, O, F, Na) are too weak in thick areas; "
        "scalehsi quantify takes thickness, density and k-factors. "
    )
    if np.isfinite(found["intensity_std"].values).any():
        words += "Two standard errors follow each value: that of counting, and that of the k-factors (5 % for K, 15 % "
        words += "for L and M lines)."
    else:
        words += (
            f"The standard error is that of the k-factors (5 % for K, 15 % for L and M lines). {found.attrs['errors']}"
        )
    return words


def _normalisation(found: xr.Dataset) -> str:
    """What the percentages add up to, and what is not in them."""
    settings = json.loads(found.attrs["settings"])
    words = f"Atomic per cent of {', '.join(settings['elements'])}: the numbers of each column add up to 100. A value "
    words += "after < is the upper limit of an element whose peak was not found; it is not in the sum."
    if settings["extra"]:
        words += f" Fitted along, but not in the sum: {', '.join(settings['extra'])}."
    if settings["left_out"]:
        words += f" Left out because they have no line on the energy axis: {', '.join(settings['left_out'])}."
    return words


def _table(found: xr.Dataset) -> Table:
    """The table of compositions; upper limits are pale."""
    head, rows = table_of(found)
    cells = [
        [
            element,
            line,
            *(
                text if is_found(found.isel({COMPONENT: k}), position) else Cell(text, pale=True)
                for k, text in enumerate(values)
            ),
        ]
        for position, (element, line, *values) in enumerate(rows)
    ]
    return Table(head, cells, numbers=range(2, len(head)))
