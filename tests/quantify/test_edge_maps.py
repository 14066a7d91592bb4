"""Maps of edges and lines: net counts with true errors, proposed windows, and what is refused."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

import scalehsi as hsi
from scalehsi.cube import make_cube
from scalehsi.prepare.edge_windows import extrapolation_noise, propose_windows
from scalehsi.schema import InputError
from tests.helpers import random_mask
from tests.prepare.eels import ENERGY, edge_cube, law

FIT, SIGNAL = (440, 525), (532, 590)
GAINS: dict[str, Any] = {"gain": 1.0, "window_gain": 1.0}


@pytest.mark.parametrize("counts", [3.0, 200.0])
@pytest.mark.parametrize("share", [1, 5])
def test_net_counts_lie_within_their_errors(counts: float, share: int) -> None:
    x = np.random.default_rng(1).poisson(np.broadcast_to(law(3.0, counts), (50, 50, 300))).astype("u2")
    found = hsi.quantify.edge_maps(
        make_cube(x, energy=ENERGY, energy_units="eV"), {"O K": SIGNAL}, background=FIT, share=share, **GAINS
    )
    pull = (found["net"] / found["net_std"]).values
    assert abs(pull.std() - 1) < 0.05
    assert abs((abs(pull) < 2).mean() - 0.954) < 0.02


def test_the_net_counts_of_a_cube_without_background_are_those_of_the_step_and_one_reading_serves_all() -> None:
    cube = edge_cube(mask=random_mask((16, 12)))
    edges = {"O K": SIGNAL, "behind": (600, 650)}
    found = hsi.quantify.edge_maps(cube, edges, background={"O K": FIT, "behind": (440, 520)}, **GAINS)
    net = hsi.prepare.remove_background(cube, FIT, **GAINS)
    want = net.sel(energy=slice(*SIGNAL)).sum("energy").where(cube.mask)
    assert_allclose(found["net"].sel(edge="O K").values, want.values, rtol=1e-4, atol=1e-2)
    assert found["net"].dims == ("edge", "y", "x")
    assert found["fit_window"].values.tolist() == [[440, 525], [440, 520]]
    lazy = hsi.quantify.edge_maps(
        cube.chunk({"y": 5, "x": 7}), edges, background={"O K": FIT, "behind": (440, 520)}, **GAINS
    )
    xr.testing.assert_identical(lazy, found)


def test_elements_alone_are_enough() -> None:
    cube = edge_cube(gain=3.0)
    found = hsi.quantify.edge_maps(cube)
    assert found["edge"].values.tolist() == ["O K"]
    assert_allclose(found["fit_window"].values[0], [426, 526])
    assert 2.5 < found.attrs["gain"] < 3.5
    means = found["net"].values[0].mean(axis=0)
    assert means[6:].min() > 1000 > 200 > abs(means[:6]).max()
    assert found.attrs["history"].splitlines()[-1].startswith("edge_maps(O K; share=5, gain=")
    named = hsi.quantify.edge_maps(cube.assign_attrs(elements=""), ["O K"])
    assert_allclose(named["net"].values, found["net"].values)


def test_an_element_stands_for_its_edges() -> None:
    cube = edge_cube().assign_attrs(elements="")
    named = hsi.quantify.edge_maps(cube, elements=["O"])
    assert_allclose(hsi.quantify.edge_maps(cube, ["O"])["net"].values, named["net"].values)
    found = hsi.quantify.edge_maps(cube, ["O"], background={"O": (420, 520)})
    assert found["edge"].values.tolist() == ["O K"]
    assert_allclose(found["fit_window"].values[0], [420, 520])
    with pytest.raises(InputError, match="no element is called 'Zz'"):
        hsi.quantify.edge_maps(cube, ["Zz"])


def test_white_lines_are_a_ratio_with_an_error_where_they_are_seen() -> None:
    energy = 500.0 + np.arange(400.0)
    mean = 1e4 * (energy / 500) ** -3 + 100 * (energy > 640.3)
    mean = mean + 3000 * np.exp(-(((energy - 644) / 2) ** 2)) + 1000 * np.exp(-(((energy - 655) / 2) ** 2))
    x = np.random.default_rng(0).poisson(np.broadcast_to(mean, (8, 8, 400))).astype("u4")
    cube = make_cube(x, energy=energy, energy_units="eV")
    lines = {"Mn L3": ((640.5, 649), (650, 662))}
    found = hsi.quantify.edge_maps(cube, {"Mn L3": (640, 700)}, background=(540, 630), white_lines=lines, **GAINS)
    ratio, error = found["white_line_ratio"], found["white_line_ratio_std"]
    assert abs(float(ratio.mean()) - 3) < 0.4
    assert 0.5 < float(ratio.std()) / float(error.mean()) < 2
    empty = cube.copy(data=np.random.default_rng(0).poisson(1e4 * (energy / 500) ** -3, x.shape).astype("u4"))
    none = hsi.quantify.edge_maps(empty, {"Mn L3": (640, 700)}, background=(540, 630), white_lines=lines, **GAINS)
    assert np.isnan(none["white_line_ratio"]).mean() > 0.9


def _axis(first: float, step: float, channels: int) -> xr.DataArray:
    energy = first + step * np.arange(channels)
    return make_cube(np.ones((1, 1, channels), "u2"), energy=energy, energy_units="eV")


@pytest.mark.parametrize(
    ("axis", "elements", "good", "refused"),
    [
        ((700, 8, 162), "Cu Zn", ["Cu L3"], {"Zn L3": "Zn L3: only 22 eV between Cu and Zn"}),
        ((90, 0.5, 1024), "B C N", ["B K", "C K", "N K"], {}),
        ((380, 0.3, 1024), "Ti O", ["Ti L3"], {"O K": "O K: only 21 eV between Ti and O"}),
        (
            (440, 0.3, 2048),
            "O Mn Co Ni",
            ["O K", "Co L3"],
            {"Mn L3": "Mn L3: only 51 eV between O and Mn", "Ni L3": "Ni L3: only 17 eV between Co and Ni"},
        ),
        ((174.9, 0.5168, 1337), "C Ca O", ["C K", "O K"], {"Ca L3": "Ca L3: only 7 eV between C and Ca"}),
    ],
)
def test_windows_are_proposed_where_they_are_good(
    axis: tuple[float, float, int], elements: str, good: list[str], refused: dict[str, str]
) -> None:
    found = propose_windows(_axis(*axis), elements.split())
    assert [name for name, one in found.items() if not one.refusal] == good
    assert {name: one.refusal.split(";")[0] for name, one in found.items() if one.refusal} == refused


def test_the_noise_of_an_extrapolation_falls_with_the_length_of_the_window() -> None:
    signal = np.arange(1000.0, 1100.0)
    noise = [extrapolation_noise(np.arange(1000 - 1000 * share, 990.0), signal) for share in (0.1, 0.2, 0.3)]
    assert_allclose(noise, [3.6, 1.9, 1.5], atol=0.15)


@pytest.mark.parametrize(
    ("edges", "options", "message"),
    [
        (
            {"O K": (520, 590)},
            {"background": (440, 525)},
            "edge_maps: the fit window of 'O K' ends at 525, behind the signal's begin 520",
        ),
        ({"O K": (900, 950)}, {"background": FIT}, "edge_maps: 'O K'=900:950 is outside the axis"),
        ({"O K": SIGNAL}, {"background": (440, 445)}, "background=440:445 holds 6 channels; 10 at least"),
        ({"thing": SIGNAL}, {}, "no element is called 'thing'"),
        (None, {"elements": ["Cu"]}, "no edge of Cu lies from 400 to 699 eV"),
        ({"O K": SIGNAL}, {"background": FIT, "white_lines": {"Mn L3": 1}}, "white_lines names 'Mn L3'"),
    ],
)
def test_wrong_windows_say_what_to_type(edges: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        hsi.quantify.edge_maps(edge_cube(), edges, **options)


def test_edges_without_good_windows_are_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    energy = 700.0 + 8 * np.arange(162)
    x = np.random.default_rng(0).poisson(1e5 * (energy / 700) ** -3, (8, 8, 162)).astype("u4")
    cube = make_cube(x, energy=energy, energy_units="eV", attrs={"elements": ["Cu", "Zn"]})
    with caplog.at_level(logging.WARNING, "scalehsi"):
        assert hsi.quantify.edge_maps(cube)["edge"].values.tolist() == ["Cu L3"]
    assert "edge_maps: Zn L3: only 22 eV between Cu and Zn; fit them together (BackgroundNMF) or unmix" in caplog.text
    with pytest.raises(InputError, match="edge_maps: Zn L3: only 22 eV"):
        hsi.quantify.edge_maps(cube, ["Zn L3"])
    with pytest.raises(InputError, match="which edges"):
        hsi.quantify.edge_maps(cube.assign_attrs(elements=""))


def _edx(counts: float, seed: int = 0) -> xr.DataArray:
    """Fe Ka on a falling continuum."""
    energy = 0.2 + 0.02 * np.arange(600)
    peak = np.exp(-0.5 * ((energy - 6.40) / (0.129 / 2.3548)) ** 2)
    mean = counts * (0.05 * np.exp(-energy / 5) + peak / peak.sum())
    x = np.random.default_rng(seed).poisson(np.broadcast_to(mean, (60, 60, 600))).astype("u2")
    return make_cube(x, energy=energy, energy_units="keV", signal="EDS", attrs={"elements": ["Fe"]})


@pytest.mark.parametrize("counts", [5.0, 50.0])
def test_lines_lose_their_continuum_and_have_errors(counts: float) -> None:
    found = hsi.quantify.edge_maps(_edx(counts), ["Fe Ka"])
    net, std = found["net"].values[0], found["net_std"].values[0]
    assert abs(net.mean() / counts - 0.98) < 0.03
    assert abs(net.std() / std.mean() - 1) < 0.05
    low, high = (found[k].values[0] for k in ("low_window", "high_window"))
    assert low[1] < 6.4 < high[0]
    assert high[0] > 7.06 or high[1] < 7.06 - 0.1, "Fe Kb is avoided"


def test_lines_take_no_windows_and_need_room() -> None:
    cube = _edx(5.0)
    with pytest.raises(InputError, match="X-ray lines have windows of their own"):
        hsi.quantify.edge_maps(cube, {"Fe Ka": (6.2, 6.6)})
    with pytest.raises(InputError, match="which lines"):
        hsi.quantify.edge_maps(cube.assign_attrs(elements=""))
    with pytest.raises(InputError, match="has no room for its low side window; use hsi"):
        hsi.quantify.edge_maps(cube.sel(energy=slice(6.15, 12)), ["Fe Ka"])
