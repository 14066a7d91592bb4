"""Split the counts of a cube at random into two independent cubes."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.cube import check_cube, navigation_dims, with_history
from scalehsi.kernels.statistics.thinning import thin as divide
from scalehsi.schema import ENERGY, MASK, InputError


def thin(cube: xr.DataArray, *, fraction: float = 0.5, seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    """Divide the counts at random between two cubes, which are then independent measurements of the same sample.

    A feature that is found in both is real, and a model that is fitted to one is tested on the other.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``; counts, unsigned integers.
    fraction : float, default 0.5
        Probability of each count to be in the first cube, above 0 and below 1.
    seed : int, default 0
        Of the random numbers.

    Returns
    -------
    kept, rest : xarray.DataArray
        Lazy for a lazy cube; their sum is the cube. The result does not depend on the chunks.

    Raises
    ------
    InputError
        When the cube holds no unsigned integers, or ``fraction`` is out of range.

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
    pixel: Any = xr.zeros_like(cube.isel({ENERGY: 0}, drop=True), dtype=np.int64).drop_vars(MASK, errors="ignore")
    for dim in dims:
        pixel = pixel * cube.sizes[dim] + xr.DataArray(np.arange(cube.sizes[dim], dtype=np.int64), dims=dim)
    plain = cube.drop_vars(MASK, errors="ignore")
    if plain.chunks is not None:
        plain = plain.chunk({ENERGY: -1})
    kept: xr.DataArray = xr.apply_ufunc(
        divide,
        plain,
        pixel.transpose(*dims),
        kwargs={"seed": int(seed), "fraction": float(fraction)},
        input_core_dims=[[ENERGY], []],
        output_core_dims=[[ENERGY]],
        dask="parallelized",
        output_dtypes=[cube.dtype],
    ).assign_attrs(cube.attrs)
    rest = (plain - kept).astype(cube.dtype).assign_attrs(cube.attrs)
    lines = thinned(fraction=fraction, seed=seed)
    kept, rest = (with_history(c.assign_coords(cube.coords), line) for c, line in zip((kept, rest), lines, strict=True))
    return kept, rest


def thinned(*, fraction: float = 0.5, seed: int = 0) -> tuple[str, str]:
    """The lines that `thin` adds to the history of its two cubes, and so to that of a result fitted to one.

    Parameters
    ----------
    fraction : float, default 0.5
        As for `thin`.
    seed : int, default 0
        As for `thin`.

    Returns
    -------
    kept, rest : str
        One line for each cube.

    Examples
    --------
    >>> thinned(seed=3)[0]
    'thin(fraction=0.5, seed=3), kept'
    """
    line = f"thin(fraction={fraction:g}, seed={seed})"
    return f"{line}, kept", f"{line}, rest"
