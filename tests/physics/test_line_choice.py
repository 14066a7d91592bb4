"""The choice of a line for each element."""

from __future__ import annotations

import pytest

from scalehsi.physics.line_choice import choose_line, choose_lines, main_lines, window_kev
from scalehsi.physics.lines import line_table, symbols
from scalehsi.schema import InputError

WIDE = (0.2, 20.0)


def chosen(elements: str, energy_range=WIDE, **options) -> list[str]:
    return [peak.name for peak in choose_lines(elements.split(), energy_range=energy_range, **options)]


def test_minerals_get_the_lines_of_the_paper():
    names = chosen("Mg Si Al Ca Fe Nd Sm U O Cu")
    assert names == "Mg Ka,Si Ka,Al Ka,Ca Ka,Fe Ka,Nd La,Sm La,U Ma,O Ka,Cu Ka".split(",")


@pytest.mark.parametrize(
    ("elements", "energy_range", "expected"),
    [
        ("Fe Pt", (0.16, 20), ["Fe Ka", "Pt La"]),  # not Pt Ma, whose cross sections are worse known
        ("Au", (0.1, 9.0), ["Au Ma"]),  # La at 9.7 keV is off this axis
        ("Mo", WIDE, ["Mo La"]),
        ("Mo S", WIDE, ["Mo Ka", "S Ka"]),  # Mo La and S Ka are 14 eV apart
        ("Ga As", WIDE, ["Ga Ka", "As Ka"]),
        ("Cu", (0.2, 6.0), ["Cu La"]),
    ],
)
def test_lines_depend_on_the_axis_and_on_the_other_elements(elements, energy_range, expected):
    assert chosen(elements, energy_range) == expected


def test_lines_of_other_elements_count_as_overlap():
    assert chosen("Mo", others=["S"]) == ["Mo Ka"]


@pytest.mark.parametrize(
    "lines", [["Fe_La", "Pt_Ma"], ["Fe Lα", "Pt-MA"], {"Fe": "La", "Pt": "Ma"}, {"Fe": "Fe_La", "Pt": "Ma"}]
)
def test_the_user_can_choose(lines):
    assert chosen("Fe Pt", lines=lines) == ["Fe La", "Pt Ma"]


def test_a_beam_below_an_edge_excites_no_line():
    assert chosen("Cu", beam_kev=5.0) == ["Cu La"]


@pytest.mark.parametrize(
    ("elements", "options", "words"),
    [
        (["Xx"], {}, "no element is called 'Xx'; did you mean"),
        (
            ["H"],
            {},
            r"H has no main line on the energy axis of 0.200 to 20.000 keV \(it has none at all\); leave H out",
        ),
        (["O"], {"energy_range": (0.8, 20)}, r"O has no main line .* \(Ka at 0.525 keV\); leave O out"),
        (["Fe"], {"lines": ["Fe_Kz"]}, "Fe has no line 'Kz'; did you mean 'Kb'. Known: Ka, Kb, La"),
        (["Pt"], {"lines": ["Pt_La"], "energy_range": (0.2, 9)}, "Pt La lies at 9.43. keV, outside the energy axis"),
        (["Fe"], {"lines": ["Pt_La"]}, "the line Pt La belongs to none of the elements"),
        (["Fe"], {"lines": ["Fe"]}, "lines has 'Fe' without a family; type something like 'Fe_Ka'"),
    ],
)
def test_impossible_choices_are_refused_in_one_line(elements, options, words):
    with pytest.raises(InputError, match=words) as error:
        choose_lines(elements, **{"energy_range": WIDE, **options})
    assert "\n" not in str(error.value)


def test_windows():
    low, high = window_kev(6.4)
    assert high - low == pytest.approx(1.2 * (0.01 * 6.4 + 0.065))


@pytest.mark.parametrize(
    ("element", "energy_range", "quantify", "show"),
    [
        ("Fe", WIDE, "Ka", "Ka"),
        ("W", WIDE, "Ma", "La"),  # most counts; fewest neighbours
        ("As", WIDE, "Ka", "La"),  # a map stays below 10 keV
        ("V", (0.2, 5.0), "La", "Ka"),  # half of the window of V Ka is off this axis
        ("Nd", (0.2, 5.0), "Mz", None),  # too faint for a map
        ("O", (3.0, 20.0), None, None),
    ],
)
def test_the_two_purposes(element, energy_range, quantify, show):
    found = [choose_line(element, energy_range, purpose) for purpose in ("quantify", "show")]
    assert [line and line.family for line in found] == [quantify, show]


@pytest.mark.parametrize("beam_kev", [15.0, 200.0])
def test_main_lines_are_the_strongest_of_their_shell(beam_kev):
    for element in symbols():
        table = line_table([element], energy_range=(0.05, 120.0), beam_kev=beam_kev, minimum=1e-4)
        for line in main_lines(table):
            assert line.intensity == max(other.intensity for other in table if other.shell == line.shell)
