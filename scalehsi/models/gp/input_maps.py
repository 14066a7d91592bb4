"""Convert input maps to a cube whose channels are the components, for fits by a Gaussian process."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Bool, Float
from scalehsi.cube import check_cube
from scalehsi.models.gp.upsampling import Upsampling
from scalehsi.result import check_result
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, MASK, MEAN_SPECTRUM, InputError, X, Y

CARRIED: Final = (ENDMEMBERS, "offset", MEAN_SPECTRUM, "explained_variance_ratio")
"""Variables of a result, beside its maps, that `scalehsi.reconstruct` and reports need."""
PARENT: Final = ("model", "settings", "seed", "status", "loss", "weighting", "warnings")
"""Attributes of a result that are kept of it, in ``attrs["parent"]``."""
TRIED_PER_WINDOW: Final = 4
"""Windows that are read for each one that is asked for, at most, where many pixels are missing."""
PIXELS_PER_MEASURED: Final = 8
"""A window is kept when at least one in this many of its pixels was measured."""


def maps_as_cube(given: Any) -> tuple[xr.DataArray, dict[str, xr.DataArray]]:
    """Convert a result or maps to a cube with a channel for each component.

    Parameters
    ----------
    given : xarray.Dataset or xarray.DataArray
        A result, of which the ``abundances`` are used, or maps of dims ``(component, ..., y, x)``. A pixel is missing
        in the maps where it is NaN, and in all maps where a coordinate ``mask`` is False.

    Returns
    -------
    cube : xarray.DataArray, shape (..., y, x, T)
        Float, with NaN where a pixel is missing. Lazy where the maps are.
    carried : dict of str to xarray.DataArray
        Spectra of the components, unchanged; empty for maps alone.

    Raises
    ------
    InputError
        For an object that is neither, for other dims, and for maps that are empty or do not hold real numbers.
    """
    carried: dict[str, xr.DataArray] = {}
    maps = given
    if isinstance(given, xr.Dataset):
        result = check_result(given, spectra=False)
        carried = {name: result[name] for name in CARRIED if name in result}
        maps = result[ABUNDANCES]
        # A copy, so that the caller's attributes do not change.
        maps = maps.assign_attrs({k: v for k, v in result.attrs.items() if k not in maps.attrs})
        maps.attrs["parent"] = _parent(result)
    if not isinstance(maps, xr.DataArray):
        raise InputError(
            f"a result or a DataArray of maps (component, ..., y, x) is expected, got {type(given).__name__}; wrap an "
            "array with xarray.DataArray(array, dims=('component', 'y', 'x'))"
        )
    dims = tuple(map(str, maps.dims))
    if COMPONENT not in dims and ENERGY in dims:
        raise InputError(
            f"maps (component, ..., y, x) are expected, and these dims, {dims}, are a cube's; fit it first"
        )
    if dims == (Y, X):
        maps = maps.expand_dims(COMPONENT)
    elif not {COMPONENT, Y, X} <= set(dims):
        raise InputError(f"maps have the dims ('component', ..., 'y', 'x'), got {dims}; rename them with maps.rename")
    if maps.dtype.kind not in "fiu":
        raise InputError(f"maps hold real numbers, got {maps.dtype}; type maps.astype('float32')")
    empty = [d for d in maps.dims if maps.sizes[d] == 0]
    if empty:
        raise InputError(f"the maps are empty along {empty}: their shape is {maps.shape}")
    floats = maps if maps.dtype.kind == "f" else maps.astype(np.float64)
    if MASK in floats.coords:
        floats = floats.drop_vars(MASK).where(floats[MASK].drop_vars(MASK))
    leading = [d for d in floats.dims if d not in (COMPONENT, Y, X)]
    cube = floats.rename({COMPONENT: ENERGY}).transpose(*leading, Y, X, ENERGY)
    cube = cube.drop_vars([name for name in cube.coords if ENERGY in cube[name].dims])
    cube = cube.assign_coords({ENERGY: (ENERGY, np.arange(1.0, cube.sizes[ENERGY] + 1))})
    cube.attrs = dict(maps.attrs)
    return check_cube(cube), carried


def _parent(result: xr.Dataset) -> str:
    """What a reader of the smoothed maps wants to know of the result that they came from, as JSON."""
    known = {name: result.attrs[name] for name in PARENT if name in result.attrs}
    for name in ("settings", "warnings"):
        if name in known:
            known[name] = json.loads(known[name])
    return json.dumps(known, sort_keys=True, ensure_ascii=False)


def result_frame(cube: xr.DataArray, carried: dict[str, xr.DataArray], upsampling: Upsampling) -> xr.DataArray:
    """Make an empty cube with the points of the upsampled grid and the energies of the spectra, as the result's frame.

    Parameters
    ----------
    cube, carried
        Of `maps_as_cube`.
    upsampling : Upsampling
    """
    *leading, height, width = (int(n) for n in cube.shape[:-1])
    dims = tuple(map(str, cube.dims[:-1]))
    shape, coords = (*leading, *upsampling.shape(height, width)), upsampling.coords(cube)
    spectra = carried.get(ENDMEMBERS)
    if spectra is not None:
        dims, shape = (*dims, ENERGY), (*shape, spectra.sizes[ENERGY])
        coords = {**coords, ENERGY: spectra[ENERGY]}
    return xr.DataArray(np.broadcast_to(np.float32(0), shape), dims=dims, coords=coords, attrs=cube.attrs)


def read_windows(cube: xr.DataArray, side: int, count: int, *, whole: int, seed: int) -> list[Float]:
    """Read windows of the maps for the fit, all of one shape (H, W, T), with NaN where a pixel is missing.

    Parameters
    ----------
    cube : xarray.DataArray, shape (..., y, x, T)
    side : int
        Pixels of a window along y and x; fewer where the maps are smaller.
    count : int
        Number of windows, at most.
    whole : int
        Maps of up to this many pixels are read as a whole.
    seed : int
        Of the choice of windows.

    Raises
    ------
    InputError
        When a map has no measured pixel, or one that is infinite.
    """
    leading, (height, width) = cube.shape[:-3], cube.shape[-3:-1]
    frames = int(np.prod(leading, dtype=np.int64)) if leading else 1
    if height * width <= whole:
        side_y, side_x, count = height, width, min(count, frames)
    else:
        side_y, side_x = min(side, height), min(side, width)
    rng = np.random.default_rng([seed, 5])
    places: list[tuple[int, ...]] = []
    rows, columns = max(1, height // side_y), max(1, width // side_x)
    for cell in rng.permutation(frames * rows * columns):
        frame, rest = divmod(int(cell), rows * columns)
        y, x = divmod(rest, columns)
        # Windows on a regular grid do not overlap; the grid is centred in the maps.
        shift_y, shift_x = (height - rows * side_y) // 2, (width - columns * side_x) // 2
        places.append((*np.unravel_index(frame, leading or (1,)), y * side_y + shift_y, x * side_x + shift_x))
    found: list[Float] = []
    seen = np.zeros(cube.shape[-1], dtype=bool)
    tried = min(len(places), count * TRIED_PER_WINDOW)
    for start in range(0, len(places), count):
        last = start + count >= tried
        for window in _read(cube, places[start : start + count], (side_y, side_x)):
            pixels = np.isfinite(window).sum(axis=(0, 1))
            enough = pixels.max() * PIXELS_PER_MEASURED >= side_y * side_x
            # Windows with hardly a measured pixel are used only when no others are left, or for a map that no window
            # has shown yet.
            fits = start < tried and len(found) < count and pixels.any() and (enough or last)
            if fits or ((pixels > 0) & ~seen).any():
                found.append(window)
                seen |= pixels > 0
        if seen.all() and (last or 2 * len(found) >= count):
            break
    _refuse_unmeasured(seen)
    return found


def _refuse_unmeasured(seen: Bool) -> None:
    """Refuse maps of which no pixel was measured, where ``seen`` (T,) is False."""
    if not seen.any():
        raise InputError("no pixel of the maps was measured: all are NaN or masked; look at maps.plot()")
    if not seen.all():
        empty = [str(k + 1) for k in np.flatnonzero(~seen)]
        which = f"component {empty[0]} is" if len(empty) == 1 else f"components {', '.join(empty)} are"
        raise InputError(
            f"{which} NaN or masked everywhere, and nothing is known of such a map; leave it out: "
            "maps.dropna('component', how='all')"
        )


def refuse_infinite(values: Float, start: tuple[int, int]) -> None:
    """Refuse maps (..., H, W, T) with a value that is infinite; ``start`` is the first pixel (y, x) in the whole."""
    where = np.argwhere(np.isinf(values))
    if len(where):
        y, x, component = (int(i) for i in where[0][-3:])
        many = f"{len(where)} values of the maps are infinite, the first" if len(where) > 1 else "a value is infinite,"
        raise InputError(
            f"{many} in component {component + 1} at pixel y = {y + start[0]}, x = {x + start[1]}; type "
            "maps.where(numpy.isfinite(maps)), which makes such values missing ones"
        )


def _read(cube: xr.DataArray, places: list[tuple[int, ...]], size: tuple[int, int]) -> list[Float]:
    """Read windows of ``size`` (H, W), with first pixels ``places`` (..., y, x), in one computation."""
    leading = cube.dims[:-3]
    bare = cube.drop_vars(list(cube.coords))
    found = {}
    for number, (*frame, y, x) in enumerate(places):
        at = {**dict(zip(leading, frame, strict=False)), Y: slice(y, y + size[0]), X: slice(x, x + size[1])}
        found[f"window {number}"] = bare.isel(at)
    read = xr.Dataset(found).compute()
    # One memory layout, as sums would otherwise round differently for another chunking.
    windows = [np.array(values.values, dtype=np.float64, order="C") for values in read.data_vars.values()]
    for window, (*_, y, x) in zip(windows, places, strict=True):
        refuse_infinite(window, (int(y), int(x)))
    return windows
