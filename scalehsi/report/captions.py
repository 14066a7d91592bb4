"""Which pictures a report has, and what is said about each: alternative text and caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from scalehsi.physics.identify import Mark
from scalehsi.plots import style
from scalehsi.plots.composition import Composition, draw_fits, names_of_spectra
from scalehsi.plots.digest import Digest
from scalehsi.plots.maps import draw_composite, draw_maps, outshining
from scalehsi.plots.quality import draw_objective, draw_residual, draw_scree
from scalehsi.plots.spectra import draw_spectra, smoothed
from scalehsi.plots.truth import draw_comparison
from scalehsi.report.findings import component_line
from scalehsi.report.page import Drawing, Picture

MOST_BYTES: Final = 5_500_000
"""Of all pictures together; embedding makes them a third longer, and the page stays below 8 MB."""

RESOLUTIONS: Final = (style.DPI, 110, 80, 60, 40)
"""Dots per inch, tried in turn until the pictures are small enough."""

CSS_PIXELS_PER_INCH: Final = 105
"""A figure of full width fills the page's column."""


def draw(
    view: Digest,
    marks: Sequence[Sequence[Mark]],
    known: Digest | None,
    composition: Composition | None = None,
) -> list[Drawing]:
    """Draw every figure that this result can have."""
    drawings = [*_maps(view), *_spectra(view, marks), *_composition(composition), *_quality(view)]
    return drawings if known is None else [*drawings, _truth(view, known)]


def render(drawings: Sequence[Drawing]) -> dict[str, list[Picture]]:
    """Render the figures, at the highest resolution that keeps the page small, by section."""
    for dpi in RESOLUTIONS:
        images = [style.to_png(drawing.figure, dpi=dpi) for drawing in drawings]
        if sum(map(len, images)) <= MOST_BYTES:
            break
    pictures: dict[str, list[Picture]] = {}
    for drawing, png in zip(drawings, images, strict=True):
        width = round(drawing.figure.get_figwidth() * CSS_PIXELS_PER_INCH)
        picture = Picture(drawing.file, png, drawing.alt, drawing.caption, width)
        pictures.setdefault(drawing.section, []).append(picture)
    return pictures


def _maps(view: Digest) -> Iterator[Drawing]:
    names = ", ".join(view.names)
    notes = _map_notes(view)
    if view.signed:
        caption = (
            "Scores of each component. Orange is positive, purple negative, white zero; the sign of a component is "
            f"arbitrary. {notes}"
        )
    else:
        what = "Counts of each pixel that belong" if view.intensity_unit == "counts" else "Intensity that belongs"
        caption = (
            f"{what} to each component (abundance times the sum of its spectrum). Every component has its own colour "
            f"scale, from zero to its 99.8th percentile. {notes}"
        )
    yield Drawing("maps", "maps.png", draw_maps(view), f"Maps of {names}, with scale bar and colour bar.", caption)
    if not view.signed and len(view.names) > 1:
        yield Drawing(
            "maps",
            "composite.png",
            draw_composite(view),
            f"All components in one picture: {names}. Mixed by their shares, and the strongest of each pixel.",
            _composite_words(view),
        )


def _composite_words(view: Digest) -> str:
    words = "All components together, in the colours of their spectra."
    background = outshining(view)
    if background is not None:
        words = (
            f"{view.names[background]} outshines the others nearly everywhere, as a background does, and is left out "
            "of this picture; those of the others that are more than noise are shown in the colours of their spectra, "
            "each relative to its own maximum."
        )
    first, second = ("Upper row", "Lower row") if len(view.positions) > 1 else ("Left", "Right")
    return (
        f"{words} {first}: colours are mixed by share, and fade to white where there is little intensity (thin places, "
        f"holes). {second}: the strongest component of each pixel, numbered."
    )


def _map_notes(view: Digest) -> str:
    notes = []
    if len(view.positions) > 1:
        notes.append(f"Shown: {'; '.join(view.positions)}.")
    if view.pixels_used < view.pixels_total:
        notes.append("Grey pixels were masked.")
    if view.block > 1:
        notes.append(f"For the picture, blocks of {view.block} × {view.block} pixels were averaged.")
    if style.stretched(view):
        notes.append("The map is too elongated to be drawn to scale: it is stretched across the short side.")
    if view.pixel_nm is None:
        notes.append("The size of a pixel is not recorded, so the scale bar counts pixels.")
    return " ".join(notes)


def _spectra(view: Digest, marks: Sequence[Sequence[Mark]]) -> Iterator[Drawing]:
    yield Drawing(
        "spectra",
        "spectra.png",
        draw_spectra(view, components=(), overview=True),
        f"Spectra of {', '.join(view.names)}, each scaled to its maximum, one above the other.",
        "All spectra, each scaled to its own maximum, to compare their shapes. Colours are those of the maps.",
    )
    for number, row in enumerate(marks):
        line = component_line(view, number, row)
        unit = "loadings of the component" if view.signed else f"{view.intensity_unit} of the whole map in each channel"
        strong = " Pale: the spectrum as fitted; strong: smoothed by less than the detector's width."
        yield Drawing(
            "spectra",
            f"spectrum-{number + 1}.png",
            draw_spectra(view, components=(number,), overview=False, marks=marks),
            f"Spectrum of {line}.",
            f"{line}. Vertical axis: {unit}.{strong if smoothed(view) else ''}",
        )


def _composition(composition: Composition | None) -> Iterator[Drawing]:
    if composition is None:
        return
    names = ", ".join(names_of_spectra(composition.found))
    yield Drawing(
        "composition",
        "composition.png",
        draw_fits(composition.found),
        f"Spectra of {names} with the fit of their lines and of the continuum.",
        "The fit behind the table: data (black), continuum (grey) and lines (coloured). Bold names are "
        "the lines that are measured; grey ones are further lines, or of elements that are not found. Below each: what "
        "the fit leaves, in units of counting noise; it should mostly stay within 3. A peak that is left belongs to an "
        "element that is not on the list; up and down across a peak says that the energy axis is slightly off.",
    )


def _quality(view: Digest) -> Iterator[Drawing]:
    if view.objective is not None and view.objective.size > 1:
        yield Drawing(
            "quality",
            "objective.png",
            draw_objective(view),
            "Objective against iteration.",
            "What the fit minimises, at each iteration. Where it falls by orders of magnitude, its distance from the "
            "lowest value is drawn on a logarithmic scale; the drop at the very end comes from that choice of zero. A "
            "good run ends where a further iteration would change little.",
        )
    if view.residual is not None or view.residual_spectrum is not None:
        yield Drawing(
            "quality",
            "residual.png",
            draw_residual(view),
            "Residual map and mean residual spectrum.",
            _residual_caption(view),
        )
    if view.eigenvalues is not None:
        yield Drawing(
            "rank",
            "scree.png",
            draw_scree(view),
            "Eigenvalues and Malinowski's indicator against the number of components.",
            "Left: the variance along each principal axis; components that carry signal stand above the straight tail "
            "of noise, and the bend says how many there are. Right: Malinowski's indicator, lowest at its estimate of "
            "that number. The shaded ones are kept in this result.",
        )


def _residual_caption(view: Digest) -> str:
    words = []
    if view.residual is not None:
        words.append(
            "Map: what the model leaves of each pixel. A good fit leaves noise without structure; grains, edges or "
            "gradients mean that a phase is missing or that a spectrum changes across the map."
        )
    if view.relative_residual is not None:
        words.append(
            "The plain residual is larger where there is more intensity, even for a perfect fit; in units of counting "
            "noise (second map) a perfect fit of Poisson counts is flat and close to 1. A gain of the detector only "
            "shifts the level."
        )
    if view.residual_spectrum is not None:
        words.append(
            "Spectrum: mean of the data (top) and what the model misses of it (bottom). A good fit leaves noise about "
            "zero; a peak means a missing line or phase, an up-and-down pair a peak that shifts."
        )
        if view.unsmoothed is not None:
            words.append(
                "The model smoothed its spectra by about the width of a peak, which rounds the tops of lines off: "
                "up-and-down patterns of a percent of a line come from that."
            )
        elif view.poisson:
            words.append(
                "A converged Poisson fit balances every channel by itself, so here only the map can show a missing "
                "phase; what is left in the spectrum says how far the fit was from its end."
            )
    return " ".join(words)


def _truth(view: Digest, known: Digest) -> Drawing:
    return Drawing(
        "truth",
        "truth.png",
        draw_comparison(view, known),
        "Spectra and maps of the truth beside those of the result.",
        "Spectra scaled to the same sum: coloured the estimate, black and dashed the truth. Maps: share of each "
        f"pixel's intensity, from 0 (dark) to 1 (bright){f', {view.positions[0]}' if view.positions[0] else ''}.",
    )
