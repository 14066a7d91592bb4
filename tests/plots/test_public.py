"""The public figures: one map in one line, and figures in the axes of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from scalehsi import plots
from scalehsi.schema import InputError
from tests.plots.drawn import scale_bars
from tests.report.results import bin_scan, counts_of_truth, eds_result, pca_result, series_result

SEVERAL_PANELS: dict[str, Callable[[Any], Any]] = {
    "maps": lambda ax: plots.maps(eds_result(20)[0], ax=ax),
    "composite": lambda ax: plots.composite(eds_result(20)[0], ax=ax),
    "spectra": lambda ax: plots.spectra(eds_result(20)[0], ax=ax),
    "residual": lambda ax: plots.residual(eds_result(20)[0], ax=ax),
    "scree": lambda ax: plots.scree(pca_result(), ax=ax),
    "comparison": lambda ax: plots.comparison(*eds_result(20), ax=ax),
    "bins": lambda ax: plots.bins(bin_scan(), ax=ax),
    "denoised": lambda ax: plots.denoised(counts_of_truth(), {"NMF": eds_result()[0]}, "Ca Ka", ax=ax),
}
ONE_PANEL: dict[str, Callable[[Any], Any]] = {
    "map": lambda ax: plots.map(eds_result(20)[0], 2, ax=ax),
    "objective": lambda ax: plots.objective(eds_result(20)[0], ax=ax),
    "one spectrum": lambda ax: plots.spectra(eds_result(20)[0], components=[1], overview=False, ax=ax),
}


def axes_in(figure: Any) -> list[Any]:
    """All axes of a figure, also those of the figures in it."""
    inner = [axes for part in figure.subfigs for axes in axes_in(part)]
    return list(dict.fromkeys([*figure.axes, *inner]))


def two_axes() -> tuple[Figure, Any, Any]:
    figure = Figure(figsize=(12, 6), layout="constrained")
    return figure, *figure.subplots(1, 2)


@pytest.mark.parametrize("component", [1, 3, "Component 2"])
def test_the_map_of_a_component_has_the_orientation_of_the_report(component: int | str) -> None:
    result, _ = eds_result(20)
    figure = plots.map(result, component)
    axes = figure.axes[0]
    number = {1: 0, 3: 2}.get(component, 1)
    expected = result.abundances[number] * float(result.endmembers[number].sum())
    image = axes.images[0]
    np.testing.assert_allclose(np.asarray(image.get_array()), expected, rtol=1e-5)
    assert image.origin == "upper"
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert axes.get_title(loc="left") == f"Component {number + 1}"
    assert scale_bars(figure) == [(50.0, "50 nm")]
    assert figure.axes[1].get_ylabel() == "counts per pixel"


def test_the_map_of_a_series_is_that_of_its_first_position() -> None:
    figure = plots.map(series_result(), 2)
    assert len(figure.axes) == 2
    assert "time = 0 s" in figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize("component", [0, 4, -1, 1.0, "Quartz"])
def test_a_component_that_does_not_exist_is_refused(component: Any) -> None:
    with pytest.raises(InputError, match=r"there is no component .*; there are 3, counted from 1: Component 1,"):
        plots.map(eds_result(20)[0], component)


@pytest.mark.parametrize("name", ONE_PANEL)
def test_a_figure_of_one_panel_is_drawn_on_given_axes(name: str) -> None:
    figure, left, right = two_axes()
    assert ONE_PANEL[name](right) is figure
    assert right in figure.axes
    assert right.lines or right.images
    assert not left.lines
    assert not left.images
    figure.canvas.draw()


@pytest.mark.parametrize("name", SEVERAL_PANELS)
def test_the_panels_of_a_figure_take_the_place_of_given_axes(name: str) -> None:
    figure, left, right = two_axes()
    alone = SEVERAL_PANELS[name](None)
    place = right.get_subplotspec().get_position(figure)
    part = SEVERAL_PANELS[name](right)
    assert len(axes_in(part)) == len(axes_in(alone)) > 1
    assert right not in figure.axes
    assert left in figure.axes
    figure.canvas.draw()
    for axes in axes_in(part):
        box = axes.get_tightbbox().transformed(figure.transFigure.inverted())
        assert box.x0 > place.x0 - 0.08, axes.get_title(loc="left")


def test_axes_without_a_place_are_refused() -> None:
    axes = Figure().add_axes((0.1, 0.1, 0.8, 0.8))
    with pytest.raises(InputError, match=r"must come from plt\.subplots"):
        plots.maps(eds_result(20)[0], ax=axes)


def test_the_plot_of_xarray_has_no_empty_unit() -> None:
    import scalehsi as hsi

    cube, _ = hsi.simulate.phases((12, 12), n_channels=200, counts_per_pixel=300)
    result: xr.Dataset = hsi.fit(cube, hsi.NMF(2, max_iter=2))
    axes = Figure().subplots()
    result["abundances"].sel(component=1).plot(ax=axes)
    labels = [axes.get_xlabel(), axes.get_ylabel(), *(each.get_ylabel() for each in axes.figure.axes)]
    assert not any("[]" in label for label in labels)
    assert "x [nm]" in labels
