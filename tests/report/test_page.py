"""The page: self-contained, linked, escaped, and small."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import pytest

from scalehsi.plots.digest import digest
from scalehsi.plots.maps import draw_composite, draw_maps
from scalehsi.report import page
from scalehsi.report.page import Chapter, Drawing, render_drawings, render_page
from scalehsi.report.write import report
from tests.report.pages import Page
from tests.report.results import eds_result

pytestmark = pytest.mark.long


def test_the_page_needs_nothing_from_elsewhere(shown: Page) -> None:
    assert not shown.all("script")
    assert not shown.all("link")
    assert all(image["src"].startswith("data:image/png;base64,") for image in shown.all("img"))
    assert all(link["href"].startswith("#") for link in shown.all("a"))
    assert "http" not in shown.html.replace("data:image/png", "")
    assert len(shown.html) < 8e6


def test_links_lead_to_chapters(shown: Page) -> None:
    assert shown.sections() == [
        *("maps", "spectra", "composition", "quality", "truth", "methods", "denoised", "bins", "provenance"),
    ]
    assert [link["href"] for link in shown.all("a")] == [f"#{name}" for name in shown.sections()]


def test_every_picture_is_a_png_with_words_and_lies_beside_the_page(shown: Page, written: Path) -> None:
    from matplotlib.image import imread

    beside = {path.read_bytes(): path.name for path in written.parent.glob("*.png")}
    assert sorted(beside.values()) == [
        *("bins.png", "composite.png", "composition.png", "denoised.png", "elements.png", "maps.png"),
        *("methods-spectra.png", "methods.png", "objective.png", "residual.png", "spectra.png"),
        *("spectrum-1.png", "spectrum-2.png", "spectrum-3.png", "truth.png"),
    ]
    assert len(shown.images()) == 15
    for image, attrs in zip(shown.images(), shown.all("img"), strict=True):
        assert image in beside
        pixels = imread(io.BytesIO(image), format="png")
        assert pixels.shape[1] > 700
        assert pixels[..., :3].std() > 0.01
        assert len(attrs["alt"]) > 20


def test_everything_from_the_data_is_escaped(tmp_path: Path, no_figures: None) -> None:
    evil = "<script>alert('$x_1$ & more')</script>"
    result, _ = eds_result()
    result = result.assign_coords(component=[evil, "b & c", "<i>"])
    result.attrs |= {"title": evil, "source": evil, "history": [evil], "advice": evil, "model": evil}
    result.attrs |= {
        "settings": f'{{"<b>": "{evil}"}}',
        "versions": json.dumps({evil: evil}),
        "seed": evil,
        "elements": [evil],
    }
    shown = Page(report(result, tmp_path / "r", others={evil: eds_result()[0]}))
    assert not shown.all("script")
    assert not shown.all("i")
    assert not shown.all("b")
    assert shown.text.count(evil) > 6


def test_words_of_attributes_are_escaped() -> None:
    drawing = Drawing("a.png", lambda: None, '"><script>', "<b>")
    chapter = Chapter("a", "<i>", [page.Box("note", "<u>", lead="<s>")], [drawing])
    pictures = {"a.png": page.Picture(b"png", 500)}
    html = render_page(title="<t>", head=[], chapters=[chapter], pictures=pictures, foot="<f>")
    assert not any(tag in html for tag in ("<script>", "<b>", "<i>", "<u>", "<s>", "<t>", "<f>"))
    assert html.startswith("<!DOCTYPE html>\n")


def test_pictures_shrink_until_the_page_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    view = digest(eds_result(20)[0])
    drawings = [Drawing(f"{draw.__name__}.png", partial(draw, view), "", "") for draw in (draw_maps, draw_composite)]
    full = sum(len(picture.png) for picture in render_drawings(drawings).values())
    monkeypatch.setattr(page, "MAX_PICTURE_BYTES", full - 1)
    assert sum(len(picture.png) for picture in render_drawings(drawings).values()) < full
