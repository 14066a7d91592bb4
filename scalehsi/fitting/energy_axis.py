"""Whether spectra that the user hands over lie on the channels of a cube."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.checks import require
from scalehsi.schema import ENERGY

PART: Final = 0.1
"""Channels may lie apart by so much of a channel: rounding of an axis that was stored, not another axis."""


def same(there: Any, here: Any) -> bool:
    """Whether two energy axes of one unit are the same but for a tenth of the second one's channel.

    Examples
    --------
    >>> same([1.0, 2.0, 3.0], [1.0, 2.01, 3.0]), same([1.0, 2.0], [1.0, 2.0, 3.0])
    (True, False)
    """
    a, b = np.asarray(there, dtype=float), np.asarray(here, dtype=float)
    if a.size != b.size:
        return False
    step = abs(b[-1] - b[0]) / max(1, b.size - 1)
    return bool(np.allclose(a, b, rtol=0, atol=PART * step or 1e-9))


def check_axis(what: str, spectra: xr.DataArray, cube: xr.DataArray) -> None:
    """Refuse spectra on other channels than the cube's; those without coordinates need only have as many.

    Parameters
    ----------
    what : str
        What the user calls them.
    spectra : DataArray
        With the dim ``energy``.
    cube : DataArray

    Raises
    ------
    InputError
        With both axes, and what to type.
    """
    repair = "bring it onto the cube's axis with .interp(energy=cube.energy)"
    channels = int(cube.shape[-1])
    require(
        spectra.sizes[ENERGY] == channels,
        f"{what} has {spectra.sizes[ENERGY]} channels, the cube {channels}; {repair}",
    )
    if ENERGY not in spectra.coords or ENERGY not in cube.coords:
        return
    there, here = np.asarray(spectra[ENERGY], dtype=float), np.asarray(cube[ENERGY], dtype=float)
    require(
        same(there, here),
        f"{what} runs from {there[0]:g} to {there[-1]:g}, the cube from {here[0]:g} to {here[-1]:g}; {repair}",
    )
