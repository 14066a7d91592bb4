"""The noise that is estimated is that of the detector: gain and read-out, whatever the specimen does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scalehsi import prepare
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.helpers import random_mask
from tests.prepare.eels import ENERGY, law


def _mean(counts: float, seed: int = 0, flicker: float = 0.0) -> Any:
    """Two phases, a wedge, a flickering beam; mean counts a channel."""
    rng = np.random.default_rng(seed)
    phase = (np.arange(40) > 20)[None, :, None]
    shape = np.where(phase, law(2.7), law(3.3))
    wedge = np.linspace(0.7, 1.3, 40)[:, None, None] * (1 + flicker * rng.normal(size=(40, 40, 1)))
    return counts * wedge * shape / shape.mean()


@pytest.mark.parametrize(
    ("counts", "gain", "readout", "flicker", "within"),
    [(195, 1, 0, 0, 0.02), (195, 4.6, 10, 0, 0.03), (4, 1, 0, 0, 0.03), (195, 1, 0, 0.05, 0.02), (4, 4.6, 10, 0, 0.06)],
)
def test_gain_and_readout(counts: float, gain: float, readout: float, flicker: float, within: float) -> None:
    rng = np.random.default_rng(1)
    x = gain * rng.poisson(_mean(counts, flicker=flicker) / gain) + rng.normal(0, readout or 1e-9, (40, 40, 300))
    found = prepare.estimate_noise(make_cube(x, energy=ENERGY, energy_units="eV"))
    assert abs(found.gain / gain - 1) < within
    assert abs(found.readout - readout) < 1.0
    if counts > 100:
        assert abs(found.window_gain / (gain + readout**2 / counts) - 1) < 0.15


@pytest.mark.parametrize("counts", [0.0005, 0.005, 0.05, 0.5])
def test_channels_that_are_mostly_empty_have_the_noise_of_counts(counts: float) -> None:
    energy = np.arange(2048)
    mean = counts * (0.2 + np.exp(-(((energy - 400) / 60.0) ** 2)))
    cube = make_cube(np.random.default_rng(0).poisson(mean, (64, 64, 2048)), energy=energy, energy_units="eV")
    found = prepare.estimate_noise(cube)
    assert abs(found.gain - 1) < 0.1
    assert abs(found.window_gain - 1) < 0.15


def test_spikes_do_not_count_and_channels_that_correlate_are_seen() -> None:
    x = np.random.default_rng(1).poisson(_mean(195)).astype(float)
    spiky = x.copy()
    rng = np.random.default_rng(2)
    spiky.reshape(-1)[rng.integers(0, x.size, 1000)] += rng.uniform(100, 5000, 1000)
    assert abs(prepare.estimate_noise(make_cube(spiky, energy=ENERGY, energy_units="eV")).gain - 1) < 0.02
    blurred = 0.5 * x + 0.25 * np.roll(x, 1, -1) + 0.25 * np.roll(x, -1, -1)
    found = prepare.estimate_noise(make_cube(blurred[..., 1:-1], energy=ENERGY[1:-1], energy_units="eV"))
    assert abs(found.correlation[0] - 2 / 3) < 0.05
    assert abs(found.gain - 0.375) < 0.02
    assert abs(found.window_gain - 0.906) < 0.05


def test_chunks_change_nothing_and_masked_pixels_are_not_read() -> None:
    x = np.random.default_rng(1).poisson(_mean(20)).astype("f4")
    mask = random_mask((40, 40), share=0.95)
    x[~mask] = np.nan
    cube = make_cube(x, energy=ENERGY, energy_units="eV", mask=mask)
    found = prepare.estimate_noise(cube)
    assert abs(found.gain - 1) < 0.03
    assert prepare.estimate_noise(cube.chunk({"y": 7, "x": 11, "energy": 50})) == found
    with pytest.raises(InputError, match="values are not finite, first at y="):
        prepare.estimate_noise(cube.drop_vars("mask"))


def test_too_few_pixels_and_no_counts_are_refused() -> None:
    cube = make_cube(np.zeros((4, 4, 300)), energy=ENERGY, energy_units="eV")
    with pytest.raises(InputError, match="noise: 4 x 4 pixels are too few; 5 along one axis at least"):
        prepare.estimate_noise(cube)
    with pytest.raises(InputError, match="no intensity; give gain= and readout="):
        prepare.estimate_noise(make_cube(np.zeros((1, 9, 300)), energy=ENERGY, energy_units="eV"))
