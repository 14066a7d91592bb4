"""A cube cut into blocks of work, opened once for all passes over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final

import dask
import dask.array as da
import xarray as xr
from dask.delayed import Delayed

from scalehsi import arrays, chunks
from scalehsi.blocks import feed as feeds
from scalehsi.blocks import graph
from scalehsi.blocks import tile as tiles
from scalehsi.blocks.bundle import bundle_size, cut_bundles
from scalehsi.blocks.compute import LITERAL_LIMIT, RETRIES, Report, attempts, capacity, on_cluster, quiet_graphs
from scalehsi.blocks.cut import Cuts
from scalehsi.blocks.feed import Feed
from scalehsi.blocks.pixels import Pixels
from scalehsi.blocks.reading import Piece, apart, closed
from scalehsi.blocks.tile import Place
from scalehsi.cube import check_cube, navigation_dims
from scalehsi.schema import InputError

STREAMED_BYTES: Final = 8 * chunks.MiB
"""Stored chunks below this are put together to a block also where the cube is read in every pass."""
STREAMED_BLOCKS: Final = 16384
"""Beyond so many, blocks grow to their usual size first: the graph of a pass, and of lazy maps, has a part for each."""

PACKED_A_THREAD: Final = 8
"""Blocks a thread, at least, of a pass over counts without their zeros."""

Derivation = tuple["Blocks", Callable[..., Any], Mapping[str, Any], str]


class Blocks:
    """A cube cut into blocks of work, opened once for all passes of an algorithm.

    Made by `open_blocks`. Keep it alive while its passes run: resident blocks are released with it. ``report`` is
    called for the blocks of every pass that brings no callable of its own. ``branches`` are views that belong to
    this one, by name: made of it, or of other data of the same fit. ``companions`` are maps over its pixels.
    """

    def __init__(
        self,
        cuts: Cuts,
        *,
        device: arrays.Device,
        resident: bool,
        threads: int = 1,
        derivation: Derivation | None = None,
        packed: bool = False,
    ) -> None:
        self.cuts = cuts
        self.cube = cuts.cube
        self.grid = cuts.grid
        self.shape = cuts.shape
        self.device: arrays.Device = device
        self.resident = resident
        self.report: Report | None = None
        self.sums_bytes: dict[str, int] = {}
        self._threads = threads
        self._derivation = derivation
        self._packed = packed and isinstance(cuts.cube.data, da.Array) if derivation is None else False
        self._held: dict[int, tuple[Delayed, ...]] = {}
        self._sources: dict[tuple[int, int], tuple[Feed, ...]] = {}
        self._reads = 0
        self.branches: dict[str, Blocks] = {}
        self.companions: dict[str, Pixels] = {}

    def __len__(self) -> int:
        return len(self.cuts)

    @property
    def block_bytes(self) -> int:
        """Bytes of the largest block in the cube's own dtype."""
        return math.prod(max(sizes) for sizes in self.grid) * int(self.cube.shape[-1]) * self.cube.dtype.itemsize

    @property
    def derived(self) -> bool:
        """True for a view that was made of another one by `derive`; its readings are that one's."""
        return self._derivation is not None

    @cached_property
    def n_energies(self) -> int:
        """Columns of a block: the cube's channels, or what the function of a derived view made of them.

        Of a derived view it is known when its blocks are, so asking computes them.
        """
        if self._derivation is None:
            return int(self.cube.shape[-1])
        found = dask.compute(
            *graph.tasks(self.key("columns"), [(partial(_columns, f.make), f.takes) for f in self.feeds()])
        )
        return next((n for n in found if n is not None), 0)

    @property
    def reads(self) -> int:
        """Full readings of the cube so far: one for a resident cube, one for each pass over a streamed one.

        Those of a derived view are its parent's. Not counted: lazy maps, and blocks that are read again because a
        worker died.
        """
        return self._reads if self._derivation is None else self._derivation[0].reads

    @cached_property
    def step(self) -> int:
        """Blocks that one task works on, where there is no halo."""
        if self._derivation is not None:
            return self._derivation[0].step
        if self._pieces is None:
            return 1
        return bundle_size(
            len(self),
            threads=self._threads,
            block_bytes=self.block_bytes,
            held=self.resident and on_cluster(),
        )

    def key(self, name: str) -> str:
        """A task name that shows as ``name`` on the dashboard and is never used twice."""
        return self.cuts.key(name)

    def places(self, halo: int = 0) -> list[Place]:
        """Where the blocks lie, in C order of the grid."""
        return self.cuts.places(halo)

    def derive(self, fn: Callable[..., Any], *, shared: Mapping[str, Any] | None = None, name: str) -> Blocks:
        """A view of the same pixels whose blocks are ``fn(x, **shared)``, kept in the workers' memory.

        The blocks are made in the first pass over the new view, from those that this view holds or with one reading of
        the cube, and made again from the cube when a worker dies. Grid, mask and device are the same, so handles of
        one view go along in passes over the other.

        Parameters
        ----------
        fn : callable
            Takes ``x`` (P, E) and gives anything with ``shape[0]`` equal to P and ``nbytes``: an array (P, L), or a
            sparse container. Pure, as every block function.
        shared : mapping, optional
            Keyword arguments of every call.
        name : str
            What the dashboard shows.

        Returns
        -------
        Blocks
            Resident, and without a halo.

        Examples
        --------
        >>> import numpy as np
        >>> from scalehsi.blocks import map_fold
        >>> from scalehsi.cube import make_cube
        >>> view = open_blocks(make_cube(np.ones((4, 5, 6)), energy=range(6), energy_units="eV"))
        >>> pairs = view.derive(lambda x: x[:, ::2] + x[:, 1::2], name="pairs")
        >>> map_fold(lambda x: ({}, {"sum": x.sum(axis=0)}), pairs)[1]["sum"].tolist(), pairs.n_energies, view.reads
        ([40.0, 40.0, 40.0], 3, 1)
        """
        made = Blocks(self.cuts, device=self.device, resident=True, derivation=(self, fn, dict(shared or {}), name))
        made.report = self.report
        return made

    def release(self) -> None:
        """Let the held blocks go; the next pass reads the cube again. Views derived from this one keep theirs."""
        self._held.clear()

    def feeds(self, halo: int = 0) -> tuple[Feed, ...]:
        """Where each task of a pass gets its tiles: held by the workers when resident, read again when streamed."""
        self._refuse_halo(halo)
        if halo not in self._held and self.resident:
            name = "load" if self._derivation is None else self._derivation[-1]
            calls = [(partial(feeds.gather, feed.make), feed.takes) for feed in self._stream(halo)]
            with quiet_graphs():
                loaded = dask.persist(*graph.tasks(self.key(name), calls), retries=RETRIES)
            self._held[halo] = graph.gathered(self.key("loaded"), loaded)
        return tuple(map(feeds.from_held, self._held[halo])) if halo in self._held else self._stream(halo)

    def lazy_feeds(self, halo: int = 0) -> tuple[Feed, ...]:
        """A feed for each block alone, without starting anything: a lazy map costs the blocks that are asked for."""
        self._refuse_halo(halo)
        if halo in self._held:
            slices = cut_bundles(len(self), 1 if halo else self.step)
            return tuple(
                feeds.one_of_held(bundle, i)
                for bundle, part in zip(self._held[halo], slices, strict=True)
                for i in range(part.stop - part.start)
            )
        return self._source(halo, 1) if self._derivation is None else self._converted(self._derivation[0].lazy_feeds())

    def _refuse_halo(self, halo: int) -> None:
        if self._derivation is not None and halo:
            raise InputError("a derived view has no halo; pass the halo to a pass over the cube's own blocks")

    def _stream(self, halo: int) -> tuple[Feed, ...]:
        """Feeds of a pass that reads the cube, which is counted."""
        if self._derivation is not None:
            parent = self._derivation[0]
            return self._converted(parent.feeds() if 0 in parent._held else parent._stream(0))
        if self.cuts.hold_mask():
            self._sources.clear()
        self._reads += 1
        return self._source(halo, 1 if halo else self.step)

    def _source(self, halo: int, step: int) -> tuple[Feed, ...]:
        """Feeds that read the cube, in bundles of ``step`` blocks."""
        if (halo, step) not in self._sources:
            if halo:
                raws = apart((self.cuts.pack if self._packed else self.cuts.cut)(self.cube.data, halo))
            else:
                raws = self._pieces or apart(self.cuts.cut(self.cube.data))
            cut = self.cuts.masks(halo)
            masks = [None] * len(self) if cut is None else closed(self.key("masks"), cut) or apart(cut)
            places = self.cuts.places(halo)
            self._sources[halo, step] = tuple(
                feeds.from_cube(places[part], raws[part], masks[part], self.device, tries=attempts())
                for part in cut_bundles(len(self), step)
            )
        return self._sources[halo, step]

    def _converted(self, given: tuple[Feed, ...]) -> tuple[Feed, ...]:
        assert self._derivation is not None
        _, fn, shared, _ = self._derivation
        return tuple(feeds.derived(feed, fn, shared, self.device) for feed in given)

    @cached_property
    def _pieces(self) -> list[Piece] | None:
        """The reading of each block, or None where blocks cannot be read apart from each other."""
        return closed(self.key("common"), self.cuts.cut(self.cube.data))

    def align(self, values: xr.DataArray, *, hold: bool = False) -> Pixels:
        """Make a handle of maps: dims the cube's pixel dims and any others, which become the columns in their order.

        With ``hold`` the rows are put into the workers' memory now, and stay there as long as the handle; else they are
        cut out of the maps in every pass.
        """
        rows = self._rows(values, 0, self.step)
        if hold:
            with quiet_graphs():
                rows = graph.gathered(self.key("aligned"), dask.persist(*rows, retries=RETRIES))
        return Pixels(self.cuts, rows, self.step)

    def _rows(self, values: xr.DataArray, halo: int, step: int) -> tuple[Delayed, ...]:
        dims = navigation_dims(self.cube)
        want = dict(zip(dims, self.shape, strict=True))
        if {d: values.sizes.get(d) for d in dims} != want:
            raise InputError(f"maps over the pixels {want} are expected, got {dict(values.sizes)}")
        raws = self.cuts.cut(values.transpose(*dims, ...).data, halo)
        masks = None if halo else self.cuts.masks()
        read = partial(tiles.rows, len(self.grid), self.device)
        calls = []
        for part in cut_bundles(len(self), step):
            if masks is None:
                calls.append((partial(feeds.pack_rows, read, None), raws[part]))
            else:
                calls.append((partial(feeds.pack_rows, read, part.stop - part.start), (*raws[part], *masks[part])))
        return graph.tasks(self.key("align"), calls)

    def aligned(self, given: Pixels | xr.DataArray, halo: int, step: int) -> tuple[Delayed, ...]:
        """A bundle of rows for each bundle of ``step`` blocks, for the pixels that the tiles of this halo hold."""
        if not isinstance(given, Pixels):
            return self._rows(given, halo, step)
        if halo:
            raise InputError(
                "with a halo an aligned array is a DataArray over pixel dims; type handle.to_dataarray(...)"
            )
        if given.view.grid != self.grid:
            raise InputError(
                "the handle comes from a cube cut into other blocks; open the cube once and use its blocks for both "
                "passes, or type handle.to_dataarray(...)"
            )
        return given.bundled(step)


def _columns(make: Callable[..., Any], *given: Any) -> int | None:
    """Columns of the first tile that has a pixel."""
    return next((int(tile.x.shape[-1]) for tile in make(*given) if tile.core.any()), None)


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
        Upper size of a block in bytes. Default: up to 64 MiB for a resident cube, a stored chunk (or some 8 MiB of
        them) for a streamed one, at least two blocks a thread, and small enough that a worker's threads and their
        copies stay within its memory.

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
        min_blocks=1 if block_bytes else _enough_blocks(total, here.threads, resident=resident),
    )
    return Blocks(Cuts(cube, grid), device=arrays.resolve_device(device), resident=resident, threads=here.threads)


def open_surrounded(cube: xr.DataArray, *, device: str = "cpu", packed: bool = False) -> Blocks:
    """Cut a cube for one pass with a halo: blocks as large as memory allows, as their rims are read twice, not held.

    With ``packed`` a lazy cube comes as `scalehsi.kernels.pixel_rows.sparse_counts.Counts`: no stored chunk is put
    together with others
    before it has lost its zeros, so that blocks may be larger and the work on rims less.
    """
    if not packed or cube.chunks is None:
        return open_blocks(cube, device=device, resident=False, block_bytes=chunks.WORK_BLOCK_BYTES)
    here = capacity()
    total = math.prod(cube.shape) * cube.dtype.itemsize
    # Without any zero a block takes two to three times its bytes.
    most = max(min(here.block_limit // 3, total // (PACKED_A_THREAD * here.threads)), chunks.MiB)
    grid = chunks.work_chunks(cube.shape, cube.dtype.itemsize, storage=cube.chunks[:-1], block_bytes=most, compact=True)
    return Blocks(Cuts(cube, grid), device=arrays.resolve_device(device), resident=False, packed=True)


def open_tiles(cube: xr.DataArray, grid: Sequence[Sequence[int]], *, device: str = "cpu") -> Blocks:
    """Cut a cube into blocks of given sizes along each pixel dim, which are read again in each pass."""
    check_cube(cube)
    return Blocks(Cuts(cube, tuple(map(tuple, grid))), device=arrays.resolve_device(device), resident=False)


def _enough_blocks(total: int, threads: int, *, resident: bool) -> int:
    """Two blocks a thread balance the load, but a block under 4 MiB costs more to schedule than to compute.

    Where the cube is read in every pass, putting chunks together to a block costs 10 % of the time, and a task works on
    many blocks anyway: then blocks are as small as chunks.
    """
    enough = max(1, min(2 * threads, total // (4 * chunks.MiB)))
    return enough if resident else max(enough, min(STREAMED_BLOCKS, total // STREAMED_BYTES))


def branch(view: Blocks, name: str, make: Callable[[], Blocks]) -> Blocks:
    """What was made of a view under that name, made now if it was not yet; it lives as long as the view."""
    if name not in view.branches:
        view.branches[name] = make()
    made = view.branches[name]
    made.report = view.report
    return made
