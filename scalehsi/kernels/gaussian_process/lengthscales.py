"""The likelihood of single maps as a function of one length, everything else at its best: curves, basins, where to end.

For one map the noise follows from the ratio r of signal to noise: with the eigenvalues g of the spatial covariance and
the rotated values z, the best ``sigma^2`` is the mean of ``z^2 / (1 + r g)``, and what is left is a function of r
alone. It costs so little that all ratios are looked at, and no minimum is missed.

Letters: n lengths, N pixels of all tiles, K components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.gaussian_process.covariance import axis, covariance

RADIAL: Final = "-radial"
NODES: Final = 2000
"""Eigenvalues that are close share a node, as in `scalehsi.kernels.gaussian_process.likelihood`, but so many that the
curve is
exact to some thousandths of a nat: a barrier must not be one of rounding."""
LEAST: Final = 1e-9
RATIOS: Final = np.concatenate([[0.0], np.geomspace(1e-5, 1e9, 113)])
"""Ratios of signal to noise, as variances of a pixel."""
BARRIER: Final = 0.5
"""In nats: what is lower does not part two basins."""
CLEAR: Final = 15.0
"""Nats by which a basin must beat noise alone to count: in noise alone some length is always a few nats better."""
ALIKE: Final = 2.5
"""Basins up to so many times the shortest are of one structure."""
ROOM: Final = (1 / 3, 1.25)
"""The recommended interval goes from the shortest to the longest of these basins, times these factors."""


class Basin(NamedTuple):
    """A minimum of a curve.

    Attributes
    ----------
    length : float
        Where it lies, in pixels.
    loss : float
        There, in nats.
    """

    length: float
    loss: float


class Losses(NamedTuple):
    """What single maps say of one length.

    Attributes
    ----------
    loss : array, shape (K,)
        Least negative logarithm of the likelihood, in nats.
    noise : array, shape (K,)
        Standard deviation of the noise there.
    plain : array, shape (K,)
        The loss of noise alone, which no length changes.
    """

    loss: Float
    noise: Float
    plain: Float


def loss_at(tiles: Sequence[Float], masks: Sequence[Bool], *, kernel: str, length: float) -> Losses:
    """The least negative logarithm of the likelihood of each map alone, its covariance having one length.

    Parameters
    ----------
    tiles : sequence of arrays, shape (H, W, K)
        Without their means. What stands at missing pixels is not looked at.
    masks : sequence of bool arrays, shape (H, W)
        True where the maps were measured.
    kernel : str
        Of `scalehsi.kernels.gaussian_process.covariance.parse`, or one of its names with ``-radial``.
    length : float
        Along both axes, in pixels.

    Returns
    -------
    Losses

    Notes
    -----
    Cost: complete tiles of a separable kernel take two products with an axis for each map; others an
    eigendecomposition of the observed pixels' covariance, their number cubed.
    """
    values, squares = [], []
    for tile, mask in zip(tiles, masks, strict=True):
        found = _complete(tile, kernel, length) if mask.all() and not kernel.endswith(RADIAL) else None
        g, z = found or _scattered(tile, mask, kernel, length)
        values.append(g)
        squares.append(z)
    g, z = np.concatenate(values), np.concatenate(squares)
    count = len(g)
    g, numbers, z = _grouped(g, z)
    best = [_best(g, numbers, one, count) for one in z.T]
    return Losses(*(np.array(values) for values in zip(*best, strict=True)))


def _complete(tile: Float, kernel: str, length: float) -> tuple[Float, Float]:
    """Eigenvalues (N,) of a complete tile's covariance and the squares (N, K) of the rotated maps."""
    rows, columns = (axis(kernel, size, length, slope=False) for size in tile.shape[:2])
    z = rows.vectors.T @ np.moveaxis(tile, -1, 0) @ columns.vectors
    return np.outer(rows.values, columns.values).ravel(), (z.reshape(len(z), -1) ** 2).T


def _scattered(tile: Float, mask: Bool, kernel: str, length: float) -> tuple[Float, Float]:
    """The same of the pixels that were measured."""
    y, x = np.nonzero(mask)
    dy, dx = np.subtract.outer(y, y), np.subtract.outer(x, x)
    if kernel.endswith(RADIAL):
        k = covariance(kernel.removesuffix(RADIAL), np.hypot(dy, dx), length)[0]
    else:
        k = covariance(kernel, dy, length)[0] * covariance(kernel, dx, length)[0]
    values, vectors = np.linalg.eigh(k)
    return np.maximum(values, 0.0), (vectors.T @ tile[mask]) ** 2


def _grouped(g: Float, z: Float) -> tuple[Float, Any, Float]:
    """Nodes (b,) of eigenvalues, how many belong to each (b,), and sums of squares (b, K)."""
    top = float(g.max(initial=0.0))
    if len(g) <= NODES or top == 0.0:
        return g, np.ones(len(g)), z
    place = np.log(np.maximum(g, LEAST * top) / (LEAST * top)) / np.log(1 / LEAST) * (NODES - 1)
    left = np.minimum(place.astype(np.int64), NODES - 2)
    share = place - left
    numbers = np.bincount(left, 1 - share, NODES) + np.bincount(left + 1, share, NODES)
    sums = [np.bincount(left, (1 - share) * v, NODES) + np.bincount(left + 1, share * v, NODES) for v in z.T]
    nodes = LEAST * top * np.exp(np.arange(NODES) / (NODES - 1) * np.log(1 / LEAST))
    used = numbers > 0
    return nodes[used], numbers[used], np.stack(sums, axis=1)[used]


def _best(g: Float, numbers: Float, z: Float, count: int) -> tuple[float, float, float]:
    """Least loss over the ratio of signal to noise, the noise there, and the loss without signal."""

    def losses(ratio: Float) -> tuple[Float, Float]:
        spread = 1.0 + np.outer(ratio, g)
        variance = np.maximum((z / spread).sum(axis=1) / count, 1e-300)
        return 0.5 * (count * (np.log(2 * np.pi * variance) + 1) + np.log(spread) @ numbers), variance

    found, variance = losses(RATIOS)
    plain = float(found[0])
    i = int(np.argmin(found))
    low, high = RATIOS[max(1, i - 1)], RATIOS[min(len(RATIOS) - 1, max(2, i + 1))]
    for _ in range(3):
        # Between the neighbours of the best one, ever closer: eight steps to each.
        fine = np.geomspace(low, high, 9)
        inner, spread = losses(fine)
        j = int(np.argmin(inner))
        if inner[j] < found[i]:
            found[i], variance[i] = inner[j], spread[j]
        low, high = fine[max(0, j - 1)], fine[min(8, j + 1)]
    return float(found[i]), float(np.sqrt(variance[i])), plain


def basins(lengths: Float, losses: Float) -> list[Basin]:
    """The minima of a curve inside its ends, from short to long lengths; a rise of half a nat parts two of them.

    Parameters
    ----------
    lengths : array, shape (n,)
        Rising.
    losses : array, shape (n,)

    Examples
    --------
    >>> lengths = np.geomspace(1, 16, 9)
    >>> [round(b.length, 1) for b in basins(lengths, np.array([9, 4, 0, 4, 9, 7, 3, 8, 9.0]))]
    [2.0, 7.8]
    """
    n = len(losses)
    found = []
    for i in range(1, n - 1):
        if not (losses[i] <= losses[i - 1] and losses[i] < losses[i + 1]):
            continue
        lower = np.flatnonzero(losses < losses[i])
        left, right = lower[lower < i], lower[lower > i]
        # Of equals on both sides, and to each lower place, the way must lead over a barrier.
        barriers = [losses[left[-1] : i].max()] if left.size else [losses[:i].max()]
        barriers.append(losses[i : right[0]].max() if right.size else losses[i:].max())
        if min(barriers) - losses[i] >= BARRIER:
            found.append(Basin(*_vertex(lengths, losses, i)))
    return found


def _vertex(lengths: Float, losses: Float, i: int) -> tuple[float, float]:
    """Place and depth of a minimum between the steps, by a parabola through three points."""
    t = np.log(lengths[i - 1 : i + 2] / lengths[i])
    left, right = ((losses[i + d] - losses[i]) / t[1 + d] for d in (-1, 1))
    bend = (right - left) / (t[2] - t[0])
    tilt = left - bend * t[0]
    shift = float(-tilt / (2 * bend)) if bend > 0 else 0.0
    return float(lengths[i] * np.exp(shift)), float(losses[i] + (tilt + bend * shift) * shift)


def ends(lengths: Float, losses: Float, limits: Float, *, low: float) -> Float:
    """Where a descent from the middle of ``(low, limit)`` ends, for each limit; at the limit where nothing stops it.

    Parameters
    ----------
    lengths, losses : array, shape (n,)
        A curve.
    limits : array, shape (m,)
    low : float

    Returns
    -------
    array, shape (m,)
    """
    out = np.empty(len(limits))
    for number, limit in enumerate(limits):
        inside = np.flatnonzero((lengths >= low * (1 - 1e-9)) & (lengths <= limit * (1 + 1e-9)))
        if not inside.size:
            out[number] = limit
            continue
        first, last = int(inside[0]), int(inside[-1])
        i = first + _descend(losses[inside], int(np.argmin(np.abs(lengths[inside] - 0.5 * (low + limit)))))
        if 0 < i < len(lengths) - 1 and losses[i] < min(losses[i - 1], losses[i + 1]):
            # A minimum of the whole curve: it may lie beyond the last step inside.
            out[number] = min(max(_vertex(lengths, losses, i)[0], low), limit)
        else:
            out[number] = low if i == first and losses[first] < losses[last] else limit
    return out


def _descend(losses: Float, start: int) -> int:
    """Where steps end that go to the lowest place that can be reached without a climb of more than a barrier."""
    place, seen = start, -1
    while place != seen:
        seen = place
        high = np.flatnonzero(losses > losses[place] + BARRIER)
        left, right = high[high < place], high[high > place]
        first = int(left[-1]) + 1 if left.size else 0
        last = int(right[0]) if right.size else len(losses)
        place = first + int(np.argmin(losses[first:last]))
    return place


def recommend(wells: Sequence[Sequence[Basin]], plain: Float, *, low: float) -> tuple[float, float] | None:
    """An interval around the shortest basins that the maps have in common; None where no map has one.

    A process whose length is kept there follows the finest structure, and maps that are too weak to show it themselves
    are led by the others. A longer length would lose it; a shorter one leaves what is smooth somewhat noisier.

    Parameters
    ----------
    wells : sequence of lists of Basin
        Of each map.
    plain : array, shape (K,)
        Loss of each map without signal.
    low : float
        Least length.

    Examples
    --------
    >>> wells = [[Basin(2.0, -90.0), Basin(12.0, -80.0)], [Basin(2.4, -50.0)], [Basin(1.0, -2.0)]]
    >>> recommend(wells, np.zeros(3), low=0.5)
    (0.6666666666666666, 3.0)
    """
    clear = [
        min(lengths)
        for own, nothing in zip(wells, plain.tolist(), strict=True)
        if (lengths := [w.length for w in own if nothing - w.loss >= CLEAR])
    ]
    if not clear:
        return None
    group = [length for length in clear if length <= ALIKE * min(clear)]
    return max(low, ROOM[0] * min(group)), ROOM[1] * max(group)
