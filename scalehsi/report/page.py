"""The parts of a report page as plain data, and their rendering to one self-contained HTML file by jinja2 templates.

The templates in `templates/` escape all text. No HTML is written in Python.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import jinja2

from scalehsi.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GENERATOR: Final = "scalehsi report"
"""Identifies a page as a report."""

MAX_PICTURE_BYTES: Final = 5_500_000
"""Size of all pictures together. Base64 adds a third, so the page stays below 8 MB."""

RESOLUTIONS_DPI: Final = (style.DOTS_PER_INCH, 110, 80, 60, 40)
"""Resolutions in dots per inch; the first one with pictures below the limit is used."""

CSS_PIXELS_PER_INCH: Final = 105
"""At this scale a full-width figure fills the column of the page."""

BAR_PIXELS: Final = 120
"""Length of the bar of a share of one."""


class Paragraph(NamedTuple):
    """Plain text; `kind` is a class of the style sheet."""

    text: str
    kind: str = ""


class Heading(NamedTuple):
    """A heading within a chapter."""

    text: str


class Code(NamedTuple):
    """Lines of code to copy."""

    text: str


class Listing(NamedTuple):
    """A numbered list."""

    lines: Sequence[str]


class Box(NamedTuple):
    """A framed remark with a symbol, with a bold `lead` before its text, and a `remedy` to paste below it."""

    level: Literal["good", "warning", "bad", "note"]
    text: str
    lead: str = ""
    remedy: str = ""


class Cell(NamedTuple):
    """A cell of a table: a bold `name` and text, pale text, or a coloured bar or square.

    With a `colour`, the cell is a bar whose length shows the `share`, or a square when the share is None.
    """

    text: str = ""
    name: str = ""
    pale: bool = False
    colour: str = ""
    share: float | None = None

    @property
    def bar_pixels(self) -> int:
        """Length of the bar; 0 without a share."""
        return 0 if self.share is None else max(2, round(BAR_PIXELS * self.share))


class Table(NamedTuple):
    """A table of texts and cells; columns in `numbers` are aligned right. An empty head is omitted."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    numbers: Collection[int] = ()


class Fold(NamedTuple):
    """Parts that are shown when the reader opens them by their title."""

    title: str
    parts: Sequence[Paragraph | Table]


Part = Paragraph | Heading | Code | Listing | Box | Table | Fold


class Drawing(NamedTuple):
    """A figure of a chapter before it is drawn.

    Attributes
    ----------
    file : str
        Name of its PNG file beside the page.
    draw : callable
        Draws the figure.
    alt : str
        Description for readers who do not see the figure.
    caption : str
        Explanation below the figure.
    """

    file: str
    draw: Callable[[], Figure]
    alt: str
    caption: str


class Picture(NamedTuple):
    """A rendered figure: the bytes of its PNG file, and its width on the page in CSS pixels."""

    png: bytes
    width: int


class Chapter(NamedTuple):
    """A section of the page: its address within the page, its title, its parts, and its figures below them."""

    anchor: str
    title: str
    parts: Sequence[Part]
    drawings: Sequence[Drawing] = ()


def render_drawings(drawings: Iterable[Drawing]) -> dict[str, Picture]:
    """Draw the figures and render them at the highest resolution that keeps the page small; return them by file."""
    figures = {drawing.file: drawing.draw() for drawing in drawings}
    for dpi in RESOLUTIONS_DPI:
        images = {file: style.to_png(figure, dpi=dpi) for file, figure in figures.items()}
        if sum(map(len, images.values())) <= MAX_PICTURE_BYTES:
            break
    return {
        file: Picture(png, round(figures[file].get_figwidth() * CSS_PIXELS_PER_INCH)) for file, png in images.items()
    }


def render_page(
    *, title: str, head: Sequence[Part], chapters: Sequence[Chapter], pictures: Mapping[str, Picture], foot: str
) -> str:
    """Render the page.

    Parameters
    ----------
    title, foot : str
        Plain text at the top and at the end.
    head : sequence of Part
        What stands between the title and the chapters.
    chapters : sequence of Chapter
        In the order of the page.
    pictures : mapping of str to Picture
        The rendered figures of the chapters, by file name.

    Returns
    -------
    str
        The HTML text.
    """
    template = _environment().get_template("page.html")
    return template.render(generator=GENERATOR, title=title, head=head, chapters=chapters, pictures=pictures, foot=foot)


def embedded(png: bytes) -> str:
    """The text by which a page embeds a PNG file."""
    return base64.b64encode(png).decode("ascii")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scalehsi.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = embedded
    return environment
