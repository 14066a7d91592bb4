"""Compiled search of a block for its largest values, and for voxels that stand out of their own spectrum."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from scalehsi.kernels.compiled import inlined, lean, lean_sums

TOP_VALUES: Final = 256
"""Largest different values of a block that are counted."""
CHANNELS_PER_TEST: Final = 64
"""Channels that are tested at once without branches; only where one of them passes are they looked at singly."""
LEAST_POSITIVE: Final = 1e-30
CANDIDATE: Final = 5.0
"""Standard deviations above which a voxel is a candidate."""
NEAR: Final = 4
FAR: Final = 7
"""Channels beside a voxel, on both sides, that predict it."""


@lean
def floor_of(largest: float, phi: float) -> float:
    """The value two standard deviations of the noise below the largest, above zero; it rises with the largest."""
    return max(largest - 2.0 * math.sqrt(phi * max(largest, 0.0)), LEAST_POSITIVE)


@lean
def _count_top(v: float, values: Any, counts: Any, n: int) -> int:
    """Count a value in the table of the largest different values, and return how many there are.

    values, counts (TOP_VALUES,): the table, ascending. n: entries in it.
    """
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if values[middle] < v:
            low = middle + 1
        else:
            high = middle
    if low < n and values[low] == v:
        counts[low] += 1
        return n
    if n < len(values):
        for i in range(n, low, -1):
            values[i], counts[i] = values[i - 1], counts[i - 1]
        values[low], counts[low] = v, 1
        return n + 1
    if low > 0:
        for i in range(low - 1):
            values[i], counts[i] = values[i + 1], counts[i + 1]
        values[low - 1], counts[low - 1] = v, 1
    return n


@lean
def _lowest(values: Any, n: int, phi: float) -> float:
    """The value from which on values are counted.

    values (TOP_VALUES,): the table. n: entries in it. phi: variance index.
    """
    if n == 0:
        return LEAST_POSITIVE
    low = floor_of(values[n - 1], phi)
    return max(low, values[0]) if n == len(values) else low


@inlined
def stands_out(v: float, p: float, removed: float, phi: float) -> bool:
    """Whether a value is at least `CANDIDATE` standard deviations above its prediction p, by the Anscombe transform.

    removed: background that was taken off the data, whose noise is still there. phi: variance index.
    """
    if v - p < 0.25 * CANDIDATE**2 * phi:
        return False  # without a square root, as nearly all voxels
    low = math.sqrt((max(p, 0.0) + removed) / phi + 0.375) + 0.5 * CANDIDATE
    return bool((v + removed) / phi + 0.375 >= low * low)


@inlined
def _from_own_channels(x: Any, p: int, share: Any, e: int) -> float:
    """Voxel (p, e) of x (P, E) as its own spectrum predicts it: 4 to 7 channels away on both sides, scaled by share."""
    data = expected = 0.0
    for away in range(NEAR, FAR + 1):
        for i in (e - away, e + away):
            if 0 <= i < x.shape[1] and abs(x[p, i]) < np.inf:
                data += x[p, i]
                expected += share[i]
    return data * share[e] / expected if expected > 0.0 else 0.0


@lean_sums
def scan_dense(
    x: Any,
    totals: Any,
    spectra: Any,
    typed: Any,
    phi: float,
    values: Any,
    counts: Any,
    sums: Any,
    row: Any,
    channel: Any,
    value: Any,
    expected: Any,
) -> int:
    """Search some rows; return how many voxels stand out of the predictions from their own spectrum.

    x (P, E): float32 or float64. totals (P,): of the pixels. spectra (2, E): the mean spectrum with the sum 1, and
    background that was taken off the data. typed (2, E), of the type of x: the mean spectrum, and the background plus
    3/8 phi. phi: variance index.
    values, counts (TOP_VALUES,): table of the largest values. sums (4,): entries of the table, finite values, negative
    ones, least value. row, channel, value, expected: output, with room for every voxel.
    """
    share, removed = spectra
    one, none = x.dtype.type(1.0), x.dtype.type(0.0)
    # The test of 64 channels lets a little more pass than `stands_out`, as it is rounded to the type of x.
    shift, scale = x.dtype.type(0.249 * CANDIDATE**2 * phi), x.dtype.type(0.999 * CANDIDATE**2 * phi)
    n, least, filled = int(sums[0]), sums[3], 0
    lowest = _lowest(values, n, phi)
    for p in range(x.shape[0]):
        total = x.dtype.type(totals[p])
        for first in range(0, x.shape[1], CHANNELS_PER_TEST):
            last = min(first + CHANNELS_PER_TEST, x.shape[1])
            finite, negative, passed = none, none, none
            low, high = x.dtype.type(max(least, 0.0)), x.dtype.type(lowest * 0.999999)
            # Indices without a sign need no test for negative ones, so that the loop is done in SIMD registers.
            for e in range(np.uint64(first), np.uint64(last)):
                v = x[p, e]
                q = total * typed[0, e]
                d = v - q - shift
                passed += one if (v >= high) | (not (v >= low)) | (d * abs(d) >= scale * (q + typed[1, e])) else none
            if passed == none:
                sums[1] += last - first
                continue
            # Where something passed it may be negative values, or NaN, which are as many as all others in some data.
            low, passed = x.dtype.type(least), none
            for e in range(np.uint64(first), np.uint64(last)):
                v = x[p, e]
                q = total * typed[0, e]
                d = v - q - shift
                finite += one if abs(v) < np.inf else none
                negative += one if v < none else none
                passed += one if (v >= high) | (v < low) | (d * abs(d) >= scale * (q + typed[1, e])) else none
            sums[1] += finite
            sums[2] += negative
            if passed == none:
                continue
            for e in range(first, last):
                v = float(x[p, e])
                if not abs(v) < np.inf:
                    continue
                least = min(least, v)
                if v >= lowest:
                    n = _count_top(v, values, counts, n)
                    lowest = _lowest(values, n, phi)
                q = totals[p] * share[e]
                if stands_out(v, q, removed[e], phi):
                    q = max(q, _from_own_channels(x, p, share, e))
                    if stands_out(v, q, removed[e], phi):
                        row[filled], channel[filled], value[filled], expected[filled] = p, e, v, q
                        filled += 1
    sums[0], sums[3] = n, least
    return filled


@lean
def scan_counts(
    indptr: Any,
    channels: Any,
    data: Any,
    totals: Any,
    share: Any,
    spectrum: Any,
    phi: float,
    values: Any,
    counts: Any,
    sums: Any,
    row: Any,
    channel: Any,
    value: Any,
    expected: Any,
) -> int:
    """Do the same for a strip of `sparse_counts`: indptr (P + 1,), channels and data (filled,).

    share (E,): mean spectrum with the sum 1. spectrum (1, E): buffer of zeros. The rest as in `scan_dense`; the least
    value is that of the filled voxels, and finite values are not counted.
    """
    n, least, filled = int(sums[0]), sums[3], 0
    lowest = _lowest(values, n, phi)
    for p in range(len(indptr) - 1):
        spread = False
        for i in range(indptr[p], indptr[p + 1]):
            v, e = data[i], channels[i]
            least = min(least, v)
            if v >= lowest:
                n = _count_top(v, values, counts, n)
                lowest = _lowest(values, n, phi)
            q = totals[p] * share[e]
            if not stands_out(v, q, 0.0, phi):
                continue
            if not spread:
                for j in range(indptr[p], indptr[p + 1]):
                    spectrum[0, channels[j]] = data[j]
                spread = True
            q = max(q, _from_own_channels(spectrum, 0, share, e))
            if stands_out(v, q, 0.0, phi):
                row[filled], channel[filled], value[filled], expected[filled] = p, e, v, q
                filled += 1
        if spread:
            for j in range(indptr[p], indptr[p + 1]):
                spectrum[0, channels[j]] = 0.0
    sums[0], sums[3] = n, least
    return filled
