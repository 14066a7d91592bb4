"""Objective, residual and eigenvalues as they are drawn, and refusals without them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scalehsi import plots
from scalehsi.plots.digest import digest
from scalehsi.schema import InputError
from tests.report.results import pca_result


def test_objective_is_logarithmic_only_over_decades(good: xr.Dataset) -> None:
    assert plots.objective(good).axes[0].get_yscale() == "log"
    slow = good.drop_vars("objective").assign(objective=("iteration", [3.0, 2.5, np.nan, 2.4]))
    axes = plots.objective(slow).axes[0]
    assert axes.get_yscale() == "linear"
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 2, 4])


def test_residual_of_poisson_counts_is_one_in_units_of_noise(good: xr.Dataset) -> None:
    view = digest(good)
    assert view.relative_residual is not None
    assert np.median(view.relative_residual) == pytest.approx(1.0, abs=0.05)
    figure = plots.residual(good)
    assert [axes.get_title(loc="left") for axes in figure.axes[:2]] == ["RMS residual", "RMS residual / counting noise"]
    spectrum = figure.axes[-1].lines[-1].get_ydata()
    np.testing.assert_allclose(spectrum, good.residual_spectrum)


def test_scree_marks_the_lowest_indicator() -> None:
    result = pca_result()
    figure = plots.scree(result)
    lowest = int(np.nanargmin(result.malinowski_ind[:125])) + 1
    assert lowest == 3
    assert [text.get_text() for text in figure.axes[1].texts] == ["kept", "lowest at 3"]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata()[:30], result.eigenvalues[:30])


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("objective", "this NMF result has no 'objective'"),
        ("residual", "this NMF result has no 'residual'"),
        ("scree", "this NMF result has no 'eigenvalues'; fit hsi.PCA"),
    ],
)
def test_missing_variables_are_reported_by_name(good: xr.Dataset, name: str, match: str) -> None:
    bare = good.drop_vars(["objective", "residual", "residual_spectrum"])
    with pytest.raises(InputError, match=match):
        getattr(plots, name)(bare)
