"""Save cubes, maps, results and other Datasets as Zarr v3 stores, each in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import xarray as xr

from scalehsi.chunks import MiB
from scalehsi.cube import check_cube
from scalehsi.io.atomic import local_path
from scalehsi.io.open import PathLike, are_maps
from scalehsi.io.zarr_store import Kind, write_store
from scalehsi.schema import ABUNDANCES, InputError

COUNTS: Final = "counts"
"""Name of a cube's variable in its store, for a cube without a name."""

OTHER_FORMATS: Final = frozenset(
    # The formats of RosettaSciIO (.zspy is HyperSpy's Zarr store), then other arrays, tables and documents.
    ".ali .app5 .asw .bcf .blo .bmp .csv .de5 .dens .dib .dm3 .dm4 .eds .elid .emd .emi .ems .emsa .gif .h5 .hdf5 "
    ".h5oina .hspy .img .jpe .jpeg .jpg .lsd .map .mas .mib .mrc .mrcz .msa .msp .nc .npy .nxs .pbm .pcx .pgm .png "
    ".ppm .pro .prz .pts .raw .rpl .sac .sbc .ser .spc .spd .spi .spx .sur .tif .tiff .tvf .tvips .unf .wdf .xbm "
    ".xml .zspy .dat .gz .h5ad .hdf .html .json .mat .netcdf .npz .ods .parquet .pdf .pickle .pkl .svg .tar .tsv .txt "
    ".xls .xlsx .zip".split()
)
"""Endings of files of other programs, which are no names of a Zarr store."""


def save(data: xr.DataArray | xr.Dataset, path: PathLike, *, overwrite: bool = False, chunk_mb: float = 16) -> Path:
    """Write a cube or a result as a Zarr v3 store, in one step.

    The store is written under a hidden name beside ``path`` and renamed when it is complete: a write that fails or is
    killed leaves no partial store, and with ``overwrite`` keeps the old one. All lazy variables are computed in one
    pass by the current scheduler: the threads of this process, or the workers of a cluster, which write the chunks
    themselves and must share the path.

    Parameters
    ----------
    data : xarray.DataArray or xarray.Dataset
        A cube, a result, maps of components (component, ..., y, x), or any other Dataset.
    path : path
        The folder to write, usually ``name.zarr``.
    overwrite : bool, default False
        Replace an existing store. A file, or a folder that is no Zarr store, is never replaced.
    chunk_mb : float, default 16
        Intended size of a storage chunk before compression, in MiB, above 0. Larger chunks are read faster, smaller
        ones need less memory.

    Returns
    -------
    pathlib.Path
        The store.

    Raises
    ------
    InputError
        When the destination exists or is no store, its folder does not exist, its name is that of another file format,
        or ``data`` is no cube or Dataset.
    OSError
        When the disk or the quota is full.

    Notes
    -----
    Dtypes, units of the axes and the mask are kept. Memory: about two chunks for each thread, for a cube whose blocks
    are aligned with the storage chunks.

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
    elif isinstance(data, xr.DataArray) and are_maps(data):
        dataset = data.to_dataset(name=ABUNDANCES)
    else:
        dataset, kind = as_dataset(check_cube(data)), "cube"
    destination = destination_path(path)
    return write_store(dataset, destination, kind=kind, overwrite=overwrite, chunk_bytes=chunk_bytes_of(chunk_mb))


def as_dataset(cube: xr.DataArray) -> xr.Dataset:
    """A Dataset with the cube as its only variable."""
    name = str(cube.name or COUNTS)
    return cube.to_dataset(name=COUNTS if name in cube.dims or name in cube.coords else name)


def check_store_name(path: PathLike) -> None:
    """Refuse the name of another file format for a store, such as ``map.h5``.

    Raises
    ------
    InputError
        With a name to type instead.

    Examples
    --------
    >>> check_store_name("scans/a.dm4")
    Traceback (most recent call last):
    ...
    scalehsi.schema.InputError: scalehsi writes Zarr stores, not .dm4 files; type 'scans/a.zarr'
    """
    given = Path(path)
    if given.suffix.lower() in OTHER_FORMATS:
        other = f", or scalehsi.to_hyperspy(data).save({str(given)!r})" if given.suffix.lower() == ".hspy" else ""
        raise InputError(
            f"scalehsi writes Zarr stores, not {given.suffix} files; type {str(given.with_suffix('.zarr'))!r}{other}"
        )


def destination_path(path: PathLike) -> Path:
    """The folder of a store to be written, links followed; refuses names of other file formats."""
    folder = local_path(path)
    check_store_name(path)
    # The target of a link is replaced, not the link.
    return folder.resolve() if folder.is_symlink() else folder


def chunk_bytes_of(chunk_mb: float) -> int:
    """MiB in bytes; refuses sizes that are not above 0."""
    if not chunk_mb > 0:
        raise InputError(f"chunk_mb is a size in MiB above 0, got {chunk_mb}; the default is 16")
    return max(1, round(chunk_mb * MiB))
