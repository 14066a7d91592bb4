"""Arguments and options that several commands share, and the functions that read their values."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from scalehsi.physics.lines import atomic_number
from scalehsi.schema import InputError

Cube = Annotated[Path, Argument(metavar="CUBE", help="A Zarr store, or a file of any known format.")]
Source = Annotated[Path, Argument(metavar="SRC", help="A file of any known format, or a Zarr store.")]
Destination = Annotated[Path, Argument(metavar="DST", help="The store to make, such as map.zarr.")]
Result = Annotated[Path, Argument(metavar="RESULT", help="A store that scalehsi fit wrote.")]
Out = Annotated[Path, Argument(metavar="OUT", help="The store to make, such as out.zarr.")]
Dataset = Annotated[str | None, Option(metavar="NAME", help="Which dataset of the file: its number or title.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace the destination if it exists.")]
ModelName = Annotated[str, Option("--model", "-m", metavar="NAME", help="The method. See scalehsi models.")]
Components = Annotated[
    int | None,
    Option(
        "-k",
        "--components",
        metavar="K",
        help="Number of components. Needed by every method with a setting n_components, that is by all but parallelgp.",
    ),
]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the method, such as loss=poisson; may be repeated. See scalehsi models NAME.",
    ),
]
Seed = Annotated[int, Option(min=0, metavar="N", help="The same seed gives the same result.")]
ReportFolder = Annotated[Path | None, Option(metavar="DIR", help="Also write a report.")]
Spectral = Annotated[Path | None, Option(metavar="CUBE", help="For pansharpen: the map of large pixels.")]
Inputs = Annotated[
    list[str] | None,
    Option(
        "--input",
        metavar="NAME=CUBE",
        help="For couplednmf: a signal by name, such as eels=a.zarr, in place of CUBE; for each signal.",
    ),
]
Elements = Annotated[str | None, Option("--elements", "-e", metavar="A,B,...", help="Of the sample, such as Mg,Si,O.")]


def settings_of(pairs: Sequence[str] | None, *, option: str = "--set loss=poisson") -> dict[str, Any]:
    """Read ``key=value`` words.

    Parameters
    ----------
    pairs : sequence of str, optional
    option : str
        An example, whose first word is the option of the words.

    Examples
    --------
    >>> settings_of(["loss=poisson", "tol=1e-6", "weighting=null", "shape=16,16"])
    {'loss': 'poisson', 'tol': 1e-06, 'weighting': None, 'shape': (16, 16)}
    """
    found: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise InputError(f"{option.split()[0]} {pair!r}: key=value is expected, for example {option}")
        if key in found:
            raise InputError(f"{option.split()[0]} gives {key!r} twice; leave one out")
        found[key] = literal(value.strip())
    return found


def literal(text: str) -> Any:
    """Read a value: JSON, a Python literal or numbers with commas, and text otherwise.

    Examples
    --------
    >>> literal("true"), literal("16,16"), literal("poisson")
    (True, (16, 16), 'poisson')
    """
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def dataset_of(given: str | None) -> int | str | None:
    """A dataset by its number or its name, as `scalehsi.open_cube` takes it."""
    return int(given) if given is not None and given.isdecimal() else given


def elements_of(words: str | None) -> list[str] | None:
    """Element symbols that are separated by commas or blanks.

    Raises
    ------
    InputError
        For an unknown element, with the nearest one.

    Examples
    --------
    >>> elements_of("Mg, Si O")
    ['Mg', 'Si', 'O']
    """
    if words is None:
        return None
    symbols = words.replace(",", " ").split()
    for symbol in symbols:
        atomic_number(symbol)
    return symbols
