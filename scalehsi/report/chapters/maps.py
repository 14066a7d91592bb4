"""Chapter with the maps of the components and their composite."""

from __future__ import annotations

from functools import partial
from typing import Final

from scalehsi.plots import style
from scalehsi.plots.digest import Digest
from scalehsi.plots.maps import background_component, draw_composite, draw_maps
from scalehsi.report.chapters import Context
from scalehsi.report.page import Chapter, Drawing

ORDER: Final = 10


def chapter(view: Digest, context: Context) -> Chapter:
    """The maps of any result, and the composite of results without negative values."""
    names = ", ".join(view.names)
    alt = f"Maps of {names}, with scale bar and colour bar."
    drawings = [Drawing("maps.png", partial(draw_maps, view), alt, f"{_map_caption(view)} {_notes(view)}".strip())]
    if not view.signed and len(view.names) > 1:
        alt = (
            f"All components in one figure: {names}. Colours mixed by share, and the strongest component of each pixel."
        )
        drawings.append(Drawing("composite.png", partial(draw_composite, view), alt, _composite_caption(view)))
    return Chapter("maps", "Maps", [], drawings)


def _map_caption(view: Digest) -> str:
    if view.signed:
        return (
            "Scores of each component. Orange is positive, purple is negative, white is zero. The sign of a component "
            "is arbitrary."
        )
    quantity = "Counts" if view.intensity_unit == "counts" else "Intensity"
    return (
        f"{quantity} of each component in each pixel: abundance times the sum of the spectrum. Each component has its "
        "own colour scale, from zero to the 99.8th percentile."
    )


def _notes(view: Digest) -> str:
    """What is special about these maps: positions, mask, averaged pixels, stretching, missing pixel size."""
    notes = []
    if len(view.positions) > 1:
        notes.append(f"Shown: {'; '.join(view.positions)}.")
    if view.pixels_used < view.pixels_total:
        notes.append("Grey pixels were masked.")
    if view.block > 1:
        notes.append(f"Blocks of {view.block} × {view.block} pixels were averaged for this figure.")
    if style.stretched(view):
        notes.append("The map is too elongated to be drawn to scale, and is stretched across its short side.")
    if view.pixel_nm is None:
        notes.append("The size of a pixel is not recorded, so the scale bar counts pixels.")
    return " ".join(notes)


def _composite_caption(view: Digest) -> str:
    words = "All components together, in the colours of their spectra."
    background = background_component(view)
    if background is not None:
        words = (
            f"{view.names[background]} is the strongest component nearly everywhere, as a background is, and is left "
            "out. The other components that are more than noise have the colours of their spectra, each relative to "
            "its own maximum."
        )
    first, second = ("Upper row", "Lower row") if len(view.positions) > 1 else ("Left", "Right")
    return (
        f"{words} {first}: colours are mixed by share, and fade to white where the intensity is low (thin areas, "
        f"holes). {second}: the strongest component of each pixel, with its number."
    )
