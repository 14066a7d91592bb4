"""How far a tile must look around itself, so that what it gives is what the whole would give."""

from __future__ import annotations

import math
from typing import Final

from scalehsi.kernels.gaussian_process.covariance import parse

TOLERANCE: Final = 0.01
"""Largest difference of a mean from that of the whole, in standard deviations of the posterior."""
WORST: Final = 5.0
"""Difference with no halo at all, in the same unit; found by trying, the same at any noise."""
RATES: Final = {
    "matern12": 1.0,
    "matern32": math.sqrt(3.0),
    "matern52": math.sqrt(5.0),
    "rbf": 0.85,
    "periodic": 0.0,
}
"""How fast the influence of a far pixel falls, in 1 / length. That of "rbf" rings on far beyond its covariance."""
PERIODIC: Final = 0.75
"""A periodic factor makes it fall more slowly by so much."""
LEAST_CORE: Final = 64
HALOS_A_CORE: Final = 4
"""Pixels of a tile for each of its halo: larger tiles need more memory, smaller ones do more twice."""


def reach(kernel: str, length: float, tolerance: float = TOLERANCE) -> float:
    """Pixels of halo that keep the difference of a tile from the whole below a part of the posterior's deviation.

    Parameters
    ----------
    kernel : str
        See `scalehsi.kernels.gaussian_process.covariance.parse`.
    length : float
        In pixels; the longer one of the two axes.
    tolerance : float, default 0.01

    Returns
    -------
    float
        A whole number, or infinite where the covariance does not fall ("periodic" alone): then only the whole will do.

    Examples
    --------
    >>> reach("matern52", 6.0), reach("periodic(6)", 6.0), reach("matern52*periodic(6)", 6.0)
    (17.0, inf, 23.0)
    """
    rate = min(_rate([factor.name for factor in term]) for term in parse(kernel))
    return float(math.ceil(length / rate * math.log(max(WORST / tolerance, 1.0)))) if rate else math.inf


def _rate(names: list[str]) -> float:
    """Of a product: the slowest factor that falls, as the others are nearly flat where it matters, or zero."""
    falling = [RATES[name] for name in names if RATES[name] > 0]
    slow = PERIODIC if len(falling) < len(names) else 1.0
    return slow * min(falling) if falling else 0.0


def core(halo: float) -> int:
    """Pixels of a tile along each axis, its halo not counted, for the least work.

    Examples
    --------
    >>> core(17.0), core(3.0)
    (68, 64)
    """
    return max(LEAST_CORE, int(HALOS_A_CORE * halo))
