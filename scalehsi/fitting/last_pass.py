"""The last pass of a fit: abundance maps, residual maps, and their labels."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.blocks import Blocks, Pixels, branch, capacity, map_fold, map_pixels, open_blocks, open_surrounded
from scalehsi.fitting.model import Model, State, Variables
from scalehsi.kernels.pixel_rows.residual import residual_of_block
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, RESIDUAL, RESIDUAL_SPECTRUM

CLIENT_MAP_BYTES: Final = 64 * 2**20
"""Maps up to this size are computed when the fit ends; larger ones stay lazy and are computed where they are used."""
GRAPH_ARRAY_BYTES: Final = 8 * 2**20
"""Arrays above this are not embedded in graphs that are sent to other processes."""


def add_maps(view: Blocks, model: Model, state: State, variables: Variables, *, residual: bool) -> None:
    """Add the maps by the model's block function, and their residual, to the variables.

    view: the fitted cube. state: of the finished fit. variables: from `Model.finish`; changed in place.
    residual: also the residual of each pixel and channel.
    """
    frame = xr.Dataset(variables, attrs={"model": model.name})
    n = frame.sizes[COMPONENT]
    wanted = [ABUNDANCES, *([RESIDUAL] if residual else [])]
    in_memory = _map_bytes(view, n + residual) <= CLIENT_MAP_BYTES
    name = f"{model.name.lower()}-maps"
    halo: dict[str, Any] = {"halo": model.halo, "tile": model.halo > 0}
    # Blocks with a halo are read again: kept beside the cube's own blocks they would be a second copy.
    target = view
    if model.halo:
        target = branch(
            view, "maps", lambda: open_surrounded(view.cube, device=view.device, packed=model.takes_sparse_counts)
        )
    fn, shared, aligned = model.map_pass(target, frame)
    shared = {**shared, "residual": residual}
    handles, sums = map_fold(fn, target, *aligned, shared=shared, keep=wanted if in_memory else (), name=name, **halo)
    if not in_memory:
        lazy = target if model.halo else open_blocks(view.cube, device=view.device, resident=False)
        lazy.branches.update(view.branches)
        aligned = model.map_pass(lazy, frame)[-1]
        handles = map_pixels(fn, lazy, *aligned, shared=shared, keep=wanted, name=name, **halo)
    variables[ABUNDANCES] = _as_maps(handles[ABUNDANCES], {COMPONENT: n}, in_memory=in_memory)
    if residual:
        pixels = float(state["pixels"])
        variables[RESIDUAL] = _as_maps(handles[RESIDUAL], {}, in_memory=in_memory)
        variables[RESIDUAL_SPECTRUM] = xr.DataArray(sums["residual_spectrum"] / pixels, dims=(ENERGY,))


def add_residual(view: Blocks, model: Model, state: State, variables: Variables) -> None:
    """Add the residual of maps that the model itself found to the variables.

    view: the fitted cube. state: of the finished fit. variables: from `Model.finish`; changed in place.
    """
    maps = variables[ABUNDANCES]
    rows = maps.fillna(0.0).transpose(*[d for d in maps.dims if d != COMPONENT], COMPONENT)
    s = np.asarray(variables[ENDMEMBERS].values, dtype=np.float64)
    name = f"{model.name.lower()}-residual"
    handles, sums = map_fold(residual_of_block, view, rows, shared={"s": s}, keep=[RESIDUAL], name=name)
    variables[RESIDUAL] = _as_maps(handles[RESIDUAL], {}, in_memory=True)
    variables[RESIDUAL_SPECTRUM] = xr.DataArray(sums["residual_spectrum"] / float(state["pixels"]), dims=(ENERGY,))


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
