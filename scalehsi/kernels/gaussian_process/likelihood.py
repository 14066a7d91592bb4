"""Hyperparameters by the exact likelihood: lengths outside, everything else inside, at a cost that forgets the image.

For given lengths the data enter through the eigenvalues ``g = lambda mu`` of the spatial covariance and the rotated
maps ``z`` alone, and ``-log L = 1/2 sum (log|g B + D| + z' (g B + D)^-1 z)``:
`scalehsi.kernels.gaussian_process.spectral_nodes` finds
the best ``B`` and ``D`` for them (Rakitsch et al. 2013 for the decoupling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
from scipy.optimize import minimize

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.gaussian_process.covariance import Axis, axis
from scalehsi.kernels.gaussian_process.spectral_nodes import inner, nodes
from scalehsi.schema import InputError

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
    history : array, shape (m, 3)
        Lengths along y and x, and the loss, in each evaluation of the descent, or after each round where pixels are
        missing.
    """

    kernel: str
    lengths: tuple[float, float]
    signal: Float
    noise: Float
    mean: Float
    loss: float
    scan: Float
    evaluations: int
    history: Float = field(default_factory=lambda: np.empty((0, 3)))

    def in_units(self, mean: Float, scale: Float, pixels: int) -> Hyper:
        """Of maps ``scale * y + mean``, where these are of maps ``y`` of so many pixels."""
        shift = pixels * float(np.log(scale).sum())
        return replace(
            self,
            scan=self.scan + np.array([0.0, shift]),
            history=self.history + np.array([0.0, 0.0, shift]),
            signal=self.signal * np.outer(scale, scale),
            noise=self.noise * scale,
            mean=self.mean * scale + mean,
            loss=self.loss + shift,
        )


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
    scaled, mean, scale = standardised(tiles)
    limits = bounds or ((SHORTEST, max(1.0, float(height))), (SHORTEST, max(1.0, float(width))))
    work = _Work(scaled, kernel, (height, width), rank)
    return search(work, kernel, limits, isotropic=isotropic).in_units(mean, scale, height * width * len(tiles))


def standardised(tiles: Sequence[Float], masks: Sequence[Bool] | None = None) -> tuple[list[Float], Float, Float]:
    """Tiles of zero mean and unit variance, each (T, H, W), and the mean and scale (T,) that made them so.

    What is missing [masks, shape (H, W), True where measured] is zero.
    """
    seen = [np.ones(t.shape[:2], dtype=bool) for t in tiles] if masks is None else list(masks)
    count = max(1, sum(int(m.sum()) for m in seen))
    mean = np.sum([t[m].sum(axis=0) for t, m in zip(tiles, seen, strict=True)], axis=0) / count
    centred = [np.where(m[..., None], t - mean, 0.0) for t, m in zip(tiles, seen, strict=True)]
    scale = np.sqrt(np.sum([(t**2).sum(axis=(0, 1)) for t in centred], axis=0) / count)
    scale = np.where(scale > 0, scale, 1.0)
    return [np.moveaxis(t / scale, -1, 0) for t in centred], mean, scale


class Likelihood(Protocol):
    """The negative logarithm of a likelihood as a function of two lengths, at the best of everything else."""

    evaluations: int

    def loss(self, lengths: tuple[float, float]) -> float: ...

    def inside(self, lengths: tuple[float, float]) -> tuple[Float, Float]: ...

    def value_and_slope(self, lengths: tuple[float, float]) -> tuple[float, Float]: ...


def search(
    work: Likelihood, kernel: str, limits: tuple[tuple[float, float], tuple[float, float]], *, isotropic: bool
) -> Hyper:
    """The best lengths: a scan of both alike, then a descent from its best; in the units of the work."""
    low, high = max(limits[0][0], limits[1][0]), min(limits[0][1], limits[1][1])
    if isotropic and low > high:
        raise InputError(f"bounds={limits}: no length is within both, as isotropic=True asks for")
    tried = np.geomspace(low, max(low, high), SCANNED if high > low else 1)
    # Where the bounds of the axes have nothing in common, each axis takes its own that is nearest.
    pairs = [tuple(float(np.clip(length, *limit)) for limit in limits) for length in tried]
    losses = np.array([work.loss((y, x)) for y, x in pairs])
    lengths = np.array(pairs[int(np.argmin(losses))])
    start, best = np.log(lengths), float(losses.min())
    box = np.log(np.array(limits, dtype=np.float64))
    if isotropic:
        box = np.tile([[np.log(low), np.log(max(low, high))]], (2, 1))
    history = [(float(lengths[0]), float(lengths[1]), best)]
    if (box[:, 1] > box[:, 0]).any():

        def outer(free: Float) -> tuple[float, Float]:
            both = np.full(2, free[0]) if isotropic else free
            at = (float(np.exp(both[0])), float(np.exp(both[1])))
            value, slope = work.value_and_slope(at)
            history.append((*at, value))
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
    chosen = (float(lengths[0]), float(lengths[1]))
    signal, variance = work.inside(chosen)
    scan = np.column_stack([tried, losses])
    level = np.zeros(len(variance))
    return Hyper(kernel, chosen, signal, np.sqrt(variance), level, best, scan, work.evaluations, np.array(history))


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
        found = nodes(np.outer(axes[0].values, axes[1].values), self.rotated(axes))
        self.evaluations += 1
        return inner(*found, rank=self.rank)[0]

    def inside(self, lengths: tuple[float, float]) -> tuple[Float, Float]:
        """B and D that are best at these lengths."""
        axes = self.axes(lengths)
        return inner(*nodes(np.outer(axes[0].values, axes[1].values), self.rotated(axes)), rank=self.rank)[1:]

    def value_and_slope(self, lengths: tuple[float, float]) -> tuple[float, Float]:
        """The loss and its derivatives by the logarithms of the lengths, B and D following along."""
        axes = self.axes(lengths)
        z = self.rotated(axes)
        value, signal, noise = inner(*nodes(np.outer(axes[0].values, axes[1].values), z), rank=self.rank)
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
