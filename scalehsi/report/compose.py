"""The page put together: headline first, then pictures with their words, then where everything comes from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.physics.identify import Mark
from scalehsi.plots import style
from scalehsi.plots.composition import Composition, composition_words, is_found, table_of
from scalehsi.plots.digest import Digest
from scalehsi.plots.truth import compare, truth_name
from scalehsi.report import page
from scalehsi.report.findings import component_line, find, status_words
from scalehsi.report.page import Chapter, Picture, Section
from scalehsi.report.provenance import energy_span, map_size, provenance
from scalehsi.schema import COMPONENT

_UNSETTLED: Final = "Spectra and maps may still change: read them with care."
CARE: Final = {
    **dict.fromkeys(("max_iter", "stagnated", "interrupted"), _UNSETTLED),
    "nonfinite": "Nothing below can be relied on.",
}
"""What a status means for the reader of the pictures."""


def compose(
    result: xr.Dataset,
    view: Digest,
    *,
    marks: Sequence[Sequence[Mark]],
    pictures: dict[str, list[Picture]],
    known: Digest | None,
    chapters: Sequence[Chapter] = (),
    title: str,
    composition: Composition | None = None,
) -> str:
    """Write the HTML of the whole page."""
    sections = [
        Section("maps", "Maps", _figures(pictures, "maps")),
        Section("spectra", "Spectra", page.paragraph(_naming(view, marks)) + _figures(pictures, "spectra")),
    ]
    if composition is not None:
        sections.append(Section("composition", "Composition", _composition(composition, pictures)))
    if "quality" in pictures:
        sections.append(Section("quality", "How good is the fit?", _quality(view, pictures)))
    if "rank" in pictures:
        sections.append(Section("rank", "How many components?", _figures(pictures, "rank")))
    if known is not None:
        sections.append(Section("truth", "Against the truth", _truth(view, known) + _figures(pictures, "truth")))
    sections += [Section(part.anchor, part.title, part.words + _figures(pictures, part.anchor)) for part in chapters]
    sections.append(provenance(result, view))
    foot = f"Written by scalehsi from {view.source or 'a result in memory'}."
    return page.page(title=title, head=_headline(result, view, marks), sections=sections, foot=foot)


def _headline(result: xr.Dataset, view: Digest, marks: Sequence[Sequence[Mark]]) -> str:
    count = len(view.names)
    facts = [
        view.model,
        f"{count} component{'' if count == 1 else 's'}",
        f"{map_size(result)} pixels",
        energy_span(view),
        view.source and f"source {view.source}",
    ]
    level, words = status_words(view)
    lines = [
        page.paragraph(" · ".join(fact for fact in facts if fact), kind="facts"),
        page.box(level, f"{view.advice} {CARE.get(view.status, '')}".strip(), lead=f"{words}."),
        *(page.box(remark.level, remark.text) for remark in find(view)),
        _components(view, marks),
    ]
    return "\n".join(lines)


def _components(view: Digest, marks: Sequence[Sequence[Mark]]) -> str:
    """A line in words on each component, with its colour and a bar for its share."""
    rows = []
    for number, row in enumerate(marks):
        # The name is set apart in bold; the sentence goes on from the colon.
        told = component_line(view, number, row).removeprefix(view.names[number])
        name = f"<strong>{escape(view.names[number])}</strong>"
        share = float(view.shares[number])
        picture = page.bar(share, style.colour(number)) if np.isfinite(share) else page.swatch(style.colour(number))
        rows.append((picture, f"{name}{escape(told)}"))
    return page.table(("", ""), rows, raw=True)


def _figures(pictures: dict[str, list[Picture]], section: str) -> str:
    return "\n".join(page.figure(picture) for picture in pictures.get(section, []))


def _naming(view: Digest, marks: Sequence[Sequence[Mark]]) -> str:
    """How the names over the peaks came about."""
    if view.signed:
        return (
            "These are directions of variance, not spectra of phases: they have negative parts, and peaks of several "
            "phases in one. Lines are not named here."
        )
    if view.signal == "EELS":
        if view.elements:
            return (
                f"Dashed lines are the tabulated edges of the elements given ({', '.join(view.elements)}), whether or "
                "not the spectrum rises there. Measured onsets may differ by a few eV with bonding and calibration."
            )
        return (
            "No elements were given, so no edges are marked: set cube.attrs['elements'] = ['C', 'O', ...] before the "
            "fit, or result.attrs['elements'] before the report."
        )
    if view.signal != "EDS":
        return "Lines and edges are marked when the signal of the cube is 'EDS' or 'EELS'."
    rule = "A line is named only where a peak stands above noise and continuum."
    if not view.elements:
        return (
            f"{rule} No elements were given: the names are the most plausible ones by energy and by the company that a "
            "line keeps, so check them. To fix them, set result.attrs['elements'] = ['Mg', 'Si', ...] and report again."
        )
    asked = any(not mark.certain for row in marks for mark in row)
    doubtful = " Grey names with a question mark are peaks that these elements do not explain." if asked else ""
    return f"{rule} Elements given: {', '.join(view.elements)}.{doubtful}"


def _composition(composition: Composition, pictures: dict[str, list[Picture]]) -> str:
    """The table of compositions; what is not clear of zero is pale."""
    head, rows = table_of(composition.found)
    found = composition.found
    cells = []
    for position, (element, line, *values) in enumerate(rows):
        told = [
            text if is_found(found.isel({COMPONENT: k}), position) else f'<span class="pale">{text}</span>'
            for k, text in enumerate(map(escape, values))
        ]
        cells.append((escape(element), escape(line), *told))
    table = page.table(head, cells, numbers=range(2, len(head)), raw=True)
    return page.paragraph(composition_words(composition)) + table + _figures(pictures, "composition")


def _quality(view: Digest, pictures: dict[str, list[Picture]]) -> str:
    figures = _figures(pictures, "quality")
    if view.objective is not None and view.objective.size > 1:
        return figures
    direct = "PCA is solved directly" if view.model == "PCA" else "The result records no two values of the objective"
    return page.paragraph(f"{direct}: there is no course of iterations to show.") + figures


def _truth(view: Digest, known: Digest) -> str:
    """How near the result comes to the truth, as a table."""
    pairs = compare(view, known)
    rows = [
        (
            truth_name(known, pair.truth),
            view.names[pair.estimate],
            f"{pair.angle:.2f}",
            _number(pair.similarity),
            _number(pair.nmse),
        )
        for pair in pairs
    ]
    angles = [pair.angle for pair in pairs]
    words = f"Spectra lie {np.mean(angles):.2f}° from the truth on average, {np.max(angles):.2f}° at most. "
    left_out = len(known.names) - len(pairs)
    if left_out:
        words += f"{left_out} of the truth's components are left out: the result has only {len(view.names)}. "
    words += (
        "Maps are compared as shares of each pixel's intensity; the error is the squared one relative to the truth."
    )
    head = ("Truth", "Component", "Spectral angle (°)", "Correlation of maps", "Error of maps")
    return page.paragraph(words) + page.table(head, rows, numbers=(2, 3, 4))


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else "not compared"
