"""Templates of the shells of elements on an energy axis."""

from __future__ import annotations

import numpy as np

from scalehsi.physics.line_choice import choose_lines
from scalehsi.physics.line_templates import Foil, make_templates

ENERGY = np.linspace(0.2, 20.0, 1980)


def templates_of(*elements, **options):
    return make_templates(choose_lines(elements, energy_range=(0.2, 20.0)), ENERGY, **options)


def test_shells_below_the_fitted_range_are_omitted():
    assert ("Ca", "L") not in templates_of("O", "Ca").shells
    assert ("Ca", "L") in templates_of("C", "Ca").shells


def test_absorption_lowers_the_soft_lines_most():
    templates = templates_of("O", "Fe", foil=Foil(200.0, 300.0, 4.5, 35.0))
    ratio = templates.columns({"O": 60, "Fe": 40}).yields / templates.columns().yields
    assert 0.5 < ratio[0] < 0.97 < ratio[1] < 1
