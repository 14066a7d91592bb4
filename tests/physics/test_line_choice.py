"""The choice of a line for each element."""

from __future__ import annotations

import pytest

from scalehsi.physics.line_choice import choose_peaks, split_name, window_kev
from scalehsi.schema import InputError

WIDE = (0.2, 20.0)


def chosen(elements: str, energy_range=WIDE, **options) -> list[str]:
    return [peak.name for peak in choose_peaks(elements.split(), energy_range=energy_range, **options)]


def test_the_minerals_get_the_lines_that_the_paper_took():
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


def test_what_is_beside_covers_lines_too():
    assert chosen("Mo", beside=["S"]) == ["Mo Ka"]


@pytest.mark.parametrize(
    "lines", [["Fe_La", "Pt_Ma"], ["Fe Lα", "Pt-MA"], {"Fe": "La", "Pt": "Ma"}, {"Fe": "Fe_La", "Pt": "Ma"}]
)
def test_the_user_overrides_the_choice(lines):
    assert chosen("Fe Pt", lines=lines) == ["Fe La", "Pt Ma"]


def test_a_beam_below_an_edge_excites_nothing():
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
        (["Fe"], {"lines": ["Pt_La"]}, "the line Pt La is of no element that is asked for"),
        (["Fe"], {"lines": ["Fe"]}, "lines has 'Fe' without a family; type something like 'Fe_Ka'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(elements, options, words):
    with pytest.raises(InputError, match=words) as error:
        choose_peaks(elements, **{"energy_range": WIDE, **options})
    assert "\n" not in str(error.value)


def test_names_and_windows():
    assert split_name(" Nd_La ") == ("Nd", "La")
    low, high = window_kev(6.4)
    assert high - low == pytest.approx(1.2 * (0.01 * 6.4 + 0.065))
