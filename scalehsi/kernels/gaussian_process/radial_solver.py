"""Mean of maps whose kernel is one of distance, complete or not, by conjugate gradients and the fast Fourier transform.

With ``o`` the measured pixels, ``(s K_oo + I) alpha = y_o`` is solved for each of the independent maps, and the mean is
``s K_{*o} alpha``. The preconditioner is the inverse on a torus, cut to the measured pixels: for complete maps it is
right but for a seam along the edges, and needs half of the steps of a circulant matrix of the grid itself.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.gaussian_process.fft_kernel import Torus
from scalehsi.kernels.gaussian_process.likelihood import Hyper
from scalehsi.kernels.gaussian_process.posterior import decoupled
from scalehsi.kernels.gaussian_process.radial_variance import exact, from_draws

STEPS: Final = 1000
DRAWN: Final = 1e-4
"""Residual for draws, whose own error of ``1 / sqrt(2 draws)`` is larger than what this leaves."""


class Solved(NamedTuple):
    """Maps without their noise.

    Attributes
    ----------
    mean : array, shape (H * upsample, W * upsample, T)
    std : array of the same shape, or None
        None where nothing exact can be had and no draws were asked for.
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
    """The equations of the measured pixels, for one kernel, pair of lengths and mask."""

    def __init__(self, hyper: Hyper, observed: Bool, upsample: int = 1) -> None:
        self.observed = observed
        shape = (observed.shape[0], observed.shape[1])
        self.torus = Torus(hyper.kernel, shape, hyper.lengths)
        self.spectrum = np.maximum(self.torus.spectrum, 0.0)
        self.upsample = upsample
        places = (np.arange(upsample) + 0.5) / upsample - 0.5
        self.points = [
            [self.torus if a == b == 0 else Torus(hyper.kernel, shape, hyper.lengths, (a, b)) for b in places]
            for a in places
        ]

    def solve(self, right: Float, strength: float, tolerance: float) -> tuple[Float, int, float]:
        """``alpha`` (H, W), zero where nothing was measured, for a right side that is zero there too."""
        torus, weight = self.torus, 1.0 / (1.0 + strength * self.spectrum)
        x, r = np.zeros_like(right), right.copy()
        size = float(np.vdot(r, r))
        if size == 0.0 or strength == 0.0:
            return r, 0, 0.0
        p, before, left = np.zeros_like(r), 1.0, size
        for step in range(STEPS):
            if left <= tolerance**2 * size:
                return x, step, float(np.sqrt(left / size))
            z = np.where(self.observed, torus.back(weight * torus.forward(r)), 0.0)
            now = float(np.vdot(r, z))
            p = z + (now / before) * p if step else z
            before = now
            q = np.where(self.observed, strength * torus.product(p) + p, 0.0)
            along = now / float(np.vdot(p, q))
            x += along * p
            r -= along * q
            left = float(np.vdot(r, r))
        return x, STEPS, float(np.sqrt(left / size))

    def field(self, alpha: Float) -> Float:
        """``K_{*o} alpha`` on the finer grid."""
        (height, width), n = alpha.shape, self.upsample
        if n == 1:
            return self.torus.product(alpha)
        out = np.empty((height * n, width * n))
        transformed = self.torus.forward(alpha)
        for i, row in enumerate(self.points):
            for j, torus in enumerate(row):
                out[i::n, j::n] = torus.back(torus.spectrum * transformed)
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
    """Mean and standard deviation of the maps without their noise, for a kernel of distance.

    Parameters
    ----------
    y : array, shape (H, W, T)
        What stands at missing pixels is not looked at.
    observed : array of bool, shape (H, W), or None
        True where all maps were measured; None where nothing is missing.
    hyper : Hyper
        Of a kernel that ends in "-radial".
    upsample : int, default 1
        Points a pixel along each axis.
    draws : int, default 0
        From the posterior, for the standard deviation where it cannot be had exactly: its error is then a part of
        ``1 / sqrt(2 draws)``. Exact are complete maps, and others of up to 1500 pixels; see
        `scalehsi.kernels.gaussian_process.radial_variance.exact`.
    seed : int, default 0
        Of the draws.
    tolerance : float, default 1e-5
        Residual relative to the right side. The mean is then right to some thousandths of the noise.

    Returns
    -------
    Solved

    Notes
    -----
    Cost: each step two transforms of a torus and back for each map; 20 to 50 steps for complete maps of noise 0.3, 50
    to 200 at 0.03, two to four times as many with half of the pixels missing. Each draw costs what the mean does.
    """
    seen = np.ones(y.shape[:2], dtype=bool) if observed is None else observed
    s, there, back = decoupled(hyper)
    z = np.einsum("hwt,tu->uhw", np.where(seen[..., None], y - hyper.mean, 0.0), there)
    system = System(hyper, seen, upsample)
    fields, steps, worst = [], 0, 0.0
    for right, strength in zip(z, s, strict=True):
        alpha, count, residual = system.solve(np.ascontiguousarray(right), float(strength), tolerance)
        fields.append(strength * system.field(alpha))
        steps, worst = max(steps, count), max(worst, residual)
    mean = np.einsum("uhw,ut->hwt", np.array(fields), back) + hyper.mean
    variance = exact(hyper, seen, s, upsample=upsample)
    if variance is None and draws > 0:

        def guess(prior: Float, strength: float) -> Float:
            right = np.where(seen, prior, 0.0)
            return np.asarray(strength * system.field(system.solve(right, strength, max(tolerance, DRAWN))[0]))

        variance = from_draws(
            hyper, (seen.shape[0], seen.shape[1]), s, guess, upsample=upsample, count=draws, seed=seed
        )
    std = None if variance is None else np.sqrt(np.einsum("uhw,ut->hwt", variance, back**2))
    return Solved(mean, std, steps, worst)
