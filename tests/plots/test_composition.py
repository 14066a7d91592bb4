"""The figure of a quantification: what is measured, found and labelled."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi import plots
from scalehsi.plots.composition import number_columns, upper_limit
from scalehsi.plots.digest import digest
from scalehsi.plots.element_maps import draw_element_maps, element_maps
from scalehsi.schema import InputError


def test_composition_draws_the_fit_and_labels_measured_lines(good: xr.Dataset) -> None:
    found = hsi.quantify(good)
    figure = plots.composition(found, which=[0, 2])
    assert len(figure.subfigs) == 2
    top, bottom = figure.subfigs[0].axes
    names = {text.get_text(): text.get_fontweight() for text in top.texts}
    for line in ("O Kα", "Mg Kα", "Si Kα"):
        assert names[line] == "bold"
    assert names["Component 1"] == "bold"
    data = next(line for line in top.lines if line.get_label() == "data")
    np.testing.assert_array_equal(data.get_ydata(), found["spectrum"][0])
    one = found.isel(component=0)
    np.testing.assert_allclose(bottom.lines[-1].get_ydata(), (one["spectrum"] - one["model"]) / np.sqrt(one["model"]))
    assert top.get_yscale() == "log"


def test_an_element_that_is_not_found_is_not_set_in_bold(good: xr.Dataset) -> None:
    found = hsi.quantify(good, ["O", "Mg", "Al", "Si", "Ca", "Fe", "Ti"])
    (top, _) = plots.composition(found, which=[0]).subfigs[0].axes
    weights = {text.get_text(): text.get_fontweight() for text in top.texts}
    assert (weights["Ti Kα"], weights["Mg Kα"]) == ("normal", "bold")


def test_composition_needs_spectra(good: xr.Dataset) -> None:
    with pytest.raises(InputError, match=r"this Dataset has no 'spectrum'; give what hsi.quantify"):
        plots.composition(hsi.quantify(good, maps=True))
    with pytest.raises(InputError, match="there is no spectrum 7: there are 3, counted from 0"):
        plots.composition(hsi.quantify(good), which=[7])


def test_maps_of_elements_are_the_net_counts_of_found_lines(good: xr.Dataset) -> None:
    named = good.assign_attrs(elements=["O", "Mg", "Al", "Si", "Ca", "Fe", "Hf"])
    found, view = hsi.quantify(named), digest(named)
    maps = element_maps(view, found)
    assert list(maps) == ["O Ka", "Mg Ka", "Al Ka", "Si Ka", "Ca Ka", "Fe Ka"]
    for position, values in enumerate(maps.values()):
        assert values.sum() == pytest.approx(float(found["intensity"][:, position].sum()), rel=1e-3)
    figure = draw_element_maps(view, found)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert titles == ["O Kα", "Mg Kα", "Al Kα", "Si Kα", "Ca Kα", "Fe Kα"]


def test_numbers_have_the_digits_of_the_larger_error(good: xr.Dataset) -> None:
    one = hsi.quantify(good).isel(component=0)
    value, counting, factors = number_columns(one)[1]
    assert len(value.split(".")[1]) == len(factors.split(".")[1]) < len(counting.split(".")[1])
    assert number_columns(one)[4] == (upper_limit(float(one["atomic_percent_limit"][4])), "", "")
