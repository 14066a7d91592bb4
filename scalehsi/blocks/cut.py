"""Arrays over the pixels of a cube, cut into blocks: where these lie, their halo, and the mask that goes along."""

from __future__ import annotations

import itertools
import math
import uuid
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed

from scalehsi.blocks import graph
from scalehsi.blocks import tile as tiles
from scalehsi.blocks.compute import RETRIES
from scalehsi.blocks.tile import Place, reach
from scalehsi.schema import MASK


class Cuts:
    """One grid of blocks over a cube; what is cut by it is aligned."""

    def __init__(self, cube: xr.DataArray, grid: tuple[tuple[int, ...], ...]) -> None:
        self.cube = cube
        self.grid = grid
        self.shape = tuple(cube.shape[:-1])
        self._token = uuid.uuid4().hex[:8]
        self._names = itertools.count()
        self._mask_held = False

    def __len__(self) -> int:
        return math.prod(len(sizes) for sizes in self.grid)

    def key(self, name: str) -> str:
        """A task name that shows as ``name`` on the dashboard and is never used twice."""
        return f"{name}-{self._token}0-{next(self._names)}"

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
    def mask(self) -> Any:
        """The mask's data, or None where the cube has none."""
        return None if MASK not in self.cube.coords else self.cube[MASK].data

    def hold_mask(self) -> bool:
        """Compute a lazy mask, once: else one that comes from the cube would read it for every handle and pass.

        True when it did.
        """
        if self._mask_held or not isinstance(self.mask, da.Array):
            return False
        (self.mask,) = dask.persist(self.mask.rechunk(self.grid), retries=RETRIES)
        self._mask_held = True
        return True

    def masks(self, halo: int = 0) -> tuple[Delayed, ...] | None:
        """The mask of each block, or None where the cube has none."""
        return None if self.mask is None else self.cut(self.mask, halo)

    def masked(self, parts: Sequence[Delayed], halo: int = 0) -> list[tuple[Delayed, ...]]:
        """Each part with the mask of its block, or alone where the cube has no mask."""
        masks = self.masks(halo)
        return [(part,) for part in parts] if masks is None else list(zip(parts, masks, strict=True))

    def cut(self, data: Any, halo: int = 0) -> tuple[Delayed, ...]:
        """One delayed numpy array a block, of an array whose first dims are the navigation dims."""
        if not isinstance(data, da.Array):
            # Views, not copies; they travel inside the graph where the workers are other processes.
            values = np.asarray(data)
            return graph.values(self.key("slice"), [values[place.window] for place in self.places(halo)])
        data = data.rechunk((*self.grid, *((n,) for n in data.shape[len(self.grid) :])))
        parts = tuple(data.to_delayed().reshape(-1))
        return self._surround(parts, halo) if halo else parts

    def pack(self, data: da.Array, halo: int) -> tuple[Delayed, ...]:
        """Each block with its halo as `Counts`. Stored chunks lose their zeros as they are read, one by one."""
        data = data.rechunk({data.ndim - 1: -1})
        chunks = data.chunks[:-1]
        packed = graph.tasks(self.key("pack"), [(tiles.pack, (part,)) for part in data.to_delayed().reshape(-1)])
        return self._surround(packed, halo, chunks=chunks, packed=True)

    def _surround(
        self, parts: Sequence[Delayed], halo: int, *, chunks: Sequence[Sequence[int]] = (), packed: bool = False
    ) -> tuple[Delayed, ...]:
        """Each block with its halo, from as many parts as that takes: a halo may be wider than a block.

        The parts are blocks of the grid, or of other ``chunks``.
        """
        chunks = chunks or self.grid
        counts = [len(sizes) for sizes in chunks]
        edges = [[0, *itertools.accumulate(sizes)] for sizes in chunks]
        join = tiles.join_packed if packed else tiles.join
        crops: list[graph.Call] = []
        joins: list[tuple[Any, list[int]]] = []
        for place in self.places(halo):
            windows = [
                tiles.cover(edge, window.start, window.stop) for edge, window in zip(edges, place.window, strict=True)
            ]
            pieces, targets = [], []
            for cells in itertools.product(*windows):
                place_of = [cell for cell, _, _ in cells]
                inside = tuple(part for _, part, _ in cells)
                shape = tuple(sizes[i] for sizes, i in zip(chunks, place_of, strict=True))
                crop = partial(tiles.crop_packed, shape, inside) if packed else partial(tiles.crop, inside)
                pieces.append(len(crops))
                crops.append((crop, (parts[int(np.ravel_multi_index(place_of, counts))],)))
                targets.append(tuple(target for _, _, target in cells))
            joins.append((partial(join, place.outer, targets), pieces))
        made = graph.tasks(self.key("halo-crop"), crops)
        return graph.tasks(self.key("halo"), [(call, [made[i] for i in pieces]) for call, pieces in joins])
