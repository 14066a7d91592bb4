"""Read the pixels of a Bruker map (.bcf): one list for each detector, in a container of blocks.

The container is a small file system: block 0 describes it, directory items name its files, and a table gives the blocks
of each. The lists may be compressed in parts, each of which inflates alone. A row begins with the number of its pixels
that are not empty; the length of a pixel is in its head, so that one pass from head to head finds the rows. Axes and
metadata come from RosettaSciIO, whose lazy reader takes them from the XML of the file.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final

import numpy as np

from scalehsi.io.events.file import BAND_WORDS, EventFile, Read, Report, limit_of, without_values
from scalehsi.io.events.loops import DAMAGED, TOO_LARGE, add_bruker, index_bruker
from scalehsi.io.rosettasciio import choose, signals_of
from scalehsi.schema import InputError

MAGIC: Final = b"AAMVHFSS"
PACKED: Final = b"AACS"
FIRST_BLOCK: Final = 0x118
BLOCK_HEAD: Final = 32
ITEM: Final = 512
FIRST_ROW: Final = 0x1A0
FIRST_PART: Final = 0x80
PART_HEAD: Final = 16
LARGEST_PART: Final = 64 * 2**20
MOST_ITEMS: Final = 4096


@dataclass(frozen=True)
class Stored:
    """A file in the container.

    Attributes
    ----------
    blocks : array of int64
        Its blocks, in order.
    block, size : int
        Bytes of a block with its head, and of the file.
    """

    blocks: np.ndarray[Any, Any]
    block: int
    size: int

    def read(self, file: BinaryIO, first: int, stop: int) -> np.ndarray[Any, Any]:
        """Bytes of the file, as far as it has them."""
        stop = min(stop, self.size)
        if stop <= first:
            return np.zeros(0, np.uint8)
        inside = self.block - BLOCK_HEAD
        numbers = self.blocks[first // inside : -(-stop // inside)]
        parts = []
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):  # blocks that follow each other
            file.seek(FIRST_BLOCK + int(run[0]) * self.block)
            read = np.frombuffer(file.read(run.size * self.block), np.uint8)
            parts.append(read.reshape(run.size, self.block)[:, BLOCK_HEAD:])
        whole = (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(-1)
        return whole[first % inside :][: stop - first]


@dataclass(frozen=True)
class Inflated:
    """A file whose parts are compressed; each part inflates to ``part`` bytes, the last one to fewer."""

    stored: Stored
    places: np.ndarray[Any, Any]
    """First byte and number of bytes of each part, (n, 2)."""
    part: int
    size: int

    def read(self, file: BinaryIO, first: int, stop: int) -> np.ndarray[Any, Any]:
        """Bytes of the inflated file, as far as it has them."""
        stop = min(stop, self.size)
        if stop <= first:
            return np.zeros(0, np.uint8)
        numbers = range(first // self.part, -(-stop // self.part))
        whole = b"".join(self.inflated(file, k) for k in numbers)
        return np.frombuffer(whole, np.uint8)[first % self.part :][: stop - first]

    def inflated(self, file: BinaryIO, number: int) -> bytes:
        first, size = map(int, self.places[number])
        packed = self.stored.read(file, first, first + size)
        try:
            return zlib.decompressobj().decompress(packed.tobytes(), self.part)
        except zlib.error as error:
            raise InputError(
                f"it is damaged or truncated in part {number} of {len(self.places)} ({error}); copy it again"
            ) from None


@dataclass
class BrukerFile(EventFile):
    """The lists of a Bruker file."""

    kind: ClassVar[str] = "Bruker"
    has_frames: ClassVar[bool] = False
    word: ClassVar[type] = np.uint8

    lists: list[Stored | Inflated] = field(default_factory=list)

    @property
    def words(self) -> int:
        return sum(each.size for each in self.lists)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Read]:
        with _named(self.path), self.path.open("rb") as file:
            yield lambda detector, first, stop: self.lists[detector].read(file, first, stop)

    def find_rows(self, read: Read, report: Report) -> None:
        found = []
        for detector, stored in enumerate(self.lists):
            starts = np.zeros(self.rows + 1, np.int64)
            state = np.zeros(2, np.int64)
            at, before = FIRST_ROW, 0
            while at >= 0 and starts[-1] == 0 and before < at < stored.size:
                before = at
                data = read(detector, at, at + BAND_WORDS)
                at = int(index_bruker(data, at, self.rows, self.columns, state, starts))
                report(max(0, min(at, stored.size) - before))
            if at < 0:
                raise InputError(f"{self.path.name!r} is damaged in row {state[0]} of {self.rows}; copy it again")
            if starts[-1] == 0 or at > stored.size:
                raise InputError(f"{self.path.name!r} is truncated at row {state[0]} of {self.rows}; copy it again")
            found.append(starts)
        self.starts = found

    def add_words(self, words: Any, offsets: Any, place: Any, tables: tuple[Any, ...], out: Any) -> bool:
        result = add_bruker(words, offsets, *tables, limit_of(out), out)
        if result == DAMAGED:
            rows = place[2]
            raise InputError(f"{self.path.name!r} is damaged in rows {rows.start} to {rows.stop}; copy it again")
        return bool(result == TOO_LARGE)


def open_bruker(path: Path, *, signal: str | None, dataset: int | str | None) -> BrukerFile | None:
    """The map of a .bcf file; None for a file that is no container, or when the user asks for another signal of it.

    Raises
    ------
    InputError
        For a container that is cut or damaged.
    """
    with _named(path), path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return None
        files = _files(file, path.stat().st_size)
        names = sorted((n for n in files if n.startswith("SpectrumData")), key=lambda n: (len(n), n))
        lists = [_inflated(file, files[name]) for name in names]
        if not lists:
            return None
        sizes = [struct.unpack("<II", each.read(file, 0, 8).tobytes().ljust(8, b"\0")) for each in lists]
    found = signals_of(path)
    number, _ = choose(found, path, signal=signal, dataset=dataset)
    shape = found[number]["data"].shape
    if len(shape) != 3:
        return None
    if set(sizes) != {tuple(map(int, shape[:2]))}:
        raise InputError(f"{path.name!r} is damaged: its lists are of {sizes} pixels, its header says {shape[:2]}")
    rows, columns, channels = map(int, shape)
    return BrukerFile(
        path,
        without_values(found[number]),
        rows=rows,
        columns=columns,
        frames=1,
        channels=channels,
        detectors=len(lists),
        lists=lists,
    )


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of a container, with the name of the file."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(repr(path.name)) else f"{path.name!r}: {text}") from None
    except (OSError, struct.error, OverflowError) as error:
        raise InputError(f"{path.name!r} is damaged or truncated ({error}); copy it again") from error


def _files(file: BinaryIO, size: int) -> dict[str, Stored]:
    """The files of a container of this many bytes, by name."""
    file.seek(0x128)
    (block,) = struct.unpack("<I", file.read(4))
    file.seek(0x140)
    directory, items, blocks = struct.unpack("<III", file.read(12))
    if not ITEM < block - BLOCK_HEAD <= 2**24 or not 0 < items <= MOST_ITEMS:
        raise InputError(f"it is damaged: it claims {items} files in blocks of {block} bytes; copy it again")
    most = (size - FIRST_BLOCK) // block
    if blocks > most:
        raise InputError(f"it is truncated: {most} of its {blocks} blocks are there; copy it again")
    each = (block - BLOCK_HEAD) // ITEM
    found = {}
    for content in _chain(file, directory, block, -(-items // each), most):
        for item in (content[k * ITEM : (k + 1) * ITEM] for k in range(each)):
            table, length = struct.unpack_from("<IQ", item, 0)
            name = item[224:].split(b"\0")[0].decode("ascii", "replace")
            if item[220] or not name or len(found) >= items:
                continue
            count = -(-length // (block - BLOCK_HEAD))
            if count > most:
                raise InputError(f"it is damaged: {name!r} claims {length} bytes of {size}; copy it again")
            in_block = (block - BLOCK_HEAD) // 4
            tables = b"".join(c[: 4 * in_block] for c in _chain(file, table, block, -(-count // in_block), most))
            numbers = np.frombuffer(tables, "<u4")[:count].astype(np.int64)
            if numbers.size < count or (count and int(numbers.max()) >= most):
                raise InputError(f"it is damaged or truncated: blocks of {name!r} are not there; copy it again")
            found[name] = Stored(numbers, block, length)
    return found


def _chain(file: BinaryIO, number: int, block: int, count: int, most: int) -> Iterator[bytes]:
    """The contents of ``count`` blocks that name each other, of at most ``most``."""
    for _ in range(count):
        if number >= most:
            raise InputError(f"it is damaged or truncated: there is no block {number}; copy it again")
        file.seek(FIRST_BLOCK + number * block)
        content = file.read(block)
        (number,) = struct.unpack_from("<I", content)
        yield content[BLOCK_HEAD:].ljust(block - BLOCK_HEAD, b"\0")


def _inflated(file: BinaryIO, stored: Stored) -> Stored | Inflated:
    """The file as it is, or inflated where it is compressed."""
    head = stored.read(file, 0, FIRST_PART).tobytes()
    if head[:4] != PACKED:
        return stored
    part, _, count = struct.unpack_from("<III", head, 4)
    if not 0 < part <= LARGEST_PART or not 0 < count <= stored.size // PART_HEAD:
        raise InputError(f"it is damaged: it claims {count} parts of {part} bytes; copy it again")
    places, at = np.zeros((count, 2), np.int64), FIRST_PART
    for number in range(count):
        found = stored.read(file, at, at + 4)
        packed = int.from_bytes(found.tobytes(), "little")
        places[number] = at + PART_HEAD, packed
        at += PART_HEAD + packed
        if found.size < 4 or at > stored.size:
            raise InputError(f"it is truncated in part {number} of {count}; copy it again")
    last = len(Inflated(stored, places, part, count * part).inflated(file, count - 1))
    return Inflated(stored, places, part, (count - 1) * part + last)
