"""Channels that two energy axes share, and rebinning of spectra from one axis to the other."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.checks import require
from scalehsi.cube import energy_factor, same_axis
from scalehsi.kernels.resampling.energy_axis import common_channels, rebin
from scalehsi.schema import ENERGY, InputError


class Channels(NamedTuple):
    """Channels of one cube that are covered by the axis of another.

    Attributes
    ----------
    own : slice
        These channels of the first cube.
    axis : array, shape (F,)
        Their energies, in the unit of the other cube.
    other : array, shape (E,)
        The other cube's axis.
    """

    own: slice
    axis: Float
    other: Float

    @property
    def same(self) -> bool:
        """True where both axes are the same."""
        return same_axis(self.axis, self.other)

    def here(self, spectra: Float) -> Float:
        """Spectra (K, E) of the other axis in these channels, (K, F)."""
        return spectra if self.same else rebin(spectra, axis=self.other, to=self.axis)

    def there(self, spectrum: Float) -> Float:
        """A spectrum (F,) of these channels on the other axis (E,), by linear interpolation; zero outside."""
        return spectrum if self.same else rebin(spectrum[None], axis=self.axis, to=self.other, smooth=False)[0]

    @property
    def to_other(self) -> Any:
        """`there` for block functions; None where both axes are the same."""
        return None if self.same else partial(Channels.there, self)


def shared_channels(cube: xr.DataArray, other: xr.DataArray, names: tuple[str, str], *, least: int = 2) -> Channels:
    """The channels of a cube that are covered by the axis of the other.

    cube, other: the cubes. names: for messages. least: smallest number of shared channels.

    Raises
    ------
    InputError
        When the axes are in units that cannot be compared, or share fewer than ``least`` channels.
    """
    units = [str(each[ENERGY].attrs.get("units", "")) for each in (cube, other)]
    factors = [energy_factor(unit) for unit in units]
    known = [f is not None for f in factors]
    require(
        all(known) or units[0] == units[1],
        f"the energy axis of {names[0]!r} is in {units[0]!r}, that of {names[1]!r} in {units[1]!r}; give both a unit "
        "of energy with cube.energy.attrs['units'] = 'eV'",
    )
    scale = (factors[0] or 1.0) / (factors[1] or 1.0) if all(known) else 1.0
    first = np.asarray(cube[ENERGY].values, dtype=np.float64) * scale
    second = np.asarray(other[ENERGY].values, dtype=np.float64)
    within = np.flatnonzero(common_channels(first, second))
    if len(within) < least:
        raise InputError(
            f"the energy axes share {len(within)} channels, at least {least} are needed: {names[0]!r} runs from "
            f"{first[0]:g} to {first[-1]:g} {units[1]}, {names[1]!r} from {second[0]:g} to {second[-1]:g} {units[1]}"
        )
    own = slice(int(within[0]), int(within[-1]) + 1)
    return Channels(own, first[own], second)
