"""The head of the page: what the result is, how the fit ended, and one line on each component."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalehsi.report.write import report
from tests.report.pages import Page
from tests.report.results import eds_result

pytestmark = pytest.mark.long


def test_the_head_says_what_the_result_is_and_how_the_fit_ended(shown: Page) -> None:
    assert "Mantle minerals NMF · 3 components · y 60 × x 60 pixels · 1000 channels, 0.2 to 10.19 keV" in shown.text
    assert "✓ Converged. The objective settled within the tolerance." in shown.text
    assert "⚠" not in shown.text.split("Cliff-Lorimer")[0]


def test_components_are_described_in_plain_words(shown: Page) -> None:
    assert "Component 1: 79 % of the counts, strongest lines Mg Kα, Si Kα, O Kα, Al Kα" in shown.text
    assert "Component 2: 16 % of the counts, strongest lines Mg Kα, Fe Kα" in shown.text
    assert "Component 3: 5.4 % of the counts, strongest lines Si Kα, Ca Kα" in shown.text
    assert [bar["style"] for bar in shown.all("span") if bar["class"] == "bar"][:2] == [
        "width:94px;background:#0072B2",
        "width:19px;background:#D55E00",
    ]


@pytest.mark.parametrize(
    ("status", "sign", "words"),
    [
        ("max_iter", "⚠", "Stopped at the iteration limit. The iteration limit came first; raise max_iter"),
        ("stagnated", "⚠", "Stagnated before it converged. The objective stopped improving"),
        ("interrupted", "⚠", "Interrupted before it converged. The run was stopped; fit again with resume=True"),
        ("nonfinite", "✕", "Failed: NaN or Inf appeared. NaN or Inf appeared; look at the cube"),
    ],
)
def test_status_in_words_with_advice(tmp_path: Path, no_figures: None, status: str, sign: str, words: str) -> None:
    result, _ = eds_result(20)
    page = Page(report(result.assign_attrs(status=status, advice=""), tmp_path / "r"))
    assert f"{sign} {words}" in page.text
    assert "Converged." not in page.text
