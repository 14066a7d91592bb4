"""Simulated EELS and EDX of one region: the same for any chunks, and options that do what they say."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.simulate import KINDS


def fractions(maps: Any) -> np.ndarray:
    return np.asarray((maps / maps.sum("component")).values)


def test_chunks_do_not_change_the_data_and_counts_are_those_asked_for() -> None:
    scene = hsi.simulate.coupled((24, 20), seed=3)
    again: Any = KINDS["coupled"](**{**json.loads(scene.truth.attrs["settings"]), "chunk": (7, 9)})
    for name, counts in (("eels", 2e4), ("edx", 50.0)):
        cube = scene.cubes[name].compute()
        np.testing.assert_array_equal(cube, again.cubes[name])
        assert float(cube.sum("energy").mean()) == pytest.approx(counts, rel=0.03)
    assert float(scene.cubes["eels"].min()) < 0
    other = hsi.simulate.coupled((24, 20), seed=4)
    assert float(abs(other.truth["abundances"] - scene.truth["abundances"]).mean()) > 0.1


def test_shifts_ratios_deviations_and_missing_pixels() -> None:
    plain = hsi.simulate.coupled((16, 16)).truth
    moved = hsi.simulate.coupled((16, 16), shift=(2, -1)).truth
    np.testing.assert_allclose(
        fractions(moved["abundances"])[:, :-2, 1:], fractions(plain["abundances"])[:, 2:, :-1], atol=1e-6
    )
    np.testing.assert_array_equal(moved["abundances_eels"], plain["abundances_eels"])
    fine = hsi.simulate.coupled((6, 5), ratio=2)
    assert fine.cubes["eels"].shape == (12, 10, 125)
    whole = fine.truth["abundances_eels"].values.reshape(3, 6, 2, 5, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(whole, fine.truth["abundances"], rtol=1e-5)
    np.testing.assert_allclose(fine.cubes["eels"]["y"].values[:2].mean(), float(fine.cubes["edx"]["y"][0]))
    apart = hsi.simulate.coupled((16, 16), deviation=0.3).truth
    assert float(abs(apart["abundances_eels"] - apart["abundances"]).mean()) > 0.02
    mask = hsi.simulate.coupled((40, 40), missing=0.3).cubes["edx"]["mask"]
    assert float(mask.mean()) == pytest.approx(0.7, abs=0.04)


def test_a_tilt_series_has_two_sites_of_less_contrast_in_eels() -> None:
    series = hsi.simulate.coupled(tilts=21)
    assert series.cubes["edx"].dims == ("tilt", "y", "x", "energy")
    c, a = (series.truth[name].values.reshape(2, 21) for name in ("abundances", "abundances_eels"))
    np.testing.assert_allclose(a - 0.5, 0.6 * (c - 0.5), atol=1e-6)
    assert c.min() > 0.3
    nickel = series.truth["endmembers"].sel(energy=slice(7.4, 7.55)).max("energy")
    assert float(nickel[0]) > 20 * float(nickel[1])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"shift": 1}, "shift is two numbers along y and x"),
        ({"missing": 1.0}, "missing must be a number from 0 to 0.99"),
        ({"tilts": 9, "ratio": 2}, "a tilt series has no deviation, shift, ratio or missing pixels"),
    ],
)
def test_refusals(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(hsi.InputError, match=match):
        hsi.simulate.coupled((8, 8), **settings)
