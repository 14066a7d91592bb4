"""What a fit is given: one cube, or several acquisitions by the names that the model knows them by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import xarray as xr

from scalehsi.cube import check_cube, history_of
from scalehsi.models.base import Model, require
from scalehsi.schema import InputError, suggest


def together(data: Any, model: Any) -> tuple[xr.DataArray, dict[str, xr.DataArray]]:
    """The cube whose pixels the maps will have, and the other data by name; all checked by their metadata alone.

    Parameters
    ----------
    data : xarray.DataArray or mapping of str to xarray.DataArray
        A cube, for models whose ``sources`` are empty; else what these names say.
    model : Model

    Raises
    ------
    InputError
        For a mapping where one cube is expected, or the other way round, for names that are unknown or missing, and
        for what the model's own checks find.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> together({"spatial": 0}, hsi.NMF(3))
    Traceback (most recent call last):
    ...
    scalehsi.schema.InputError: NMF takes one cube, got a mapping of 'spatial'; give it the cube alone
    """
    several = isinstance(data, Mapping) and not isinstance(data, xr.Dataset)
    if not several:
        check_cube(data)
    if not isinstance(model, Model):
        raise InputError(f"a model such as scalehsi.NMF(n_components=3) is expected, got {type(model).__name__}")
    names = model.sources
    if not names:
        given = ", ".join(map(repr, data)) if several else ""
        require(not several, f"{model.name} takes one cube, got a mapping of {given}; give it the cube alone")
        model.check(data)
        return data, {}
    needed = [name for name in names if name not in model.optional]
    example = "{" + ", ".join(f"'{name}': {name}_cube" for name in needed) + "}"
    count = len(needed)
    require(several, f"{model.name} takes {count} acquisitions by name, got one cube; type hsi.fit({example}, ...)")
    for name in data:
        require(name in names, f"{model.name} takes no {name!r}; {suggest(str(name), names)}")
    for name in needed:
        require(name in data, f"{model.name} lacks {name!r}; type hsi.fit({example}, ...)")
    main = _named(check_cube, data[names[0]], names[0])
    model.check(main)
    beside = {name: data[name] for name in names[1:] if name in data}
    for name, each in beside.items():
        if name in needed:
            _named(check_cube, each, name)
    model.check_beside(main, beside)
    return main, beside


def _named(check: Any, data: Any, name: str) -> xr.DataArray:
    """Run a check, and say of which of the data its complaint is."""
    try:
        checked: xr.DataArray = check(data)
    except InputError as error:
        raise InputError(f"{name!r}: {error}") from error
    return checked


def provenance(main: xr.DataArray, beside: Mapping[str, xr.DataArray], model: Model) -> str:
    """Where each of several sources came from and what was done to it, as JSON."""
    every = {model.sources[0]: main, **beside}
    return json.dumps(
        {
            name: {
                "source": str(each.attrs.get("source", "")),
                "sizes": {str(d): n for d, n in each.sizes.items()},
                "dtype": str(each.dtype),
                "history": history_of(each.attrs),
            }
            for name, each in every.items()
        }
    )
