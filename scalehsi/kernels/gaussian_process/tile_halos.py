"""Width of the halo around a tile with which tiled maps equal those of the whole image, and the size of the tiles."""

from __future__ import annotations

import math
from typing import Final

from scalehsi.kernels.gaussian_process.covariance import parse

TOLERANCE: Final = 0.01
"""Largest difference between the mean of a tile and that of the whole, in standard deviations of the posterior."""
ERROR_WITHOUT_HALO: Final = 5.0
"""Difference without a halo, in the same unit; measured, and the same at every noise."""
DECAY_RATES: Final = {
    "matern12": 1.0,
    "matern32": math.sqrt(3.0),
    "matern52": math.sqrt(5.0),
    "rbf": 0.85,
    "periodic": 0.0,
}
"""Rate at which the influence of a distant pixel decays, in 1 / length. That of "rbf" oscillates far beyond its
covariance."""
PERIODIC_DECAY: Final = 0.75
"""Factor by which a periodic factor slows this decay."""
MIN_CORE_PIXELS: Final = 64
HALOS_PER_CORE: Final = 4
"""Side of a tile, in halos: larger tiles need more memory, smaller ones compute more pixels twice."""


def halo_pixels(kernel: str, length: float, tolerance: float = TOLERANCE) -> float:
    """Halo, in pixels, that keeps the mean of a tile within ``tolerance`` of that of the whole.

    Parameters
    ----------
    kernel : str
        See `scalehsi.kernels.gaussian_process.covariance.parse`.
    length : float
        In pixels; the longer one of the two axes.
    tolerance : float, default 0.01
        In standard deviations of the posterior.

    Returns
    -------
    float
        A whole number. Infinite where the covariance does not decay ("periodic" alone): then only the whole is exact.

    Examples
    --------
    >>> halo_pixels("matern52", 6.0), halo_pixels("periodic(6)", 6.0), halo_pixels("matern52*periodic(6)", 6.0)
    (17.0, inf, 23.0)
    """
    rate = min(_decay_rate([factor.name for factor in term]) for term in parse(kernel))
    return float(math.ceil(length / rate * math.log(max(ERROR_WITHOUT_HALO / tolerance, 1.0)))) if rate else math.inf


def _decay_rate(names: list[str]) -> float:
    """Decay rate of a product: that of its slowest decaying factor, as the others are nearly flat there; or zero."""
    decaying = [DECAY_RATES[name] for name in names if DECAY_RATES[name] > 0]
    slowdown = PERIODIC_DECAY if len(decaying) < len(names) else 1.0
    return slowdown * min(decaying) if decaying else 0.0


def tile_pixels(halo: float) -> int:
    """Side of a tile without its halo, in pixels, that needs the least work.

    Examples
    --------
    >>> tile_pixels(17.0), tile_pixels(3.0)
    (68, 64)
    """
    return max(MIN_CORE_PIXELS, int(HALOS_PER_CORE * halo))
