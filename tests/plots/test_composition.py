"""The figure of a quantification: what is measured, found and labelled."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi import plots
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
