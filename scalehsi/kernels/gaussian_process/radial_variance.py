"""Variance of the independent maps after they were measured, for a kernel of distance.

Three ways. Of complete maps it depends on the distances to the edges alone, and a few lengths away from them no more:
a small patch, solved densely, gives all of it. Small maps are solved densely as they are. For the rest there are draws
(Matheron's rule): a field drawn from the prior and measured with noise is wrong by as much as the data are.
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
from scalehsi.kernels.gaussian_process.radial_kernel import Mirrored, radial

DENSE: Final = 1500
"""Pixels of the largest matrix."""
HALO: Final = 2.5
"""Lengths from an edge beyond which it is not felt: the deviation is right to 1e-4 there."""
LEAST_HALO: Final = 1.0
"""The same at 1e-2, which is no worse than thousands of draws."""
BLOCK: Final = 2_000_000


def exact(hyper: Hyper, observed: Bool, s: Float, *, upsample: int) -> Float | None:
    """Variances (T, H * upsample, W * upsample) of maps of strengths s (T,) and unit noise, or None.

    Complete maps: from a patch that reaches 2.5 lengths, or less where the patch would pass 77 x 77 pixels; None where
    it reaches less than one length. Incomplete ones: None above 1500 pixels.
    """
    height, width = observed.shape
    if not observed.all():
        return _dense(hyper, observed, s, upsample) if observed.size <= DENSE else None
    for halo in (HALO, 2.0, 1.5, 1.25, LEAST_HALO):
        sides = [
            min(n, 2 * int(np.ceil(halo * ell)) + 1) for n, ell in zip((height, width), hyper.lengths, strict=True)
        ]
        if -(-sides[0] // 2) * -(-sides[1] // 2) <= DENSE:
            patch = _patch(hyper, (sides[0], sides[1]), s, upsample)
            rows, columns = (_places(n, m, upsample) for n, m in zip((height, width), sides, strict=True))
            return np.asarray(patch[:, rows[:, None], columns[None, :]])
    return None


def _places(size: int, side: int, upsample: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Which point of a patch stands for each point of the whole: those beyond its edges for its middle pixel."""
    pixel = np.arange(size)
    near = np.where(pixel < side // 2, pixel, np.maximum(side // 2, pixel - size + side))
    inside = near if size > side else pixel
    return np.asarray((inside[:, None] * upsample + np.arange(upsample)).ravel())


def _patch(hyper: Hyper, shape: tuple[int, int], s: Float, upsample: int) -> Float:
    """Variances of complete maps, by the four sets of maps that are even or odd along each axis."""
    mirrored = Mirrored(shape)
    sizes = [n * upsample for n in shape]
    quarter = [(np.arange(-(-n // 2)) + 0.5) / upsample - 0.5 for n in sizes]
    step = max(1, BLOCK // max(1, len(quarter[1]) * (-(-shape[0] // 2)) * (-(-shape[1] // 2))))
    solved = [
        eigh(k, overwrite_a=True, check_finite=False, driver="evd")
        for k, _, _ in mirrored.covariances(hyper.kernel, hyper.lengths)
    ]
    least = JITTER * max(float(values[-1]) for values, _ in solved)
    out = np.empty((len(s), len(quarter[0]), len(quarter[1])))
    for first in range(0, len(quarter[0]), step):
        rows = quarter[0][first : first + step]
        explained, left = np.zeros((1, len(rows) * len(quarter[1]))), np.zeros((len(s), len(rows) * len(quarter[1])))
        crosses = mirrored.covariances(hyper.kernel, hyper.lengths, (rows, quarter[1]))
        for (cross, _, _), (values, vectors) in zip(crosses, solved, strict=True):
            values = np.maximum(values, least)
            share = (cross @ vectors) ** 2 / values
            explained += share.sum(axis=1)
            left += (s[:, None] / (1.0 + np.outer(s, values))) @ share.T
        # What the pixels do not reach, between the points of a finer grid; on the pixels it is rounding.
        beyond = np.maximum(1.0 - explained, 0.0) if upsample > 1 else 0.0
        out[:, first : first + step] = (s[:, None] * beyond + left).reshape(len(s), len(rows), len(quarter[1]))
    out = np.concatenate([out, out[:, : sizes[0] // 2][:, ::-1]], axis=1)
    return np.concatenate([out, out[..., : sizes[1] // 2][..., ::-1]], axis=2)


def _dense(hyper: Hyper, observed: Bool, s: Float, upsample: int) -> Float:
    """Variances from the matrix of the measured pixels."""
    (height, width), (y, x) = observed.shape, np.nonzero(observed)
    k = radial(hyper.kernel, np.subtract.outer(y, y), np.subtract.outer(x, x), hyper.lengths)[0]
    roots = [cholesky(strength * k + np.eye(len(k)), lower=True, check_finite=False) for strength in s]
    out = np.empty((len(s), height * upsample, width * upsample))
    rows, columns = np.divmod(np.arange(observed.size), width)
    places = (np.arange(upsample) + 0.5) / upsample - 0.5
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            dy, dx = np.subtract.outer(y, rows + a), np.subtract.outer(x, columns + b)
            cross = radial(hyper.kernel, dy, dx, hyper.lengths)[0]
            for u, strength in enumerate(s):
                half = solve_triangular(roots[u], cross, lower=True, check_finite=False)
                known = strength * strength * np.einsum("ij,ij->j", half, half)
                out[u, i::upsample, j::upsample] = np.maximum(strength - known, 0.0).reshape(height, width)
    return out


def from_draws(
    hyper: Hyper,
    shape: tuple[int, int],
    s: Float,
    guess: Callable[[Float, float], Float],
    *,
    upsample: int,
    count: int,
    seed: int,
) -> Float:
    """Variances (T, H * upsample, W * upsample) of maps of strengths s (T,) and unit noise, from draws.

    Parameters
    ----------
    guess : callable
        From a map measured with noise (H, W) and its strength to its mean on the points.

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
                out[u] += (root * on_points - guess(measured, float(strength))) ** 2
    return out / count
