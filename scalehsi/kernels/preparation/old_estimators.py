"""Estimators of a power law that others use, for comparison: two areas, and a straight line through the logarithms."""

from __future__ import annotations

import numpy as np

from scalehsi.arrays import Float


def two_area(first: Float, second: Float, ends: tuple[float, float, float]) -> tuple[Float, Float]:
    """Amplitude A and exponent r of ``A E^-r`` from the sums of the two halves of a window.

    Sums over channels are taken as areas between the energies ``ends``, as HyperSpy's users know it: of the window's
    first channel, its middle one, and the one behind its last. Biased by 0.3 to 2 % of the background.

    first, second: sums of the halves times the width of a channel. NaN where one of them is not above 0.

    Examples
    --------
    >>> edges = np.array([100.0, 120.0, 140.0])
    >>> areas = (edges[:-1] ** -2 - edges[1:] ** -2) / 2  # of E^-3
    >>> [round(float(v), 2) for v in two_area(areas[0], areas[1], (100.0, 120.0, 140.0))]
    [1.03, 3.01]
    """
    low, middle, high = ends
    good = (np.asarray(first) > 0) & (np.asarray(second) > 0)
    a, b = np.where(good, first, np.nan), np.where(good, second, np.nan)
    r = 2.0 * np.log(a / b * (high - middle) / (middle - low)) / np.log(high / low)
    k = 1.0 - r
    heights = [k * area / (to**k - start**k) for area, start, to in ((a, low, middle), (b, middle, high))]
    return (a * heights[0] + b * heights[1]) / (a + b), r


def log_linear(sums: Float) -> tuple[Float, Float]:
    """Amplitude A and exponent r of ``A e^(-rl)`` from the unweighted line through ln x of the positive values.

    sums (..., 5): sums over positive values of ln x, l ln x, 1, l, l^2. NaN with fewer than 2 of them.
    """
    y, ly, n, l, ll = np.moveaxis(sums, -1, 0)  # noqa: E741
    spread = n * ll - l * l
    good = (n >= 2) & (spread > 0)
    slope = np.where(good, (n * ly - l * y) / np.where(good, spread, 1.0), np.nan)
    return np.exp((y - slope * l) / np.where(good, n, 1.0)), -slope
