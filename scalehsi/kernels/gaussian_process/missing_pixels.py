"""Maps with pixels that were not measured: the exact mean, draws, and hyperparameters.

With P the inverse of ``s K + I`` on the full grid, the values ``x`` that would make the missing pixels say nothing new
solve ``P_mm x = -P_mo y_o``, and the mean of the completed maps is the mean of the incomplete ones. A product with P is
four products with an axis, so conjugate gradients on the missing pixels alone cost little while these are few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_filter1d

from scalehsi.arrays import Bool, Float, to_host
from scalehsi.kernels.gaussian_process.covariance import covariance
from scalehsi.kernels.gaussian_process.likelihood import Hyper, fit
from scalehsi.kernels.gaussian_process.missing_solver import Grid
from scalehsi.kernels.gaussian_process.posterior import (
    SMALL,
    Place,
    decoupled,
    filter_at,
    gains,
    left,
    place_of,
    predict,
)
from scalehsi.kernels.gaussian_process.sampling_points import Along, Points, along, pixels, places
from scalehsi.schema import InputError, suggest

TOLERANCE: Final = 1e-5
"""Residual relative to the right side: the mean is then right to some thousandths of its deviation."""
DRAWS: Final = 4
ROUNDS: Final = 40
STEADY: Final = 4
"""Rounds of expectation maximisation whose mean is compared with that of as many before."""
DRIFT: Final = 0.02
METHODS: Final = ("auto", "draws", "density")
DRAWN: Final = 1e-4
"""Residual for draws whose spread alone is looked at; their own error is larger than what this leaves."""
BATCH: Final = 2_000_000
"""Numbers of drawn maps that are worked on at a time."""
BLUR: Final = 0.25
"""Of a length: how far around a pixel it counts how many were measured."""
SPARSE: Final = 1e-6
HOLE: Final = 0.5
"""Distance to the nearest measured pixel, in lengths, above which missing pixels are a hole."""
MISLED: Final = 0.2
"""Share of missing pixels times their mean variance, in units of the noise, above which the density misleads."""
NODE: Final = 0.4
"""Between two shares that the deviation of complete maps is computed for, in their logarithm."""


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

    maps: Any
    steps: int
    residual: float


def fill(y: Any, observed: Any, hyper: Hyper, *, dtype: Any = np.float64) -> Filled:
    """Put values where none were measured that leave the mean of the others as it is.

    Parameters
    ----------
    y : array of any library, shape (H, W, T)
        What stands at missing pixels is not looked at.
    observed : array of bool, shape (H, W), of the same library or numpy
        True where all maps were measured.
    hyper : Hyper
    dtype : dtype, default float64
        Of the products.

    Returns
    -------
    Filled
        ``predict(filled.maps, hyper)[0]`` is the exact mean given the observed pixels. Its deviation is that of
        complete maps, too small: that of `deviation` is right.
    """
    place = place_of(y)
    xp = place.library
    seen = place.put(observed, "bool")
    if bool(xp.all(seen)):
        return Filled(xp.astype(y, xp.float64, copy=False), 0, 0.0)
    s, there, back = decoupled(hyper)
    known = xp.where(seen[..., None], xp.astype(y, xp.float64, copy=False) - place.put(hyper.mean), place.put(0.0))
    z = xp.tensordot(place.put(there.T), known, axes=((1,), (2,)))
    grid = Grid(place, hyper, seen, s, upsample=1, dtype=np.dtype(dtype).name)
    whole, steps, residual = grid.complete(xp.astype(z, getattr(xp, grid.dtype), copy=False), TOLERANCE)
    maps = xp.tensordot(xp.astype(whole, xp.float64, copy=False), place.put(back), axes=((0,), (0,)))
    return Filled(maps + place.put(hyper.mean), steps, residual)


def draw(y: Any, observed: Any, hyper: Hyper, *, count: int, seed: int, upsample: Points = 1) -> Any:
    """Maps drawn from the posterior, shape (count, H * upsample, W * upsample, T), by Matheron's rule.

    A map drawn from the prior, measured with noise as the data are, is wrong by as much as the data's own mean is: so
    the data's mean plus the error of the drawn one is a draw from the posterior. Wilson et al. 2021,
    https://jmlr.org/papers/v22/20-1260.html

    Parameters
    ----------
    y, observed, hyper
        As in `fill`.
    count : int
    seed : int
        The random numbers are the host's, the same for every library.
    upsample : int, default 1
    """
    place = place_of(y)
    xp = place.library
    seen = place.put(observed, "bool")
    mean, _ = predict(fill(y, observed, hyper).maps, hyper, upsample=upsample)
    back = place.put(decoupled(hyper)[2])
    drawn = [
        mean + xp.tensordot(error[i, ...], back, axes=((0,), (0,)))
        for error in _errors(place, seen, hyper, count=count, seed=seed, upsample=upsample, tolerance=TOLERANCE)
        for i in range(error.shape[0])
    ]
    return xp.stack(drawn)


def _errors(
    place: Place, seen: Any, hyper: Hyper, *, count: int, seed: int, upsample: Points, tolerance: float
) -> Iterator[Any]:
    """What the mean of drawn independent maps is off by, in batches (n, T, H * upsample, W * upsample)."""
    rng = np.random.default_rng(seed)
    height, width = seen.shape
    s = decoupled(hyper)[0]
    grid = Grid(place, hyper, seen, s, upsample=upsample, dtype="float64")
    rows = place.put(_root(hyper.kernel, height, hyper.lengths[0], along(upsample, 0)))
    columns = place.put(_root(hyper.kernel, width, hyper.lengths[1], along(upsample, 1)))
    root = place.put(np.sqrt(s)[:, None, None])
    several = max(1, BATCH // (len(s) * rows.shape[0] * columns.shape[0]))
    for first in range(0, count, several):
        here = min(several, count - first)
        raw = place.put(rng.standard_normal((here, len(s), rows.shape[1], columns.shape[1])))
        noise = place.put(rng.standard_normal((here, len(s), height, width)))
        prior = root * (rows @ raw @ columns.T)
        whole, _, _ = grid.complete(prior[..., :height, :width] + noise, tolerance)
        points = prior if upsample == 1 else prior[..., height:, width:]
        yield points - grid.field(whole)


def deviation(
    shape: tuple[int, int],
    observed: Any,
    hyper: Hyper,
    *,
    method: str = "auto",
    count: int = 64,
    seed: int = 0,
    upsample: Points = 1,
) -> Any:
    """Standard deviation of maps with missing pixels, without their noise; it does not depend on what was measured.

    Parameters
    ----------
    shape : (int, int)
        Of the maps, in pixels.
    observed : array of bool, shape (H, W)
        True where all maps were measured. Its library and device are those of the result.
    hyper : Hyper
    method : {"auto", "draws", "density"}
        - "draws": Matheron's rule; right for every mask, with a relative error of ``1 / sqrt(2 count)``. Each costs
          what `fill` does.
        - "density": the deviation of complete maps whose noise is larger where fewer pixels around were measured, in a
          hundredth of the time. For pixels missing at random it is 1 to 2 % off at 5 % of them, and at half of them 5 %
          where the noise is a third of the signal, 15 to 30 % too small where it is a thirtieth. Wrong in holes wider
          than the length.
        - "auto": by density where no pixel is farther than half a length from all that were measured, and the share of
          missing pixels times their mean variance, in units of the noise, is at most 0.2: there it was 8 % off at
          worst, and 2 % on the average, where 64 draws are 9 % off. Else by draws.
    count : int, default 64
        Draws.
    seed : int, default 0
    upsample : int, default 1

    Returns
    -------
    array, shape (H * upsample, W * upsample, T)

    Raises
    ------
    InputError
        For another method, and a mask of another shape.
    """
    if method not in METHODS:
        raise InputError(f"method={method!r} is not known; {suggest(str(method), METHODS)}")
    if tuple(observed.shape) != tuple(shape):
        raise InputError(f"observed has shape {tuple(observed.shape)}, and the maps have {tuple(shape)}")
    place, seen, back = place_of(observed), to_host(observed), decoupled(hyper)[2]
    xp = place.library
    if method == "density" or seen.all() or (method == "auto" and not _has_holes(seen, hyper)):
        variance = _by_density(place, seen, hyper, upsample)
        found = xp.sqrt(xp.tensordot(variance, place.put(back**2), axes=((0,), (0,))))
        if method == "density" or seen.all() or _not_misled(to_host(found), seen, hyper, upsample):
            return found
    several = _errors(place, observed, hyper, count=count, seed=seed, upsample=upsample, tolerance=DRAWN)
    variance = sum(xp.sum(error * error, axis=0) for error in several) / count
    return xp.sqrt(xp.tensordot(variance, place.put(back**2), axes=((0,), (0,))))


def _has_holes(observed: Bool, hyper: Hyper) -> bool:
    """Whether a pixel is so far from all that were measured that their density says nothing."""
    if not observed.any():
        return True
    far = distance_transform_edt(~observed, sampling=[1.0 / length for length in hyper.lengths])
    return bool(np.max(far) > HOLE)


def _not_misled(std: Float, observed: Bool, hyper: Hyper, upsample: Points) -> bool:
    """Whether what is missing is known from so many others that their density says it all."""
    missing = ~observed[_inside(upsample, observed.shape)]
    noise = np.maximum(hyper.noise, 1e-300)
    known = ((std / noise) ** 2 * missing[..., None]).mean(axis=(0, 1))
    return bool((known <= MISLED).all())


def _by_density(place: Place, observed: Bool, hyper: Hyper, upsample: Points) -> Any:
    """Variances of independent maps (T, ...) as if each pixel had been measured for the share that was around it.

    The pixel itself does not count to its share: what its neighbours leave, v, is ``v / (1 + v)`` once it is measured.
    """
    xp = place.library
    blur = [BLUR * length for length in hyper.lengths]
    own = np.prod(
        [gaussian_filter1d(np.eye(1, 2 * n + 1, n)[0], b)[n] for n, b in zip(observed.shape, blur, strict=True)]
    )
    seen = observed.astype(np.float64)
    around = gaussian_filter(seen, blur, mode="constant") - own * seen
    around /= np.maximum(gaussian_filter(np.ones_like(seen), blur, mode="constant") - own, SPARSE)
    share = np.clip(around, SPARSE, 1.0)
    pixel = _complete_variance(place, share, hyper, 1)
    others = pixel / xp.maximum(1 - place.put(share) * pixel, place.put(SPARSE))
    others = xp.minimum(others, place.put(decoupled(hyper)[0][:, None, None]))
    variance = others / (1 + place.put(seen) * others)
    if upsample == 1:
        return variance
    # A point is as much better or worse known than its share says as the pixel that it lies in.
    better = variance / pixel
    for axis, index in enumerate(_inside(upsample, observed.shape)):
        better = xp.take(better, place.put(index.reshape(-1), "int64"), axis=1 + axis)
    return better * _complete_variance(place, share, hyper, upsample)


def _complete_variance(place: Place, share: Float, hyper: Hyper, upsample: Points) -> Any:
    """Variances (T, ...) of complete maps, each pixel by those of noise that is larger by one over its share (H, W)."""
    xp = place.library
    s, low = decoupled(hyper)[0], float(np.log(share.min()))
    nodes = np.linspace(low, 0.0, int(np.ceil(-low / NODE)) + 1) if low < 0 else np.zeros(1)
    step = nodes[1] - nodes[0] if len(nodes) > 1 else 1.0
    position = ((np.log(share) - low) / step)[_inside(upsample, share.shape)]
    rows, columns = (
        filter_at(place, hyper.kernel, n, hyper.lengths[axis], along(upsample, axis), "float64")
        for axis, n in enumerate(share.shape)
    )
    logarithm = 0.0
    for i, node in enumerate(nodes):
        weaker = s * np.exp(node)
        found = left(weaker, gains(weaker, rows, columns, place, "float64"), rows, columns, place, "float64")
        # In units of the noise there, which is larger by the same factor; zero where there is no signal at all.
        found = xp.maximum(found * float(np.exp(-node)), place.put(SMALL))
        logarithm = logarithm + place.put(np.maximum(1.0 - np.abs(position - i), 0.0)) * xp.log(found)
    return xp.exp(logarithm)


def _inside(upsample: Points, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The pixel that each point lies in, as an index of an array over the pixels."""
    return np.ix_(*(pixels(along(upsample, axis), n) for axis, n in enumerate(shape)))


def _root(kernel: str, size: int, length: float, points: Along) -> Float:
    """A matrix whose product with its transpose is the covariance of the pixels of an axis and its finer points."""
    own = np.arange(size, dtype=np.float64)
    every = own if points == 1 else np.concatenate([own, places(points, size)])
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
        As in `scalehsi.kernels.gaussian_process.likelihood.fit`; what stands at missing pixels is not looked at.
    masks : sequence of bool arrays, shape (H, W)
        True where all maps were measured.
    seed : int
    rounds : int, default 40
        At most.

    Notes
    -----
    Rounds end when lengths and noise of the last four are those of the four before, within 2 %. The loss is that of the
    completed tiles, of one draw. Cost of a round: a fit of four times as many complete tiles, and 4 draws of each tile.
    """
    if all(mask.all() for mask in masks):
        return fit(tiles, kernel=kernel, bounds=bounds, isotropic=isotropic, rank=rank)
    whole = [_interpolated(tile, mask) for tile, mask in zip(tiles, masks, strict=True)]
    found = fit(whole, kernel=kernel, bounds=bounds, isotropic=isotropic, rank=rank)
    history = []
    for number in range(rounds):
        rng = np.random.default_rng([seed, number])
        completed = []
        for tile, mask in zip(tiles, masks, strict=True):
            drawn = draw(tile, mask, found, count=DRAWS, seed=int(rng.integers(2**31)))
            for values in drawn:
                noisy = values + found.noise * rng.standard_normal(values.shape)
                completed.append(np.where(mask[..., None], tile, noisy))
        found = fit(completed, kernel=kernel, bounds=bounds, isotropic=isotropic, rank=rank)
        history.append((*found.lengths, found.loss / DRAWS, *found.noise))
        if _settled(np.array(history)):
            break
    return replace(found, loss=found.loss / DRAWS, history=np.array(history)[:, :3])


def _settled(history: Float) -> bool:
    """Whether lengths and noise, a row each round, are in the last rounds what they were in those before."""
    if len(history) < 2 * STEADY:
        return False
    values = np.log(np.maximum(np.delete(history, 2, axis=1), 1e-300))
    late, early = values[-STEADY:].mean(axis=0), values[-2 * STEADY : -STEADY].mean(axis=0)
    return bool(np.abs(late - early).max() <= DRIFT)


def _interpolated(tile: Float, mask: Bool) -> Float:
    """A first guess: each missing pixel like the nearest one that was measured."""
    if not mask.any():
        return np.zeros_like(tile)
    _, (y, x) = distance_transform_edt(~mask, return_indices=True)
    return np.asarray(tile[y, x])
