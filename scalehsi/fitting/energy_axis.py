"""Check that given spectra have the energy axis of a cube."""

from __future__ import annotations

import numpy as np
import xarray as xr

from scalehsi.checks import require
from scalehsi.cube import same_axis
from scalehsi.schema import ENERGY


def check_axis(what: str, spectra: xr.DataArray, cube: xr.DataArray) -> None:
    """Refuse spectra on other channels than the cube's; those without coordinates need only the number of channels.

    Parameters
    ----------
    what : str
        Name of the spectra in the message.
    spectra : DataArray
        With the dim ``energy``.
    cube : DataArray

    Raises
    ------
    InputError
        When the axes differ; says both, and what to type.
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
        same_axis(there, here),
        f"{what} runs from {there[0]:g} to {there[-1]:g}, the cube from {here[0]:g} to {here[-1]:g}; {repair}",
    )
