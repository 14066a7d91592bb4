"""The kernel of distance, ``k(sqrt((dy/ly)^2 + (dx/lx)^2))``, on a grid: dense on small tiles, and its hyperparameters.

It is no product of two axes, but a complete rectangle looks the same in a mirror: along each axis its maps are even or
odd, and four matrices of a quarter of the pixels take the place of one of all. That is a sixteenth of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from scipy.linalg import eigh

from scalehsi.arrays import Bool, Float
from scalehsi.kernels.gaussian_process.covariance import JITTER, STATIONARY
from scalehsi.kernels.gaussian_process.likelihood import SHORTEST, Hyper, search, standardised
from scalehsi.kernels.gaussian_process.spectral_nodes import inner, nodes
from scalehsi.schema import InputError, suggest

ENDING: Final = "-radial"
SIDE: Final = 28
"""Longest side, in pixels, of the dense tiles that the likelihood is computed on."""
SIDE_MISSING: Final = 20
"""The same where pixels are missing: no mirror helps there, and each tile has eigenvectors of its own."""
TILES_MISSING: Final = 12


def is_radial(kernel: str) -> bool:
    """Whether a kernel is one of distance.

    Examples
    --------
    >>> is_radial("matern52-radial"), is_radial("matern52")
    (True, False)
    """
    return str(kernel).endswith(ENDING)


def radial(kernel: str, dy: Any, dx: Any, lengths: tuple[float, float]) -> tuple[Float, Float, Float]:
    """Covariance at distances along y and x [in pixels], and its derivatives by the logarithms of the two lengths.

    Raises
    ------
    InputError
        For a kernel that is not one of "matern12-radial", "matern32-radial", "matern52-radial", "rbf-radial".

    Examples
    --------
    >>> radial("matern52-radial", 3.0, 0.0, (3.0, 5.0))[0].round(3).item()
    0.524
    """
    name = str(kernel).removesuffix(ENDING)
    if not is_radial(kernel) or name not in STATIONARY:
        known = [k + ENDING for k in STATIONARY]
        raise InputError(f"kernel={kernel!r} is no kernel of distance; {suggest(str(kernel), known)}")
    ry = (np.asarray(dy, dtype=np.float64) / lengths[0]) ** 2
    rx = (np.asarray(dx, dtype=np.float64) / lengths[1]) ** 2
    square = ry + rx
    value, slope = STATIONARY[name](np.sqrt(square))
    # The derivative is shared between the axes as the square of the distance is; at zero there is none.
    slope = slope / np.maximum(square, 1e-300)
    return value, slope * ry, slope * rx


class Mirrored:
    """The maps of a rectangle that are even or odd along each axis: four independent sets.

    Parameters
    ----------
    shape : (int, int)
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.signs = [(a, b) for a in (1, -1) for b in (1, -1) if self.count(a, shape[0]) * self.count(b, shape[1]) > 0]

    @staticmethod
    def count(sign: int, size: int) -> int:
        """Even maps of an axis have its middle pixel, odd ones do not."""
        return (size + 1) // 2 if sign > 0 else size // 2

    @staticmethod
    def weights(sign: int, size: int) -> Float:
        """One, but the square root of a half for a middle pixel, which is its own mirror image."""
        out = np.ones(Mirrored.count(sign, size))
        if sign > 0 and size % 2:
            out[-1] = np.sqrt(0.5)
        return out

    def fold(self, y: Float, signs: tuple[int, int]) -> Float:
        """Coefficients (..., m) of maps (..., H, W) in one of the four sets."""
        (a, b), (height, width) = signs, self.shape
        rows = y[..., : self.count(a, height), :] + a * y[..., ::-1, :][..., : self.count(a, height), :]
        both = rows[..., : self.count(b, width)] + b * rows[..., ::-1][..., : self.count(b, width)]
        both = 0.5 * both * np.outer(self.weights(a, height), self.weights(b, width))
        return both.reshape(*y.shape[:-2], -1)

    def covariances(
        self, kernel: str, lengths: tuple[float, float], points: tuple[Float, Float] | None = None
    ) -> Iterator[tuple[Float, Float, Float]]:
        """For each of the four sets its covariance matrix (m, m) and the derivatives of it.

        With points along y and x [pixels] instead: the covariance (p, m) of each point with each map of the set.
        """
        height, width = self.shape
        iy, ix = np.arange((height + 1) // 2), np.arange((width + 1) // 2)
        py, px = (iy, ix) if points is None else points
        near_y, far_y = np.subtract.outer(py, iy), np.subtract.outer(py, height - 1 - iy)
        near_x, far_x = np.subtract.outer(px, ix), np.subtract.outer(px, width - 1 - ix)
        parts = [
            radial(kernel, dy[:, None, :, None], dx[None, :, None, :], lengths)
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


class _Dense:
    """The likelihood of maps in independent sets [each (tiles, T, m)], each set with its own covariance matrix (m, m).

    ``matrices`` gives for two lengths the covariance of each set and its derivatives by their logarithms.
    """

    def __init__(self, sets: list[Float], matrices: Callable[[tuple[float, float]], Iterator[Matrices]], rank: int):
        self.sets, self.matrices, self.evaluations = sets, matrices, 0
        self.rank = max(1, min(rank, sets[0].shape[1]))

    def _solved(self, lengths: tuple[float, float]) -> list[tuple[Float, Float, Float, Float, Float]]:
        """Of each set: eigenvalues, eigenvectors, rotated maps, and the derivatives of its matrix."""
        self.evaluations += 1
        out = []
        for maps, (k, by_y, by_x) in zip(self.sets, self.matrices(lengths), strict=True):
            values, vectors = eigh(k, overwrite_a=True, check_finite=False, driver="evd")
            out.append((values, vectors, maps @ vectors, by_y, by_x))
        least = JITTER * max(float(values[-1]) for values, *_ in out)
        return [(np.maximum(values, least), *rest) for values, *rest in out]

    def _inner(self, solved: list[tuple[Float, Float, Float, Float, Float]]) -> tuple[float, Float, Float]:
        g = np.concatenate([values for values, *_ in solved])
        z = np.concatenate([rotated for _, _, rotated, *_ in solved], axis=-1)
        return inner(*nodes(g, list(z)), rank=self.rank)

    def loss(self, lengths: tuple[float, float]) -> float:
        return self._inner(self._solved(lengths))[0]

    def inside(self, lengths: tuple[float, float]) -> tuple[Float, Float]:
        return self._inner(self._solved(lengths))[1:]

    def value_and_slope(self, lengths: tuple[float, float]) -> tuple[float, Float]:
        solved = self._solved(lengths)
        value, signal, variance = self._inner(solved)
        root = np.sqrt(variance)
        s, u = np.linalg.eigh(signal / np.outer(root, root))
        s, there = np.maximum(s, 0.0), u / root[:, None]
        slope = np.zeros(2)
        for values, vectors, rotated, by_y, by_x in solved:
            # B and D follow along at their best, so the derivative is that of K alone: tr(dK (C^-1 - C^-1 y y' C^-1)).
            weight = 1.0 / (1.0 + np.outer(s, values))
            beta = np.einsum("ntm,tu->unm", rotated, there) * weight[:, None, :]
            beta = (np.sqrt(s)[:, None, None] * beta).reshape(-1, len(values)) @ vectors.T
            inverse = len(rotated) * (vectors * (s @ weight)) @ vectors.T - beta.T @ beta
            slope += 0.5 * np.array([np.vdot(by_y, inverse), np.vdot(by_x, inverse)])
        return value, slope


def fit(
    tiles: Sequence[Float],
    masks: Sequence[Bool] | None = None,
    *,
    kernel: str = "matern52-radial",
    bounds: tuple[tuple[float, float], tuple[float, float]] | None = None,
    isotropic: bool = False,
    rank: int = 1,
) -> Hyper:
    """Find the hyperparameters of some tiles of the same maps, all of one size, for a kernel of distance.

    Parameters
    ----------
    tiles : sequence of arrays, shape (H, W, T)
        Cut into dense tiles of sides up to 28 pixels, that count as independent; with missing pixels up to 20.
    masks : sequence of bool arrays, shape (H, W), optional
        True where all maps were measured; what stands elsewhere is not looked at.
    kernel : {"matern12-radial", "matern32-radial", "matern52-radial", "rbf-radial"}
    bounds, isotropic, rank
        As in `scalehsi.kernels.gaussian_process.likelihood.fit`. A dense tile cannot tell lengths far above its own
        side apart.

    Returns
    -------
    Hyper
        Its loss is that of the dense tiles.

    Raises
    ------
    InputError
        For a kernel that is none of these, and where no tile has a measured pixel.

    Notes
    -----
    Cost: some 30 evaluations. Complete: each four eigendecompositions of at most 196 x 196 in all, however many tiles.
    With missing pixels: one of up to 400 x 400 for each of at most 12 dense tiles, those with most measured pixels.
    """
    radial(kernel, 0.0, 0.0, (1.0, 1.0))
    height, width = tiles[0].shape[:2]
    limits = bounds or ((SHORTEST, max(1.0, float(height))), (SHORTEST, max(1.0, float(width))))
    if masks is None or all(mask.all() for mask in masks):
        cut = [part for tile in tiles for part in _cut(tile, SIDE)]
        scaled, mean, scale = standardised(cut)
        mirrored = Mirrored(cut[0].shape[:2])
        stacked = np.stack(scaled)
        sets = [mirrored.fold(stacked, signs) for signs in mirrored.signs]
        pixels = len(cut) * cut[0][..., 0].size
        work = _Dense(sets, lambda lengths: mirrored.covariances(kernel, lengths), rank)
    else:
        cut = [part for tile in tiles for part in _cut(tile, SIDE_MISSING)]
        seen = [part for mask in masks for part in _cut(mask, SIDE_MISSING)]
        most = np.argsort([-int(part.sum()) for part in seen], kind="stable")[:TILES_MISSING]
        chosen = [int(i) for i in most if seen[i].any()]
        if not chosen:
            raise InputError("no pixel was measured, so that there is nothing to fit")
        cut, seen = [cut[i] for i in chosen], [seen[i] for i in chosen]
        scaled, mean, scale = standardised(cut, seen)
        sets = [tile[:, mask][None] for tile, mask in zip(scaled, seen, strict=True)]
        pixels = sum(int(mask.sum()) for mask in seen)
        places = [np.nonzero(mask) for mask in seen]

        def matrices(lengths: tuple[float, float]) -> Iterator[Matrices]:
            for y, x in places:
                yield radial(kernel, np.subtract.outer(y, y), np.subtract.outer(x, x), lengths)

        work = _Dense(sets, matrices, rank)
    return search(work, kernel, limits, isotropic=isotropic).in_units(mean, scale, pixels)


def _cut(tile: Any, side: int) -> list[Any]:
    """Equal parts with sides of at most ``side``; what is left over at the far edges is less than a pixel a part."""
    (height, width), counts = tile.shape[:2], [-(-n // side) for n in tile.shape[:2]]
    h, w = height // counts[0], width // counts[1]
    return [tile[i * h : (i + 1) * h, j * w : (j + 1) * w] for i in range(counts[0]) for j in range(counts[1])]
