"""Counts as compressed rows: only the channels of a pixel that hold any, in the integers that they are.

A spectrum image of X-rays is nearly empty: at 147 counts a pixel and 2048 channels 5 % of it is filled. Three bytes a
filled channel (two for its number, one for its counts) are then a sixth of the dense block of single bytes, and an
algorithm that works by the filled channels need not look for them again at every pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scalehsi import arrays
from scalehsi.arrays import Float, Int
from scalehsi.kernels.compiled import lean
from scalehsi.schema import InputError

Rows = tuple[slice, Int, np.ndarray[Any, np.dtype[np.int32]], Float]

STRIP: Final = 64
"""Pixels of a dense strip: few, as its buffers have room for every channel of each."""
FILLED: Final = 8192
"""Filled channels of a sparse strip: its buffers stay in cache, and the cost of a call is spread over many."""
NARROW: Final = 65536
"""Up to so many channels their numbers fit in two bytes."""
SCANNED: Final = ("u1", "u2", "u4", "f4", "f8")
"""Data types that are searched as they are; others become float64, strip by strip, so that little is compiled."""


@dataclass(frozen=True, eq=False, slots=True)
class Counts:
    """Rows of counts without their zeros.

    Parameters
    ----------
    indptr : array of int64, shape (P + 1,)
        The filled channels of pixel p are those from ``indptr[p]`` up to ``indptr[p + 1]``.
    channel : array of uint16 (int32 beyond 65536 channels), shape (filled,)
        Their numbers, rising within a pixel.
    value : array of unsigned integers or float32, shape (filled,)
        What they hold, above zero.
    n_channels : int
        E.

    Examples
    --------
    >>> few = Counts.from_dense(np.array([[0, 3, 0, 1], [0, 0, 0, 0]], dtype="uint16"))
    >>> few.shape, few.dtype.name, few.channel.tolist(), few.value.tolist(), few.indptr.tolist()
    ((2, 4), 'uint8', [1, 3], [3, 1], [0, 2, 2])
    >>> few.density, few[:1].to_dense().tolist()
    (0.25, [[0, 3, 0, 1]])
    """

    indptr: Int
    channel: np.ndarray[Any, Any]
    value: np.ndarray[Any, Any]
    n_channels: int

    @classmethod
    def from_dense(cls, x: arrays.Array) -> Counts:
        """The counts of a dense block, found in two readings of it and without a copy of more than 64 of its rows.

        Parameters
        ----------
        x : array, shape (P, E)
            Any real dtype, nowhere negative. Int are kept in the smallest unsigned type that holds the largest of
            them; other data become float32.

        Raises
        ------
        InputError
            For values that are negative or not finite.
        """
        rows = arrays.to_host(x)
        pixels, channels = rows.shape
        filled, highest = 0, 0
        for start in range(0, pixels, STRIP):
            strip = rows[start : start + STRIP]
            low, high = (strip.min(), strip.max()) if strip.size else (0, 0)
            if not (low >= 0 and np.isfinite(high)):
                raise InputError(
                    f"counts must be finite and not negative, but from row {start} on the values go from {low} to "
                    f"{high}; set those that are not counts to zero, or mask their pixels"
                )
            filled += int(np.count_nonzero(strip))
            highest = max(highest, high)
        whole = rows.dtype.kind in "uib"
        value = np.empty(filled, dtype=np.min_scalar_type(int(highest)) if whole else np.float32)
        channel = np.empty(filled, dtype=np.uint16 if channels <= NARROW else np.int32)
        indptr = np.zeros(pixels + 1, dtype=np.int64)
        for part, ends, where, what in strips(rows):
            first = int(indptr[part.start])
            indptr[part.start + 1 : part.stop + 1] = ends[1:] + first
            channel[first : first + len(where)] = where
            value[first : first + len(what)] = what
        return cls(indptr, channel, value, channels)

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels and channels, (P, E)."""
        return len(self.indptr) - 1, self.n_channels

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the counts."""
        dtype: np.dtype[Any] = self.value.dtype
        return dtype

    @property
    def nbytes(self) -> int:
        return self.indptr.nbytes + self.channel.nbytes + self.value.nbytes

    @property
    def density(self) -> float:
        """Part of all channels of all pixels that are filled, 0 to 1."""
        return float(self.indptr[-1] - self.indptr[0]) / max(self.shape[0] * self.shape[1], 1)

    @property
    def totals(self) -> Float:
        """Counts of each pixel, shape (P,)."""
        running = np.concatenate([[0.0], np.cumsum(self.value, dtype=np.float64)])
        return np.asarray(running[self.indptr[1:]] - running[self.indptr[:-1]])

    def __len__(self) -> int:
        return self.shape[0]

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + self.nbytes

    def __getitem__(self, rows: slice) -> Counts:
        """A run of pixels; channels and values are views.

        Raises
        ------
        InputError
            For anything but a slice without steps.
        """
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise InputError(f"Counts give runs of pixels, such as counts[10:20], not counts[{rows!r}]")
        start, stop, _ = rows.indices(self.shape[0])
        stop = max(start, stop)
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        part = slice(first, last)
        return Counts(self.indptr[start : stop + 1] - first, self.channel[part], self.value[part], self.n_channels)

    def take(self, rows: Int) -> Counts:
        """Some pixels in another order, each as often as its number is given.

        Examples
        --------
        >>> few = Counts.from_dense(np.array([[0, 3, 1], [0, 0, 0], [2, 0, 0]], dtype="uint8"))
        >>> few.take(np.array([2, 0])).to_dense().tolist()
        [[2, 0, 0], [0, 3, 1]]
        """
        lengths = np.diff(self.indptr)[rows]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        place = np.repeat(self.indptr[rows] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return Counts(indptr, self.channel[place], self.value[place], self.n_channels)

    @classmethod
    def concatenate(cls, parts: Sequence[Counts]) -> Counts:
        """The pixels of some blocks, one block after another, in the widest of their dtypes."""
        ends = np.cumsum([0, *(part.indptr[-1] for part in parts)])
        indptr = [part.indptr[:-1] + end for part, end in zip(parts, ends, strict=False)]
        return cls(
            np.concatenate([*indptr, ends[-1:]]),
            np.concatenate([part.channel for part in parts]),
            np.concatenate([part.value for part in parts]),
            parts[0].n_channels,
        )

    def to_dense(self, dtype: Any = None) -> np.ndarray[Any, Any]:
        """The same block with its zeros, shape (P, E), in the dtype of the counts unless told otherwise."""
        dense = np.zeros(self.shape, dtype=self.dtype if dtype is None else dtype)
        if self.value.size:
            pixel = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))
            dense[pixel, self.channel] = self.value
        return dense


def strips(x: arrays.Array | Counts) -> Iterator[Rows]:
    """Give a block as runs of rows in one layout, whether it is dense or sparse: the same numbers in the same order.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        What is not above zero is left out.

    Yields
    ------
    part : slice
        Rows of the block.
    indptr : array of int64
        Where each row begins in the next two, from 0 on.
    channel : array of int32
    value : array of float64
        Both are overwritten by the next strip.
    """
    yield from _sparse_strips(x) if isinstance(x, Counts) else _dense_strips(arrays.to_host(x))


def measured_strips(x: arrays.Array | Counts) -> Iterator[tuple[Rows, Float]]:
    """The same runs of rows, and which of their channels were not measured: those that are NaN or Inf.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        Int and `Counts` hold what was measured, all of it.

    Yields
    ------
    rows : tuple
        As `strips` gives them; what was not measured is left out.
    lost : array of float64, shape (rows, E), or (0, E)
        1 where nothing was measured; no rows where nothing is missing. There are up to three rows of zeros more, which
        make their number a multiple of four. Overwritten by the next strip.
    """
    nothing = np.zeros((0, x.shape[1]))
    if isinstance(x, Counts) or np.dtype(x.dtype).kind != "f":
        for rows in strips(x):
            yield rows, nothing
        return
    block = arrays.to_host(x)
    lost = np.zeros((-(-min(STRIP, len(block)) // 4) * 4, block.shape[1]))
    holes = np.zeros(1, dtype=np.int64)
    for rows in _dense_strips(block, lost, holes):
        height = rows[0].stop - rows[0].start
        lost[height:] = 0.0
        yield rows, lost[: -(-height // 4) * 4] if holes[0] else nothing


def _sparse_strips(x: Counts) -> Iterator[Rows]:
    pixels = x.shape[0]
    most = int(np.diff(x.indptr).max(initial=0))
    channel, value = np.empty(max(FILLED, most), dtype=np.int32), np.empty(max(FILLED, most))
    start = 0
    while start < pixels:
        first = int(x.indptr[start])
        stop = max(int(np.searchsorted(x.indptr, first + FILLED, side="right")) - 1, start + 1)
        filled = int(x.indptr[stop]) - first
        channel[:filled] = x.channel[first : first + filled]
        value[:filled] = x.value[first : first + filled]
        yield slice(start, stop), x.indptr[start : stop + 1] - first, channel[:filled], value[:filled]
        start = stop


def _dense_strips(rows: np.ndarray[Any, Any], lost: Float | None = None, holes: Int | None = None) -> Iterator[Rows]:
    """With ``lost`` what is not finite is written down there, and in ``holes`` whether there is any, and left out."""
    pixels, channels = rows.shape
    native = rows.dtype.newbyteorder("=")
    dtype = native if native.str[1:] in SCANNED else np.dtype(np.float64)
    # Rows padded to whole words of eight bytes, most of which are empty and skipped at once.
    words = max(-(-channels * dtype.itemsize // 8), 1)
    height = min(STRIP, pixels)
    padded = np.zeros((height, words * 8 // dtype.itemsize), dtype=dtype)
    channel, value = np.empty(padded.size, dtype=np.int32), np.empty(padded.size)
    indptr, some = np.zeros(height + 1, dtype=np.int64), np.empty(words, dtype=np.int32)
    for start in range(0, pixels, STRIP):
        part = slice(start, min(start + STRIP, pixels))
        strip = padded[: part.stop - start]
        strip[:, :channels] = rows[part]
        if lost is not None and holes is not None:
            holes[0] = _hide(strip, lost)
        filled = _scan(strip.view(np.uint64), strip, indptr, channel, value, some)
        yield part, indptr[: part.stop - start + 1], channel[:filled], value[:filled]


@lean
def _hide(x: Any, lost: Any) -> int:
    """Zeros for what is not finite, and ones in ``lost``, which is not touched where all is; gives whether any is."""
    none = x.dtype.type(0)
    bad = 0
    for p in range(x.shape[0]):
        for e in range(x.shape[1]):
            bad |= not abs(x[p, e]) < np.inf
    if bad == 0:
        return 0
    for p in range(x.shape[0]):
        for e in range(lost.shape[1]):
            there = abs(x[p, e]) < np.inf
            lost[p, e] = 0.0 if there else 1.0
            x[p, e] = x[p, e] if there else none
    return 1


@lean
def _scan(words: Any, x: Any, indptr: Any, channel: Any, value: Any, some: Any) -> int:
    """Write down what is above zero: row by row, from 0 on; gives how many.

    Without branches, which would be guessed wrong every other time: each find is written where the next one will
    overwrite it unless it counts. First the words that are not empty, into ``some``, then the channels in them.
    """
    lanes = x.shape[1] // words.shape[1]
    filled = 0
    for p in range(x.shape[0]):
        found = 0
        for w in range(words.shape[1]):
            some[found] = w
            found += words[p, w] != 0
        begin = filled
        for i in range(found):
            first = some[i] * lanes
            for e in range(first, first + lanes):
                channel[filled] = e
                filled += x[p, e] > 0
        for i in range(begin, filled):
            value[i] = x[p, channel[i]]
        indptr[p + 1] = filled
    return filled
