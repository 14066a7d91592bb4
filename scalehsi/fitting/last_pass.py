"""The last pass of a fit: abundance maps, residual maps, and their labels."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr

from scalehsi.blocks import Blocks, Pixels, branch, capacity, map_fold, map_pixels, open_blocks, open_surrounded
from scalehsi.fitting.model import Model, State, Variables
from scalehsi.kernels.pixel_rows.residual import leftover
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY, RESIDUAL, RESIDUAL_SPECTRUM

HOME_BYTES: Final = 64 * 2**20
"""Maps up to this size come home when the fit ends; larger ones stay lazy and are computed where they are used."""


GRAPH_BYTES: Final = 8 * 2**20
"""Arrays above this are not put inside graphs that travel to other processes."""


def _add_maps(view: Blocks, model: Model, state: State, variables: Variables, *, residual: bool) -> None:
    """The maps by the model's block function, and what they leave."""
    frame = xr.Dataset(variables, attrs={"model": model.name})
    n = frame.sizes[COMPONENT]
    wanted = [ABUNDANCES, *([RESIDUAL] if residual else [])]
    home = _map_bytes(view, n + residual) <= HOME_BYTES
    name = f"{model.name.lower()}-maps"
    seen: dict[str, Any] = {"halo": model.halo, "tile": model.halo > 0}
    # A halo is read along: the cube's own blocks with it would be a second copy.
    target = view
    if model.halo:
        target = branch(view, "maps", lambda: open_surrounded(view.cube, device=view.device, packed=model.packed))
    fn, shared, along = model.last_pass(target, frame)
    shared = {**shared, "residual": residual}
    handles, sums = map_fold(fn, target, *along, shared=shared, keep=wanted if home else (), name=name, **seen)
    if not home:
        lazy = target if model.halo else open_blocks(view.cube, device=view.device, resident=False)
        lazy.branches.update(view.branches)
        along = model.last_pass(lazy, frame)[-1]
        handles = map_pixels(fn, lazy, *along, shared=shared, keep=wanted, name=name, **seen)
    variables[ABUNDANCES] = _maps(handles[ABUNDANCES], {COMPONENT: n}, home=home)
    if residual:
        pixels = float(state["pixels"])
        variables[RESIDUAL] = _maps(handles[RESIDUAL], {}, home=home)
        variables[RESIDUAL_SPECTRUM] = xr.DataArray(sums["residual_spectrum"] / pixels, dims=(ENERGY,))


def _add_residual(view: Blocks, model: Model, state: State, variables: Variables) -> None:
    """What the maps leave where the model brought them itself."""
    maps = variables[ABUNDANCES]
    rows = maps.fillna(0.0).transpose(*[d for d in maps.dims if d != COMPONENT], COMPONENT)
    s = np.asarray(variables[ENDMEMBERS].values, dtype=np.float64)
    name = f"{model.name.lower()}-residual"
    handles, sums = map_fold(leftover, view, rows, shared={"s": s}, keep=[RESIDUAL], name=name)
    variables[RESIDUAL] = _maps(handles[RESIDUAL], {}, home=True)
    variables[RESIDUAL_SPECTRUM] = xr.DataArray(sums["residual_spectrum"] / float(state["pixels"]), dims=(ENERGY,))


def _map_bytes(view: Blocks, columns: int) -> int:
    return int(np.prod(view.shape)) * columns * 4


def _maps(handle: Pixels, columns: dict[str, int], *, home: bool) -> xr.DataArray:
    """Maps as the cube is: lazy ones chunked like the blocks for a lazy cube, numpy for a cube in memory."""
    lazy = handle.to_dataarray(columns)
    if not home:
        return lazy
    here = lazy.compute()
    wrap = handle.view.cube.chunks is not None and (not capacity().remote or here.nbytes <= GRAPH_BYTES)
    return here.chunk(dict(zip(lazy.dims, lazy.chunks or (), strict=True))) if wrap else here


def _label(variables: dict[str, xr.DataArray], cube: xr.DataArray) -> None:
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
