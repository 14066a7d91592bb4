"""The cloud of spectra in its signal subspace: weighted moments in one reading, the scores of every pixel in another.

Channels are divided by the square root of their mean, which makes counting noise about uniform and keeps mixtures
mixtures. Scores are K numbers a pixel, so everything geometric runs in memory: 1e7 pixels and K = 5 are 200 MB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scalehsi.arrays import Bool, Float, Int
from scalehsi.blocks import Blocks, map_fold
from scalehsi.fitting.model import Cost, State
from scalehsi.kernels.extraction.simplex import smooth_maps
from scalehsi.kernels.subspace import moments
from scalehsi.models.pca import PCA
from scalehsi.schema import COMPONENT


@dataclass(frozen=True)
class Cloud:
    """Scores of all used pixels in a linear subspace of K dimensions.

    The first K - 1 directions are the principal components of the cloud minus its mean, the last is that of the mean.

    Attributes
    ----------
    scale : array, shape (E,)
        What each channel was divided by.
    basis : array, shape (E, K)
        Orthonormal, in weighted channels.
    centre : array, shape (K,)
        Scores of the mean spectrum.
    scores : array, shape (P, K)
        In the order of the pixels.
    index : array of int, shape (P,)
        Number of each pixel in the cube, in C order.
    used : array of bool, shape (..., y, x)
    noise : float
        Standard deviation of a score, from the variance outside of the subspace.
    power : float
        Mean squared norm of a weighted spectrum.
    signal : float
        The part of it in the subspace.
    mean : array, shape (E,)
        Mean spectrum of the used pixels.
    """

    scale: Float
    basis: Float
    centre: Float
    scores: Float
    index: Int
    used: Bool
    noise: float
    power: float
    signal: float
    mean: Float

    def smoothed(self, size: int) -> Float:
        """Scores (P, K) averaged over ``size`` x ``size`` pixels; as they are for 0."""
        if size <= 1:
            return self.scores
        maps = np.zeros((*self.used.shape, self.scores.shape[1]))
        maps[self.used] = self.scores
        return smooth_maps(maps, self.used, size)[self.used]

    def lifted(self, scores: Float) -> Float:
        """Scores as points on the plane of the mean; their last coordinate is one constant, as large as the cloud."""
        flat = scores[:, :-1] - self.centre[:-1]
        reach = float(np.sqrt((flat**2).sum(axis=1).max(initial=0.0))) or 1.0
        return np.column_stack([flat, np.full(len(flat), reach)])

    def decibel(self) -> float:
        """Estimate of the signal-to-noise ratio by Nascimento and Bioucas-Dias (2005)."""
        signal = self.signal - len(self.centre) / len(self.scale) * self.power
        return float(10 * np.log10(max(signal, 1e-300) / max(self.power - self.signal, 1e-12 * self.power)))

    def spectra(self, points: Float) -> Float:
        """Spectra (N, E) of scores (N, K), in counts."""
        return np.asarray((points @ self.basis.T) * self.scale)

    def flattened(self, points: Float) -> Float:
        """Scores (N, K) moved onto the plane of the mean, as fractions that sum to one want it."""
        return np.column_stack([points[:, :-1], np.full(len(points), self.centre[-1])])


def analysis(n_components: int, weighting: str | None) -> PCA:
    """The principal components that span the cloud. weighting: as in the models."""
    return PCA(max(n_components, 1), weighting="channels" if weighting else None, centre=True)


def read_cloud(view: Blocks, n_components: int, *, weighting: str | None, seed: int) -> tuple[Cloud, State]:
    """Read the moments and the scores of a cube: two readings, a few more for over 2048 channels.

    Parameters
    ----------
    view : Blocks
    n_components : int
        K, the dimensions.
    weighting : {"poisson", None}
        Whether channels are divided by the square root of their mean.
    seed : int
        Of the sketch for many channels.

    Returns
    -------
    Cloud
    State
        ``pixels`` and ``spectrum``, which every fit keeps.
    """
    found, _ = analysis(n_components, weighting).solve(view, seed)
    scale, pixels, k = found["scale"], float(found["pixels"]), n_components
    mean = found["spectrum"] / pixels
    basis, centre = _span(found["vectors"][:, : k - 1], mean / scale)
    shared = {"loadings": basis / scale[:, None], "offset": np.zeros(len(scale)), "basis": basis.T, "residual": False}
    handles, _ = map_fold(moments.scores, view, shared=shared, keep=["abundances"], name="scores")
    maps = handles["abundances"].to_dataarray({COMPONENT: k}).transpose(..., COMPONENT).values
    used = np.isfinite(maps).all(axis=-1)
    values, total = found["eigenvalues"], float(found["total"])
    rest = max(total - float(values[: k - 1].sum()), 0.0)
    freedom = max(1, len(scale) - k)
    square = float(((mean / scale) ** 2).sum())
    cloud = Cloud(
        scale=scale,
        basis=basis,
        centre=centre,
        scores=maps[used].astype(np.float64),
        index=np.flatnonzero(used.ravel()),
        used=used,
        noise=float(np.sqrt(rest / freedom / pixels)),
        power=total / pixels + square,
        signal=float(values[:k].sum()) / pixels + square,
        mean=mean,
    )
    return cloud, {"pixels": found["pixels"], "spectrum": found["spectrum"]}


def _span(vectors: Float, mean: Float) -> tuple[Float, Float]:
    """An orthonormal basis (E, K) of K - 1 principal vectors and the mean (E,), and the scores (K,) of the mean."""
    rest = mean - vectors @ (vectors.T @ mean)
    length = float(np.linalg.norm(rest))
    basis = np.column_stack([vectors, rest / (length or 1.0)])
    return basis, basis.T @ mean


def cost(n_components: int, weighting: str | None, shape: tuple[int, ...], itemsize: int) -> Cost:
    """What a geometric fit needs. shape: of the cube. itemsize: bytes of a value."""
    found = analysis(n_components, weighting).cost(shape, itemsize)
    return Cost(found.passes + 1, found.sums_bytes, found.work_bytes, n_components + 1, kept_bytes=4 * n_components)
