"""Profile likelihood: length scales are optimised; signal covariance B and noise D are solved for each.

The cost of B and D is independent of the number of pixels. For given lengths the data enter only through the
eigenvalues ``g = lambda mu`` of the spatial covariance and the rotated maps ``z``, and
``-log L = 1/2 sum (log|g B + D| + z' (g B + D)^-1 z)``; `scalehsi.kernels.gaussian_process.spectral_nodes` finds the
best ``B`` and ``D`` from these. The rotation that makes the maps independent is that of Rakitsch et al. 2013.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np
import scipy

from scalehsi.arrays import Bool, Float, Int
from scalehsi.kernels.gaussian_process.covariance import AxisEigen, decompose_axis
from scalehsi.kernels.gaussian_process.gaps import by_map
from scalehsi.kernels.gaussian_process.spectral_nodes import fit_signal_and_noise, group_eigenvalues
from scalehsi.schema import InputError

Bounds = tuple[tuple[float, float], tuple[float, float]]
"""(low, high) of the lengths along y and x, in pixels."""

SCANNED_LENGTHS: Final = 14
MIN_LENGTH_PIXELS: Final = 0.5


@dataclass(frozen=True)
class Hyper:
    """Hyperparameters of a Gaussian process, at the maximum of the likelihood.

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
        Negative log likelihood of the data of the fit.
    scan : array, shape (n, 2)
        Lengths that were tried, the same for both axes, and the loss at each.
    evaluations : int
        Evaluations of the likelihood.
    history : array, shape (m, 3)
        Lengths along y and x, and the loss, in each evaluation of the descent, or after each round where pixels are
        missing.
    plain : float
        The loss of noise alone, without a signal.
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
    plain: float = math.nan

    def in_units(self, mean: Float, scale: Float, pixels: int | Int) -> Hyper:
        """Convert from standardised maps ``y`` to maps ``scale * y + mean`` (both (T,)); ``pixels`` of each, or all."""
        shift = float((pixels * np.log(scale)).sum())
        values = float((pixels * np.ones_like(scale)).sum())
        return replace(
            self,
            scan=self.scan + np.array([0.0, shift]),
            history=self.history + np.array([0.0, 0.0, shift]),
            signal=self.signal * np.outer(scale, scale),
            noise=self.noise * scale,
            mean=self.mean * scale + mean,
            loss=self.loss + shift,
            plain=0.5 * values * (math.log(2 * math.pi) + 1) + shift,
        )


def fit(
    tiles: Sequence[Float],
    *,
    kernel: str = "matern52",
    bounds: Bounds | None = None,
    isotropic: bool = False,
    rank: int = 1,
    start: tuple[float, float] | None = None,
) -> Hyper:
    """Fit the hyperparameters to tiles of the same maps, all of one size.

    Parameters
    ----------
    tiles : sequence of arrays, shape (H, W, T)
        Complete: no NaN.
    kernel : str
        See `scalehsi.kernels.gaussian_process.covariance.parse`.
    bounds : ((low, high), (low, high)), optional
        Of the lengths along y and x, in pixels. Default: from half a pixel to the extent of the axis.
    isotropic : bool, default False
        One length for both axes.
    rank : int, default 1
        Columns of L in ``B = L L' + diag(w)``.
    start : (float, float), optional
        Lengths from which the search descends, in place of a scan.

    Returns
    -------
    Hyper

    Notes
    -----
    Cost: some 30 evaluations, each two eigendecompositions of an axis, T products of an image with an axis, and 10 ms.
    """
    height, width = tiles[0].shape[:2]
    scaled, mean, scale = standardised(tiles)
    likelihood = SeparableLikelihood(scaled, kernel, rank)
    limits = bounds or default_bounds(height, width)
    found = search_lengths(likelihood, kernel, limits, isotropic=isotropic, start=start)
    return found.in_units(mean, scale, height * width * len(tiles))


def default_bounds(height: int, width: int) -> Bounds:
    """Bounds of the lengths in maps of this size: from half a pixel to the extent of each axis."""
    return (MIN_LENGTH_PIXELS, max(1.0, float(height))), (MIN_LENGTH_PIXELS, max(1.0, float(width)))


def standardised(tiles: Sequence[Float], masks: Sequence[Bool] | None = None) -> tuple[list[Float], Float, Float]:
    """Scale tiles (H, W, T) to zero mean and unit variance; return them as (T, H, W), with mean and scale (T,).

    Missing pixels are zero; ``masks``, shape (H, W) or (H, W, T), are True where the maps were measured.
    """
    seen = [by_map(np.ones(t.shape[:2], dtype=bool) if masks is None else masks[i]) for i, t in enumerate(tiles)]
    count = np.maximum(1, np.sum([m.sum(axis=(0, 1)) for m in seen], axis=0))
    mean = np.sum([np.where(m, t, 0.0).sum(axis=(0, 1)) for t, m in zip(tiles, seen, strict=True)], axis=0) / count
    centred = [np.where(m, t - mean, 0.0) for t, m in zip(tiles, seen, strict=True)]
    scale = np.sqrt(np.sum([(t**2).sum(axis=(0, 1)) for t in centred], axis=0) / count)
    scale = np.where(scale > 0, scale, 1.0)
    return [np.moveaxis(t / scale, -1, 0) for t in centred], mean, scale


class Likelihood(Protocol):
    """Negative log likelihood as a function of two lengths, with B and D at their best values for these lengths."""

    evaluations: int

    def loss(self, lengths: tuple[float, float]) -> float: ...

    def signal_and_noise(self, lengths: tuple[float, float]) -> tuple[Float, Float]: ...

    def value_and_slope(self, lengths: tuple[float, float]) -> tuple[float, Float]: ...


def search_lengths(
    likelihood: Likelihood,
    kernel: str,
    limits: Bounds,
    *,
    isotropic: bool,
    start: tuple[float, float] | None = None,
) -> Hyper:
    """Find the best lengths by a scan with one length for both axes, or from ``start``, and a descent from its best.

    The hyperparameters are in the units of the likelihood's data; ``kernel`` is only recorded. ``limits`` are
    (low, high) along y and x, in pixels; ``isotropic`` keeps both lengths equal.
    """
    low, high = max(limits[0][0], limits[1][0]), min(limits[0][1], limits[1][1])
    if isotropic and low > high:
        raise InputError(f"bounds={limits}: no length is within both, as isotropic=True asks for")
    tried = np.geomspace(low, max(low, high), SCANNED_LENGTHS if high > low else 1)
    # Where the limits of the two axes do not overlap, each axis takes its nearest allowed length.
    pairs = [tuple(float(np.clip(length, *limit)) for limit in limits) for length in tried]
    if start is not None:
        tried, pairs = np.array([math.sqrt(start[0] * start[1])]), [start]
    losses = np.array([likelihood.loss((y, x)) for y, x in pairs])
    lengths = np.array(pairs[int(np.argmin(losses))])
    best = float(losses.min())
    box = np.log(np.array(limits, dtype=np.float64))
    if isotropic:
        box = np.tile([[np.log(low), np.log(max(low, high))]], (2, 1))
    history = [(float(lengths[0]), float(lengths[1]), best)]
    if (box[:, 1] > box[:, 0]).any():

        def profile(free: Float) -> tuple[float, Float]:
            both = np.full(2, free[0]) if isotropic else free
            at = (float(np.exp(both[0])), float(np.exp(both[1])))
            value, slope = likelihood.value_and_slope(at)
            history.append((*at, value))
            return value, np.array([slope.sum()]) if isotropic else slope

        free = np.clip(np.log(lengths), box[:, 0], box[:, 1])[: 1 if isotropic else 2]
        found = scipy.optimize.minimize(
            profile,
            free,
            jac=True,
            method="L-BFGS-B",
            bounds=box[: len(free)],
            options={"maxiter": 30, "ftol": 1e-2 / max(abs(best), 1.0), "gtol": 1e-3},
        )
        if found.fun <= best:
            best, lengths = float(found.fun), np.exp(np.full(2, found.x[0]) if isotropic else found.x)
    chosen = (float(lengths[0]), float(lengths[1]))
    signal, variance = likelihood.signal_and_noise(chosen)
    scan = np.column_stack([tried, losses])
    zero_mean = np.zeros(len(variance))
    evaluations = likelihood.evaluations
    return Hyper(kernel, chosen, signal, np.sqrt(variance), zero_mean, best, scan, evaluations, np.array(history))


class SeparableLikelihood:
    """Profile likelihood of tiles of maps, each (T, H, W), for a product of one covariance for y and one for x.

    ``rank`` is the number of columns of L in ``B = L L' + diag(w)``.
    """

    def __init__(self, tiles: Sequence[Float], kernel: str, rank: int) -> None:
        self.tiles, self.kernel = tiles, kernel
        self.rank = max(1, min(rank, len(tiles[0])))
        self.evaluations = 0

    def axes(self, lengths: tuple[float, float]) -> tuple[AxisEigen, AxisEigen]:
        """Eigendecompositions of the covariances along y and x."""
        _, height, width = self.tiles[0].shape
        return decompose_axis(self.kernel, height, lengths[0]), decompose_axis(self.kernel, width, lengths[1])

    def rotated(self, axes: tuple[AxisEigen, AxisEigen]) -> list[Float]:
        """Tiles in the eigenvectors of both axes, (T, H, W) each."""
        return [axes[0].vectors.T @ tile @ axes[1].vectors for tile in self.tiles]

    def _profile(self, axes: tuple[AxisEigen, AxisEigen], z: list[Float]) -> tuple[float, Float, Float]:
        """Loss, B (T, T) and D (T,), at their best for these axes and the tiles ``z`` in their eigenvectors."""
        groups = group_eigenvalues(np.outer(axes[0].values, axes[1].values), z)
        return fit_signal_and_noise(*groups, rank=self.rank)

    def loss(self, lengths: tuple[float, float]) -> float:
        axes = self.axes(lengths)
        self.evaluations += 1
        return self._profile(axes, self.rotated(axes))[0]

    def signal_and_noise(self, lengths: tuple[float, float]) -> tuple[Float, Float]:
        """Best B (T, T) and D (T,) at these lengths."""
        axes = self.axes(lengths)
        return self._profile(axes, self.rotated(axes))[1:]

    def value_and_slope(self, lengths: tuple[float, float]) -> tuple[float, Float]:
        """Loss and its total derivatives by the logarithms of the lengths, with B and D at their best for each."""
        axes = self.axes(lengths)
        z = self.rotated(axes)
        value, signal, noise = self._profile(axes, z)
        self.evaluations += 1
        # The maps are independent after a rotation to unit noise: D^-1/2 B D^-1/2 = U s U'.
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
