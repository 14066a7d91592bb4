"""Upsampled grids over the pixels of maps: positions of their points, and maps assembled from rows of pixels."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.arrays import Float, Int, array_namespace
from scalehsi.checks import is_number, require
from scalehsi.kernels.gaussian_process.sampling_points import Points
from scalehsi.schema import COMPONENT, X, Y

FINE_Y, FINE_X = "fine_y", "fine_x"
ROUNDING = 1e-9


@dataclass(frozen=True)
class AxisUpsampling:
    """An axis with ``factor`` points per pixel, a number of at least 1: point j is at ``(j + 1/2) / factor - 1/2``.

    Each pixel has a row of slots for the points that lie in it. With a factor that is not whole, some slots are unused.

    Examples
    --------
    >>> AxisUpsampling(2).points(3).tolist(), AxisUpsampling(1.5).points(2).round(3).tolist()
    ([-0.25, 0.25, 0.75, 1.25, 1.75, 2.25], [-0.167, 0.5, 1.167])
    >>> AxisUpsampling(1.5).slots, AxisUpsampling(1.5).used_slots(2).tolist()
    (2, [0, 2, 3])
    """

    factor: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether all pixels have the same number of points."""
        return float(self.factor).is_integer()

    @property
    def slots(self) -> int:
        """Slots per pixel."""
        return math.ceil(self.factor - ROUNDING)

    def first_point(self, pixel: Any) -> Int:
        """Index of the first point in a pixel; of the pixel beyond the last one, the number of points."""
        return np.ceil(np.asarray(pixel) * self.factor - 0.5 - ROUNDING).astype(np.int64)

    def points(self, size: int) -> Float:
        """Positions, in pixels, of the points of an axis of ``size`` pixels."""
        return np.asarray((np.arange(int(self.first_point(size))) + 0.5) / self.factor - 0.5)

    def _slot_points(self, start: int, size: int) -> tuple[Int, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Index of the point in each slot of ``size`` pixels from ``start``, (size, slots), and whether it exists."""
        pixel = np.arange(start, start + size)
        number = self.first_point(pixel)[:, None] + np.arange(self.slots)
        return number, number < self.first_point(pixel + 1)[:, None]

    def slot_positions(self, start: int, size: int) -> Float:
        """Position of each slot (size * slots,), relative to pixel ``start``; unused ones are at pixel centres."""
        number, used = self._slot_points(start, size)
        centre = np.arange(size, dtype=np.float64)[:, None]
        return np.asarray(np.where(used, (number + 0.5) / self.factor - 0.5 - start, centre).reshape(-1))

    def used_slots(self, size: int, start: int = 0) -> Int:
        """Indices of the slots of ``size`` pixels from ``start`` that hold a point."""
        return np.flatnonzero(self._slot_points(start, size)[1])

    def points_in(self, low: int, high: int) -> slice:
        """Range of the points in the pixels from ``low`` to ``high``."""
        return slice(int(self.first_point(low)), int(self.first_point(high)))

    def coordinate(self, axis: xr.DataArray) -> xr.DataArray:
        """Coordinate of the points, interpolated linearly from that of the pixels, and extrapolated at both ends."""
        if self.factor == 1:
            return axis
        values = np.asarray(axis.values, dtype=np.float64)
        positions = self.points(values.size)
        if values.size == 1:  # The size of a single pixel is unknown: one unit of the axis.
            return xr.DataArray(values + positions, dims=axis.dims, attrs=axis.attrs)
        left = np.clip(np.floor(positions).astype(np.int64), 0, values.size - 2)
        found = values[left] + (positions - left) * (values[left + 1] - values[left])
        return xr.DataArray(found, dims=axis.dims, attrs=axis.attrs)


@dataclass(frozen=True)
class Upsampling:
    """Upsampling along y and x."""

    y: AxisUpsampling = AxisUpsampling()
    x: AxisUpsampling = AxisUpsampling()

    @classmethod
    def of(cls, upsample: Any) -> Upsampling:
        """Make it from a number of points per pixel of at least 1, or from two of them for y and x.

        Raises
        ------
        InputError
            For anything else.
        """
        pair = tuple(upsample) if isinstance(upsample, (tuple, list)) else (upsample, upsample)
        good = len(pair) == 2 and all(is_number(v, numbers.Real) and np.isfinite(v) and v >= 1 for v in pair)
        require(good, f"upsample is a number of points a pixel of at least 1, or two of them (y, x), got {upsample!r}")
        return cls(AxisUpsampling(float(pair[0])), AxisUpsampling(float(pair[1])))

    @property
    def uniform(self) -> bool:
        """Whether both axes have the same whole number of points per pixel."""
        return self.y == self.x and self.y.whole

    @property
    def axes(self) -> tuple[AxisUpsampling, AxisUpsampling]:
        return self.y, self.x

    @property
    def slots(self) -> int:
        """Slots per pixel, along both axes together."""
        return self.y.slots * self.x.slots

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Points along y and x of maps of ``height`` x ``width`` pixels."""
        return int(self.y.first_point(height)), int(self.x.first_point(width))

    def kernel_points(self, start: tuple[int, int], shape: tuple[int, int]) -> Points:
        """Slots of a tile of ``shape`` with this first pixel, as the ``upsample`` argument of the kernels."""
        if self.uniform:
            return int(self.y.factor)
        y, x = (s.slot_positions(a, n) for s, a, n in zip(self.axes, start, shape, strict=True))
        return tuple(y.tolist()), tuple(x.tolist())

    def coords(self, cube: xr.DataArray) -> dict[str, xr.DataArray]:
        """Coordinates of the upsampled grid of a cube's pixels."""
        found = {str(d): cube.coords[d] for d in cube.dims[:-1] if d in cube.coords}
        sides = {Y: self.y, X: self.x}
        return {d: sides[d].coordinate(axis) if d in sides else axis for d, axis in found.items()}

    def columns(self) -> dict[str, int]:
        """Columns of a pixel, for `Pixels.to_dataarray`."""
        return {FINE_Y: self.y.slots, FINE_X: self.x.slots}

    def rows(self, values: Any) -> Any:
        """Reshape maps on the slots of a tile (..., H a, W b, T) to one row a pixel (P, T, a, b)."""
        a, b, xp = self.y.slots, self.x.slots, array_namespace(values)
        *_, height, width, maps = values.shape
        split = xp.reshape(values, (-1, height // a, a, width // b, b, maps))
        return xp.reshape(xp.permute_dims(split, (0, 1, 3, 5, 2, 4)), (-1, maps, a, b))

    def unfold(self, maps: xr.DataArray) -> xr.DataArray:
        """Assemble maps (component, ..., y, x) of the points from those of `Pixels.to_dataarray`.

        ``maps`` has the dims (component, fine_y, fine_x, ..., y, x) and may be lazy.
        """
        leading = [d for d in maps.dims if d not in (COMPONENT, FINE_Y, FINE_X, Y, X)]
        dims = (COMPONENT, *leading, Y, X)
        if self.slots == 1:
            return maps.isel({FINE_Y: 0, FINE_X: 0}).transpose(*dims)
        data, a, b = maps.data, self.y.slots, self.x.slots
        if hasattr(data, "map_blocks"):
            grown = [tuple(n * m for n in c) for c, m in zip(data.chunks[-2:], (a, b), strict=True)]
            chunks = (data.chunks[0], *data.chunks[3:-2], *grown)
            data = data.map_blocks(_unfold, dtype=data.dtype, chunks=chunks, drop_axis=[1, 2])
        else:
            data = _unfold(data)
        kept = {d: maps.coords[d] for d in leading if d in maps.coords}
        found = xr.DataArray(data, dims=dims, coords=kept)
        uneven = {d: s.used_slots(maps.sizes[d]) for d, s in ((Y, self.y), (X, self.x)) if not s.whole}
        return found.isel(uneven) if uneven else found


def _unfold(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Reshape (T, a, b, ..., H, W) to (T, ..., H a, W b)."""
    maps, a, b, *leading, height, width = values.shape
    n = len(leading)
    order = (0, *range(3, 3 + n), 3 + n, 1, 4 + n, 2)
    return values.transpose(order).reshape(maps, *leading, height * a, width * b)
