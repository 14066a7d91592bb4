"""Compositions given as a mapping from element to atomic per cent."""

from __future__ import annotations

import pytest

from scalehsi.physics.composition import mass_fractions
from scalehsi.schema import InputError


def test_mass_fractions_do_not_depend_on_the_sum():
    once, twice = (
        mass_fractions({"Mg": 1, "O": 1}),
        mass_fractions({"Mg": 50, "O": 50, "Fe": 0}),
    )
    assert once == pytest.approx(twice)
    assert sum(once.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("composition", [{}, {"Mg": -1, "O": 2}, {"Mg": 0}])
def test_an_invalid_composition_is_refused(composition):
    with pytest.raises(InputError, match="at least one element and no negative share"):
        mass_fractions(composition)
