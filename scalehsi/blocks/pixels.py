"""Handles of values for each pixel that stay in the workers' memory, and their conversion to maps."""

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
    """A handle of values aligned with the pixels of a cube: for each block an array of P rows, in a worker's memory.

    Attributes
    ----------
    view : Cuts
        The cube and its grid of blocks.
    delayed : tuple of Delayed
        The rows of single blocks, or bundles of the rows of several blocks.
    bundle_size : int
        Number of blocks in a bundle; 0 for rows of single blocks.
    """

    view: Cuts
    delayed: tuple[Delayed, ...]
    bundle_size: int = 0

    @property
    def parts(self) -> tuple[Delayed, ...]:
        """The rows of each block."""
        if not self.bundle_size:
            return self.delayed
        slices = cut_bundles(len(self.view), self.bundle_size)
        return graph.tasks(
            self.view.key("rows"),
            [
                (partial(feeds.value_at, i), (bundle,))
                for bundle, part in zip(self.delayed, slices, strict=True)
                for i in range(part.stop - part.start)
            ],
        )

    def bundled(self, bundle_size: int) -> tuple[Delayed, ...]:
        """Return the rows in bundles of ``bundle_size`` blocks."""
        if bundle_size == self.bundle_size:
            return self.delayed
        parts = self.parts
        slices = cut_bundles(len(self.view), bundle_size)
        return graph.tasks(self.view.key("bundle"), [(feeds.bundle_of, parts[part]) for part in slices])

    def to_dataarray(
        self, columns: Mapping[str, int] | None = None, *, dtype: Any = np.float32, fill: float = np.nan
    ) -> xr.DataArray:
        """Return the maps as a lazy DataArray, dims ``(*columns, ..., "y", "x")``, chunked like the blocks.

        Parameters
        ----------
        columns : mapping of str to int, optional
            Names and sizes of the trailing dims of the rows. By default the rows have one number for each pixel.
        dtype : dtype, default float32
            Of the maps.
        fill : float, default NaN
            Value of the pixels that the mask leaves out.

        Returns
        -------
        xarray.DataArray
            With the coordinates of the cube's navigation dims.

        Raises
        ------
        InputError
            When ``dtype`` is an integer type and ``fill`` is NaN.
        """
        columns = dict(columns or {})
        if np.dtype(dtype).kind not in "fc" and np.isnan(fill):
            raise InputError(f"{np.dtype(dtype)} maps cannot hold NaN where the mask leaves a pixel out; type fill=-1")
        view = self.view
        tail = tuple(columns.values())
        convert = [partial(tiles.maps_of_rows, place.shape, tail, np.dtype(dtype), fill) for place in view.places()]
        rows = view.masked(self.parts)
        name = view.key("maps")
        grid = (*((n,) for n in tail), *view.grid)
        cells = itertools.product(*(range(len(sizes)) for sizes in grid))
        calls = {(name, *cell): call for cell, call in zip(cells, zip(convert, rows, strict=True), strict=True)}
        whole = graph.layer_of_tasks(name, calls)
        dims = navigation_dims(view.cube)
        coords = {k: v for k, v in view.cube.coords.items() if set(map(str, v.dims)) <= set(dims) and k != MASK}
        array = da.Array(whole, name, chunks=grid, dtype=np.dtype(dtype))
        return xr.DataArray(array, dims=(*columns, *dims), coords=coords)
