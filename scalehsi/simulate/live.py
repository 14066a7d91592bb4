"""Play an acquisition: write a cube into a store block after block, as a microscope does."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xarray as xr

from scalehsi.checks import choice
from scalehsi.cube import check_cube
from scalehsi.io.atomic import check_destination, local_path
from scalehsi.io.save import as_dataset, check_store_name
from scalehsi.io.zarr_layout import with_layout
from scalehsi.io.zarr_store import create_arrays, mark_complete
from scalehsi.simulate.scene import whole

Window = tuple[slice, ...]


def acquire(
    cube: xr.DataArray, path: str | os.PathLike[str], *, block: int = 16, order: str = "raster"
) -> Iterator[Window]:
    """Write a cube into a new store, one block of the scan each time the next one is asked for.

    ``for _ in scalehsi.simulate.acquire(cube, "scan.zarr"): time.sleep(0.5)`` plays an acquisition, which
    `scalehsi.watch` in another process follows.

    Parameters
    ----------
    cube : xarray.DataArray
        What is acquired, such as a scene of `scalehsi.simulate`; lazy or in memory.
    path : path
        The store, which must not exist. It is there with its axes before the first block, and marked as complete after
        the last.
    block : int, default 16
        Pixels of a block, which is a chunk of the store, along y and x.
    order : {"raster", "serpentine"}
        Whether every row of blocks begins at the left, or every other one at the right.

    Returns
    -------
    iterator of tuple of slice
        The window of each block that was written, along the pixel dims.

    Raises
    ------
    InputError
        When the path exists or is no name of a store, or a setting is wrong.

    Examples
    --------
    >>> import tempfile
    >>> from scalehsi.simulate import chequerboard
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [w[1].start for w in acquire(chequerboard((4, 8)).cube, folder + "/scan.zarr", block=4)]
    [0, 4]
    """
    check_cube(cube)
    choice("order", order, ("raster", "serpentine"))
    check_store_name(path)
    place, size = local_path(path), whole("block", block, least=1)
    check_destination(place, overwrite=False)
    return _written(cube, place, size, serpentine=order == "serpentine")


def _written(cube: xr.DataArray, place: Path, size: int, *, serpentine: bool) -> Iterator[Window]:
    """Write the blocks; arguments as in `acquire`."""
    ready, encoding = with_layout(as_dataset(cube), chunk_bytes=1)
    (name,) = map(str, ready.data_vars)
    pixels = cube.shape[:-1]
    sides = tuple(min(size, n) if axis >= len(pixels) - 2 else 1 for axis, n in enumerate(pixels))
    encoding[name] |= {"chunks": (*sides, cube.shape[-1]), "shards": None}
    place.mkdir()
    target = create_arrays(ready, place, encoding, later=[name])[name]
    windows = [[slice(a, min(a + s, n)) for a in range(0, n, s)] for n, s in zip(pixels, sides, strict=True)]
    for row, outer in enumerate(itertools.product(*windows[:-1])):
        for inner in windows[-1][::-1] if serpentine and row % 2 else windows[-1]:
            window = (*outer, inner)
            target[(*window, slice(None))] = np.asarray(cube[window].values)
            yield window
    mark_complete(place, kind="cube", variables=[str(v) for v in ready.variables])
