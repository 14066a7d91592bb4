"""Chapter with the composition of the components of an EDX map, from a quantification of their spectra."""

from __future__ import annotations

import numbers
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.physics.line_choice import choose_line
from scalehsi.physics.line_templates import Foil
from scalehsi.physics.lines import symbols
from scalehsi.plots.composition import draw_fits, is_found, names_of_spectra, table_of
from scalehsi.plots.digest import Digest
from scalehsi.quantify import quantify, sources
from scalehsi.report.chapters import Context
from scalehsi.report.page import Cell, Chapter, Drawing, Paragraph, Table
from scalehsi.schema import COMPONENT, ENERGY, ENERGY_UNITS, InputError

ORDER: Final = 30


class Composition(NamedTuple):
    """The quantification of the components, and the elements without a line on the energy axis."""

    found: xr.Dataset
    left_out: tuple[str, ...]


def chapter(view: Digest, context: Context) -> Chapter | None:
    """The composition of an EDX result whose elements are known; None for other results."""
    composition = component_composition(context.result, view)
    if composition is None:
        return None
    found = composition.found
    drawing = Drawing(
        "composition.png",
        partial(draw_fits, found),
        f"Spectra of {', '.join(names_of_spectra(found))} with the fit of their lines and of the continuum.",
        "The fit behind the table: data (black), continuum (grey) and lines (coloured). Bold labels are measured "
        "lines; grey labels are further lines, or lines of elements that were not found. Below each spectrum: the "
        "residual in units of counting noise, which should mostly stay within 3. A peak in the residual belongs to an "
        "element that is not on the list. A positive and a negative swing across a peak mean an offset of the "
        "energy axis.",
    )
    return Chapter("composition", "Composition", [Paragraph(_words(composition)), _table(found)], [drawing])


def component_composition(result: xr.Dataset, view: Digest) -> Composition | None:
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
        attrs={"signal": "EDS", "units": view.intensity_unit},
    )
    recorded = result.attrs.get("beam_energy_keV")
    beam = float(recorded) if isinstance(recorded, numbers.Real) and recorded > 0 else Foil().beam_kev
    ends = float(view.energy_kev.min()), float(view.energy_kev.max())
    usable = [e for e in view.elements if e in symbols() and choose_line(e, ends, "quantify", beam_kev=beam)]
    try:
        found = quantify(spectra, usable, beam_kev=beam, maps=False)
    except InputError:
        return None
    return Composition(found, tuple(element for element in view.elements if element not in usable))


def _words(composition: Composition) -> str:
    """How the table was computed, and its accuracy."""
    words = (
        "Atomic per cent from the spectra above. Overlapping lines were fitted together with the continuum, and "
        "converted by Cliff-Lorimer ratios with computed k-factors. Expect errors of some 5 % for K lines, and of 10 "
        "to 20 % for L and M lines. Absorption is not corrected, so soft lines (C, N, O, F, Na) are too weak in thick "
        "areas; scalehsi quantify takes thickness, density and k-factors. "
    )
    if np.isfinite(composition.found["intensity_std"].values).any():
        words += "The errors given are one standard error of counting alone; grey numbers are not clearly above zero. "
    else:
        words += f"{composition.found.attrs['errors']} "
    words += "Elements of the grid or the holder (often Cu, C) count like the others."
    if composition.left_out:
        words += f" Left out because they have no line on the energy axis: {', '.join(composition.left_out)}."
    return words


def _table(found: xr.Dataset) -> Table:
    """The table of compositions; numbers that are not significantly above zero are pale."""
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
