"""Cut a cube, and the arrays over its pixels, into blocks: where each block lies, its halo and its part of the mask."""

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
from scalehsi.blocks.tile import Place, halo_sizes
from scalehsi.schema import MASK


class Cuts:
    """One grid of blocks over a cube; arrays cut by the same grid are aligned block by block.

    ``cube`` has the dims (..., y, x, energy); ``grid`` has the sizes of the blocks along each navigation dim;
    ``beside`` are cubes on the same pixels that are cut by the same grid, and ``cubes`` are all of them.
    """

    def __init__(
        self, cube: xr.DataArray, grid: tuple[tuple[int, ...], ...], beside: Sequence[xr.DataArray] = ()
    ) -> None:
        self.cube = cube
        self.grid = grid
        self.beside = tuple(beside)
        self.cubes = (cube, *self.beside)
        self.shape = tuple(cube.shape[:-1])
        self._token = uuid.uuid4().hex[:8]
        self._names = itertools.count()
        self._mask_computed = False

    def __len__(self) -> int:
        return math.prod(len(sizes) for sizes in self.grid)

    def key(self, name: str) -> str:
        """Return a unique task name that the dashboard shows as ``name``."""
        return f"{name}-{self._token}0-{next(self._names)}"

    def places(self, halo: int = 0) -> list[Place]:
        """Return the place of each block, in C order of the grid, with ``halo`` pixels on each side along y and x."""
        starts = [np.cumsum((0, *sizes[:-1])) for sizes in self.grid]
        sides = halo_sizes(self.shape, halo)
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
        """The data of the cube's mask, or None where it has none."""
        return None if MASK not in self.cube.coords else self.cube[MASK].data

    def compute_mask(self) -> bool:
        """Compute a lazy mask the first time; return True when this call did it.

        A mask computed from the cube would otherwise read the cube for every handle and in every pass.
        """
        if self._mask_computed or not isinstance(self.mask, da.Array):
            return False
        (self.mask,) = dask.persist(graph.rechunked(self.mask, self.grid), retries=RETRIES)
        self._mask_computed = True
        return True

    def masks(self, halo: int = 0) -> tuple[Delayed, ...] | None:
        """Return the mask of each block, or None where the cube has none."""
        return None if self.mask is None else self.cut(self.mask, halo)

    def masked(self, parts: Sequence[Delayed], halo: int = 0) -> list[tuple[Delayed, ...]]:
        """Pair each part with the mask of its block; alone where the cube has no mask."""
        masks = self.masks(halo)
        return [(part,) for part in parts] if masks is None else list(zip(parts, masks, strict=True))

    def cut(self, data: Any, halo: int = 0) -> tuple[Delayed, ...]:
        """Return the part of ``data`` (navigation dims first) in each block, as delayed numpy arrays."""
        if not isinstance(data, da.Array):
            # Views, not copies. Where the workers are other processes, they are sent inside the graph.
            values = np.asarray(data)
            return graph.values(self.key("slice"), [values[place.window] for place in self.places(halo)])
        data = graph.rechunked(data, (*self.grid, *((n,) for n in data.shape[len(self.grid) :])))
        parts = tuple(data.to_delayed().reshape(-1))
        return self._surround(parts, halo) if halo else parts

    def pack(self, data: da.Array, halo: int) -> tuple[Delayed, ...]:
        """Return each block with its halo as `Counts`; the zeros of each stored chunk are dropped as it is read."""
        data = graph.rechunked(data, {data.ndim - 1: -1})
        chunks = data.chunks[:-1]
        packed = graph.tasks(self.key("pack"), [(tiles.pack, (part,)) for part in data.to_delayed().reshape(-1)])
        return self._surround(packed, halo, chunks=chunks, packed=True)

    def _surround(
        self, parts: Sequence[Delayed], halo: int, *, chunks: Sequence[Sequence[int]] = (), packed: bool = False
    ) -> tuple[Delayed, ...]:
        """Assemble each block with its halo from all parts that it overlaps; a halo may be wider than a block.

        ``parts`` are the blocks of the grid, or those of other ``chunks``; ``packed`` ones are `Counts`.
        """
        chunks = chunks or self.grid
        counts = [len(sizes) for sizes in chunks]
        edges = [[0, *itertools.accumulate(sizes)] for sizes in chunks]
        join = tiles.join_packed if packed else tiles.join
        crops: list[graph.Call] = []
        joins: list[tuple[Any, list[int]]] = []
        for place in self.places(halo):
            windows = [
                tiles.overlaps(edge, window.start, window.stop)
                for edge, window in zip(edges, place.window, strict=True)
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
        cropped = graph.tasks(self.key("halo-crop"), crops)
        return graph.tasks(self.key("halo"), [(call, [cropped[i] for i in pieces]) for call, pieces in joins])
