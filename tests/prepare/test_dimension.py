"""HySime counts spectra and no correlated noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scalehsi import prepare
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.prepare.eels import ENERGY, law

SPECTRA = np.stack([law(2.5, 200), law(3.5, 200) + 60 * (ENERGY > 532), law(3.0, 200) + 60 * (ENERGY > 610)])


def _cube(number: int, *, blurred: bool) -> Any:
    """A cube of 1 or 3 spectra; blurred: the noise of neighbouring channels correlates, as detectors make it."""
    share = np.ones((48, 48, 1))
    if number == 3:
        at = (np.arange(48) - 24) / 5
        left, right = 1 / (1 + np.exp(at + 1.5)), 1 / (1 + np.exp(-at + 1.5))
        share = np.stack([left, 1 - left - right, right], axis=-1)[None] * np.ones((48, 1, 1))
    mean = share @ SPECTRA[:number]
    counts = np.random.default_rng(0).poisson(mean).astype(float)
    if blurred:
        counts = 0.5 * counts[..., 1:-1] + 0.25 * counts[..., :-2] + 0.25 * counts[..., 2:]
    energy = ENERGY[1:-1] if blurred else ENERGY
    return make_cube(counts[..., ::3], energy=energy[::3], energy_units="eV")


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("blurred", [False, True])
def test_spectra_are_counted(number: int, blurred: bool) -> None:
    cube = _cube(number, blurred=blurred)
    assert prepare.signal_dimension(cube) == number
    assert prepare.signal_dimension(cube.chunk({"y": 17, "x": 23})) == number


def test_too_many_channels_and_too_few_pixels_are_refused() -> None:
    wide = make_cube(np.ones((5, 5, 2049)), energy=np.arange(2049.0), energy_units="eV")
    with pytest.raises(InputError, match="dimension: 2049 channels are too many; bin:energy=2 or crop it to 2048"):
        prepare.signal_dimension(wide)
    with pytest.raises(InputError, match="noise: 1 x 3 pixels are too few"):
        prepare.signal_dimension(wide[:1, :3, :100])
