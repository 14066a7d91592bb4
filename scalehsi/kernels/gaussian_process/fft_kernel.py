"""A kernel of distance on a grid that is closed to a torus: products and draws by the fast Fourier transform.

The covariance of a grid is a block of the covariance of a torus that is wide enough that nothing reaches around it, and
that one is diagonal in Fourier space. Dietrich and Newsam 1997, https://doi.org/10.1137/S1064827592240555
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
from scipy.fft import fft, fft2, ifft, irfft, next_fast_len, rfft, rfft2
from scipy.optimize import brentq

from scalehsi.arrays import Float
from scalehsi.kernels.gaussian_process.covariance import STATIONARY
from scalehsi.kernels.gaussian_process.radial_kernel import ENDING, radial

NOTHING: Final = 1e-13
"""A covariance below this part of the variance counts as none."""


@lru_cache(maxsize=8)
def reach(kernel: str) -> float:
    """Distance in lengths beyond which a kernel is below 1e-13.

    Examples
    --------
    >>> round(reach("rbf-radial"), 1)
    7.7
    """
    radial(kernel, 0.0, 0.0, (1.0, 1.0))
    function = STATIONARY[kernel.removesuffix(ENDING)]
    return float(brentq(lambda r: float(function(np.asarray(r))[0]) - NOTHING, 1.0, 100.0))


class Torus:
    """Products with the covariance between a grid's pixels, and from its pixels to points beside them.

    Parameters
    ----------
    kernel : str
        See `scalehsi.kernels.gaussian_process.radial_kernel.radial`.
    shape : (int, int)
    lengths : (float, float)
        In pixels.
    offset : (float, float)
        In pixels: the products are at the pixels moved by this.

    Notes
    -----
    Exact: the torus is as wide as the kernel reaches, or twice the grid where it reaches farther than the grid.
    """

    def __init__(
        self,
        kernel: str,
        shape: tuple[int, int],
        lengths: tuple[float, float],
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        wide = [int(np.ceil(reach(kernel) * length)) + 1 for length in lengths]
        self.shape = shape
        self.sizes = tuple(next_fast_len(n + min(n - 1, w), real=True) for n, w in zip(shape, wide, strict=True))
        dy, dx = (_signed(size) + o for size, o in zip(self.sizes, offset, strict=True))
        spectrum = rfft2(radial(kernel, dy[:, None], dx[None, :], lengths)[0])
        self.spectrum = spectrum if any(offset) else spectrum.real.copy()

    def forward(self, v: Float) -> Any:
        """The transform of a map (H, W) with zeros around it; rows of zeros are not transformed twice."""
        return fft(rfft(v, self.sizes[1], axis=1), self.sizes[0], axis=0)

    def back(self, transformed: Any) -> Float:
        """The map (H, W) of a transform."""
        rows = ifft(transformed, axis=0, overwrite_x=True)[: self.shape[0]]
        return np.asarray(irfft(rows, self.sizes[1], axis=1)[:, : self.shape[1]])

    def product(self, v: Float) -> Float:
        return self.back(self.spectrum * self.forward(v))


def _closed(extent: list[int], wide: list[float], share: float) -> list[int]:
    """Sizes at which nothing reaches around, and the covariance is smooth where the two ways around are equal."""
    return [int(np.ceil(max(n + share * w, 1.5 * share * w))) + 1 for n, w in zip(extent, wide, strict=True)]


def _signed(size: int) -> Float:
    """Distances of the places of a ring from the first, the shorter way around."""
    i = np.arange(size, dtype=np.float64)
    return np.where(i <= size // 2, i, i - size)


class Prior:
    """Draws of a field of unit variance on a grid's pixels and on the points of a finer grid.

    Parameters
    ----------
    kernel, shape, lengths
        As of `Torus`.
    upsample : int
        Points a pixel along each axis; of an even number none lies on a pixel, and the grid is twice as fine.
    largest : int
        Places of the torus, at most, unless twice the grid needs more.

    Attributes
    ----------
    negative : float
        Sum of the negative eigenvalues of the torus, relative to the sum of all. They are rounding alone where the
        torus is as wide as the kernel reaches. Where that would be larger than ``largest``, the torus is narrower,
        the negative ones are set to zero and the others scaled so that the variance stays one: the covariance of a
        draw is then wrong by about this share.
    """

    def __init__(
        self, kernel: str, shape: tuple[int, int], lengths: tuple[float, float], *, upsample: int = 1,
        largest: int = 2**24,
    ) -> None:  # fmt: skip
        self.shape, self.upsample = shape, upsample
        self.fine = upsample if upsample % 2 else 2 * upsample
        extent = [n * self.fine for n in shape]
        wide = [reach(kernel) * length * self.fine for length in lengths]
        share, places = 1.0, max(largest, 4 * extent[0] * extent[1])
        while share > 0.05 and np.prod(_closed(extent, wide, share)) > places:
            share *= 0.8
        sizes = [next_fast_len(size) for size in _closed(extent, wide, share)]
        dy, dx = (_signed(size) / self.fine for size in sizes)
        self.sizes = (sizes[0], sizes[1])
        values = fft2(radial(kernel, dy[:, None], dx[None, :], lengths)[0]).real
        self.negative = float(-values[values < 0].sum() / values.sum())
        kept = np.maximum(values, 0.0)
        self.root = np.sqrt(kept / kept.sum())

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Float, Float]:
        """Fields on the pixels, shape (count, H, W), and on the points, (count, H * upsample, W * upsample)."""
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
