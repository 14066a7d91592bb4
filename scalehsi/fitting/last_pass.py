"""The last pass of a fit: abundance maps, residual maps, their labels, and the sums that the fit is judged by."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.blocks import Blocks, Pixels, branch, capacity, map_fold, map_pixels, open_blocks, open_surrounded
from scalehsi.fitting.judge.collect import evidence, judged
from scalehsi.fitting.judge.evidence import Evidence
from scalehsi.fitting.model import Model, State, Variables
from scalehsi.kernels.pixel_rows.residual import residual_of_block
from scalehsi.kernels.statistics.fit_sums import Grid
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, RESIDUAL, RESIDUAL_SPECTRUM

CLIENT_MAP_BYTES: Final = 64 * 2**20
"""Maps up to this size are computed when the fit ends; larger ones stay lazy and are computed where they are used."""
MAPS_SHARE: Final = 1 / 16
"""Of the workers' memory, that maps may fill until they are on the client."""
GRAPH_ARRAY_BYTES: Final = 8 * 2**20
"""Arrays above this are not embedded in graphs that are sent to other processes."""


def add_maps(view: Blocks, model: Model, state: State, variables: Variables, *, residual: bool) -> Evidence | None:
    """Add the maps by the model's block function, and their residual, to the variables; return what to judge by.

    view: the fitted cube. state: of the finished fit. variables: from `Model.finish`; changed in place.
    residual: also the residual of each pixel and channel.
    """
    frame = xr.Dataset(variables, attrs={"model": model.name})
    n = frame.sizes[COMPONENT]
    more = model.further_maps(variables) if residual else {}
    wanted = [ABUNDANCES, *([RESIDUAL] if residual else []), *more]
    further = sum(n if each else 1 for each in more.values())
    in_memory = computed_at_once(_map_bytes(view, n + residual + further), capacity().memory)
    name = f"{model.name.lower()}-maps"
    # Blocks with a halo are read again: kept beside the cube's own blocks they would be a second copy.
    target = view
    if model.halo:
        target = branch(
            view, "maps", lambda: open_surrounded(view.cube, device=view.device, packed=model.takes_sparse_counts)
        )
    fn, shared, aligned = model.map_pass(target, frame)
    shared = {**shared, "residual": residual}
    judge = _basis(view, state, variables, shared.get("s")) if model.judged else None
    handles, sums = map_fold(
        partial(judged, fn=fn, needs_tile=model.halo > 0),
        target,
        *aligned,
        shared={**shared, "judge": judge},
        keep=wanted if in_memory else (),
        halo=model.halo,
        tile=True,
        name=name,
    )
    if not in_memory:
        beside = view.cuts.beside
        lazy = target if model.halo else open_blocks(view.cube, device=view.device, resident=False, beside=beside)
        lazy.branches.update(view.branches)
        aligned = model.map_pass(lazy, frame)[-1]
        halo: dict[str, Any] = {"halo": model.halo, "tile": model.halo > 0}
        handles = map_pixels(fn, lazy, *aligned, shared=shared, keep=wanted, name=name, **halo)
    variables[ABUNDANCES] = _as_maps(handles[ABUNDANCES], {COMPONENT: n}, in_memory=in_memory)
    for other, each in more.items():
        variables[other] = _as_maps(handles[other], {COMPONENT: n} if each else {}, in_memory=in_memory)
    if residual:
        pixels = float(state["pixels"])
        variables[RESIDUAL] = _as_maps(handles[RESIDUAL], {}, in_memory=in_memory)
        # The channels of a tensor are those of its frames one after another; their mean is shown.
        left = np.asarray(sums["residual_spectrum"] / pixels)
        energies = variables[ENDMEMBERS].sizes[ENERGY]
        variables[RESIDUAL_SPECTRUM] = xr.DataArray(left.reshape(-1, energies).mean(axis=0), dims=(ENERGY,))
    maps = variables[ABUNDANCES] if in_memory else None
    return evidence(sums, judge, cube=view.cube, model=model, maps=maps)


def add_residual(view: Blocks, model: Model, state: State, variables: Variables, *, residual: bool) -> Evidence | None:
    """Add the residual of maps that the model itself found to the variables; return what to judge by.

    view: the fitted cube. state: of the finished fit. variables: from `Model.finish`; changed in place.
    residual: whether the result has it.
    """
    maps = variables[ABUNDANCES]
    rows = maps.fillna(0.0).transpose(*[d for d in maps.dims if d != COMPONENT], COMPONENT)
    s = np.asarray(variables[ENDMEMBERS].values, dtype=np.float64)
    name = f"{model.name.lower()}-residual"
    judge = _basis(view, state, variables, s)
    fn = partial(judged, fn=_residual_of_given, needs_tile=False)
    handles, sums = map_fold(fn, view, rows, shared={"s": s, "judge": judge}, keep=[RESIDUAL], tile=True, name=name)
    if residual:
        variables[RESIDUAL] = _as_maps(handles[RESIDUAL], {}, in_memory=True)
        variables[RESIDUAL_SPECTRUM] = xr.DataArray(sums["residual_spectrum"] / float(state["pixels"]), dims=(ENERGY,))
    return evidence(sums, judge, cube=view.cube, model=model, maps=maps)


def _residual_of_given(x: Any, c: Any, *, s: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Residual of a block with given maps c (P, K) and spectra s (K, E), and these maps."""
    pixels, sums = residual_of_block(x, c, s=s)
    return {**pixels, ABUNDANCES: c}, sums


def _basis(view: Blocks, state: State, variables: Variables, s: Any) -> dict[str, Any] | None:
    """Model and mean of the fitted cube, for `judged`; None where the spectra are not on the channels of the cube.

    view: the fitted cube. state: of the finished fit. variables: of the result. s (K, E): spectra on the channels of
    the cube, where these are not the endmembers.
    """
    rows = np.asarray(variables[ENDMEMBERS].values if s is None else s, dtype=np.float64)
    if rows.shape[1] != view.n_energies:
        return None
    mean = np.asarray(state["spectrum"] / float(state["pixels"])) if "spectrum" in state else None
    offset = variables["offset"].values if "offset" in variables else np.zeros(rows.shape[1])
    grid = Grid(tuple(view.shape), view.n_energies)
    return {"s": rows, "offset": np.asarray(offset, dtype=np.float64), "mean": mean, "grid": grid}


def computed_at_once(map_bytes: int, memory: int) -> bool:
    """Whether the maps are computed when the fit ends. map_bytes: of all maps. memory: of all workers."""
    return map_bytes <= min(CLIENT_MAP_BYTES, int(MAPS_SHARE * memory))


def _map_bytes(view: Blocks, columns: int) -> int:
    return int(np.prod(view.shape)) * columns * 4


def _as_maps(handle: Pixels, columns: dict[str, int], *, in_memory: bool) -> xr.DataArray:
    """Maps like the cube: lazy and chunked like its blocks for a lazy cube, numpy for a cube in memory."""
    lazy = handle.to_dataarray(columns)
    if not in_memory:
        return lazy
    here = lazy.compute()
    wrap = handle.view.cube.chunks is not None and (not capacity().remote or here.nbytes <= GRAPH_ARRAY_BYTES)
    return here.chunk(dict(zip(lazy.dims, lazy.chunks or (), strict=True))) if wrap else here


def label(variables: dict[str, xr.DataArray], cube: xr.DataArray) -> None:
    """Give the variables of a result their names and units."""
    unit = str(cube.attrs.get("units", "counts" if cube.dtype.kind == "u" else "intensity"))
    words = {
        ENDMEMBERS: ("endmember spectrum", unit),
        ABUNDANCES: ("abundance", ""),
        RESIDUAL: ("root mean square residual over the channels", unit),
        RESIDUAL_SPECTRUM: ("mean of data minus model", unit),
    }
    for name, (text, units) in words.items():
        if name in variables:
            variables[name].attrs = {"long_name": text, "units": units, **variables[name].attrs}
