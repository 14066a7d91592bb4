"""Gain and read-out noise of a detector, from second differences of three pixels in a row.

The model is ``variance = g mean + rho^2`` in each channel. The outer pixels are scaled to the total of the middle one,
so that thickness and beam current cancel; differences over energy would find a blurred detector too quiet.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Bool, Float

ROUNDS: Final = 8
WIDTHS: Final = (1, 2, 4, 8, 16, 32)
LAGS: Final = (1, 2, 3, 5)
MEDIAN_OF_SQUARES: Final = 0.455
"""Median of the square of a standard normal number."""
LEAST_TOTAL_SD: Final = 10.0
"""Triples with a total below this many standard deviations of it are not scaled."""

LEAST_OFFSET_SD: Final = 2.0
"""Read-out noise below this many standard errors is none: channels of one mean cannot separate it from the gain."""
MOST_OVER_MEDIAN: Final = 4.0
"""Triples, and sums of channels, are left out of the index when they are noisier than the median by this many standard
deviations of a chi square."""
LEAST_ELECTRONS: Final = 20.0


class Noise(NamedTuple):
    """Noise of a cube.

    Attributes
    ----------
    gain : float
        g: variance over mean of a channel, in data units per electron. NaN where it cannot be estimated.
    readout : float
        rho, in data units.
    index_of_sums : tuple of float
        Variance over mean of sums of 1, 2, 4, 8, 16 and 32 channels.
    correlation : tuple of float
        Between channels 1, 2, 3 and 5 apart.
    """

    gain: float
    readout: float
    index_of_sums: tuple[float, ...]
    correlation: tuple[float, ...]

    @property
    def window_gain(self) -> float:
        """Variance over mean of sums of 8 channels, which errors of windows are computed with."""
        return self.index_of_sums[WIDTHS.index(8)]


def noise_of_triples(a: Any, c: Any, b: Any) -> Noise:
    """The noise from triples of neighbours a, c, b (n, E; float32 or float64) along a line.

    Examples
    --------
    >>> mean = np.linspace(20, 200, 64)
    >>> counts = np.random.default_rng(0).poisson(mean, (3, 256, 64)).astype(float)
    >>> found = noise_of_triples(*(3.0 * counts))
    >>> round(found.gain), round(found.window_gain), round(found.correlation[0], 1) + 0.0
    (3, 3, 0.0)
    """
    totals = np.stack([smooth_totals(part) for part in (a, c, b)])
    scaled: Any = (totals > 0).all(axis=0)
    for _ in range(2):
        d, m = second_differences(a, c, b, totals=totals, scaled=scaled)
        g, rho2, near = _fit(d, m)
        if not np.isfinite(g):
            break
        spread = np.sqrt(np.maximum(g * np.maximum(totals, 0.0) + rho2 * a.shape[1], 1e-30))
        scaled, before = (totals >= LEAST_TOTAL_SD * spread).all(axis=0), scaled
        if (before == scaled).all():
            break
    return Noise(g, float(np.sqrt(rho2)), _index_of_sums(d, m, g, rho2), _correlations(d, near))


def second_differences(a: Float, c: Float, b: Float, *, totals: Float, scaled: Bool) -> tuple[Float, Float]:
    """``(a' - 2 c + b') / sqrt(6)`` and ``(a' + c + b') / 3`` (n, E); a' and b' have the total of c where ``scaled``.

    a, c, b (n, E): triples of neighbours. totals (3, n): of each. scaled (n,): which triples are scaled.
    """
    left, right = (
        np.where(scaled, totals[1] / np.where(scaled, totals[k], 1.0), 1.0).astype(a.dtype)[:, None] for k in (0, 2)
    )
    outer = a * left + b * right
    return (outer - 2.0 * c) / np.float32(np.sqrt(6.0)), (outer + c) / np.float32(3.0)


def smooth_totals(x: Float) -> Float:
    """Total (n,) of spectra x (n, E) after a median of three channels, so that no spike decides it."""
    if x.shape[1] < 3:
        return np.asarray(x.sum(axis=1))
    a, b, c = x[:, :-2], x[:, 1:-1], x[:, 2:]
    return np.asarray(np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c)).sum(axis=1, dtype=np.float64))


def _fit(d: Float, m: Float) -> tuple[float, float, Bool]:
    """g, rho^2, and which of the terms (n, E) were used; NaN without intensity."""
    level = m.mean(axis=0, dtype=np.float64)
    good = level > 0
    if not good.any():
        return float("nan"), 0.0, np.zeros(d.shape, dtype=bool)
    g = float(np.median(np.median(d[:, good] ** 2, axis=0) / (MEDIAN_OF_SQUARES * level[good])))
    # Where most of the counts are 0, the median of the squares is 0.
    g = g if g > 0 else float((d[:, good] ** 2).mean() / level[good].mean())
    rho2 = 0.0
    squares = d**2
    near = np.ones(d.shape, dtype=bool)
    brightness = np.maximum(m.mean(axis=1, dtype=np.float64) / max(float(level.mean()), 1e-30), 0.0)
    expected = np.outer(brightness, np.maximum(level, 0.0)).astype(d.dtype)
    for _ in range(ROUNDS):
        near = squares <= np.float32(16.0 * g) * expected + np.float32(16.0 * rho2 + 4.0 * g * g)
        number = near.sum(axis=0)
        n = np.maximum(number, 1)
        variance = np.einsum("ne,ne->e", squares, near, dtype=np.float64) / n
        mean = np.einsum("ne,ne->e", m, near, dtype=np.float64) / n
        model = g * np.maximum(mean, 0.0) + rho2
        weights = np.where(model > 0, number / np.where(model > 0, model, 1.0) ** 2, 0.0)
        g, rho2 = _line(mean, variance, weights, variance / (3.0 * n))
        if not g > 0:
            return float("nan"), max(rho2, 0.0), near
    return g, rho2, near


def _line(x: Float, y: Float, w: Float, error: Float) -> tuple[float, float]:
    """Slope and offset of a line; the slope of a line through 0 where the offset is not above its error.

    x, y, w (E,): points and their weights. error (E,): variance of x, which would flatten the line.
    """
    total = w.sum()
    mx, my = (w * x).sum() / total, (w * y).sum() / total
    spread = (w * (x - mx) ** 2).sum()
    clean = spread - (w * error).sum()
    slope = (w * (x - mx) * (y - my)).sum() / clean if clean > 0.1 * spread else 0.0
    offset = my - slope * mx
    # The weights are n / variance^2, and the variance of a variance is 2 variance^2 / n.
    error_of_offset = np.sqrt(2.0 / total + mx * mx * 2.0 / max(clean, 1e-30 * total)) if clean > 0 else np.inf
    if offset <= LEAST_OFFSET_SD * error_of_offset or slope <= 0:
        return float((w * x * y).sum() / (w * x * x).sum()), 0.0
    return float(slope), float(offset)


def _index_of_sums(d: Float, m: Float, g: float, rho2: float) -> tuple[float, ...]:
    """Variance over mean of sums of 1 to 32 channels, without triples across a boundary and sums on moving peaks.

    d, m (n, E): differences and means. g, rho2: noise of a channel. Terms beyond 4 standard deviations are left out.
    """
    found = []
    for width in WIDTHS:
        number = d.shape[1] // width
        if not number or not np.isfinite(g):
            found.append(float("nan"))
            continue
        sums = d[:, : number * width].reshape(len(d), number, width).sum(axis=2)
        means = np.maximum(m[:, : number * width].reshape(len(d), number, width).sum(axis=2), 0.0)
        index = 2.0 * width * (g + rho2 / max(float(np.median(means)) / width, 1e-30))
        keep = np.ones(sums.shape, dtype=bool)
        for _ in range(ROUNDS // 2):
            near = keep & (sums**2 <= 16.0 * (index * means.astype(np.float64)) + 4.0 * g * g)
            squares, levels = sums**2 * near, means * near
            index = float(squares.sum() / max(levels.sum(), 1e-30))
            of_sums = _quiet(squares.sum(axis=0), levels.sum(axis=0), degrees=len(d), g=g)
            keep = of_sums & _quiet(squares.sum(axis=1), levels.sum(axis=1), degrees=number, g=g)[:, None]
        found.append(index)
    return tuple(found)


def _quiet(squares: Float, levels: Float, *, degrees: int, g: float) -> Bool:
    """Which ratios of squares to levels are not far above their median, for counting noise of this many degrees.

    g: data units per electron. Ratios of fewer than 20 electrons are kept: most of them are zero, so is their median.
    """
    electrons = levels / g
    judged = electrons >= LEAST_ELECTRONS
    if not judged.any():
        return ~judged
    ratios = squares / np.maximum(levels, 1e-30)
    spread = np.sqrt(2.0 / degrees + 1.0 / np.maximum(electrons, 1.0))
    return np.asarray(~judged | (ratios <= (1.0 + MOST_OVER_MEDIAN * spread) * np.median(ratios[judged])))


def _correlations(d: Float, near: Bool) -> tuple[float, ...]:
    """Mean correlation of the differences (n, E) of channels `LAGS` apart, over the terms that are ``near``."""
    found = []
    for lag in LAGS:
        if d.shape[1] <= lag:
            found.append(float("nan"))
            continue
        both = near[:, lag:] & near[:, :-lag]
        first, second = np.where(both, d[:, lag:], 0.0), np.where(both, d[:, :-lag], 0.0)
        norms = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
        good = norms > 0
        found.append(float(((first * second).sum(axis=0)[good] / norms[good]).mean()) if good.any() else float("nan"))
    return tuple(found)
