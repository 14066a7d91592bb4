"""VCA and N-FINDR: the endmembers are the pixels at the corners of the cloud of spectra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from scalehsi.arrays import Float, Int
from scalehsi.blocks import Blocks
from scalehsi.checks import choice
from scalehsi.fitting.model import State, Stats
from scalehsi.kernels.extraction.simplex import best_vca, nfindr, share_outside, simplex_volume
from scalehsi.kernels.extraction.vca import MIN_RELATIVE_INTENSITY
from scalehsi.models.geometric.base import DIRECT, OUTSIDE, Geometric
from scalehsi.models.geometric.cloud import Cloud, read_cloud

MODES: Final = ("affine", "perspective", "auto")


@dataclass(frozen=True)
class VCA(Geometric):
    """Find the purest pixels by vertex component analysis, and the fraction of each in every pixel.

    Nascimento and Bioucas-Dias 2005, on scores of channels weighted for counting noise, averaged over 3 x 3 pixels,
    with the largest simplex of several runs. Three readings of the cube; no spectrum of a pixel is gathered.

    Parameters
    ----------
    n_components : int
        K, at least 2.
    weighting : {"poisson", None}, default "poisson"
        Divide each channel by the square root of its mean, which makes counting noise uniform and keeps mixtures
        mixtures. On the benchmark's 3 components it is worth a factor of 2 to 5 in the error of the maps. None for data
        with uniform noise.
    smooth : int, default 3
        Average the scores over this many pixels along y and x before the search, as extremes of single pixels are
        extremes of noise. Fractions are of single pixels all the same. 0 for phases narrower than 3 pixels.
    restarts : int, default 20
        Runs with other random directions; the largest simplex is kept. Each costs K products with the scores.
    mode : {"affine", "perspective", "auto"}, default "affine"
        How spectra are brought onto a plane: "affine" projects onto K - 1 principal components; "perspective" divides
        by the intensity, where thickness varies by much, and leaves the intensities of endmembers arbitrary; "auto" is
        the rule of the paper (perspective above 15 + 10 log10 K dB).
    constraint : {"fcls", "nnls"}, default "fcls"
        Fractions are not negative and sum to one, or are only not negative (thickness varies).
    max_iter : int, default 1
        Not used: the corners are searched directly.
    tol : float, default 0
        Not used.

    Notes
    -----
    The result has ``vertex_pixel`` (component), the pixel of each corner, and ``share_outside``, the share of pixels
    outside of the simplex, from which the warning ``no_pure_pixels`` follows.

    References
    ----------
    Nascimento and Bioucas-Dias 2005, doi:10.1109/TGRS.2005.844293. Heinz and Chang 2001, doi:10.1109/36.911111.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((24, 24), n_channels=64, wedge=0.0, counts_per_pixel=5000)
    >>> result = hsi.fit(cube, hsi.VCA(4), seed=0)
    >>> bool((abs(result["abundances"].sum("component") - 1) < 1e-5).all())
    True
    """

    mode: str = "affine"

    name: ClassVar[str] = "VCA"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("mode", self.mode, MODES)

    def solve(self, view: Blocks, seed: int) -> tuple[State, Stats]:
        cloud, kept = read_cloud(view, self.n_components, weighting=self.weighting, seed=seed)
        scores = cloud.smoothed(self.smooth)
        strong = cloud.decibel() > 15 + 10 * np.log10(self.n_components)
        if self.mode == "affine" or (self.mode == "auto" and not strong):
            points = cloud.lifted(scores)
            found = best_vca(points, self.n_components, restarts=self.restarts, seed=seed)
            return corner_state(cloud, kept, scores, points, found, smooth=self.smooth)
        intensity = scores @ cloud.centre
        bright = np.flatnonzero(intensity > MIN_RELATIVE_INTENSITY * float(cloud.centre @ cloud.centre))
        points = scores[bright] / intensity[bright, None]
        found = best_vca(points, self.n_components, restarts=self.restarts, seed=seed)
        s = np.maximum(cloud.spectra(scores[bright[found]]), 0.0)
        state = {**kept, "s": s, "vertices": cloud.index[bright[found]]}
        return state, Stats(-simplex_volume(points[found]), done=True, advice=DIRECT)


@dataclass(frozen=True)
class NFINDR(Geometric):
    """Find the pixels of the largest simplex by N-FINDR, and the fraction of each in every pixel.

    Winter 1999: one corner after the other is exchanged for the pixel that enlarges the simplex most. It starts from
    the best of several runs of VCA, and ends with a simplex that no single exchange enlarges.

    Parameters
    ----------
    n_components : int
        K, at least 2.
    weighting : {"poisson", None}, default "poisson"
        Divide each channel by the square root of its mean, as `VCA` does. None for data with uniform noise.
    smooth : int, default 3
        Average the scores over this many pixels along y and x before the search; 0 for phases narrower than 3 pixels.
    restarts : int, default 20
        Runs of VCA for the start. Each exchange costs one product with the scores.
    constraint : {"fcls", "nnls"}, default "fcls"
        Fractions are not negative and sum to one, or are only not negative (thickness varies).
    max_iter : int, default 1
        Not used: the corners are searched directly.
    tol : float, default 0
        Not used.

    Notes
    -----
    The result has ``vertex_pixel`` and ``share_outside`` as that of `VCA`.

    References
    ----------
    Winter 1999, doi:10.1117/12.366289.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((24, 24), n_channels=64, wedge=0.0, counts_per_pixel=5000)
    >>> result = hsi.fit(cube, hsi.NFINDR(4), seed=0)
    >>> result["vertex_pixel"].sizes["component"]
    4
    """

    name: ClassVar[str] = "NFINDR"

    def solve(self, view: Blocks, seed: int) -> tuple[State, Stats]:
        cloud, kept = read_cloud(view, self.n_components, weighting=self.weighting, seed=seed)
        scores = cloud.smoothed(self.smooth)
        points = cloud.lifted(scores)
        found = nfindr(points, best_vca(points, self.n_components, restarts=self.restarts, seed=seed))
        return corner_state(cloud, kept, scores, points, found, smooth=self.smooth)


def corner_state(
    cloud: Cloud, kept: State, scores: Float, points: Float, found: Int, *, smooth: int
) -> tuple[State, Stats]:
    """The state of a fit whose corners were found on the plane of the mean.

    cloud, kept: of `read_cloud`. scores (P, K): smoothed. points (P, K): the same, lifted. found (K,): rows of the
    corners. smooth: pixels of the mean.
    """
    outside = share_outside(points, points[found], cloud.noise / max(smooth, 1))
    state = {
        **kept,
        "s": np.maximum(cloud.spectra(cloud.flattened(scores[found])), 0.0),
        "vertices": cloud.index[found],
        OUTSIDE: np.asarray(outside),
    }
    return state, Stats(-simplex_volume(points[found]), done=True, advice=DIRECT)
