"""Length scales of component maps, and the recommended interval for their joint reconstruction by `ParallelGP`.

Each component is examined alone: the likelihood of its map as a function of one length of the spatial covariance, with
signal and noise at their best. The likelihood of a map with fine structure on a smooth background has two basins, and
the interval of lengths decides in which of them a fit ends. That of a map that is mostly noise has none, and the fit
ends at the upper end of the interval.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.arrays import Bool, Float
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.blocks.compute import run
from scalehsi.blocks.graph import tasks
from scalehsi.checks import is_number, require
from scalehsi.cube import history_of, pixel_size_nm
from scalehsi.kernels.gaussian_process.covariance import parse
from scalehsi.kernels.gaussian_process.lengthscales import Losses, converged_lengths, local_minima, loss_at, recommend
from scalehsi.kernels.gaussian_process.likelihood import MIN_LENGTH_PIXELS, standardised
from scalehsi.kernels.gaussian_process.radial_kernel import RADIAL_SUFFIX
from scalehsi.models.gp.input_maps import maps_as_cube, read_windows
from scalehsi.schema import ABUNDANCES, COMPONENT, X, Y

LIMITS_PIXELS: Final = (1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
"""Upper limits that are tried, up to half of the side of the maps or tiles."""
LENGTH_COUNT: Final = 40
WHOLE_SIDE_PIXELS: Final = 128
"""Maps of up to the square of it are read as a whole."""
TILE_SIDE_PIXELS: Final = 64
MAX_TILES: Final = 16
INCOMPLETE_SIDE_PIXELS: Final = 32
"""Side of tiles with missing pixels, whose cost is the cube of their pixels."""
MAX_INCOMPLETE_TILES: Final = 4
MAX_DENSE_PIXELS: Final = 600
"""Maps of up to this many measured pixels are used as a whole even with missing ones."""
MIN_SIDE_PIXELS: Final = 8


def lengthscale_scan(
    maps: xr.Dataset | xr.DataArray,
    limits: Sequence[float] | None = None,
    *,
    kernel: str = "matern52",
    lengths: Sequence[float] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Find the length scale of each component for each upper limit, and recommend an interval for `ParallelGP`.

    Parameters
    ----------
    maps : xarray.Dataset or xarray.DataArray
        A result, of which the ``abundances`` are used, or maps of dims ``(component, ..., y, x)``. A pixel that is NaN
        is missing in its map alone. The maps may be lazy and of any size: of more than 128 x 128 pixels, 16 tiles of
        64 x 64 are read.
    limits : sequence of float, optional
        Rising upper limits, in pixels, from 1 on. Default: 1.5 to 32, up to half of the longer side of what is read.
    kernel : str, default "matern52"
        "matern12", "matern32", "matern52", "rbf", sums and products of them, or one of these with ``-radial``. Radial
        kernels cost as much as missing pixels.
    lengths : sequence of float, optional
        Rising lengths at which the likelihood is computed, in pixels, at least 5 of them. Default: 40 in equal ratios,
        from half a pixel to the last limit.
    seed : int, default 0
        Of the choice of tiles of large maps.

    Returns
    -------
    xarray.Dataset
        Draw it with `scalehsi.plots.lengthscales`. Its variables:

        - ``loss`` (component, length): negative log likelihood above its least value, in nats.
        - ``converged`` (component, limit): length, in pixels, where a descent from the middle of the interval (half a
          pixel to the limit) ends.
        - ``basin`` and ``basin_above`` (component, basin_number): lengths of the minima in pixels, NaN where there are
          fewer, and their height above the deepest one in nats.
        - ``evidence`` (component): nats by which the best length beats noise alone.
        - ``noise`` (component): standard deviation of the noise at this length.
        - ``follows`` (component): True where ``converged`` equals the limit at all limits.
        - ``recommended`` (bound), in pixels, and ``recommended_nm`` (axis, bound) where the pixel size is known; NaN
          where no component shows a length.

        ``attrs``: ``kernel``, ``seed``, ``read`` (the tiles that were read), ``advice``.

    Raises
    ------
    InputError
        For other data than maps, for maps without any value or with fewer than 8 pixels along both axes, for limits and
        lengths that do not rise, for limits below a pixel, and for lengths that do not cover the limits.

    Notes
    -----
    Each length is one task on the current Dask scheduler. Cost per length: some 4 ms for 48 x 48 pixels and six
    components, 10 ms for 16 tiles; with missing pixels at most four tiles of 32 x 32 are used, 0.1 s together.

    One length for all components cannot describe both a smooth component and one of atomic columns. The recommended
    interval is around the shortest structure that any component shows. With it, fine structure is preserved also in
    components that are too weak to show it themselves, and smooth ones are somewhat noisier than with their own length.

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
    cube, _ = maps_as_cube(maps)
    rows, columns = cube.sizes[Y], cube.sizes[X]
    require(
        max(rows, columns) >= MIN_SIDE_PIXELS,
        f"maps of {rows} x {columns} pixels show no length scale; it takes {MIN_SIDE_PIXELS} pixels along one axis",
    )
    require(is_number(seed, numbers.Integral) and seed >= 0, f"seed is a whole number of at least 0, got {seed!r}")
    name = str(kernel).replace(" ", "")
    parse(name.removesuffix(RADIAL_SUFFIX))
    read_side = max(rows, columns) if rows * columns <= WHOLE_SIDE_PIXELS**2 else TILE_SIDE_PIXELS
    upper = _limits(limits, read_side / 2)
    steps = _lengths(lengths, float(upper[-1]))
    parts = read_windows(cube, TILE_SIDE_PIXELS, MAX_TILES, whole=WHOLE_SIDE_PIXELS**2, seed=int(seed))
    everything = len(parts) * math.prod(parts[0].shape[:2]) == math.prod(cube.shape[:-1])
    found, scale, read = _losses_of(parts, name, steps, everything=everything)
    table = _table(cube, steps, upper, found, scale)
    source = maps[ABUNDANCES] if isinstance(maps, xr.Dataset) else maps
    names = np.atleast_1d(source[COMPONENT].values) if COMPONENT in source.coords else np.arange(1, cube.shape[-1] + 1)
    return table.assign_coords({COMPONENT: names}).assign_attrs(kernel=name, seed=int(seed), read="; ".join(read))


def _limits(given: Sequence[float] | None, half: float) -> Float:
    """Check the upper limits, or take those of up to ``half`` of a side."""
    if given is None:
        fitting = [limit for limit in LIMITS_PIXELS if limit <= half]
        return np.array(fitting, dtype=np.float64)
    values = _rising("limits", given, least=1)
    require(
        float(values[0]) >= 1.0,
        f"limits are upper ends of the length scale in pixels, of at least 1, got {float(values[0]):g}; a length below "
        "a pixel is noise",
    )
    return values


def _lengths(given: Sequence[float] | None, top: float) -> Float:
    """Check that the lengths cover 1 to ``top``, the last limit, or make them."""
    if given is None:
        return np.geomspace(MIN_LENGTH_PIXELS, top, LENGTH_COUNT)
    values = _rising("lengths", given, least=5)
    require(float(values[0]) > 0, f"lengths are pixels above 0, got {float(values[0]):g}")
    require(
        float(values[0]) <= MIN_LENGTH_PIXELS * 2 and float(values[-1]) >= top,
        f"lengths go from {float(values[0]):g} to {float(values[-1]):g} and do not cover 1 to the last limit {top:g}; "
        "give more lengths, or other limits",
    )
    return values


def _rising(name: str, given: Any, *, least: int) -> Float:
    """Check that the argument ``name`` has ``least`` rising numbers or more, and return them as an array."""
    many = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str)
    good = many and all(is_number(v, numbers.Real) and math.isfinite(v) for v in given)
    require(good, f"{name} are numbers of pixels, got {given!r}; type {name}=[1.5, 3, 6, 12, 24]")
    values = np.array(given, dtype=np.float64)
    require(len(values) >= least, f"{name} are at least {least}, got {len(values)}")
    require(bool((np.diff(values) > 0).all()), f"{name} rise, got {given!r}; type {name}=sorted({name})")
    return values


def _losses_of(
    parts: list[Float], kernel: str, lengths: Float, *, everything: bool
) -> tuple[Losses, Float, tuple[str, ...]]:
    """Losses at all lengths, fields (n, K), scales (K,) of the maps, and words on the tiles that were used.

    ``parts`` are the tiles (H, W, K) with NaN where a pixel is missing, ``everything`` says whether they are the whole.
    Maps of the same gaps are examined together.
    """
    seen = np.stack([np.isfinite(part) for part in parts])
    _, group = np.unique(seen.reshape(-1, seen.shape[-1]), axis=1, return_inverse=True)
    found, scales = np.empty((3, len(lengths), seen.shape[-1])), np.ones(seen.shape[-1])
    words = []
    for number in range(int(group.max()) + 1):
        own = np.flatnonzero(group.ravel() == number)
        tiles, masks, read = _choose(
            [part[..., own] for part in parts],
            list(seen[..., own[0]]),
            radial=kernel.endswith(RADIAL_SUFFIX),
            everything=everything,
        )
        scaled, _, scales[own] = standardised(tiles, masks)
        found[:, :, own] = _loss_curves([np.moveaxis(tile, 0, -1) for tile in scaled], masks, kernel, lengths)
        words.append(read)
    return Losses(*found), scales, tuple(dict.fromkeys(words))


def _choose(
    parts: list[Float], masks: list[Bool], *, radial: bool, everything: bool
) -> tuple[list[Float], list[Bool], str]:
    """Tiles (H, W, K) and masks (H, W) that are used, and words on them; ``radial`` kernels need dense matrices."""
    if sum(int(mask.sum()) for mask in masks) > MAX_DENSE_PIXELS and (radial or not all(mask.all() for mask in masks)):
        return _cut_incomplete(parts, masks)
    rows, columns = parts[0].shape[:2]
    many = f"{len(parts)} tiles of " if len(parts) > 1 else ""
    return parts, masks, f"{'the whole, ' if everything else ''}{many}{rows} x {columns} pixels"


def _cut_incomplete(parts: list[Float], masks: list[Bool]) -> tuple[list[Float], list[Bool], str]:
    """Cut smaller tiles and choose those with most values: the cost of an incomplete tile is the cube of its pixels."""
    rows, columns = (-(-n // -(-n // INCOMPLETE_SIDE_PIXELS)) for n in masks[0].shape)
    cut = [
        (part[y : y + rows, x : x + columns], mask[y : y + rows, x : x + columns])
        for part, mask in zip(parts, masks, strict=True)
        for y in range(0, mask.shape[0], rows)
        for x in range(0, mask.shape[1], columns)
    ]
    cut.sort(key=lambda pair: -int(pair[1].sum()))
    best = [pair for pair in cut[:MAX_INCOMPLETE_TILES] if pair[1].any()]
    words = f"{len(best)} tiles of {rows} x {columns} pixels, those with most values"
    return [part for part, _ in best], [mask for _, mask in best], words


def _loss_curves(tiles: list[Float], masks: list[Bool], kernel: str, lengths: Float) -> Losses:
    """Losses at all lengths, fields (n, K), with one task per length; arguments as of `loss_at`."""
    name = "gp-lengths"
    (data,) = tasks(f"{name}-data", [(partial(tuple, (tuple(tiles), tuple(masks))), ())])
    scans = tasks(name, [(partial(_losses_at, kernel=kernel, length=float(length)), (data,)) for length in lengths])
    (root,) = tasks(f"{name}-all", [(_stacked, scans)])
    found, _ = run(root, {}, scans)
    return Losses(*found)


def _losses_at(data: tuple[tuple[Float, ...], tuple[Bool, ...]], *, kernel: str, length: float) -> Losses:
    with one_blas_thread():
        return loss_at(*data, kernel=kernel, length=length)


def _stacked(*parts: Losses) -> tuple[Float, ...]:
    return tuple(np.stack(values) for values in zip(*parts, strict=True))


def _table(cube: xr.DataArray, lengths: Float, limits: Float, found: Losses, scale: Float) -> xr.Dataset:
    """Make the dataset of `lengthscale_scan` from the losses (n, K) of maps that were divided by ``scale`` (K,)."""
    count = cube.shape[-1]
    minima = [local_minima(lengths, found.loss[:, k]) for k in range(count)]
    most = max(1, *(len(own) for own in minima))
    basins = np.full((2, count, most), np.nan)
    for k, own in enumerate(minima):
        basins[0, k, : len(own)] = [one.length for one in own]
        basins[1, k, : len(own)] = [one.loss - min(other.loss for other in own) for one in own]
    converged = np.stack([converged_lengths(lengths, one, limits, low=MIN_LENGTH_PIXELS) for one in found.loss.T])
    best = np.argmin(found.loss, axis=0)
    plain = found.plain.min(axis=0)
    interval = recommend(minima, plain, low=MIN_LENGTH_PIXELS)
    pixel = {"units": "px"}
    table = xr.Dataset(
        {
            "loss": (
                (COMPONENT, "length"),
                (found.loss - found.loss.min(axis=0)).T,
                {"long_name": "negative logarithm of the likelihood above its least value", "units": "nat"},
            ),
            "converged": ((COMPONENT, "limit"), converged, {"long_name": "length scale", **pixel}),
            "basin": ((COMPONENT, "basin_number"), basins[0], {"long_name": "length scale of a minimum", **pixel}),
            "basin_above": (
                (COMPONENT, "basin_number"),
                basins[1],
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
                {"long_name": "standard deviation of the noise"},
            ),
            "follows": (COMPONENT, np.isclose(converged, limits).all(axis=1)),
            "recommended": ("bound", np.array(interval or (np.nan, np.nan)), {"long_name": "interval", **pixel}),
        },
        coords={
            "length": ("length", lengths, {"long_name": "length scale", **pixel}),
            "limit": ("limit", limits, {"long_name": "upper limit of the length scale", **pixel}),
            "bound": ["low", "high"],
        },
    )
    sizes = [pixel_size_nm(cube, dim) for dim in (Y, X)]
    known = [size for size in sizes if size]
    if known:
        # Across a line of pixels there is no pixel size.
        values = np.outer([size or known[0] for size in sizes], table["recommended"].values)
        table["recommended_nm"] = (("axis", "bound"), values, {"long_name": "interval", "units": "nm"})
        table = table.assign_coords(axis=[Y, X])
    table.attrs = {"advice": _advice(interval), "history": [*history_of(cube.attrs), "lengthscale_scan"]}
    return table


def _advice(interval: tuple[float, float] | None) -> str:
    if interval is None:
        return "No component shows a length scale below the last limit; give larger limits, or fit without an interval."
    low, high = (f"{bound:.2g}" for bound in interval)
    return f"Fit with lengthscale=({low}, {high}) pixels, around the finest structure that the components show."
