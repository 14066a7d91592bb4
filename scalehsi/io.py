"""Open, convert and save cubes and results.

Cubes and results are kept as Zarr v3 stores (`scalehsi.stores`). Files of other programs are opened through
RosettaSciIO (`scalehsi.readers`), which is optional.
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

from scalehsi.atomic import check_destination, check_exists, replacing
from scalehsi.chunks import STORAGE_CHUNK_BYTES, MiB, storage_layout
from scalehsi.cube import check_cube, with_history
from scalehsi.layouts import layout_of
from scalehsi.readers import read_image, read_vendor
from scalehsi.regions import CHUNKS_AT_ONCE, Count, Listener, narrowest, regions_of, write_regions
from scalehsi.result import check_result
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, InputError, X, Y
from scalehsi.stores import Kind, cube_of_store, image_of_store, read_store, write_store

__all__ = ["convert", "open_cube", "open_dataset", "open_image", "open_maps", "open_result", "save"]

logger = logging.getLogger("scalehsi")

PathLike = str | os.PathLike[str]

COUNTS: Final = "counts"
"""Name of a cube's variable in its store, unless the cube has a name of its own."""
_MUCH: Final = 256 * MiB
"""From here on, what has to be held in memory in one piece is worth a warning."""
_OTHER_FORMATS: Final = frozenset((".hspy", ".h5", ".hdf5", ".nc", ".npz", ".npy", ".tif", ".tiff", ".emd", ".zip"))


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
    cube = _whole_spectra(_open_raw(path, signal=signal, dataset=dataset, reader_options=reader_options))
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
    if ABUNDANCES not in data or not _are_maps(data[ABUNDANCES]):
        listed = ", ".join(f"{n!r} {dict(v.sizes)}" for n, v in data.data_vars.items()) or "no variables"
        raise InputError(
            f"{str(path)!r} holds no maps, a variable 'abundances' (component, ..., y, x); it holds {listed}"
        )
    return data[ABUNDANCES]


def _are_maps(data: xr.DataArray) -> bool:
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


def save(data: xr.DataArray | xr.Dataset, path: PathLike, *, overwrite: bool = False, chunk_mb: float = 16) -> Path:
    """Write a cube or a result as a Zarr v3 store, in one step.

    The store is written under a hidden name beside ``path`` and renamed when it is complete: a write that fails or is
    killed leaves no half result, and with ``overwrite`` leaves the old one. Lazy variables are computed once, together,
    by the scheduler that is current: this process's threads, or the workers of a cluster, which then write the chunks
    themselves to a path that they must share.

    Parameters
    ----------
    data : xarray.DataArray or xarray.Dataset
        A cube, a result, maps of components (component, ..., y, x), or any other Dataset.
    path : path
        The folder to make, by custom ``name.zarr``.
    overwrite : bool, default False
        Replace a store that is there. What is no Zarr store is never replaced.
    chunk_mb : float, default 16
        Uncompressed MiB of a storage chunk to aim at. Larger ones are read faster, smaller ones need less memory.

    Returns
    -------
    pathlib.Path
        The store.

    Raises
    ------
    InputError
        When the destination exists, is no store, or has no folder to be in; when ``data`` is no cube or Dataset.
    OSError
        When the disk or the quota is full.

    Notes
    -----
    Int keep their dtype, every axis its units, the mask its place. Memory: about two chunks a thread for a cube
    whose blocks are aligned with the storage chunks.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.ones((2, 3, 4)), energy=[1, 2, 3, 4], energy_units="keV")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(cube, folder + "/map.zarr").name
    'map.zarr'
    """
    kind: Kind = "dataset"
    if isinstance(data, xr.Dataset):
        kind = "result" if "model" in data.attrs else "dataset"
        dataset = data
    elif isinstance(data, xr.DataArray) and _are_maps(data):
        dataset = data.to_dataset(name=ABUNDANCES)
    else:
        dataset, kind = _as_dataset(check_cube(data)), "cube"
    destination = _destination(path)
    return write_store(dataset, destination, kind=kind, overwrite=overwrite, chunk_bytes=_chunk_bytes(chunk_mb))


def convert(
    src: PathLike | xr.DataArray,
    dst: PathLike,
    *,
    chunk_mb: float = 16,
    overwrite: bool = False,
    signal: str | None = None,
    dataset: int | str | None = None,
    reader_options: Mapping[str, Any] | None = None,
    progress: Listener | None = None,
) -> Path:
    """Write any spectrum image as a chunked cube, in bounded memory.

    Parameters
    ----------
    src : path or xarray.DataArray
        What `open_cube` opens, or a cube.
    dst : path
        The store to make.
    chunk_mb : float, default 16
        Uncompressed MiB of a storage chunk to aim at.
    overwrite : bool, default False
        Replace a store that is there. What is no Zarr store is never replaced.
    signal, dataset, reader_options
        As for `open_cube`.
    progress : callable, optional
        Called with the number of pixels done and their total, each counted once read and once written.

    Returns
    -------
    pathlib.Path
        The store.

    Raises
    ------
    InputError
        As `open_cube` and `save` do.
    OSError
        When the disk or the quota is full.

    Notes
    -----
    Counts are stored in the smallest unsigned integer that holds them. Float that are all whole and not negative are
    counts too (DigitalMicrograph writes counts as float32): they become integers, without loss, and the history says
    so. Everything else keeps its dtype. This takes a first reading for the largest value, region by region; it ends
    early at the first fraction or negative number.

    Memory: a region of two storage chunks (one shard in a store of more than a thousand chunks), a few times over. It
    grows, to 512 MiB at most, for a source that is stored or computed in larger blocks than that. A file whose reader
    decodes it whole is held whole, and the log of ``scalehsi`` says how much that is. A lazy cube of several steps is
    computed twice, once for its largest value, and region by region, so that what all its parts share is computed each
    time; `save` computes it once, and keeps its dtype.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.full((2, 3, 4), 300.0), energy=[1, 2, 3, 4], energy_units="eV")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     str(open_cube(convert(cube, folder + "/map.zarr")).dtype)
    'uint16'
    """
    chunk_bytes = _chunk_bytes(chunk_mb)
    destination = _destination(dst)
    check_destination(destination, overwrite=overwrite)  # before a long reading, not after it
    if isinstance(src, xr.DataArray):
        cube = check_cube(src)
        grid, blocks = cube.chunks, None if cube.chunks is None else tuple(max(c) for c in cube.chunks)
    else:
        cube = _open_raw(src, signal=signal, dataset=dataset, reader_options=reader_options)
        cube = _hold_if_whole(cube, Path(src).name, chunk_bytes)
        grid, blocks = None, cube.encoding.get("chunks")
    dims = tuple(map(str, cube.dims))
    layout = layout_of(dims, cube.shape, cube.dtype.itemsize, chunk_bytes, blocks=grid)
    regions = regions_of(cube, layout, blocks=blocks)
    count = Count(progress, 2 * math.prod(cube.shape[:-1]))
    dtype = narrowest(cube.data, regions, count)
    if dtype != cube.dtype:
        lossless = ", all values are whole and not negative" if cube.dtype.kind == "f" else ""
        cube = with_history(cube, f"convert: {cube.dtype} to {dtype}{lossless}")
        layout = layout_of(dims, cube.shape, dtype.itemsize, chunk_bytes, blocks=grid)
        regions = regions_of(cube, layout, blocks=blocks)
    data = _as_dataset(cube)
    name = str(next(iter(data.data_vars)))
    with replacing(destination, overwrite=overwrite) as partial:
        write_regions(data, name, partial, dtype=dtype, layout=layout, regions=regions, count=count)
    return destination


def _open_raw(
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


def _hold_if_whole(cube: xr.DataArray, name: str, chunk_bytes: int) -> xr.DataArray:
    """Read a file once that its reader decodes whole anyway, rather than once for each region."""
    if not isinstance(cube.data, da.Array) or cube.data.npartitions > 1 or cube.nbytes <= CHUNKS_AT_ONCE * chunk_bytes:
        return cube
    logger.log(
        logging.WARNING if cube.nbytes > _MUCH else logging.INFO,
        "%s cannot be read in parts: converting it needs %.1f MB of memory",
        name,
        cube.nbytes / 1e6,
    )
    return cube.compute()


def _tell_cost(cube: xr.DataArray, name: str) -> None:
    if not isinstance(cube.data, da.Array):
        return
    largest = math.prod(max(sizes) for sizes in cube.data.chunks) * cube.dtype.itemsize
    if largest > _MUCH:
        logger.warning(
            "%s comes in blocks of %.1f GB, each of which has to be held in memory whole; "
            "scalehsi.convert makes a store of small chunks of it",
            name,
            largest / 1e9,
        )


def _as_dataset(cube: xr.DataArray) -> xr.Dataset:
    name = str(cube.name or COUNTS)
    return cube.to_dataset(name=COUNTS if name in cube.dims or name in cube.coords else name)


def _destination(path: PathLike) -> Path:
    folder = Path(path).expanduser()
    if folder.suffix.lower() in _OTHER_FORMATS:
        raise InputError(
            f"scalehsi writes Zarr stores, not {folder.suffix} files; "
            f"give the name {folder.with_suffix('.zarr').name!r}"
        )
    # What a link points to is replaced, not the link.
    return folder.resolve() if folder.is_symlink() else folder


def _chunk_bytes(chunk_mb: float) -> int:
    if not chunk_mb > 0:
        raise InputError(f"chunk_mb is a size in MiB above 0, got {chunk_mb}; the default is 16")
    return max(1, round(chunk_mb * MiB))
