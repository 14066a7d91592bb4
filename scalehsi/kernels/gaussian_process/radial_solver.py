"""Posterior mean and deviation for a kernel of distance, complete or not, by conjugate gradients with FFT products.

With ``o`` the measured pixels, ``(s K_oo + I) alpha = y_o`` is solved for each of the independent maps, and the mean is
``s K_{*o} alpha``. The preconditioner is the inverse on the periodic grid, restricted to the measured pixels. For
complete maps it is exact except near the edges, and needs half of the steps of a circulant matrix of the grid itself.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.gaussian_process.fft_kernel import FFTCovariance
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.missing_pixels import DRAW_TOLERANCE
from scalehsi.kernels.gaussian_process.posterior import decoupled
from scalehsi.kernels.gaussian_process.radial_variance import exact_variance, variance_from_draws

MAX_STEPS: Final = 1000


class Solved(NamedTuple):
    """Posterior of the maps, without their noise.

    Attributes
    ----------
    mean : array, shape (H * upsample, W * upsample, T)
    std : array of the same shape, or None
        None where no exact one is available and no draws were asked for.
    steps : int
        Of conjugate gradients, for the map that needed most.
    residual : float
        Largest residual at the end, relative to the right side; at most the tolerance where it converged.
    """

    mean: Float
    std: Float | None
    steps: int
    residual: float


class System:
    """Linear system of the measured pixels, for one kernel, pair of lengths and mask.

    Parameters
    ----------
    hyper : Hyper
        Its kernel and lengths are used.
    observed : array of bool, shape (H, W)
        True where the maps were measured.
    upsample : int
        Points per pixel along each axis, of `covariance_with_points`.
    """

    def __init__(self, hyper: Hyper, observed: Bool, upsample: int = 1) -> None:
        self.observed = observed
        shape = (observed.shape[0], observed.shape[1])
        self.covariance = FFTCovariance(hyper.kernel, shape, hyper.lengths)
        self.spectrum = np.maximum(self.covariance.spectrum, 0.0)
        self.upsample = upsample
        offsets = (np.arange(upsample) + 0.5) / upsample - 0.5
        self.points = [
            [
                self.covariance if a == b == 0 else FFTCovariance(hyper.kernel, shape, hyper.lengths, (a, b))
                for b in offsets
            ]
            for a in offsets
        ]

    def product(self, alpha: Float, strength: float) -> Float:
        """``(s K_oo + I) alpha`` of a map (H, W) of this strength s, zero at missing pixels."""
        return np.where(self.observed, strength * self.covariance.product(alpha) + alpha, 0.0)

    def solve(self, right: Float, strength: float, tolerance: float) -> tuple[Float, int]:
        """Solve for ``alpha`` (H, W), zero at missing pixels, by conjugate gradients; also return their steps.

        ``right`` (H, W) is the right side, zero at missing pixels, and ``tolerance`` the residual relative to it.
        """
        shape, size = right.shape, (right.size, right.size)
        grid, weight = self.covariance, 1.0 / (1.0 + strength * self.spectrum)
        iterates: list[Float] = []

        def precondition(r: Float) -> Float:
            return np.where(self.observed, grid.inverse(weight * grid.transform(r.reshape(shape))), 0.0).ravel()

        matrix = LinearOperator(size, lambda v: self.product(v.reshape(shape), strength).ravel(), dtype=np.float64)
        inverse = LinearOperator(size, precondition, dtype=np.float64)
        # cg calls back after each step, always with the same array: the list costs nothing.
        alpha, _ = cg(
            matrix, right.ravel(), M=inverse, rtol=tolerance, atol=0.0, maxiter=MAX_STEPS, callback=iterates.append
        )
        return alpha.reshape(shape), len(iterates)

    def covariance_with_points(self, alpha: Float) -> Float:
        """``K_{*o} alpha`` on the points, shape (H * upsample, W * upsample)."""
        (height, width), n = alpha.shape, self.upsample
        if n == 1:
            return self.covariance.product(alpha)
        out = np.empty((height * n, width * n))
        transformed = self.covariance.transform(alpha)
        for i, row in enumerate(self.points):
            for j, shifted in enumerate(row):
                out[i::n, j::n] = shifted.inverse(shifted.spectrum * transformed)
        return out


def solve(
    y: Float,
    observed: Bool | None,
    hyper: Hyper,
    *,
    upsample: int = 1,
    draws: int = 0,
    seed: int = 0,
    tolerance: float = 1e-5,
) -> Solved:
    """Compute mean and standard deviation of the maps without their noise, for a kernel of distance.

    Parameters
    ----------
    y : array, shape (H, W, T)
        Values at missing pixels are ignored.
    observed : array of bool, shape (H, W), or None
        True where all maps were measured; None where nothing is missing.
    hyper : Hyper
        Of a kernel that ends in "-radial".
    upsample : int, default 1
        Points per pixel along each axis.
    draws : int, default 0
        Draws from the posterior, for the standard deviation where no exact one is available: its relative error is then
        ``1 / sqrt(2 draws)``. It is exact for complete maps, and for others of up to 1500 pixels; see
        `scalehsi.kernels.gaussian_process.radial_variance.exact_variance`.
    seed : int, default 0
        Of the draws.
    tolerance : float, default 1e-5
        Residual relative to the right side. The mean is then right to some thousandths of the noise.

    Returns
    -------
    Solved

    Notes
    -----
    Cost: each step two transforms of the periodic grid and back for each map; 20 to 50 steps for complete maps of noise
    0.3, 50 to 200 at 0.03, two to four times as many with half of the pixels missing. Each draw costs what the mean
    does.
    """
    seen = np.ones(y.shape[:2], dtype=bool) if observed is None else observed
    s, to_independent, to_maps = decoupled(hyper)
    z = np.einsum("hwt,tu->uhw", np.where(seen[..., None], y - hyper.mean, 0.0), to_independent)
    system = System(hyper, seen, upsample)
    fields, steps, worst = [], 0, 0.0
    for right, strength in zip(z, s, strict=True):
        alpha, count = system.solve(right, float(strength), tolerance)
        fields.append(strength * system.covariance_with_points(alpha))
        residual = np.linalg.norm(right - system.product(alpha, float(strength))) / (np.linalg.norm(right) or 1.0)
        steps, worst = max(steps, count), max(worst, float(residual))
    mean = np.einsum("uhw,ut->hwt", np.array(fields), to_maps) + hyper.mean
    variance = exact_variance(hyper, seen, s, upsample=upsample)
    if variance is None and draws > 0:

        def posterior_mean(prior: Float, strength: float) -> Float:
            alpha, _ = system.solve(np.where(seen, prior, 0.0), strength, max(tolerance, DRAW_TOLERANCE))
            return np.asarray(strength * system.covariance_with_points(alpha))

        shape = (seen.shape[0], seen.shape[1])
        variance = variance_from_draws(hyper, shape, s, posterior_mean, upsample=upsample, count=draws, seed=seed)
    std = None if variance is None else np.sqrt(np.einsum("uhw,ut->hwt", variance, to_maps**2))
    return Solved(mean, std, steps, worst)
