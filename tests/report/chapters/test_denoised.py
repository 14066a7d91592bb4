"""The chapter on denoising: numbers with a truth, advice without one, and the line that is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalehsi import metrics
from scalehsi.report.write import report
from scalehsi.schema import InputError
from tests.report.pages import Page
from tests.report.results import counts_of_truth, eds_result


def test_denoising_is_given_in_numbers_where_the_truth_is_known(tmp_path: Path, no_figures: None) -> None:
    result, truth = eds_result()
    page = Page(report(result, tmp_path / "r", truth=truth, cube=counts_of_truth(), line="Fe Ka"))
    table = metrics.denoise_report(counts_of_truth(), {"NMF": result}, truth=truth)
    assert table["window"].values.tolist() == ["O Ka", "Mg Ka", "Al Ka", "Si Ka", "Ca Ka", "Fe Ka"]
    for line, (raw, ours) in zip(("O Kα", "Mg Kα"), table["correlation"].values.T, strict=False):
        assert f"{line} {raw:.3f} {ours:.3f}" in page.text
    assert "Whole cube, error {:.1f} % {:.1f} %".format(*100 * table["cube_error"].values) in page.text
    assert "a window at Fe Kα (6.34 to 6.46 keV)" in page.text


def test_the_line_with_the_fewest_counts_is_the_default(tmp_path: Path, no_figures: None) -> None:
    result, _ = eds_result()
    page = Page(report(result, tmp_path / "r", cube=counts_of_truth()))
    windows = metrics.line_windows(counts_of_truth())
    sums = {name: float(result.mean_spectrum.sel(energy=slice(*ends)).sum()) for name, ends in windows.items()}
    assert min(sums, key=lambda name: sums[name]) == "Ca Ka"
    assert "a window at Ca Kα (3.63 to 3.75 keV)" in page.text
    assert "fit both halves of hsi.prepare.thin(cube)" in page.text


def test_a_cube_that_does_not_fit_is_refused(tmp_path: Path, no_figures: None) -> None:
    result, truth = eds_result()
    with pytest.raises(InputError, match="which map is to be drawn"):
        report(result, tmp_path / "r", cube=counts_of_truth().assign_attrs(elements=[]))
    with pytest.raises(InputError, match="the result 'NMF' has the sizes"):
        report(result, tmp_path / "r", cube=counts_of_truth().isel(y=slice(30)), truth=truth.isel(y=slice(30)))
    assert not (tmp_path / "r").exists()
