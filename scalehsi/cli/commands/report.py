"""Write a page that shows a result.

Spectra with their lines, maps with a scale bar, the quality of the fit, and where everything comes from. The page
holds its pictures and can be sent by itself. Other methods may be set beside:

\b
scalehsi report psnmf.zarr page --cube map.zarr --line 'Nd La' --beside PCA=pca.zarr
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import xarray as xr
from typer import Argument, Option

import scalehsi as hsi
from scalehsi.cli.arguments import Elements, Overwrite, Result, elements_of, literal
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.io import open_dataset
from scalehsi.schema import InputError


@command
def run(
    session: Session,
    result: Result,
    folder: Annotated[Path, Argument(metavar="DIR", help="The folder to make.")],
    *,
    elements: Elements = None,
    truth: Annotated[Path | None, Option(metavar="TRUTH", help="The truth of a simulation.")] = None,
    beside: Annotated[
        list[str] | None,
        Option("--beside", metavar="[NAME=]RESULT", help="A result of another method; may be repeated."),
    ] = None,
    cube: Annotated[
        Path | None, Option(metavar="CUBE", help="What was fitted: adds the map of a line, denoised.")
    ] = None,
    line: Annotated[str | None, Option(metavar="LINE", help="Of that map, such as 'Nd La' or 5.1,5.3.")] = None,
    title: Annotated[str | None, Option(metavar="TEXT", help="Heading of the page.")] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    named = elements_of(elements)
    check_report_folder(folder, overwrite=overwrite)
    fitted = hsi.open_result(session.path(result))
    if named is not None:
        fitted = fitted.assign_attrs(elements=named)
    known = None if truth is None else open_dataset(session.path(truth))
    others = {name: hsi.open_result(session.path(path)) for name, path in _named(beside or ()).items()}
    data = None if cube is None else hsi.open_cube(session.path(cube))
    window = None if line is None else literal(line)
    more = {"truth": known, "others": others, "cube": data, "line": window, "title": title}
    with session.connected():
        page = write_report(session, fitted, folder, overwrite=overwrite, **more)
    return {"report": page, "result": str(result), "warnings": session.console.show_warnings(fitted)}


def write_report(session: Session, result: xr.Dataset, folder: Path, *, overwrite: bool, **more: Any) -> str:
    """Write the report of a result into a folder with further arguments of `scalehsi.report`, and return its page."""
    with session.console.busy("drawing the report"):
        page = str(hsi.report(result, folder, overwrite=overwrite, **more))
    session.console.say(f"report: {page}")
    return page


def suggest_report(session: Session, result: Path) -> None:
    """Show the command that writes the report of a result."""
    session.console.say(f"next: scalehsi report {result} {result.with_name(result.stem + '_report')}")


def _named(words: Sequence[str]) -> dict[str, Path]:
    """Results by name: ``NAME=PATH``, or a path whose stem is the name."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        name, path = (name, path) if equals else (Path(word).stem, word)
        if name in found:
            raise InputError(f"--beside gives {name!r} twice; name them apart, for example --beside 'PCA={path}'")
        found[name] = Path(path)
    return found


def check_report_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken, before anything is computed."""
    if folder.is_file():
        raise InputError(f"{str(folder)!r} is a file; give the report a folder of its own")
    if folder.exists() and not overwrite:
        raise InputError(f"{str(folder)!r} exists already; give another folder, or replace it with --overwrite")
