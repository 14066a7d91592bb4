"""Compare denoised cubes with the measured one, by a known truth or by counts held out from the fit.

The result is a table of correlations and errors, of element maps and of the whole cube, for each method.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import map_fold, open_blocks
from scalehsi.cube import check_cube, history_of, navigation_dims
from scalehsi.kernels.statistics.fidelity import Factors, fidelity, merge, squared_distance, squared_residual
from scalehsi.prepare import thinned
from scalehsi.prepare.line_windows import Windows, channels_of, chosen_windows
from scalehsi.result import check_result
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, InputError

Halves = xr.Dataset | Sequence[xr.Dataset]

RAW: Final = "raw"
TRUTH: Final = "truth"
MIN_CONTRAST_STANDARD_ERRORS: Final = 3.0
"""Without a truth a window is judged only where the covariance of the maps of both halves is this many standard errors
above zero."""


def denoise_report(
    cube: xr.DataArray,
    results: Mapping[str, Halves],
    *,
    lines: Sequence[str] | None = None,
    windows: Windows | None = None,
    truth: xr.Dataset | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Compare denoised cubes with the measured one, for maps of elements and for the whole cube, as a table.

    With the truth of a simulation each cube is compared with the truth. Without one the counts are divided at random
    into two halves, and the fit of one half is judged by the other, whose noise is independent. This needs results of
    the halves::

        halves = hsi.prepare.thin(cube, seed=0)
        results = {"PSNMF": [hsi.fit(half, hsi.PSNMF(3)) for half in halves]}
        table = hsi.metrics.denoise_report(cube, results, seed=0)

    Parameters
    ----------
    cube : xarray.DataArray, shape (..., y, x, E)
        The measured cube. Pixels outside its mask are left out.
    results : mapping of str to xarray.Dataset
        Results of any model, by name; only their factors are used. Without a truth it maps each name to the result of
        the first half, or to a sequence of the results of both halves.
    lines : sequence of str, optional
        Windows on X-ray lines: ``"Nd La"``, or an element for its main line. By default every element of
        ``cube.attrs["elements"]``. See `line_windows`.
    windows : mapping of str to (low, high), optional
        Windows by name, in the unit of the energy axis, in place of ``lines``.
    truth : xarray.Dataset, optional
        With ``endmembers`` and ``abundances``, as `scalehsi.simulate` returns it.
    seed : int, default 0
        Seed of the division into halves, used without a truth.

    Returns
    -------
    xarray.Dataset, dims ``method`` ("raw", then the names given) and ``window``
        Select a row by ``table.sel({"method": "PCA"})``, because ``sel`` has an option named ``method``.

        - ``correlation`` (method, window): correlation of a window's map with the noise-free map.
        - ``rmse`` (method, window): root of the mean squared error of that map, divided by the standard deviation of
          the noise-free map.
        - ``cube_error`` (method): norm of the error of the whole cube, divided by the norm of the noise-free cube.

        Without a truth these are estimates for half of the counts, NaN for a window without contrast above noise, and
        there are three more variables:

        - ``halves_correlation`` (method, window): correlation of the maps of both halves, which shows how reproducible
          a map is. It does not show errors that both halves have in common.
        - ``deviance`` (method): Poisson deviance of the counts held out, per count.
        - ``resolution``: a ``cube_error`` below this cannot be distinguished from zero with this many counts.

        The coordinates ``low`` and ``high`` (window) are the first and last channel of the windows.

    Raises
    ------
    InputError
        When pixels or energy axes differ, for an unknown element or a line outside the axis, and without a truth when a
        result was not fitted to one of the halves.

    Notes
    -----
    The cube is read once, block by block. The error of a product of factors ``c s``, ``||c s - c' s'||^2``, is the
    trace of ``(c^T c)(s s^T)`` with the factors of both side by side. Without a truth ``<x_1, x_2>`` of the halves
    estimates ``||z||^2``, and ``||x_2 - m||^2 - sum x_2`` estimates the error ``||z - m||^2`` of a model ``m`` of the
    first half, where the noise of Poisson counts is ``(2 sum z^2)^(1/2)``.

    References
    ----------
    Brown et al. 2008, doi:10.1214/07-AOAS154 (counts held out from Poisson data).

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.phases((48, 48), counts_per_pixel=147, seed=1)
    >>> result = hsi.fit(cube, hsi.PCA(3, solver="randomized"), seed=0)
    >>> table = denoise_report(cube, {"PCA": result}, lines=["Ca Ka"], truth=truth)
    >>> table["method"].values.tolist(), bool(table["cube_error"][1] < table["cube_error"][0])
    (['raw', 'PCA'], True)
    """
    check_cube(cube)
    cuts = channels_of(cube, chosen_windows(cube, lines, windows))
    given = {name: _listed(found) for name, found in results.items()}
    if RAW in given:
        raise InputError(f"{RAW!r} stands for the cube itself; give the result another name")
    for name, found in given.items():
        if truth is None:
            _check_halves(name, found, seed)
        elif len(found) != 1:
            raise InputError(f"{name!r}: with a truth one result is judged, that of the whole cube; got {len(found)}")
    if truth is None and cube.dtype.kind != "u":
        raise InputError(
            f"without a truth the counts are divided, unsigned integers, and this cube holds {cube.dtype}; "
            "type cube.astype('uint16') when they are counts, or give truth="
        )
    sources = {f"result {name!r}": found for name, found in given.items()}
    if truth is not None:
        sources = {TRUTH: [truth], **sources}
    maps, factors = _factors(cube, sources)
    shared = {"factors": factors, "windows": list(cuts.values()), "seed": seed if truth is None else None}
    once = open_blocks(cube, resident=False)
    _, sums = map_fold(fidelity, once, maps, shared=shared, combine=merge, tile=True, name="denoise-report")
    judged = _by_halves(sums, factors, given) if truth is None else _by_truth(sums, factors)
    return _table(cube, ["raw", *given], cuts, judged, "counts held out" if truth is None else TRUTH)


def _listed(found: Halves) -> list[xr.Dataset]:
    """Return a result, or the results of both halves, as a list."""
    if isinstance(found, Sequence):
        if not 1 <= len(found) <= 2:
            raise InputError(f"a result, or those of both halves of the counts, are expected; got {len(found)}")
        return [check_result(each) for each in found]
    return [check_result(found)]


def _check_halves(name: str, found: Sequence[xr.Dataset], seed: int) -> None:
    """Refuse results, called ``name``, that were not fitted to the halves of the counts of ``seed``."""
    for result, line in zip(found, thinned(seed=seed), strict=False):
        if line not in history_of(result.attrs):
            half = line.rpartition(" ")[2]
            raise InputError(
                f"{name!r} was not fitted to the half of the counts called {half!r} of seed {seed}, so this cube is no "
                f"test of it; type halves = hsi.prepare.thin(cube, seed={seed}) and fit those, or give truth="
            )


def _factors(cube: xr.DataArray, sources: Mapping[str, Sequence[xr.Dataset]]) -> tuple[xr.DataArray, list[Factors]]:
    """Return all maps of the sources side by side, dims (..., y, x, component), and the factors of each source."""
    dims = navigation_dims(cube)
    sizes = {d: cube.sizes[d] for d in dims}
    parts, factors, first = [], [], 0
    for name, found in sources.items():
        for half, result in enumerate(found):
            for variable in (ENDMEMBERS, ABUNDANCES):
                if variable not in result:
                    raise InputError(f"the {name} has no variable {variable!r}")
            maps = result[ABUNDANCES].reset_coords(drop=True)
            if {d: maps.sizes.get(d) for d in dims} != sizes or result.sizes[ENERGY] != cube.sizes[ENERGY]:
                raise InputError(
                    f"the {name} has the sizes {dict(maps.sizes)} and {result.sizes[ENERGY]} channels, the cube "
                    f"{sizes} and {cube.sizes[ENERGY]}; give the cube that it was fitted to"
                )
            parts.append(maps.drop_vars(list(maps.coords)).transpose(*dims, COMPONENT))
            s = np.asarray(result[ENDMEMBERS].transpose(COMPONENT, ENERGY).values, dtype=np.float64)
            offset = (
                np.asarray(result["offset"].values, dtype=np.float64) if "offset" in result else np.zeros(s.shape[1])
            )
            factors.append(Factors(slice(first, first + len(s)), s, offset, half))
            first += len(s)
    if not parts:
        # Maps have at least one column; this one is not used.
        empty = np.zeros((*sizes.values(), 1))
        return xr.DataArray(empty, dims=(*dims, COMPONENT)), []
    return xr.concat(parts, dim=COMPONENT).transpose(*dims, COMPONENT), factors


def _by_truth(sums: dict[str, Any], factors: Sequence[Factors]) -> dict[str, Float]:
    """Return the scores by the truth, from the sums of `fidelity` and the factors of the truth and of each result.

    The columns of the co-moments are: raw, truth, results.
    """
    truth, found = factors[0], factors[1:]
    size = squared_distance(sums["gram"], truth, truth._replace(s=0 * truth.s, offset=0 * truth.offset))
    raw = squared_residual(sums["gram"], sums["cross"][0], sums["power"][0], truth)
    errors = [raw, *(squared_distance(sums["gram"], each, truth) for each in found)]
    covariance, mean = sums["comoment"] / max(1, sums["n"]), sums["mean"]
    own = [0, *range(2, 2 + len(found))]
    scale = covariance[:, 1, 1]
    return {
        "correlation": _ratios(covariance, own, 1, scale, scale > 0),
        "rmse": np.sqrt(np.maximum(_misfits(covariance, mean, own, 1, scale, scale > 0), 0.0)),
        "cube_error": np.sqrt(np.maximum(errors, 0.0) / size) if size > 0 else np.full(len(errors), np.nan),
    }


def _by_halves(
    sums: dict[str, Any], factors: Sequence[Factors], given: Mapping[str, Sequence[xr.Dataset]]
) -> dict[str, Float]:
    """Return the scores by the half of the counts that was held out; arguments as in `_by_truth`.

    The columns of the co-moments are: both halves, then one or two results of each method in ``given``.
    """
    halves = [0, 1, *(each.half for each in factors)]
    total, power = sums["total"], sums["power"]
    covariance = sums["comoment"] / max(1, sums["n"])
    variance = np.einsum("wcc->cw", covariance)
    # The covariance of both halves is that of the noise-free map, because their noise is independent.
    scale = covariance[:, 0, 1]
    seen = scale > MIN_CONTRAST_STANDARD_ERRORS / math.sqrt(max(1, sums["n"])) * np.sqrt(variance[0] * variance[1])
    size = float(power.sum() - sums["between"]) / 2
    found: dict[str, list[Any]] = {"correlation": [], "rmse": [], "cube_error": [], "deviance": []}
    for column, half in enumerate(halves):
        other = 1 - half
        error = float(sums["between"])
        if column > 1:
            error = squared_residual(sums["gram"], sums["cross"][other], power[other], factors[column - 2])
        found["correlation"].append(_ratios(covariance, [column], other, scale, seen)[0])
        found["rmse"].append(_misfits(covariance, sums["mean"], [column], other, scale, seen)[0])
        found["cube_error"].append((error - total[other]) / size if size > 0 else np.nan)
        found["deviance"].append(sums["deviance"][column] / max(1.0, total[other]))
    ends = np.cumsum([0, 2, *(len(results) for results in given.values())])
    own = [slice(first, last) for first, last in itertools.pairwise(ends)]
    out = {name: np.array([np.mean(values[part], axis=0) for part in own]) for name, values in found.items()}
    # Estimates of squares, which may be negative, are averaged before the root.
    out |= {name: np.sqrt(np.maximum(out[name], 0.0)) for name in ("rmse", "cube_error")}
    reproduced = [
        _ratios(covariance, [p.start], p.stop - 1, variance[p.stop - 1], variance[p.stop - 1] > 0)[0] for p in own
    ]
    pairs = np.array([[p.stop - p.start == 2] for p in own])
    # The averaged square has the noise (sum z^2)^(1/2), that of counts around the truth.
    resolution = np.asarray(size**-0.25 if size > 0 else np.nan)
    return {**out, "halves_correlation": np.where(pairs, reproduced, np.nan), "resolution": resolution}


def _ratios(covariance: Float, own: Sequence[int], reference: int, scale: Float, seen: Any) -> Float:
    """Return the correlation of the maps in columns ``own`` with the noise-free map, shape (own, W).

    ``covariance`` has the shape (W, columns, columns), ``reference`` is the column of a map without noise or with
    independent noise, ``scale`` (W,) the variance of the noise-free map, and ``seen`` (W,) the windows to judge.
    """
    spread = np.sqrt(np.maximum(np.einsum("wcc->cw", covariance)[own] * scale, 0.0))
    defined = seen & (spread > 0)
    return np.where(defined, covariance[:, own, reference].T / np.where(defined, spread, 1.0), np.nan)


def _misfits(covariance: Float, mean: Float, own: Sequence[int], reference: int, scale: Float, seen: Any) -> Float:
    """Return the mean squared difference to the noise-free map over its variance, shape (own, W); may be negative.

    ``mean`` (W, columns) has the means of the maps; the other arguments are those of `_ratios`.
    """
    apart = (mean[:, own] - mean[:, [reference]]).T
    square = np.einsum("wcc->cw", covariance)[own] + scale - 2 * covariance[:, own, reference].T + apart**2
    return np.where(seen, square / np.where(seen, scale, 1.0), np.nan)


def _table(
    cube: xr.DataArray, names: Sequence[str], cuts: dict[str, tuple[int, int]], judged: dict[str, Float], judge: str
) -> xr.Dataset:
    """Make the table of the scores ``judged``, for the methods ``names`` and the windows ``cuts`` (channel ranges)."""
    axis = np.asarray(cube[ENERGY].values, dtype=np.float64)
    estimated = "" if judge == TRUTH else ", estimated for half of the counts"
    long_names = {
        "correlation": f"correlation of the window's map with the noise-free one{estimated}",
        "rmse": f"error of the window's map over the standard deviation of the noise-free one{estimated}",
        "cube_error": f"error of the cube over the noise-free cube{estimated}",
        "halves_correlation": "correlation of the maps found in both halves of the counts",
        "deviance": "Poisson deviance of counts held out, per count",
        "resolution": "cube error that these counts can distinguish from zero",
    }
    units = {"units": str(cube[ENERGY].attrs.get("units", ""))}
    out = xr.Dataset(
        coords={
            "method": list(names),
            "window": list(cuts),
            "low": ("window", [axis[low] for low, _ in cuts.values()], units),
            "high": ("window", [axis[high - 1] for _, high in cuts.values()], units),
        },
        attrs={"judged_by": judge},
    )
    for name, values in judged.items():
        out[name] = (("method", "window")[: np.ndim(values)], values, {"long_name": long_names[name]})
    return out
