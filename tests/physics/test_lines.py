"""Line energies and cross sections against tabulated numbers."""

from __future__ import annotations

import pytest

from scalehsi.physics import lines
from scalehsi.schema import InputError


@pytest.mark.parametrize(
    ("element", "family", "energy"),
    [
        ("O", "Ka", 0.525),
        ("Mg", "Ka", 1.254),
        ("Si", "Ka", 1.740),
        ("U", "Ma", 3.171),
        ("Ca", "Ka", 3.691),
        ("Ca", "Kb", 4.013),
        ("Nd", "La", 5.228),
        ("Sm", "La", 5.633),
        ("Fe", "Ka", 6.400),
        ("Cu", "Ka", 8.041),
        ("Pt", "La", 9.440),
        ("U", "La", 13.60),
        ("U", "Lb1", 17.22),
    ],
)
def test_line_energies_are_those_of_the_tables(element, family, energy):
    found = [line for line in lines.line_table([element]) if line.family == family]
    assert [line.name for line in found] == [f"{element} {family}"]
    assert found[0].energy_kev == pytest.approx(energy, abs=0.006)


def test_line_table_is_sorted_and_scaled_for_each_element():
    table = lines.line_table(["Fe", "Ca", "Fe"], energy_range=(0.5, 10.0), minimum=0.05)
    assert [line.energy_kev for line in table] == sorted(line.energy_kev for line in table)
    for element in ("Fe", "Ca"):
        assert max(line.intensity for line in table if line.element == element) == 1.0
    assert min(line.intensity for line in table) >= 0.05
    assert len({line.name for line in table}) == len(table)


def test_line_table_without_lines_in_range_is_empty():
    assert lines.line_table(["O"], energy_range=(5.0, 10.0)) == []


def test_an_unknown_element_is_refused_with_the_nearest_symbol():
    with pytest.raises(InputError, match="no element is called 'Mgg'; did you mean 'Mg'"):
        lines.line_table(["Mgg"])


# Distorted-wave cross sections at 200 keV (Bote et al. 2009, doi:10.1016/j.adt.2009.08.001), in barn.
@pytest.mark.parametrize(
    ("subshell", "edge", "barn"), [("K", 1.829, 1745.3), ("K", 7.112, 318.5), ("L3", 6.208, 774.9)]
)
def test_cross_sections_agree_with_distorted_waves(subshell, edge, barn):
    assert lines.ionisation_cross_section(subshell, edge, 200.0) * 1e24 == pytest.approx(barn, rel=0.06)


def test_a_beam_below_the_edge_ionises_nothing():
    assert lines.ionisation_cross_section("K", 43.57, 40.0) == 0.0
    assert not [line for line in lines.emission_lines("Nd", 40.0) if line.family.startswith("K")]


def test_symbols_run_from_boron_to_uranium():
    assert len(lines.symbols()) == 88
    assert (lines.symbols()[0], lines.symbols()[-1]) == ("B", "U")


def test_labels_have_greek_letters():
    found = {line.family: line for line in lines.line_table(["Nd"], energy_range=(0.5, 20.0))}
    assert (found["La"].label, found["Lb1"].label, found["Lb1"].shell) == ("Nd Lα", "Nd Lβ", "L")
