"""Posterior variance of the independent maps, for a kernel of distance.

For complete maps it depends only on the distances to the edges, up to a few lengths: a small patch, solved densely,
determines all of it. Small maps are solved densely as they are. All others take draws (Matheron's rule): the error of
a map that is drawn from the prior and measured with noise is distributed as that of the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from scipy.linalg import cholesky, eigh, solve_triangular

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.gaussian_process.covariance import JITTER
from scalehsi.kernels.gaussian_process.fft_kernel import Prior
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.radial_kernel import EvenOddMaps, radial_covariance

MAX_DENSE_PIXELS: Final = 1500
"""Pixels of the largest matrix."""
HALO_LENGTHS: Final = 2.5
"""Distance from an edge, in lengths, beyond which its influence on the deviation is below 1e-4."""
MIN_HALO_LENGTHS: Final = 1.0
"""Distance at which this influence is 1e-2, no worse than the error of thousands of draws."""
BLOCK_VALUES: Final = 2_000_000
"""Values of a matrix between points and pixels that is computed in one block."""


def exact_variance(hyper: Hyper, observed: Bool, s: Float, *, upsample: int) -> Float | None:
    """Compute the variances (T, H * upsample, W * upsample) of maps of unit noise, or None where this costs too much.

    Complete maps: from a patch that extends 2.5 lengths, or less where it would have more than 77 x 77 pixels; None
    where it would extend less than one length. Incomplete ones: None above 1500 pixels.

    Parameters
    ----------
    hyper : Hyper
        Its kernel and lengths are used.
    observed : array of bool, shape (H, W)
        True where the maps were measured.
    s : array, shape (T,)
        Strengths of the maps.
    upsample : int
        Points per pixel along each axis.
    """
    height, width = observed.shape
    if not observed.all():
        return _dense_variance(hyper, observed, s, upsample) if observed.size <= MAX_DENSE_PIXELS else None
    for halo in (HALO_LENGTHS, 2.0, 1.5, 1.25, MIN_HALO_LENGTHS):
        sides = [
            min(n, 2 * int(np.ceil(halo * ell)) + 1) for n, ell in zip((height, width), hyper.lengths, strict=True)
        ]
        if -(-sides[0] // 2) * -(-sides[1] // 2) <= MAX_DENSE_PIXELS:
            patch = patch_variance(hyper, (sides[0], sides[1]), s, upsample)
            rows, columns = (_patch_points(n, m, upsample) for n, m in zip((height, width), sides, strict=True))
            return np.asarray(patch[:, rows[:, None], columns[None, :]])
    return None


def _patch_points(size: int, side: int, upsample: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Index of the point of a patch of ``side`` pixels that represents each point of an axis of ``size`` pixels.

    Points far from both edges are represented by the middle pixel of the patch.
    """
    pixel = np.arange(size)
    near = np.where(pixel < side // 2, pixel, np.maximum(side // 2, pixel - size + side))
    inside = near if size > side else pixel
    return np.asarray((inside[:, None] * upsample + np.arange(upsample)).ravel())


def patch_variance(hyper: Hyper, shape: tuple[int, int], s: Float, upsample: int) -> Float:
    """Variances of complete maps of ``shape``, by the four sets of even and odd maps; see `exact_variance`."""
    even_odd = EvenOddMaps(shape)
    sizes = [n * upsample for n in shape]
    quarter = [(np.arange(-(-n // 2)) + 0.5) / upsample - 0.5 for n in sizes]
    step = max(1, BLOCK_VALUES // max(1, len(quarter[1]) * (-(-shape[0] // 2)) * (-(-shape[1] // 2))))
    solved = [
        eigh(k, overwrite_a=True, check_finite=False, driver="evd")
        for k, _, _ in even_odd.covariances(hyper.kernel, hyper.lengths)
    ]
    least = JITTER * max(float(values[-1]) for values, _ in solved)
    out = np.empty((len(s), len(quarter[0]), len(quarter[1])))
    for first in range(0, len(quarter[0]), step):
        rows = quarter[0][first : first + step]
        count = len(rows) * len(quarter[1])
        explained, remaining = np.zeros((1, count)), np.zeros((len(s), count))
        crosses = even_odd.covariances(hyper.kernel, hyper.lengths, (rows, quarter[1]))
        for (cross, _, _), (values, vectors) in zip(crosses, solved, strict=True):
            values = np.maximum(values, least)
            share = (cross @ vectors) ** 2 / values
            explained += share.sum(axis=1)
            remaining += (s[:, None] / (1.0 + np.outer(s, values))) @ share.T
        # Between the pixels, the eigenvectors do not explain all of the variance; on the pixels the rest is rounding.
        unexplained = np.maximum(1.0 - explained, 0.0) if upsample > 1 else 0.0
        out[:, first : first + step] = (s[:, None] * unexplained + remaining).reshape(len(s), len(rows), -1)
    out = np.concatenate([out, out[:, : sizes[0] // 2][:, ::-1]], axis=1)
    return np.concatenate([out, out[..., : sizes[1] // 2][..., ::-1]], axis=2)


def _dense_variance(hyper: Hyper, observed: Bool, s: Float, upsample: int) -> Float:
    """Variances from the dense matrix of the measured pixels; arguments as of `exact_variance`."""
    (height, width), (y, x) = observed.shape, np.nonzero(observed)
    k = radial_covariance(hyper.kernel, np.subtract.outer(y, y), np.subtract.outer(x, x), hyper.lengths)[0]
    roots = [cholesky(strength * k + np.eye(len(k)), lower=True, check_finite=False) for strength in s]
    out = np.empty((len(s), height * upsample, width * upsample))
    rows, columns = np.divmod(np.arange(observed.size), width)
    offsets = (np.arange(upsample) + 0.5) / upsample - 0.5
    for i, a in enumerate(offsets):
        for j, b in enumerate(offsets):
            dy, dx = np.subtract.outer(y, rows + a), np.subtract.outer(x, columns + b)
            cross = radial_covariance(hyper.kernel, dy, dx, hyper.lengths)[0]
            for u, strength in enumerate(s):
                half = solve_triangular(roots[u], cross, lower=True, check_finite=False)
                known = strength * strength * np.einsum("ij,ij->j", half, half)
                out[u, i::upsample, j::upsample] = np.maximum(strength - known, 0.0).reshape(height, width)
    return out


def exact_joint_variance(hyper: Hyper, observed: Bool, *, upsample: int) -> Float | None:
    """Compute the variances (H * upsample, W * upsample, T) of maps with different gaps; None above 1500 values.

    Parameters
    ----------
    hyper : Hyper
    observed : array of bool, shape (H, W, T)
        True where each map was measured.
    upsample : int
        Points per pixel along each axis.
    """
    if observed.sum() > MAX_DENSE_PIXELS:
        return None
    (height, width, maps), (y, x, t) = observed.shape, np.nonzero(observed)
    k = radial_covariance(hyper.kernel, np.subtract.outer(y, y), np.subtract.outer(x, x), hyper.lengths)[0]
    noisy = k * hyper.signal[np.ix_(t, t)] + np.diag(np.maximum(hyper.noise[t] ** 2, JITTER * hyper.signal[t, t]))
    root = cholesky(noisy, lower=True, check_finite=False)
    out = np.empty((height * upsample, width * upsample, maps))
    rows, columns = np.divmod(np.arange(height * width), width)
    offsets = (np.arange(upsample) + 0.5) / upsample - 0.5
    for i, a in enumerate(offsets):
        for j, b in enumerate(offsets):
            dy, dx = np.subtract.outer(y, rows + a), np.subtract.outer(x, columns + b)
            cross = radial_covariance(hyper.kernel, dy, dx, hyper.lengths)[0]
            for one in range(maps):
                half = solve_triangular(root, cross * hyper.signal[t, one, None], lower=True, check_finite=False)
                left = hyper.signal[one, one] - np.einsum("ij,ij->j", half, half)
                out[i::upsample, j::upsample, one] = np.maximum(left, 0.0).reshape(height, width)
    return out


def variance_from_draws(
    hyper: Hyper,
    shape: tuple[int, int],
    s: Float,
    posterior_mean: Callable[[Float, float], Float],
    *,
    upsample: int,
    count: int,
    seed: int,
) -> Float:
    """Estimate the variances (T, H * upsample, W * upsample) of maps of unit noise from draws.

    Parameters
    ----------
    hyper, s, upsample
        As in `exact_variance`.
    shape : (int, int)
        Pixels along y and x.
    posterior_mean : callable
        Maps a noisy map (H, W) and its strength to its mean on the points.
    count : int
        Number of draws.
    seed : int

    References
    ----------
    Wilson et al. 2021, https://jmlr.org/papers/v22/20-1260.html
    """
    rng = np.random.default_rng(seed)
    prior = Prior(hyper.kernel, shape, hyper.lengths, upsample=upsample)
    out = np.zeros((len(s), shape[0] * upsample, shape[1] * upsample))
    for u, strength in enumerate(s):
        if strength == 0.0:
            continue
        root = float(np.sqrt(strength))
        for first in range(0, count, 2):
            pixels, points = prior.draw(rng, min(2, count - first))
            for on_pixels, on_points in zip(pixels, points, strict=True):
                measured = root * on_pixels + rng.standard_normal(shape)
                out[u] += (root * on_points - posterior_mean(measured, float(strength))) ** 2
    return out / count
