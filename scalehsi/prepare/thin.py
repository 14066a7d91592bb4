"""Split counts at random into independent parts."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.cube import check_cube, navigation_dims, with_history
from scalehsi.kernels.statistics.thinning import thin as divide
from scalehsi.schema import ENERGY, MASK, InputError


def thin(cube: xr.DataArray, *, fraction: float = 0.5, seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    """Divide the counts at random between two cubes that are independent measurements of the same thing.

    What is found in both halves is in the sample; and a model that is fitted to one half is tested by the other.

    Parameters
    ----------
    cube : xarray.DataArray
        Counts, unsigned integers.
    fraction : float, default 0.5
        Chance of each count to go to the first cube, between 0 and 1.
    seed : int

    Returns
    -------
    kept, rest : xarray.DataArray
        Lazy when the cube is; their sum is the cube. The same whatever the chunks.

    Raises
    ------
    InputError
        For a cube that holds no unsigned integers.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.full((4, 4, 50), 20, "u1"), energy=range(50), energy_units="keV")
    >>> kept, rest = thin(cube, seed=1)
    >>> bool((kept + rest == cube).all()), bool(abs(float(kept.mean()) - 10) < 1)
    (True, True)
    """
    check_cube(cube)
    if cube.dtype.kind != "u":
        raise InputError(f"thin: counts are divided, unsigned integers, got {cube.dtype}; type cube.astype('uint16')")
    chance = isinstance(fraction, numbers.Real) and not isinstance(fraction, bool) and 0 < float(fraction) < 1
    if not chance:
        raise InputError(f"thin: fraction={fraction!r}; a number between 0 and 1 is expected")
    dims = navigation_dims(cube)
    number: Any = xr.zeros_like(cube.isel({ENERGY: 0}, drop=True), dtype=np.int64).drop_vars(MASK, errors="ignore")
    for dim in dims:
        along = xr.DataArray(np.arange(cube.sizes[dim], dtype=np.int64), dims=dim)
        number = number * cube.sizes[dim] + along
    plain = cube.drop_vars(MASK, errors="ignore")
    if plain.chunks is not None:
        plain = plain.chunk({ENERGY: -1})
    kept: xr.DataArray = xr.apply_ufunc(
        divide,
        plain,
        number.transpose(*dims),
        kwargs={"seed": int(seed), "fraction": float(fraction)},
        input_core_dims=[[ENERGY], []],
        output_core_dims=[[ENERGY]],
        dask="parallelized",
        output_dtypes=[cube.dtype],
    ).assign_attrs(cube.attrs)
    rest = (plain - kept).astype(cube.dtype).assign_attrs(cube.attrs)
    halves = [kept, rest]
    for i, half in enumerate(halves):
        same = half.assign_coords({n: c for n, c in cube.coords.items() if n not in half.coords})
        halves[i] = with_history(same, thinned(fraction=fraction, seed=seed)[i])
    return halves[0], halves[1]


def thinned(*, fraction: float = 0.5, seed: int = 0) -> tuple[str, str]:
    """What the history of each cube of `thin` says, and so that of a result that was fitted to it.

    Examples
    --------
    >>> thinned(seed=3)[0]
    'thin(fraction=0.5, seed=3), kept'
    """
    line = f"thin(fraction={fraction:g}, seed={seed})"
    return f"{line}, kept", f"{line}, rest"
