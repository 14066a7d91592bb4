"""Intensity of the zero-loss peak and of the whole spectrum of each pixel."""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.preparation.zero_loss import zero_loss_positions

MEAN_OF: Final = 5
"""Channels of the means whose minimum ends the zero-loss peak."""


def zero_loss_part(x: Any, *, nearest: float, furthest: float, **settings: Any) -> Float:
    """Position in channels, intensity up to the minimum behind the peak, and of all channels (P, 3); NaN without peak.

    x (P, E): low losses. nearest, furthest: channels behind the peak between which the minimum is sought. settings: of
    `zero_loss_positions`.
    """
    places = zero_loss_positions(x, **settings)[:, 0]
    out = np.full((x.shape[0], 3), np.nan)
    _split(np.asarray(x), places, nearest, furthest, out)
    return out


@numba.njit(cache=True, nogil=True)
def _split(x: Any, places: Any, nearest: float, furthest: float, out: Any) -> None:
    channels, half = x.shape[1], MEAN_OF // 2
    for p in range(x.shape[0]):
        if not np.isfinite(places[p]):
            continue
        first = max(int(np.ceil(places[p] + nearest)), half)
        last = min(int(np.floor(places[p] + furthest)), channels - 1 - half)
        best, least = first, np.inf
        for e in range(first, last + 1):
            total = 0.0
            for f in range(e - half, e + half + 1):
                total += x[p, f]
            if total < least:
                best, least = e, total
        front = whole = 0.0
        for e in range(channels):
            whole += x[p, e]
            if e <= best:
                front += x[p, e]
        out[p, 0], out[p, 1], out[p, 2] = places[p], front, whole
