"""A result is an `xarray.Dataset` that says of itself all that is needed to project, reconstruct, resume and report."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import xarray as xr

from scalehsi.cube import history_of
from scalehsi.schema import ABUNDANCES, ADVICE, COMPONENT, ENDMEMBERS, ENERGY, ITERATION, OBJECTIVE, InputError, Status

CARRIED = ("signal", "title", "elements", "beam_energy_keV", "counts_per_pixel")
"""Attributes of a cube that its results keep."""


def make_result(
    variables: Mapping[str, xr.DataArray],
    *,
    cube: xr.DataArray,
    model: str,
    settings: Mapping[str, Any],
    seed: int,
    objective: list[float],
    status: Status,
    advice: str = "",
    source: str = "",
) -> xr.Dataset:
    """Put the variables of a fit together with what it was and where it came from.

    Parameters
    ----------
    variables : mapping of str to xarray.DataArray
        At least ``endmembers`` and ``abundances``.
    cube : xarray.DataArray
        What was fitted; its axes and description are carried over, its values are not touched. Pixels that its mask
        leaves out are NaN in the maps.
    model, settings, seed
        The model's name and the fields of its dataclass.
    objective : list of float
        One value an iteration.
    status : {"converged", "max_iter", "stagnated", "nonfinite", "interrupted"}
    advice : str
        More than the standing sentence of that status, where there is more to say.
    source : str
        Where the cube came from.

    Returns
    -------
    xarray.Dataset
    """
    # Spectra of another acquisition bring the energy axis along.
    own = {str(name) for v in variables.values() for name in v.coords if name in v.dims and name == ENERGY}
    axes = {d: cube.coords[d] for d in map(str, cube.dims) if d in cube.coords and d not in own}
    data = xr.Dataset(dict(variables), coords=axes)
    n = data.sizes[COMPONENT]
    data = data.assign_coords({COMPONENT: (COMPONENT, np.arange(1, n + 1), {"long_name": "component"})})
    data[OBJECTIVE] = (ITERATION, np.asarray(objective, dtype=np.float64), {"long_name": "objective"})
    data.attrs = {
        "model": model,
        "settings": json.dumps(dict(settings), sort_keys=True),
        "seed": int(seed),
        "versions": json.dumps(versions(), sort_keys=True),
        "source": source or str(cube.attrs.get("source", "")),
        "history": [*history_of(cube.attrs), f"fit {model} to {describe_shape(cube)}, seed {seed}: {status}"],
        "status": status,
        "advice": advice or ADVICE[status],
        **{k: cube.attrs[k] for k in CARRIED if k in cube.attrs},
    }
    return data


def describe_shape(cube: xr.DataArray) -> str:
    """The sizes in words.

    Examples
    --------
    >>> describe_shape(xr.DataArray(np.zeros((2, 3, 4)), dims=("y", "x", "energy")))
    'y 2, x 3, energy 4'
    """
    return ", ".join(f"{d} {n}" for d, n in cube.sizes.items())


def versions() -> dict[str, str]:
    """The versions of what computed a result."""
    names = ("scalehsi", "numpy", "scipy", "dask", "distributed", "xarray", "zarr", "numba")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def check_result(result: Any, *, spectra: bool = True) -> xr.Dataset:
    """Give back a result if it is one; read no values.

    Parameters
    ----------
    result : xarray.Dataset
    spectra : bool, default True
        False: one of maps alone will do (`scalehsi.ParallelGP` of maps), which has no endmembers.

    Raises
    ------
    InputError
        With what is missing.
    """
    if isinstance(result, xr.DataArray):
        raise InputError("a result is an xarray.Dataset, got a DataArray (a cube?); fit it first with scalehsi.fit")
    if not isinstance(result, xr.Dataset):
        raise InputError(
            f"a result is an xarray.Dataset, got {type(result).__name__}; open it with scalehsi.open_result"
        )
    needed = (ENDMEMBERS, ABUNDANCES) if spectra else (ABUNDANCES,)
    missing = [v for v in needed if v not in result] + [a for a in ("model",) if a not in result.attrs]
    if missing == [ENDMEMBERS]:
        raise InputError(
            f"this result of {result.attrs['model']} has maps but no spectra; fit the result that the maps came from, "
            "in place of its maps alone"
        )
    if missing:
        raise InputError(f"this Dataset is no result of scalehsi: it lacks {', '.join(missing)}")
    return result


def settings_of(result: xr.Dataset) -> dict[str, Any]:
    """The model's settings as they were."""
    found: dict[str, Any] = json.loads(result.attrs.get("settings", "{}"))
    return found


def map_dims(result: xr.Dataset) -> tuple[str, ...]:
    """The pixel dims of the maps."""
    return tuple(str(d) for d in result[ABUNDANCES].dims if d != COMPONENT)


def component_share(result: xr.Dataset) -> xr.DataArray:
    """Share of the model's total signal that each component carries, dim ``component``; sums to one.

    Cost: one reading of the maps.
    """
    maps = result[ABUNDANCES].fillna(0).sum(list(map_dims(result)))
    total = (maps * result[ENDMEMBERS].sum(ENERGY)).compute()
    whole = float(total.sum())
    share: xr.DataArray = total / whole if whole else total
    return share
