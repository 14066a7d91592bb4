"""The files behind a lazy cube, and whether they are still those that were there when the cube was opened.

A chunk file that is missing is read as zeros, as stores may leave out empty chunks. So a fit whose files vanish would
go on with other data than it began with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dask.array as da
import xarray as xr

from scalehsi.blocks.stored_chunks import innermost
from scalehsi.schema import DataChanged

State = Mapping[str, tuple[int, int, int]]
"""Of each file, by its path: size, time of change and number of the inode."""


class StoredFiles:
    """The files that cubes are read from, as they are now.

    Parameters
    ----------
    *cubes : xarray.DataArray
        A cube in memory, or computed from data in memory, has no files.

    Attributes
    ----------
    read : bool
        Set when a pass reads the files; `check` looks at them only then.
    """

    def __init__(self, *cubes: xr.DataArray) -> None:
        self.places = sorted({place for cube in cubes if cube.chunks is not None for place in _places(cube.data)})
        self.read = False
        self.before = {place: _state(place) for place in self.places}

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(size for files in self.before.values() for size, _, _ in files.values())

    @property
    def largest(self) -> int:
        """Bytes of the largest file; 0 without files."""
        return max((size for files in self.before.values() for size, _, _ in files.values()), default=0)

    def check(self) -> None:
        """After a pass that has read the files: refuse those that have changed since.

        Raises
        ------
        DataChanged
            With the number of files that are missing or changed, and one of them.
        """
        if not self.read:
            return
        self.read = False
        for place, before in self.before.items():
            now = _state(place)
            if now == before:
                continue
            missing = sorted(before.keys() - now.keys())
            changed = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
            new = sorted(now.keys() - before.keys())
            words = [
                f"{len(names)} {what} ({names[0]})"
                for names, what in ((missing, "missing"), (changed, "changed"), (new, "new"))
                if names
            ]
            raise DataChanged(
                f"the data changed while they were read: of the files of {str(place)!r} {', '.join(words)}; "
                "copy or write them again, and fit again"
            )


def _places(data: da.Array) -> Iterator[Path]:
    """Folders and files on this machine that the graph of an array reads."""
    graph = data.__dask_graph__()
    for name, layer in getattr(graph, "layers", {}).items():
        if name.startswith("original-"):
            for value in dict(layer).values():
                yield from _place(getattr(value, "value", value))


def _place(array: Any) -> Iterator[Path]:
    """The folder of a Zarr array, or the file of an HDF5 dataset or a memory map."""
    array = innermost(array)
    root = getattr(getattr(array, "store", None), "root", None)
    if root is not None:
        yield Path(root) / str(getattr(array, "path", ""))
        return
    file = getattr(getattr(array, "file", None), "filename", None) or getattr(array, "filename", None)
    if file is not None and Path(str(file)).is_file():
        yield Path(str(file))


def _state(place: Path) -> State:
    """The state of a file, or of all files in a folder; empty when it is gone."""
    if place.is_file():
        return {place.name: _of(place.stat())}
    found: dict[str, tuple[int, int, int]] = {}
    for folder, _, names in os.walk(place):
        with os.scandir(folder) as entries:
            found |= {
                os.path.relpath(entry.path, place): _of(entry.stat()) for entry in entries if entry.name in set(names)
            }
    return found


def _of(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino
