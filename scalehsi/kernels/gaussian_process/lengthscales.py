"""Likelihood of single maps as a function of one length scale, the minima of this curve, and where a search ends on it.

For one map the noise follows from the ratio r of signal to noise: with the eigenvalues g of the spatial covariance and
the rotated values z, the best ``sigma^2`` is the mean of ``z^2 / (1 + r g)``, and the likelihood becomes a function of
r alone. That costs so little that all ratios are examined and no minimum is missed.

Letters: n lengths, N pixels of all tiles, K components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.gaussian_process.covariance import covariance, decompose_axis
from scalehsi.kernels.gaussian_process.radial_kernel import RADIAL_SUFFIX, is_radial

NODE_COUNT: Final = 2000
"""Similar eigenvalues are grouped at this many nodes, as in `scalehsi.kernels.gaussian_process.spectral_nodes`, but
finer: the curve is exact to some thousandths of a nat, so that rounding makes no barrier."""
SMALLEST_EIGENVALUE: Final = 1e-9
"""Relative to the largest."""
SIGNAL_TO_NOISE: Final = np.concatenate([[0.0], np.geomspace(1e-5, 1e9, 113)])
"""Examined ratios of signal to noise, as variances of a pixel."""
BARRIER_NATS: Final = 0.5
"""Least height of a barrier between two minima."""
MIN_EVIDENCE_NATS: Final = 15.0
"""A minimum counts when it beats noise alone by this: even in noise alone some length is always a few nats better."""
SAME_STRUCTURE_RATIO: Final = 2.5
"""Minima at up to this many times the shortest length belong to one structure."""
INTERVAL_FACTORS: Final = (1 / 3, 1.25)
"""The recommended interval extends from the shortest to the longest of these minima, times these factors."""


class Minimum(NamedTuple):
    """A local minimum of a loss curve.

    Attributes
    ----------
    length : float
        Its place, in pixels.
    loss : float
        In nats.
    """

    length: float
    loss: float


class Losses(NamedTuple):
    """Likelihood of single maps at one length.

    Attributes
    ----------
    loss : array, shape (K,)
        Least negative log likelihood, in nats.
    noise : array, shape (K,)
        Standard deviation of the noise at this minimum.
    plain : array, shape (K,)
        The loss of noise alone, which is the same at every length.
    """

    loss: Float
    noise: Float
    plain: Float


def loss_at(tiles: Sequence[Float], masks: Sequence[Bool], *, kernel: str, length: float) -> Losses:
    """Compute the least negative log likelihood of each map alone, with one length of its covariance.

    Parameters
    ----------
    tiles : sequence of arrays, shape (H, W, K)
        Without their means. Values at missing pixels are ignored.
    masks : sequence of bool arrays, shape (H, W)
        True where the maps were measured.
    kernel : str
        See `scalehsi.kernels.gaussian_process.covariance.parse`, or one of its names with ``-radial``.
    length : float
        Along both axes, in pixels.

    Returns
    -------
    Losses

    Notes
    -----
    Cost: complete tiles of a separable kernel take two products with an axis for each map; others an
    eigendecomposition of the covariance of the measured pixels, their number cubed.
    """
    values, squares = [], []
    for tile, mask in zip(tiles, masks, strict=True):
        found = _complete_spectrum(tile, kernel, length) if mask.all() and not is_radial(kernel) else None
        g, z = found or _measured_spectrum(tile, mask, kernel, length)
        values.append(g)
        squares.append(z)
    g, z = np.concatenate(values), np.concatenate(squares)
    count = len(g)
    g, numbers, z = _group_eigenvalues(g, z)
    best = [_best_ratio(g, numbers, one, count) for one in z.T]
    return Losses(*(np.array(values) for values in zip(*best, strict=True)))


def _complete_spectrum(tile: Float, kernel: str, length: float) -> tuple[Float, Float]:
    """Eigenvalues (N,) of a complete tile's covariance, and the squares (N, K) of the maps in its eigenvectors."""
    rows, columns = (decompose_axis(kernel, size, length, slope=False) for size in tile.shape[:2])
    z = rows.vectors.T @ np.moveaxis(tile, -1, 0) @ columns.vectors
    return np.outer(rows.values, columns.values).ravel(), (z.reshape(len(z), -1) ** 2).T


def _measured_spectrum(tile: Float, mask: Bool, kernel: str, length: float) -> tuple[Float, Float]:
    """Eigenvalues and squares of the measured pixels alone, as of `_complete_spectrum`."""
    y, x = np.nonzero(mask)
    dy, dx = np.subtract.outer(y, y), np.subtract.outer(x, x)
    if is_radial(kernel):
        k = covariance(kernel.removesuffix(RADIAL_SUFFIX), np.hypot(dy, dx), length)[0]
    else:
        k = covariance(kernel, dy, length)[0] * covariance(kernel, dx, length)[0]
    values, vectors = np.linalg.eigh(k)
    return np.maximum(values, 0.0), (vectors.T @ tile[mask]) ** 2


def _group_eigenvalues(g: Float, z: Float) -> tuple[Float, Any, Float]:
    """Nodes (b,) of similar eigenvalues, the number of eigenvalues at each (b,), and sums of squares (b, K)."""
    top = float(g.max(initial=0.0))
    if len(g) <= NODE_COUNT or top == 0.0:
        return g, np.ones(len(g)), z
    least = SMALLEST_EIGENVALUE * top
    position = np.log(np.maximum(g, least) / least) / np.log(1 / SMALLEST_EIGENVALUE) * (NODE_COUNT - 1)
    left = np.minimum(position.astype(np.int64), NODE_COUNT - 2)
    right = position - left
    numbers = np.bincount(left, 1 - right, NODE_COUNT) + np.bincount(left + 1, right, NODE_COUNT)
    sums = [np.bincount(left, (1 - right) * v, NODE_COUNT) + np.bincount(left + 1, right * v, NODE_COUNT) for v in z.T]
    nodes = least * np.exp(np.arange(NODE_COUNT) / (NODE_COUNT - 1) * np.log(1 / SMALLEST_EIGENVALUE))
    used = numbers > 0
    return nodes[used], numbers[used], np.stack(sums, axis=1)[used]


def _best_ratio(g: Float, numbers: Float, z: Float, count: int) -> tuple[float, float, float]:
    """Least loss over the ratio of signal to noise, the noise there, and the loss without signal.

    ``g`` and ``numbers`` (b,) are the nodes and their numbers of eigenvalues, ``z`` (b,) the sums of squares of one
    map, ``count`` its pixels.
    """

    def losses(ratio: Float) -> tuple[Float, Float]:
        spread = 1.0 + np.outer(ratio, g)
        variance = np.maximum((z / spread).sum(axis=1) / count, 1e-300)
        return 0.5 * (count * (np.log(2 * np.pi * variance) + 1) + np.log(spread) @ numbers), variance

    found, variance = losses(SIGNAL_TO_NOISE)
    plain = float(found[0])
    i = int(np.argmin(found))
    low, high = SIGNAL_TO_NOISE[max(1, i - 1)], SIGNAL_TO_NOISE[min(len(SIGNAL_TO_NOISE) - 1, max(2, i + 1))]
    for _ in range(3):
        # Refine between the neighbours of the best ratio, in eight steps each time.
        fine = np.geomspace(low, high, 9)
        inner, spread = losses(fine)
        j = int(np.argmin(inner))
        if inner[j] < found[i]:
            found[i], variance[i] = inner[j], spread[j]
        low, high = fine[max(0, j - 1)], fine[min(8, j + 1)]
    return float(found[i]), float(np.sqrt(variance[i])), plain


def local_minima(lengths: Float, losses: Float) -> list[Minimum]:
    """Find the minima of a curve inside its ends, from short to long lengths, that a rise of half a nat separates.

    Parameters
    ----------
    lengths : array, shape (n,)
        Rising.
    losses : array, shape (n,)

    Examples
    --------
    >>> lengths = np.geomspace(1, 16, 9)
    >>> [round(one.length, 1) for one in local_minima(lengths, np.array([9, 4, 0, 4, 9, 7, 3, 8, 9.0]))]
    [2.0, 7.8]
    """
    n = len(losses)
    found = []
    for i in range(1, n - 1):
        if not (losses[i] <= losses[i - 1] and losses[i] < losses[i + 1]):
            continue
        lower = np.flatnonzero(losses < losses[i])
        left, right = lower[lower < i], lower[lower > i]
        # A barrier must separate this place from every lower one, and from equal ones on both sides.
        barriers = [losses[left[-1] : i].max()] if left.size else [losses[:i].max()]
        barriers.append(losses[i : right[0]].max() if right.size else losses[i:].max())
        if min(barriers) - losses[i] >= BARRIER_NATS:
            found.append(Minimum(*_parabola_minimum(lengths, losses, i)))
    return found


def _parabola_minimum(lengths: Float, losses: Float, i: int) -> tuple[float, float]:
    """Place and depth of the minimum near step ``i`` of a curve (n,), by a parabola through three points."""
    t = np.log(lengths[i - 1 : i + 2] / lengths[i])
    left, right = ((losses[i + d] - losses[i]) / t[1 + d] for d in (-1, 1))
    bend = (right - left) / (t[2] - t[0])
    tilt = left - bend * t[0]
    shift = float(-tilt / (2 * bend)) if bend > 0 else 0.0
    return float(lengths[i] * np.exp(shift)), float(losses[i] + (tilt + bend * shift) * shift)


def converged_lengths(lengths: Float, losses: Float, limits: Float, *, low: float) -> Float:
    """Length where a descent from the middle of ``(low, limit)`` ends, for each limit: a minimum, or the limit itself.

    Parameters
    ----------
    lengths, losses : array, shape (n,)
        A curve.
    limits : array, shape (m,)
        Upper limits, in pixels.
    low : float
        Lower limit, in pixels.

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
            out[number] = min(max(_parabola_minimum(lengths, losses, i)[0], low), limit)
        else:
            out[number] = low if i == first and losses[first] < losses[last] else limit
    return out


def _descend(losses: Float, start: int) -> int:
    """Index of the lowest place that is reached from ``start`` without a climb of more than a barrier."""
    place, seen = start, -1
    while place != seen:
        seen = place
        high = np.flatnonzero(losses > losses[place] + BARRIER_NATS)
        left, right = high[high < place], high[high > place]
        first = int(left[-1]) + 1 if left.size else 0
        last = int(right[0]) if right.size else len(losses)
        place = first + int(np.argmin(losses[first:last]))
    return place


def recommend(minima: Sequence[Sequence[Minimum]], plain: Float, *, low: float) -> tuple[float, float] | None:
    """Recommend an interval around the shortest minima that the maps have in common; None where no map has a minimum.

    A Gaussian process whose length is limited to this interval follows the finest structure, and maps that are too weak
    to show it themselves are guided by the others. A longer length would smooth the fine structure away; a shorter one
    leaves smooth maps somewhat noisier.

    Parameters
    ----------
    minima : sequence of lists of Minimum
        Of each map.
    plain : array, shape (K,)
        Loss of each map without signal.
    low : float
        Least length, in pixels.

    Examples
    --------
    >>> minima = [[Minimum(2.0, -90.0), Minimum(12.0, -80.0)], [Minimum(2.4, -50.0)], [Minimum(1.0, -2.0)]]
    >>> recommend(minima, np.zeros(3), low=0.5)
    (0.6666666666666666, 3.0)
    """
    clear = [
        min(lengths)
        for own, noise_only in zip(minima, plain.tolist(), strict=True)
        if (lengths := [one.length for one in own if noise_only - one.loss >= MIN_EVIDENCE_NATS])
    ]
    if not clear:
        return None
    group = [length for length in clear if length <= SAME_STRUCTURE_RATIO * min(clear)]
    return max(low, INTERVAL_FACTORS[0] * min(group)), INTERVAL_FACTORS[1] * max(group)
