"""Poisson passes on a GPU: sums and abundances as in `scalehsi.kernels.poisson.passes`, from sparse counts.

The device holds the counts twice: ordered by pixel for the abundances, and by channel for the sums over pixels, so that
each sum has one writer and needs no atomics. Nothing here has run on a GPU yet: see `scalehsi.kernels.cuda`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.cuda.sources import (
    C_TYPES,
    THREADS_TO_ADD,
    add,
    current_device,
    launch,
    module,
    padded_k,
    runtime,
    to_host,
)

THREADS: Final = 128
WARPS: Final = THREADS // 32
"""THREADS and WARPS are as in poisson.cu."""
MIN_ENDMEMBER: Final = 1e-12
"""As in `kernels.poisson.passes`."""
MAX_UINT16_CHANNELS: Final = 65536
"""As in `kernels.pixel_rows.sparse_counts`. Importing either would load numba."""
COUNTS_PER_PIECE: Final = 4096
"""Counts of a channel that a thread block sums; each float32 sum of a thread spans 32 of them."""


@dataclass(frozen=True, eq=False, slots=True)
class DeviceCounts:
    """Counts of a block of pixels on the device, ordered by pixel and by channel; `counts_to_device` makes them.

    Parameters
    ----------
    indptr : CuPy array of int64, shape (P + 1,)
        Start of each pixel in the next two arrays.
    channel, value : CuPy arrays, shape (filled,)
        Channels and counts, ordered by pixel.
    pixel : CuPy array of int32, shape (filled,)
        Pixels, ordered by channel.
    value_by_channel : CuPy array, shape (filled,)
        Counts, ordered by channel.
    pieces : tuple of CuPy arrays
        First count of each piece of a channel (and the end of the last), the channel of each piece, and the first piece
        of each channel (and the end of the last).
    n_channels : int
        E.
    """

    indptr: Any
    channel: Any
    value: Any
    pixel: Any
    value_by_channel: Any
    pieces: tuple[Any, Any, Any]
    n_channels: int

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels and channels, (P, E)."""
        return len(self.indptr) - 1, self.n_channels

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        parts = (self.indptr, self.channel, self.value, self.pixel, self.value_by_channel, *self.pieces)
        return int(sum(part.nbytes for part in parts))


def counts_to_device(counts: Any) -> DeviceCounts:
    """Copy counts to the current device and sort them by channel, once for all passes over them.

    Parameters
    ----------
    counts : Counts, the same with CuPy arrays, a CuPy array (P, E), or DeviceCounts
        ``indptr`` (P + 1,) int64, ``channel`` (filled,) uint16 or int32, ``value`` (filled,) uint8, uint16, uint32 or
        float32, ``n_channels``. From a dense block the values above zero are selected on the device.

    Returns
    -------
    DeviceCounts
        At 2048 channels and counts up to 255 it takes 8 bytes per filled channel, and 40 during the sort; with a dense
        block, also one byte for each value during the selection.
    """
    if isinstance(counts, DeviceCounts):
        return counts
    cupy = runtime()
    if hasattr(counts, "n_channels"):
        channels = counts.n_channels
        indptr, channel, value = (cupy.asarray(part) for part in (counts.indptr, counts.channel, counts.value))
    else:
        channels = counts.shape[1]
        indptr, channel, value = _rows(cupy, counts)
    if value.dtype.str[1:] not in C_TYPES:
        value = value.astype(np.float32)
    order = cupy.argsort(channel, kind="stable")
    pixel = (cupy.searchsorted(indptr, order, side="right") - 1).astype(np.int32)
    filled = to_host(cupy, cupy.bincount(channel, minlength=channels)).astype(np.int64)
    pieces = tuple(cupy.asarray(part) for part in cut(filled))
    return DeviceCounts(indptr, channel, value, pixel, value[order], (pieces[0], pieces[1], pieces[2]), channels)


def _rows(cupy: Any, x: Any) -> tuple[Any, Any, Any]:
    """Select the values above zero of a dense block (P, E) row by row: returns ``indptr``, channels, values."""
    filled = x > 0
    indptr = cupy.zeros(len(x) + 1, dtype=np.int64)
    indptr[1:] = cupy.cumsum(cupy.count_nonzero(filled, axis=1))
    _, channel = cupy.nonzero(filled)
    return indptr, channel.astype(np.uint16 if x.shape[1] <= MAX_UINT16_CHANNELS else np.int32), x[filled]


def cut(filled: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Any, Any, Any]:
    """Divide channels with ``filled`` (E,) counts into pieces of 4096; returns ``pieces`` of `DeviceCounts`.

    Examples
    --------
    >>> start, channel, first = cut(np.array([3, 0, 5000]))
    >>> start.tolist(), channel.tolist(), first.tolist()
    ([0, 3, 4099, 5003], [0, 2, 2], [0, 1, 1, 3])
    """
    number = -(-filled // COUNTS_PER_PIECE)
    first = np.concatenate([[0], np.cumsum(number)]).astype(np.int64)
    channel = np.repeat(np.arange(len(filled), dtype=np.int32), number)
    begin = np.cumsum(filled) - filled
    start = begin[channel] + COUNTS_PER_PIECE * (np.arange(len(channel)) - first[channel])
    return np.concatenate([start, [filled.sum()]]).astype(np.int64), channel, first


def poisson_update(counts: Any, *, s: Float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the abundances of a block, and return the sums for the objective and the next ``s``.

    Parameters
    ----------
    counts : DeviceCounts, or an argument of `counts_to_device`
        Sorting by channel costs more than a pass; pass the result of `counts_to_device` to sort only once.
    s : array, shape (K, E)
        On the host; K up to 32.

    Returns
    -------
    pixels : empty dict
    sums : dict
        On the host, float64: ``N`` (E, K) = sum_p c x / y, ``H`` (E, K (K + 1) / 2) = sum_p c c' x / y^2 (lower
        triangle), ``C`` (K,) = sum_p c, ``likelihood`` = sum x log y.

    Raises
    ------
    InputError
        Without CuPy, and for more than 32 components.

    Notes
    -----
    The model of a count and sums over the counts of a lane are float32; the quadratic models of Newton's steps are
    solved in float64, and all sums over pixels are float64. No sum depends on the order in which blocks run.
    """
    work = _Pass(runtime(), counts_to_device(counts), s)
    c, _, small = work.solve()
    table = work.channel_sums(c)
    n, k, unit = work.n, work.k, work.unit
    row, column = np.tril_indices(n)
    return {}, {
        "N": table[:, :n] / unit,
        "H": table[:, k : k + len(row)] / (unit[row] * unit[column]),
        "C": small[:n] / unit,
        "likelihood": np.float64(small[k]),
    }


def poisson_abundances(counts: Any, *, s: Float, residual: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Solve the maximum-likelihood abundances of a block in the last pass, and return the residuals of the model.

    Parameters
    ----------
    counts, s
        As in `poisson_update`.
    residual : bool
        False skips the residuals.

    Returns
    -------
    pixels : dict
        CuPy arrays: ``abundances`` (P, K) float32, ``residual`` (P,) root mean square over the channels.
    sums : dict
        On the host: ``residual_spectrum`` (E,) sum of data minus model, ``likelihood``, ``C``.
    """
    cupy = runtime()
    work = _Pass(cupy, counts_to_device(counts), s)
    c, filled_squares, small = work.solve()
    scaled = cupy.ascontiguousarray(c[:, : work.n] / cupy.asarray(work.unit, dtype=np.float32))
    sums: dict[str, Any] = {"likelihood": np.float64(small[work.k]), "C": small[: work.n] / work.unit}
    if not residual:
        return {"abundances": scaled}, sums
    # The square of the model over all channels is c s s' c, without a sum over channels.
    ends = work.columns.T
    floats = scaled.astype(np.float64)
    square = filled_squares + cupy.sum((floats @ cupy.asarray(ends @ ends.T)) * floats, axis=1)
    rms = cupy.sqrt(cupy.maximum(square, 0.0) / work.channels).astype(np.float32)
    sums["residual_spectrum"] = work.totals() - sums["C"] @ ends
    return {"abundances": scaled, "residual": rms}, sums


class _Pass:
    """Endmembers ``s`` (K, E) on the device, scaled to a sum of one, and the kernels of a pass; cupy is the module."""

    def __init__(self, cupy: Any, counts: DeviceCounts, s: Any) -> None:
        self.columns = np.ascontiguousarray(np.asarray(s, dtype=np.float64).T)
        # Above zero, except for empty endmembers, which stay empty, as on the CPU.
        self.columns = np.maximum(self.columns, MIN_ENDMEMBER * self.columns.mean(axis=0))
        self.channels, self.n = self.columns.shape
        self.k = padded_k(self.n)
        sums = self.columns.sum(axis=0)
        self.unit = np.where(sums > 0, sums, 1.0)
        table, alive = np.zeros((self.channels, self.k), dtype=np.float32), np.zeros(self.k, dtype=np.float32)
        table[:, : self.n] = self.columns / self.unit
        alive[: self.n] = sums > 0
        self._cupy, self._counts = cupy, counts
        self._st, self._alive = cupy.asarray(table), cupy.asarray(alive)
        types = (("CHANNEL", _c_type(counts.channel)), ("VALUE", _c_type(counts.value)))
        self._kernels = module(cupy, "poisson", (("COMPONENTS", self.k), *types))

    def solve(self) -> tuple[Any, Any, Float]:
        """Solve the scaled abundances (P, K), and return further sums.

        Returns also ``sum x (x - 2 y)`` (P,) over the filled channels, on the device, and the sums over pixels (K + 1,)
        of c and of ``x log y``, on the host.
        """
        counts, cupy = self._counts, self._cupy
        pixels = counts.shape[0]
        blocks = max(min(-(-pixels // WARPS), 16 * current_device(cupy).processors), 1)
        c = cupy.empty((pixels, self.k), dtype=np.float32)
        filled_squares = cupy.empty(pixels, dtype=np.float64)
        sums = cupy.empty((blocks * WARPS, self.k + 1), dtype=np.float64)
        numbers = np.int64(pixels), np.int32(self.n)
        launch(
            self._kernels.get_function("solve_counts"),
            (blocks,),
            THREADS,
            (counts.indptr, counts.channel, counts.value, self._st, self._alive, *numbers, c, filled_squares, sums),
        )
        return c, filled_squares, add(cupy, self._kernels, sums)

    def channel_sums(self, c: Any) -> Float:
        """Sum N and the lower triangle of H for ``c`` (P, K): side by side, (E, K + K (K + 1) / 2), on the host."""
        counts, cupy = self._counts, self._cupy
        start, channel, first = counts.pieces
        size = self.k + self.k * (self.k + 1) // 2
        parts = cupy.empty((max(len(channel), 1), size), dtype=np.float64)
        out = cupy.empty((self.channels, size), dtype=np.float64)
        if len(channel) > 0:
            arguments = (counts.pixel, counts.value_by_channel, start, channel, self._st, c, parts)
            launch(self._kernels.get_function("sum_channels"), (len(channel),), THREADS, arguments)
        launch(
            self._kernels.get_function("join_channels"),
            (-(-self.channels * size // THREADS_TO_ADD),),
            THREADS_TO_ADD,
            (parts, first, np.int32(self.channels), np.int32(size), out),
        )
        return to_host(cupy, out)

    def totals(self) -> Float:
        """Sum the counts of each channel (E,)."""
        counts, cupy = self._counts, self._cupy
        start, _, first = counts.pieces
        running = cupy.zeros(len(counts.value) + 1, dtype=np.float64)
        running[1:] = cupy.cumsum(counts.value_by_channel, dtype=np.float64)
        return np.diff(to_host(cupy, running[start[first]]))


def _c_type(values: Any) -> str:
    return C_TYPES[values.dtype.str[1:]]
