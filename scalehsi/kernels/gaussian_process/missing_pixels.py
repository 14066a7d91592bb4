"""Gaussian processes for maps with missing pixels: posterior mean, standard deviation, draws, and hyperparameters.

With P the inverse of ``s K + I`` on the full grid, some values ``x`` of the missing pixels leave the mean of the
measured ones unchanged: they solve ``P_mm x = -P_mo y_o``, and the mean of the maps filled with them is the mean given
the measured pixels. A product with P is four products with an axis, so conjugate gradients on the missing pixels are
cheap while these are few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_filter1d

from scalehsi.arrays import Bool, Float, to_host
from scalehsi.kernels.gaussian_process.covariance import covariance
from scalehsi.kernels.gaussian_process.likelihood import Bounds, Hyper, fit
from scalehsi.kernels.gaussian_process.missing_solver import GapSolver
from scalehsi.kernels.gaussian_process.posterior import (
    TINY,
    Backend,
    backend_of,
    decoupled,
    filter_on,
    gains,
    posterior_variance,
    predict,
)
from scalehsi.kernels.gaussian_process.sampling_points import (
    AxisPoints,
    Points,
    axis_points,
    pixels_at,
    positions,
)
from scalehsi.schema import InputError, suggest

TOLERANCE: Final = 1e-5
"""Residual relative to the right side: the mean is then right to some thousandths of its deviation."""
DRAWS_PER_ROUND: Final = 4
MAX_ROUNDS: Final = 40
COMPARED_ROUNDS: Final = 4
"""Rounds of expectation maximisation whose mean is compared with that of as many rounds before."""
MAX_DRIFT: Final = 0.02
"""Relative change between these means below which the rounds end."""
METHODS: Final = ("auto", "draws", "density")
DRAW_TOLERANCE: Final = 1e-4
"""Residual for draws of which only the spread is used: the statistical error of the draws is larger."""
BATCH_VALUES: Final = 2_000_000
"""Values of drawn maps in one batch."""
DENSITY_BLUR_LENGTHS: Final = 0.25
"""Width, in lengths, of the Gaussian that averages the share of measured pixels around a pixel."""
MIN_DENSITY: Final = 1e-6
HOLE_LENGTHS: Final = 0.5
"""Distance to the nearest measured pixel, in lengths, above which missing pixels are a hole."""
MAX_MISSING_VARIANCE: Final = 0.2
"""Share of missing pixels times their mean variance, in units of the noise, above which "density" is not accurate."""
LOG_DENSITY_STEP: Final = 0.4
"""Step, in the logarithm of the density, at which the deviation of complete maps is computed."""


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
    """Fill missing pixels with values that leave the posterior mean of the measured ones unchanged.

    Parameters
    ----------
    y : array of any library, shape (H, W, T)
        Values at missing pixels are ignored.
    observed : array of bool, shape (H, W), of the same library or numpy
        True where all maps were measured.
    hyper : Hyper
    dtype : dtype, default float64
        Of the products.

    Returns
    -------
    Filled
        ``predict(filled.maps, hyper)[0]`` is the exact mean given the measured pixels. The deviation that `predict`
        returns is that of complete maps, hence too small; use `deviation`.
    """
    backend = backend_of(y)
    xp = backend.library
    seen = backend.put(observed, "bool")
    if bool(xp.all(seen)):
        return Filled(xp.astype(y, xp.float64, copy=False), 0, 0.0)
    s, to_independent, to_maps = decoupled(hyper)
    centred = xp.astype(y, xp.float64, copy=False) - backend.put(hyper.mean)
    known = xp.where(seen[..., None], centred, backend.put(0.0))
    z = xp.tensordot(backend.put(to_independent.T), known, axes=((1,), (2,)))
    solver = GapSolver(backend, hyper, seen, s, upsample=1, dtype=np.dtype(dtype).name)
    whole, steps, residual = solver.complete(xp.astype(z, getattr(xp, solver.dtype), copy=False), TOLERANCE)
    maps = xp.tensordot(xp.astype(whole, xp.float64, copy=False), backend.put(to_maps), axes=((0,), (0,)))
    return Filled(maps + backend.put(hyper.mean), steps, residual)


def draw(y: Any, observed: Any, hyper: Hyper, *, count: int, seed: int, upsample: Points = 1) -> Any:
    """Draw maps from the posterior, shape (count, H * upsample, W * upsample, T), by Matheron's rule.

    A map drawn from the prior and measured with noise has a mean whose error is distributed as that of the data's own
    mean. The data's mean plus the error of the drawn one is therefore a draw from the posterior. Wilson et al. 2021,
    https://jmlr.org/papers/v22/20-1260.html

    Parameters
    ----------
    y, observed, hyper
        As in `fill`.
    count : int
        Number of draws.
    seed : int
        The random numbers are drawn on the host, and are the same for every library.
    upsample : int or two tuples of float, default 1
        Points per pixel along each axis, or the positions of points.
    """
    backend = backend_of(y)
    xp = backend.library
    seen = backend.put(observed, "bool")
    mean, _ = predict(fill(y, observed, hyper).maps, hyper, upsample=upsample)
    to_maps = backend.put(decoupled(hyper)[2])
    drawn = [
        mean + xp.tensordot(error[i, ...], to_maps, axes=((0,), (0,)))
        for error in _draw_errors(backend, seen, hyper, count=count, seed=seed, upsample=upsample, tolerance=TOLERANCE)
        for i in range(error.shape[0])
    ]
    return xp.stack(drawn)


def _draw_errors(
    backend: Backend, seen: Any, hyper: Hyper, *, count: int, seed: int, upsample: Points, tolerance: float
) -> Iterator[Any]:
    """Errors of the mean of drawn independent maps, in batches (n, T, H * upsample, W * upsample).

    ``seen`` (H, W) is the mask on the backend, ``count`` the number of draws, ``tolerance`` the solver's residual.
    """
    rng = np.random.default_rng(seed)
    height, width = seen.shape
    s = decoupled(hyper)[0]
    solver = GapSolver(backend, hyper, seen, s, upsample=upsample, dtype="float64")
    rows = backend.put(_covariance_root(hyper.kernel, height, hyper.lengths[0], axis_points(upsample, 0)))
    columns = backend.put(_covariance_root(hyper.kernel, width, hyper.lengths[1], axis_points(upsample, 1)))
    root = backend.put(np.sqrt(s)[:, None, None])
    batch = max(1, BATCH_VALUES // (len(s) * rows.shape[0] * columns.shape[0]))
    for first in range(0, count, batch):
        here = min(batch, count - first)
        raw = backend.put(rng.standard_normal((here, len(s), rows.shape[1], columns.shape[1])))
        noise = backend.put(rng.standard_normal((here, len(s), height, width)))
        prior = root * (rows @ raw @ columns.T)
        whole, _, _ = solver.complete(prior[..., :height, :width] + noise, tolerance)
        points = prior if upsample == 1 else prior[..., height:, width:]
        yield points - solver.mean(whole)


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
    """Posterior standard deviation of maps with missing pixels, without their noise; it is independent of their values.

    Parameters
    ----------
    shape : (int, int)
        Of the maps, in pixels.
    observed : array of bool, shape (H, W)
        True where all maps were measured. Its library and device are those of the result.
    hyper : Hyper
    method : {"auto", "draws", "density"}
        - "draws": Matheron's rule. Correct for every mask, with a relative error of ``1 / sqrt(2 count)``. Each draw
          costs what `fill` does.
        - "density": the deviation of complete maps whose noise is larger where fewer neighbours were measured, in a
          hundredth of the time. For pixels missing at random its error is 1 to 2 % at 5 % of them, and at half of them
          5 % where the noise is a third of the signal, 15 to 30 % too small where it is a thirtieth. Wrong in holes
          wider than the length.
        - "auto": "density" where no pixel is farther than half a length from all measured ones, and the share of
          missing pixels times their mean variance, in units of the noise, is at most 0.2: there its error was at most
          8 %, and 2 % on average, where 64 draws have 9 %. Otherwise "draws".
    count : int, default 64
        Draws.
    seed : int, default 0
    upsample : int or two tuples of float, default 1
        Points per pixel along each axis, or the positions of points.

    Returns
    -------
    array, shape (H * upsample, W * upsample, T)

    Raises
    ------
    InputError
        For another method, and for a mask of another shape.
    """
    if method not in METHODS:
        raise InputError(f"method={method!r} is not known; {suggest(str(method), METHODS)}")
    if tuple(observed.shape) != tuple(shape):
        raise InputError(f"observed has shape {tuple(observed.shape)}, and the maps have {tuple(shape)}")
    backend, seen, to_maps = backend_of(observed), to_host(observed), decoupled(hyper)[2]
    xp = backend.library
    if method == "density" or seen.all() or (method == "auto" and not _has_holes(seen, hyper)):
        variance = _density_variance(backend, seen, hyper, upsample)
        found = xp.sqrt(xp.tensordot(variance, backend.put(to_maps**2), axes=((0,), (0,))))
        if method == "density" or seen.all() or _density_is_accurate(to_host(found), seen, hyper, upsample):
            return found
    errors = _draw_errors(backend, observed, hyper, count=count, seed=seed, upsample=upsample, tolerance=DRAW_TOLERANCE)
    variance = sum(xp.sum(error * error, axis=0) for error in errors) / count
    return xp.sqrt(xp.tensordot(variance, backend.put(to_maps**2), axes=((0,), (0,))))


def _has_holes(observed: Bool, hyper: Hyper) -> bool:
    """Whether a pixel is so far from all measured ones that their density does not determine its deviation."""
    if not observed.any():
        return True
    far = distance_transform_edt(~observed, sampling=[1.0 / length for length in hyper.lengths])
    return bool(np.max(far) > HOLE_LENGTHS)


def _density_is_accurate(std: Float, observed: Bool, hyper: Hyper, upsample: Points) -> bool:
    """Whether the missing pixels have enough measured neighbours for the deviation ``std`` (points, T) by density."""
    missing = ~observed[_pixel_index(upsample, observed.shape)]
    noise = np.maximum(hyper.noise, 1e-300)
    known = ((std / noise) ** 2 * missing[..., None]).mean(axis=(0, 1))
    return bool((known <= MAX_MISSING_VARIANCE).all())


def _density_variance(backend: Backend, observed: Bool, hyper: Hyper, upsample: Points) -> Any:
    """Variances of independent maps (T, points) as if each pixel were measured to the share of its neighbours.

    The share around a pixel (``observed`` is True where measured) excludes the pixel itself: with the variance v given
    its neighbours, its own measurement makes it ``v / (1 + v)``.
    """
    xp = backend.library
    blur = [DENSITY_BLUR_LENGTHS * length for length in hyper.lengths]
    own = np.prod(
        [gaussian_filter1d(np.eye(1, 2 * n + 1, n)[0], b)[n] for n, b in zip(observed.shape, blur, strict=True)]
    )
    seen = observed.astype(np.float64)
    around = gaussian_filter(seen, blur, mode="constant") - own * seen
    around /= np.maximum(gaussian_filter(np.ones_like(seen), blur, mode="constant") - own, MIN_DENSITY)
    density = np.clip(around, MIN_DENSITY, 1.0)
    pixel = _complete_variance(backend, density, hyper, 1)
    others = pixel / xp.maximum(1 - backend.put(density) * pixel, backend.put(MIN_DENSITY))
    others = xp.minimum(others, backend.put(decoupled(hyper)[0][:, None, None]))
    variance = others / (1 + backend.put(seen) * others)
    if upsample == 1:
        return variance
    # The variance of a point is corrected by the same factor as that of its pixel.
    correction = variance / pixel
    for axis, index in enumerate(_pixel_index(upsample, observed.shape)):
        correction = xp.take(correction, backend.put(index.reshape(-1), "int64"), axis=1 + axis)
    return correction * _complete_variance(backend, density, hyper, upsample)


def _complete_variance(backend: Backend, density: Float, hyper: Hyper, upsample: Points) -> Any:
    """Variances (T, points) of complete maps whose noise variance is divided by the ``density`` (H, W) of a pixel."""
    xp = backend.library
    s, low = decoupled(hyper)[0], float(np.log(density.min()))
    nodes = np.linspace(low, 0.0, int(np.ceil(-low / LOG_DENSITY_STEP)) + 1) if low < 0 else np.zeros(1)
    step = nodes[1] - nodes[0] if len(nodes) > 1 else 1.0
    position = ((np.log(density) - low) / step)[_pixel_index(upsample, density.shape)]
    rows, columns = (
        filter_on(backend, hyper.kernel, n, hyper.lengths[axis], axis_points(upsample, axis), "float64")
        for axis, n in enumerate(density.shape)
    )
    logarithm = 0.0
    for i, node in enumerate(nodes):
        weaker = s * np.exp(node)
        gain = gains(weaker, rows, columns, backend, "float64")
        found = posterior_variance(weaker, gain, rows, columns, backend, "float64")
        # In units of the noise there, which is larger by the same factor; zero where a map has no signal.
        found = xp.maximum(found * float(np.exp(-node)), backend.put(TINY))
        logarithm = logarithm + backend.put(np.maximum(1.0 - np.abs(position - i), 0.0)) * xp.log(found)
    return xp.exp(logarithm)


def _pixel_index(upsample: Points, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Index, into an array over the pixels, of the pixel that contains each point."""
    return np.ix_(*(pixels_at(axis_points(upsample, axis), n) for axis, n in enumerate(shape)))


def _covariance_root(kernel: str, size: int, length: float, points: AxisPoints) -> Float:
    """Matrix R with ``R R'`` the covariance of the ``size`` pixels of an axis and its points, pixels first."""
    own = np.arange(size, dtype=np.float64)
    every = own if points == 1 else np.concatenate([own, positions(points, size)])
    values, vectors = np.linalg.eigh(covariance(kernel, np.subtract.outer(every, every), length)[0])
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def fit_missing(
    tiles: list[Float],
    masks: list[Bool],
    *,
    kernel: str = "matern52",
    bounds: Bounds | None = None,
    isotropic: bool = False,
    rank: int = 1,
    seed: int = 0,
    rounds: int = MAX_ROUNDS,
) -> Hyper:
    """Fit the hyperparameters to tiles with missing pixels, by Monte Carlo expectation maximisation.

    Each round draws the missing pixels a few times from the posterior of the previous round, noise included, and fits
    the hyperparameters to the completed tiles.

    Parameters
    ----------
    tiles, kernel, bounds, isotropic, rank
        As in `scalehsi.kernels.gaussian_process.likelihood.fit`; values at missing pixels are ignored.
    masks : sequence of bool arrays, shape (H, W)
        True where all maps were measured.
    seed : int
    rounds : int, default 40
        At most.

    Notes
    -----
    The rounds end when lengths and noise of the last four agree with those of the four before, within 2 %. The loss is
    that of the completed tiles, of one draw. Cost of a round: a fit of four times as many complete tiles, and 4 draws
    of each tile.
    """
    if all(mask.all() for mask in masks):
        return fit(tiles, kernel=kernel, bounds=bounds, isotropic=isotropic, rank=rank)
    whole = [_from_nearest(tile, mask) for tile, mask in zip(tiles, masks, strict=True)]
    found = fit(whole, kernel=kernel, bounds=bounds, isotropic=isotropic, rank=rank)
    history = []
    for number in range(rounds):
        rng = np.random.default_rng([seed, number])
        completed = []
        for tile, mask in zip(tiles, masks, strict=True):
            drawn = draw(tile, mask, found, count=DRAWS_PER_ROUND, seed=int(rng.integers(2**31)))
            for values in drawn:
                noisy = values + found.noise * rng.standard_normal(values.shape)
                completed.append(np.where(mask[..., None], tile, noisy))
        found = fit(completed, kernel=kernel, bounds=bounds, isotropic=isotropic, rank=rank)
        history.append((*found.lengths, found.loss / DRAWS_PER_ROUND, *found.noise))
        if _settled(np.array(history)):
            break
    return replace(found, loss=found.loss / DRAWS_PER_ROUND, history=np.array(history)[:, :3])


def _settled(history: Float) -> bool:
    """Whether lengths and noise, a row each round, no longer drift from one group of rounds to the next."""
    if len(history) < 2 * COMPARED_ROUNDS:
        return False
    values = np.log(np.maximum(np.delete(history, 2, axis=1), 1e-300))
    late, early = values[-COMPARED_ROUNDS:].mean(axis=0), values[-2 * COMPARED_ROUNDS : -COMPARED_ROUNDS].mean(axis=0)
    return bool(np.abs(late - early).max() <= MAX_DRIFT)


def _from_nearest(tile: Float, mask: Bool) -> Float:
    """Replace each missing pixel by the nearest measured one, as a first estimate."""
    if not mask.any():
        return np.zeros_like(tile)
    _, (y, x) = distance_transform_edt(~mask, return_indices=True)
    return np.asarray(tile[y, x])
