"""Posterior mean and deviation for a kernel of distance, complete or not, by conjugate gradients with FFT products.

With ``o`` the measured pixels, ``(s K_oo + I) alpha = y_o`` is solved for each of the independent maps, and the mean is
``s K_{*o} alpha``. The preconditioner is the inverse on the periodic grid, restricted to the measured pixels. For
complete maps it is exact except near the edges, and needs half of the steps of a circulant matrix of the grid itself.
Where the maps have different gaps, they are solved together: the same products, between a rotation to the independent
maps and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.gaussian_process.fft_kernel import FFTCovariance, Prior
from scalehsi.kernels.gaussian_process.gaps import by_map, common_gaps
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.missing_pixels import DRAW_TOLERANCE, TOLERANCE
from scalehsi.kernels.gaussian_process.posterior import decoupled, mixing
from scalehsi.kernels.gaussian_process.radial_variance import exact_joint_variance, exact_variance, variance_from_draws

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
    """Linear system of the measured pixels of C maps, for one kernel, pair of lengths and mask.

    Parameters
    ----------
    hyper : Hyper
        Its kernel and lengths are used.
    observed : array of bool, shape (H, W) or (C, H, W)
        True where the maps were measured.
    upsample : int
        Points per pixel along each axis, of `mean`.
    rotation : array, shape (C, C), optional
        From independent maps to the measured ones; None where these are independent.
    """

    def __init__(self, hyper: Hyper, observed: Bool, upsample: int = 1, rotation: Float | None = None) -> None:
        self.observed, self.rotation = observed, rotation
        shape = (observed.shape[-2], observed.shape[-1])
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

    def _to_maps(self, v: Float) -> Float:
        return v if self.rotation is None else np.tensordot(self.rotation, v, axes=1)

    def _to_independent(self, v: Float) -> Float:
        return v if self.rotation is None else np.tensordot(self.rotation.T, v, axes=1)

    def product(self, alpha: Float, strength: Float) -> Float:
        """``(s K_oo + I) alpha`` of maps (C, H, W) of these strengths (C, 1, 1), zero at missing pixels."""
        signal = strength * self.covariance.product(self._to_independent(alpha))
        return np.where(self.observed, self._to_maps(signal) + alpha, 0.0)

    def solve(self, right: Float, strength: Float, tolerance: float) -> tuple[Float, int]:
        """Solve for ``alpha`` (C, H, W), zero at missing pixels, by conjugate gradients; also return their steps.

        ``right`` (C, H, W) is the right side, zero at missing pixels, ``strength`` (C, 1, 1), and ``tolerance`` the
        residual relative to the right side.
        """
        shape, size = right.shape, (right.size, right.size)
        grid, weight = self.covariance, 1.0 / (1.0 + strength * self.spectrum)
        iterates: list[Float] = []

        def precondition(r: Float) -> Float:
            inner = grid.inverse(weight * grid.transform(self._to_independent(r.reshape(shape))))
            return np.where(self.observed, self._to_maps(inner), 0.0).ravel()

        matrix = LinearOperator(size, lambda v: self.product(v.reshape(shape), strength).ravel(), dtype=np.float64)
        inverse = LinearOperator(size, precondition, dtype=np.float64)
        # cg calls back after each step, always with the same array: the list costs nothing.
        alpha, _ = cg(
            matrix, right.ravel(), M=inverse, rtol=tolerance, atol=0.0, maxiter=MAX_STEPS, callback=iterates.append
        )
        return alpha.reshape(shape), len(iterates)

    def mean(self, alpha: Float, strength: Float) -> Float:
        """Independent maps ``s K_{*o} alpha`` on the points, shape (C, H * upsample, W * upsample)."""
        n, independent = self.upsample, self._to_independent(alpha)
        if n == 1:
            return np.asarray(strength * self.covariance.product(independent))
        out = np.empty((len(alpha), alpha.shape[-2] * n, alpha.shape[-1] * n))
        transformed = self.covariance.transform(independent)
        for i, row in enumerate(self.points):
            for j, shifted in enumerate(row):
                out[:, i::n, j::n] = shifted.inverse(shifted.spectrum * transformed)
        return np.asarray(strength * out)


class _Maps:
    """Posterior means of independent maps (T, H, W), all at once or one by one, as the gaps ``seen`` allow."""

    def __init__(self, hyper: Hyper, seen: Bool, upsample: int) -> None:
        self.s, self.joint = decoupled(hyper)[0], seen.ndim == 3
        rotation = mixing(hyper) if self.joint else None
        self.system = System(hyper, np.moveaxis(seen, -1, 0) if self.joint else seen, upsample, rotation)
        every = slice(0, len(self.s))
        self.groups = [every] if self.joint else [slice(u, u + 1) for u in range(len(self.s))]

    def mean(self, z: Float, tolerance: float) -> tuple[Float, int, float]:
        """Means (T, points along y, x) of noisy maps ``z`` (T, H, W), steps, and the largest relative residual."""
        fields, steps, worst, system = [], 0, 0.0, self.system
        right = np.where(system.observed, system._to_maps(z), 0.0)
        for group in self.groups:
            here, strength = right[group], self.s[group, None, None]
            alpha, count = system.solve(here, strength, tolerance)
            fields.append(system.mean(alpha, strength))
            residual = np.linalg.norm(here - system.product(alpha, strength)) / (np.linalg.norm(here) or 1.0)
            steps, worst = max(steps, count), max(worst, float(residual))
        return np.concatenate(fields), steps, worst

    def errors(self, hyper: Hyper, *, count: int, seed: int, tolerance: float) -> Iterator[Float]:
        """Errors (T, points along y, x) of the means of ``count`` sets of maps that are drawn and measured."""
        rng, shape = np.random.default_rng(seed), self.system.covariance.shape
        prior = Prior(hyper.kernel, shape, hyper.lengths, upsample=self.system.upsample)
        root = np.sqrt(self.s)[:, None, None]
        for _ in range(count):
            pixels, points = prior.draw(rng, len(self.s))
            noisy = root * pixels + rng.standard_normal((len(self.s), *shape))
            yield root * points - self.mean(noisy, tolerance)[0]


def draw(y: Float, observed: Bool, hyper: Hyper, *, count: int, seed: int) -> Float:
    """Draw maps (count, H, W, T) from the posterior; as `scalehsi.kernels.gaussian_process.missing_pixels.draw`."""
    seen, (_, to_independent, to_maps) = common_gaps(observed), decoupled(hyper)
    maps = _Maps(hyper, seen, 1)
    z = np.einsum("hwt,tu->uhw", np.where(by_map(seen), y - hyper.mean, 0.0), to_independent)
    mean, _, _ = maps.mean(z, TOLERANCE)
    errors = maps.errors(hyper, count=count, seed=seed, tolerance=TOLERANCE)
    return np.array([np.einsum("uhw,ut->hwt", mean + error, to_maps) + hyper.mean for error in errors])


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
    observed : array of bool, shape (H, W) or (H, W, T), or None
        True where all maps, or each of them, were measured; None where nothing is missing.
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
    seen = np.ones(y.shape[:2], dtype=bool) if observed is None else common_gaps(observed)
    s, to_independent, to_maps = decoupled(hyper)
    z = np.einsum("hwt,tu->uhw", np.where(by_map(seen), y - hyper.mean, 0.0), to_independent)
    maps = _Maps(hyper, seen, upsample)
    fields, steps, worst = maps.mean(z, tolerance)
    mean = np.einsum("uhw,ut->hwt", fields, to_maps) + hyper.mean
    loose = max(tolerance, DRAW_TOLERANCE)
    if maps.joint:
        joint = exact_joint_variance(hyper, seen, upsample=upsample)
        if joint is None and draws > 0:
            errors = maps.errors(hyper, count=draws, seed=seed, tolerance=loose)
            joint = np.sum([np.einsum("uhw,ut->hwt", e, to_maps) ** 2 for e in errors], axis=0) / draws
        return Solved(mean, None if joint is None else np.sqrt(joint), steps, worst)
    variance = exact_variance(hyper, seen, s, upsample=upsample)
    if variance is None and draws > 0:

        def posterior_mean(prior: Float, strength: float) -> Float:
            system, both = maps.system, np.full((1, 1, 1), strength)
            alpha, _ = system.solve(np.where(seen, prior, 0.0)[None], both, loose)
            return np.asarray(system.mean(alpha, both)[0])

        shape = (seen.shape[0], seen.shape[1])
        variance = variance_from_draws(hyper, shape, s, posterior_mean, upsample=upsample, count=draws, seed=seed)
    std = None if variance is None else np.sqrt(np.einsum("uhw,ut->hwt", variance, to_maps**2))
    return Solved(mean, std, steps, worst)
