"""Write parts of a result as files of other programs: spectra, maps, and a figure for a paper."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import xarray as xr

from scalehsi.io.atomic import check_file, local_path, write_file
from scalehsi.io.spectrum_files import emsa_text, table_text
from scalehsi.io.tiff_maps import tiff_of_maps
from scalehsi.plots.components import draw_components
from scalehsi.plots.coordinates import component_names, numbers_of
from scalehsi.plots.digest import digest
from scalehsi.plots.style import to_file
from scalehsi.result import check_result
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, InputError, X, Y

__all__ = ["export"]

FIGURES: Final = (".pdf", ".svg", ".png")
KINDS: Final = {
    ".csv": "a table of spectra",
    ".msa": "one spectrum a file",
    ".tif": "maps",
    ".tiff": "maps",
    **dict.fromkeys(FIGURES, "a figure of maps and spectra"),
}


def export(
    result: xr.Dataset | xr.DataArray,
    path: str | os.PathLike[str],
    *,
    components: Sequence[int | str] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write spectra, maps or a figure of chosen components; the ending of the path says which.

    - ``.csv``: a table of the endmembers, ``energy (eV),matrix (counts),oxide (counts)``; `scalehsi.project` reads it.
    - ``.msa``: the EMSA/MAS format (ISO 22029), which all programs for EELS and EDX read: one file for each component,
      with its name behind the given one.
    - ``.tif``: the abundances as a 32-bit stack of ImageJ, with names, pixel size and unit.
    - ``.pdf``, ``.svg``, ``.png``: map with scale bar and spectrum of each component (`scalehsi.plots.components`).

    Parameters
    ----------
    result : xarray.Dataset or xarray.DataArray
        A result of `scalehsi.fit`. For ``.tif`` also maps of one dim besides y and x first, ``(edge, y, x)``, such as
        ``edge_maps(...)["net"]``.
    path : path
        The file to write.
    components : sequence of int or str, optional
        Numbers, counted from 1 as in the result, or names (`scalehsi.name_components`); all by default.
    overwrite : bool, default False
        Replace files that exist.

    Returns
    -------
    list of pathlib.Path
        The files, one but for ``.msa``. Each appears in one step.

    Raises
    ------
    InputError
        When the ending is not known, there is no such component, a file exists, or the result lacks spectra or maps.

    Examples
    --------
    >>> import tempfile
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> named = hsi.name_components(truth, ["matrix", "oxide", "film", "dirt"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [file.name for file in hsi.export(named, folder + "/s.msa", components=["oxide", 3])]
    ['s_oxide.msa', 's_film.msa']
    """
    place = local_path(path)
    ending = place.suffix.lower()
    if ending not in KINDS:
        known = ", ".join(f"{key} ({words})" for key, words in KINDS.items() if key != ".tiff")
        raise InputError(f"export writes {known}, got {str(path)!r}; to keep the whole result type scalehsi.save")
    if ending in (".tif", ".tiff"):
        maps, names = _maps(result, components)
        check_file(place, overwrite=overwrite)
        files = {place: tiff_of_maps(maps, names)}
    else:
        checked = check_result(result)
        names, chosen = component_names(checked), numbers_of(component_names(checked), components)
        if ending in FIGURES:
            check_file(place, overwrite=overwrite)
            files = {place: to_file(draw_components(digest(checked), chosen), ending[1:])}
        else:
            files = _spectra(checked, place, names, chosen)
    for file in files:
        check_file(file, overwrite=overwrite)
    for file, content in files.items():
        write_file(file, content, overwrite=overwrite)
    return list(files)


def _spectra(result: xr.Dataset, place: Path, names: Sequence[str], chosen: Sequence[int]) -> dict[Path, bytes]:
    """The files of the spectra at these positions."""
    spectra = result[ENDMEMBERS].transpose(COMPONENT, ENERGY)[list(chosen)].compute()
    units = str(spectra.attrs.get("units", "")) or "intensity"
    if place.suffix.lower() == ".csv":
        return {place: table_text(spectra, [names[k] for k in chosen], units=units).encode()}
    files = {}
    for row, k in zip(spectra, chosen, strict=True):
        text = emsa_text(row, title=names[k], units=units, attrs=result.attrs)
        own = re.sub(r"[^\w.+-]+", "_", names[k]).strip("_") or str(k + 1)
        file = place if len(chosen) == 1 else place.with_name(f"{place.stem}_{own}{place.suffix}")
        if file in files:  # names that differ in other signs alone
            file = file.with_name(f"{file.stem}_{k + 1}{file.suffix}")
        files[file] = text.encode("ascii", "replace")
    return files


def _maps(
    result: xr.Dataset | xr.DataArray, components: Sequence[int | str] | None
) -> tuple[xr.DataArray, tuple[str, ...]]:
    """The chosen maps and their names."""
    if isinstance(result, xr.DataArray):
        maps = result
        if maps.ndim < 3 or maps.dims[-2:] != (Y, X):
            raise InputError(f"maps have the dims (something, ..., 'y', 'x'), got {maps.dims}; transpose them")
        first = maps.dims[0]
        labels = maps[first].values if first in maps.coords else range(1, maps.shape[0] + 1)
        names = tuple(str(each) if isinstance(each, str) else f"{first} {each}" for each in labels)
        if first == COMPONENT:
            names = component_names(maps.to_dataset(name=ABUNDANCES).assign_attrs(maps.attrs))
    else:
        maps = check_result(result, spectra=False)[ABUNDANCES].transpose(COMPONENT, ..., Y, X)
        names = component_names(result)
    chosen = numbers_of(names, components)
    return maps[chosen], tuple(names[k] for k in chosen)
