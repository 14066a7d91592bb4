"""Follow a Zarr store that another program is writing: which blocks of a scan are there, and what they hold.

Zarr has no word for "written": a chunk that is missing is read as its fill value. So the chunk files are looked at. A
block counts when all its files are there, can be read, and do not change while they are read. The program that writes
needs no help for that, but its store must have no shards, whose files hold many blocks.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import xarray as xr

from scalehsi.io.atomic import is_store, local_path
from scalehsi.io.chunk_guard import guarded
from scalehsi.io.zarr_store import STORE_ATTRIBUTE, cube_of_store
from scalehsi.schema import InputError

RETRY_SECONDS: Final = (0.2, 0.5, 1.0)
"""Pauses before a block that cannot be read is tried again; the last one is repeated."""
REPORT_SECONDS: Final = 10.0
"""A block that cannot be read for so long is reported."""

Window = tuple[slice, ...]
Stamp = tuple[int, int, int]
"""Inode, time of change and size of a file."""


@dataclass(frozen=True)
class Block:
    """A block of the scan: its window along the pixel dims, and its chunk files below the array's folder."""

    window: Window
    files: tuple[str, ...]


@dataclass
class _Failure:
    """Attempts to read a block that failed, when the first was and the next will be, and whether it was reported."""

    first: float
    next: float
    attempts: int = 1
    reported: bool = False


@dataclass
class GrowingCube:
    """The cube of a store that grows.

    Parameters
    ----------
    path : Path
        Of the store, which need not be there yet.

    Attributes
    ----------
    cube : DataArray or None
        Axes and attributes of the cube, lazy; None before the store is there.
    number : int
        Of the store: it rises when another one takes its place, so that earlier blocks are void.
    seen : dict
        The state of each block that was read, by its window.
    complete : bool
        Whether a writer of ours has marked the store as complete.
    waiting : str
        Why there is no cube yet; empty when there is.
    """

    path: Path
    cube: xr.DataArray | None = None
    number: int = 0
    seen: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    waiting: str = ""
    _array: Any = None
    _blocks: tuple[Block, ...] = ()
    _files: dict[str, Stamp] = field(default_factory=dict)
    _stamps: Any = None
    _failures: dict[str, _Failure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path = local_path(self.path)
        if self.path.is_file():
            raise InputError(f"{str(self.path)!r} is a file; a scan is followed in a Zarr store, which is a folder")

    @property
    def expected(self) -> int:
        """Blocks of the whole scan."""
        return len(self._blocks)

    def look(self) -> bool:
        """Read the metadata where they have changed; True when the cube is another one, or has another size.

        Raises
        ------
        InputError
            When the store has shards.
        """
        self._files = self._listed()
        lost = self._lost_blocks()
        if self._metadata_stamps(self._folder) == self._stamps and not lost:
            return False
        try:
            with guarded():
                cube, array, complete, stamps = self._open()
        except Exception as error:  # a store that is being made may hold anything
            if self.cube is None or lost:
                self.waiting = (str(error).splitlines() or [type(error).__name__])[0]
            if lost:
                self._forget()
            return lost
        if getattr(array, "shards", None) is not None:
            raise InputError(
                f"{str(self.path)!r} has shards, files of many blocks, which cannot be followed; write it without"
            )
        same = self.cube is not None and not lost and self._same_scan(cube, array)
        resized = not same or self._array.shape != array.shape
        if not same:
            self._forget()
            self.number += 1
        self._stamps, self.waiting, self.complete, self._array = stamps, "", complete, array
        if not resized:
            return False
        self.cube, self._blocks = cube, tuple(_blocks(array))
        self._files = self._listed()
        windows = {_name(block.window) for block in self._blocks}
        self.seen = {name: state for name, state in self.seen.items() if name in windows}
        return True

    def new_blocks(self, now: float, troubles: list[str]) -> Iterator[tuple[Window, np.ndarray[Any, Any]]]:
        """Read the blocks that are new or have changed, one after another: window and values (..., y, x, E).

        now: seconds of any clock, for the pauses. troubles: gets a sentence for each block that stays unreadable.
        """
        for block in self._blocks:
            found = tuple(self._files.get(file) for file in block.files)
            name = _name(block.window)
            failure = self._failures.get(name)
            if None in found or self.seen.get(name) == found or (failure is not None and now < failure.next):
                continue
            try:
                with guarded():
                    values = np.asarray(self._array[(*block.window, slice(None))])
            except Exception as error:  # a torn chunk; what is raised depends on its codecs
                self._failed(name, failure, now, error, troubles)
                continue
            if tuple(_stamp(self._folder / file) for file in block.files) != found:
                continue  # written while it was read: its time comes with the next look
            self._failures.pop(name, None)
            self.seen[name] = found
            yield block.window, values

    def _failed(self, name: str, failure: _Failure | None, now: float, error: Exception, troubles: list[str]) -> None:
        """Note that a block could not be read; `failure`: what is known of earlier attempts."""
        if failure is None:
            self._failures[name] = _Failure(now, now + RETRY_SECONDS[0])
            return
        failure.next = now + RETRY_SECONDS[min(failure.attempts, len(RETRY_SECONDS) - 1)]
        failure.attempts += 1
        if now - failure.first >= REPORT_SECONDS and not failure.reported:
            failure.reported = True
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            troubles.append(
                f"the block {name} cannot be read for {now - failure.first:.0f} s ({reason}); it is tried every second"
            )

    @property
    def _folder(self) -> Path:
        return self.path / quote(str(self.cube.name), safe="") if self.cube is not None else self.path

    def _open(self) -> tuple[xr.DataArray, Any, bool, Any]:
        """The cube, its Zarr array, whether the store is marked as complete, and the stamps of these metadata."""
        import zarr

        if not self.path.exists():
            raise InputError(f"{str(self.path)!r} is not there yet")
        if not is_store(self.path):
            raise InputError(f"{str(self.path)!r} is no Zarr store yet")
        before = self._metadata_stamps(self.path)
        cube = cube_of_store(self.path)
        folder = self.path / quote(str(cube.name), safe="")
        stamps = self._metadata_stamps(folder)
        array = zarr.open_array(folder, mode="r")
        if self._metadata_stamps(self.path) != before or array.shape != cube.shape:
            raise InputError(f"the metadata of {str(self.path)!r} are being written")
        return cube, array, STORE_ATTRIBUTE in zarr.open_group(self.path, mode="r").attrs, stamps

    def _same_scan(self, cube: xr.DataArray, array: Any) -> bool:
        """Whether a store that was opened again is the one that was followed, perhaps with more pixels."""
        assert self.cube is not None
        then = (self.cube.name, self.cube.dims, self._array.dtype, self._array.chunks, self.cube.shape[-1])
        now = (cube.name, cube.dims, array.dtype, array.chunks, cube.shape[-1])
        axis = self.cube[self.cube.dims[-1]]
        return then == now and bool(np.array_equal(axis.values, cube[cube.dims[-1]].values))

    def _lost_blocks(self) -> bool:
        """Whether files of blocks that were read are gone: the store was replaced."""
        return any(
            file not in self._files
            for block in self._blocks
            if _name(block.window) in self.seen
            for file in block.files
        )

    def _forget(self) -> None:
        """Void what is known of the blocks."""
        self.seen, self._failures, self._stamps = {}, {}, None
        self.cube, self._array, self._blocks = None, None, ()

    def _metadata_stamps(self, folder: Path) -> Any:
        """What changes when the metadata of the store, or of the array in a folder, are written."""
        names = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
        return tuple(_stamp(place / name) for place in (self.path, folder) for name in names)

    def _listed(self) -> dict[str, Stamp]:
        """The state of every file below the array's folder."""
        found: dict[str, Stamp] = {}
        if self.cube is None:
            return found
        for folder, _, names in os.walk(self._folder):
            for name in names:
                place = Path(folder, name)
                if (stamp := _stamp(place)) is not None:
                    found[place.relative_to(self._folder).as_posix()] = stamp
        return found


def _blocks(array: Any) -> Iterator[Block]:
    """The blocks of an array whose last dim is the energy: one for each chunk of pixels."""
    counts = [-(-n // size) for n, size in zip(array.shape, array.chunks, strict=True)]
    for cell in itertools.product(*map(range, counts[:-1])):
        window = tuple(
            slice(i * size, min((i + 1) * size, n)) for i, size, n in zip(cell, array.chunks, array.shape, strict=False)
        )
        yield Block(window, tuple(array.metadata.encode_chunk_key((*cell, k)) for k in range(counts[-1])))


def _name(window: Window) -> str:
    """A window in words: ``0:16, 32:48``."""
    return ", ".join(f"{part.start}:{part.stop}" for part in window)


def _stamp(path: Path) -> Stamp | None:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size
    return None
