"""Open, convert and save cubes and results.

Cubes and results are kept as Zarr v3 stores (`scalehsi.io.zarr_store`). Files of other programs are opened through
RosettaSciIO (`scalehsi.io.rosettasciio`), which is optional.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import dask.array as da
import xarray as xr

from scalehsi.chunks import STORAGE_CHUNK_BYTES, MiB, storage_layout
from scalehsi.cube import with_history
from scalehsi.io.atomic import check_exists
from scalehsi.io.rosettasciio import read_image, read_vendor
from scalehsi.io.zarr_store import cube_of_store, image_of_store, read_store
from scalehsi.result import check_result
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, InputError, X, Y

logger = logging.getLogger("scalehsi")

PathLike = str | os.PathLike[str]

LARGE_PIECE_BYTES: Final = 256 * MiB
"""From here on, what has to be held in memory in one piece is worth a warning."""


def open_cube(
    path: PathLike,
    *,
    signal: str | None = None,
    dataset: int | str | None = None,
    reader_options: Mapping[str, Any] | None = None,
) -> xr.DataArray:
    """Open a spectrum image as a lazy cube.

    Parameters
    ----------
    path : path
        A Zarr store (of scalehsi or xarray, v3 or v2), or a file of any format that RosettaSciIO reads (Bruker .bcf,
        Gatan .dm3 and .dm4, Velox .emd, JEOL .pts and .ASW, HyperSpy .hspy and .zspy, .msa, .rpl ...).
    signal : {"EDS", "EELS"} or str, optional
        The kind of signal to take where a file holds several; written into ``attrs["signal"]`` where a file does not
        say what it holds.
    dataset : int or str, optional
        Number (from 0) or title of one signal of a file, or name of a store's variable. Default: the spectrum image;
        of several the one that says EDS or EELS, then the largest.
    reader_options : mapping, optional
        For the format's reader in RosettaSciIO: ``{"sum_frames": False}`` gives the frames of a Velox or JEOL file as a
        leading dim instead of their sum, ``{"rebin_energy": 4}`` joins channels.

    Returns
    -------
    xarray.DataArray
        Dims ``(..., "y", "x", "energy")``; y and x in nm, energy in eV or keV, each with ``attrs["units"]``. Lengths
        that a file does not calibrate count pixels ("px"). A line scan has one row, a single spectrum one pixel. Frames
        or tilts come first. 4D-STEM ``(y, x, ky, kx)`` has its detector stacked into ``energy`` (units "channel"), of
        shape ``attrs["detector_shape"]``. ``attrs``: signal, title, source, history, and beam energy, elements, live
        time ... where the file knows them.

    Raises
    ------
    InputError
        With what is wrong: no such path (and what is like it), a folder that is no store, a store that is damaged or
        truncated, an unknown format, no spectrum image among what a file holds.

    Notes
    -----
    Nothing but metadata is read, except from formats without a lazy reader (.msa, and the event lists of JEOL and
    Velox), and a Bruker .bcf is decoded whole whenever a part of it is computed: `convert` those first if they are
    large. A store whose energy axis is cut into chunks is joined along it, block by block.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from scalehsi.cube import make_cube
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cube = make_cube(np.ones((2, 3, 4), "u1"), energy=[1, 2, 3, 4], energy_units="keV", signal="EDS")
    ...     path = save(cube, folder + "/map.zarr")
    ...     opened = open_cube(path)
    ...     opened.dims, opened.dtype, opened.energy.attrs["units"]
    (('y', 'x', 'energy'), dtype('uint8'), 'keV')
    """
    cube = _whole_spectra(open_raw(path, signal=signal, dataset=dataset, reader_options=reader_options))
    _tell_cost(cube, Path(path).name)
    return cube


def open_image(path: PathLike, *, dataset: int | str | None = None) -> xr.DataArray:
    """Open an image that was taken beside a spectrum image, such as HAADF, for `scalehsi.PanSharpen`.

    Parameters
    ----------
    path : path
        A Zarr store with a variable of dims (y, x), or a file of any format that RosettaSciIO reads.
    dataset : int or str, optional
        Number (from 0) or title of one signal of a file, or name of a store's variable. Default: the largest image of
        a file, the first of a store.

    Returns
    -------
    xarray.DataArray
        Dims (y, x) in nm, or in pixels ("px") where the file does not calibrate them.

    Raises
    ------
    InputError
        When the path leads nowhere, or to no image.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> image = xr.DataArray(np.ones((2, 3)), dims=("y", "x"), name="haadf")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     open_image(save(image.to_dataset(), folder + "/haadf.zarr")).shape
    (2, 3)
    """
    source = Path(path).expanduser()
    check_exists(source)
    if source.is_dir() and source.suffix.lower() != ".zspy":
        return image_of_store(source, dataset=dataset)
    return read_image(source, dataset=dataset)


def open_result(path: PathLike) -> xr.Dataset:
    """Open a result that `save` wrote, its maps lazy.

    Raises
    ------
    InputError
        When the path leads nowhere, the store is damaged or truncated, or it holds no result.
    """
    data = open_dataset(path)
    if ENDMEMBERS not in data and any(v.dims[-3:] == (Y, X, ENERGY) for v in data.data_vars.values()):
        raise InputError(f"{str(path)!r} is a cube, no result; open it with scalehsi.open_cube (or fit it first)")
    try:
        return check_result(data, spectra=False)
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from None


def open_maps(path: PathLike) -> xr.DataArray:
    """Open the maps of a store, lazy: of a result, of a simulation, or saved alone.

    Returns
    -------
    xarray.DataArray
        Dims ``(component, ..., y, x)``.

    Raises
    ------
    InputError
        When the path leads nowhere, the store is damaged or truncated, or it holds no maps.

    Examples
    --------
    >>> import tempfile
    >>> from scalehsi.simulate import maps
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     open_maps(save(maps((8, 9)).maps, folder + "/maps.zarr")).sizes["component"]
    3
    """
    data = open_dataset(path)
    if ABUNDANCES not in data or not are_maps(data[ABUNDANCES]):
        listed = ", ".join(f"{n!r} {dict(v.sizes)}" for n, v in data.data_vars.items()) or "no variables"
        raise InputError(
            f"{str(path)!r} holds no maps, a variable 'abundances' (component, ..., y, x); it holds {listed}"
        )
    return data[ABUNDANCES]


def are_maps(data: xr.DataArray) -> bool:
    return data.ndim >= 3 and data.dims[0] == COMPONENT and data.dims[-2:] == (Y, X)


def open_dataset(path: PathLike) -> xr.Dataset:
    """Open any store that `save` wrote as a Dataset, such as the truth that a simulation keeps beside its cube.

    Raises
    ------
    InputError
        When the path leads nowhere, or the store is damaged or truncated.
    """
    folder = Path(path).expanduser()
    check_exists(folder)
    if not folder.is_dir():
        raise InputError(f"{str(path)!r} is a file, a store is a folder; open a spectrum image with scalehsi.open_cube")
    return read_store(folder)[0]


def open_raw(
    path: PathLike, *, signal: str | None, dataset: int | str | None, reader_options: Mapping[str, Any] | None
) -> xr.DataArray:
    """Open a cube with the chunks that it has on disk."""
    source = Path(path).expanduser()
    check_exists(source)
    if source.is_dir() and source.suffix.lower() != ".zspy":
        return cube_of_store(source, signal=signal, dataset=dataset)
    return read_vendor(source, signal=signal, dataset=dataset, options=reader_options)


def _whole_spectra(cube: xr.DataArray) -> xr.DataArray:
    """Join the chunks of the energy axis; where whole planes would come together, cut them into tiles as well."""
    if not isinstance(cube.data, da.Array) or len(cube.data.chunks[-1]) == 1:
        return cube
    cuts = len(cube.data.chunks[-1])
    pixels = math.prod(max(sizes) for sizes in cube.data.chunks[:-1])
    channels = cube.sizes[ENERGY]
    tiles: Any = dict.fromkeys(cube.dims[-1:], -1)
    if pixels * channels * cube.dtype.itemsize > 4 * STORAGE_CHUNK_BYTES:
        layout = storage_layout(cube.shape, cube.dtype.itemsize)
        tiles = dict(zip(cube.dims, layout.chunks, strict=True))
    joined = cube.chunk(tiles)
    joined.encoding = {}
    return with_history(joined, f"open: energy axis joined from {cuts} chunks; scalehsi.convert stores it whole")


def _tell_cost(cube: xr.DataArray, name: str) -> None:
    if not isinstance(cube.data, da.Array):
        return
    largest = math.prod(max(sizes) for sizes in cube.data.chunks) * cube.dtype.itemsize
    if largest > LARGE_PIECE_BYTES:
        logger.warning(
            "%s comes in blocks of %.1f GB, each of which has to be held in memory whole; "
            "scalehsi.convert makes a store of small chunks of it",
            name,
            largest / 1e9,
        )
