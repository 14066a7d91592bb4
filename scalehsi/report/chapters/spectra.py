"""Chapter with the spectra of the components and the labels of their lines or edges."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from scalehsi.physics.identify import Mark
from scalehsi.plots.digest import Digest
from scalehsi.plots.spectra import OVERVIEW_DECADES, draw_spectra, smoothed
from scalehsi.report.chapters import Context
from scalehsi.report.findings import component_line
from scalehsi.report.page import Chapter, Drawing, Paragraph

ORDER: Final = 20


def chapter(view: Digest, context: Context) -> Chapter:
    """The spectra of any result: all together, then one figure each."""
    log = f" Logarithmic scale, {OVERVIEW_DECADES} decades a spectrum." * (view.signal == "EDS" and not view.signed)
    drawings = [
        Drawing(
            "spectra.png",
            partial(draw_spectra, view, components=(), overview=True),
            f"Spectra of {', '.join(view.names)}, each scaled to its maximum, one above the other.",
            "All spectra, each scaled to its maximum, to compare their shapes. The colours are those of the maps."
            f"{log}",
        )
    ]
    unit = "loadings of the component" if view.signed else f"{view.intensity_unit} of the whole map in each channel"
    smooth = " Pale line: the spectrum as fitted. Strong line: smoothed by less than the detector's resolution."
    for number, marks in enumerate(context.marks):
        line = component_line(view, number, marks)
        draw = partial(draw_spectra, view, components=(number,), overview=False, marks=context.marks)
        caption = f"{line}. Vertical axis: {unit}.{smooth if smoothed(view) else ''}"
        drawings.append(Drawing(f"spectrum-{number + 1}.png", draw, f"Spectrum of {line}.", caption))
    return Chapter("spectra", "Spectra", [Paragraph(_label_words(view, context.marks))], drawings)


def _label_words(view: Digest, marks: Sequence[Sequence[Mark]]) -> str:
    """How the labels above the peaks were found."""
    if view.signed:
        return (
            "These are directions of variance, not spectra of phases. They have negative parts, and one of them may "
            "have peaks of several phases. Their lines are not labelled."
        )
    if view.signal == "EELS":
        if view.elements:
            return (
                f"Dashed lines are the tabulated edges of the given elements ({', '.join(view.elements)}), with or "
                "without a rise of the spectrum. Measured onsets may differ by a few eV with bonding and calibration."
            )
        return (
            "No elements were given, so no edges are marked. Set cube.attrs['elements'] = ['C', 'O', ...] before the "
            "fit, or result.attrs['elements'] before the report."
        )
    if view.signal != "EDS":
        return "Lines and edges are labelled when the signal of the cube is 'EDS' or 'EELS'."
    rule = "A line is labelled only where a peak is above noise and continuum."
    if not view.elements:
        return (
            f"{rule} No elements were given: the labels are the most plausible lines by energy and by the other lines "
            "of the same element, and need a check. To choose the elements, set result.attrs['elements'] = "
            "['Mg', 'Si', ...] and write the report again."
        )
    unexplained = any(not mark.certain for row in marks for mark in row)
    doubtful = " Grey labels with a question mark are peaks of other elements." if unexplained else ""
    return f"{rule} Elements given: {', '.join(view.elements)}.{doubtful}"
