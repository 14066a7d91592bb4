"""Shift spectra along energy: by Fourier phases, by splitting counts at random, or by whole channels.

Letters: P pixels, E energies. A shift is in channels; a positive one moves a feature to lower channels.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi.arrays import Float, Int
from scalehsi.kernels.statistics.counted_random import CountedRandom

PADDING: Final = 40
"""Channels of the end value on both sides, so that the ends do not meet."""
STRIP_PIXELS: Final = 64
"""Pixels that are transformed at a time: their spectra stay in the processor cache."""
STREAM: Final = 0x5817


def shift_fourier(x: Any, shifts: Float, *, most: float | None = None) -> Any:
    """Shift by Fourier phases: keeps the noise white and edges sharp; float32 (P, E).

    x (P, E): finite. shifts (P,). most: largest shift of the whole cube, so that all its blocks are padded alike.

    Examples
    --------
    >>> peak = np.exp(-0.5 * ((np.arange(64) - 30.5) / 3.0) ** 2)
    >>> moved = shift_fourier(peak[None], np.array([0.5]))[0]
    >>> bool(abs(moved - np.exp(-0.5 * ((np.arange(64) - 30.0) / 3.0) ** 2)).max() < 1e-3)
    True
    """
    from scipy.fft import irfft, next_fast_len, rfft

    channels = x.shape[1]
    reach = PADDING + int(np.ceil(np.abs(shifts).max(initial=0.0) if most is None else most))
    size = next_fast_len(channels + 2 * reach, real=True)
    out = np.empty(x.shape, dtype=np.float32)
    wave = (2j * np.pi / size) * np.arange(size // 2 + 1)
    tail = size - reach - channels
    ramp = np.linspace(0.0, 1.0, tail - tail // 2)
    for first in range(0, x.shape[0], STRIP_PIXELS):
        part = np.asarray(x[first : first + STRIP_PIXELS], dtype=np.float64)
        begin, end = part[:, :3].mean(axis=1, keepdims=True), part[:, -3:].mean(axis=1, keepdims=True)
        padded = np.empty((len(part), size))
        padded[:, :reach] = begin
        padded[:, reach : reach + channels] = part
        padded[:, reach + channels :] = end
        # From the last value back to the first, so that there is no step where the ends meet.
        padded[:, reach + channels + tail // 2 :] += ramp * (begin - end)
        by = np.asarray(shifts[first : first + STRIP_PIXELS], dtype=np.float64)[:, None]
        moved = irfft(rfft(padded) * np.exp(wave * by), size)[:, reach : reach + channels]
        out[first : first + STRIP_PIXELS] = np.where(by == 0.0, part, moved)
    return out


def shift_whole(x: Any, shifts: Float) -> Any:
    """Shift by whole channels, in the dtype of x (P, E); channels without a value get 0. shifts (P,)."""
    out = np.zeros_like(x)
    _shift_whole(np.asarray(x), np.rint(shifts).astype(np.int64), out)
    return out


@numba.njit(cache=True, nogil=True)
def _shift_whole(x: Any, shifts: Any, out: Any) -> None:
    channels = x.shape[1]
    for p in range(x.shape[0]):
        for e in range(max(0, -shifts[p]), min(channels, channels - shifts[p])):
            out[p, e] = x[p, e + shifts[p]]


def shift_split(x: Any, shifts: Float, pixels: Int, *, seed: int) -> Any:
    """Divide the counts of each channel at random between the two channels that it moves to; the total is kept.

    Poisson counts stay Poisson counts without correlation. The random numbers depend on seed and pixel alone.

    x (P, E): whole numbers. shifts (P,). pixels (P,): absolute numbers. seed: of the random numbers.

    Examples
    --------
    >>> x = np.full((1, 50), 9, dtype="u2")
    >>> moved = shift_split(x, np.array([0.5]), np.array([3]), seed=0)
    >>> moved.dtype, int(moved.sum())
    (dtype('uint16'), 450)
    """
    source = CountedRandom(seed, STREAM)
    wide = np.zeros(x.shape, dtype=np.int64)
    channels = x.shape[1]
    whole = np.floor(shifts).astype(np.int64)
    for p in range(x.shape[0]):
        part = float(shifts[p] - whole[p])
        counts = np.asarray(x[p], dtype=np.int64)
        lower = source.at(int(pixels[p])).binomial(counts, part) if part > 0 else np.zeros(channels, dtype=np.int64)
        for moved, by in ((counts - lower, whole[p]), (lower, whole[p] + 1)):
            # Counts that leave the axis stay in its first or last channel.
            to = np.clip(np.arange(channels) - by, 0, channels - 1)
            np.add.at(wide[p], to, moved)
    limit = np.iinfo(x.dtype).max
    if wide.max(initial=0) > limit:
        raise OverflowError(f"a count of {wide.max()} does not fit in {x.dtype}, which ends at {limit}")
    return wide.astype(x.dtype)
