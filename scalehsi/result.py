"""Assemble, check and read a result, an `xarray.Dataset` with all that projection, resume and report need."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any, Final, NamedTuple, get_args

import numpy as np
import xarray as xr

from scalehsi.cube import history_of
from scalehsi.schema import (
    ABUNDANCES,
    ADVICE,
    BACKGROUND,
    COMPONENT,
    CORE,
    ENDMEMBERS,
    ENERGY,
    ITERATION,
    MODE_FACTORS,
    OBJECTIVE,
    InputError,
    Status,
    X,
    Y,
)

KEPT_ATTRS = ("signal", "title", "elements", "beam_energy_keV", "counts_per_pixel", "parent")
"""Attributes of a cube that its results keep."""

MAX_WARNINGS: Final = 6
"""Warnings that are listed; the last text says how many more there are."""


class ResultWarning(NamedTuple):
    """What a careful colleague would object to in a result.

    Attributes
    ----------
    code : str
        Short name, for scripts: "drift".
    text : str
        One or two sentences with numbers and a place.
    remedy : str
        A command or setting to paste; empty where nothing helps.
    """

    code: str
    text: str
    remedy: str = ""


def warnings_text(found: Sequence[ResultWarning]) -> str:
    """The value of ``attrs["warnings"]``: a JSON list of at most `MAX_WARNINGS`; "[]" when there is nothing."""
    listed = [w._asdict() for w in found[:MAX_WARNINGS]]
    if len(found) > MAX_WARNINGS:
        listed[-1]["text"] += f" (and {len(found) - MAX_WARNINGS} more warnings)"
    return json.dumps(listed, ensure_ascii=False)


def result_warnings(result: xr.Dataset | xr.DataArray) -> list[ResultWarning]:
    """The warnings that a fit left in its result; none for results of earlier versions.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> result_warnings(hsi.fit(cube, hsi.NMF(4), seed=0))
    []
    """
    found = _of_json(result, "warnings", list)
    keys = set(ResultWarning._fields)
    for each in found:
        if not isinstance(each, dict) or not {"code", "text"} <= each.keys() <= keys or _not_text(each.values()):
            raise InputError(f"the warnings of this result are none: {ascii(each)[:100]}; del result.attrs['warnings']")
    return [ResultWarning(**each) for each in found]


def _not_text(values: Iterable[Any]) -> bool:
    return not all(isinstance(v, str) for v in values)


def _of_json(result: xr.Dataset | xr.DataArray, name: str, kind: type) -> Any:
    """The value of an attribute that is a JSON document; empty where there is none. kind: list or dict."""
    text = result.attrs.get(name, "")
    try:
        found = json.loads(text) if text else kind()
    except (TypeError, ValueError, RecursionError):
        found = None
    if not isinstance(found, kind):
        what = {dict: "object", list: "list"}[kind]
        raise InputError(f"attrs[{name!r}] of this result is no JSON {what}; save the result of the fit again")
    return found


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
    warnings: Sequence[ResultWarning] = (),
) -> xr.Dataset:
    """Assemble the variables of a fit, its settings and its provenance as a result.

    Parameters
    ----------
    variables : mapping of str to xarray.DataArray
        At least ``endmembers`` and ``abundances``.
    cube : xarray.DataArray
        The fitted cube. Its axes and description are copied, its values are not read. Pixels that its mask excludes
        are NaN in the maps.
    model : str
        Name of the model.
    settings : mapping
        The fields of its dataclass.
    seed : int
        Of the fit.
    objective : list of float
        One value for each iteration.
    status : {"converged", "max_iter", "stagnated", "nonfinite", "interrupted"}
        How the fit ended.
    advice : str, default ""
        In place of the general advice for the status.
    source : str, default ""
        Path of the cube; default: that in its attributes.
    warnings : sequence of ResultWarning, default ()
        In order. The advice says how many there are, and repeats the first.

    Returns
    -------
    xarray.Dataset
        With the attributes of a result.
    """
    # The spectra of another acquisition have their own energy axis.
    own = {str(name) for v in variables.values() for name in v.coords if name in v.dims and name == ENERGY}
    axes = {d: cube.coords[d] for d in map(str, cube.dims) if d in cube.coords and d not in own}
    data = xr.Dataset(dict(variables), coords=axes)
    n = data.sizes[COMPONENT]
    data = data.assign_coords({COMPONENT: (COMPONENT, np.arange(1, n + 1), {"long_name": "component"})})
    data[OBJECTIVE] = (ITERATION, np.asarray(objective, dtype=np.float64), {"long_name": "objective"})
    data.attrs = {
        "model": model,
        "status": status,
        "advice": _advice(advice or ADVICE[status], warnings),
        "warnings": warnings_text(warnings),
        "settings": json.dumps(dict(settings), sort_keys=True),
        "seed": int(seed),
        "versions": json.dumps(versions(), sort_keys=True),
        "source": source or str(cube.attrs.get("source", "")),
        "history": [*history_of(cube.attrs), f"fit {model} to {describe_shape(cube)}, seed {seed}: {status}"],
        **{k: cube.attrs[k] for k in KEPT_ATTRS if k in cube.attrs},
    }
    data.attrs = plain_attrs(data.attrs)
    for name in data.variables:
        # A unit of no letters is none, and xarray writes it as "[]" on the axes of its plots.
        data[name].attrs = {k: v for k, v in data[name].attrs.items() if k != "units" or v}
    return data


def _advice(standing: str, warnings: Sequence[ResultWarning]) -> str:
    """How the fit ended, the number of its warnings, and the first of them."""
    if not warnings:
        return standing
    number = "1 warning" if len(warnings) == 1 else f"{len(warnings)} warnings, the first"
    return f"{standing} {number}: {warnings[0].text}"


def advice_alone(result: xr.Dataset | xr.DataArray) -> str:
    """The advice of a result without its words on warnings, for those who show all of them anyway.

    Examples
    --------
    >>> found = [ResultWarning("drift", "Spectra shift."), ResultWarning("spike", "One value is high.")]
    >>> attrs = {"advice": _advice("It settled.", found), "warnings": warnings_text(found)}
    >>> attrs["advice"]
    'It settled. 2 warnings, the first: Spectra shift.'
    >>> advice_alone(xr.Dataset(attrs=attrs))
    'It settled.'
    """
    advice, first = str(result.attrs.get("advice", "")), result_warnings(result)[:1]
    return re.sub(rf" \d+ warnings?(, the first)?: {re.escape(first[0].text)}", "", advice) if first else advice


def plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as every format of files can hold them: texts and numbers, in place of lists of texts.

    Examples
    --------
    >>> plain_attrs({"history": ["opened a.dm4", "crop(y=3)"], "elements": ["Mg", "O"], "seed": 0})
    {'history': 'opened a.dm4\\ncrop(y=3)', 'elements': 'Mg, O', 'seed': 0}
    """
    lists = {k: [str(each) for each in v] for k, v in attrs.items() if _is_list_of_texts(v)}
    return {**attrs, **{k: ("\n" if k == "history" else ", ").join(v) for k, v in lists.items()}}


def _is_list_of_texts(value: Any) -> bool:
    """Also an empty list, which no file holds."""
    return np.ndim(value) == 1 and (np.size(value) == 0 or np.asarray(value).dtype.kind in "OUT")


def describe_shape(cube: xr.DataArray) -> str:
    """The sizes by dim, as text.

    Examples
    --------
    >>> describe_shape(xr.DataArray(np.zeros((2, 3, 4)), dims=("y", "x", "energy")))
    'y 2, x 3, energy 4'
    """
    return ", ".join(f"{d} {n}" for d, n in cube.sizes.items())


def versions() -> dict[str, str]:
    """Versions of Python, of scalehsi and of the libraries that computed a result."""
    names = ("scalehsi", "numpy", "scipy", "dask", "distributed", "xarray", "zarr", "numba")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def check_result(result: Any, *, spectra: bool = True) -> xr.Dataset:
    """Return a Dataset that is a result; refuse others. Reads no values.

    Parameters
    ----------
    result : xarray.Dataset
    spectra : bool, default True
        False: also accept a result without endmembers, such as that of `scalehsi.ParallelGP` for maps alone.

    Raises
    ------
    InputError
        When it is no Dataset, a variable or attribute is missing, or is of another kind.
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
    if not isinstance(result.attrs["model"], str):
        raise InputError(
            f"this Dataset is no result of scalehsi: its model is a {type(result.attrs['model']).__name__}"
        )
    check_variables(result)
    if ENDMEMBERS in result:
        _check_energy(result)
    settings_of(result)
    result_warnings(result)
    for name in ("versions", "parent"):
        _of_json(result, name, dict)
    status = result.attrs.get("status")
    if status is not None and status not in get_args(Status):
        raise InputError(
            f"attrs['status'] of this result is {ascii(status)[:60]}, expected one of {', '.join(get_args(Status))}; "
            "save the result of the fit again"
        )
    return result


def check_variables(data: xr.Dataset) -> None:
    """Refuse spectra, maps or an objective of other dims, without numbers or of other kinds of values.

    Parameters
    ----------
    data : xarray.Dataset
        A result, or a truth. Its dims may be in another order.

    Raises
    ------
    InputError
        With what is expected.
    """
    for name, text, expected in (
        (ENDMEMBERS, "(component, energy)", {COMPONENT, ENERGY}),
        (ABUNDANCES, "(component, ..., y, x)", {COMPONENT, Y, X}),
        (OBJECTIVE, "(iteration)", {ITERATION}),
    ):
        if name not in data:
            continue
        variable, dims = data[name], tuple(map(str, data[name].dims))
        if not expected <= set(dims) or (name != ABUNDANCES and len(dims) > len(expected)):
            raise InputError(f"{name} of a result has the dims {text}, got ({', '.join(dims)})")
        if variable.dtype.kind not in "uif":
            raise InputError(f"{name} of a result holds real numbers, got {variable.dtype}")
        if variable.size == 0 and name != OBJECTIVE:
            raise InputError(f"{name} of this result is empty: {describe_shape(variable)}")
    names = names_of_components(data.attrs)
    if names and COMPONENT in data.sizes and len(names) != data.sizes[COMPONENT]:
        raise InputError(
            f"attrs['components'] names {len(names)} components, the arrays have {data.sizes[COMPONENT]}; "
            "name each of them, or del attrs['components']"
        )


def names_of_components(attrs: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in ``attrs["components"]``, a list or a text with commas or blanks between them; empty without.

    Examples
    --------
    >>> names_of_components({"components": "Fe oxide, matrix"}), names_of_components({"components": ["A", "B"]})
    (('Fe oxide', 'matrix'), ('A', 'B'))
    """
    given = attrs.get("components")
    if isinstance(given, str):
        return tuple(name.strip() for name in (given.split(",") if "," in given else given.split()) if name.strip())
    return () if given is None else tuple(map(str, np.ravel(given)))


def name_components(result: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Name the components of a result once, for its plots and report, for files, and for all that is made from it.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `scalehsi.fit`, or of `scalehsi.open_result`.
    names : sequence of str
        One for each component, in their order: ``["matrix", "Fe oxide"]``.

    Returns
    -------
    xarray.Dataset
        A copy that shares its values. The names are in ``attrs["components"]``; `scalehsi.save`, `scalehsi.report`,
        `scalehsi.export`, `scalehsi.plots`, `scalehsi.project`, `scalehsi.reconstruct` and `scalehsi.quantify` keep
        them. Components are still selected by number, ``result.sel(component=1)``.

    Raises
    ------
    InputError
        When there are more or fewer names than components, two are equal, or one is empty, holds a comma or a line
        break, or is no text.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> result = hsi.fit(cube, hsi.NMF(4, max_iter=10), seed=0)
    >>> names_of_components(hsi.name_components(result, ["matrix", "Fe oxide", "film", "dirt"]).attrs)
    ('matrix', 'Fe oxide', 'film', 'dirt')
    """
    check_result(result, spectra=False)
    count = result.sizes[COMPONENT]
    example = f"give {count} texts, such as {[f'phase {k + 1}' for k in range(min(count, 2))]}"
    given = [names] if isinstance(names, str) else list(names)
    if not all(isinstance(name, str) for name in given):
        raise InputError(f"names of components are texts, got {given!r}; {example}")
    given = [name.strip() for name in given]
    if len(given) != count:
        raise InputError(f"{len(given)} names are given for {count} components; {example}")
    for name in given:
        if not name.isprintable() or not name or "," in name or given.count(name) > 1:
            raise InputError(f"{name!r} cannot name a component: names differ, and hold neither commas nor line breaks")
    # The comma behind a single name keeps its blanks from separating it.
    return result.assign_attrs(components=", ".join(given) + ("," if count == 1 else ""))


def _check_energy(result: xr.Dataset) -> None:
    """Refuse energies that are no numbers; without any, channels are counted."""
    if ENERGY not in result.coords:
        return
    axis = result[ENERGY]
    if axis.dtype.kind not in "uif" or not np.isfinite(np.asarray(axis.values, dtype=np.float64)).all():
        raise InputError("the energy axis of this result holds NaN, Inf or what is no number; save the result again")


def settings_of(result: xr.Dataset) -> dict[str, Any]:
    """The settings of the model."""
    found: dict[str, Any] = _of_json(result, "settings", dict)
    return found


def map_dims(result: xr.Dataset) -> tuple[str, ...]:
    """The pixel dims of the maps."""
    return tuple(str(d) for d in result[ABUNDANCES].dims if d != COMPONENT)


def model_spectra(result: xr.Dataset) -> xr.DataArray:
    """The spectra that the maps multiply: endmembers, with their background or their factors where they have them.

    Dims (component, ..., energy), with the dims of the other short modes of a tensor in between.
    """
    if CORE in result:
        ranks = [d for d in result[CORE].dims if d != COMPONENT]
        parts = [v for v in result.data_vars.values() if set(v.dims) & set(ranks)]
        mixed: xr.DataArray = xr.dot(*parts, dim=ranks)
        return mixed.transpose(COMPONENT, ..., ENERGY)
    spectra: xr.DataArray = result[ENDMEMBERS] + result[BACKGROUND] if BACKGROUND in result else result[ENDMEMBERS]
    for name in filter(lambda name: str(name).endswith(MODE_FACTORS), result.data_vars):
        spectra = spectra * result[name]
    return spectra.transpose(COMPONENT, ..., ENERGY)


def total_signal(result: xr.Dataset) -> xr.DataArray:
    """Signal of a pixel of abundance one of each component, over all energies and frames; dim ``component``."""
    spectra = model_spectra(result)
    return spectra.sum([d for d in spectra.dims if d != COMPONENT])


def component_share(result: xr.Dataset) -> xr.DataArray:
    """Share of each component in the total signal of the model, dim ``component``; sums to one. Reads the maps once."""
    maps = result[ABUNDANCES].fillna(0).sum(list(map_dims(result)))
    total = (maps * total_signal(result)).compute()
    whole = float(total.sum())
    share: xr.DataArray = total / whole if whole else total
    return share
