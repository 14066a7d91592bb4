"""Read reference spectra from files: results, tables with units (.csv), and spectra of other programs (.msa ...)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr

from scalehsi.chunks import MiB
from scalehsi.cube import energy_factor
from scalehsi.io.open import existing_path, open_cube, open_result
from scalehsi.schema import COMPONENT, ENDMEMBERS, ENERGY, InputError, usual_unit

TABLES: Final = (".csv", ".txt", ".tsv")
TABLE_BYTES: Final = 64 * MiB
STORES: Final = (".zarr", ".nc", ".zip")


def open_spectra(path: str | os.PathLike[str]) -> xr.DataArray:
    """Open the reference spectra of one file.

    Parameters
    ----------
    path : path
        A result of scalehsi (its endmembers); a table ``.csv`` whose first column is the energy, with its unit in the
        header, ``energy (eV), Cu, Zn``, and whose other columns are spectra; or any file with one or several spectra
        that RosettaSciIO reads, such as ``.msa``.

    Returns
    -------
    DataArray, dims (component, energy)
        The coordinate ``name`` has the headers of the columns, or the name of the file.

    Raises
    ------
    InputError
        When the file has no spectra, no unit of energy, or values that are no numbers.
    """
    place = existing_path(path)
    if place.suffix.lower() in STORES:
        result = open_result(place)
        found: xr.DataArray = result[ENDMEMBERS].transpose(COMPONENT, ENERGY)
        return found.drop_vars(COMPONENT, errors="ignore")
    if place.suffix.lower() in TABLES:
        return _table(place)
    cube = open_cube(place)
    rows = np.asarray(cube.values, dtype=np.float64).reshape(-1, cube.sizes[ENERGY])
    return _as_spectra(rows, cube[ENERGY], [place.stem] * len(rows))


def _table(path: Path) -> xr.DataArray:
    """The spectra of a table with one header line; columns are separated by commas, semicolons, tabs or blanks."""
    if path.is_dir() or path.stat().st_size > TABLE_BYTES:
        raise InputError(f"{path.name!r} is no table of spectra, a text file of at most {TABLE_BYTES / 1e6:.0f} MB")
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputError(f"{path.name!r} is no text; save the table as UTF-8") from None
    example = "its first line is such as: energy (eV),Cu,Zn"
    if len(lines) < 2:
        raise InputError(f"{path.name!r} holds no table of spectra; {example}")
    separator = next((mark for mark in (",", ";", "\t") if mark in lines[0]), None)
    header = [word.strip() for word in lines[0].split(separator)]
    if separator is None and (joined := re.match(r"(\S+\s+[(\[]\S+[)\]])\s+(.*)", lines[0].strip())):
        header = [joined[1], *joined[2].split()]
    unit = usual_unit(header[0])
    if energy_factor(unit) is None:
        raise InputError(
            f"the first column of {path.name!r} is {header[0]!r}, which names no unit of energy; {example}"
        )
    try:
        values = np.array([[float(word) for word in line.split(separator)] for line in lines[1:]])
    except ValueError as error:
        raise InputError(f"{path.name!r} is no table of numbers below its header ({error}); {example}") from None
    if values.ndim != 2 or values.shape[1] != len(header) or len(header) < 2:
        raise InputError(f"{path.name!r} has {len(header)} headers and rows of another length; {example}")
    axis = xr.DataArray(values[:, 0], dims=ENERGY, attrs={"units": unit})
    names = [re.sub(r" \((counts|intensity)\)$", "", name) for name in header[1:]]  # of `scalehsi.export`
    return _as_spectra(values[:, 1:].T, axis, names)


def _as_spectra(rows: np.ndarray, axis: xr.DataArray, names: list[str]) -> xr.DataArray:
    """Spectra (K, E) with their energy axis and the name of each."""
    coords = {ENERGY: (ENERGY, np.asarray(axis.values, dtype=np.float64), dict(axis.attrs)), "name": (COMPONENT, names)}
    return xr.DataArray(rows, dims=(COMPONENT, ENERGY), coords=coords)
