"""The chapters: which ones a result has, in which order, and what they say about each kind of result."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.plots.composition import upper_limit, with_errors
from scalehsi.report import chapters
from scalehsi.report.write import report
from scalehsi.schema import InputError
from tests.report.pages import Page
from tests.report.results import eds_result, eels_result, pca_result, series_result

pytestmark = pytest.mark.long


def test_a_new_file_in_the_folder_becomes_a_chapter(
    tmp_path: Path, small: xr.Dataset, no_figures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy.py").write_text(
        "from scalehsi.report.page import Chapter, Paragraph\n"
        "ORDER = 15\n"
        "def chapter(view, context):\n"
        "    if 'toy' in context.result:\n"
        "        return Chapter('toy', 'A toy', [Paragraph('Toys of a method.')])\n"
    )
    monkeypatch.setattr(chapters, "__path__", [*chapters.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, f"{chapters.__name__}.toy", None)
    del sys.modules[f"{chapters.__name__}.toy"]
    with_toy = Page(report(small.assign(toy=1.0), tmp_path / "with"))
    assert with_toy.sections()[:3] == ["maps", "toy", "spectra"]
    assert "Toys of a method." in with_toy.text
    assert "toy" not in Page(report(small, tmp_path / "without")).sections()


def test_a_method_without_a_chapter_of_its_own_gets_a_full_report(tmp_path: Path, no_figures: None) -> None:
    result, _ = eds_result(12)
    toy = result.assign_attrs(model="Toy", settings='{"strength": 2.0}')
    page = Page(report(toy, tmp_path / "toy"))
    assert page.sections() == ["maps", "spectra", "composition", "quality", "provenance"]
    assert "Toy · 3 components" in page.text
    assert "strength 2.0" in page.text
    bare = toy[["endmembers", "abundances"]].drop_attrs(deep=False).assign_attrs(model="Toy")
    assert Page(report(bare, tmp_path / "bare")).sections() == ["maps", "spectra", "provenance"]


def test_a_bare_result_is_enough(tmp_path: Path) -> None:
    result = xr.Dataset(
        {
            "endmembers": (("component", "energy"), np.ones((1, 8))),
            "abundances": (("component", "y", "x"), np.ones((1, 1, 9))),
        },
        attrs={"model": "X"},
    )
    page = Page(report(result, tmp_path / "r", title="Bare & small"))
    assert page.text.startswith("Bare & small Bare & small X · 1 component · y 1 × x 9 pixels")
    assert "Status unknown." in page.text
    assert "the scale bar counts pixels" in page.text


def test_a_result_of_nothing_but_nan_is_reported_as_such(tmp_path: Path) -> None:
    result, _ = eds_result(12)
    broken = (result * np.nan).assign_attrs(result.attrs | {"status": "nonfinite"})
    page = Page(report(broken, tmp_path / "r"))
    assert "✕" in page.text
    assert "No pixel has a value" in page.text


def test_eels_labels_edges(tmp_path: Path, no_figures: None) -> None:
    page = Page(report(eels_result(), tmp_path / "r"))
    assert "Component 2: 3.9 % of the total intensity, edges C K" in page.text
    assert "edges Ca L3" in page.text
    assert "edges O K" in page.text
    assert "Component 1: 93 % of the total intensity, largest intensity at 240 eV" in page.text
    assert "Component 1 is the strongest component nearly everywhere" in page.text


def test_pca_has_signed_maps_a_scree_plot_and_no_composite(tmp_path: Path, no_figures: None) -> None:
    path = report(pca_result(), tmp_path / "r")
    names = {file.name for file in path.parent.iterdir()}
    assert "scree.png" in names
    assert not names & {"composite.png", "objective.png", "composition.png"}
    page = Page(path)
    assert "fewer than two values of the objective" in page.text
    assert "% of the variance" in page.text
    assert "How many components?" in page.text


def test_leading_dims_are_shown_at_named_positions(tmp_path: Path, no_figures: None) -> None:
    page = Page(report(series_result(), tmp_path / "r"))
    assert "Shown: time = 0 s; time = 2.5 s; time = 5 s." in page.text
    assert "time 3 × y 60 × x 60" in page.text


def test_a_truth_is_matched_whatever_the_order(shown: Page) -> None:
    for pair in ("CaPv Component 3", "Brg Component 1", "Fp Component 2"):
        assert pair in shown.text
    assert "Spectral angles to the truth are" in shown.text


def test_composition_is_given_with_errors(shown: Page) -> None:
    found = hsi.quantify(eds_result()[0])
    for element in ("Mg", "O"):
        at = float(found["atomic_percent"].sel(element=element)[0])
        errors = [float(found[f"atomic_percent_{name}"].sel(element=element)[0]) for name in ("std", "k_std")]
        assert f"{element} Kα {' ± '.join(with_errors(at, *errors))}" in shown.text
    assert "Atomic per cent of O, Mg, Al, Si, Ca, Fe: the numbers of each column add up to 100." in shown.text
    assert "Cliff-Lorimer ratios with computed k-factors" in shown.text
    limit = float(found["atomic_percent_limit"].sel(element="Ca")[1])
    assert f'<span class="pale">{upper_limit(limit).replace("<", "&lt;")}' in shown.html


def test_composition_leaves_out_elements_without_a_line(tmp_path: Path, no_figures: None) -> None:
    page = Page(report(eds_result(12)[0].sel(energy=slice(1.0, None)), tmp_path / "cut"))
    assert "Left out because they have no line on the energy axis: O." in page.text


@pytest.mark.parametrize("attrs", [{"elements": []}, {"elements": ["Xx"]}, {"signal": "EELS"}])
def test_composition_needs_an_edx_map_with_elements(
    small: xr.Dataset, tmp_path: Path, no_figures: None, attrs: dict
) -> None:
    assert "composition" not in Page(report(small.assign_attrs(attrs), tmp_path / "r")).sections()


def test_composition_needs_intensity(small: xr.Dataset, tmp_path: Path, no_figures: None) -> None:
    empty = small.assign(endmembers=small["endmembers"] * 0)
    assert "composition" not in Page(report(empty, tmp_path / "r")).sections()


def test_provenance_is_complete(shown: Page) -> None:
    for words in (
        "hsi.open_result('result.zarr')",
        "hsi.open_cube('mantle.zarr')",
        "hsi.NMF(n_components=3, loss='frobenius', tol=0.0001, max_iter=300), seed=7)",
        "cropped energy 0.2:10.2",
        "(component 3, y 60, x 60)",
        "10 nm",
        "3 600 of 3 600",
        "2.4.6",
        "max_iter",
        "200.0 keV",
    ):
        assert words in shown.text, words


def test_settings_that_differ_come_first_and_all_are_in_a_fold(tmp_path: Path, no_figures: None) -> None:
    small = eds_result(8)[0]
    whole = hsi.NMF(3, loss="frobenius", tol=1e-4).to_settings()
    page = Page(report(small.assign_attrs(settings=json.dumps(whole)), tmp_path / "r"))
    changed = page.html[page.html.index("Settings of the model") : page.html.index("<details>")]
    assert "<td>tol</td><td>0.0001</td>" in changed
    assert "<td>n_components</td><td>3</td>" in changed
    assert "max_iter" not in changed
    fold = page.html[page.html.index("<details>") : page.html.index("</details>")]
    assert all(f"<td>{name}</td>" in fold for name in whole)


def test_arguments_that_the_result_cannot_use_are_refused(small: xr.Dataset, tmp_path: Path, no_figures: None) -> None:
    with pytest.raises(InputError, match=r"scan= belongs to the report of a ParallelGP, and this result is of NMF"):
        report(small, tmp_path / "r", scan=xr.Dataset())
    with pytest.raises(InputError, match="line='Fe Ka' is drawn from the cube"):
        report(small, tmp_path / "r", line="Fe Ka")
    assert not (tmp_path / "r").exists()
