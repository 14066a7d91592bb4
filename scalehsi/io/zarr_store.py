"""Write a Dataset as a Zarr v3 store in one step, and check that a store is complete when it is opened.

A store is written under a hidden name beside its destination and renamed when it is complete. All chunks are written,
also those of zeros, so that a missing chunk file is always a loss. Every chunk has a checksum.
"""

from __future__ import annotations

import itertools
import logging
import numbers
import os
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args
from urllib.parse import unquote

import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.chunks import STORAGE_CHUNK_BYTES
from scalehsi.cube import check_cube
from scalehsi.io.atomic import is_store, replacing
from scalehsi.io.repairs import HINT, NOTHING, Repairs, repaired
from scalehsi.io.zarr_layout import with_layout
from scalehsi.io.zarr_lazy import open_named, open_unnamed
from scalehsi.io.zarr_limits import Layout, read_layout
from scalehsi.schema import ENDMEMBERS, ENERGY, MASK, InputError, X, Y, usual_unit

logger = logging.getLogger("scalehsi")

Kind = Literal["cube", "result", "dataset"]

STORE_ATTRIBUTE: Final = "scalehsi"
"""Attribute of the root group of a complete store of ours, with the list of its variables."""
FORMAT_VERSION: Final = 1
MAX_LISTED_GROUPS: Final = 8
MAX_DEPTH_OF_GROUPS: Final = 3


class StoreInfo(NamedTuple):
    """The entry of a store of ours: what kind of data it holds, and its variables."""

    kind: Kind
    variables: tuple[str, ...]


def write_store(
    dataset: xr.Dataset, path: Path, *, kind: Kind, overwrite: bool, chunk_bytes: int = STORAGE_CHUNK_BYTES
) -> Path:
    """Write a Dataset as one store, in one step; lazy variables are computed by the current scheduler.

    Parameters
    ----------
    dataset : xarray.Dataset
    path : Path
        The store's folder.
    kind : {"cube", "result", "dataset"}
    overwrite : bool
    chunk_bytes : int, default 16 MiB
        Intended size of a chunk before compression.
    """
    with replacing(path, overwrite=overwrite) as partial:
        ready, encoding = with_layout(dataset, chunk_bytes=chunk_bytes)
        lazy = [str(n) for n, v in ready.variables.items() if isinstance(v.data, da.Array)]
        in_memory = {str(n): v for n, v in ready.data_vars.items() if str(n) not in lazy and v.dtype.kind in "biuf"}
        large = [n for n, v in in_memory.items() if v.nbytes > chunk_bytes]
        targets = create_arrays(ready, partial, encoding, later=[*lazy, *large])
        if lazy:
            # In one computation, so that intermediate results of several variables are computed once.
            destinations: list[Any] = [targets[n] for n in lazy]
            da.store([ready[n].variable.data for n in lazy], destinations, lock=False)
        for name in large:
            write_array(targets[name], ready[name].values, encoding[name]["shards"] or encoding[name]["chunks"])
        mark_complete(partial, kind=kind, variables=[str(v) for v in ready.variables])
    return path


@dataclass(frozen=True)
class Target:
    """An array of a store that is being written, by this process or by workers.

    After a failure the store is removed; tasks that still run must not create it again.
    """

    array: Any
    store: Path

    def __setitem__(self, region: tuple[slice, ...], block: np.ndarray[Any, Any]) -> None:
        if self.store.exists():
            self.array[region] = block


def create_arrays(
    ready: xr.Dataset, folder: Path, encoding: dict[Hashable, dict[str, Any]], *, later: Sequence[str]
) -> dict[str, Target]:
    """Write a store except for the values of some variables, and return the arrays to write these to.

    Parameters
    ----------
    ready, encoding
        From `with_layout`.
    folder : Path
        Empty.
    later : sequence of str
        Names of the variables whose values the caller writes.
    """
    import zarr

    # One dask block takes the place of these values; it is never computed.
    empty = {n: ready[n].variable.copy(data=da.empty(ready[n].shape, dtype=ready[n].dtype, chunks=-1)) for n in later}
    frame = ready.assign_coords({n: v for n, v in empty.items() if n in ready.coords})
    frame = frame.assign({n: v for n, v in empty.items() if n not in ready.coords})
    frame.to_zarr(
        folder, mode="w", zarr_format=3, consolidated=False, write_empty_chunks=True, encoding=encoding, compute=False
    )
    # An array keeps this setting, also when it is sent to a worker; open_array's own argument for it has no effect.
    with zarr.config.set({"array.write_empty_chunks": True}):
        return {n: Target(zarr.open_array(folder / n, mode="r+"), folder) for n in later}


def write_array(target: Target, values: np.ndarray[Any, Any], files: Sequence[int]) -> None:
    """Write an array in memory file by file, because Zarr continues a single large write after a part of it failed.

    ``files`` is the shape of a chunk file.
    """
    starts = (range(0, n, f) for n, f in zip(values.shape, files, strict=True))
    for corner in itertools.product(*starts):
        region = tuple(slice(c, c + f) for c, f in zip(corner, files, strict=True))
        target[region] = values[region]


def mark_complete(folder: Path, *, kind: Kind, variables: list[str]) -> None:
    """Note in the root group that all variables are written, and repeat their metadata there for `xarray.open_zarr`."""
    import zarr

    root = zarr.open_group(folder, mode="r+")
    root.attrs[STORE_ATTRIBUTE] = {"format": FORMAT_VERSION, "kind": kind, "variables": variables}
    with warnings.catch_warnings():
        # Zarr v3 has no word about consolidated metadata; xarray warns where there are none.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(folder)


def read_store(path: Path, *, axes: tuple[str, ...] | None = None) -> tuple[xr.Dataset, StoreInfo | None]:
    """Open a store lazily, its stored chunks as dask chunks, and check that it is complete.

    Reads metadata and coordinates, and counts the files of a store of ours. ``axes`` are names of the dims of arrays
    that have none.

    Returns
    -------
    xarray.Dataset
        Integers stay integers; units stay text.
    StoreInfo or None
        None for a store of another program.

    Raises
    ------
    InputError
        When the folder is no store, or the store is damaged or incomplete.
    """
    if not is_store(path):
        raise InputError(_no_store_message(path))
    try:
        layout = read_layout(path)
        unnamed = layout.bare is not None or any(a.shape and a.dims is None for a in layout.arrays.values())
        info = _check_complete(layout, path)
        if not unnamed:
            data = open_named(path)
        elif axes is not None:
            data = open_unnamed(layout, path, axes)
        else:
            raise InputError(_unnamed_message(layout, path))
    except (InputError, MemoryError):
        raise
    except PermissionError as error:
        raise InputError(
            f"the store {str(path)!r} may not be read ({error.strerror}: {error.filename!r}); ask its owner"
        ) from error
    # Zarr and xarray, on documents that may say anything, may raise anything.
    except Exception as error:
        raise InputError(
            f"the store {str(path)!r} is damaged ({_first_line(error)}); copy or write it again"
        ) from error
    data.attrs.pop(STORE_ATTRIBUTE, None)
    # Folders are listed in any order, but the number of a variable must not change.
    written = {name: i for i, name in enumerate(info.variables if info else ())}
    order = sorted(data.data_vars, key=lambda n: (written.get(str(n), len(written)), str(n)))
    data = xr.Dataset({n: data[n] for n in order}, coords=data.coords, attrs=data.attrs)
    return data.rename({name: unquote(str(name)) for name in data.variables if "%" in str(name)}), info


def _unnamed_message(layout: Layout, path: Path) -> str:
    """What to type for a store with arrays whose dims have no names."""
    what = f"{str(path)!r} is a bare Zarr array without axes"
    if layout.bare is None:
        name = next(n for n, a in layout.arrays.items() if a.shape and a.dims is None)
        what = f"the array {name!r} of {str(path)!r} has no names of its dims"
    return (
        f"{what}; wrap it with scalehsi.make_cube(dask.array.from_zarr({str(path)!r}), energy=..., "
        "energy_units='keV'), or name and calibrate its axes in the order of the file, such as axes='y,x,energy', "
        "energy='0:0.01:keV', which scalehsi.open_cube and scalehsi.convert take"
    )


def _check_complete(layout: Layout, path: Path) -> StoreInfo | None:
    """The mark of a store of ours, all of whose chunk files must be there. path: of the store."""
    mark = layout.attrs.get(STORE_ATTRIBUTE)
    if not isinstance(mark, dict):
        return None
    version, kind, names = mark.get("format"), mark.get("kind"), mark.get("variables")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(f"{str(path)!r} was written by a newer scalehsi (store format {version}); upgrade it")
    texts = isinstance(names, list) and all(isinstance(n, str) for n in names)
    if not isinstance(version, int) or kind not in get_args(Kind) or not texts or len(set(names)) < len(names):
        raise InputError(f"the store {str(path)!r} is damaged (its list of variables is none); copy or write it again")
    for name in names:
        array = layout.arrays.get(name)
        if array is None:
            raise InputError(_truncated_message(path, f"the variable {ascii(name)[:100]} is missing"))
        want, folder = array.file_count, path / name / "c"
        have = sum(len(files) for _, _, files in os.walk(folder)) + folder.is_file()
        if have < want:
            raise InputError(_truncated_message(path, f"{want - have} of {want} chunk files of {name!r} are missing"))
    return StoreInfo(kind, tuple(names))


def _truncated_message(path: Path, what: str) -> str:
    return f"the store {str(path)!r} is truncated: {what}; copy or write it again"


def _no_store_message(path: Path) -> str:
    inside = sorted(p.name for p in path.iterdir() if p.is_dir() and is_store(p))
    if any((path / name / "zarr.json").is_file() for name in (Y, X, ENERGY)):
        return _truncated_message(path, "its zarr.json is missing")
    hint = f"; it holds the stores {', '.join(inside[:5])}" if inside else ""
    return f"{str(path)!r} is a folder but no Zarr store (it has no zarr.json){hint}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:300] or type(error).__name__


def cube_of_store(
    path: Path,
    *,
    signal: str | None = None,
    dataset: int | str | None = None,
    repairs: Repairs = NOTHING,
) -> xr.DataArray:
    """Open the cube of a store, its stored chunks as dask chunks.

    Parameters
    ----------
    path : Path
    signal : str, optional
        Signal type, for a store that does not name it.
    dataset : int or str, optional
        Number or name of the variable. Default: the largest with the dims of a cube.
    repairs : Repairs, optional
        What the user says about its axes and its mask.

    Raises
    ------
    InputError
        As `read_store`, and when the store holds no cube.
    """
    names = repairs.names
    data, _ = read_store(path, axes=names)
    if dataset is None and "model" in data.attrs and ENDMEMBERS in data:
        raise InputError(f"{str(path)!r} is a result, no cube; open it with scalehsi.open_result")
    cube = data[_variable(data, path, dataset, ndim=None if names is None else len(names))]
    cube = repaired(_with_mask(cube, data), repairs) if repairs != NOTHING else _with_mask(cube, data)
    for name in cube.coords:
        if "units" in cube[name].attrs:
            cube[name].attrs["units"] = usual_unit(str(cube[name].attrs["units"]))
    cube.attrs = {"source": path.name, "history": [], **cube.attrs}
    if signal:
        cube.attrs["signal"] = cube.attrs.get("signal") or signal
    if cube.dtype == bool:
        cube = cube.astype(np.uint8)
    try:
        return check_cube(cube)
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error}, {HINT}") from None


def _with_mask(cube: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
    """The cube with its mask in memory, as booleans; others store it as a variable, or as 0 and one number for True.

    data: the Dataset that the cube is from.
    """
    if MASK not in cube.coords and MASK in data.data_vars and set(data[MASK].dims) <= set(cube.dims[:-1]):
        cube = cube.assign_coords({MASK: data[MASK].variable})
    if MASK not in cube.coords:
        return cube
    mask = cube[MASK].load()
    if mask.dtype.kind in "iuf":
        found = np.unique(mask.values)
        if np.isfinite(found).all() and np.count_nonzero(found) < 2:  # such as 255 for True
            mask = mask.astype(bool)
    if set(mask.dims) < set(cube.dims[:-1]) or mask.dims != cube.dims[:-1]:
        like = cube.isel({ENERGY: 0}, drop=True) if ENERGY in cube.dims else cube
        if set(mask.dims) <= set(like.dims):
            mask = mask.broadcast_like(like).transpose(*like.dims)
    return cube.assign_coords({MASK: mask.variable})


def image_of_store(path: Path, *, dataset: int | str | None = None) -> xr.DataArray:
    """Open an image of a store, a variable of dims (y, x): the first, or that of the number or name ``dataset``.

    Raises
    ------
    InputError
        As `read_store`, and when the store holds no image.
    """
    data, _ = read_store(path)
    names = [_variable(data, path, dataset)] if dataset is not None else [str(n) for n in data.data_vars]
    images = [n for n in names if data[n].dims == (Y, X)]
    if not images:
        listed = ", ".join(f"{n!r} {dict(data[n].sizes)}" for n in names) or "no variables"
        raise InputError(f"{str(path)!r} holds no image, a variable of dims ('y', 'x'); it holds {listed}")
    image = data[images[0]]
    return image.assign_attrs({"source": path.name, "history": [], **image.attrs})


def _variable(data: xr.Dataset, path: Path, dataset: int | str | None, *, ndim: int | None = None) -> str:
    """Name of the variable with this number or name, by default the largest cube.

    Parameters
    ----------
    data : Dataset
    path : Path
        For the messages.
    dataset : int or str, optional
    ndim : int, optional
        The number of axes that the user named: the largest variable with as many dims is then the cube.
    """
    names = [str(n) for n in data.data_vars]
    listed = ", ".join(f"{i} {n!r} {dict(data[n].sizes)}" for i, n in enumerate(names)) or "no variables"
    if dataset is not None:
        if dataset in names:
            return str(dataset)
        if isinstance(dataset, numbers.Integral) and 0 <= dataset < len(names):
            return names[int(dataset)]
        raise InputError(f"there is no dataset {dataset!r} in {str(path)!r}; it holds {listed}")
    cubes = [n for n in names if (data[n].dims[-3:] == (Y, X, ENERGY) if ndim is None else data[n].ndim == ndim)]
    if cubes:
        largest = max(cubes, key=lambda n: data[n].size)
        if len(cubes) > 1:
            logger.info("%s: opened %r; it holds %s", path.name, largest, listed)
        return largest
    if len(names) == 1:
        return names[0]  # check_cube explains what is wrong with its dims
    groups = [] if names else _groups(path)
    if groups:
        raise InputError(
            f"{str(path)!r} holds groups, and no variables of its own; open one of them: "
            + ", ".join(repr(str(path / group)) for group in groups[:MAX_LISTED_GROUPS])
        )
    raise InputError(
        f"{str(path)!r} holds no cube, a variable of dims (..., 'y', 'x', 'energy'); it holds {listed}; "
        "pick one with dataset=... if that is wrong"
    )


def _groups(path: Path) -> list[str]:
    """The groups with arrays inside a store, as paths below it, down to a few levels."""
    found, level = [], [""]
    for _ in range(MAX_DEPTH_OF_GROUPS):
        below = [
            f"{name}/{n}".lstrip("/") for name in level[:MAX_LISTED_GROUPS] for n in read_layout(path / name).groups
        ]
        found += [name for name in below[:MAX_LISTED_GROUPS] if read_layout(path / name).arrays]
        level = below
    return sorted(found)
