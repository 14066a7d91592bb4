"""Covariance that depends on the distance, ``k(sqrt((dy/ly)^2 + (dx/lx)^2))``, and the fit of its hyperparameters.

Such a kernel is no product of one covariance for y and one for x, so that the fit uses dense matrices on small tiles.
On a complete rectangle maps split into even and odd ones along each axis: four matrices of a quarter of the pixels
replace one of all, in a sixteenth of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from scipy.linalg import eigh

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.gaussian_process.covariance import JITTER, STATIONARY
from scalehsi.kernels.gaussian_process.likelihood import Bounds, Hyper, default_bounds, search_lengths, standardised
from scalehsi.kernels.gaussian_process.spectral_nodes import fit_signal_and_noise, group_eigenvalues
from scalehsi.schema import InputError, suggest

RADIAL_SUFFIX: Final = "-radial"
"""Ending of the name of a kernel that depends on the distance."""
MAX_TILE_PIXELS: Final = 28
"""Longest side of the dense tiles on which the likelihood is computed."""
MAX_TILE_PIXELS_MISSING: Final = 20
"""The same where pixels are missing: such tiles have no symmetry, and each has eigenvectors of its own."""
MAX_TILES_MISSING: Final = 12


def is_radial(kernel: str) -> bool:
    """Whether a kernel depends on the distance.

    Examples
    --------
    >>> is_radial("matern52-radial"), is_radial("matern52")
    (True, False)
    """
    return str(kernel).endswith(RADIAL_SUFFIX)


def radial_covariance(kernel: str, dy: Any, dx: Any, lengths: tuple[float, float]) -> tuple[Float, Float, Float]:
    """Compute the covariance at given distances and its derivatives by the logarithms of the two lengths.

    Parameters
    ----------
    kernel : str
    dy, dx : array
        Distances along y and x, in pixels.
    lengths : (float, float)
        Along y and x, in pixels.

    Raises
    ------
    InputError
        For a kernel other than "matern12-radial", "matern32-radial", "matern52-radial" and "rbf-radial".

    Examples
    --------
    >>> radial_covariance("matern52-radial", 3.0, 0.0, (3.0, 5.0))[0].round(3).item()
    0.524
    """
    name = str(kernel).removesuffix(RADIAL_SUFFIX)
    if not is_radial(kernel) or name not in STATIONARY:
        known = [k + RADIAL_SUFFIX for k in STATIONARY]
        raise InputError(f"kernel={kernel!r} is no kernel of distance; {suggest(str(kernel), known)}")
    ry = (np.asarray(dy, dtype=np.float64) / lengths[0]) ** 2
    rx = (np.asarray(dx, dtype=np.float64) / lengths[1]) ** 2
    square = ry + rx
    value, slope = STATIONARY[name](np.sqrt(square))
    # The derivative is divided between the axes like the square of the distance; at zero it vanishes.
    slope = slope / np.maximum(square, 1e-300)
    return value, slope * ry, slope * rx


class EvenOddMaps:
    """Decomposition of the maps on a rectangle into four independent sets, even or odd along each axis.

    Parameters
    ----------
    shape : (int, int)
        Pixels along y and x.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.signs = [(a, b) for a in (1, -1) for b in (1, -1) if self.count(a, shape[0]) * self.count(b, shape[1]) > 0]

    @staticmethod
    def count(sign: int, size: int) -> int:
        """Number of even (sign 1) or odd (sign -1) maps of an axis: the middle pixel belongs to the even ones."""
        return (size + 1) // 2 if sign > 0 else size // 2

    @staticmethod
    def weights(sign: int, size: int) -> Float:
        """Weights of these maps: one, but the square root of a half for a middle pixel, its own mirror image."""
        out = np.ones(EvenOddMaps.count(sign, size))
        if sign > 0 and size % 2:
            out[-1] = np.sqrt(0.5)
        return out

    def fold(self, y: Float, signs: tuple[int, int]) -> Float:
        """Coefficients (..., m) of maps (..., H, W) in the set with these signs along y and x."""
        (a, b), (height, width) = signs, self.shape
        rows = y[..., : self.count(a, height), :] + a * y[..., ::-1, :][..., : self.count(a, height), :]
        both = rows[..., : self.count(b, width)] + b * rows[..., ::-1][..., : self.count(b, width)]
        both = 0.5 * both * np.outer(self.weights(a, height), self.weights(b, width))
        return both.reshape(*y.shape[:-2], -1)

    def covariances(
        self, kernel: str, lengths: tuple[float, float], points: tuple[Float, Float] | None = None
    ) -> Iterator[tuple[Float, Float, Float]]:
        """Covariance matrix (m, m) of each of the four sets, and its derivatives by the logarithms of the lengths.

        With ``points`` along y and x, in pixels, instead the covariance (p, m) of each point with each map of the set.
        """
        height, width = self.shape
        iy, ix = np.arange((height + 1) // 2), np.arange((width + 1) // 2)
        py, px = (iy, ix) if points is None else points
        near_y, far_y = np.subtract.outer(py, iy), np.subtract.outer(py, height - 1 - iy)
        near_x, far_x = np.subtract.outer(px, ix), np.subtract.outer(px, width - 1 - ix)
        parts = [
            radial_covariance(kernel, dy[:, None, :, None], dx[None, :, None, :], lengths)
            for dy in (near_y, far_y)
            for dx in (near_x, far_x)
        ]
        for a, b in self.signs:
            n_y, n_x = self.count(a, height), self.count(b, width)
            w_y, w_x = self.weights(a, height), self.weights(b, width)
            rows_y, rows_x = (n_y, n_x) if points is None else (len(py), len(px))
            scale = w_y[:, None] * w_x[None, :]
            left = scale[:, :, None, None] if points is None else 0.5
            found = []
            for nn, nf, fn, ff in zip(*parts, strict=True):
                block = nn + b * nf + a * fn + a * b * ff
                block = block[:rows_y, :rows_x, :n_y, :n_x] * left * scale
                found.append(block.reshape(rows_y * rows_x, n_y * n_x))
            yield found[0], found[1], found[2]


Matrices = tuple[Float, Float, Float]
"""A covariance matrix, and its derivatives by the logarithms of the lengths along y and x."""


class DenseLikelihood:
    """Profile likelihood of maps in independent sets, each set with a dense covariance matrix.

    Parameters
    ----------
    sets : list of arrays, shape (tiles, T, m)
    matrices : callable
        Returns, for two lengths, the matrices (m, m) of each set.
    rank : int
        Columns of L in ``B = L L' + diag(w)``.
    """

    def __init__(self, sets: list[Float], matrices: Callable[[tuple[float, float]], Iterator[Matrices]], rank: int):
        self.sets, self.matrices, self.evaluations = sets, matrices, 0
        self.rank = max(1, min(rank, sets[0].shape[1]))

    def _decomposed(self, lengths: tuple[float, float]) -> list[tuple[Float, Float, Float, Float, Float]]:
        """Eigenvalues, eigenvectors, rotated maps, and the derivatives of the matrix, of each set."""
        self.evaluations += 1
        out = []
        for maps, (k, by_y, by_x) in zip(self.sets, self.matrices(lengths), strict=True):
            values, vectors = eigh(k, overwrite_a=True, check_finite=False, driver="evd")
            out.append((values, vectors, maps @ vectors, by_y, by_x))
        least = JITTER * max(float(values[-1]) for values, *_ in out)
        return [(np.maximum(values, least), *rest) for values, *rest in out]

    def _profile(self, solved: list[tuple[Float, Float, Float, Float, Float]]) -> tuple[float, Float, Float]:
        """Loss, B (T, T) and D (T,), at their best for the decomposed sets."""
        g = np.concatenate([values for values, *_ in solved])
        z = np.concatenate([rotated for _, _, rotated, *_ in solved], axis=-1)
        return fit_signal_and_noise(*group_eigenvalues(g, list(z)), rank=self.rank)

    def loss(self, lengths: tuple[float, float]) -> float:
        return self._profile(self._decomposed(lengths))[0]

    def signal_and_noise(self, lengths: tuple[float, float]) -> tuple[Float, Float]:
        return self._profile(self._decomposed(lengths))[1:]

    def value_and_slope(self, lengths: tuple[float, float]) -> tuple[float, Float]:
        solved = self._decomposed(lengths)
        value, signal, variance = self._profile(solved)
        root = np.sqrt(variance)
        s, u = np.linalg.eigh(signal / np.outer(root, root))
        s, to_independent = np.maximum(s, 0.0), u / root[:, None]
        slope = np.zeros(2)
        for values, vectors, rotated, by_y, by_x in solved:
            # B and D are at their best, so that the derivative is that by K alone: tr(dK (C^-1 - C^-1 y y' C^-1)).
            weight = 1.0 / (1.0 + np.outer(s, values))
            beta = np.einsum("ntm,tu->unm", rotated, to_independent) * weight[:, None, :]
            beta = (np.sqrt(s)[:, None, None] * beta).reshape(-1, len(values)) @ vectors.T
            inverse = len(rotated) * (vectors * (s @ weight)) @ vectors.T - beta.T @ beta
            slope += 0.5 * np.array([np.vdot(by_y, inverse), np.vdot(by_x, inverse)])
        return value, slope


def fit(
    tiles: Sequence[Float],
    masks: Sequence[Bool] | None = None,
    *,
    kernel: str = "matern52-radial",
    bounds: Bounds | None = None,
    isotropic: bool = False,
    rank: int = 1,
    start: tuple[float, float] | None = None,
) -> Hyper:
    """Fit the hyperparameters of a kernel of distance to tiles of the same maps, all of one size.

    Parameters
    ----------
    tiles : sequence of arrays, shape (H, W, T)
        They are cut into dense tiles of sides up to 28 pixels, which are treated as independent; with missing pixels
        up to 20.
    masks : sequence of bool arrays, shape (H, W), optional
        True where all maps were measured; other values are ignored.
    kernel : {"matern12-radial", "matern32-radial", "matern52-radial", "rbf-radial"}
    bounds, isotropic, rank, start
        As in `scalehsi.kernels.gaussian_process.likelihood.fit`. A dense tile cannot distinguish lengths far above its
        own side.

    Returns
    -------
    Hyper
        Its loss is that of the dense tiles.

    Raises
    ------
    InputError
        For another kernel, and where no tile has a measured pixel.

    Notes
    -----
    Cost: some 30 evaluations. Complete: each four eigendecompositions of at most 196 x 196 in all, however many tiles.
    With missing pixels: one of up to 400 x 400 for each of at most 12 dense tiles, those with most measured pixels.
    """
    radial_covariance(kernel, 0.0, 0.0, (1.0, 1.0))
    limits = bounds or default_bounds(*tiles[0].shape[:2])
    if masks is None or all(mask.all() for mask in masks):
        cut = [part for tile in tiles for part in cut_evenly(tile, MAX_TILE_PIXELS)]
        scaled, mean, scale = standardised(cut)
        even_odd = EvenOddMaps(cut[0].shape[:2])
        stacked = np.stack(scaled)
        sets = [even_odd.fold(stacked, signs) for signs in even_odd.signs]
        pixels = len(cut) * cut[0][..., 0].size
        likelihood = DenseLikelihood(sets, lambda lengths: even_odd.covariances(kernel, lengths), rank)
    else:
        cut = [part for tile in tiles for part in cut_evenly(tile, MAX_TILE_PIXELS_MISSING)]
        seen = [part for mask in masks for part in cut_evenly(mask, MAX_TILE_PIXELS_MISSING)]
        most = np.argsort([-int(part.sum()) for part in seen], kind="stable")[:MAX_TILES_MISSING]
        chosen = [int(i) for i in most if seen[i].any()]
        if not chosen:
            raise InputError("no pixel was measured, so that there is nothing to fit")
        cut, seen = [cut[i] for i in chosen], [seen[i] for i in chosen]
        scaled, mean, scale = standardised(cut, seen)
        sets = [tile[:, mask][None] for tile, mask in zip(scaled, seen, strict=True)]
        pixels = sum(int(mask.sum()) for mask in seen)
        measured = [np.nonzero(mask) for mask in seen]

        def matrices(lengths: tuple[float, float]) -> Iterator[Matrices]:
            for y, x in measured:
                yield radial_covariance(kernel, np.subtract.outer(y, y), np.subtract.outer(x, x), lengths)

        likelihood = DenseLikelihood(sets, matrices, rank)
    found = search_lengths(likelihood, kernel, limits, isotropic=isotropic, start=start)
    return found.in_units(mean, scale, pixels)


def cut_evenly(tile: Any, side: int) -> list[Any]:
    """Cut an array (H, W, ...) into equal parts with sides of at most ``side`` pixels.

    Where the sides do not divide evenly, less than a pixel per part is cut off at the far edges.
    """
    (height, width), counts = tile.shape[:2], [-(-n // side) for n in tile.shape[:2]]
    h, w = height // counts[0], width // counts[1]
    return [tile[i * h : (i + 1) * h, j * w : (j + 1) * w] for i in range(counts[0]) for j in range(counts[1])]
