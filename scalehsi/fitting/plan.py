"""Memory, blocks and passes of a fit before anything is read; a fit that cannot work is refused with a repair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

import dask.array as da
import xarray as xr
from dask.utils import format_bytes

from scalehsi.blocks import Blocks, Capacity, capacity, open_blocks, open_surrounded
from scalehsi.blocks.compute import PROCESS_BYTES, WORKER_SHARE
from scalehsi.blocks.stored_chunks import Reading, reading
from scalehsi.blocks.stored_files import StoredFiles
from scalehsi.chunks import MiB, storage_layout
from scalehsi.fitting.binning import BYTES_PER_VALUE, DENSE_SHARE, room_without_zeros
from scalehsi.fitting.last_pass import computed_at_once
from scalehsi.fitting.model import Inputs, Model
from scalehsi.fitting.sources import select_inputs
from scalehsi.fitting.survey import sample_bytes
from scalehsi.kernels.statistics.fit_sums import Grid
from scalehsi.schema import ENERGY, InputError

BASE_BYTES: Final = 8 * MiB
"""What a worker fills in any fit beside its process: freed memory that is not returned yet, messages, graphs."""
BLOCKS_PER_THREAD: Final = 3
"""A thread holds the aligned rows of a block, their form for the kernel, and those of the next block."""
SAMPLE_COPIES: Final = 2.2
"""Of the sample of the survey, while it is collected and sent to the client (at most 2.2 were measured)."""
COUNTS_TO_STORED: Final = 4
LEAST_COUNTS_TO_STORED: Final = 2
"""Bytes of counts without zeros for each byte of a compressed store, at most and at least."""
JUDGED_COPIES: Final = 1
"""Of the sums of the last pass, while they are collected and sent to the client (0.2 to 1.3 were measured)."""
MAP_COPIES: Final = 2
"""Of the maps in the workers' memory until they are on the client: rows of blocks, and the maps made of them."""


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
    reading_bytes : int
        The part of it in which stored chunks are decoded and joined to blocks.
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
    reading_bytes: int
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
                f"up to {format_bytes(self.worker_bytes)} of {format_bytes(self.memory)} a worker, "
                f"{format_bytes(self.reading_bytes)} of them to read stored chunks",
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
    here = capacity()
    needs = _Needs(select_inputs(cube, model), model)
    found = needs.plan(here)
    if found.worker_bytes > found.memory:
        _refuse(needs, found, here)
    return found


@dataclass
class _Needs:
    """What a fit needs of workers of any size.

    Attributes
    ----------
    inputs : Inputs
        The data of the fit.
    model : Model
    """

    inputs: Inputs
    model: Model
    _readings: dict[Any, Reading] = field(default_factory=dict)  # by grid, as workers of many sizes are tried

    @cached_property
    def _files(self) -> StoredFiles:
        """Those of the cube as it is, also where a conversion is tried."""
        return StoredFiles(self.inputs.cube, *self.inputs.beside.values())

    def plan(self, here: Capacity, *, chunk_bytes: int = 0) -> Plan:
        """The plan for given workers; chunk_bytes: of a store into which the cube was converted before, if not 0."""
        cubes = [self.inputs.cube, *self.inputs.beside.values()]
        if chunk_bytes:
            cubes = [_converted(each, chunk_bytes) for each in cubes]
        cube, beside = cubes[0], cubes[1:]
        found = self._plan(open_blocks(cube, here=here, beside=beside), here, chunk_bytes)
        if found.resident and found.worker_bytes > found.memory and cube.chunks is not None:
            found = self._plan(open_blocks(cube, here=here, resident=False, beside=beside), here, chunk_bytes)
        return found

    def _plan(self, view: Blocks, here: Capacity, chunk_bytes: int) -> Plan:
        """The plan of a fit with these blocks; the arguments as for `plan`."""
        cube, model = view.cube, self.model
        pixels, itemsize = math.prod(cube.shape[:-1]), cube.dtype.itemsize
        channels = sum(each.shape[-1] for each in view.cuts.cubes)
        cost = model.cost((*cube.shape[:-1], channels), itemsize)
        threads = max(1, here.threads // here.workers)
        cube_bytes = pixels * self.inputs.pixel_bytes
        aligned = cost.aligned_bytes * pixels
        aligned_bytes = math.ceil(view.block_bytes * aligned / cube_bytes)
        read = self._reading(view, chunk_bytes)
        # The survey ends before a model keeps anything of its own.
        samples = (sample_bytes(tuple(each.shape), each.dtype.itemsize) for each in view.cuts.cubes)
        survey = math.ceil(SAMPLE_COPIES * max(samples))
        maps_bytes = 4 * cost.columns * pixels
        maps = MAP_COPIES * maps_bytes if computed_at_once(maps_bytes, here.memory) else 0
        judged = JUDGED_COPIES * Grid(tuple(cube.shape[:-1]), cube.shape[-1]).sampled_bytes
        maps = math.ceil(maps / here.workers)
        work = cost.work_bytes + 2 * cost.sums_bytes
        # A model keeps its own numbers per pixel only where they fill at most half of the memory.
        own = cost.kept_bytes * pixels
        counts = self._kept_counts(view, here.memory, cost.keeps_counts) if cost.keeps_counts else 0
        blocks = cube_bytes + aligned if view.resident else 0
        if cube.chunks is None and not here.remote:
            blocks = aligned  # the cube is in this process's memory already, and is not among what is free there
        # Where the data decide the loss, one of both is kept.
        kept = blocks + (counts if view.resident else max(own if own <= here.memory // 2 else 0, counts))
        # One block is worked on while the next one is read; where blocks are kept, the one that is read is one of them.
        block = read.block + (0 if view.resident else view.block_bytes) + BLOCKS_PER_THREAD * aligned_bytes
        # Counts that turn out to fill more than `_kept_counts` allows are not kept.
        halo = self._surrounded(view, here, self._counts_bytes(view))
        halo_beside = self._surrounded(view, here, counts)
        parts = [_Needs(Inputs(each), part).plan(here) for each, part in model.submodels(self.inputs.others)]
        # Fits of other cubes run one after another, before the passes of this one; their blocks may stay.
        inner = max((part.worker_bytes - BASE_BYTES for part in parts), default=0)
        stay = sum(part.cube_bytes for part in parts if part.resident)
        passing = max(
            math.ceil(blocks / here.workers) + read.shared + threads * block + survey,
            math.ceil(kept / here.workers)
            + max(read.shared + threads * block + max(threads * work, judged + maps), halo_beside + maps, inner),
            math.ceil((kept - counts) / here.workers) + halo + maps,
        ) + math.ceil(stay / here.workers)
        return Plan(
            model=model.name,
            cube_bytes=cube_bytes,
            blocks=len(view),
            block_bytes=view.block_bytes,
            resident=view.resident,
            workers=here.workers,
            threads=here.threads,
            worker_bytes=BASE_BYTES + passing,
            reading_bytes=read.shared + threads * read.block,
            memory=here.memory // here.workers,
            passes=cost.passes,
            reads=1 if view.resident else cost.passes,
            reduced_bytes=cost.sums_bytes * len(view),
            maps_bytes=maps_bytes,
        )

    def _surrounded(self, view: Blocks, here: Capacity, counts: int) -> int:
        """Memory of a worker in the pass for the maps, where its blocks have a halo.

        view, here: as for `_plan`. counts: bytes of all counts without their zeros.
        """
        model = self.model
        # `ParallelGP` has a setting of this name, in lengths, and cuts its tiles itself.
        if not isinstance(model.halo, int) or not model.halo:
            return 0
        large = open_surrounded(view.cube, packed=model.takes_sparse_counts, here=here)
        share = counts / view.cube.nbytes if model.takes_sparse_counts else 1.0
        sides = [max(sizes) for sizes in large.grid]
        outer = [min(n, side + 2 * model.halo) for n, side in zip(large.shape[-2:], sides[-2:], strict=True)]
        surrounded = large.block_bytes * math.prod(outer) / math.prod(sides[-2:])
        # The stored form of a row of blocks waits for the blocks below it; a block is joined from copies.
        waiting = min(view.cube.nbytes, (len(large.grid[-1]) + 2) * large.block_bytes) / here.workers
        threads = max(1, here.threads // here.workers)
        return math.ceil(share * (waiting + threads * (2 * surrounded + large.block_bytes)))

    def _kept_counts(self, view: Blocks, memory: int, density: float) -> int:
        """Bytes of the counts that a model keeps without their zeros, where they fit.

        memory: of all workers. density: largest share of other values than zero with which they are kept.
        """
        pixels, channels = math.prod(view.shape), view.cube.shape[-1]
        room = max(0, room_without_zeros(view, memory))
        most = min(room, math.ceil((BYTES_PER_VALUE * density * channels + 8) * pixels))
        return 0 if LEAST_COUNTS_TO_STORED * self._files.bytes > most else min(most, self._counts_bytes(view))

    def _counts_bytes(self, view: Blocks) -> int:
        """Estimate the bytes of all counts without their zeros, from the compressed size where that is known.

        They are at most four times as many: both forms leave out the zeros (2.4 to 3.8 by usual rates of compression).
        """
        itemsize = view.cube.dtype.itemsize
        dense = view.cube.nbytes // itemsize * (2 + (min(itemsize, 2) if view.cube.dtype.kind in "ui" else 4))
        stored = self._files.bytes
        return int(min(dense, COUNTS_TO_STORED * stored if stored else DENSE_SHARE * dense))

    def _reading(self, view: Blocks, chunk_bytes: int) -> Reading:
        """Memory in which the blocks are read; chunk_bytes: as for `plan`."""
        if chunk_bytes:
            return Reading(2 * view.block_bytes + chunk_bytes, 0)
        if view.grid not in self._readings:
            files = self._files.largest
            each = [reading(cube.data, view.grid, file_bytes=files) for cube in view.cuts.cubes]
            self._readings[view.grid] = Reading(sum(r.block for r in each), sum(r.shared for r in each))
        return self._readings[view.grid]


def _converted(cube: xr.DataArray, chunk_bytes: int) -> xr.DataArray:
    """An empty cube in the chunks of a store into which it was converted."""
    layout = storage_layout(cube.shape, cube.dtype.itemsize, chunk_bytes=chunk_bytes)
    empty = da.empty(cube.shape, dtype=cube.dtype, chunks=layout.chunks)
    return xr.DataArray(empty, dims=cube.dims, coords={ENERGY: cube[ENERGY]} if ENERGY in cube.coords else None)


def _refuse(needs: _Needs, found: Plan, here: Capacity) -> NoReturn:
    """Raise the error with what would fit. needs: of the fit. found: its plan. here: the workers."""
    threads = max(1, here.threads // here.workers)
    overhead = PROCESS_BYTES if here.remote else 0
    enough = math.ceil((_enough(needs, found, here) + overhead) / (WORKER_SHARE if here.remote else 1) / MiB)
    ways = [f"give each worker {enough} MiB"]
    fewer = [n for n in range(1, threads) if _fits(needs, replace(here, threads=n * here.workers))]
    if fewer:
        ways.append(f"use {max(fewer)} thread(s) a worker")
    cube = needs.inputs.cube
    chunks = () if cube.chunks is None else (16, 8, 4, 2, 1)
    mb = next((n for n in chunks if _fits(needs, here, chunk_bytes=n * MiB)), None)
    if mb is not None:
        source = str(cube.attrs.get("source") or "SRC")
        ways.insert(0, f"type scalehsi convert {source} {Path(source).stem}-{mb}.zarr --chunk-mb {mb} and fit that")
    why = ""
    if found.reading_bytes > found.memory // 2:
        why = f", {format_bytes(found.reading_bytes)} of them to decode and join its stored chunks"
    raise InputError(
        f"{found.model} needs {format_bytes(found.worker_bytes)} a worker{why}; {format_bytes(found.memory)} is there; "
        + ", or ".join(ways)
    )


def _fits(needs: _Needs, here: Capacity, *, chunk_bytes: int = 0) -> bool:
    """Whether a fit would fit in these workers. needs: of the fit. chunk_bytes: of a converted store."""
    try:
        found = needs.plan(here, chunk_bytes=chunk_bytes)
    except InputError:
        return False
    return found.worker_bytes <= found.memory


def _enough(needs: _Needs, found: Plan, here: Capacity) -> int:
    """Smallest sufficient memory of a worker in bytes, searched because larger workers get larger blocks.

    needs: of the fit. found: its plan for the workers that are there, ``here``.
    """
    memory = found.worker_bytes
    while True:
        larger = replace(here, memory=memory * here.workers)
        if _fits(needs, larger):
            return memory
        memory = max(needs.plan(larger).worker_bytes, math.ceil(1.05 * memory))
