"""A file of X-ray events: what it holds, where the rows of its scan start, and its events added to a dense band.

A spectrum image of events is small on disk and large in memory: a stream of 2 GB is a cube of 2 to 8 GB, and readers
that build the cube, or one entry for each event, need several times that. Here the stream is read through once, which
gives the place of each row in each frame (the index); a band of rows is then read and added up on its own.
"""

from __future__ import annotations

import abc
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import dask.array as da
import numpy as np

from scalehsi.io.vendor_signal import merge_mapping
from scalehsi.schema import InputError

Report = Callable[[int], None]
"""Called with a number of words that were read."""
Read = Callable[[int, int, int], np.ndarray[Any, Any]]
"""Gives the words of a detector from one place to another."""
Piece = tuple[range, range]

PIECE_WORDS: Final = 2 * 2**20
"""Words that are read at a time for the index."""
BAND_WORDS: Final = 4 * 2**20
"""Words that are read at a time for a band."""
LONGEST_SIDE: Final = 65_536
"""Of a scan, in pixels; no microscope scans more, and a damaged file may claim anything."""
MOST_FRAMES: Final = 65_536
LARGEST_ROW_BYTES: Final = 2**30
"""Of one dense row of pixels."""
LIMITS: Final = {1: 2**8, 2: 2**16, 4: 2**32}
"""By the bytes of an unsigned integer: the first number that it does not hold."""


@dataclass
class EventFile(abc.ABC):
    """A file of events. The formats are its subclasses.

    Attributes
    ----------
    path : Path
    signal : mapping
        Axes and metadata, in the form of RosettaSciIO; the data have the right shape and are not used.
    columns, rows, frames, channels, detectors : int
        What the file claims.
    """

    kind: ClassVar[str] = ""
    """Name of the format."""
    word: ClassVar[type] = np.uint16
    has_frames: ClassVar[bool] = True
    path: Path
    signal: Mapping[str, Any]
    rows: int
    columns: int
    frames: int
    channels: int
    detectors: int = 1
    notes: list[str] = field(default_factory=list)
    """What the index found odd: lines for the history."""
    starts: list[np.ndarray[Any, Any]] = field(default_factory=list)
    """Of each detector: the word at which each row of each frame starts, and the end of the last one."""

    def __post_init__(self) -> None:
        self._lock, self._kept = threading.Lock(), threading.local()
        sides = max(self.rows, self.columns)
        claimed = f"{self.rows} x {self.columns} pixels, {self.frames} frames and {self.channels} channels"
        possible = min(self.rows, self.columns, self.channels, self.frames, self.detectors) >= 1
        large = self.columns * self.channels > LARGEST_ROW_BYTES
        if not possible or sides > LONGEST_SIDE or self.channels > LONGEST_SIDE or self.frames > MOST_FRAMES or large:
            raise InputError(
                f"{self.path.name!r} is damaged: it claims {claimed}, which no map of events has; copy it again"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_kept")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._kept = threading.Lock(), threading.local()

    # What a format says ------------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def words(self) -> int:
        """Words of all detectors: what reading the file once takes."""

    @abc.abstractmethod
    def reading(self) -> contextlib.AbstractContextManager[Read]:
        """Open the file, and give a function that reads the words of a detector."""

    @abc.abstractmethod
    def find_rows(self, read: Read, report: Report) -> None:
        """Fill `starts` and `notes`."""

    @abc.abstractmethod
    def add_words(self, words: Any, offsets: Any, place: Any, tables: tuple[Any, ...], out: Any) -> bool:
        """Add a piece to ``out``; True when a count is too large for it. See `scalehsi.io.events.loops`.

        ``place`` is (detector, frames, rows); ``tables`` are the bins of y and x, and the table of channels.
        """

    # What follows ------------------------------------------------------------------------------------------------

    @property
    def frames_found(self) -> int:
        """Frames that the stream holds, once it is indexed; an incomplete last one counts."""
        return -(-(max(s.size for s in self.starts) - 1) // self.rows) if self.starts else 0

    def index(self, report: Report = lambda _: None) -> None:
        """Read the stream through once, unless that was done."""
        with self._lock:
            if not self.starts:
                with self.reading() as read:
                    self.find_rows(read, report)

    def counts_per_frame(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Counts of each frame, all detectors together, from the index."""
        raise NotImplementedError(f"{self.kind} has no frames")

    def _start(self, detector: int, frame: int, row: int) -> int:
        starts = self.starts[detector]
        return int(starts[min(frame * self.rows + row, starts.size - 1)])

    def size(self, detector: int, frames: range, rows: range) -> int:
        """Words of these rows in these frames."""
        if len(rows) == self.rows:
            return self._start(detector, frames.stop, 0) - self._start(detector, frames.start, 0)
        return sum(self._start(detector, f, rows.stop) - self._start(detector, f, rows.start) for f in frames)

    def add(
        self,
        out: np.ndarray[Any, Any],
        detector: int,
        frames: range,
        rows: range,
        tables: tuple[Any, ...],
        report: Report = lambda _: None,
    ) -> bool:
        """Add the events of some rows to a band; True when a count is too large for its dtype.

        Parameters
        ----------
        out : array, shape (1 or len(frames), rows of the band, columns of the band, channels of the band)
        detector : int
        frames, rows : range
            Of the file; a multiple of the rows that are joined.
        tables : tuple
            Bins of y and x, and the table of channels.
        report : callable
        """
        self.index()
        bin_y = tables[0]
        with self.reading() as read:
            for some, part in self._pieces(detector, frames, rows, bin_y):
                words, offsets = self._gathered(read, detector, some, part)
                first = 0 if len(out) == 1 else some.start - frames.start
                place = out[
                    first : first + (1 if len(out) == 1 else len(some)),
                    (part.start - rows.start) // bin_y : -(-(part.stop - rows.start) // bin_y),
                ]
                too_large = self.add_words(words, offsets, (detector, some, part), tables, place)
                report(words.size)
                if too_large:
                    return True
        return False

    def _pieces(self, detector: int, frames: range, rows: range, bin_y: int) -> Iterator[Piece]:
        """Cut frames and rows into pieces that are read at a time, along rows first."""
        if self.size(detector, frames, rows) > BAND_WORDS and (len(rows) > bin_y or len(frames) > 1):
            if len(rows) > bin_y:
                middle = rows.start + max(1, len(rows) // bin_y // 2) * bin_y
                halves = [(frames, range(rows.start, middle)), (frames, range(middle, rows.stop))]
            else:
                center = frames.start + len(frames) // 2
                halves = [(range(frames.start, center), rows), (range(center, frames.stop), rows)]
            for half in halves:
                yield from self._pieces(detector, *half, bin_y)
        elif len(frames) and len(rows):
            yield frames, rows

    def _gathered(self, read: Read, detector: int, frames: range, rows: range) -> tuple[Any, Any]:
        """The words of some rows of some frames, one after the other, and where each row starts among them."""
        starts = self.starts[detector]
        wanted = np.add.outer(np.arange(frames.start, frames.stop) * self.rows, np.arange(rows.start, rows.stop + 1))
        offsets = starts[np.minimum(wanted, starts.size - 1)]
        if len(rows) == self.rows:  # whole frames follow each other
            return read(detector, int(offsets[0, 0]), int(offsets[-1, -1])), offsets - offsets[0, 0]
        sizes = offsets[:, -1] - offsets[:, 0]
        ends = np.cumsum(sizes)
        words = self._buffer(int(ends[-1]))
        for end, size, first in zip(ends, sizes, offsets[:, 0], strict=True):
            words[end - size : end] = read(detector, int(first), int(first + size))
        return words, offsets - offsets[:, :1] + (ends - sizes)[:, None]

    def _buffer(self, size: int) -> np.ndarray[Any, Any]:
        """Room for words, which each thread keeps: memory that is given back piece by piece does not become free."""
        room = getattr(self._kept, "words", None)
        if room is None or room.size < size:
            room = self._kept.words = np.empty(max(size, BAND_WORDS), self.word)
        return room[:size]


def limit_of(out: np.ndarray[Any, Any]) -> int:
    """The first count that the dtype of a band does not hold."""
    return LIMITS[out.dtype.itemsize]


def without_values(signal: Mapping[str, Any]) -> dict[str, Any]:
    """Axes and metadata of a signal of RosettaSciIO, which can be pickled, with zeros that take no memory."""
    shape = signal["data"].shape
    empty = da.zeros(shape, dtype=np.uint16, chunks=shape)
    return {"data": empty, "axes": signal["axes"], "metadata": merge_mapping(signal)}
