"""What a fit is given: one cube, or several acquisitions by the names that the model knows them by."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import xarray as xr

from scalehsi.checks import require
from scalehsi.cube import check_cube, history_of
from scalehsi.fitting.model import Model, Sources
from scalehsi.schema import InputError, suggest


def sources(data: Any, model: Any) -> Sources:
    """What a fit is of, checked by its metadata alone.

    Parameters
    ----------
    data : xarray.DataArray, or what else the model takes
    model : Model

    Raises
    ------
    InputError
        For what is no model, and for what `Model.sources` refuses.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> sources({"spatial": 0}, hsi.NMF(3))
    Traceback (most recent call last):
    ...
    scalehsi.schema.InputError: NMF takes one cube, got a mapping of 'spatial'; give it the cube alone
    """
    if not isinstance(model, Model):
        raise InputError(f"a model such as scalehsi.NMF(n_components=3) is expected, got {type(model).__name__}")
    return model.sources(data)


def named(data: Any, names: Sequence[str], *, optional: Collection[str] = (), model: str) -> dict[str, xr.DataArray]:
    """The data of a model that takes several by name, in the order of the names.

    Parameters
    ----------
    data : mapping of str to xarray.DataArray
    names : sequence of str
        What the model knows.
    optional : collection of str
        Those of them that may be missing, and need be no cubes.
    model : str
        Its name, for messages.

    Raises
    ------
    InputError
        For one cube alone, for names that are unknown or missing, and for what is no cube.

    Examples
    --------
    >>> named({"b": 0}, ("a", "b"), model="Both")
    Traceback (most recent call last):
    ...
    scalehsi.schema.InputError: Both lacks 'a'; type hsi.fit({'a': a_cube, 'b': b_cube}, ...)
    """
    needed = [name for name in names if name not in optional]
    example = "{" + ", ".join(f"'{name}': {name}_cube" for name in needed) + "}"
    several = isinstance(data, Mapping) and not isinstance(data, xr.Dataset)
    got = "one cube" if isinstance(data, xr.DataArray) else type(data).__name__
    require(several, f"{model} takes {len(needed)} acquisitions by name, got {got}; type hsi.fit({example}, ...)")
    for name in data:
        require(name in names, f"{model} takes no {name!r}; {suggest(str(name), names)}")
    for name in needed:
        require(name in data, f"{model} lacks {name!r}; type hsi.fit({example}, ...)")
        _called(name, data[name])
    return {name: data[name] for name in names if name in data}


def _called(name: str, data: Any) -> None:
    """Check a cube, and say of which of the data the complaint is."""
    try:
        check_cube(data)
    except InputError as error:
        raise InputError(f"{name!r}: {error}") from error


def provenance(given: Sources) -> str:
    """Where each of several sources came from and what was done to it, as JSON."""
    return json.dumps(
        {
            name: {
                "source": str(each.attrs.get("source", "")),
                "sizes": {str(d): n for d, n in each.sizes.items()},
                "dtype": str(each.dtype),
                "history": history_of(each.attrs),
            }
            for name, each in {given.name: given.cube, **given.beside}.items()
        }
    )
