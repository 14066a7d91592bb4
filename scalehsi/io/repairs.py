"""Repair a cube as it is opened: name its axes, calibrate them, or leave out its mask, as texts.

A file that another program wrote without names, units or a usable mask is repaired by whoever knows what it holds.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import xarray as xr

from scalehsi.checks import choice
from scalehsi.schema import ENERGY, MASK, InputError, X, Y, usual_unit

HINT: Final = (
    "or say what the file holds with axes='y,x,energy', energy='0:0.01:keV', pixel='0.5:nm' or mask='ignore', which "
    "scalehsi.open_cube and scalehsi.convert take"
)
"""For the end of a message about a cube from a file."""
MASKS: Final = ("ignore", "invert")


class Repairs(NamedTuple):
    """What the user says about a file; see `scalehsi.open_cube`."""

    axes: str | None = None
    energy: str | None = None
    pixel: str | None = None
    mask: str | None = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the axes, in the order of the file; None where they are not given.

        Raises
        ------
        InputError
            When they are not y, x, energy and further ones, each once.
        """
        if self.axes is None:
            return None
        names = tuple(name.strip() for name in self.axes.split(","))
        if len(set(names)) < len(names) or ENERGY not in names or not all(name.isidentifier() for name in names):
            raise InputError(
                f"axes={self.axes!r}: the axes in the order of the file are expected, with energy among them, "
                "such as axes='energy,y,x'"
            )
        return names


NOTHING: Final = Repairs()


def repaired(cube: xr.DataArray, repairs: Repairs) -> xr.DataArray:
    """The cube with the names, calibration and mask that the user gave; not checked otherwise.

    Raises
    ------
    InputError
        When they do not fit the cube.
    """
    cube = _named(cube, repairs.names)
    if repairs.energy is not None:
        cube = _calibrated_energy(cube, repairs.energy)
    if repairs.pixel is not None:
        _, step, unit = _calibration("pixel", repairs.pixel, numbers=1)
        for dim in (Y, X):
            if dim in cube.dims:
                cube = cube.assign_coords({dim: (dim, np.arange(cube.sizes[dim]) * step, {"units": unit})})
    if repairs.mask is not None:
        choice("mask", repairs.mask, MASKS)
        if MASK not in cube.coords:
            raise InputError(f"mask={repairs.mask!r}: this cube has no mask; leave it out")
        mask = cube.coords[MASK]
        cube = cube.drop_vars(MASK)
        if repairs.mask == "invert":
            cube = cube.assign_coords({MASK: ~mask.astype(bool)})
    return cube


def _named(cube: xr.DataArray, names: tuple[str, ...] | None) -> xr.DataArray:
    """The cube with these names of its axes, in the order of a cube; a missing y or x has one pixel."""
    if names is None:
        return cube
    if len(names) != cube.ndim:
        raise InputError(f"axes={','.join(names)!r} are {len(names)}, the data have {cube.ndim}: {dict(cube.sizes)}")
    values = cube.variable.copy(deep=False)
    values.dims = names
    coords = {new: cube.coords[old] for old, new in zip(cube.dims, names, strict=True) if old in cube.coords}
    out = xr.DataArray(values, coords={n: (n, c.values, c.attrs) for n, c in coords.items()}, name=cube.name)
    if MASK in cube.coords:
        renamed = dict(zip(map(str, cube.dims), names, strict=True))
        mask = cube.coords[MASK]
        out = out.assign_coords({MASK: ([renamed[str(d)] for d in mask.dims], mask.values)})
    out = out.expand_dims([dim for dim in (Y, X) if dim not in names])
    leading = [d for d in out.dims if d not in (Y, X, ENERGY)]
    return out.transpose(*leading, Y, X, ENERGY)


def _calibrated_energy(cube: xr.DataArray, text: str) -> xr.DataArray:
    """The cube with another unit, or other values, of the energies."""
    if ENERGY not in cube.dims:
        raise InputError(f"energy={text!r}: the data have no axis energy, theirs are {cube.dims}; name them with axes")
    if ":" in text:
        first, step, unit = _calibration("energy", text, numbers=2)
        values = first + step * np.arange(cube.sizes[ENERGY])
    elif ENERGY in cube.coords:
        values, unit = cube[ENERGY].values, usual_unit(text)
    else:
        raise InputError(
            f"energy={text!r}: the file has no energies; give the first, the step and the unit, as 0:10:eV"
        )
    return cube.assign_coords({ENERGY: (ENERGY, values, {"units": unit})})


def _calibration(name: str, text: str, *, numbers: int) -> tuple[float, float, str]:
    """First value, step and unit of a text such as ``0:0.01:keV``, or step and unit of one such as ``0.5:nm``."""
    *given, unit = text.split(":")
    try:
        values = [float(each) for each in given]
    except ValueError:
        values = []
    usable = len(values) == numbers and all(math.isfinite(v) for v in values) and values[-1] != 0 and unit.strip()
    if not usable:
        example = "0:0.01:keV (the first, the step and the unit)" if numbers == 2 else "0.5:nm"
        raise InputError(f"{name}={text!r} is no calibration; type it as {example}")
    return (values[0] if numbers == 2 else 0.0), values[-1], usual_unit(unit)
