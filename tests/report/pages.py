"""Read a report page back: its text, tags and pictures, and whether every tag is closed in order."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

BLOCKS = {"h1", "h2", "h3", "li", "p", "span", "td", "th"}
VOID = {"meta", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """A parsed page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.html = path.read_text("utf-8")
        self.feed(self.html)
        self.close()
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " " if tag in BLOCKS else ""

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def sections(self) -> list[str]:
        return [section["id"] for section in self.all("section")]

    def images(self) -> list[bytes]:
        return [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in self.all("img")]
