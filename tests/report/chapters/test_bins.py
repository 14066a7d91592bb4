"""The chapter on bin sizes: the choice in words, and no chapter without a scan."""

from __future__ import annotations

import xarray as xr

from scalehsi.plots.digest import digest
from scalehsi.report.chapters import Context, bins
from tests.report.results import with_bin_scan


def words(result: xr.Dataset) -> str:
    found = bins.chapter(digest(result), Context(result, []))
    return found.parts[0].text


def test_the_choice_of_bins_is_given_in_words(small: xr.Dataset) -> None:
    sizes = "Of bins with sides of 2, 4, 8, 12, 24 pixels, 8 predicted best"
    other = words(with_bin_scan(small, used=4, refined=2))
    assert f"{sizes}. 4 was used, the middle of the sizes" in other
    assert "refined on bins of 2 × 2 pixels" in other
    best = words(with_bin_scan(small, used=8, refined=1))
    assert f"{sizes} and was used." in best
    assert "refined on single pixels" in best


def test_given_bins_have_no_chapter(small: xr.Dataset) -> None:
    given = small.assign(bin_factor=("axis", [8, 8]))
    assert bins.chapter(digest(given), Context(given, [])) is None
