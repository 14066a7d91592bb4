"""Biwhitening: scale rows and columns of counts so that their noise has variance one, and count what exceeds noise.

Landa, Zhang and Kluger 2022, doi:10.1137/21M1456807. The scale of a row follows from those of the columns, so a reading
of the data returns only one number a channel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.statistics.noise_edge import noise_edge

ROWS_PER_PRODUCT: Final = 1024
"""Rows that are multiplied at once: enough for a fast product, few enough for float32 sums."""
ROUNDS: Final = 3
"""Times that the noise is measured again without the components above it."""
DENSITY_NODES: Final = 4001
MARGIN: Final = 1.05
"""A component is above noise from this ratio on: counts of few events have longer tails than Gaussian noise (measured:
up to 1.042 at 20 counts a pixel)."""


class Spectrum(NamedTuple):
    """Eigenvalues beside what noise can reach.

    Attributes
    ----------
    ratio : array, shape (min(rows, columns),)
        Eigenvalues over the largest one of noise, descending.
    above : int
        Number of ratios above 1.05.
    noise : float
        Variance of the scaled noise: the variance index of counts.
    """

    ratio: Float
    above: int
    noise: float


def scaled_sums(x: Any, *, scale: Float, weigh_rows: bool, moment: bool) -> dict[str, Any]:
    """Sums over rows that are scaled by ``u^2 = E / sum_e x v^2``.

    Parameters
    ----------
    x : array, shape (P, E)
        Counts or intensities; rows without a positive total do not count.
    scale : array, shape (E,)
        Squared scale of each column, v^2.
    weigh_rows : bool
        False: u = 1, for data that may be negative.
    moment : bool
        Whether to return the moment matrix, at 2 P E^2 flops.

    Returns
    -------
    dict
        ``rows``, their number; ``columns`` (E,) = sum u^2 x; ``moment`` (E, E) = sum u^2 x x', not scaled by v.

    Examples
    --------
    >>> found = scaled_sums(np.full((4, 2), 3), scale=np.ones(2), weigh_rows=True, moment=True)
    >>> found["rows"], found["columns"].round(6).tolist(), found["moment"].round(6).tolist()
    (4, [4.0, 4.0], [[12.0, 12.0], [12.0, 12.0]])
    """
    channels = x.shape[1]
    sums: dict[str, Any] = {"rows": 0, "columns": np.zeros(channels)}
    if moment:
        sums["moment"] = np.zeros((channels, channels))
    for start in range(0, len(x), ROWS_PER_PRODUCT):
        rows = np.asarray(x[start : start + ROWS_PER_PRODUCT], dtype=np.float32)
        if weigh_rows:
            total = rows @ scale.astype(np.float32)
            rows, total = rows[total > 0], total[total > 0]
            weight = channels / total
        else:
            weight = np.ones(len(rows), dtype=np.float32)
        sums["rows"] += len(rows)
        sums["columns"] += weight @ rows
        if moment:
            white = rows * np.sqrt(weight)[:, None]
            sums["moment"] += white.T @ white
    return sums


def count_above_noise(eigenvalues: Float, *, rows: int, columns: int, noise: float | None = None) -> Spectrum:
    """Compare eigenvalues of a moment matrix with those of noise.

    The variance of the noise is the median eigenvalue over that of the distribution of Marchenko and Pastur, measured
    again without the components above noise.

    Parameters
    ----------
    eigenvalues : array
        Of ``X' X`` with the noise of X of equal variance everywhere.
    rows, columns : int
        Size of X, at least 2.
    noise : float, optional
        The variance, where it is known.

    Returns
    -------
    Spectrum

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((400, 50))
    >>> x[:, 0] += 3
    >>> found = count_above_noise(np.linalg.eigvalsh(x.T @ x), rows=400, columns=50)
    >>> found.above, bool(abs(found.noise - 1) < 0.05)
    (1, True)
    """
    least = min(rows, columns)
    values = np.maximum(np.sort(np.asarray(eigenvalues, dtype=np.float64))[::-1][:least], 0.0)
    count, measured = 0, noise
    for _ in range(ROUNDS):
        if noise is None:
            bulk = values[count:] if least - count >= 2 else values[-2:]
            # Components take their rows and columns with them.
            measured = float(np.median(bulk)) / marchenko_pastur_median(rows - count, columns - count)
        if not measured:
            break
        count = int(np.sum(values > MARGIN * measured * noise_edge(rows, columns)))
    edge = (measured or 0.0) * noise_edge(rows, columns)
    ratio = values / edge if edge else np.full(least, np.nan)
    return Spectrum(ratio, count if edge else 0, float(measured or 0.0))


@lru_cache(maxsize=256)
def marchenko_pastur_median(rows: int, columns: int) -> float:
    """Median of the eigenvalues of ``X' X`` that are not zero, for white noise of variance one.

    Parameters
    ----------
    rows, columns : int
        Size of X; below 1 it counts as 1.

    Returns
    -------
    float

    References
    ----------
    Marchenko and Pastur 1967, doi:10.1070/SM1967v001n04ABEH001994.

    Examples
    --------
    >>> round(marchenko_pastur_median(10**6, 1) / 10**6, 2), round(marchenko_pastur_median(100, 100))
    (1.0, 65)
    """
    large, small = max(rows, columns, 1), max(min(rows, columns), 1)
    low, high = (np.sqrt(large) - np.sqrt(small)) ** 2, (np.sqrt(large) + np.sqrt(small)) ** 2
    # Nodes that are dense at both ends, where the density has roots or a pole.
    angle = np.linspace(0, np.pi, DENSITY_NODES)[1:-1]
    at = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    density = np.sqrt((high - at) * (at - low)) / at * np.sin(angle)
    below = np.cumsum(density)
    return float(np.interp(below[-1] / 2, below, at))
