"""Open cubes, images, maps and results lazily, from Zarr stores or from files of other programs.

Stores are read by `scalehsi.io.zarr_store`, files of other programs through RosettaSciIO, which is optional
(`scalehsi.io.rosettasciio`).
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

from scalehsi.blocks.graph import rechunked
from scalehsi.chunks import STORAGE_CHUNK_BYTES, MiB, storage_layout
from scalehsi.cube import with_history
from scalehsi.io.atomic import check_exists, local_path
from scalehsi.io.events import event_file
from scalehsi.io.events.bands import lazy_cube
from scalehsi.io.events.selection import Selection, plan_of
from scalehsi.io.events.velox import without_events
from scalehsi.io.repairs import NOTHING, Repairs
from scalehsi.io.rosettasciio import read_image, read_vendor
from scalehsi.io.zarr_store import cube_of_store, image_of_store, read_store
from scalehsi.result import check_result, check_variables
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, InputError, X, Y

logger = logging.getLogger("scalehsi")

PathLike = str | os.PathLike[str]

LARGE_BLOCK_BYTES: Final = 256 * MiB
"""Above this size, a block that is read as one causes a warning."""


def open_cube(
    path: PathLike,
    *,
    signal: str | None = None,
    dataset: int | str | None = None,
    reader_options: Mapping[str, Any] | None = None,
    axes: str | None = None,
    energy: str | None = None,
    pixel: str | None = None,
    mask: str | None = None,
) -> xr.DataArray:
    """Open a spectrum image as a lazy cube.

    Parameters
    ----------
    path : path
        A Zarr store (of scalehsi or xarray, v3 or v2), or a file of any format that RosettaSciIO reads (Bruker .bcf,
        Gatan .dm3 and .dm4, Velox .emd, JEOL .pts and .ASW, HyperSpy .hspy and .zspy, .msa, .rpl ...).
    signal : {"EDS", "EELS"} or str, optional
        Signal type to choose when a file holds several signals; written into ``attrs["signal"]`` when the file does not
        name it.
    dataset : int or str, optional
        Number (from 0) or title of one signal of a file, or name of a store's variable. Default: the spectrum image; of
        several, one of EDS or EELS, then the largest.
    reader_options : mapping, optional
        For the format's reader in RosettaSciIO: ``{"sum_frames": False}`` keeps the frames of a Velox or JEOL file as a
        leading dim in place of their sum, ``{"rebin_energy": 4}`` joins channels.
    axes : str, optional
        Names of the axes of a store, in its order, such as ``"energy,y,x"``: for arrays without names, or with others.
        The cube comes in its usual order; a missing y or x has one pixel.
    energy : str, optional
        Unit of the energies, such as ``"eV"``, or first value, step and unit, such as ``"0:0.01:keV"``.
    pixel : str, optional
        Step and unit of y and x, such as ``"0.5:nm"``.
    mask : {"ignore", "invert"}, optional
        Leave out the mask of the file, or invert it.

    Returns
    -------
    xarray.DataArray
        Dims ``(..., "y", "x", "energy")``; y and x in nm, energy in eV or keV, each with ``attrs["units"]``. Lengths
        without calibration count pixels ("px"). A line scan has one row, a single spectrum one pixel. Frames or tilts
        are leading dims. 4D-STEM ``(y, x, ky, kx)`` has its detector stacked into ``energy`` (units "channel"), of
        shape ``attrs["detector_shape"]``. ``attrs``: signal, title, source, history, and beam energy, elements, live
        time and others that the file holds.

    Raises
    ------
    InputError
        When the path does not exist (similar names are listed), a folder is no store, a store is damaged or truncated,
        the format is unknown, or a file holds no spectrum image.

    Notes
    -----
    Only metadata are read, except from formats without a lazy reader (.msa). Event streams (Velox .emd, Bruker .bcf,
    JEOL .pts) are read band by band as uint16, with an index that the first band makes: `convert` them before a fit,
    which would read them in each pass. With ``reader_options`` RosettaSciIO reads them, whole. The energy chunks of a
    store are joined, block by block.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from scalehsi import make_cube, save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cube = make_cube(np.ones((2, 3, 4), "u1"), energy=[1, 2, 3, 4], energy_units="keV", signal="EDS")
    ...     path = save(cube, folder + "/map.zarr")
    ...     opened = open_cube(path)
    ...     opened.dims, opened.dtype, opened.energy.attrs["units"]
    (('y', 'x', 'energy'), dtype('uint8'), 'keV')
    """
    repairs = Repairs(axes, energy, pixel, mask)
    raw = open_raw(path, signal=signal, dataset=dataset, reader_options=reader_options, repairs=repairs)
    cube = join_energy_chunks(raw)
    warn_of_large_blocks(cube, Path(path).name)
    return cube


def open_image(path: PathLike, *, dataset: int | str | None = None) -> xr.DataArray:
    """Open an image recorded together with a spectrum image, such as HAADF, for `scalehsi.PanSharpen`.

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
        Dims (y, x) in nm, or in pixels ("px") without calibration.

    Raises
    ------
    InputError
        When the path does not exist, or holds no image.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from scalehsi import save
    >>> image = xr.DataArray(np.ones((2, 3)), dims=("y", "x"), name="haadf")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     open_image(save(image.to_dataset(), folder + "/haadf.zarr")).shape
    (2, 3)
    """
    source = existing_path(path)
    if source.is_dir() and source.suffix.lower() != ".zspy":
        return image_of_store(source, dataset=dataset)
    if source.suffix.lower() != ".emd":
        return read_image(source, dataset=dataset)
    with without_events(source) as light:
        image = read_image(light, dataset=dataset)
        return image if light == source else image.compute()


def open_result(path: PathLike) -> xr.Dataset:
    """Open a result that `save` wrote, with lazy maps.

    Parameters
    ----------
    path : path
        A Zarr store.

    Returns
    -------
    xarray.Dataset
        ``endmembers`` (component, energy), ``abundances`` (component, ..., y, x), and the method's own variables.

    Raises
    ------
    InputError
        When the path does not exist, the store is damaged or truncated, or it holds no result.
    """
    data = open_dataset(path)
    if ENDMEMBERS not in data and any(v.dims[-3:] == (Y, X, ENERGY) for v in data.data_vars.values()):
        raise InputError(f"{str(path)!r} is a cube, no result; open it with scalehsi.open_cube (or fit it first)")
    try:
        return check_result(data, spectra=False)
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from None


def open_maps(path: PathLike) -> xr.DataArray:
    """Open the maps of a store lazily: of a result, of a simulation, or saved alone.

    Parameters
    ----------
    path : path
        A Zarr store.

    Returns
    -------
    xarray.DataArray
        Dims ``(component, ..., y, x)``.

    Raises
    ------
    InputError
        When the path does not exist, the store is damaged or truncated, or it holds no maps.

    Examples
    --------
    >>> import tempfile
    >>> from scalehsi import save
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
    """Whether the dims are those of maps, ``(component, ..., y, x)``."""
    return data.ndim >= 3 and data.dims[0] == COMPONENT and data.dims[-2:] == (Y, X)


def open_dataset(path: PathLike) -> xr.Dataset:
    """Open any store that `save` wrote as a Dataset, such as the ground truth of a simulation.

    Parameters
    ----------
    path : path
        A Zarr store.

    Returns
    -------
    xarray.Dataset
        Numeric variables are lazy.

    Raises
    ------
    InputError
        When the path does not exist, or the store is damaged or truncated.
    """
    folder = existing_path(path)
    if not folder.is_dir():
        raise InputError(f"{str(path)!r} is a file, a store is a folder; open a spectrum image with scalehsi.open_cube")
    data = read_store(folder)[0]
    try:
        check_variables(data)
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}") from None
    return data


def existing_path(path: PathLike) -> Path:
    """A path of a file or a folder; a FIFO or a device would be read without an end."""
    source = local_path(path)
    check_exists(source)
    if not source.is_dir() and not source.is_file():
        raise InputError(f"{str(path)!r} is no file and no folder, such as a FIFO or a device; copy it into a file")
    return source


def open_raw(
    path: PathLike,
    *,
    signal: str | None,
    dataset: int | str | None,
    reader_options: Mapping[str, Any] | None,
    repairs: Repairs = NOTHING,
) -> xr.DataArray:
    """Open a cube with its chunks on disk; the arguments are those of `open_cube`."""
    source = existing_path(path)
    if source.is_dir() and source.suffix.lower() != ".zspy":
        return cube_of_store(source, signal=signal, dataset=dataset, repairs=repairs)
    check_no_axes(repairs, source)
    events = None if reader_options else event_file(source, signal=signal, dataset=dataset)
    if events is not None:
        return lazy_cube(events, plan_of(events, Selection(), signal=signal, repairs=repairs))
    return read_vendor(source, signal=signal, dataset=dataset, options=reader_options, repairs=repairs)


def check_no_axes(repairs: Repairs, source: Path) -> None:
    """Refuse names of axes for a file, which names its own."""
    if repairs.axes is not None:
        raise InputError(
            f"axes={repairs.axes!r} names the axes of a Zarr store; {source.name!r} names its own, leave it out"
        )


def join_energy_chunks(cube: xr.DataArray) -> xr.DataArray:
    """Join the chunks of the energy axis; cut the pixels into tiles when joined blocks would exceed 64 MiB.

    All chunks of a tile, or of the whole cube, are in memory then: `scalehsi.plan` refuses what does not fit.
    """
    if not isinstance(cube.data, da.Array) or len(cube.data.chunks[-1]) == 1:
        return cube
    cuts = len(cube.data.chunks[-1])
    pixels = math.prod(max(sizes) for sizes in cube.data.chunks[:-1])
    channels = cube.sizes[ENERGY]
    tiles: Any = {cube.ndim - 1: -1}
    if pixels * channels * cube.dtype.itemsize > 4 * STORAGE_CHUNK_BYTES:
        tiles = storage_layout(cube.shape, cube.dtype.itemsize).chunks
    joined = cube.copy(data=rechunked(cube.data, tiles))
    joined.encoding = {}
    return with_history(joined, f"open: energy axis joined from {cuts} chunks; scalehsi.convert stores it whole")


def warn_of_large_blocks(cube: xr.DataArray, name: str) -> None:
    """Log a warning when a lazy cube has blocks above 256 MiB; ``name`` is its name in the log."""
    if not isinstance(cube.data, da.Array):
        return
    largest = math.prod(max(sizes) for sizes in cube.data.chunks) * cube.dtype.itemsize
    if largest > LARGE_BLOCK_BYTES:
        logger.warning(
            "%s is read in blocks of %.1f GB, each of which must fit in memory; "
            "scalehsi.convert writes it as a store of small chunks",
            name,
            largest / 1e9,
        )
