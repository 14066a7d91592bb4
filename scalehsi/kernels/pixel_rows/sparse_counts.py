"""Sparse counts: compressed rows that store only the channels with counts, in a small integer type.

An EDX spectrum image is nearly empty: at 147 counts per pixel and 2048 channels, 5 % of the channels are filled. Three
bytes per filled channel (two for its number, one for its counts) are then a sixth of the dense block of single bytes,
and an algorithm that needs the filled channels does not search for them in every pass.

A class of our own instead of scipy's CSR array: scipy stores channel numbers and row ends as 32-bit or 64-bit integers
and converts 16-bit ones, so that a filled channel would take five bytes instead of three.
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

PIXELS_PER_STRIP: Final = 64
"""Pixels of a dense strip. They are few because its buffers hold every channel of each."""
FILLED_PER_STRIP: Final = 8192
"""Filled channels of a sparse strip: its buffers stay in cache, and a call handles many of them."""
FILLED_PER_RUN: Final = 2**18
"""Filled channels that are copied at a time."""
MAX_UINT16_CHANNELS: Final = 65536
"""Largest number of channels whose numbers fit in two bytes."""
SCANNED_DTYPES: Final = ("u1", "u2", "u4", "f4", "f8")
"""Data types that are searched without conversion; others become float64 strip by strip, to compile less code."""


@dataclass(frozen=True, eq=False, slots=True)
class Counts:
    """Counts of a block of pixels without the zeros, as compressed rows.

    Parameters
    ----------
    indptr : array of int64, shape (P + 1,)
        The filled channels of pixel p are the entries ``indptr[p]`` to ``indptr[p + 1]`` of the next two arrays.
    channel : array of uint16 (int32 beyond 65536 channels), shape (filled,)
        Numbers of the filled channels, ascending within a pixel.
    value : array of unsigned integers or float32, shape (filled,)
        Counts in the filled channels, above zero.
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
        """Store the counts of a dense block; it is read twice, and at most 64 of its rows are copied at a time.

        Parameters
        ----------
        x : array, shape (P, E)
            Counts of any real dtype, not negative. Integers are stored in the smallest unsigned type that holds the
            largest of them; other data become float32.

        Returns
        -------
        Counts

        Raises
        ------
        InputError
            For values that are negative or not finite.
        """
        rows = arrays.to_host(x)
        pixels, channels = rows.shape
        filled, highest = 0, 0
        for start in range(0, pixels, PIXELS_PER_STRIP):
            strip = rows[start : start + PIXELS_PER_STRIP]
            low, high = (strip.min(), strip.max()) if strip.size else (0, 0)
            if not (low >= 0 and np.isfinite(high)):
                raise InputError(
                    f"counts must be finite and not negative, but from row {start} on the values go from {low} to "
                    f"{high}; set those that are not counts to zero, or mask their pixels"
                )
            filled += int(np.count_nonzero(strip))
            highest = max(highest, high)
        integers = rows.dtype.kind in "uib"
        value = np.empty(filled, dtype=np.min_scalar_type(int(highest)) if integers else np.float32)
        channel = np.empty(filled, dtype=np.uint16 if channels <= MAX_UINT16_CHANNELS else np.int32)
        indptr = np.zeros(pixels + 1, dtype=np.int64)
        for part, ends, strip_channel, strip_value in strips(rows):
            first = int(indptr[part.start])
            indptr[part.start + 1 : part.stop + 1] = ends[1:] + first
            channel[first : first + len(strip_channel)] = strip_channel
            value[first : first + len(strip_value)] = strip_value
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
        """Type of the counts."""
        dtype: np.dtype[Any] = self.value.dtype
        return dtype

    @property
    def nbytes(self) -> int:
        return self.indptr.nbytes + self.channel.nbytes + self.value.nbytes

    @property
    def density(self) -> float:
        """Fraction of the channels of all pixels that are filled, 0 to 1."""
        return float(self.indptr[-1] - self.indptr[0]) / max(self.shape[0] * self.shape[1], 1)

    @property
    def totals(self) -> Float:
        """Counts of each pixel, shape (P,)."""
        found = np.zeros(self.shape[0])
        for part, filled in self._runs():
            running = np.concatenate([[0.0], np.cumsum(self.value[filled], dtype=np.float64)])
            ends = self.indptr[part.start : part.stop + 1] - filled.start
            found[part] = running[ends[1:]] - running[ends[:-1]]
        return found

    def __len__(self) -> int:
        return self.shape[0]

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + self.nbytes

    def __getitem__(self, rows: slice) -> Counts:
        """Select consecutive pixels; their channels and values are views.

        Parameters
        ----------
        rows : slice
            Without a step.

        Returns
        -------
        Counts

        Raises
        ------
        InputError
            For anything but a slice without a step.
        """
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise InputError(f"Counts give runs of pixels, such as counts[10:20], not counts[{rows!r}]")
        start, stop, _ = rows.indices(self.shape[0])
        stop = max(start, stop)
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        part = slice(first, last)
        return Counts(self.indptr[start : stop + 1] - first, self.channel[part], self.value[part], self.n_channels)

    def take(self, rows: Int) -> Counts:
        """Select pixels by number, in any order and with repetition.

        Parameters
        ----------
        rows : array of int, shape (N,)

        Returns
        -------
        Counts
            N pixels, copied.

        Examples
        --------
        >>> few = Counts.from_dense(np.array([[0, 3, 1], [0, 0, 0], [2, 0, 0]], dtype="uint8"))
        >>> few.take(np.array([2, 0])).to_dense().tolist()
        [[2, 0, 0], [0, 3, 1]]
        """
        indptr = np.concatenate([[0], np.cumsum(np.diff(self.indptr)[rows])])
        out = Counts(
            *(indptr, np.empty(indptr[-1], self.channel.dtype), np.empty(indptr[-1], self.value.dtype)), self.n_channels
        )
        for part, filled in out._runs():
            # The numbers of the values take more memory than the values, so they are made for some pixels at a time.
            shift = np.repeat(self.indptr[rows[part]] - indptr[part], np.diff(indptr[part.start : part.stop + 1]))
            place = shift + np.arange(filled.start, filled.stop)
            out.channel[filled], out.value[filled] = self.channel[place], self.value[place]
        return out

    def _runs(self) -> Iterator[tuple[slice, slice]]:
        """Runs of pixels with some `FILLED_PER_RUN` filled channels, and the ranges of these."""
        start, pixels = 0, self.shape[0]
        while start < pixels:
            first = int(self.indptr[start])
            stop = max(int(np.searchsorted(self.indptr, first + FILLED_PER_RUN, side="right")) - 1, start + 1)
            yield slice(start, stop), slice(first, int(self.indptr[stop]))
            start = stop

    @classmethod
    def concatenate(cls, parts: Sequence[Counts]) -> Counts:
        """Join blocks in order, in the widest of their dtypes.

        Parameters
        ----------
        parts : sequence of Counts
            Blocks with equal numbers of channels; at least one.

        Returns
        -------
        Counts
        """
        ends = np.cumsum([0, *(part.indptr[-1] for part in parts)])
        indptr = [part.indptr[:-1] + end for part, end in zip(parts, ends, strict=False)]
        return cls(
            np.concatenate([*indptr, ends[-1:]]),
            np.concatenate([part.channel for part in parts]),
            np.concatenate([part.value for part in parts]),
            parts[0].n_channels,
        )

    def to_dense(self, dtype: Any = None) -> np.ndarray[Any, Any]:
        """Return the block as a dense array with its zeros.

        Parameters
        ----------
        dtype : dtype, optional
            Type of the result; that of the counts by default.

        Returns
        -------
        array, shape (P, E)
        """
        dense = np.zeros(self.shape, dtype=self.dtype if dtype is None else dtype)
        if self.value.size:
            pixel = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))
            dense[pixel, self.channel] = self.value
        return dense


def strips(x: arrays.Array | Counts) -> Iterator[Rows]:
    """Read a dense or sparse block in strips of rows with one layout: equal numbers in equal order for both.

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        Values that are not above zero are skipped.

    Yields
    ------
    part : slice
        Rows of the block.
    indptr : array of int64
        Start of each row in the next two arrays; the first is 0.
    channel : array of int32
        Numbers of the filled channels; overwritten by the next strip.
    value : array of float64
        Their counts; overwritten by the next strip.
    """
    yield from _sparse_strips(x) if isinstance(x, Counts) else _dense_strips(arrays.to_host(x))


def measured_strips(x: arrays.Array | Counts) -> Iterator[tuple[Rows, Float]]:
    """Read a block in strips as `strips` does, with a mask of the voxels that were not measured (NaN or Inf).

    Parameters
    ----------
    x : array, shape (P, E), or Counts
        In integers and `Counts` every voxel counts as measured.

    Yields
    ------
    rows : tuple
        As from `strips`; missing voxels are skipped.
    missing : array of float64, shape (rows, E), or (0, E)
        1 for a missing voxel, else 0; no rows for a strip without missing voxels. Up to three rows of zeros are
        appended, so that their number is a multiple of four. Overwritten by the next strip.
    """
    none_missing = np.zeros((0, x.shape[1]))
    if isinstance(x, Counts) or np.dtype(x.dtype).kind != "f":
        for rows in strips(x):
            yield rows, none_missing
        return
    block = arrays.to_host(x)
    missing = np.zeros((-(-min(PIXELS_PER_STRIP, len(block)) // 4) * 4, block.shape[1]))
    any_missing = np.zeros(1, dtype=np.int64)
    for rows in _dense_strips(block, missing, any_missing):
        height = rows[0].stop - rows[0].start
        missing[height:] = 0.0
        yield rows, missing[: -(-height // 4) * 4] if any_missing[0] else none_missing


def _sparse_strips(x: Counts) -> Iterator[Rows]:
    pixels = x.shape[0]
    size = max(FILLED_PER_STRIP, int(np.diff(x.indptr).max(initial=0)))
    channel, value = np.empty(size, dtype=np.int32), np.empty(size)
    start = 0
    while start < pixels:
        first = int(x.indptr[start])
        stop = max(int(np.searchsorted(x.indptr, first + FILLED_PER_STRIP, side="right")) - 1, start + 1)
        filled = int(x.indptr[stop]) - first
        channel[:filled] = x.channel[first : first + filled]
        value[:filled] = x.value[first : first + filled]
        yield slice(start, stop), x.indptr[start : stop + 1] - first, channel[:filled], value[:filled]
        start = stop


def _dense_strips(
    rows: np.ndarray[Any, Any], missing: Float | None = None, any_missing: Int | None = None
) -> Iterator[Rows]:
    """Strips of a dense block; optionally with a mask of the voxels that are not finite, which are then skipped.

    rows is (P, E); missing (P', E) receives the mask of each strip and any_missing (1,) whether it has a 1.
    """
    pixels, channels = rows.shape
    native = rows.dtype.newbyteorder("=")
    dtype = native if native.str[1:] in SCANNED_DTYPES else np.dtype(np.float64)
    # Rows are padded to multiples of eight bytes; most of these words are empty and are skipped without a search.
    words = max(-(-channels * dtype.itemsize // 8), 1)
    height = min(PIXELS_PER_STRIP, pixels)
    padded = np.zeros((height, words * 8 // dtype.itemsize), dtype=dtype)
    channel, value = np.empty(padded.size, dtype=np.int32), np.empty(padded.size)
    indptr, nonempty = np.zeros(height + 1, dtype=np.int64), np.empty(words, dtype=np.int32)
    for start in range(0, pixels, PIXELS_PER_STRIP):
        part = slice(start, min(start + PIXELS_PER_STRIP, pixels))
        strip = padded[: part.stop - start]
        strip[:, :channels] = rows[part]
        if missing is not None and any_missing is not None:
            any_missing[0] = _mark_missing(strip, missing)
        filled = _list_filled(strip.view(np.uint64), strip, indptr, channel, value, nonempty)
        yield part, indptr[: part.stop - start + 1], channel[:filled], value[:filled]


@lean
def _mark_missing(x: Any, missing: Any) -> int:
    """Replace values of ``x`` that are not finite by zero and mark them by 1 in ``missing``; return 1 if there are any.

    If all values are finite, ``missing`` is not written.
    """
    zero = x.dtype.type(0)
    found = 0
    for p in range(x.shape[0]):
        for e in range(x.shape[1]):
            found |= not abs(x[p, e]) < np.inf
    if found == 0:
        return 0
    for p in range(x.shape[0]):
        for e in range(missing.shape[1]):
            finite = abs(x[p, e]) < np.inf
            missing[p, e] = 0.0 if finite else 1.0
            x[p, e] = x[p, e] if finite else zero
    return 1


@lean
def _list_filled(words: Any, x: Any, indptr: Any, channel: Any, value: Any, nonempty: Any) -> int:
    """List the values above zero row by row, and return their number.

    The search has no branches, as the processor would mispredict every second one: each candidate is written, and the
    next one overwrites it unless it is kept. Nonempty words are searched first, then the channels in them.

    words : the rows of ``x`` as 64-bit words; x (P, E'), padded rows.
    indptr (P + 1,), channel, value : output, as in `strips`.
    nonempty (words,) : buffer for the numbers of the nonempty words of a row.
    """
    per_word = x.shape[1] // words.shape[1]
    filled = 0
    for p in range(x.shape[0]):
        found = 0
        for w in range(words.shape[1]):
            nonempty[found] = w
            found += words[p, w] != 0
        begin = filled
        for i in range(found):
            first = nonempty[i] * per_word
            for e in range(first, first + per_word):
                channel[filled] = e
                filled += x[p, e] > 0
        for i in range(begin, filled):
            value[i] = x[p, channel[i]]
        indptr[p + 1] = filled
    return filled
