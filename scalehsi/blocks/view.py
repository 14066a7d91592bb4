"""A cube cut into blocks of work, and the handles of what is aligned with its pixels."""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed

from scalehsi import arrays, chunks
from scalehsi.blocks import graph
from scalehsi.blocks import tile as tiles
from scalehsi.blocks.compute import LITERAL_LIMIT, RETRIES, Report, capacity, quiet_graphs
from scalehsi.blocks.tile import Place, reach
from scalehsi.cube import check_cube, navigation_dims
from scalehsi.schema import MASK, InputError


class Blocks:
    """A cube cut into blocks of work, opened once for all passes of an algorithm.

    Made by `open_blocks`. Keep it alive while its passes run: resident blocks are released with it. ``report`` is
    called for the blocks of every pass that brings no callable of its own.
    """

    def __init__(
        self, cube: xr.DataArray, *, device: arrays.Device, resident: bool, grid: tuple[tuple[int, ...], ...]
    ) -> None:
        self.cube = cube
        self.device: arrays.Device = device
        self.resident = resident
        self.grid = grid
        self.shape = tuple(cube.shape[:-1])
        self.n_energies = int(cube.shape[-1])
        self.report: Report | None = None
        self._tiles: dict[int, tuple[Delayed, ...]] = {}
        self._token = uuid.uuid4().hex[:8]
        self._passes = itertools.count()

    def __len__(self) -> int:
        return math.prod(len(sizes) for sizes in self.grid)

    @property
    def block_bytes(self) -> int:
        """Bytes of the largest block in the cube's own dtype."""
        return math.prod(max(sizes) for sizes in self.grid) * self.n_energies * self.cube.dtype.itemsize

    def key(self, name: str) -> str:
        """A task name that shows as ``name`` on the dashboard and is never used twice."""
        return f"{name}-{self._token}0-{next(self._passes)}"

    def places(self, halo: int = 0) -> list[Place]:
        """The blocks in C order of the grid."""
        starts = [np.cumsum((0, *sizes[:-1])) for sizes in self.grid]
        sides = reach(self.shape, halo)
        found = []
        for cell in itertools.product(*(range(len(sizes)) for sizes in self.grid)):
            start = tuple(int(starts[a][i]) for a, i in enumerate(cell))
            shape = tuple(self.grid[a][i] for a, i in enumerate(cell))
            before = tuple(min(r, s) for r, s in zip(sides, start, strict=True))
            after = tuple(min(r, n - s - w) for r, n, s, w in zip(sides, self.shape, start, shape, strict=True))
            found.append(Place(self.shape, start, shape, before, after, has_halo=halo > 0))
        return found

    @cached_property
    def _mask(self) -> Any:
        return None if MASK not in self.cube.coords else self.cube[MASK].data

    def masked(self, parts: Sequence[Delayed], halo: int = 0) -> list[tuple[Delayed, ...]]:
        """Each part with the mask of its block, or alone where the cube has no mask."""
        if self._mask is None:
            return [(part,) for part in parts]
        return list(zip(parts, self._cut(self._mask, halo), strict=True))

    def _cut(self, data: Any, halo: int) -> tuple[Delayed, ...]:
        """One delayed numpy array a block, of an array whose first dims are the navigation dims."""
        if not isinstance(data, da.Array):
            # Views, not copies; they travel inside the graph where the workers are other processes.
            values = np.asarray(data)
            return graph.values(self.key("slice"), [values[place.window] for place in self.places(halo)])
        data = data.rechunk((*self.grid, *((n,) for n in data.shape[len(self.grid) :])))
        parts = tuple(data.to_delayed().reshape(-1))
        return self._surround(parts, halo) if halo else parts

    def _surround(self, parts: Sequence[Delayed], halo: int) -> tuple[Delayed, ...]:
        """Each block with its halo, from as many neighbours as that takes: a halo may be wider than a block."""
        counts = [len(sizes) for sizes in self.grid]
        edges = [[0, *itertools.accumulate(sizes)] for sizes in self.grid]
        crops: list[graph.Call] = []
        joins: list[tuple[Any, list[int]]] = []
        for place in self.places(halo):
            windows = [
                tiles.cover(edge, window.start, window.stop) for edge, window in zip(edges, place.window, strict=True)
            ]
            pieces, targets = [], []
            for cells in itertools.product(*windows):
                neighbour = parts[int(np.ravel_multi_index([cell for cell, _, _ in cells], counts))]
                pieces.append(len(crops))
                crops.append((partial(tiles.crop, tuple(inside for _, inside, _ in cells)), (neighbour,)))
                targets.append(tuple(target for _, _, target in cells))
            joins.append((partial(tiles.join, place.outer, targets), pieces))
        made = graph.tasks(self.key("halo-crop"), crops)
        return graph.tasks(self.key("halo"), [(join, [made[i] for i in pieces]) for join, pieces in joins])

    def tiles(self, halo: int = 0, *, load: bool = True) -> tuple[Delayed, ...]:
        """The tile of each block: held in the workers' memory when resident, read again each pass when streamed.

        With ``load=False`` nothing starts: tiles that no pass has loaded yet stay lazy.
        """
        if halo in self._tiles:
            return self._tiles[halo]
        if load and isinstance(self._mask, da.Array):
            # A mask computed from the cube would read the cube again for every handle and pass.
            (self._mask,) = dask.persist(self._mask.rechunk(self.grid), retries=RETRIES)
        loads = [partial(tiles.load, place, self.device) for place in self.places(halo)]
        raws = self.masked(self._cut(self.cube.data, halo), halo)
        made = graph.tasks(self.key("load"), zip(loads, raws, strict=True))
        if not load:
            return made
        if self.resident:
            with quiet_graphs():
                made = graph.gathered(self.key("loaded"), dask.persist(*made, retries=RETRIES))
        self._tiles[halo] = made
        return made

    def align(self, values: xr.DataArray) -> Pixels:
        """Make a handle of maps: dims the cube's pixel dims and any others, which become the columns in their order."""
        return Pixels(self, self._rows(values, 0))

    def _rows(self, values: xr.DataArray, halo: int) -> tuple[Delayed, ...]:
        dims = navigation_dims(self.cube)
        want = dict(zip(dims, self.shape, strict=True))
        if {d: values.sizes.get(d) for d in dims} != want:
            raise InputError(f"maps over the pixels {want} are expected, got {dict(values.sizes)}")
        cut = self._cut(values.transpose(*dims, ...).data, halo)
        raws = [(part,) for part in cut] if halo else self.masked(cut)
        return graph.tasks(
            self.key("align"), [(partial(tiles.rows, len(self.grid), self.device), given) for given in raws]
        )

    def aligned(self, given: Pixels | xr.DataArray, halo: int) -> tuple[Delayed, ...]:
        """One array of rows a block, for the pixels that the tiles of this halo hold."""
        if not isinstance(given, Pixels):
            return self._rows(given, halo)
        if halo:
            raise InputError(
                "with a halo an aligned array is a DataArray over pixel dims; type handle.to_dataarray(...)"
            )
        if given.view.grid != self.grid:
            raise InputError(
                "the handle comes from a cube cut into other blocks; open the cube once and use its blocks for both "
                "passes, or type handle.to_dataarray(...)"
            )
        return given.parts


@dataclass(frozen=True)
class Pixels:
    """A pixel-aligned handle: one array of P rows a block, wherever it lives."""

    view: Blocks
    parts: tuple[Delayed, ...]

    def to_dataarray(
        self, columns: Mapping[str, int] | None = None, *, dtype: Any = np.float32, fill: float = np.nan
    ) -> xr.DataArray:
        """Give the maps as a lazy DataArray, dims ``(*columns, ..., "y", "x")``, chunked like the blocks.

        Parameters
        ----------
        columns : mapping of str to int, optional
            Names and sizes of the trailing dims of the rows; none for one number a pixel.
        dtype : dtype, default float32
        fill : float, default NaN
            What stands where the mask leaves a pixel out.
        """
        columns = dict(columns or {})
        if np.dtype(dtype).kind not in "fc" and np.isnan(fill):
            raise InputError(f"{np.dtype(dtype)} maps cannot hold NaN where the mask leaves a pixel out; type fill=-1")
        view = self.view
        tail = tuple(columns.values())
        made = [partial(tiles.maps, place.shape, tail, np.dtype(dtype), fill) for place in view.places()]
        given = view.masked(self.parts)
        name = view.key("maps")
        grid = (*((n,) for n in tail), *view.grid)
        cells = itertools.product(*(range(len(sizes)) for sizes in grid))
        calls = {(name, *cell): call for cell, call in zip(cells, zip(made, given, strict=True), strict=True)}
        whole = graph.layer_of_tasks(name, calls)
        dims = navigation_dims(view.cube)
        coords = {k: v for k, v in view.cube.coords.items() if set(map(str, v.dims)) <= set(dims) and k != MASK}
        array = da.Array(whole, name, chunks=grid, dtype=np.dtype(dtype))
        return xr.DataArray(array, dims=(*columns, *dims), coords=coords)


def open_blocks(
    cube: xr.DataArray,
    *,
    device: str = "cpu",
    resident: bool | None = None,
    block_bytes: int | None = None,
) -> Blocks:
    """Cut a cube into blocks of work for the scheduler that is current. Reads nothing yet.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    device : {"cpu", "cuda", "auto"}
        Where the kernels run.
    resident : bool, optional
        True: the blocks stay in the workers' memory between passes. False: they are read again each pass. Default: they
        stay if they fill at most half of the memory.
    block_bytes : int, optional
        Upper size of a block in bytes. Default: up to 64 MiB, at least two blocks a thread, and small enough that a
        worker's threads and their copies stay within its memory.

    Raises
    ------
    InputError
        When the metadata are not in order, when one pixel's spectrum is more than a worker can hold, when a cube in
        the client's memory is too large to travel to worker processes, and when Dask runs its next array engine.
    """
    check_cube(cube)
    if not hasattr(da.Array, "to_delayed"):
        raise InputError(
            "Dask's option array.query-planning is on, and that array engine cannot be cut into blocks yet; "
            "type dask.config.set({'array.query-planning': False}) before anything imports dask.array"
        )
    here = capacity()
    total = math.prod(cube.shape) * cube.dtype.itemsize
    lazy = cube.chunks is not None  # asking cube.data would read a cube that xarray opened without Dask
    if not lazy and here.remote and total > LITERAL_LIMIT:
        raise InputError(
            f"the cube ({total / 2**30:.1f} GiB) is in this process's memory and would have to travel to the workers; "
            "type scalehsi.save(cube, 'cube.zarr') and fit scalehsi.open_cube('cube.zarr')"
        )
    if resident is None:
        resident = not lazy or total <= here.memory // 2
    spectrum = cube.shape[-1] * cube.dtype.itemsize
    if spectrum > here.block_limit:
        raise InputError(
            f"one spectrum ({spectrum / 2**20:.1f} MiB) is more than the {here.block_limit / 2**20:.1f} MiB that a "
            "worker's thread can work on; give the workers more memory or fewer threads, or bin the energy axis"
        )
    most = min(block_bytes or chunks.WORK_BLOCK_BYTES, here.block_limit)
    grid = chunks.work_chunks(
        cube.shape,
        cube.dtype.itemsize,
        storage=cube.chunks[:-1] if cube.chunks is not None else None,
        block_bytes=most,
        min_blocks=1 if block_bytes else _enough_blocks(total, here.threads),
    )
    return Blocks(cube, device=arrays.resolve_device(device), resident=resident, grid=grid)


def _enough_blocks(total: int, threads: int) -> int:
    """Two blocks a thread balance the load, but a block under 4 MiB costs more to schedule than to compute."""
    return max(1, min(2 * threads, total // (4 * chunks.MiB)))
