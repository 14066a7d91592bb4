"""The report of a result: one self-contained page that a microscopist can read, and its pictures."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import xarray as xr

from scalehsi.io.atomic import remove_abandoned
from scalehsi.plots.composition import composition_of
from scalehsi.plots.digest import Digest, digest
from scalehsi.plots.line_marks import component_marks
from scalehsi.plots.truth import digest_truth
from scalehsi.report.captions import draw, render
from scalehsi.report.chapters import bins, denoised, gaussian_process, methods, registration
from scalehsi.report.compose import compose
from scalehsi.report.page import GENERATOR, Chapter
from scalehsi.schema import InputError

__all__ = ["report"]

PAGE: Final = "index.html"
OURS: Final = re.compile(
    r"index\.html|(maps|composite|spectra|spectrum-\d+|composition|objective|residual|scree|truth|methods(-spectra)?|"
    r"denoised|bins|registration|uncertainty|lengths|scan|seams)\.png"
)
"""Names of all files that a report may write; nothing else is ever replaced."""


def report(
    result: xr.Dataset,
    directory: str | os.PathLike[str],
    *,
    truth: xr.Dataset | None = None,
    others: Mapping[str, xr.Dataset] | None = None,
    cube: xr.DataArray | None = None,
    line: str | Sequence[float] | None = None,
    scan: xr.Dataset | None = None,
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
    others : mapping of str to xarray.Dataset, optional
        Results of other methods on the same cube, by name: their spectra and maps are set beside.
    cube : xarray.DataArray, optional
        What was fitted; adds the map of a line as measured and as denoised by this result and the others, and with a
        truth the table of `scalehsi.metrics.scores.denoise_report`. Costs two readings of the cube.
    line : str or (low, high), optional
        Of that map: an X-ray line such as ``"Nd La"``, an element, or a window in the unit of the energy axis. Default:
        the line of ``cube.attrs["elements"]`` with the fewest counts.
    scan : xarray.Dataset, optional
        What `scalehsi.lengthscale_scan` gives; adds its picture to the report of a `scalehsi.ParallelGP`.
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
    known = None if truth is None else digest_truth(view, truth)
    marks = component_marks(view)
    composition = composition_of(result, view)
    chapters = _chapters(result, view, known, truth=truth, others=others or {}, cube=cube, line=line, scan=scan)
    of_chapters = [drawing for part in chapters for drawing in part.drawings]
    pictures = render([*draw(view, marks, known, composition), *of_chapters])
    heading = title or view.title or f"{view.model} of a spectrum image"
    text = compose(
        result,
        view,
        marks=marks,
        pictures=pictures,
        known=known,
        chapters=chapters,
        title=heading,
        composition=composition,
    )
    files = {picture.file: picture.png for part in pictures.values() for picture in part}
    _write(target, {**files, PAGE: text.encode("utf-8")})
    return target / PAGE


def _chapters(
    result: xr.Dataset,
    view: Digest,
    known: Digest | None,
    *,
    truth: xr.Dataset | None,
    others: Mapping[str, xr.Dataset],
    cube: xr.DataArray | None,
    line: str | Sequence[float] | None,
    scan: xr.Dataset | None,
) -> list[Chapter]:
    """The parts of the page that only some results have."""
    beside = {name: digest(other) for name, other in others.items()}
    methods.check_beside(view, beside)
    every = {**others, methods.own_name(view, beside): result}
    calls = {name: methods.call_of(each) for name, each in every.items() if others}
    found = [methods.chapter(view, beside, known, calls=calls)]
    if cube is not None:
        found.append(denoised.chapter(cube, every, view, window=line, truth=truth))
    elif line is not None:
        raise InputError(f"line={line!r} is drawn from the cube, as measured and as denoised; give cube= too")
    found.append(bins.chapter(result))
    found.append(registration.chapter(result))
    found.append(gaussian_process.chapter(result, view, scan))
    return [part for part in found if part is not None]


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
    remove_abandoned(target)
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
