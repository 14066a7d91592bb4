"""Rasters of acquisitions, and the transformation of pixel positions from one raster to another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.checks import require
from scalehsi.cube import length_factor
from scalehsi.schema import InputError, X, Y

Pair = tuple[float, float]


class Raster(NamedTuple):
    """Regular raster of pixels with centres at ``origin + step * i`` along y and x.

    Attributes
    ----------
    origin, step : (float, float)
        In one unit of length, along y and x. A step may be negative.
    shape : (int, int)
        Numbers of rows and columns.
    """

    origin: Pair
    step: Pair
    shape: tuple[int, int]

    @property
    def centre(self) -> Pair:
        """Centre of the field."""
        middle = [o + s * (n - 1) / 2 for o, s, n in zip(self.origin, self.step, self.shape, strict=True)]
        return middle[0], middle[1]

    @property
    def size(self) -> Pair:
        """Lengths of the field from edge to edge, along y and x."""
        return abs(self.step[0]) * self.shape[0], abs(self.step[1]) * self.shape[1]

    def binned(self, factor: int) -> Raster:
        """Raster of bins of ``factor`` x ``factor`` pixels; the last ones may extend beyond the field."""
        origin = [o + s * (factor - 1) / 2 for o, s in zip(self.origin, self.step, strict=True)]
        shape = -(-self.shape[0] // factor), -(-self.shape[1] // factor)
        return Raster((origin[0], origin[1]), (self.step[0] * factor, self.step[1] * factor), shape)

    def centres(self, axis: int) -> Float:
        """Coordinates of the rows (0) or columns (1)."""
        return self.origin[axis] + self.step[axis] * np.arange(self.shape[axis])


class Placement(NamedTuple):
    """Position of a raster on another one: scaled about its own centre by ``scale``, then moved by ``shift`` (y, x)."""

    shift: Pair
    scale: float = 1.0

    def place(self, of: Raster, positions: Float, axis: int) -> Float:
        """Transform positions from the coordinates of the raster ``of`` to those of the other, along y (0) or x (1)."""
        middle = of.centre[axis]
        return np.asarray((positions - middle) * self.scale + middle + self.shift[axis])

    def pixel_transform(self, of: Raster, on: Raster) -> tuple[Pair, Pair]:
        """Coefficients (a, b) for y and for x such that pixel ``i`` of ``on`` lies at pixel ``a + b i`` of ``of``."""
        found = []
        for axis in (0, 1):
            middle, start, step = of.centre[axis], of.origin[axis], of.step[axis]
            first = ((on.origin[axis] - middle - self.shift[axis]) / self.scale + middle - start) / step
            found.append((first, on.step[axis] / (self.scale * step)))
        return found[0], found[1]


def rasters(data: dict[str, xr.DataArray]) -> dict[str, Raster]:
    """Rasters of maps, in nanometres if all maps are calibrated.

    Parameters
    ----------
    data : dict of str to DataArray
        Maps by name, with dims y and x.

    Raises
    ------
    InputError
        If axes are uneven, or if only some of the maps are calibrated.
    """
    units = {name: str(each[Y].attrs.get("units", "")) if Y in each.coords else "" for name, each in data.items()}
    factors = {name: length_factor(unit) for name, unit in units.items()}
    calibrated = [f is not None for f in factors.values()]
    same = len(set(units.values())) == 1
    require(
        all(calibrated) or same,
        f"y is given in {', '.join(f'{u!r} ({n})' for n, u in units.items())}: lengths of one kind are needed; type "
        "cube.assign_coords(y=('y', values, {'units': 'nm'}), x=('x', values, {'units': 'nm'}))",
    )
    return {n: _raster(n, each, (factors[n] or 1.0) if all(calibrated) else 1.0) for n, each in data.items()}


def _raster(name: str, data: xr.DataArray, factor: float) -> Raster:
    """Raster of the map ``name``, with its coordinates multiplied by ``factor``."""
    origin, step = [], []
    for dim in (Y, X):
        n = data.sizes[dim]
        values = np.asarray(data[dim].values, dtype=np.float64) if dim in data.coords else np.arange(float(n))
        each = float(values[-1] - values[0]) / (n - 1) if n > 1 else 0.0
        even = n < 2 or np.allclose(np.diff(values), each, rtol=0, atol=0.01 * abs(each))
        require(even and (n < 2 or each), f"{name!r}: the steps of {dim} are uneven; bring it onto an even grid first")
        origin.append(float(values[0]) * factor)
        step.append(each * factor)
    step = [s or step[1 - i] or 1.0 for i, s in enumerate(step)]
    return Raster((origin[0], origin[1]), (step[0], step[1]), (data.sizes[Y], data.sizes[X]))


def check_overlap(on: Raster, of: Raster, names: tuple[str, str], shift: Pair = (0.0, 0.0)) -> None:
    """Refuse fields that do not overlap.

    Parameters
    ----------
    on, of : Raster
    names : (str, str)
        Names of the two acquisitions, for the message.
    shift : (float, float)
        Shift of ``of`` along y and x.

    Raises
    ------
    InputError
        If the fields do not overlap along y or x.
    """
    for axis, dim in enumerate((Y, X)):
        one, other = (_span(r, axis, move) for r, move in ((on, 0.0), (of, shift[axis])))
        if min(one[1], other[1]) <= max(one[0], other[0]):
            raise InputError(
                f"the fields do not overlap: {dim} of {names[0]!r} runs from {one[0]:g} to {one[1]:g}, of "
                f"{names[1]!r} from {other[0]:g} to {other[1]:g}; put both into one coordinate system with "
                f"cube.assign_coords({dim}=cube.{dim} - ...)"
            )


def _span(raster: Raster, axis: int, move: float) -> Pair:
    """First and last edge of the field along y (0) or x (1), after a shift by ``move``."""
    middle, half = raster.centre[axis] + move, raster.size[axis] / 2
    return middle - half, middle + half
