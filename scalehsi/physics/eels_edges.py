"""Expected core-loss EELS spectra: a power-law background and ionisation edges with near-edge structure.

The shapes are those of the textbook [1]_: a background ``E**-r``, edges that jump and fall off as a power law, white
lines at the L2,3 edges of the transition metals, broad maxima above the K edges. They serve simulated scenes with a
known truth, not quantification: cross sections are rounded, and the near-edge structure of an element does not depend
on its compound.

References
----------
.. [1] R. F. Egerton, Electron Energy-Loss Spectroscopy in the Electron Microscope, 3rd ed., Springer 2011.
   doi:10.1007/978-1-4419-9583-4
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from scalehsi.arrays import Float
from scalehsi.physics.composition import check_composition
from scalehsi.physics.resolution import FWHM_PER_SIGMA
from scalehsi.schema import InputError, suggest


class Edge(NamedTuple):
    """One ionisation edge.

    Attributes
    ----------
    name : str
        Shell, ``"K"``, ``"L2,3"`` or ``"M4,5"``.
    onset_ev : float
    strength : float
        Height of the jump for one atom, relative to that of the O K edge.
    peaks : tuple of (offset in eV, width (standard deviation) in eV, height in jumps)
        Near-edge structure.
    """

    name: str
    onset_ev: float
    strength: float
    peaks: tuple[tuple[float, float, float], ...]


# K edges: a first maximum some eV above the onset and a broad one further up. L2,3: two white lines, split by the
# spin-orbit energy, that weaken as the d shell fills.
EDGES: Final[dict[str, Edge]] = {
    "B": Edge("K", 188.0, 4.2, ((3.5, 0.9, 2.4), (11.0, 3.5, 1.0))),
    "C": Edge("K", 284.0, 2.5, ((2.0, 0.9, 1.0), (9.0, 4.0, 1.2), (22.0, 7.0, 0.3))),
    "Ca": Edge("L2,3", 346.0, 2.9, ((1.5, 0.8, 6.4), (4.9, 0.8, 5.2), (24.0, 9.0, 0.5))),
    "N": Edge("K", 401.0, 1.6, ((2.0, 1.2, 1.4), (10.0, 4.0, 1.0))),
    "Ti": Edge("L2,3", 456.0, 2.1, ((2.0, 1.0, 5.2), (7.5, 1.2, 4.4), (26.0, 10.0, 0.5))),
    "V": Edge("L2,3", 513.0, 1.8, ((2.0, 1.1, 5.0), (9.0, 1.4, 3.4), (28.0, 10.0, 0.5))),
    "O": Edge("K", 532.0, 1.0, ((3.0, 1.4, 0.8), (8.5, 3.0, 1.4), (30.0, 9.0, 0.5))),
    "Cr": Edge("L2,3", 575.0, 1.5, ((2.0, 1.1, 5.2), (10.4, 1.4, 3.0), (30.0, 10.0, 0.5))),
    "Mn": Edge("L2,3", 640.0, 1.3, ((2.2, 1.2, 5.4), (13.2, 1.6, 2.2), (32.0, 10.0, 0.5))),
    "F": Edge("K", 685.0, 0.7, ((4.0, 1.6, 1.2), (16.0, 5.0, 0.9))),
    "Fe": Edge("L2,3", 708.0, 1.1, ((2.2, 1.2, 4.8), (15.2, 1.7, 1.8), (34.0, 10.0, 0.5))),
    "Co": Edge("L2,3", 779.0, 0.9, ((2.0, 1.2, 4.2), (17.2, 1.7, 1.6), (36.0, 10.0, 0.5))),
    "Ni": Edge("L2,3", 855.0, 0.8, ((2.0, 1.2, 3.6), (19.3, 1.8, 1.2), (38.0, 10.0, 0.5))),
}


def eels_spectrum(
    composition: Mapping[str, float],
    energy_ev: ArrayLike,
    *,
    exponent: float = 3.0,
    background: float = 0.5,
    decay: float = 5.0,
    resolution_ev: float = 1.0,
) -> Float:
    """Expected intensity in each channel of a core-loss spectrum, in units of the O K jump of pure oxygen.

    Parameters
    ----------
    composition : mapping of str to float
        Atomic per cent by element (any positive sum) of those in `EDGES`.
    energy_ev : array, shape (E,), eV
        Channel centres, above zero.
    exponent : float
        r of the background ``E**-r``, which all materials share.
    background : float
        Height of the background at the O K edge (532 eV), in O K jumps of pure oxygen; thick foils have more. Zero
        makes a spectrum whose background was removed.
    decay : float
        Power by which edges decay above their onset.
    resolution_ev : float
        Width of the zero-loss peak (FWHM), which rounds the onsets and broadens the white lines.

    Returns
    -------
    array, shape (E,)

    Raises
    ------
    InputError
        If an element has no edge in `EDGES`, or the composition is empty or negative.

    Examples
    --------
    >>> energy = np.arange(400.0, 700.0, 0.5)
    >>> spectrum = eels_spectrum({"Ti": 33.3, "O": 66.7}, energy)
    >>> rise = spectrum[np.searchsorted(energy, 458)] / spectrum[np.searchsorted(energy, 450)]
    >>> bool(rise > 2)
    True
    """
    energies = np.asarray(energy_ev, dtype=np.float64)
    total = check_composition(composition)
    sigma = max(resolution_ev, 1e-3) / FWHM_PER_SIGMA
    spectrum = background * (energies / EDGES["O"].onset_ev) ** -exponent
    for element, atoms in composition.items():
        if element not in EDGES:
            raise InputError(f"no edge is known here for the element {element!r}; {suggest(element, EDGES)}")
        edge = EDGES[element]
        jump = edge.strength * atoms / total
        continuum = ndtr((energies - edge.onset_ev) / sigma) * (np.maximum(energies, 1.0) / edge.onset_ev) ** -decay
        spectrum = spectrum + jump * continuum
        for offset, width, height in edge.peaks:
            wide = math.hypot(width, sigma)
            peak = np.exp(-0.5 * ((energies - edge.onset_ev - offset) / wide) ** 2) * width / wide
            # The rising side of a broad maximum must not reach below the onset.
            spectrum = spectrum + jump * height * peak * ndtr((energies - edge.onset_ev) / sigma)
    return np.asarray(spectrum, dtype=np.float64)
