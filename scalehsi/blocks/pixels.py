"""The handle of what is aligned with the pixels of a cube, and the way back from it to maps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import Delayed

from scalehsi.blocks import feed as feeds
from scalehsi.blocks import graph
from scalehsi.blocks import tile as tiles
from scalehsi.blocks.bundle import cut_bundles
from scalehsi.blocks.cut import Cuts
from scalehsi.cube import navigation_dims
from scalehsi.schema import MASK, InputError


@dataclass(frozen=True)
class Pixels:
    """A pixel-aligned handle: one array of P rows a block, wherever it lives.

    Attributes
    ----------
    view : Cuts
        The cube and its grid.
    held : tuple of Delayed
        Bundles of the rows of ``step`` blocks each; with a ``step`` of 0 the rows of a block each.
    step : int
    """

    view: Cuts
    held: tuple[Delayed, ...]
    step: int = 0

    @property
    def parts(self) -> tuple[Delayed, ...]:
        """The rows of each block."""
        if not self.step:
            return self.held
        slices = cut_bundles(len(self.view), self.step)
        return graph.tasks(
            self.view.key("rows"),
            [
                (partial(feeds.pick, i), (bundle,))
                for bundle, part in zip(self.held, slices, strict=True)
                for i in range(part.stop - part.start)
            ],
        )

    def bundled(self, step: int) -> tuple[Delayed, ...]:
        """The rows in bundles of ``step`` blocks."""
        if step == self.step:
            return self.held
        parts = self.parts
        slices = cut_bundles(len(self.view), step)
        return graph.tasks(self.view.key("bundle"), [(feeds.pack, parts[part]) for part in slices])

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
