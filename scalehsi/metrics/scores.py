"""Measure how far an unmixing is from the truth or from another one: spectral angles, errors and similarity of maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
import xarray as xr
from scipy.special import ndtri

from scalehsi.cube import same_axis
from scalehsi.result import check_result, total_signal
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, InputError


def spectral_angle(a: Any, b: Any) -> Any:
    """Return the angle between spectra in radians, which does not depend on their scale.

    Parameters
    ----------
    a, b : xarray.DataArray or array, shape (..., E)
        DataArrays are compared along ``energy`` and broadcast over their other dims; arrays along their last axis.

    Returns
    -------
    xarray.DataArray or array or float
        Between 0 (same shape) and pi; NaN for a spectrum of zeros.

    Raises
    ------
    InputError
        When the spectra have other lengths or other energies, or a DataArray has no dim ``energy``.

    References
    ----------
    Kruse et al. 1993, doi:10.1016/0034-4257(93)90013-N.

    Examples
    --------
    >>> round(float(spectral_angle([1.0, 0.0], [1.0, 1.0])) * 180 / np.pi, 3)
    45.0
    """
    if isinstance(a, xr.DataArray) and isinstance(b, xr.DataArray):
        _same_energy(a, b)
        b = b.drop_vars(ENERGY, errors="ignore")
        core = [[ENERGY], [ENERGY]]
        return xr.apply_ufunc(
            _angle, a, b, input_core_dims=core, join="override", dask="parallelized", output_dtypes=[np.float64]
        )
    one, two = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if not one.ndim or not two.ndim or one.shape[-1] != two.shape[-1]:
        raise InputError(f"spectra of one length are expected along the last axis, got {one.shape} and {two.shape}")
    angle = _angle(one, two)
    return float(angle) if np.ndim(angle) == 0 else angle


sad = spectral_angle
"""Another name of `spectral_angle`: the spectral angle distance."""


def _angle(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> Any:
    """Return the angle between spectra along the last axis, by arctan2; arccos has half the digits at small angles."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    size_a, size_b = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    defined = (size_a > 0) & (size_b > 0)
    one = a / np.where(size_a > 0, size_a, 1.0)[..., None]
    two = b / np.where(size_b > 0, size_b, 1.0)[..., None]
    angle = 2 * np.arctan2(np.linalg.norm(one - two, axis=-1), np.linalg.norm(one + two, axis=-1))
    return np.where(defined, angle, np.nan)


def mse(truth: Any, estimate: Any) -> Any:
    """Return the mean squared difference; a lazy number for lazy DataArrays.

    Parameters
    ----------
    truth, estimate : xarray.DataArray or array, of one shape
        Values are paired by position, DataArrays by the names of their dims. A pair in which one value is NaN (a masked
        pixel) is left out.

    Returns
    -------
    xarray.DataArray or float
        A DataArray where one of the arguments is one.

    Raises
    ------
    InputError
        When the shapes or dims differ.

    Examples
    --------
    >>> float(mse([1.0, 2.0], [1.0, 4.0]))
    2.0
    """
    z, guess = _paired(truth, estimate)
    return _plain(((guess - z) ** 2).mean(), truth, estimate)


def nmse(truth: Any, estimate: Any) -> Any:
    """Return the squared error relative to the squared truth, ``||Z - Z^||_F^2 / ||Z||_F^2``.

    Parameters
    ----------
    truth, estimate : xarray.DataArray or array, of one shape
        Paired as in `mse`; pairs with NaN are left out.

    Returns
    -------
    xarray.DataArray or float
        A DataArray where one of the arguments is one.

    Raises
    ------
    InputError
        When the shapes or dims differ.

    Examples
    --------
    >>> float(nmse([3.0, 4.0], [3.0, 3.0]))
    0.04
    """
    z, guess = _paired(truth, estimate)
    error = (guess - z) ** 2
    return _plain(error.sum() / (z**2).where(error.notnull()).sum(), truth, estimate)


def similarity(a: Any, b: Any) -> float:
    """Return the normalised cross-correlation of two maps, ``<a, b> / (||a|| ||b||)`` after subtracting their means.

    Parameters
    ----------
    a, b : xarray.DataArray or array, of one shape
        Maps. Pixels that are NaN in one of them are left out.

    Returns
    -------
    float
        1 for maps that are equal up to scale and offset; NaN where a map is constant.

    Raises
    ------
    InputError
        When the shapes or dims differ.

    Examples
    --------
    >>> round(similarity([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 6)
    1.0
    """
    one, other = _paired(a, b)
    x, y = one.values.reshape(-1), other.values.reshape(-1)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    centred = [v - v.mean() if v.size else v for v in (x, y)]
    sizes = [float(np.linalg.norm(v)) for v in centred]
    # A constant map minus its mean is rounding noise.
    if any(size <= 1e-13 * float(np.linalg.norm(v)) for size, v in zip(sizes, (x, y), strict=True)):
        return float("nan")
    return float(centred[0] @ centred[1] / (sizes[0] * sizes[1]))


def similarities(truth: xr.DataArray, estimate: xr.DataArray) -> xr.DataArray:
    """Return the `similarity` of each map of an estimate to the same map of the truth.

    Parameters
    ----------
    truth, estimate : xarray.DataArray, dims (component, ..., y, x)
        Maps of the same components in the same order.

    Returns
    -------
    xarray.DataArray, dims (component,)
        The similarity of each map.

    Raises
    ------
    InputError
        When a map is no DataArray with a dim ``component``, or the sizes differ.

    Examples
    --------
    >>> t = xr.DataArray([[[1.0, 2.0, 4.0]], [[3.0, 1.0, 2.0]]], dims=("component", "y", "x"))
    >>> similarities(t, 2 * t + 1).values.round(6).tolist()
    [1.0, 1.0]
    """
    t, guess = _by_component(truth, estimate)
    found = [similarity(a, b) for a, b in zip(t, guess, strict=True)]
    return xr.DataArray(found, dims=(COMPONENT,), coords={COMPONENT: truth[COMPONENT]}, name="similarity")


def coverage(truth: Any, mean: Any, std: Any, *, level: float = 0.95) -> Any:
    """Return the share of the truth inside the confidence band of an estimate: near ``level`` for correct deviations.

    Parameters
    ----------
    truth, mean, std : xarray.DataArray or array, of one shape
        The band is ``mean`` plus and minus the normal quantile (1.96 at 0.95) times ``std``.
    level : float, above 0 and below 1, default 0.95
        Nominal share inside the band.

    Returns
    -------
    xarray.DataArray or float
        One number for each component for DataArrays with a dim ``component``, one number for others. Values that are
        NaN in any of the three are left out; NaN when all are.

    Raises
    ------
    InputError
        When the shapes differ, the level is out of range, or a deviation is negative.

    Examples
    --------
    >>> coverage([0.0, 1.0, 2.0, 9.0], [0.1, 1.1, 2.1, 3.1], [0.5] * 4)
    0.75
    """
    if not (isinstance(level, int | float) and not isinstance(level, bool) and 0 < level < 1):
        raise InputError(f"level is a share above 0 and below 1, got {level!r}; type level=0.95")
    if all(isinstance(v, xr.DataArray) and COMPONENT in v.dims for v in (truth, mean, std)):
        t, m = _by_component(truth, mean)
        _, s = _by_component(truth, std)
        found = [coverage(*three, level=level) for three in zip(t, m, s, strict=True)]
        return xr.DataArray(found, dims=(COMPONENT,), coords={COMPONENT: truth[COMPONENT]}, name="coverage")
    one, middle = (v.values for v in _paired(truth, mean))
    spread = _paired(truth, std)[1].values
    if (spread < 0).any():
        raise InputError("std has negative values, which no standard deviation has; are mean and std mixed up?")
    error = np.abs(one - middle)
    known = np.isfinite(error) & np.isfinite(spread)
    return float((error <= float(ndtri(0.5 + level / 2)) * spread)[known].mean()) if known.any() else float("nan")


def _by_component(truth: xr.DataArray, estimate: xr.DataArray) -> tuple[list[Any], list[Any]]:
    """Return the maps of both as lists in the order of the components, each computed once."""
    for v in (truth, estimate):
        if not isinstance(v, xr.DataArray) or COMPONENT not in v.dims:
            raise InputError("maps are DataArrays of dims ('component', ..., 'y', 'x'); wrap arrays with xarray")
    _paired(truth, estimate)  # refuses sizes that differ
    first = truth.transpose(COMPONENT, ...)
    return list(first.values), list(estimate.transpose(*first.dims).values)


def match(truth_endmembers: xr.DataArray, endmembers: xr.DataArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Match the components of an estimate to those of the truth.

    Parameters
    ----------
    truth_endmembers : xarray.DataArray, shape (K, E)
        True spectra, dims (component, energy).
    endmembers : xarray.DataArray, shape (at least K, E)
        Estimated spectra, dims (component, energy).

    Returns
    -------
    array of int, shape (K,)
        Position in ``endmembers`` of each true component: the permutation with the smallest sum of spectral angles
        (Hungarian method).

    Raises
    ------
    InputError
        When the energy axes differ, or the estimate has fewer components.

    Examples
    --------
    >>> t = xr.DataArray(np.eye(2), dims=("component", "energy"))
    >>> match(t, t[::-1]).tolist()
    [1, 0]
    """
    _same_energy(truth_endmembers, endmembers)
    t = truth_endmembers.transpose(COMPONENT, ENERGY).values
    e = endmembers.transpose(COMPONENT, ENERGY).values
    if len(e) < len(t):
        raise InputError(f"the truth has {len(t)} components, the estimate {len(e)}; fit with n_components={len(t)}")
    cost = np.nan_to_num(_angle(t[:, None], e[None]), nan=np.pi)
    _, columns = scipy.optimize.linear_sum_assignment(cost)
    return np.asarray(columns, dtype=np.int64)


def score(result: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Score a result by the truth: the angles of its spectra, the errors and similarities of its maps.

    Parameters
    ----------
    result : xarray.Dataset
        Result of any model.
    truth : xarray.Dataset
        With ``endmembers`` (component, energy) and, to score the maps, ``abundances`` on the same pixels.

    Returns
    -------
    xarray.Dataset, dim ``component`` as in the truth
        ``spectral_angle`` (radians), ``matched`` (the result's component), ``map_similarity``, ``map_mse`` and
        ``map_nmse``. The maps of both are converted to shares of each pixel's signal (`signal_shares`), which removes
        the arbitrary scale between maps and spectra.

    Raises
    ------
    InputError
        When the truth has no endmembers, the energy axes or the sizes of the maps differ, or the result has fewer
        components than the truth.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> result = hsi.fit(cube, hsi.NMF(4, max_iter=50), seed=0)
    >>> sorted(score(result, truth).data_vars)
    ['map_mse', 'map_nmse', 'map_similarity', 'matched', 'spectral_angle']
    """
    check_result(result)
    if ENDMEMBERS not in truth:
        raise InputError("the truth has no variable 'endmembers'; is it the store that was written beside the cube?")
    order = match(truth[ENDMEMBERS], result[ENDMEMBERS])
    found = result.isel({COMPONENT: order})
    angles = _angle(
        truth[ENDMEMBERS].transpose(COMPONENT, ENERGY).values, found[ENDMEMBERS].transpose(COMPONENT, ENERGY).values
    )
    names = truth[COMPONENT].values if COMPONENT in truth.coords else np.arange(1, len(order) + 1)
    out = xr.Dataset(coords={COMPONENT: names})
    out["spectral_angle"] = (COMPONENT, angles, {"units": "rad"})
    out["matched"] = (COMPONENT, np.asarray(found[COMPONENT].values))
    if ABUNDANCES in truth:
        _score_maps(out, found, truth)
    return out


def _score_maps(out: xr.Dataset, found: xr.Dataset, truth: xr.Dataset) -> None:
    """Add the scores of the maps of ``found``, in the order of the truth's components, to the table ``out``."""
    if dict(truth[ABUNDANCES].sizes) != dict(found[ABUNDANCES].sizes):
        sizes = [dict(r[ABUNDANCES].sizes) for r in (found, truth)]
        raise InputError(f"the maps have sizes {sizes[0]}, those of the truth {sizes[1]}; crop or bin both alike")
    truth = truth.assign({ABUNDANCES: truth[ABUNDANCES].transpose(*found[ABUNDANCES].dims)})
    ours, theirs = signal_shares(found), signal_shares(truth)
    pairs = [(theirs[k], np.where(np.isfinite(ours[k]), ours[k], np.nan)) for k in range(len(theirs))]
    out["map_similarity"] = (COMPONENT, [similarity(t, o) for t, o in pairs])
    out["map_mse"] = (COMPONENT, [float(np.nanmean((o - t) ** 2)) for t, o in pairs])
    scale = [float(np.nanmean(np.where(np.isfinite(o), t, np.nan) ** 2)) for t, o in pairs]
    out["map_nmse"] = (COMPONENT, [m / s if s else np.nan for m, s in zip(out["map_mse"].values, scale, strict=True)])


def signal_shares(result: xr.Dataset) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the share of each component in the modelled signal of each pixel.

    Parameters
    ----------
    result : xarray.Dataset
        With ``endmembers`` and ``abundances``.

    Returns
    -------
    array, shape (component, ..., y, x)
        Summing to one in each pixel; NaN in pixels without signal.
    """
    area = np.asarray(total_signal(result).values, dtype=np.float64)
    maps = np.asarray(result[ABUNDANCES].transpose(COMPONENT, ...).values, dtype=np.float64)
    signal = maps * area.reshape((-1, *(1,) * (maps.ndim - 1)))
    total = signal.sum(axis=0)
    return np.asarray(np.where(total > 0, signal / np.where(total > 0, total, 1.0), np.nan))


def _paired(truth: Any, estimate: Any) -> tuple[xr.DataArray, xr.DataArray]:
    """Return both as float64, against overflow of counts, and without coordinates, which may differ by rounding."""
    named = isinstance(truth, xr.DataArray) and isinstance(estimate, xr.DataArray)
    if named and set(truth.dims) == set(estimate.dims):
        estimate = estimate.transpose(*truth.dims)
    bare = [
        v.data if isinstance(v, xr.DataArray) else v if hasattr(v, "shape") else np.asarray(v)
        for v in (truth, estimate)
    ]
    if tuple(bare[0].shape) != tuple(bare[1].shape) or (named and truth.dims != estimate.dims):
        shapes = [
            f"{tuple(v.dims)} {v.shape}" if named else str(tuple(b.shape))
            for v, b in zip((truth, estimate), bare, strict=True)
        ]
        raise InputError(f"two of one shape are expected, got {shapes[0]} and {shapes[1]}; crop or bin both alike")
    dims = [f"axis_{i}" for i in range(bare[0].ndim)]
    one, other = (xr.DataArray(b, dims=dims).astype(np.float64) for b in bare)
    return one, other


def _plain(number: xr.DataArray, *given: Any) -> Any:
    """Return a DataArray where one of ``given`` is a DataArray, else a number of the arrays' library."""
    return number if any(isinstance(g, xr.DataArray) for g in given) else number.data[()]


def _same_energy(a: xr.DataArray, b: xr.DataArray) -> None:
    """Refuse spectra with different energy axes."""
    for side in (a, b):
        if ENERGY not in side.dims:
            raise InputError(f"spectra have a dim 'energy', got the dims {side.dims}")
    if a.sizes[ENERGY] != b.sizes[ENERGY]:
        raise InputError(f"the energy axes have {a.sizes[ENERGY]} and {b.sizes[ENERGY]} channels; crop both alike")
    if ENERGY in a.coords and ENERGY in b.coords and not same_axis(a[ENERGY], b[ENERGY]):
        raise InputError("the energy axes have other values; interpolate one with spectra.interp(energy=other.energy)")
