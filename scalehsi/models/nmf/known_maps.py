"""Fixed abundance maps: their checks, their rows for each pass, and the start of a fit that has them.

In a result the fixed endmembers come first, then the components whose maps are fixed, then the others. The maps are
aligned with the pixels block by block, so they may be lazy and larger than the memory of the client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import scipy
import xarray as xr

from scalehsi.arrays import Float
from scalehsi.blocks import Blocks, Pixels, map_fold
from scalehsi.checks import require
from scalehsi.cube import navigation_dims, same_axis
from scalehsi.fitting import binning
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, MASK, X, Y

Fixed = Mapping[str, Any] | str | None

NAME: Final = f"fixed[{ABUNDANCES!r}]"
FIXED_MAPS: Final = "fixed_maps"
"""Attribute of the endmembers of a result: the number of components whose maps were fixed."""
LEAST_SIGNAL: Final = 1e-3
"""A spectrum starts with at least this fraction of an average component's signal, because Poisson steps keep zeros."""


def maps_of(fixed: Fixed) -> xr.DataArray | None:
    """The maps, or None where none are fixed."""
    return fixed.get(ABUNDANCES) if isinstance(fixed, Mapping) else None


def numbers(fixed: Fixed) -> list[int]:
    """The components whose maps are fixed: those behind the fixed endmembers."""
    maps = maps_of(fixed)
    if maps is None or not isinstance(fixed, Mapping):
        return []
    first = int(fixed[ENDMEMBERS].sizes[COMPONENT]) if ENDMEMBERS in fixed else 0
    return list(range(first, first + int(maps.sizes[COMPONENT])))


def mapped(fixed: Fixed, n_components: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """True for these components, shape (K,)."""
    found = np.zeros(n_components, dtype=bool)
    found[numbers(fixed)] = True
    return found


def check(fixed: Fixed, n_components: int) -> None:
    """Refuse fixed maps of the wrong kind, too many of them, or of components with a fixed spectrum. Reads nothing."""
    if not isinstance(fixed, Mapping) or ABUNDANCES not in fixed:
        return
    maps = fixed[ABUNDANCES]
    require(
        isinstance(maps, xr.DataArray) and COMPONENT in maps.dims and maps.dtype.kind in "buif",
        f"{NAME} is a DataArray of numbers, of dims (component, ..., y, x)",
    )
    count = int(maps.sizes[COMPONENT])
    require(count >= 1, f"{NAME} has no map; leave it out")
    spectra = fixed.get(ENDMEMBERS)
    others = 0 if spectra is None else int(spectra.sizes[COMPONENT])
    also = f" and {others} fixed endmembers" if others else ""
    require(
        count + others <= n_components,
        f"{NAME} has {count} maps{also}, more than n_components={n_components}; type n_components={count + others}",
    )
    if spectra is None or COMPONENT not in spectra.coords or COMPONENT not in maps.coords:
        return
    both = sorted(set(spectra[COMPONENT].values.tolist()) & set(maps[COMPONENT].values.tolist()))
    require(
        not both,
        f"component {both[:1]} is in fixed['endmembers'] and in {NAME}, and a component has one or the other fixed; "
        "leave it out of one, or where it is not the same component type .drop_vars('component')",
    )


def check_grid(fixed: Fixed, cube: xr.DataArray) -> None:
    """Refuse maps that are not on the pixels of the cube. Reads nothing.

    Raises
    ------
    InputError
        When dims, sizes or coordinates differ; says what to type.
    """
    maps = maps_of(fixed)
    if maps is None:
        return
    dims = navigation_dims(cube)
    wanted = (COMPONENT, *dims)
    require(
        set(maps.dims) == set(wanted),
        f"{NAME} has the dims {tuple(map(str, maps.dims))}, {wanted} is expected; "
        "rename them with .rename(old='new'), add one with .expand_dims('new')",
    )
    repair = f"bring it onto the cube's pixels with .interp({', '.join(f'{d}=cube.{d}' for d in dims)})"
    there, here = ({d: int(a.sizes[d]) for d in dims} for a in (maps, cube))
    require(there == here, f"{NAME} has the pixels {there}, the cube {here}; {repair}")
    for dim in dims:
        if dim not in maps.coords or dim not in cube.coords or not _numeric(maps[dim], cube[dim]):
            continue
        a, b = np.asarray(maps[dim], dtype=float), np.asarray(cube[dim], dtype=float)
        require(
            same_axis(a, b),
            f"{NAME} lies along {dim} from {a[0]:g} to {a[-1]:g}, the cube from {b[0]:g} to {b[-1]:g}; {repair}, "
            f"or where only the coordinate is wrong type .drop_vars({dim!r})",
        )


def _numeric(*coordinates: xr.DataArray) -> bool:
    return all(c.dtype.kind in "uif" for c in coordinates)


def aligned_maps(fixed: Fixed, view: Blocks, bins: int = 1) -> tuple[Pixels | xr.DataArray, ...]:
    """The maps as one array of rows (P, F), aligned with the pixels of a view or of its bins; empty without fixed maps.

    With a resident cube the workers keep the maps too; with a streamed cube they are read again each pass.

    fixed: the setting. view: the cube. bins: pixels of a bin along y and x.
    """
    maps = maps_of(fixed)
    if maps is None:
        return ()
    target = binning.binned(view, bins)
    if not target.resident:
        return (_rows(maps, view.cube, bins),)
    if NAME not in target.companions:
        target.companions[NAME] = target.align(_rows(maps, view.cube, bins), hold=True)
    return (target.companions[NAME],)


def _rows(maps: xr.DataArray, cube: xr.DataArray, bins: int) -> xr.DataArray:
    """The maps on the pixels, or summed over bins like the cube; negative values become NaN, which `begin` refuses."""
    dims = navigation_dims(cube)
    rows = maps.drop_vars(list(maps.coords)).transpose(*dims, COMPONENT).astype(np.float32)
    rows = rows.where(rows >= 0)
    if bins == 1:
        return rows
    if MASK in cube.coords:
        used = cube[MASK]
        rows = rows.where(used.drop_vars(list(used.coords)), np.float32(0))
    windows: Any = rows.coarsen({Y: bins, X: bins}, boundary="trim")
    added: xr.DataArray = windows.reduce(np.sum)  # the sum of xarray skips NaN
    return added


def begin(
    fixed: Fixed,
    target: Blocks,
    rows: tuple[Pixels | xr.DataArray, ...],
    s: Float | None,
    *,
    mean: Float,
    n_components: int,
    solve: Callable[..., Any],
    pair: bool,
) -> Float:
    """Endmembers for the start, those of the fixed maps in the scale of the data. One reading.

    With ``pair`` each fixed map is assigned to the component of the start whose map is most similar.

    Parameters
    ----------
    fixed : mapping
    target : Blocks
        The cube, or its bins.
    rows : tuple
        From `aligned_maps`.
    s : array, shape (K, E), or None
        The start, with the fixed endmembers first. None where maps or endmembers of all components are fixed: then any
        start is good enough.
    mean : array, shape (E,)
        Mean spectrum of the target.
    n_components : int
        K.
    solve : callable
        The last pass of the loss, see `scalehsi.kernels.least_squares.passes.abundances`.
    pair : bool
        False where the rows of ``s`` are already in their order.

    Returns
    -------
    array, shape (K, E)

    Raises
    ------
    InputError
        For maps with NaN, Inf or negative values in pixels that are used, and for a map of zeros.
    """
    shared = {} if s is None else {"s": s}
    _, sums = map_fold(partial(_overlap, solve=solve), target, *rows, shared=shared, name="nmf-known")
    require(
        not sums["bad"],
        f"{NAME} has negative values, NaN or Inf in pixels that are used; "
        "type .clip(min=0).fillna(0), or mask these pixels",
    )
    empty = np.flatnonzero(sums["square"] == 0)
    require(
        not empty.size,
        f"{NAME} has {empty.size} maps of zeros where pixels are used, the first is number {empty[:1].sum()}; "
        "leave them out",
    )
    own = numbers(fixed)
    level = sums["given"] / sums["pixels"]
    if s is None:
        found: Float = np.tile(np.maximum(mean, 0.0), (n_components, 1))
        found[own] /= level.sum()
        return found
    order = _paired(sums, own[0], n_components) if pair else np.arange(n_components)
    new: Float = s[order]
    signal = float((sums["c"] @ s.sum(axis=1)) / sums["pixels"]) / n_components
    best = np.diag(sums["cross"][:, order[own]]) / sums["square"]
    faint = LEAST_SIGNAL * signal / (level * np.maximum(new[own].sum(axis=1), 1e-300))
    new[own] *= np.maximum(best, faint)[:, None]
    return new


def _overlap(
    x: Any, given: Any, *, solve: Callable[..., Any], s: Float | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sums of products of the fixed maps with the maps of a start.

    x: pixels. given: fixed maps (P, F). solve: gives the maps of the start. s: the start (K, E).
    """
    sound = np.isfinite(given)
    rows = np.where(sound, given, 0.0).astype(np.float64)
    sums = {"bad": (~sound).sum(), "given": rows.sum(axis=0), "square": (rows**2).sum(axis=0), "pixels": len(rows)}
    if s is not None:
        c = solve(x, s=s, residual=False)[0]["abundances"].astype(np.float64)
        sums |= {"cross": rows.T @ c, "c": c.sum(axis=0), "power": (c**2).sum(axis=0)}
    return {}, sums


def _paired(sums: Mapping[str, Any], first: int, n_components: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Order of the components of the start, so that each fixed map is that of the most similar component.

    sums: of `_overlap`. first: number of fixed endmembers. n_components: K.
    """
    pixels = sums["pixels"]
    covariance = sums["cross"] - np.outer(sums["given"], sums["c"]) / pixels
    here = sums["square"] - sums["given"] ** 2 / pixels
    there = sums["power"] - sums["c"] ** 2 / pixels
    size = np.sqrt(np.maximum(np.outer(here, there), 0.0))
    alike = np.divide(covariance, size, out=np.zeros_like(covariance), where=size > 0)[:, first:]
    _, chosen = scipy.optimize.linear_sum_assignment(-alike)
    chosen = chosen + first
    rest = np.setdiff1d(np.arange(first, n_components), chosen)
    return np.concatenate([np.arange(first), chosen, rest]).astype(np.int64)
