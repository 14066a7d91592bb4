"""The command ``scalehsi report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scalehsi as hsi
from scalehsi.cli.session import Session, literal
from scalehsi.io import open_dataset
from scalehsi.schema import InputError


def report(
    session: Session,
    result: Path,
    folder: Path,
    *,
    truth: Path | None,
    beside: Sequence[str],
    cube: Path | None,
    line: str | None,
    overwrite: bool,
    title: str | None,
) -> dict[str, Any]:
    """Write the page and the pictures of a result."""
    check_report_folder(folder, overwrite=overwrite)
    fitted = hsi.open_result(session.path(result))
    known = None if truth is None else open_dataset(session.path(truth))
    others = {name: hsi.open_result(session.path(path)) for name, path in _named(beside).items()}
    data = None if cube is None else hsi.open_cube(session.path(cube))
    window = None if line is None else literal(line)
    with session.connected(), session.console.busy("drawing the report"):
        page = hsi.report(
            fitted, folder, truth=known, others=others, cube=data, line=window, overwrite=overwrite, title=title
        )
    session.console.say(f"report: {page}")
    return {"report": str(page), "result": str(result)}


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
