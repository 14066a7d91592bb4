"""Spectra: labels at their energies, and intensities in counts of the map."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from scalehsi import plots
from scalehsi.plots.digest import digest
from scalehsi.plots.line_marks import component_marks, strongest
from scalehsi.schema import InputError
from tests.plots.drawn import names_at
from tests.report.results import LINES, eels_result


def test_lines_are_labelled_at_their_energies_where_there_is_a_peak(good: xr.Dataset) -> None:
    panels = plots.spectra(good).axes[1:]
    expected = [
        {"O Kα", "Mg Kα", "Al Kα", "Si Kα", "Fe Kα"},
        {"O Kα", "Mg Kα", "Fe Kα", "Fe Kβ"},
        {"O Kα", "Si Kα", "Ca Kα", "Ca Kβ", "Fe Kα"},
    ]
    for axes, names in zip(panels, expected, strict=True):
        assert set(names_at(axes)) == names
        for name, energy in names_at(axes).items():
            assert energy == pytest.approx(LINES[name.replace("α", "a").replace("β", "b")], abs=0.006)
        assert axes.get_yscale() == "log"


def test_an_absent_element_gets_no_label_and_a_foreign_peak_a_question_mark(good: xr.Dataset) -> None:
    asked = good.assign_attrs(elements=["O", "Mg", "Si", "Fe", "Ti", "Pt"])
    names = names_at(plots.spectra(asked, components=[0], overview=False).axes[0])
    assert set(names) == {"O Kα", "Mg Kα", "Al Kα?", "Si Kα", "Fe Kα"}
    copper = good.copy(deep=True)
    energy = good.energy.values
    for line, height in (("Cu Ka", 0.02), ("Cu Kb", 0.0028)):
        copper["endmembers"][1] += height * 0.15 * np.exp(-0.5 * ((energy - LINES[line]) / 0.066) ** 2)
    names = names_at(plots.spectra(copper, components=[1], overview=False).axes[0])
    assert {"Cu Kα?", "Cu Kβ?"} <= set(names)
    assert names["Cu Kα?"] == pytest.approx(8.041, abs=0.01)


def test_energies_in_ev_are_labelled_alike(good: xr.Dataset) -> None:
    in_ev = good.assign_coords(energy=("energy", 1000 * good.energy.values, {"units": "eV"}))
    names = names_at(plots.spectra(in_ev, components=[2], overview=False).axes[0])
    assert names["Ca Kα"] == pytest.approx(3691, abs=6)


def test_edges_are_marked_and_those_with_a_rise_are_distinguished() -> None:
    result = eels_result()
    panels = plots.spectra(result).axes[1:]
    for axes in panels:
        assert names_at(axes) == pytest.approx({"C K": 283.8, "Ca L3": 346.4, "Ca L2": 350.0, "O K": 532.0}, abs=0.1)
        assert axes.get_yscale() == "linear"
    shown = [strongest(row) for row in component_marks(digest(result))]
    assert shown == [[], ["C K"], ["Ca L3"], ["O K"]]


def test_spectra_are_scaled_to_the_counts_of_the_map(good: xr.Dataset) -> None:
    axes = plots.spectra(good, components=[1], overview=False, scale="linear").axes[0]
    expected = good.endmembers[1] * float(good.abundances[1].sum())
    np.testing.assert_allclose(axes.lines[0].get_ydata(), expected, rtol=1e-5)
    assert axes.get_yscale() == "linear"
    assert axes.get_xlim() == (pytest.approx(0.2), pytest.approx(10.19))
    assert axes.get_xlabel() == "Energy (keV)"


def test_wrong_choices_are_refused(good: xr.Dataset) -> None:
    with pytest.raises(InputError, match="scale 'logg' is not known; did you mean 'log'"):
        plots.spectra(good, scale="logg")
    with pytest.raises(InputError, match="there is no component 3: there are 3, counted from 0"):
        plots.spectra(good, components=[3])
