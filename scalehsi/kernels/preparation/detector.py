"""Dark spectrum, afterglow and channel gain of a detector."""

from __future__ import annotations

from typing import Final

import numpy as np

from scalehsi.arrays import Float

MEDIAN_CHANNELS: Final = 51
"""Width of the running median that separates the gain of channels from the spectrum of a reference."""


def relative_gain(reference: Float, channels: int = MEDIAN_CHANNELS) -> Float:
    """The gain (E,) of each channel: a reference spectrum (E,) over its running median; 1 where that is not above 0.

    Examples
    --------
    >>> reference = np.full(100, 200.0)
    >>> reference[40] = 220.0
    >>> relative_gain(reference)[39:42].tolist()
    [1.0, 1.1, 1.0]
    """
    from scipy.ndimage import median_filter

    reference = np.asarray(reference, dtype=np.float64)
    size = min(channels, reference.size)
    half = max(min(size // 2, reference.size - 1), 0)
    # Odd reflection continues the slope of the ends.
    padded = np.pad(reference, half, mode="reflect", reflect_type="odd") if half else reference
    smooth = median_filter(padded, size=size)[half : half + reference.size]
    return np.where(smooth > 0, reference / np.where(smooth > 0, smooth, 1.0), 1.0)


def afterglow_of(x: Float, before: Float, dark: Float) -> tuple[float, float]:
    """The part of a pixel's counts that the next one has, and its standard error.

    x, before (n, E): dark pixels, and the bright ones that were scanned before them. dark (E,): scaled to a pixel.
    """
    bright = before - dark
    power = float((bright**2).sum())
    part = float(((x - dark) * bright).sum()) / power
    left = x - dark - part * bright
    return part, float(np.sqrt((left**2 * bright**2).sum()) / power)
