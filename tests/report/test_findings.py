"""Sentences on a result: they say what the fit recorded, and judge nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scalehsi.plots.digest import digest
from scalehsi.report.findings import masked_pixels, status_box, warning_boxes
from scalehsi.report.write import report
from scalehsi.result import ResultWarning, warnings_text
from tests.report.pages import Page
from tests.report.results import eds_result, masked_result

DRIFT = ResultWarning("drift", "Spectra shift by at least 0.6 eV over the map.", "scalehsi prepare a b --step align")
TURNING = ResultWarning("still_turning", "Spectra still turn by 0.4 degrees in 5 iterations.")


@pytest.mark.parametrize("status", ["converged", "max_iter", "nonfinite"])
@pytest.mark.parametrize("found", [[], [DRIFT], [DRIFT, TURNING]])
def test_only_a_converged_fit_without_warnings_is_green(status: str, found: list[ResultWarning]) -> None:
    result = eds_result(20)[0].assign_attrs(status=status, warnings=warnings_text(found))
    box = status_box(digest(result))
    assert (box.level == "good") == (status == "converged" and not found)
    boxes = warning_boxes(digest(result))
    assert [(box.level, box.lead, box.text, box.remedy) for box in boxes] == [
        ("warning", f"{each.code}:", each.text, each.remedy) for each in found
    ]


def test_the_status_counts_the_warnings() -> None:
    leads = [
        status_box(digest(eds_result(20)[0].assign_attrs(warnings=warnings_text([DRIFT] * count)))).lead
        for count in range(3)
    ]
    assert leads == ["Converged.", "Converged, with a warning.", "Converged, with 2 warnings."]


def test_a_result_of_a_version_that_did_not_look_is_not_green() -> None:
    old = eds_result(20)[0]
    del old.attrs["warnings"]
    box = status_box(digest(old))
    assert box.level == "note"
    assert "did not look for faults" in box.text
    assert warning_boxes(digest(old)) == []


def test_the_page_shows_each_warning_with_what_to_paste(tmp_path: Path, no_figures: None) -> None:
    odd = DRIFT._replace(text="Spectra <shift>.")
    result = eds_result(20)[0].assign_attrs(warnings=warnings_text([odd, TURNING]))
    page = Page(report(result, tmp_path / "r"))
    assert "⚠ Converged, with 2 warnings." in page.text
    assert f"⚠ drift: Spectra <shift>. Try {DRIFT.remedy} ⚠ still_turning: {TURNING.text}" in page.text
    assert "✓" not in page.text
    assert f"<code>{DRIFT.remedy}</code>" in page.html


def test_the_report_judges_nothing_itself(tmp_path: Path, no_figures: None) -> None:
    """Equal spectra, an empty component, structure in residuals and few counts: the fit says so, or nobody."""
    result, _ = eds_result(counts=12.0)
    twin = result.copy(deep=True)
    twin["endmembers"][2] = twin["endmembers"][0]
    twin["abundances"][1] *= 1e-4
    twin["residual"][:20, :20] *= 5
    twin["residual_spectrum"][:] += 0.1 * twin["mean_spectrum"]
    twin.attrs["elements"] = []  # the composition has warnings of its own
    page = Page(report(twin, tmp_path / "r"))
    assert "✓ Converged." in page.text
    assert "⚠" not in page.text


def test_masked_pixels_are_a_note_and_do_not_count() -> None:
    result = masked_result()
    used = int(result.mask.sum())
    (box,) = masked_pixels(digest(result))
    assert box.level == "note"
    assert box.text == (
        f"{100 * (1 - used / 3600):.0f} % of the pixels are masked. They were not used, and are grey in the maps."
    )
    view = digest(result)
    assert (view.pixels_used, view.pixels_total) == (used, 3600)
    inside = result.abundances.where(result.mask).sum(["y", "x"]) * result.endmembers.sum("energy")
    np.testing.assert_allclose(view.shares, inside / inside.sum(), rtol=1e-5)
    assert masked_pixels(digest(eds_result()[0])) == []


def test_maps_below_zero_do_not_turn_spectra_into_directions() -> None:
    """Least squares and Gaussian processes give such maps of positive spectra."""
    result, _ = eds_result(20)
    below = result.assign(abundances=result.abundances - 5.0)
    assert not digest(below).signed
    assert digest(below).names == digest(result).names
    assert digest(below.assign(endmembers=below.endmembers - 1e-3)).signed
    assert digest(below.assign(explained_variance_ratio=("rank", [0.6, 0.3, 0.1]))).signed


@pytest.mark.parametrize("upsample", [1, 2, [2, 3]])
def test_an_upsampled_map_has_the_counts_of_its_pixels(upsample: int | list[int]) -> None:
    result, _ = eds_result(20)
    rows, columns = np.broadcast_to(upsample, 2)
    fine = result.drop_vars("residual").isel(y=np.repeat(np.arange(20), rows), x=np.repeat(np.arange(20), columns))
    fine = fine.assign_attrs(settings=json.dumps({"upsample": upsample}))
    np.testing.assert_allclose(digest(fine).totals, digest(result).totals, rtol=1e-5)
    np.testing.assert_allclose(digest(fine).shares, digest(result).shares, rtol=1e-5)
