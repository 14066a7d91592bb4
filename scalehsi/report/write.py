"""Write the report of a result: one self-contained page and its figures, in one step."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import xarray as xr

from scalehsi.io.atomic import remove_abandoned, replacing_folder
from scalehsi.plots.digest import digest
from scalehsi.plots.line_marks import component_marks
from scalehsi.plots.truth import digest_truth
from scalehsi.report.chapters import Context, applicable_chapters
from scalehsi.report.headline import headline
from scalehsi.report.page import GENERATOR, embedded, render_drawings, render_page
from scalehsi.schema import InputError

__all__ = ["report"]

PAGE: Final = "index.html"


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
    """Write a report of a result on one page: maps, spectra, quality of the fit, and provenance.

    The page contains its figures, so that it can be sent as a single file; the PNG files beside it are for slides. The
    report appears in one step: after an error nothing is left behind, and an earlier report is unchanged.

    Parameters
    ----------
    result : xarray.Dataset
        A result of `scalehsi.fit`, of any size and also lazy. Each map is read once, in blocks, and averaged to the
        resolution of a figure, so that a few hundred megabytes of memory suffice.
    directory : path
        Folder to create, with its parents.
    truth : xarray.Dataset, optional
        Truth of simulated data (`endmembers`, `abundances`); adds spectral angles, and maps and spectra side by side.
    others : mapping of str to xarray.Dataset, optional
        Results of other methods on the same cube, by name; adds a comparison of spectra and maps.
    cube : xarray.DataArray, optional
        The cube that was fitted; adds the map of a line as measured and as modelled by this result and the others, and
        with a truth the table of `scalehsi.metrics.denoise_report`. This reads the cube twice.
    line : str or (low, high), optional
        The line of that map: an X-ray line such as ``"Nd La"``, an element, or a window in the unit of the energy axis.
        Default: the line of ``cube.attrs["elements"]`` with the fewest counts.
    scan : xarray.Dataset, optional
        Scan of `scalehsi.lengthscale_scan`; adds its figure to the report of a `scalehsi.ParallelGP`.
    overwrite : bool, default False
        Whether an earlier report is replaced. A folder with any other file is never replaced.
    title : str, optional
        Heading of the page. Default: the title of the result.

    Returns
    -------
    pathlib.Path
        The page, ``directory/index.html``.

    Raises
    ------
    InputError
        When the result lacks a variable, the folder exists and `overwrite` is False, the folder holds a file that no
        report wrote, or an optional argument does not fit the result.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> hsi.report(result, "report", truth=truth)  # doctest: +SKIP
    PosixPath('report/index.html')
    """
    target = Path(directory)
    check_directory(target, overwrite=overwrite)
    view = digest(result)
    marks = component_marks(view)
    context = Context(
        result,
        marks,
        truth=truth,
        truth_view=None if truth is None else digest_truth(view, truth),
        others=others or {},
        cube=cube,
        line=line,
        scan=scan,
    )
    chapters = applicable_chapters(view, context)
    pictures = render_drawings(drawing for chapter in chapters for drawing in chapter.drawings)
    page = render_page(
        title=title or view.title or f"{view.model} of a spectrum image",
        head=headline(result, view, marks),
        chapters=chapters,
        pictures=pictures,
        foot=f"Written by scalehsi from {view.source or 'a result in memory'}.",
    )
    _write(
        target,
        {**{file: picture.png for file, picture in pictures.items()}, PAGE: page.encode("utf-8")},
        overwrite=overwrite,
    )
    return target / PAGE


def check_directory(target: Path, *, overwrite: bool) -> None:
    """Refuse a path that holds anything but an earlier report; write nothing.

    Raises
    ------
    InputError
        When the path is a file, exists and may not be replaced, or holds files that no report wrote.
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
    foreign = _foreign_files(target)
    if foreign:
        raise InputError(
            f"{target} holds files that no report wrote ({', '.join(foreign[:3])}), and replacing it would delete "
            "them; choose another folder"
        )


def _foreign_files(folder: Path) -> list[str]:
    """Names in a folder that are not part of a report: a report is a page, and pictures that the page embeds."""
    entries = sorted(folder.iterdir())
    page = (folder / PAGE).read_bytes() if (folder / PAGE).is_file() else b""
    if GENERATOR.encode() not in page[:2000]:
        return [entry.name for entry in entries]

    def is_embedded(file: Path) -> bool:
        if not file.is_file() or file.stat().st_size > len(page):
            return False
        return f'base64,{embedded(file.read_bytes())}"'.encode() in page

    return [entry.name for entry in entries if entry.name != PAGE and not is_embedded(entry)]


def _write(target: Path, files: Mapping[str, bytes], *, overwrite: bool) -> None:
    """Write the files, by name, to a new folder and put it in the place of the target.

    overwrite: whether an earlier report there may be replaced.
    """
    # A link is followed, and "." gets its name, because the folder itself is renamed.
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target)
    with replacing_folder(target, check=partial(check_directory, target, overwrite=overwrite)) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
