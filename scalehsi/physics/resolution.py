"""Energy resolution of an EDX detector: the width of an X-ray peak as a function of its energy.

A silicon detector adds two independent variances: the noise of the electronics, and the statistics of the electron-hole
pairs, which grows with the energy [1]_. A width ``r`` measured at Mn Ka therefore gives the width at any energy [2]_::

    FWHM(E)^2 = r^2 + 8 ln 2 F w (E - E_MnKa)    with Fano's factor F = 0.115 and w = 3.65 eV a pair

Without a measured width, a straight line stands for a usual detector. It is the default of the simulator espm, and
agrees with the formula for 130 eV within 7 % from 0.5 to 12 keV.

References
----------
.. [1] U. Fano, Phys. Rev. 72 (1947) 26. doi:10.1103/PhysRev.72.26
.. [2] C. E. Fiori, D. E. Newbury, Scanning Electron Microscopy 1978/I, 401.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from scalehsi.arrays import Float

Width = Callable[[ArrayLike], Float]
"""Full width at half maximum in keV as a function of the energy in keV."""

FWHM_PER_SIGMA: Final = 2 * math.sqrt(2 * math.log(2))
MN_KA_KEV: Final = 5.8951
STATISTICS_KEV: Final = 2.33e-3
"""8 ln 2 times Fano's factor times the energy of a pair: growth of the squared width (keV^2) with energy (keV)."""
NARROWEST_KEV: Final = 0.03
"""Smallest width: far below Mn Ka the formula of a very good detector has no root."""
USUAL_RESOLUTION_EV: Final = 130.0
"""Width at Mn Ka of a usual silicon drift detector, with which peaks of unknown data are identified."""


def detector_fwhm(energy_kev: ArrayLike, resolution_ev: float | None = None, *, scale: float = 1.0) -> Float:
    """Width of an X-ray peak (full width at half maximum) in keV.

    Parameters
    ----------
    energy_kev : array, any shape, keV
    resolution_ev : float, optional
        Width at Mn Ka (5.895 keV) in eV, for noise plus statistics. Default: the straight line 0.01 E + 0.065 keV,
        which is 124 eV there.
    scale : float, default 1
        Multiplies the width, as an estimate from a spectrum does.

    Returns
    -------
    array, of the same shape, keV

    Examples
    --------
    >>> detector_fwhm([0.525, 5.8951]).round(4).tolist(), detector_fwhm([0.525, 5.8951], 130.0).round(4).tolist()
    ([0.0703, 0.124], [0.0662, 0.13])
    """
    energy = np.asarray(energy_kev, dtype=np.float64)
    if resolution_ev is None:
        return scale * (0.01 * energy + 0.065)
    square = (resolution_ev * 1e-3) ** 2 + STATISTICS_KEV * (energy - MN_KA_KEV)
    return scale * np.sqrt(np.maximum(square, NARROWEST_KEV**2))
