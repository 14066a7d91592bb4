"""The page: sections, pictures and tables as one self-contained HTML file. Everything from the data is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GENERATOR: Final = "scalehsi report"

ICONS: Final = {"good": "✓", "warning": "⚠", "bad": "✕", "note": "ℹ"}

CSS: Final = """
:root { color-scheme: light; --ink: #1c2126; --soft: #59636e; --line: #dde2e7; --paper: #ffffff; --shade: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 28px 24px 60px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 44px 0 10px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 26px 0 6px; }
p { margin: 8px 0; max-width: 78ch; }
.facts { color: var(--soft); margin: 0 0 16px; overflow-wrap: anywhere; max-width: none; }
.box { border: 1px solid var(--line); border-left-width: 6px; border-radius: 4px; padding: 9px 14px; margin: 8px 0;
  display: flex; gap: 12px; align-items: baseline; }
.box .icon { font-weight: 700; flex: none; width: 1.1em; text-align: center; }
.box p { margin: 0; max-width: none; overflow-wrap: anywhere; }
.good { border-left-color: #009e73; background: #f0f8f5; } .good .icon { color: #00734f; }
.warning { border-left-color: #e69f00; background: #fdf7ea; } .warning .icon { color: #8a5d00; }
.bad { border-left-color: #d55e00; background: #fcf1ea; } .bad .icon { color: #a84800; }
.note { border-left-color: #56b4e9; background: #f1f8fd; } .note .icon { color: #1b6ea3; }
nav { margin: 18px 0 0; font-size: .95rem; } nav a { margin-right: 18px; white-space: nowrap; }
a { color: #005a8f; }
figure { margin: 14px 0 26px; break-inside: avoid; }
figure img { width: 100%; height: auto; display: block; }
figure img.part { width: auto; max-width: 100%; }
figcaption { color: var(--soft); font-size: .92rem; margin-top: 6px; max-width: 95ch; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 10px 0; font-size: .93rem; break-inside: avoid; }
th, td { text-align: left; padding: 5px 16px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.pale { color: #8a8a8a; }
.swatch { display: inline-block; width: .85em; height: .85em; border-radius: 2px; margin-right: .5em;
  vertical-align: -.06em; }
.bar { display: inline-block; height: .7em; vertical-align: baseline; border-radius: 2px; margin-right: .6em; }
pre { background: var(--shade); border: 1px solid var(--line); border-radius: 4px; padding: 10px 14px; overflow-x: auto;
  font: .88rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
ol { padding-left: 1.6em; } li { overflow-wrap: anywhere; }
footer { margin-top: 40px; color: var(--soft); font-size: .88rem; }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  h2, h3 { break-after: avoid; }
  pre { white-space: pre-wrap; }
  figure img { max-height: 23cm; object-fit: contain; }
}
"""


class Picture(NamedTuple):
    """A PNG file of the report, with what it shows in words.

    Attributes
    ----------
    file : str
        Its name beside the page.
    png : bytes
    alt : str
        What the picture shows, for those who do not see it.
    caption : str
        What to look for.
    width : int
        Natural width on the page in CSS pixels; pictures of full width fill the column.
    """

    file: str
    png: bytes
    alt: str
    caption: str
    width: int


class Section(NamedTuple):
    """A part of the page: `anchor` is its address within it, `body` finished HTML."""

    anchor: str
    title: str
    body: str


class Drawing(NamedTuple):
    """A figure before it is rendered, the section that it belongs to, its file name and its words."""

    section: str
    file: str
    figure: Figure
    alt: str
    caption: str


class Chapter(NamedTuple):
    """A section before its figures are rendered: `words` is finished HTML, the figures come below it."""

    anchor: str
    title: str
    words: str
    drawings: list[Drawing]


def page(*, title: str, head: str, sections: Sequence[Section], foot: str) -> str:
    """Put a page together; `head` is finished HTML, `title` and `foot` plain text."""
    links = "".join(f'<a href="#{part.anchor}">{escape(part.title)}</a>' for part in sections)
    bodies = "\n".join(
        f'<section id="{part.anchor}">\n<h2>{escape(part.title)}</h2>\n{part.body}\n</section>' for part in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{GENERATOR}">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{head}
<nav>{links}</nav>
</header>
<main>
{bodies}
</main>
<footer>{escape(foot)}</footer>
</body>
</html>
"""


def paragraph(text: str, *, kind: str = "") -> str:
    """A paragraph of plain text."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def box(level: str, text: str, *, lead: str = "") -> str:
    """A framed remark with colour, sign and words; `level` is good, warning, bad or note."""
    strong = f"<strong>{escape(lead)}</strong> " if lead else ""
    sign = f'<span class="icon" role="img" aria-label="{level}">{ICONS[level]}</span>'
    return f'<div class="box {level}">{sign}<p>{strong}{escape(text)}</p></div>'


def figure(picture: Picture) -> str:
    """A picture, embedded, with its caption."""
    data = base64.b64encode(picture.png).decode("ascii")
    size = f' class="part" style="width:{picture.width}px"' if picture.width < 1000 else ""
    return (
        f'<figure>\n<img{size} src="data:image/png;base64,{data}" alt="{escape(picture.alt)}">\n'
        f"<figcaption>{escape(picture.caption)}</figcaption>\n</figure>"
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int] = (), raw: bool = False) -> str:
    """A table; columns in `numbers` are set right. Cells are plain text unless `raw`, when they are finished HTML."""
    right = set(numbers)

    def cell(tag: str, column: int, text: str, *, html: bool) -> str:
        kind = ' class="number"' if column in right else ""
        return f"<{tag}{kind}>{text if html else escape(text)}</{tag}>"

    top = "".join(cell("th", i, text, html=False) for i, text in enumerate(head))
    lines = "\n".join(
        f"<tr>{''.join(cell('td', i, text, html=raw) for i, text in enumerate(row))}</tr>" for row in rows
    )
    heading = f"<thead><tr>{top}</tr></thead>\n" if any(head) else ""
    return f'<div class="scroll"><table>\n{heading}<tbody>\n{lines}\n</tbody></table></div>'


def code(text: str) -> str:
    """Lines of code to copy."""
    return f"<pre>{escape(text)}</pre>"


def swatch(colour: str) -> str:
    """A small square of a colour."""
    return f'<span class="swatch" style="background:{colour}"></span>'


def bar(share: float, colour: str) -> str:
    """A bar as long as a share of 120 px."""
    return f'<span class="bar" style="width:{max(2, round(120 * share))}px;background:{colour}"></span>'
