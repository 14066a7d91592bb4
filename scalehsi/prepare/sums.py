"""Sums of each pixel from one reading of a cube, and small helpers that the steps share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.arrays import Bool, Float
from scalehsi.blocks import map_pixels, open_blocks
from scalehsi.cube import navigation_dims
from scalehsi.schema import MASK

logger = logging.getLogger("scalehsi")


def pixel_sums(
    cube: xr.DataArray, fn: Callable[..., Any], columns: int, *, shared: Mapping[str, Any], name: str
) -> Float:
    """The values of `lazy_sums`, in memory."""
    return np.asarray(lazy_sums(cube, fn, columns, shared=shared, name=name).values)


def lazy_sums(
    cube: xr.DataArray, fn: Callable[..., Any], columns: int, *, shared: Mapping[str, Any], name: str
) -> xr.DataArray:
    """What ``fn`` computes of each pixel, (..., y, x, column) in float64; NaN where the mask leaves a pixel out.

    cube: read once. fn: takes x (P, E) and the shared arguments, returns (P, columns). shared: keyword arguments. name:
    of the tasks on the dashboard.
    """
    handles = map_pixels(_SumsOf(fn), open_blocks(cube, resident=False), shared=shared, keep=["sums"], name=name)
    maps = handles["sums"].to_dataarray({"column": columns}, dtype=np.float64)
    return maps.transpose(*navigation_dims(cube), "column")


class _SumsOf:
    """A block function that returns the rows of another function as ``sums``."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, x: Any, **shared: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"sums": self.fn(x, **shared)}, {}


def used_pixels(cube: xr.DataArray) -> Bool:
    """The mask (..., y, x) of a cube, in memory; True everywhere without one."""
    shape = tuple(cube.sizes[d] for d in navigation_dims(cube))
    return np.asarray(cube[MASK].values, dtype=bool) if MASK in cube.coords else np.ones(shape, dtype=bool)


def with_map(cube: xr.DataArray, name: str, values: Any, long_name: str, units: str = "") -> xr.DataArray:
    """The cube with a coordinate over its pixels.

    name: of the coordinate. values: (..., y, x), in memory or lazy. long_name, units: its attributes.
    """
    attrs = {"long_name": long_name, **({"units": units} if units else {})}
    return cube.assign_coords({name: (navigation_dims(cube), values, attrs)})
