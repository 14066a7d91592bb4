"""Compiled loops over event streams: find the rows of the scan, and add the events of some rows to a dense band.

All loops take pieces of a stream and release the interpreter's lock. A band is ``out`` (frames, rows, columns,
channels) of unsigned integers; ``table`` gives the channel of the band for each channel of the stream, -1 for none.
``offsets`` (frames, rows + 1) are the places in the piece where the rows start. A loop returns True when a count
exceeds the band's dtype: the band is then wrong and has to be made again with a wider one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scalehsi.kernels.compiled import inlined, lean

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


# Bruker --------------------------------------------------------------------------------------------------------------

PIXEL_HEAD = 22
"""Bytes before the data of a pixel in a Bruker file."""
FITS, TOO_LARGE, DAMAGED = 0, 1, 2


@inlined
def _u16(data: Any, at: int) -> int:
    return np.int64(data[at]) | np.int64(data[at + 1]) << 8


@inlined
def _number(data: Any, at: int, size: int) -> int:
    """A little-endian number of ``size`` bytes."""
    value = np.int64(0)
    for k in range(size):
        value |= np.int64(data[at + k]) << 8 * k
    return value


@lean
def index_bruker(data: Any, base: int, rows: int, columns: int, state: Any, starts: Any) -> int:
    """Note in ``starts`` the byte at which each row begins; returns the byte at which to go on, or -1 for damaged data.

    Parameters
    ----------
    data : array of uint8
        A piece of the file, which begins at the byte ``base``.
    base, rows, columns : int
    state : array, shape (2,)
        Rows that were begun, and pixels of the last one that follow; kept between pieces.
    starts : array of int64
    """
    row, pixels, at = state[0], state[1], np.int64(0)
    while pixels > 0 or row < rows:
        if pixels == 0:
            if at + 4 > data.size:
                break
            starts[row] = base + at
            pixels = _number(data, at, 4)
            if pixels > columns:
                return -1
            at += 4
            row += 1
        else:
            if at + PIXEL_HEAD > data.size:
                break
            listed = _u16(data, at + 16) if _u16(data, at + 12) > 1 else 0
            at += PIXEL_HEAD + _number(data, at + 18, 4) + 2 * listed
            pixels -= 1
    state[0], state[1] = row, pixels
    if pixels == 0 and row == rows:
        starts[rows] = base + at
    return base + at


@inlined
def _add(pixel: Any, table: Any, channel: int, count: int, limit: int) -> int:
    if channel < table.size and table[channel] >= 0:
        total = pixel[table[channel]] + count
        pixel[table[channel]] = total
        return 1 if total >= limit else 0
    return 0


@lean
def add_bruker(data: Any, offsets: Any, bin_y: int, bin_x: int, table: Any, limit: int, out: Any) -> int:
    """Add the pixels of a Bruker file; returns `FITS`, `TOO_LARGE` or `DAMAGED`."""
    found = 0
    for row in range(offsets.shape[1] - 1):
        at, end = offsets[0, row], offsets[0, row + 1]
        pixels = _number(data, at, 4)
        at += 4
        for _ in range(pixels):
            if at + PIXEL_HEAD > end:
                return DAMAGED
            x = _number(data, at, 4) // bin_x
            flag, listed, size = _u16(data, at + 12), _u16(data, at + 16), _number(data, at + 18, 4)
            at += PIXEL_HEAD
            stop = at + size
            following = stop + (2 * listed if flag > 1 else 0)
            if following > end or (flag > 1 and size < 4):
                return DAMAGED
            if x >= out.shape[2]:
                at = following
                continue
            pixel = out[0, row // bin_y, x]
            if flag == 0:
                if 2 * listed > size:
                    return DAMAGED
                for k in range(listed):
                    found |= _add(pixel, table, _u16(data, at + 2 * k), 1, limit)
            elif flag == 1:
                for k in range(listed):
                    group, place = at + k // 4 * 6, k % 4
                    last = group + (1 if place == 0 else 3 if place == 1 else 5)
                    if last >= stop:
                        return DAMAGED
                    if place == 0:
                        channel = np.int64(data[group + 1]) << 4 | np.int64(data[group]) >> 4
                    elif place == 1:
                        channel = (np.int64(data[group]) & 15) << 8 | np.int64(data[group + 3])
                    elif place == 2:
                        channel = np.int64(data[group + 2]) << 4 | np.int64(data[group + 5]) >> 4
                    else:
                        channel = (np.int64(data[group + 5]) & 15) << 8 | np.int64(data[group + 4])
                    found |= _add(pixel, table, channel, 1, limit)
            else:
                runs_end, channel = stop - 4, 0
                while at + 2 <= runs_end:
                    width, count = np.int64(data[at]), np.int64(data[at + 1])
                    at += 2
                    if width == 0:
                        channel += count
                        continue
                    if width not in (1, 2, 4, 8):
                        return DAMAGED
                    values = at + width
                    at = values + (count * width + 1) // 2
                    if at > runs_end:
                        return DAMAGED
                    gain = _number(data, values - width, width)
                    for k in range(count):
                        if width == 1:
                            value = np.int64(data[values + k // 2]) >> 4 * (k % 2) & 15
                        else:
                            value = _number(data, values + k * width // 2, width // 2)
                        value += gain
                        if value >= limit or value < 0:
                            found = 1
                        else:
                            found |= _add(pixel, table, channel, value, limit)
                        channel += 1
                for k in range(listed):
                    found |= _add(pixel, table, _u16(data, stop + 2 * k), 1, limit)
            at = following
    return found


# JEOL ----------------------------------------------------------------------------------------------------------------

KIND_X, KIND_Y, KIND_XRAY = 8, 9, 11
"""The upper four bits of a word of a JEOL file."""
VALUE = 0xFFF


@lean
def index_jeol(words: Any, base: int, side: int, state: Any, lines: Any) -> int:
    """Note where the line changes: its row, its word, the x valid there, and the X-rays before; returns how often.

    Parameters
    ----------
    words : array of uint16
        A piece of the stream, which begins at the word ``base``.
    base : int
    side : int
        Pixels that 4096 stands for.
    state : array, shape (3,)
        The row (-1 before the first), the x, and the number of X-rays; kept between pieces.
    lines : array of int64, shape (words.size + 1, 4)
    """
    row, x, counts = state[0], state[1], state[2]
    found = 0
    for i in range(words.size):
        word = words[i]
        kind = word >> 12
        if kind == KIND_XRAY:
            counts += 1
        elif kind == KIND_X:
            x = word & VALUE
        if kind == KIND_Y or row < 0:
            here = np.int64(word & VALUE) * side >> 12 if kind == KIND_Y else 0
            if here != row:
                lines[found, 0] = row = here
                lines[found, 1] = base + i
                lines[found, 2] = x
                lines[found, 3] = counts - (1 if kind == KIND_XRAY else 0)
                found += 1
    state[0], state[1], state[2] = row, x, counts
    return found


@lean
def add_jeol(
    words: Any,
    offsets: Any,
    first_row: int,
    xs: Any,
    side: int,
    bin_y: int,
    bin_x: int,
    table: Any,
    limit: int,
    out: Any,
) -> bool:
    """Add the X-rays of a JEOL stream.

    Parameters
    ----------
    words, offsets, bin_y, bin_x, table, limit, out
        As for `add_velox`.
    first_row : int
        The row of the file that is the first one here.
    xs : array, shape (frames, rows)
        The x that is valid where a row starts.
    side : int
        Pixels that 4096 stands for.
    """
    apart = 1 if out.shape[0] > 1 else 0
    too_large = False
    for row in range(offsets.shape[1] - 1):
        for frame in range(offsets.shape[0]):
            f, x = frame * apart, (np.int64(xs[frame, row]) * side >> 12) // bin_x
            for i in range(offsets[frame, row], offsets[frame, row + 1]):
                word = words[i]
                kind = word >> 12
                if kind == KIND_X:
                    x = (np.int64(word & VALUE) * side >> 12) // bin_x
                elif kind == KIND_XRAY:
                    channel = table[word & VALUE]
                    if channel >= 0 and x < out.shape[2]:
                        count = out[f, row // bin_y, x, channel] + 1
                        out[f, row // bin_y, x, channel] = count
                        too_large |= count == limit
                elif kind == KIND_Y and np.int64(word & VALUE) * side >> 12 != first_row + row:
                    break  # a frame that is left out follows
    return too_large
