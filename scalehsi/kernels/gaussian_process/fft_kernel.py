"""Products with a distance-dependent covariance, and draws from it, by the fast Fourier transform.

The covariance of a grid is a block of the covariance of a larger periodic grid (circulant embedding), wide enough that
the kernel vanishes before it reaches around, and that one is diagonal in Fourier space. Dietrich and Newsam 1997,
https://doi.org/10.1137/S1064827592240555
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
import scipy
from scipy.fft import fft, fft2, ifft, irfft, next_fast_len, rfft, rfft2

from scalehsi.arrays import Float
from scalehsi.kernels.gaussian_process.covariance import STATIONARY
from scalehsi.kernels.gaussian_process.radial_kernel import RADIAL_SUFFIX, radial_covariance

NEGLIGIBLE_COVARIANCE: Final = 1e-13
"""Part of the variance below which a covariance is taken as zero."""


@lru_cache(maxsize=8)
def kernel_range(kernel: str) -> float:
    """Distance, in lengths, beyond which a kernel is below 1e-13.

    Examples
    --------
    >>> round(kernel_range("rbf-radial"), 1)
    7.7
    """
    radial_covariance(kernel, 0.0, 0.0, (1.0, 1.0))
    function = STATIONARY[kernel.removesuffix(RADIAL_SUFFIX)]
    return float(scipy.optimize.brentq(lambda r: float(function(np.asarray(r))[0]) - NEGLIGIBLE_COVARIANCE, 1.0, 100.0))


class FFTCovariance:
    """Products with the covariance between the pixels of a grid, or from its pixels to points shifted by an offset.

    Parameters
    ----------
    kernel : str
        See `scalehsi.kernels.gaussian_process.radial_kernel.radial_covariance`.
    shape : (int, int)
        Pixels along y and x.
    lengths : (float, float)
        In pixels.
    offset : (float, float)
        Shift of the points from the pixels, in pixels.

    Notes
    -----
    Exact: the periodic grid is wider than the grid by the range of the kernel, or twice the grid where the range is
    longer than the grid.
    """

    def __init__(
        self,
        kernel: str,
        shape: tuple[int, int],
        lengths: tuple[float, float],
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        wide = [int(np.ceil(kernel_range(kernel) * length)) + 1 for length in lengths]
        self.shape = shape
        self.sizes = tuple(next_fast_len(n + min(n - 1, w), real=True) for n, w in zip(shape, wide, strict=True))
        dy, dx = (_periodic_distances(size) + o for size, o in zip(self.sizes, offset, strict=True))
        spectrum = rfft2(radial_covariance(kernel, dy[:, None], dx[None, :], lengths)[0])
        self.spectrum = spectrum if any(offset) else spectrum.real.copy()

    def transform(self, v: Float) -> Any:
        """Transform maps (..., H, W) with zeros around them; rows of zeros are not transformed twice."""
        return fft(rfft(v, self.sizes[1], axis=-1), self.sizes[0], axis=-2)

    def inverse(self, transformed: Any) -> Float:
        """Transform back to maps (..., H, W)."""
        rows = ifft(transformed, axis=-2, overwrite_x=True)[..., : self.shape[0], :]
        return np.asarray(irfft(rows, self.sizes[1], axis=-1)[..., : self.shape[1]])

    def product(self, v: Float) -> Float:
        return self.inverse(self.spectrum * self.transform(v))


def _periodic_sizes(extent: list[int], wide: list[float], share: float) -> list[int]:
    """Sizes of a periodic grid for a grid of ``extent``, both along y and x, that keep the covariance smooth.

    ``share`` of the range ``wide`` of the kernel fits around the grid, and 1.5 times it into the whole period, as the
    covariance has a kink where the two ways around are equally long.
    """
    return [int(np.ceil(max(n + share * w, 1.5 * share * w))) + 1 for n, w in zip(extent, wide, strict=True)]


def _periodic_distances(size: int) -> Float:
    """Distances (size,) of the places of a periodic axis from the first one, by the shorter way around, with sign."""
    i = np.arange(size, dtype=np.float64)
    return np.where(i <= size // 2, i, i - size)


class Prior:
    """Draws of maps of unit variance on the pixels of a grid, and on the points of a refined grid.

    Parameters
    ----------
    kernel, shape, lengths
        As in `FFTCovariance`.
    upsample : int
        Points per pixel along each axis. With an even number no point coincides with a pixel, and the drawn grid is
        twice as fine.
    largest : int
        Most places of the periodic grid, unless twice the grid has more.

    Attributes
    ----------
    negative : float
        Sum of the negative eigenvalues of the periodic covariance, relative to the sum of all: rounding alone where
        the periodic grid is as wide as the range of the kernel. Where that would have more than ``largest`` places,
        the periodic grid is narrower, the negative eigenvalues are set to zero and the others scaled to unit variance:
        the relative error of the covariance of a draw is then about this sum.
    """

    def __init__(
        self, kernel: str, shape: tuple[int, int], lengths: tuple[float, float], *, upsample: int = 1,
        largest: int = 2**24,
    ) -> None:  # fmt: skip
        self.shape, self.upsample = shape, upsample
        self.fine = upsample if upsample % 2 else 2 * upsample
        extent = [n * self.fine for n in shape]
        wide = [kernel_range(kernel) * length * self.fine for length in lengths]
        share, most = 1.0, max(largest, 4 * extent[0] * extent[1])
        while share > 0.05 and np.prod(_periodic_sizes(extent, wide, share)) > most:
            share *= 0.8
        sizes = [next_fast_len(size) for size in _periodic_sizes(extent, wide, share)]
        dy, dx = (_periodic_distances(size) / self.fine for size in sizes)
        self.sizes = (sizes[0], sizes[1])
        values = fft2(radial_covariance(kernel, dy[:, None], dx[None, :], lengths)[0]).real
        self.negative = float(-values[values < 0].sum() / values.sum())
        kept = np.maximum(values, 0.0)
        self.root = np.sqrt(kept / kept.sum())

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Float, Float]:
        """Draw maps on the pixels, shape (count, H, W), and on the points, (count, H * upsample, W * upsample)."""
        (height, width), fine = self.shape, self.fine
        pixels, points = [], []
        for _ in range(-(-count // 2)):
            raw = rng.standard_normal((2, *self.sizes))
            field = fft2(self.root * (raw[0] + 1j * raw[1]), overwrite_x=True)[: height * fine, : width * fine]
            for part in (field.real, field.imag):
                # Places lie 1 / fine apart from the centre of the first one; pixel i is at place i * fine + middle.
                pixels.append(part[fine // 2 :: fine, fine // 2 :: fine])
                points.append(part if fine == self.upsample else part[1::2, 1::2])
        return np.array(pixels[:count]), np.array(points[:count])
