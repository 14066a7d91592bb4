"""Maps with pixels that were not measured: the exact mean, draws, and hyperparameters.

With P the inverse of ``s K + I`` on the full grid, the values ``x`` that would make the missing pixels say nothing new
solve ``P_mm x = -P_mo y_o``, and the mean of the completed maps is the mean of the incomplete ones. A product with P is
four products with an axis, so conjugate gradients on the missing pixels alone cost little while these are few.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

from scalehsi.kernels.gaussian.covariance import axis, covariance
from scalehsi.kernels.gaussian.posterior import decoupled, predict
from scalehsi.kernels.gaussian.profile import Hyper, fit

Float = np.ndarray[Any, np.dtype[np.float64]]
Bool = np.ndarray[Any, np.dtype[np.bool_]]

TOLERANCE: Final = 1e-5
"""Residual relative to the right side: the mean is then right to some thousandths of its deviation."""
STEPS: Final = 500
DRAWS: Final = 4
ROUNDS: Final = 12


class Filled(NamedTuple):
    """Maps without gaps.

    Attributes
    ----------
    maps : array, shape (H, W, T)
    steps : int
        Of conjugate gradients, for the map that needed most.
    residual : float
        Largest residual at the end, relative to the right side; at most TOLERANCE where it converged.
    """

    maps: Float
    steps: int
    residual: float


def fill(y: Float, observed: Bool, hyper: Hyper) -> Filled:
    """Put values where none were measured that leave the mean of the others as it is.

    Parameters
    ----------
    y : array, shape (H, W, T)
        What stands at missing pixels is not looked at.
    observed : array of bool, shape (H, W)
        True where all maps were measured.
    hyper : Hyper

    Returns
    -------
    Filled
        ``predict(filled.maps, hyper)[0]`` is the exact mean given the observed pixels. Its deviation is that of
        complete maps, too small: that of draws is right.
    """
    if observed.all():
        return Filled(np.asarray(y, dtype=np.float64), 0, 0.0)
    s, there, back = decoupled(hyper)
    known = np.where(observed[..., None], y - hyper.mean, 0.0)
    z = np.einsum("hwt,tu->uhw", known, there)
    rows = axis(hyper.kernel, y.shape[0], hyper.lengths[0], slope=False)
    columns = axis(hyper.kernel, y.shape[1], hyper.lengths[1], slope=False)
    spectrum = np.outer(rows.values, columns.values)
    filled, steps, worst = z.copy(), 0, 0.0
    for u, strength in enumerate(s):
        weight = 1.0 / (1.0 + strength * spectrum)

        def product(v: Float, weight: Float = weight) -> Float:
            inner = weight * (rows.vectors.T @ v @ columns.vectors)
            return np.asarray(rows.vectors @ inner @ columns.vectors.T)

        x, count, residual = _conjugate(product, -np.where(observed, 0.0, product(z[u])), ~observed)
        filled[u] += x
        steps, worst = max(steps, count), max(worst, residual)
    return Filled(np.einsum("uhw,ut->hwt", filled, back) + hyper.mean, steps, worst)


def _conjugate(product: Any, right: Float, free: Bool) -> tuple[Float, int, float]:
    """Solve ``product(x) = right`` on the free pixels, x zero on the others."""
    x, r = np.zeros_like(right), right.copy()
    size = float(np.sum(right * right))
    if size == 0.0:
        return x, 0, 0.0
    p, now = r.copy(), size
    for step in range(1, STEPS + 1):
        q = np.where(free, product(p), 0.0)
        along = now / float(np.sum(p * q))
        x += along * p
        r -= along * q
        new = float(np.sum(r * r))
        if new <= TOLERANCE**2 * size:
            return x, step, float(np.sqrt(new / size))
        p = r + (new / now) * p
        now = new
    return x, STEPS, float(np.sqrt(now / size))


def draw(y: Float, observed: Bool, hyper: Hyper, *, count: int, seed: int, upsample: int = 1) -> Float:
    """Maps drawn from the posterior, shape (count, H * upsample, W * upsample, T), by Matheron's rule.

    A map drawn from the prior, measured with noise as the data are, is wrong by as much as the data's own mean is: so
    the data's mean plus the error of the drawn one is a draw from the posterior. Wilson et al. 2021,
    https://jmlr.org/papers/v22/20-1260.html
    """
    rng = np.random.default_rng(seed)
    height, width, maps = y.shape
    rows = _root(hyper.kernel, height, hyper.lengths[0], upsample)
    columns = _root(hyper.kernel, width, hyper.lengths[1], upsample)
    values, vectors = np.linalg.eigh(hyper.signal)
    mix = vectors * np.sqrt(np.maximum(values, 0.0))
    mean, _ = predict(fill(y, observed, hyper).maps, hyper, upsample=upsample)
    out = np.empty((count, *mean.shape))
    for i in range(count):
        raw = rng.standard_normal((maps, rows.shape[1], columns.shape[1]))
        prior = np.einsum("uhw,tu->hwt", rows @ raw @ columns.T, mix)
        noise = hyper.noise * rng.standard_normal((height, width, maps))
        measured = prior[:height, :width] + noise + hyper.mean
        guess, _ = predict(fill(measured, observed, hyper).maps, hyper, upsample=upsample)
        points = prior if upsample == 1 else prior[height:, width:]
        out[i] = mean + points + hyper.mean - guess
    return out


def _root(kernel: str, size: int, length: float, upsample: int) -> Float:
    """A matrix whose product with its transpose is the covariance of the pixels of an axis and its finer points."""
    pixels = np.arange(size, dtype=np.float64)
    points = (np.arange(size * upsample) + 0.5) / upsample - 0.5
    every = pixels if upsample == 1 else np.concatenate([pixels, points])
    values, vectors = np.linalg.eigh(covariance(kernel, np.subtract.outer(every, every), length)[0])
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def fit_missing(
    tiles: list[Float],
    masks: list[Bool],
    *,
    kernel: str = "matern52",
    bounds: tuple[tuple[float, float], tuple[float, float]] | None = None,
    isotropic: bool = False,
    rank: int = 1,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> Hyper:
    """Hyperparameters of tiles with missing pixels, by Monte Carlo expectation maximisation.

    In each round the missing pixels are drawn from the posterior of the round before, noise included, a few times over,
    and the hyperparameters are those of the completed tiles.

    Parameters
    ----------
    tiles, kernel, bounds, isotropic, rank
        As in `scalehsi.kernels.gaussian.profile.fit`; what stands at missing pixels is not looked at.
    masks : sequence of bool arrays, shape (H, W)
        True where all maps were measured.
    seed : int
    rounds : int

    Notes
    -----
    Cost: ``rounds`` fits of complete tiles, and 4 draws of each tile a round.
    """
    if all(mask.all() for mask in masks):
        return fit(tiles, kernel=kernel, bounds=bounds, isotropic=isotropic, rank=rank)
    whole = [_interpolated(tile, mask) for tile, mask in zip(tiles, masks, strict=True)]
    found = fit(whole, kernel=kernel, bounds=bounds, isotropic=isotropic, rank=rank)
    for number in range(rounds):
        rng = np.random.default_rng([seed, number])
        completed = []
        for tile, mask in zip(tiles, masks, strict=True):
            drawn = draw(tile, mask, found, count=DRAWS, seed=int(rng.integers(2**31)))
            for values in drawn:
                noisy = values + found.noise * rng.standard_normal(values.shape)
                completed.append(np.where(mask[..., None], tile, noisy))
        found = fit(completed, kernel=kernel, bounds=bounds, isotropic=isotropic, rank=rank)
    return found


def _interpolated(tile: Float, mask: Bool) -> Float:
    """A first guess: each missing pixel like the nearest one that was measured."""
    if not mask.any():
        return np.zeros_like(tile)
    _, (y, x) = distance_transform_edt(~mask, return_indices=True)
    return np.asarray(tile[y, x])
