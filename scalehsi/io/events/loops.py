"""Compiled loops over event streams: find the rows of the scan, and add the events of some rows to a dense band.

All loops take pieces of a stream and release the interpreter's lock. A band is ``out`` (frames, rows, columns,
channels) of unsigned integers; ``table`` gives the channel of the band for each channel of the stream, -1 for none.
``offsets`` (frames, rows + 1) are the places in the piece where the rows start. A loop returns True when a count
exceeds the band's dtype: the band is then wrong and has to be made again with a wider one.
"""

from __future__ import annotations

from typing import Any

from scalehsi.kernels.compiled import lean

END_OF_PIXEL = 65535
"""Word of a Velox stream."""


@lean
def index_velox(words: Any, base: int, columns: int, channels: int, state: Any, starts: Any, beyond: Any) -> None:
    """Note in ``starts`` the word at which each row begins, and count in ``beyond`` the words above the last channel.

    Parameters
    ----------
    words : array of uint16
        A piece of the stream, which begins at the word ``base``.
    base, columns, channels : int
    state : array, shape (2,)
        Rows that are complete, and pixels of the row that is not; kept between pieces.
    starts : array of int64
    beyond : array of int64, shape (frames, 2)
        The first column is the row at which the frame ends.
    """
    row, x = state[0], state[1]
    frame = 0
    while frame < beyond.shape[0] - 1 and row >= beyond[frame, 0]:
        frame += 1
    for i in range(words.size):
        word = words[i]
        if word == END_OF_PIXEL:
            x += 1
            if x == columns:
                x = 0
                row += 1
                if row < starts.size:
                    starts[row] = base + i + 1
                if row >= beyond[frame, 0] and frame < beyond.shape[0] - 1:
                    frame += 1
        elif word >= channels:
            beyond[frame, 1] += 1
    state[0], state[1] = row, x


@lean
def add_velox(words: Any, offsets: Any, bin_y: int, bin_x: int, table: Any, limit: int, out: Any) -> bool:
    """Add the X-rays of a Velox stream; ``limit`` is the first count that does not fit."""
    apart = 1 if out.shape[0] > 1 else 0
    too_large = False
    for row in range(offsets.shape[1] - 1):
        y = row // bin_y
        # Frame after frame of one row: its part of the band stays in the cache.
        for frame in range(offsets.shape[0]):
            f, x, inside = frame * apart, 0, 0
            for i in range(offsets[frame, row], offsets[frame, row + 1]):
                word = words[i]
                if word == END_OF_PIXEL:
                    inside += 1
                    if inside == bin_x:
                        inside = 0
                        x += 1
                    continue
                channel = table[word]
                if channel >= 0 and x < out.shape[2]:
                    count = out[f, y, x, channel] + 1
                    out[f, y, x, channel] = count
                    too_large |= count == limit
    return too_large
