"""Gaussian processes for maps with missing pixels: posterior mean, standard deviation, and draws.

With P the inverse of the covariance of the noisy maps on the full grid, some values ``x`` of the missing pixels leave
the mean of the measured ones unchanged: they solve ``P_mm x = -P_mo y_o``, and the mean of the maps filled with them is
the mean given the measured pixels. A product with P is four products with an axis for each map, so conjugate gradients
on the missing pixels are cheap while these are few. "Pixels" are those of each map: a gap of one map leaves the others
as they are. All results are exact for any gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_filter1d

from scalehsi.arrays import Bool, Float, to_host
from scalehsi.kernels.gaussian_process.covariance import covariance
from scalehsi.kernels.gaussian_process.gaps import by_map, common_gaps
from scalehsi.kernels.gaussian_process.likelihood import Hyper
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
    observed : array of bool, shape (H, W) or (H, W, T), of the same library or numpy
        True where all maps, or each of them, were measured.
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
    seen = common_gaps(backend.put(observed, "bool"))
    if bool(xp.all(seen)):
        return Filled(xp.astype(y, xp.float64, copy=False), 0, 0.0)
    _, to_independent, to_maps = decoupled(hyper)
    centred = xp.astype(y, xp.float64, copy=False) - backend.put(hyper.mean)
    known = xp.where(by_map(seen), centred, backend.put(0.0))
    z = xp.tensordot(backend.put(to_independent.T), known, axes=((1,), (2,)))
    solver = GapSolver(backend, hyper, seen, upsample=1, dtype=np.dtype(dtype).name)
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
    seen, to_maps = common_gaps(backend.put(observed, "bool")), backend.put(decoupled(hyper)[2])
    mean, _ = predict(fill(y, observed, hyper).maps, hyper, upsample=upsample)
    solver = GapSolver(backend, hyper, seen, upsample=upsample, dtype="float64")
    drawn = []
    for noisy, points in _priors(backend, hyper, seen.shape[:2], count=count, seed=seed, upsample=upsample):
        error = points - solver.mean(solver.complete(noisy, TOLERANCE)[0])
        drawn += [mean + xp.tensordot(error[i, ...], to_maps, axes=((0,), (0,))) for i in range(error.shape[0])]
    return xp.stack(drawn)


def _priors(
    backend: Backend, hyper: Hyper, shape: tuple[int, int], *, count: int, seed: int, upsample: Points, larger: int = 1
) -> Iterator[tuple[Any, Any]]:
    """Independent maps (n, T, H, W) that are drawn from the prior and measured with noise, and the maps on the points.

    In batches of n. ``shape`` are the pixels along y and x, ``count`` is the number of draws, and ``larger`` is how
    many times more values the caller makes of a batch.
    """
    rng, s = np.random.default_rng(seed), decoupled(hyper)[0]
    height, width = shape
    rows, columns = (
        backend.put(_covariance_root(hyper.kernel, n, hyper.lengths[axis], axis_points(upsample, axis)))
        for axis, n in enumerate(shape)
    )
    root = backend.put(np.sqrt(s)[:, None, None])
    batch = max(1, BATCH_VALUES // (len(s) * rows.shape[0] * columns.shape[0] * larger))
    for first in range(0, count, batch):
        here = min(batch, count - first)
        raw = backend.put(rng.standard_normal((here, len(s), rows.shape[1], columns.shape[1])))
        noise = backend.put(rng.standard_normal((here, len(s), height, width)))
        prior = root * (rows @ raw @ columns.T)
        noisy = prior[..., :height, :width] + noise
        yield noisy, prior if upsample == 1 else prior[..., height:, width:]


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
    observed : array of bool, shape (H, W) or (H, W, T)
        True where all maps, or each of them, were measured. Its library and device are those of the result.
    hyper : Hyper
    method : {"auto", "draws", "density"}
        - "draws": the variance of complete maps, which is exact, and the mean square of what the gaps change in the
          mean of drawn maps. Correct for every mask; the relative error is at most ``1 / sqrt(2 count)``, and the less
          the less the gaps matter. Each draw costs what `fill` does.
        - "density": the deviation of complete maps whose noise is larger where fewer neighbours were measured, in a
          hundredth of the time. For pixels missing at random its error is 1 to 2 % at 5 % of them, and at half of them
          5 % where the noise is a third of the signal, 15 to 30 % too small where it is a thirtieth. Wrong in holes
          wider than the length.
        - "auto": "density" where no pixel is farther than half a length from all measured ones, and the share of
          missing pixels times their mean variance, in units of the noise, is at most 0.2: there its error was at most
          8 %, and 2 % on average. Otherwise, and where the maps have different gaps, "draws".
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
    if tuple(observed.shape[:2]) != tuple(shape):
        raise InputError(f"observed has shape {tuple(observed.shape)}, and the maps have {tuple(shape)}")
    backend, gaps, to_maps = backend_of(observed), common_gaps(observed), decoupled(hyper)[2]
    xp, seen = backend.library, to_host(gaps)
    alike = seen.ndim == 2
    if seen.all() or (alike and (method == "density" or (method == "auto" and not _has_holes(seen, hyper)))):
        variance = _density_variance(backend, seen, hyper, upsample)
        found = xp.sqrt(xp.tensordot(variance, backend.put(to_maps**2), axes=((0,), (0,))))
        if method == "density" or seen.all() or _density_is_accurate(to_host(found), seen, hyper, upsample):
            return found
    return xp.sqrt(_drawn_variance(backend, gaps, hyper, count=count, seed=seed, upsample=upsample))


def _drawn_variance(backend: Backend, seen: Any, hyper: Hyper, *, count: int, seed: int, upsample: Points) -> Any:
    """Variances of the maps (points, T) from ``count`` draws, as "draws" of `deviation`; ``seen`` is on the backend.

    The error of the mean of complete maps is independent of all data, hence of what their gaps change in the mean: the
    variances add up.
    """
    xp, (s, _, to_maps) = backend.library, decoupled(hyper)
    solver = GapSolver(backend, hyper, seen, upsample=upsample, dtype="float64")
    rotation, squared = backend.put(to_maps), backend.put(to_maps**2)
    changed: Any = 0.0
    larger = max(1, solver.rows.points.shape[0] * solver.columns.points.shape[0] // (seen.shape[0] * seen.shape[1]))
    draws = _priors(backend, hyper, seen.shape[:2], count=count, seed=seed, upsample=1, larger=larger)
    for noisy, _ in draws:
        change = solver.mean(noisy - solver.complete(noisy, DRAW_TOLERANCE)[0])
        if seen.ndim == 2:  # The changes of independent maps are independent.
            changed = changed + xp.tensordot(xp.sum(change**2, axis=0), squared, axes=((0,), (0,)))
        else:
            changed = changed + xp.sum(xp.tensordot(change, rotation, axes=((1,), (0,))) ** 2, axis=0)
    complete = posterior_variance(s, solver.gain, solver.rows, solver.columns, backend, "float64")
    return xp.tensordot(complete, squared, axes=((0,), (0,))) + changed / count


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
