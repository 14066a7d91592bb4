"""Accumulate the sums that compare denoised cubes with a true cube, or with counts that were not used to denoise.

A denoised cube is ``c s + offset`` and is never computed as a whole. Its distance from another cube, and its map in a
window of energy, follow from products of the factors.

Letters: P pixels, E energies, W windows, F columns of all maps together, D cubes of data, C maps of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from scalehsi.arrays import Float
from scalehsi.kernels.statistics.thinning import thin

STRIP_PIXELS: Final = 256
"""Pixels whose complete spectra are in memory as float64 at a time."""
MIN_PREDICTION: Final = 1e-3
"""Smallest prediction for a channel, relative to the mean counts of a channel in that pixel, so that no count is
impossible."""


class Factors(NamedTuple):
    """A denoised cube as a product of maps and spectra.

    Attributes
    ----------
    columns : slice
        Columns of its maps among those of all maps.
    s : array, shape (K, E)
        Spectra.
    offset : array, shape (E,)
        Spectrum that is added to every pixel.
    half : int
        Number of the half of the counts that it was fitted to; 0 if the counts are not divided.
    """

    columns: slice
    s: Float
    offset: Float
    half: int = 0


def fidelity(
    x: Any,
    maps: Any,
    *,
    factors: Sequence[Factors],
    windows: Sequence[tuple[int, int]],
    seed: int | None = None,
    tile: Any = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sums over the pixels of a block that compare its denoised versions with the data.

    Parameters
    ----------
    x : array, shape (P, E)
    maps : array, shape (P, F)
        Maps of all factors side by side. Pixels with NaN are left out.
    factors : sequence of Factors
    windows : sequence of (int, int)
        First channel of each window, and the channel after its last.
    seed : int, optional
        Divides the counts into two halves, as `scalehsi.prepare.thin` does with this seed. None does not divide them.
    tile : Tile
        Absolute numbers of the pixels, for the division.

    Returns
    -------
    pixels : empty dict
    sums : dict, to be added with `merge`
        ``n``, ``mean`` (W, C) and ``comoment`` (W, C, C) of the maps of each window, first those of the data, then one
        for each denoised cube; ``gram`` (F + 1, F + 1) of the maps and a column of ones; ``cross`` (D, E, F + 1), data
        times maps; ``power`` (D,), sums of squares; ``total`` (D,), sums. With a seed also ``between``, the squared
        difference of the halves, and ``deviance``, of each half from the other half, then of each denoised cube from
        the half that it was not fitted to.
    """
    good = np.isfinite(maps).all(axis=1)
    x, columns = np.asarray(x)[good], np.asarray(maps, dtype=np.float64)[good]
    data = [x]
    if seed is not None:
        kept = thin(x, tile.index[good], seed=seed, fraction=0.5)
        data = [kept, x - kept]
    ones = np.column_stack([columns, np.ones(len(columns))])
    sums = moments(_window_maps(data, columns, factors=factors, windows=windows))
    sums |= {"gram": ones.T @ ones, **_products(data, ones)}
    if seed is not None:
        sums["deviance"] = _deviances(data, columns, factors=factors)
    return {}, sums


def moments(maps: Float) -> dict[str, Any]:
    """Number ``n``, ``mean`` (W, C) and central ``comoment`` (W, C, C) of maps (P, W, C) over the pixels."""
    n = len(maps)
    mean = maps.mean(axis=0) if n else np.zeros(maps.shape[1:])
    centred = maps - mean
    return {"n": n, "mean": mean, "comoment": np.einsum("pwc,pwd->wcd", centred, centred, optimize=True)}


def merge(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Combine the sums of two blocks: means and co-moments about their common mean, all others by addition.

    References
    ----------
    Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115.

    Examples
    --------
    >>> a, b = np.array([[[1.0, 2.0]], [[3.0, 5.0]]]), np.array([[[4.0, 0.0]]])
    >>> both, whole = merge(moments(a), moments(b)), moments(np.concatenate([a, b]))
    >>> bool(np.allclose(both["comoment"], whole["comoment"])), both["mean"].round(6).tolist()
    (True, [[2.666667, 2.333333]])
    """
    n = left["n"] + right["n"]
    share = right["n"] / n if n else 0.0
    apart = right["mean"] - left["mean"]
    about = left["n"] * share * apart[:, :, None] * apart[:, None, :]
    own = {
        "n": n,
        "mean": left["mean"] + share * apart,
        "comoment": left["comoment"] + right["comoment"] + about,
    }
    return {k: own[k] if k in own else left[k] + right[k] for k in left}


def squared_distance(gram: Float, one: Factors, other: Factors) -> float:
    """Squared distance of two denoised cubes.

    Parameters
    ----------
    gram : array, shape (F + 1, F + 1)
        From `fidelity`.
    one, other : Factors

    Examples
    --------
    >>> c = np.array([[1.0, 2.0], [0.5, 1.0]])
    >>> ones = np.column_stack([c, [1.0, 1.0]])
    >>> a, b = (Factors(slice(i, i + 1), np.ones((1, 4)), np.zeros(4)) for i in range(2))
    >>> squared_distance(ones.T @ ones, a, b)
    5.0
    """
    spectra = np.zeros((len(gram), one.s.shape[1]))
    for sign, each in ((1.0, one), (-1.0, other)):
        spectra[each.columns] += sign * each.s
        spectra[-1] += sign * each.offset
    return max(0.0, float(np.sum(gram * (spectra @ spectra.T))))


def squared_residual(gram: Float, cross: Float, power: float, one: Factors) -> float:
    """Squared distance of data from a denoised cube.

    gram (F + 1, F + 1): from `fidelity`, as are cross (E, F + 1) and power of these data. one: factors of the cube.
    """
    spectra = np.zeros((len(gram), one.s.shape[1]))
    spectra[one.columns] = one.s
    spectra[-1] = one.offset
    return float(power - 2.0 * np.sum(cross.T * spectra) + np.sum(gram * (spectra @ spectra.T)))


def _window_maps(
    data: Sequence[Any], columns: Float, *, factors: Sequence[Factors], windows: Sequence[tuple[int, int]]
) -> Float:
    """Maps (P, W, C): sums over each window of the data and of each denoised cube.

    data: arrays (P, E). columns (P, F): maps of all factors. factors, windows: as in `fidelity`.
    """
    out = np.empty((len(columns), len(windows), len(data) + len(factors)))
    for w, (low, high) in enumerate(windows):
        for i, values in enumerate(data):
            out[:, w, i] = values[:, low:high].sum(axis=1, dtype=np.float64)
        for i, each in enumerate(factors, start=len(data)):
            weights = each.s[:, low:high].sum(axis=1)
            out[:, w, i] = columns[:, each.columns] @ weights + each.offset[low:high].sum()
    return out


def _products(data: Sequence[Any], ones: Float) -> dict[str, Any]:
    """The sums ``cross``, ``power``, ``total`` and ``between`` of `fidelity`; data (P, E), ones (P, F + 1)."""
    channels = data[0].shape[1]
    cross = np.zeros((len(data), channels, ones.shape[1]))
    power, total, between = np.zeros(len(data)), np.zeros(len(data)), 0.0
    for part in _strips(len(ones)):
        strips = [values[part].astype(np.float64) for values in data]
        for i, strip in enumerate(strips):
            cross[i] += strip.T @ ones[part]
            power[i] += np.einsum("pe,pe->", strip, strip)
            total[i] += strip.sum()
        if len(strips) == 2:
            difference = strips[0] - strips[1]
            between += float(np.einsum("pe,pe->", difference, difference))
    return {"cross": cross, "power": power, "total": total, "between": between}


def _deviances(data: Sequence[Any], columns: Float, *, factors: Sequence[Factors]) -> Float:
    """Poisson deviance (2 + factors,) of each half from the other, then from the prediction of each denoised cube.

    data: the two halves (P, E). columns (P, F): maps of all factors. factors: as in `fidelity`.
    """
    found = np.zeros(2 + len(factors))
    for part in _strips(len(columns)):
        halves = [values[part].astype(np.float64) for values in data]
        for i, half in enumerate(halves):
            found[i] += _deviance(halves[1 - i], half)
        for i, each in enumerate(factors, start=2):
            predicted = columns[part][:, each.columns] @ each.s + each.offset
            found[i] += _deviance(halves[1 - each.half], predicted)
    return found


def _deviance(counts: Float, predicted: Float) -> float:
    """Poisson deviance of counts (P, E) from predicted means (P, E), summed over all values."""
    floor = MIN_PREDICTION * (1.0 + counts.sum(axis=1, keepdims=True)) / counts.shape[1]
    mean = np.maximum(predicted, floor)
    filled = counts > 0
    ratio = np.log(counts[filled] / mean[filled])
    return float(2.0 * (np.sum(counts[filled] * ratio) - counts.sum() + mean.sum()))


def _strips(pixels: int) -> list[slice]:
    """Slices of pixels that are converted to float64 at a time."""
    return [slice(first, first + STRIP_PIXELS) for first in range(0, pixels, STRIP_PIXELS)]
