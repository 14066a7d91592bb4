"""The report of a result: one self-contained page that a microscopist can read, and its pictures."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
from pathlib import Path
from typing import Final

import xarray as xr

from scalehsi.atomic import clean_leftovers
from scalehsi.callables import make_callable
from scalehsi.reporting import compare
from scalehsi.reporting.composition import composition_of
from scalehsi.reporting.digest import digest
from scalehsi.reporting.gallery import draw, render
from scalehsi.reporting.marks import component_marks
from scalehsi.reporting.page import GENERATOR
from scalehsi.reporting.sections import compose
from scalehsi.schema import InputError

__all__ = ["report"]

PAGE: Final = "index.html"
OURS: Final = re.compile(
    r"index\.html|(maps|composite|spectra|spectrum-\d+|composition|objective|residual|scree|truth)\.png"
)
"""Names of all files that a report may write; nothing else is ever replaced."""


def report(
    result: xr.Dataset,
    directory: str | os.PathLike[str],
    *,
    truth: xr.Dataset | None = None,
    overwrite: bool = False,
    title: str | None = None,
) -> Path:
    """Write a report of a result: maps, spectra, quality of the fit and where it comes from, on one page.

    The page holds its pictures, so it can be sent by itself; the PNGs lie beside it for slides. It is written beside
    its place and then renamed: a report that fails leaves nothing behind, and an old one stays until the new one is
    whole.

    Parameters
    ----------
    result : xarray.Dataset
        What `scalehsi.fit` returns. It may be lazy and of any size: each map is read once, in blocks, and averaged
        down to what a picture shows, so memory stays at some hundred megabytes.
    directory : path
        Folder to make; its parents are made too.
    truth : xarray.Dataset, optional
        What the data were simulated from (`endmembers`, `abundances`); adds spectral angles and a side-by-side view.
    overwrite : bool, default False
        Replace an earlier report. A folder that holds anything else is refused even then.
    title : str, optional
        Heading of the page; the result's own title by default.

    Returns
    -------
    pathlib.Path
        The page, ``directory/index.html``.

    Raises
    ------
    InputError
        When the result lacks something, or the folder exists and `overwrite` is False, or holds what no report wrote.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> hsi.report(result, "report", truth=truth)  # doctest: +SKIP
    PosixPath('report/index.html')
    """
    target = Path(directory)
    check_directory(target, overwrite=overwrite)
    view = digest(result)
    known = None if truth is None else compare.digest_truth(view, truth)
    marks = component_marks(view)
    composition = composition_of(result, view)
    pictures = render(draw(view, marks, known, composition))
    heading = title or view.title or f"{view.model} of a spectrum image"
    text = compose(result, view, marks=marks, pictures=pictures, known=known, title=heading, composition=composition)
    files = {picture.file: picture.png for part in pictures.values() for picture in part}
    _write(target, {**files, PAGE: text.encode("utf-8")})
    return target / PAGE


def check_directory(target: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken by anything but an earlier report; writes nothing.

    Raises
    ------
    InputError
    """
    if not (target.exists() or target.is_symlink()):
        return
    if not target.is_dir():
        raise InputError(f"{target} is a file; give the report a folder of its own")
    if not overwrite:
        raise InputError(
            f"{target} exists already; choose another folder, or replace it with overwrite=True "
            "(--overwrite on the command line)"
        )
    held = sorted(entry.name for entry in target.iterdir())
    foreign = [name for name in held if not OURS.fullmatch(name)]
    if foreign or (held and not _is_report(target / PAGE)):
        raise InputError(
            f"{target} holds what no report wrote ({', '.join((foreign or held)[:3])}), and replacing it would delete "
            "that; choose another folder"
        )


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return GENERATOR.encode() in stream.read(2000)


def _write(target: Path, files: dict[str, bytes]) -> None:
    """Write the files into a hidden folder beside the target, then put it in its place; an old report goes last."""
    # A link is followed, and "." gets its name: what is renamed is the folder itself.
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    clean_leftovers(target)
    token = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    fresh, old = (target.with_name(f".{target.name}.{token}.{end}") for end in ("partial", "old"))
    try:
        fresh.mkdir()
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


make_callable(__name__)
