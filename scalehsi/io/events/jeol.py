"""Read the event stream of a JEOL map (.pts).

The upper four bits of a word are its kind: an x or a y of the beam, which holds until the next one, or an X-ray in the
channel of the lower twelve bits. Coordinates are in 1/4096 of the longer side. A smaller y starts a frame; a frame that
stops before its last line is left out. How many frames there are is known from the stream alone, so it is indexed when
the file is opened. Axes and metadata come from RosettaSciIO, which reads the head of the file with one word behind it.
"""

from __future__ import annotations

import contextlib
import re
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import dask.array as da
import numpy as np

from scalehsi.io.events.file import MOST_FRAMES, PIECE_WORDS, EventFile, Read, Report, limit_of, without_values
from scalehsi.io.events.loops import add_jeol, index_jeol
from scalehsi.io.rosettasciio import choose, signals_of
from scalehsi.schema import InputError

MAGIC: Final = 304
LARGEST_HEAD: Final = 64 * 2**20
LAST_LINE: Final = 0x9FFF
LARGEST_SIDE: Final = 4096
JOINED: Final = 512
"""Channels, where the cube is made for its axes alone."""


@dataclass
class JeolFile(EventFile):
    """The stream of a JEOL file."""

    kind: ClassVar[str] = "JEOL"

    first: int = 0
    """The byte of the first word."""
    length: int = 0
    xs: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0, np.int16))
    counts: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def words(self) -> int:
        return self.length

    @property
    def side(self) -> int:
        """Pixels of the longer side, which 4096 stands for."""
        return max(self.rows, self.columns)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Read]:
        try:
            with self.path.open("rb") as file:

                def read(_: int, first: int, stop: int) -> np.ndarray[Any, Any]:
                    file.seek(self.first + 2 * first)
                    return np.fromfile(file, "<u2", stop - first)

                yield read
        except OSError as error:
            raise InputError(f"{self.path.name!r} cannot be read any more ({error.strerror})") from error

    def find_rows(self, read: Read, report: Report) -> None:
        found, state = [], np.array([-1, 0, 0], np.int64)
        for first in range(0, self.length, PIECE_WORDS):
            words = read(0, first, min(self.length, first + PIECE_WORDS))
            lines = np.empty((words.size + 1, 4), np.int64)
            found.append(lines[: index_jeol(words, first, self.side, state, lines)].copy())
            report(words.size)
        lines = np.concatenate(found)
        begins = np.append(0, np.flatnonzero(np.diff(lines[:, 0]) < 0) + 1)
        ends = np.append(begins[1:], len(lines))
        whole = lines[ends - 1, 0] >= self.rows - 1
        if whole.sum() > MOST_FRAMES:
            raise InputError(f"{self.path.name!r} is damaged: it claims {whole.sum()} frames; copy it again")
        # A row that has no line of its own is empty: it begins where the next one does.
        rows = np.arange(self.rows)
        chosen = list(zip(begins[whole], ends[whole], strict=True))
        place = [a + np.searchsorted(lines[a:b, 0], rows) for a, b in chosen]
        at = np.concatenate([*place, np.zeros(0, np.int64)]).astype(np.int64)
        last = lines[chosen[-1][1], 1] if chosen and chosen[-1][1] < len(lines) else self.length
        self.xs = lines[at, 2].astype(np.int16)
        totals = np.append(lines[:, 3], state[2])
        self.counts = np.array([totals[b] - totals[a] for a, b in chosen], np.int64)
        left_out = int((~whole).sum())
        if left_out:
            self.notes.append(f"{left_out} frame{'s' * (left_out > 1)} without the last line left out")
        self.starts = [np.append(lines[at, 1], last)]

    def counts_per_frame(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        self.index()
        return self.counts

    def add_words(self, words: Any, offsets: Any, place: Any, tables: tuple[Any, ...], out: Any) -> bool:
        _, frames, rows = place
        xs = self.xs.reshape(-1, self.rows)[frames.start : frames.stop, rows.start : rows.stop]
        return bool(add_jeol(words, offsets, rows.start, xs, self.side, *tables, limit_of(out), out))


def open_jeol(path: Path, *, signal: str | None, dataset: int | str | None) -> JeolFile | None:
    """The map of a .pts file; None for a file that is none.

    Raises
    ------
    InputError
        For a file that is cut in its head, or has no complete frame.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(36)
        if len(head) < 36 or struct.unpack_from("<I", head)[0] != MAGIC:
            return None
        _, _, first, length = struct.unpack_from("<4I", head, 20)
        if not 36 <= first <= LARGEST_HEAD or first + 2 > size:
            raise InputError(f"{path.name!r} is truncated: its X-rays begin at byte {first} of {size}; copy it again")
        file.seek(0)
        words = file.read(first)
    for claimed in re.findall(rb"\0Pixels\0.{8}(\d+)x(\d+)\0", words, re.DOTALL):
        if max(map(int, claimed)) > LARGEST_SIDE:
            columns, rows = map(int, claimed)
            raise InputError(f"{path.name!r} is damaged: it claims {rows} x {columns} pixels; copy it again")
    found = _described(path, words, signal, dataset)
    rows, columns, channels = map(int, found["data"].shape)
    made = JeolFile(
        path,
        found,
        rows=rows,
        columns=columns,
        frames=1,
        channels=channels,
        first=first,
        length=(size - first) // 2,
    )
    if length > size - first:
        made.notes.append(f"the file is cut: {size - first} of {length} bytes of X-rays are there")
    made.index()
    if not made.counts.size:
        raise InputError(f"{path.name!r} has no complete frame of {rows} lines; it is cut, or was stopped at once")
    made.frames = made.counts.size
    return made


def _described(path: Path, head: bytes, signal: str | None, dataset: int | str | None) -> dict[str, Any]:
    """Axes and metadata of the map, from RosettaSciIO and the head of the file with one word behind it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(head + struct.pack("<H", LAST_LINE))
        # Its lazy reader needs X-rays; the other one makes the cube, of few channels here.
        found = signals_of(copy, {"lazy": False, "rebin_energy": JOINED})
    number, _ = choose(found, path, signal=signal, dataset=dataset)
    *navigation, energy = found[number]["axes"]
    shape = found[number]["data"].shape
    whole = {**energy, "size": energy["size"] * JOINED, "scale": energy["scale"] / JOINED}
    empty = da.zeros((*shape[:-1], shape[-1] * JOINED), dtype=np.uint16, chunks=-1)
    return without_values({**found[number], "axes": [*navigation, whole], "data": empty})
