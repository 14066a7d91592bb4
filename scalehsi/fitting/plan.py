"""Memory, blocks and passes of a fit before anything is read; a fit that cannot work is refused with a repair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NoReturn

import xarray as xr
from dask.utils import format_bytes

from scalehsi.blocks import Capacity, capacity, open_blocks
from scalehsi.blocks.compute import PROCESS_BYTES
from scalehsi.chunks import WORK_BLOCK_BYTES, MiB
from scalehsi.fitting.model import Model
from scalehsi.fitting.sources import select_inputs
from scalehsi.schema import InputError

BLOCKS_PER_THREAD: Final = 3
"""A thread holds the stored form of a block, the rows for the kernel, and the next block while it is read."""


@dataclass(frozen=True)
class Plan:
    """Memory, blocks and passes of a fit.

    Attributes
    ----------
    model : str
        Name of the method.
    cube_bytes, blocks, block_bytes : int
        Size of the cube in its own dtype, number of blocks, size of the largest block.
    resident : bool
        True: blocks stay in the workers' memory. False: they are read again each pass.
    workers, threads : int
        Of the current scheduler.
    worker_bytes : int
        Largest memory of the data in one worker; an upper bound, tested against the memory that workers use.
    memory : int
        Memory of one worker.
    passes, reads : int
        Passes over the cube at most, and how many of them read it from its store.
    reduced_bytes : int
        Bytes that all blocks of one pass send to the reduction.
    maps_bytes : int
        Size of the maps of the result.
    """

    model: str
    cube_bytes: int
    blocks: int
    block_bytes: int
    resident: bool
    workers: int
    threads: int
    worker_bytes: int
    memory: int
    passes: int
    reads: int
    reduced_bytes: int
    maps_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)

    def __str__(self) -> str:
        where = "kept in the workers' memory" if self.resident else "read again each pass"
        return "\n".join(
            (
                f"{self.model}: {format_bytes(self.cube_bytes)} in {self.blocks} blocks of up to "
                f"{format_bytes(self.block_bytes)}, {where}",
                f"{self.workers} worker(s), {self.threads} thread(s) in all; "
                f"up to {format_bytes(self.worker_bytes)} of {format_bytes(self.memory)} a worker",
                f"at most {self.passes} passes, {self.reads} of them from the store; "
                f"{format_bytes(self.reduced_bytes)} reduced a pass; maps of {format_bytes(self.maps_bytes)}",
            )
        )


def plan(cube: xr.DataArray | Mapping[str, xr.DataArray], model: Model) -> Plan:
    """Work out blocks, bytes and passes of a fit on the scheduler that is current. Reads no values.

    Parameters
    ----------
    cube : xarray.DataArray, shape (..., y, x, E), or a mapping of several by name
        As `scalehsi.fit` takes them. Of several cubes the memory is that of all of them, the other figures are those of
        the first.
    model : Model
        For example ``scalehsi.NMF(n_components=3)``.

    Returns
    -------
    Plan
        The figures; it prints as three lines.

    Raises
    ------
    InputError
        When the fit cannot run within the workers' memory; says what would.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, _ = hsi.simulate.phases((10_000, 10_000))
    >>> p = hsi.plan(cube, hsi.NMF(n_components=3))
    >>> p.resident, p.cube_bytes // 2**30
    (False, 184)
    """
    inputs = select_inputs(cube, model)
    other = sum(plan(each, part).worker_bytes for each, part in model.submodels(inputs.others))
    cube = inputs.cube
    here = capacity()
    view = open_blocks(cube)
    cost = model.cost(tuple(cube.shape), cube.dtype.itemsize)
    threads = max(1, here.threads // here.workers)
    cube_bytes = math.prod(cube.shape) * cube.dtype.itemsize
    aligned = cost.aligned_bytes * math.prod(cube.shape[:-1])
    aligned_bytes = math.ceil(view.block_bytes * aligned / cube_bytes)
    working = threads * (BLOCKS_PER_THREAD * (view.block_bytes + aligned_bytes) + cost.work_bytes + 2 * cost.sums_bytes)
    # A model keeps its own numbers per pixel only where they fill at most half of the memory.
    own = cost.kept_bytes * math.prod(cube.shape[:-1])
    kept = cube_bytes + aligned if view.resident else own if own <= here.memory // 2 else 0
    held = math.ceil(kept / here.workers)
    found = Plan(
        model=model.name,
        cube_bytes=cube_bytes,
        blocks=len(view),
        block_bytes=view.block_bytes,
        resident=view.resident,
        workers=here.workers,
        threads=here.threads,
        worker_bytes=held + working + other,
        memory=here.memory // here.workers,
        passes=cost.passes,
        reads=1 if view.resident else cost.passes,
        reduced_bytes=cost.sums_bytes * len(view),
        maps_bytes=4 * cost.columns * math.prod(cube.shape[:-1]),
    )
    if found.worker_bytes > found.memory:
        pixels = 0 if cube.chunks is None else math.prod(map(max, cube.chunks[:-1]))
        unit = pixels * cube.shape[-1] * cube.dtype.itemsize
        fixed = cost.work_bytes + 2 * cost.sums_bytes + BLOCKS_PER_THREAD * aligned_bytes + other // threads
        _refuse(found, here, _Demand(cube_bytes + aligned, unit, fixed, here.workers))
    return found


@dataclass(frozen=True)
class _Demand:
    """Memory of a worker as a function of its size and threads.

    Attributes
    ----------
    cube : int
        Bytes of the cube.
    unit : int
        Bytes of a stored chunk; 0 for a cube in memory.
    fixed : int
        Bytes of a thread in addition to its blocks.
    workers : int
    """

    cube: int
    unit: int
    fixed: int
    workers: int

    def needs(self, *, memory: int, threads: int) -> int:
        """Largest number of bytes that a worker of this memory and this many threads holds."""
        most = min(WORK_BLOCK_BYTES, Capacity(1, threads, memory, remote=False).block_limit)
        block = min(self.cube, max(most, self.unit if self.unit <= 4 * most else 0))
        stays = self.unit == 0 or self.cube <= memory * self.workers // 2
        return math.ceil(self.cube / self.workers) * stays + threads * (BLOCKS_PER_THREAD * block + self.fixed)

    def enough(self, *, memory: int, threads: int) -> int:
        """Smallest sufficient memory of a worker in MiB, from ``memory`` bytes on.

        It is searched because larger workers also get larger blocks and keep larger cubes.
        """
        found = math.ceil(memory / MiB)
        while (needs := self.needs(memory=found * MiB, threads=threads)) > found * MiB:
            found = max(math.ceil(needs / MiB), math.ceil(1.02 * found))
        return found


def _refuse(found: Plan, here: Capacity, demand: _Demand) -> NoReturn:
    """Raise the error with what would fit. found: the plan. here: the workers. demand: what they would need."""
    threads = max(1, here.threads // here.workers)
    overhead = PROCESS_BYTES // MiB if here.remote else 0
    enough = demand.enough(memory=found.worker_bytes, threads=threads) + overhead
    ways = [f"give each worker {enough} MiB"]
    fewer = [n for n in range(1, threads) if demand.needs(memory=found.memory, threads=n) <= found.memory]
    if fewer:
        ways.append(f"use {max(fewer)} thread(s) a worker")
    chunk = min(WORK_BLOCK_BYTES, here.block_limit) // MiB * MiB
    smaller = replace(demand, unit=chunk)
    if 0 < chunk < demand.unit and smaller.needs(memory=found.memory, threads=threads) <= found.memory:
        ways.append(f"convert the cube with smaller chunks (--chunk-mb {chunk // MiB})")
    raise InputError(
        f"{found.model} needs {format_bytes(found.worker_bytes)} a worker, {format_bytes(found.memory)} is there; "
        + ", or ".join(ways)
    )
