"""Shapes of which simulated near-edge structure is made: the step of an edge, and a bump above its onset."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.special import ndtr

from scalehsi.arrays import Float

DECAY: Final = -4.0
"""Power of the energy by which the step falls above its onset."""
RISE_EV: Final = 0.6
"""Width of the onset, below which there is no bump."""


def step(energy: Float, onset: float, width: float) -> Float:
    """Return a smooth step of height one that falls off as a power law.

    energy (E,), onset and width in eV.
    """
    return np.asarray(ndtr((energy - onset) / width) * (energy / onset) ** DECAY)


def bump(energy: Float, centre: float, width: float, height: float, *, onset: float) -> Float:
    """Return a Gaussian that is cut off below the onset of the edge.

    energy (E,), centre, width (standard deviation) and onset in eV. height: of the Gaussian.
    """
    return np.asarray(height * np.exp(-0.5 * ((energy - centre) / width) ** 2) * ndtr((energy - onset) / RISE_EV))
