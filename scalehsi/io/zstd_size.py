"""Size of Zstandard data after decompression, read from the heads of frames and blocks (RFC 8878)."""

from __future__ import annotations

from typing import Final

FRAME: Final = 0xFD2FB528
SKIPPABLE: Final = 0x184D2A50
BLOCK_BYTES: Final = 128 * 1024
"""The most bytes that a compressed block holds."""


def zstd_size(raw: memoryview | bytes) -> int:
    """The bytes of all frames when they are decompressed, or an upper limit where a frame does not say its size.

    Raises
    ------
    ValueError
        When a frame is cut off or is no frame.

    Examples
    --------
    >>> from numcodecs import Zstd
    >>> zstd_size(Zstd(level=1).encode(bytes(1_000_000)))
    1000000
    """
    total, place = 0, 0
    while place < len(raw):
        magic = _number(raw, place, 4)
        if magic & 0xFFFFFFF0 == SKIPPABLE:
            place += 8 + _number(raw, place + 4, 4)
            continue
        if magic != FRAME:
            raise ValueError("no Zstandard data")
        flags = _number(raw, place + 4, 1)
        single = flags >> 5 & 1
        size_bytes = (single, 2, 4, 8)[flags >> 6]
        start = place + 5 + (not single) + (0, 1, 2, 4)[flags & 3]
        given = _number(raw, start, size_bytes) + (256 if size_bytes == 2 else 0) if size_bytes else None
        bound, place = _blocks(raw, start + size_bytes)
        place += 4 if flags >> 2 & 1 else 0
        total += bound if given is None else given
    return total


def _blocks(raw: memoryview | bytes, place: int) -> tuple[int, int]:
    """Upper limit of the bytes in the blocks that begin at a place, and the place behind them."""
    bound, last = 0, 0
    while not last:
        head = _number(raw, place, 3)
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        place += 3 + (1 if kind == 1 else size)
        bound += BLOCK_BYTES if kind == 2 else size
    if place > len(raw):
        raise ValueError("the compressed data are cut off")
    return bound, place


def _number(raw: memoryview | bytes, place: int, size: int) -> int:
    if place + size > len(raw):
        raise ValueError("the compressed data are cut off")
    return int.from_bytes(raw[place : place + size], "little")
