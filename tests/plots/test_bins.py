"""The figure of a bin-size scan."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scalehsi import plots
from scalehsi.schema import InputError
from tests.report.results import bin_scan


def test_bins_are_drawn_with_their_errors_and_the_choice(good: xr.Dataset) -> None:
    figure = plots.bins(bin_scan())
    left, right = figure.axes
    line, _, (bars,) = left.containers[0]
    np.testing.assert_allclose(line.get_xydata(), np.column_stack([bin_scan()["bin"], bin_scan()["score"]]))
    spans = np.array([segment[:, 1] for segment in bars.get_segments()])
    np.testing.assert_allclose(spans[:, 1] - spans[:, 0], 2 * bin_scan()["score_error"])
    np.testing.assert_allclose(right.lines[0].get_ydata(), bin_scan()["stability"])
    assert left.get_yscale() == "symlog"
    for axes in (left, right):
        chosen = next(patch for patch in axes.patches if patch.get_gid() == "chosen")
        assert chosen.get_x() < 8 < chosen.get_x() + chosen.get_width()
        assert [text.get_text() for text in axes.get_xticklabels()] == ["2", "4", "8", "12", "24"]
        assert axes.get_title(loc="left") == "used: 8 × 8 pixels"


def test_bins_of_a_result_are_those_of_its_scan(good: xr.Dataset) -> None:
    kept = {f"bin_{name}": values for name, values in bin_scan().data_vars.items()}
    figure = plots.bins(good.assign(kept).assign(bin_factor=("axis", [4, 4])))
    assert figure.axes[0].get_title(loc="left") == "used: 4 × 4 pixels"
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), bin_scan()["stability"])
    with pytest.raises(InputError, match=r"no scan of bins .* draw what hsi\.scan_bins\(cube\) gives"):
        plots.bins(good)
