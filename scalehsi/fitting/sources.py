"""The data of a fit: one cube, or several acquisitions by the names that the model has for them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import xarray as xr

from scalehsi.checks import require
from scalehsi.cube import check_cube, history_of
from scalehsi.fitting.model import Inputs, Model
from scalehsi.schema import InputError, suggest


def select_inputs(data: Any, model: Any) -> Inputs:
    """The data of a fit, checked by their metadata alone.

    Parameters
    ----------
    data : xarray.DataArray, or what else the model takes
    model : Model

    Returns
    -------
    Inputs

    Raises
    ------
    InputError
        For what is not a model, and for what `Model.select_inputs` refuses.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> select_inputs({"spatial": 0}, hsi.NMF(3))
    Traceback (most recent call last):
    ...
    scalehsi.schema.InputError: NMF takes one cube, got a mapping of 'spatial'; give it the cube alone
    """
    if not isinstance(model, Model):
        raise InputError(f"a model such as scalehsi.NMF(n_components=3) is expected, got {type(model).__name__}")
    return model.select_inputs(data)


def named_cubes(
    data: Any, names: Sequence[str], *, optional: Collection[str] = (), model: str
) -> dict[str, xr.DataArray]:
    """The data of a model that takes several cubes by name, in the order of the names.

    Parameters
    ----------
    data : mapping of str to xarray.DataArray
    names : sequence of str
        The names that the model knows.
    optional : collection of str
        Those of them that may be missing; they may be images.
    model : str
        Name of the model, for messages.

    Raises
    ------
    InputError
        For one cube alone, for names that are unknown or missing, and for what is not a cube.

    Examples
    --------
    >>> named_cubes({"b": 0}, ("a", "b"), model="Both")
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
        _check_named(name, data[name])
    return {name: data[name] for name in names if name in data}


def _check_named(name: str, data: Any) -> None:
    """Check a cube; an error names the input."""
    try:
        check_cube(data)
    except InputError as error:
        raise InputError(f"{name!r}: {error}") from error


def provenance(inputs: Inputs) -> str:
    """Source, sizes, dtype and history of each of several inputs, as JSON."""
    return json.dumps(
        {
            name: {
                "source": str(each.attrs.get("source", "")),
                "sizes": {str(d): n for d, n in each.sizes.items()},
                "dtype": str(each.dtype),
                "history": history_of(each.attrs),
            }
            for name, each in {inputs.name: inputs.cube, **inputs.others}.items()
        }
    )
