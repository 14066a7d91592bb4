"""Find single values that no neighbouring pixel explains, and replace them by what the neighbours predict.

Letters: P pixels of a tile, E energies, K neighbours.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

HALF_WINDOW: Final = 15
"""Neighbours are scaled to the local intensity of a pixel: the sum over this many channels to each side."""
FLOOR: Final = 1e-3
FLOOR_SD: Final = 4.0
"""The local intensity has this many standard deviations of its read-out noise added, so that channels without counts
are not scaled by noise."""
LEAST_NEIGHBOURS: Final = 3
TREND: Final = 7
"""The trend of the residual is that of this many channels to each side, without the three around the value."""
LEAST_SCALE: Final = 1.5
"""Residuals that spread less than this are noise: the limit is not raised."""


def replace_spikes(
    x: Any, used: Any, *, offsets: Any, threshold: float, gain: float, readout: float, whole: bool
) -> Any:
    """A copy of a tile x (ny, nx, E) whose spikes are replaced.

    A value is compared with the mean of its neighbours without the smallest and the largest. A spike is more than
    ``threshold`` standard deviations above it, after the trend of the pixel's own residual is taken off.

    x: counts or intensities. used (ny, nx): pixels to repair and to compare with. offsets (K, 2): steps along y and x
    to the neighbours. threshold: in standard deviations. gain, readout: noise of a channel. whole: round new values.
    """
    out = np.array(x)
    inverse = np.empty(x.shape, dtype=np.float32)
    _inverse_weights(x, FLOOR + FLOOR_SD * readout * np.sqrt(2.0 * HALF_WINDOW + 1.0), inverse)
    mask = np.ascontiguousarray(used, dtype=np.bool_)
    _replace(x, mask, inverse, np.asarray(offsets, dtype=np.int64), threshold, gain, readout, whole, out)
    return out


@numba.njit(cache=True, nogil=True)
def _median3(a: float, b: float, c: float) -> float:
    return max(min(a, b), min(max(a, b), c))


@numba.njit(cache=True, nogil=True)
def _inverse_weights(x: Any, floor: float, inverse: Any) -> None:
    """Write 1 over the local intensity of each value of x (ny, nx, E): sums over 31 channels of medians of three.

    floor: is added to each sum.
    """
    channels = x.shape[2]
    smooth = np.empty(channels)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            for e in range(channels):
                k = min(max(e, 1), channels - 2)
                smooth[e] = (
                    _median3(float(x[i, j, k - 1]), float(x[i, j, k]), float(x[i, j, k + 1]))
                    if channels > 2
                    else float(x[i, j, e])
                )
            total = 0.0
            for e in range(min(HALF_WINDOW, channels)):
                total += smooth[e]
            for e in range(channels):
                if e + HALF_WINDOW < channels:
                    total += smooth[e + HALF_WINDOW]
                if e - HALF_WINDOW - 1 >= 0:
                    total -= smooth[e - HALF_WINDOW - 1]
                inverse[i, j, e] = np.float32(1.0 / (max(total, 0.0) + floor))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _replace(
    x: Any,
    used: Any,
    inverse: Any,
    offsets: Any,
    threshold: float,
    gain: float,
    readout: float,
    whole: bool,  # noqa: FBT001
    out: Any,
) -> None:
    """Write replaced values into out; the arguments are those of `replace_spikes`, inverse: of `_inverse_weights`."""
    ny, nx, channels = x.shape
    least, largest = np.empty(channels, dtype=np.float32), np.empty(channels, dtype=np.float32)
    total, mean, sd = np.empty(channels, dtype=np.float32), np.empty(channels), np.empty(channels)
    for i in range(ny):
        for j in range(nx):
            if not used[i, j]:
                continue
            neighbours = 0
            for k in range(offsets.shape[0]):
                a, b = i + offsets[k, 0], j + offsets[k, 1]
                if a < 0 or b < 0 or a >= ny or b >= nx or not used[a, b]:
                    continue
                if neighbours == 0:
                    for e in range(channels):
                        value = np.float32(x[a, b, e]) * inverse[a, b, e]
                        least[e] = largest[e] = total[e] = value
                else:
                    for e in range(channels):
                        value = np.float32(x[a, b, e]) * inverse[a, b, e]
                        least[e] = min(least[e], value)
                        largest[e] = max(largest[e], value)
                        total[e] += value
                neighbours += 1
            if neighbours < LEAST_NEIGHBOURS:
                continue
            kept = neighbours - 2
            for e in range(channels):
                mean[e] = np.float64((total[e] - least[e] - largest[e]) / inverse[i, j, e]) / kept
            extra = 1.0 + 1.0 / kept
            for e in range(channels):
                low, high = max(e - 2, 0), min(e + 3, channels)
                around = 0.0
                for f in range(low, high):
                    around += mean[f]
                around /= high - low
                level = max(mean[e], around, 0.0)
                sd[e] = np.sqrt((gain * level + readout * readout) * extra + gain * gain)
            for e in range(channels):
                if x[i, j, e] - mean[e] > threshold * sd[e]:
                    centre, spread = _trend(x[i, j], mean, sd, e)
                    above = (x[i, j, e] - mean[e] - max(centre, 0.0) * sd[e]) / sd[e]
                    if above > threshold * (spread if spread > LEAST_SCALE else 1.0):
                        value = max(mean[e] + centre * sd[e], 0.0)
                        out[i, j, e] = np.rint(value) if whole else value


@numba.njit(cache=True, nogil=True)
def _trend(x: Any, mean: Any, sd: Any, e: int) -> tuple[float, float]:
    """Median of the standardised residuals around channel e of x (E,), and 1.48 times their median deviation."""
    near = np.empty(2 * TREND)
    n = 0
    for f in range(max(e - TREND, 0), min(e + TREND + 1, x.shape[0])):
        if abs(f - e) > 1:
            near[n] = (x[f] - mean[f]) / sd[f]
            n += 1
    if n == 0:
        return 0.0, 1.0
    centre = np.median(near[:n])
    return centre, 1.48 * np.median(np.abs(near[:n] - centre))
