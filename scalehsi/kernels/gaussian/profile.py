"""Hyperparameters by the exact likelihood: lengths outside, everything else inside, at a cost that forgets the image.

For given lengths the data enter through the eigenvalues ``g = lambda mu`` of the spatial covariance and the rotated
maps ``z`` alone, and ``-log L = 1/2 sum (log|g B + D| + z' (g B + D)^-1 z)``. Eigenvalues that are close share a node
(with weights that are linear in log g between two nodes, so that nothing jumps): then ``n_b`` and ``S_b = sum z z'`` of
some 200 nodes are all there is, and ``B`` and ``D`` are found from these (Rakitsch et al. 2013 for the decoupling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.optimize import minimize

from scalehsi.kernels.gaussian.covariance import Axis, axis

Float = np.ndarray[Any, np.dtype[np.float64]]

NODES: Final = 200
SPREAD: Final = 1e-7
"""Eigenvalues below this part of the largest share the last node: they are noise alone."""
LEAST_NOISE: Final = 1e-6
"""Of a map, relative to its variance."""
SCANNED: Final = 14
SHORTEST: Final = 0.5
"""In pixels."""


@dataclass(frozen=True)
class Hyper:
    """What the likelihood was highest for.

    Attributes
    ----------
    kernel : str
    lengths : (float, float)
        Along y and x, in pixels.
    signal : array, shape (T, T)
        B, covariance between the maps at one pixel.
    noise : array, shape (T,)
        Standard deviations.
    mean : array, shape (T,)
    loss : float
        Negative logarithm of the likelihood of the data it was found from.
    scan : array, shape (n, 2)
        Lengths that were tried for both axes alike, and their loss.
    evaluations : int
    """

    kernel: str
    lengths: tuple[float, float]
    signal: Float
    noise: Float
    mean: Float
    loss: float
    scan: Float
    evaluations: int


def fit(
    tiles: Sequence[Float],
    *,
    kernel: str = "matern52",
    bounds: tuple[tuple[float, float], tuple[float, float]] | None = None,
    isotropic: bool = False,
    rank: int = 1,
) -> Hyper:
    """Find the hyperparameters of some tiles of the same maps, all of one size.

    Parameters
    ----------
    tiles : sequence of arrays, shape (H, W, T)
        Complete: no NaN.
    kernel : str
    bounds : ((low, high), (low, high)), optional
        Of the lengths along y and x, in pixels. Default: from half a pixel to the axis' extent.
    isotropic : bool, default False
        One length for both axes.
    rank : int, default 1
        Columns of L in ``B = L L' + diag(w)``.

    Returns
    -------
    Hyper

    Notes
    -----
    Cost: some 30 evaluations, each two eigendecompositions of an axis, T products of an image with an axis, and 10 ms.
    """
    height, width = tiles[0].shape[:2]
    mean = np.mean([t.mean(axis=(0, 1)) for t in tiles], axis=0)
    scale = np.sqrt(np.mean([((t - mean) ** 2).mean(axis=(0, 1)) for t in tiles], axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = [np.moveaxis((t - mean) / scale, -1, 0) for t in tiles]
    limits = bounds or ((SHORTEST, max(1.0, float(height))), (SHORTEST, max(1.0, float(width))))
    work = _Work(scaled, kernel, (height, width), rank)

    low, high = max(limits[0][0], limits[1][0]), min(limits[0][1], limits[1][1])
    tried = np.geomspace(low, max(low, high), SCANNED if high > low else 1)
    losses = np.array([work.loss((length, length)) for length in tried])
    start = np.log(np.full(2, tried[int(np.argmin(losses))]))
    best, lengths = float(losses.min()), np.exp(start)
    box = np.log(np.array(limits, dtype=np.float64))
    if isotropic:
        box = np.tile([[np.log(low), np.log(max(low, high))]], (2, 1))
    if (box[:, 1] > box[:, 0]).any():

        def outer(free: Float) -> tuple[float, Float]:
            both = np.full(2, free[0]) if isotropic else free
            value, slope = work.value_and_slope((float(np.exp(both[0])), float(np.exp(both[1]))))
            return value, np.array([slope.sum()]) if isotropic else slope

        free = np.clip(start, box[:, 0], box[:, 1])[: 1 if isotropic else 2]
        found = minimize(
            outer,
            free,
            jac=True,
            method="L-BFGS-B",
            bounds=box[: len(free)],
            options={"maxiter": 30, "ftol": 1e-2 / max(abs(best), 1.0), "gtol": 1e-3},
        )
        if found.fun <= best:
            best, lengths = float(found.fun), np.exp(np.full(2, found.x[0]) if isotropic else found.x)
    signal, noise = work.inside((float(lengths[0]), float(lengths[1])))
    return Hyper(
        kernel=kernel,
        lengths=(float(lengths[0]), float(lengths[1])),
        signal=signal * np.outer(scale, scale),
        noise=np.sqrt(noise) * scale,
        mean=mean,
        loss=best + height * width * len(tiles) * float(np.log(scale).sum()),
        scan=np.column_stack([tried, losses]),
        evaluations=work.evaluations,
    )


class _Work:
    """The likelihood of tiles of maps [each shape (T, H, W)] as a function of the lengths."""

    def __init__(self, tiles: Sequence[Float], kernel: str, shape: tuple[int, int], rank: int) -> None:
        self.tiles, self.kernel, self.shape = tiles, kernel, shape
        self.rank = max(1, min(rank, len(tiles[0])))
        self.evaluations = 0

    def axes(self, lengths: tuple[float, float]) -> tuple[Axis, Axis]:
        return axis(self.kernel, self.shape[0], lengths[0]), axis(self.kernel, self.shape[1], lengths[1])

    def rotated(self, axes: tuple[Axis, Axis]) -> list[Float]:
        return [axes[0].vectors.T @ tile @ axes[1].vectors for tile in self.tiles]

    def loss(self, lengths: tuple[float, float]) -> float:
        axes = self.axes(lengths)
        nodes = _nodes(axes, self.rotated(axes))
        self.evaluations += 1
        return _inner(*nodes, rank=self.rank)[0]

    def inside(self, lengths: tuple[float, float]) -> tuple[Float, Float]:
        """B and D that are best at these lengths."""
        axes = self.axes(lengths)
        return _inner(*_nodes(axes, self.rotated(axes)), rank=self.rank)[1:]

    def value_and_slope(self, lengths: tuple[float, float]) -> tuple[float, Float]:
        """The loss and its derivatives by the logarithms of the lengths, B and D following along."""
        axes = self.axes(lengths)
        z = self.rotated(axes)
        value, signal, noise = _inner(*_nodes(axes, z), rank=self.rank)
        self.evaluations += 1
        # The maps decouple where the noise is one for all: D^-1/2 B D^-1/2 = U s U'.
        root = np.sqrt(noise)
        s, u = np.linalg.eigh(signal / np.outer(root, root))
        s = np.maximum(s, 0.0)
        lam, mu = axes[0].values, axes[1].values
        slope = np.zeros(2)
        spectrum = s[:, None, None] * lam[None, :, None] * mu[None, None, :]
        weight = 1.0 / (1.0 + spectrum)
        for tile in z:
            y = np.einsum("thw,tu->uhw", tile / root[:, None, None], u)
            beta = y * weight
            inner_y = np.einsum("u,uhw,w,ugw->hg", s, beta, mu, beta, optimize=True)
            inner_x = np.einsum("u,uhw,h,uhv->wv", s, beta, lam, beta, optimize=True)
            slope[0] -= 0.5 * float(np.sum(axes[0].slope * inner_y))
            slope[1] -= 0.5 * float(np.sum(axes[1].slope * inner_x))
        trace_y = np.einsum("u,w,uhw->h", s, mu, weight)
        trace_x = np.einsum("u,h,uhw->w", s, lam, weight)
        slope[0] += 0.5 * len(z) * float(np.diag(axes[0].slope) @ trace_y)
        slope[1] += 0.5 * len(z) * float(np.diag(axes[1].slope) @ trace_x)
        return value, slope


def _nodes(axes: tuple[Axis, Axis], z: Sequence[Float]) -> tuple[Float, Float, Float]:
    """Numbers (b,), eigenvalues (b,) and sums of products (b, T, T) of the nodes."""
    g = np.outer(axes[0].values, axes[1].values).reshape(-1)
    maps = z[0].shape[0]
    top = float(g.max())
    g = np.maximum(g, SPREAD * top)
    low, high = np.log(float(g.min())), np.log(top)
    count = NODES if high > low else 1
    step = (high - low) / max(1, count - 1)
    place = (np.log(g) - low) / step if step > 0 else np.zeros_like(g)
    left = np.minimum(place.astype(np.int64), max(0, count - 2))
    right_share = np.clip(place - left, 0.0, 1.0) if count > 1 else np.zeros_like(g)
    numbers = np.bincount(left, weights=1 - right_share, minlength=count)
    sums = np.zeros((count, maps, maps))
    flat = [tile.reshape(maps, -1) for tile in z]
    if count > 1:
        numbers += np.bincount(left + 1, weights=right_share, minlength=count)
    for i in range(maps):
        for j in range(i + 1):
            product = np.sum([tile[i] * tile[j] for tile in flat], axis=0)
            found = np.bincount(left, weights=product * (1 - right_share), minlength=count)
            if count > 1:
                found += np.bincount(left + 1, weights=product * right_share, minlength=count)
            sums[:, i, j] = sums[:, j, i] = found
    used = numbers > 1e-9
    nodes = np.exp(low + step * np.arange(count))
    return np.asarray(len(z) * numbers[used], dtype=np.float64), nodes[used], sums[used]


def _inner(numbers: Float, g: Float, sums: Float, *, rank: int) -> tuple[float, Float, Float]:
    """The best B (T, T) and D (T,) for the sums of the nodes; w and D enter linearly, or a weak map would be lost."""
    maps = sums.shape[1]
    total = float(numbers.sum())
    variance = np.maximum(np.einsum("bii->i", sums) / total, 1e-12)
    # The noise shows where the eigenvalues are smallest.
    tail = numbers * (g <= np.quantile(g, 0.3))
    start_noise = np.clip(
        np.einsum("bii,b->i", sums, (tail > 0).astype(float)) / max(float(tail.sum()), 1.0), 1e-3, 1.0
    )
    weight = g * numbers / float((g * numbers).sum())
    start_signal = np.clip(variance - start_noise, 0.05, None) / max(float((numbers * g).sum() / total), 1e-12)
    factor = np.zeros((maps, rank))
    covariance = np.einsum("bij,b->ij", sums, weight / np.maximum(numbers, 1e-300) / g)
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    for r in range(rank):
        factor[:, r] = vectors[:, -1 - r] * np.sqrt(max(float(values[-1 - r]), 0.1 * float(start_signal.mean())))
    x0 = np.concatenate([factor.ravel(), 0.3 * start_signal, start_noise])
    n_l, diagonal = maps * rank, np.arange(maps)

    def loss(x: Float) -> tuple[float, Float]:
        big_l, w, d = x[:n_l].reshape(maps, rank), x[n_l : n_l + maps], x[n_l + maps :]
        # In the vectors that B and D share, D^-1/2 B D^-1/2 = U s U', all nodes are diagonal.
        root = np.sqrt(d)
        s, u = np.linalg.eigh((big_l @ big_l.T + np.diag(w)) / np.outer(root, root))
        there = u / root[:, None]
        h = 1.0 / (1.0 + np.outer(g, np.maximum(s, 0.0)))
        product = there.T @ sums @ there
        value = 0.5 * float(numbers @ (np.log(d).sum() - np.log(h).sum(axis=1)) + np.einsum("bii,bi->", product, h))
        gamma = -0.5 * (h[:, :, None] * h[:, None, :]) * product
        gamma[:, diagonal, diagonal] += 0.5 * numbers[:, None] * h
        by_b = there @ np.tensordot(g, gamma, axes=1) @ there.T
        by_d = np.diag(there @ gamma.sum(axis=0) @ there.T)
        return value, np.concatenate([(2 * by_b @ big_l).ravel(), np.diag(by_b), by_d])

    box = [(None, None)] * n_l + [(0.0, None)] * maps + [(LEAST_NOISE, None)] * maps
    first = loss(x0)[0]
    found = minimize(
        loss,
        x0,
        jac=True,
        method="L-BFGS-B",
        bounds=box,
        options={"maxiter": 400, "ftol": 1e-3 / max(abs(first), 1.0), "gtol": 1e-6 * total, "maxcor": 20},
    )
    big_l, w, d = found.x[:n_l].reshape(maps, rank), found.x[n_l : n_l + maps], found.x[n_l + maps :]
    constant = 0.5 * total * maps * float(np.log(2 * np.pi))
    return float(found.fun) + constant, big_l @ big_l.T + np.diag(w), d
