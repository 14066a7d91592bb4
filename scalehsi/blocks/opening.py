"""Cut a cube into blocks of work that fit in the workers' memory, for passes without and with a halo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import dask.array as da
import xarray as xr

from scalehsi import arrays, chunks
from scalehsi.blocks.compute import MAX_INLINE_CUBE_BYTES, Capacity, capacity
from scalehsi.blocks.cut import Cuts
from scalehsi.blocks.view import Blocks
from scalehsi.cube import check_cube
from scalehsi.schema import InputError

MIN_STREAMED_BLOCK_BYTES: Final = 8 * chunks.MiB
"""Smaller stored chunks are joined to blocks of this size also where the cube is read in every pass."""
MAX_STREAMED_BLOCKS: Final = 16384
"""A cube with more blocks gets larger ones: the graphs of a pass and of lazy maps have a part for each block."""
MIN_PACKED_BLOCKS_PER_THREAD: Final = 8
"""For a pass over counts without their zeros."""


def open_blocks(
    cube: xr.DataArray,
    *,
    device: str = "cpu",
    resident: bool | None = None,
    block_bytes: int | None = None,
    here: Capacity | None = None,
    beside: Sequence[xr.DataArray] = (),
) -> Blocks:
    """Cut a cube into blocks of work for the current scheduler; nothing is read yet.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    device : {"cpu", "cuda", "auto"}
        Where the kernels run.
    resident : bool, optional
        True: the blocks stay in the workers' memory between passes. False: they are read again in each pass. By default
        they stay if they fill at most half of the memory.
    block_bytes : int, optional
        Largest size of a block in bytes. By default a block of a resident cube has up to 64 MiB, a block of a streamed
        cube is a stored chunk (or some 8 MiB of smaller ones), each thread has at least two blocks, and the blocks of a
        worker's threads with their copies fit in its memory.
    here : Capacity, optional
        Workers and memory in place of those of the current scheduler.
    beside : sequence of DataArray
        Cubes on the same pixels: their rows reach every block function behind ``x``, cut at the pixels of the first
        one. The mask is that of the first one.

    Returns
    -------
    Blocks
        The blocks, not read yet.

    Raises
    ------
    InputError
        When the metadata are wrong, when the spectrum of one pixel does not fit in a worker's memory, when a cube in
        the client's memory is too large to be sent to worker processes, and when Dask's option array.query-planning is
        on.
    """
    check_cube(cube)
    if not hasattr(da.Array, "to_delayed"):
        raise InputError(
            "Dask's option array.query-planning is on, and that array engine cannot be cut into blocks yet; "
            "type dask.config.set({'array.query-planning': False}) before anything imports dask.array"
        )
    here = here or capacity()
    cubes = (cube, *beside)
    spectrum = sum(each.shape[-1] * each.dtype.itemsize for each in cubes)
    total = math.prod(cube.shape[:-1]) * spectrum
    storage = [each.chunks[:-1] for each in cubes if each.chunks is not None]
    lazy = bool(storage)  # cube.data would read a cube that xarray opened without Dask
    inline = sum(math.prod(each.shape) * each.dtype.itemsize for each in cubes if each.chunks is None)
    if here.remote and inline > MAX_INLINE_CUBE_BYTES:
        raise InputError(
            f"the cube ({inline / 2**30:.1f} GiB) is in this process's memory and would have to travel to the workers; "
            "type scalehsi.save(cube, 'cube.zarr') and fit scalehsi.open_cube('cube.zarr')"
        )
    if resident is None:
        resident = not lazy or total <= here.memory // 2
    if spectrum > here.block_limit:
        raise InputError(
            f"one spectrum ({spectrum / 2**20:.1f} MiB) is more than the {here.block_limit / 2**20:.1f} MiB that a "
            "worker's thread can work on; give the workers more memory or fewer threads, or bin the energy axis"
        )
    largest = min(block_bytes or chunks.WORK_BLOCK_BYTES, here.block_limit)
    grid = chunks.work_chunks(
        (*cube.shape[:-1], spectrum),
        1,
        storage=storage[0] if lazy else None,
        block_bytes=largest,
        min_blocks=1 if block_bytes else _min_blocks(total, here.threads, resident=resident),
    )
    cuts = Cuts(cube, grid, beside)
    return Blocks(cuts, device=arrays.resolve_device(device), resident=resident, threads=here.threads)


def open_surrounded(
    cube: xr.DataArray, *, device: str = "cpu", packed: bool = False, here: Capacity | None = None
) -> Blocks:
    """Cut a cube for one pass with a halo; blocks are streamed, and large because halos are read twice.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    device : {"cpu", "cuda", "auto"}
        Where the kernels run.
    packed : bool, default False
        True: the blocks of a lazy cube are `scalehsi.kernels.pixel_rows.sparse_counts.Counts`. Stored chunks are joined
        to a block after their zeros are dropped, so blocks can be larger, and less is computed twice in halos.
    here : Capacity, optional
        Workers and memory in place of those of the current scheduler.

    Returns
    -------
    Blocks
        The blocks, which are read in the pass.
    """
    if not packed or cube.chunks is None:
        return open_blocks(cube, device=device, resident=False, block_bytes=chunks.WORK_BLOCK_BYTES, here=here)
    here = here or capacity()
    total = math.prod(cube.shape) * cube.dtype.itemsize
    # A block without any zero takes two to three times the bytes of the dense one.
    size = max(min(here.block_limit // 3, total // (MIN_PACKED_BLOCKS_PER_THREAD * here.threads)), chunks.MiB)
    grid = chunks.work_chunks(cube.shape, cube.dtype.itemsize, storage=cube.chunks[:-1], block_bytes=size, compact=True)
    return Blocks(Cuts(cube, grid), device=arrays.resolve_device(device), resident=False, packed=True)


def open_tiles(cube: xr.DataArray, grid: Sequence[Sequence[int]], *, device: str = "cpu") -> Blocks:
    """Cut a cube into streamed blocks of given sizes.

    Parameters
    ----------
    cube : xarray.DataArray
        Dims ``(..., "y", "x", "energy")``.
    grid : sequence of sequences of int
        Sizes of the blocks along each pixel dim.
    device : {"cpu", "cuda", "auto"}
        Where the kernels run.

    Returns
    -------
    Blocks
        The blocks, which are read in each pass.
    """
    check_cube(cube)
    return Blocks(Cuts(cube, tuple(map(tuple, grid))), device=arrays.resolve_device(device), resident=False)


def _min_blocks(total: int, threads: int, *, resident: bool) -> int:
    """Choose the least number of blocks of a cube of ``total`` bytes.

    Two blocks for each thread balance the load, but a block under 4 MiB takes longer to schedule than to compute.
    Where the cube is read in every pass, joining chunks to a block takes 10 % of the time, and a task works on many
    blocks anyway, so blocks are as small as chunks.
    """
    enough = max(1, min(2 * threads, total // (4 * chunks.MiB)))
    return enough if resident else max(enough, min(MAX_STREAMED_BLOCKS, total // MIN_STREAMED_BLOCK_BYTES))
