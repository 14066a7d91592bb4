"""What `scalehsi info` says of noise, zero loss and edges."""

from __future__ import annotations

import numpy as np
import pytest

import scalehsi as hsi
from scalehsi.cli.signal_rows import signal_of, signal_rows
from scalehsi.cube import make_cube
from tests.prepare.eels import edge_cube

pytestmark = pytest.mark.long


def test_noise_and_edges_are_told_in_words_and_numbers(answer, run, tmp_path):
    hsi.save(edge_cube(gain=3.0), tmp_path / "m.zarr")
    found = answer("info", tmp_path / "m.zarr")["signal"]
    assert 2.7 < found["noise"]["gain"] < 3.3
    assert found["edges"]["O K"]["fit"] == [425.6, pytest.approx(526.68)]
    _, _, err = run("info", tmp_path / "m.zarr", "--json")
    assert "Noise" in err
    assert "O K: background from 425.6 to 526.68 eV" in err


def test_the_zero_loss_peak_has_a_place_and_a_spread():
    energy = np.arange(-20.0, 50.0, 0.5)
    drift = np.random.default_rng(0).normal(0.4, 0.1, (8, 8, 1))
    x = np.random.default_rng(1).poisson(1e4 * np.exp(-((energy - drift) ** 2))).astype("u4")
    cube = make_cube(x, energy=energy, energy_units="eV", signal="EELS")
    found = signal_of(cube)
    assert found["zero_loss"]["mean"] == pytest.approx(0.4, abs=0.05)
    assert found["zero_loss"]["sd"] == pytest.approx(0.1, abs=0.03)
    assert any(name == "Zero loss" and "eV" in words for name, words in signal_rows(found, "eV"))
    assert signal_of(cube[:2, :2].assign_attrs(signal="EDS")) == {}
