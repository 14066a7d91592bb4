"""Which length scales the maps of components show, and the interval that a joint reconstruction should keep to.

Each component is looked at alone: how likely its map is for one length of the spatial covariance, everything else at
its best. A map with fine structure on a smooth ground has two basins, and where a fit ends depends on the interval that
its length may take; a map that is mostly noise has none, and the fit follows the interval's upper end.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.blocks.blas import one_blas_thread
from scalehsi.blocks.compute import run
from scalehsi.blocks.graph import tasks
from scalehsi.cube import history_of, length_factor
from scalehsi.kernels.gaussian.covariance import parse
from scalehsi.kernels.gaussian.lengths import RADIAL, Losses, basins, ends, loss_at, recommend
from scalehsi.kernels.gaussian.profile import SHORTEST
from scalehsi.models.base import is_number, require
from scalehsi.schema import ABUNDANCES, COMPONENT, InputError, X, Y

Float = np.ndarray[Any, np.dtype[np.float64]]
Bool = np.ndarray[Any, np.dtype[np.bool_]]

LIMITS: Final = (1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
"""Upper limits that are tried, in pixels, up to half of what is looked at."""
LENGTHS: Final = 40
WHOLE: Final = 128
"""Maps up to this side are looked at as a whole."""
TILE: Final = 64
TILES: Final = 16
SCATTERED: Final = 32
"""Side of tiles with missing pixels, which cost the cube of their pixels."""
SCATTERED_TILES: Final = 4
FEW: Final = 600
"""Maps of fewer observed pixels are looked at as a whole even with missing ones."""
LEAST_SIDE: Final = 8


def lengthscale_scan(
    maps: xr.Dataset | xr.DataArray,
    limits: Sequence[float] | None = None,
    *,
    kernel: str = "matern52",
    lengths: Sequence[float] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Show where the length scale of each component ends, for each upper limit that it is given.

    Parameters
    ----------
    maps : xarray.Dataset or xarray.DataArray
        A result (its ``abundances``), or maps of dims ``(component, ..., y, x)``. A pixel that is NaN in any map is
        missing. Lazy maps of any size: of more than 128 x 128 pixels, 16 tiles of 64 x 64 are read.
    limits : sequence of float, optional
        Rising upper limits, in pixels, from 1 on. Default: 1.5 to 32, up to half of the longer side of what is read.
    kernel : str, default "matern52"
        "matern12", "matern32", "matern52", "rbf", sums and products of them, or one of these with ``-radial``; radial
        ones cost as much as missing pixels.
    lengths : sequence of float, optional
        Rising lengths at which the likelihood is computed, in pixels, at least 5. Default: 40 in equal ratios, from
        half a pixel to the last limit.
    seed : int, default 0
        Decides which tiles of large maps are read.

    Returns
    -------
    xarray.Dataset
        By (component, length): ``loss``, negative logarithm of the likelihood above its least value, in nats. By
        (component, limit): ``converged``, the length in pixels where a descent from the middle of the interval (half a
        pixel to the limit) ends. By (component, basin): ``basin``, lengths of the minima in pixels (NaN where there are
        fewer), and ``basin_above``, nats above the deepest. By component: ``evidence``, nats by which the best length
        beats noise alone, ``noise``, its standard deviation there, and ``follows``, True where ``converged`` is the
        limit itself wherever it is tried: a straight line. ``recommended`` (bound), pixels, and ``recommended_nm``
        (axis, bound) where the pixel size is known: NaN where no component shows a length. ``attrs``: ``kernel``,
        ``seed``, ``read`` (what was looked at), ``advice``. Draw it with `scalehsi.plots.lengthscales`.

    Raises
    ------
    InputError
        For what are no maps, maps without any value or of fewer than 8 pixels along both axes, and limits or lengths
        that are no rising numbers, below a pixel, or beyond each other.

    Notes
    -----
    Lengths are a task each on the Dask scheduler that is current. Cost: some 5 ms a length for 48 x 48 pixels and six
    components, 50 ms for 16 tiles; with missing pixels up to four tiles of 32 x 32 are read, 0.3 s a length each.

    One length for all components cannot serve a smooth one and one of atomic columns alike. With the recommended
    interval, around the shortest structure that any component shows, fine structure survives also in components that
    are too weak to show it themselves, and smooth ones come out somewhat noisier than they could be.

    References
    ----------
    .. [1] S. V. Kalinin, A. R. Lupini, R. K. Vasudevan, M. Ziatdinov, npj Comput. Mater. 7 (2021) 154, figure 3.
       doi:10.1038/s41524-021-00611-8

    Examples
    --------
    >>> import scalehsi as hsi
    >>> maps, truth = hsi.simulate.maps(kind="atoms", pixel_size_nm=0.05)
    >>> scan = lengthscale_scan(maps, [2, 3, 6])
    >>> scan["converged"].sel(component=1).values.round(1).tolist()
    [2.0, 2.7, 2.7]
    >>> scan["recommended"].values.round(1).tolist(), scan["recommended_nm"].dims
    ([0.6, 3.3], ('axis', 'bound'))
    """
    field = _maps_of(maps)
    require(is_number(seed, numbers.Integral) and seed >= 0, f"seed is a whole number of at least 0, got {seed!r}")
    name = str(kernel).replace(" ", "")
    parse(name.removesuffix(RADIAL))
    half = min(max(field.sizes[Y], field.sizes[X]), WHOLE) / 2
    upper = _limits(limits, half)
    steps = _lengths(lengths, float(upper[-1]))
    tiles, masks, read = _read(field, radial=name.endswith(RADIAL), seed=int(seed))
    scale = _normalise(tiles, masks, field)
    found = _curves(tiles, masks, name, steps)
    return _table(field, steps, upper, found, scale).assign_attrs(kernel=name, seed=int(seed), read=read)


def _maps_of(given: Any) -> xr.DataArray:
    """The maps of a result, or maps themselves, (component, ..., y, x)."""
    if isinstance(given, xr.Dataset):
        require(ABUNDANCES in given, "this Dataset has no 'abundances'; give a result, or maps (component, ..., y, x)")
        given = given[ABUNDANCES]
    if not isinstance(given, xr.DataArray):
        raise InputError(
            f"a result or maps (component, ..., y, x) are expected, got {type(given).__name__}; wrap an array with "
            "xarray.DataArray(array, dims=('component', 'y', 'x'))"
        )
    if COMPONENT not in given.dims and given.dims[-2:] == (Y, X):
        given = given.expand_dims(COMPONENT)
    if given.dims[:1] != (COMPONENT,) or given.dims[-2:] != (Y, X):
        raise InputError(
            f"maps have the dims (component, ..., y, x), got {tuple(map(str, given.dims))}; "
            "type maps.transpose('component', ..., 'y', 'x')"
        )
    require(0 not in given.shape, f"there are no maps: their shape is {given.shape}")
    require(given.dtype.kind in "iuf", f"maps hold real numbers, got {given.dtype}; type maps.astype('float32')")
    rows, columns = given.sizes[Y], given.sizes[X]
    require(
        max(rows, columns) >= LEAST_SIDE,
        f"maps of {rows} x {columns} pixels show no length scale; it takes {LEAST_SIDE} pixels along one axis",
    )
    return given


def _limits(given: Sequence[float] | None, half: float) -> Float:
    if given is None:
        fitting = [limit for limit in LIMITS if limit <= half]
        return np.array(fitting, dtype=np.float64)
    values = _rising("limits", given, least=1)
    require(
        float(values[0]) >= 1.0,
        f"limits are upper ends of the length scale in pixels, of at least 1, got {float(values[0]):g}; a length below "
        "a pixel is noise",
    )
    return values


def _lengths(given: Sequence[float] | None, top: float) -> Float:
    if given is None:
        return np.geomspace(SHORTEST, top, LENGTHS)
    values = _rising("lengths", given, least=5)
    require(float(values[0]) > 0, f"lengths are pixels above 0, got {float(values[0]):g}")
    require(
        float(values[0]) <= SHORTEST * 2 and float(values[-1]) >= top,
        f"lengths go from {float(values[0]):g} to {float(values[-1]):g} and do not cover 1 to the last limit {top:g}; "
        "give more lengths, or other limits",
    )
    return values


def _rising(name: str, given: Any, *, least: int) -> Float:
    many = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str)
    good = many and all(is_number(v, numbers.Real) and math.isfinite(v) for v in given)
    require(good, f"{name} are numbers of pixels, got {given!r}; type {name}=[1.5, 3, 6, 12, 24]")
    values = np.array(given, dtype=np.float64)
    require(len(values) >= least, f"{name} are at least {least}, got {len(values)}")
    require(bool((np.diff(values) > 0).all()), f"{name} rise, got {given!r}; type {name}=sorted({name})")
    return values


def _read(field: xr.DataArray, *, radial: bool, seed: int) -> tuple[list[Float], list[Bool], str]:
    """Tiles (H, W, K) that are looked at, where they have values, and what they are in words."""
    rows, columns = field.sizes[Y], field.sizes[X]
    leading = field.shape[1:-2]
    if math.prod(leading) == 1 and max(rows, columns) <= WHOLE:
        parts = [_values(field.isel(dict.fromkeys(map(str, field.dims[1:-2]), 0)))]
        read = f"the whole, {rows} x {columns} pixels"
    else:
        side = TILE if max(rows, columns) > WHOLE else WHOLE
        parts = _sampled(field, (min(side, rows), min(side, columns)), seed)
        read = f"{len(parts)} tiles of {min(side, rows)} x {min(side, columns)} pixels"
    masks = [np.isfinite(part).all(axis=-1) for part in parts]
    used = sum(int(mask.sum()) for mask in masks)
    require(used > 0, "no pixel has a value in every map: all are NaN; drop maps that are NaN everywhere")
    if used > FEW and (radial or not all(mask.all() for mask in masks)):
        parts, masks, read = _smaller(parts, masks)
    return parts, masks, read


def _values(part: xr.DataArray) -> Float:
    return np.moveaxis(np.asarray(part.values, dtype=np.float64), 0, -1)


def _sampled(field: xr.DataArray, shape: tuple[int, int], seed: int) -> list[Float]:
    """Some tiles of large maps, spread by chance over their pixels and leading dims, read together."""
    counts = (*field.shape[1:-2], field.sizes[Y] // shape[0], field.sizes[X] // shape[1])
    cells = math.prod(counts)
    rng = np.random.default_rng(seed)
    chosen = np.arange(cells) if cells <= TILES else np.sort(rng.choice(cells, TILES, replace=False))
    parts = []
    for place in zip(*np.unravel_index(chosen, counts), strict=True):
        at: dict[str, Any] = {str(d): int(i) for d, i in zip(field.dims[1:-2], place[:-2], strict=True)}
        at.update({d: slice(int(i) * n, (int(i) + 1) * n) for d, i, n in zip((Y, X), place[-2:], shape, strict=True)})
        parts.append(field.isel(at).reset_coords(drop=True).drop_vars([Y, X], errors="ignore"))
    together: xr.DataArray = xr.concat(parts, dim="tile").compute()
    return [_values(together.isel(tile=i)) for i in range(len(parts))]


def _smaller(parts: list[Float], masks: list[Bool]) -> tuple[list[Float], list[Bool], str]:
    """Of smaller tiles those with most values, as all pixels of a tile are taken together where some are missing."""
    rows, columns = (-(-n // -(-n // SCATTERED)) for n in masks[0].shape)
    cut = [
        (part[y : y + rows, x : x + columns], mask[y : y + rows, x : x + columns])
        for part, mask in zip(parts, masks, strict=True)
        for y in range(0, mask.shape[0], rows)
        for x in range(0, mask.shape[1], columns)
    ]
    cut.sort(key=lambda pair: -int(pair[1].sum()))
    best = [pair for pair in cut[:SCATTERED_TILES] if pair[1].any()]
    words = f"{len(best)} tiles of {rows} x {columns} pixels, those with most values"
    return [part for part, _ in best], [mask for _, mask in best], words


def _normalise(tiles: list[Float], masks: list[Bool], field: xr.DataArray) -> Float:
    """Take the means off the tiles, in place of them, and divide by the deviations, which are given back (K,)."""
    seen = np.concatenate([tile[mask] for tile, mask in zip(tiles, masks, strict=True)])
    mean, scale = seen.mean(axis=0), seen.std(axis=0)
    flat = scale <= 1e-12 * np.abs(mean)
    scale = np.where(flat, 1.0, scale)
    for i, (tile, mask) in enumerate(zip(tiles, masks, strict=True)):
        tiles[i] = np.where(mask[..., None] & ~flat, (tile - mean) / scale, 0.0)
    return scale


def _curves(tiles: list[Float], masks: list[Bool], kernel: str, lengths: Float) -> Losses:
    """The losses of all lengths, (n, K) each, a task a length."""
    name = "gp-lengths"
    (data,) = tasks(f"{name}-data", [(partial(tuple, (tuple(tiles), tuple(masks))), ())])
    scans = tasks(name, [(partial(_at, kernel=kernel, length=float(length)), (data,)) for length in lengths])
    (root,) = tasks(f"{name}-all", [(_together, scans)])
    found, _ = run(root, {}, scans)
    return Losses(*found)


def _at(data: tuple[tuple[Float, ...], tuple[Bool, ...]], *, kernel: str, length: float) -> Losses:
    with one_blas_thread():
        return loss_at(*data, kernel=kernel, length=length)


def _together(*parts: Losses) -> tuple[Float, ...]:
    return tuple(np.stack(values) for values in zip(*parts, strict=True))


def _table(field: xr.DataArray, lengths: Float, limits: Float, found: Losses, scale: Float) -> xr.Dataset:
    count = field.sizes[COMPONENT]
    wells = [basins(lengths, found.loss[:, k]) for k in range(count)]
    most = max(1, *(len(own) for own in wells))
    place = np.full((2, count, most), np.nan)
    for k, own in enumerate(wells):
        place[0, k, : len(own)] = [w.length for w in own]
        place[1, k, : len(own)] = [w.loss - min(w.loss for w in own) for w in own]
    converged = np.stack([ends(lengths, found.loss[:, k], limits, low=SHORTEST) for k in range(count)])
    best = np.argmin(found.loss, axis=0)
    plain = found.plain.min(axis=0)
    interval = recommend(wells, plain, low=SHORTEST)
    pixel = {"units": "px"}
    table = xr.Dataset(
        {
            "loss": (
                (COMPONENT, "length"),
                (found.loss - found.loss.min(axis=0)).T,
                {"long_name": "negative logarithm of the likelihood above its least value", "units": "nat"},
            ),
            "converged": ((COMPONENT, "limit"), converged, {"long_name": "length scale", **pixel}),
            "basin": ((COMPONENT, "basin_number"), place[0], {"long_name": "length scale of a minimum", **pixel}),
            "basin_above": (
                (COMPONENT, "basin_number"),
                place[1],
                {"long_name": "height of a minimum over the deepest", "units": "nat"},
            ),
            "evidence": (
                COMPONENT,
                plain - found.loss.min(axis=0),
                {"long_name": "likelihood of the best length over that of noise alone", "units": "nat"},
            ),
            "noise": (
                COMPONENT,
                found.noise[best, np.arange(count)] * scale,
                {"long_name": "standard deviation of the noise", "units": str(field.attrs.get("units", ""))},
            ),
            "follows": (COMPONENT, np.isclose(converged, limits).all(axis=1)),
            "recommended": ("bound", np.array(interval or (np.nan, np.nan)), {"long_name": "interval", **pixel}),
        },
        coords={
            COMPONENT: field[COMPONENT].values if COMPONENT in field.coords else np.arange(1, count + 1),
            "length": ("length", lengths, {"long_name": "length scale", **pixel}),
            "limit": ("limit", limits, {"long_name": "upper limit of the length scale", **pixel}),
            "bound": ["low", "high"],
        },
    )
    sizes = _pixel_nm(field)
    if sizes is not None:
        values = np.outer(sizes, table["recommended"].values)
        table["recommended_nm"] = (("axis", "bound"), values, {"long_name": "interval", "units": "nm"})
        table = table.assign_coords(axis=[Y, X])
    table.attrs = {"advice": _advice(interval), "history": [*history_of(field.attrs), "lengthscale_scan"]}
    return table


def _advice(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return "No component shows a length scale below the last limit; give larger limits, or fit without an interval."
    low, high = (f"{bound:.2g}" for bound in interval)
    return f"Fit with lengthscale=({low}, {high}) pixels, around the finest structure that the components show."


def _pixel_nm(field: xr.DataArray) -> tuple[float, float] | None:
    """Steps of y and x in nm; of an axis of one pixel that of the other."""
    steps = {}
    for dim in (Y, X):
        if dim in field.coords and field.sizes[dim] > 1:
            factor = length_factor(str(field[dim].attrs.get("units", "")))
            values = np.asarray(field[dim].values, dtype=np.float64)
            if factor and values[-1] != values[0]:
                steps[dim] = abs(values[-1] - values[0]) / (len(values) - 1) * factor
    if not steps:
        return None
    return steps.get(Y, steps.get(X, 1.0)), steps.get(X, steps.get(Y, 1.0))
