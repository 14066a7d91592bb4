"""Open a cube once for all passes of an algorithm: cut it into blocks of work, in memory or read in each pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import dask
import dask.array as da
import xarray as xr
from dask.delayed import Delayed

from scalehsi import arrays
from scalehsi.blocks import compute, graph
from scalehsi.blocks import feed as feeds
from scalehsi.blocks import tile as tiles
from scalehsi.blocks.bundle import bundle_size, cut_bundles
from scalehsi.blocks.compute import Report
from scalehsi.blocks.cut import Cuts
from scalehsi.blocks.feed import Feed
from scalehsi.blocks.pixels import Pixels
from scalehsi.blocks.reading import Reader, separate_readers, task_readers
from scalehsi.blocks.stored_files import StoredFiles
from scalehsi.blocks.tile import Place
from scalehsi.cube import navigation_dims
from scalehsi.schema import InputError

Derivation = tuple["Blocks", Callable[..., Any], Mapping[str, Any], str]


class Blocks:
    """A cube cut into blocks of work, opened once for all passes of an algorithm.

    It is made by `open_blocks`. Keep a reference while its passes run, because its resident blocks are released with
    it. ``report`` is called for the blocks of every pass without a callable of its own. ``branches`` are the views that
    belong to this one, by name: derived from it, or of other data of the same fit. ``companions`` are maps over its
    pixels, by name. ``files`` are those behind the cube as it was opened. ``fingerprint`` stands for all values, once
    they were read where ``keeps_fingerprint`` is set.
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
        self._loaded: dict[int, tuple[Delayed, ...]] = {}  # bundles of tiles in the workers' memory, by halo
        self._sources: dict[tuple[int, int], tuple[Feed, ...]] = {}
        self._reads = 0
        self.files: StoredFiles = StoredFiles(*cuts.cubes) if derivation is None else derivation[0].files
        self.keeps_fingerprint = False
        self.fingerprint: str | None = None
        self.branches: dict[str, Blocks] = {}
        self.companions: dict[str, Pixels] = {}

    def __len__(self) -> int:
        return len(self.cuts)

    @property
    def block_bytes(self) -> int:
        """Bytes of the largest block, those beside it included, in the dtypes of the cubes."""
        pixel = sum(int(each.shape[-1]) * each.dtype.itemsize for each in self.cuts.cubes)
        return math.prod(max(sizes) for sizes in self.grid) * pixel

    @property
    def derived(self) -> bool:
        """True for a view made from another one by `derive`; its blocks are read through that one."""
        return self._derivation is not None

    @cached_property
    def n_energies(self) -> int:
        """Number of columns of a block: the cube's channels, or the columns that a derived view's function returns.

        The number of a derived view is read from its blocks, so the blocks are computed for it.
        """
        if self._derivation is None:
            return int(self.cube.shape[-1])
        calls = [(partial(feeds.columns, feed.make), feed.takes) for feed in self.feeds()]
        counts = dask.compute(*graph.tasks(self.key("columns"), calls))
        return next((n for n in counts if n is not None), 0)

    @property
    def reads(self) -> int:
        """Number of full readings of the cube so far: one for a resident cube, one for each pass over a streamed one.

        A derived view returns the number of its parent. Lazy maps are not counted, nor are blocks that are read again
        because a worker died.
        """
        return self._reads if self._derivation is None else self._derivation[0].reads

    @cached_property
    def blocks_per_task(self) -> int:
        """Number of blocks that one task works on, in a pass without a halo."""
        if self._derivation is not None:
            return self._derivation[0].blocks_per_task
        if self._readers is None:
            return 1
        return bundle_size(
            len(self),
            threads=self._threads,
            block_bytes=self.block_bytes,
            resident=self.resident and compute.on_cluster(),
        )

    def key(self, name: str) -> str:
        """Return a unique task name that the dashboard shows as ``name``."""
        return self.cuts.key(name)

    def places(self, halo: int = 0) -> list[Place]:
        """Return the place of each block, in C order of the grid, with ``halo`` pixels on each side along y and x."""
        return self.cuts.places(halo)

    def derive(self, fn: Callable[..., Any], *, shared: Mapping[str, Any] | None = None, name: str) -> Blocks:
        """Return a view of the same pixels whose blocks are ``fn(x, **shared)``, kept in the workers' memory.

        With cubes beside the first one these are ``fn(x, *beside, **shared)``, a tuple of all of them.

        The blocks are computed in the first pass over the new view: from the resident blocks of this view, or with one
        reading of the cube. They are computed again from the cube when a worker dies. Grid, mask and device are the
        same, so handles of one view can be used in passes over the other.

        Parameters
        ----------
        fn : callable
            Takes ``x`` (P, E) and returns an object with ``shape[0]`` equal to P and with ``nbytes``: an array (P, L),
            or a sparse container. It must be pure, as every block function.
        shared : mapping, optional
            Keyword arguments of every call.
        name : str
            Name of the tasks on the dashboard.

        Returns
        -------
        Blocks
            A resident view. A pass over it has no halo.

        Examples
        --------
        >>> import numpy as np
        >>> from scalehsi.blocks import map_fold, open_blocks
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
        """Release the resident blocks; the next pass reads the cube again. Views derived from this one keep theirs."""
        self._loaded.clear()

    def feeds(self, halo: int = 0) -> tuple[Feed, ...]:
        """Return the feed of each task of a pass: of tiles in the workers' memory when resident, else read again."""
        self._refuse_halo(halo)
        if halo not in self._loaded and self.resident:
            name = "load" if self._derivation is None else self._derivation[-1]
            calls = [(partial(feeds.load_bundle, feed.make), feed.takes) for feed in self._stream(halo)]
            with compute.no_large_graph_warning():
                loaded = dask.persist(*graph.tasks(self.key(name), calls), retries=compute.RETRIES)
            self._loaded[halo] = graph.one_layer(self.key("loaded"), loaded)
        return tuple(map(feeds.from_bundle, self._loaded[halo])) if halo in self._loaded else self._stream(halo)

    def lazy_feeds(self, halo: int = 0) -> tuple[Feed, ...]:
        """Return a feed for each single block and compute nothing; a lazy map computes only the blocks it needs."""
        self._refuse_halo(halo)
        if halo in self._loaded:
            slices = cut_bundles(len(self), 1 if halo else self.blocks_per_task)
            return tuple(
                feeds.one_of_bundle(bundle, i)
                for bundle, part in zip(self._loaded[halo], slices, strict=True)
                for i in range(part.stop - part.start)
            )
        return self._source(halo, 1) if self._derivation is None else self._converted(self._derivation[0].lazy_feeds())

    def _refuse_halo(self, halo: int) -> None:
        if halo and (self._derivation is not None or self.cuts.beside):
            what = "a derived view" if self._derivation is not None else "a view of several cubes"
            raise InputError(f"{what} has no halo; pass the halo to a pass over the cube's own blocks")

    def _stream(self, halo: int) -> tuple[Feed, ...]:
        """Return the feeds of a pass that reads the cube, and count the reading."""
        if self._derivation is not None:
            parent = self._derivation[0]
            return self._converted(parent.feeds() if 0 in parent._loaded else parent._stream(0))
        if self.cuts.compute_mask():
            self._sources.clear()
        self._reads += 1
        self.files.read = True
        return self._source(halo, 1 if halo else self.blocks_per_task)

    def _source(self, halo: int, size: int) -> tuple[Feed, ...]:
        """Return feeds that read the cube, in bundles of ``size`` blocks with ``halo`` pixels around each block."""
        if (halo, size) not in self._sources:
            beside: list[list[Reader]] = []
            if halo:
                data = task_readers((self.cuts.pack if self._packed else self.cuts.cut)(self.cube.data, halo))
            else:
                data, *beside = self._readers or [task_readers(self.cuts.cut(each.data)) for each in self.cuts.cubes]
            cut = self.cuts.masks(halo)
            masks = [None] * len(self) if cut is None else separate_readers(self.key("masks"), cut) or task_readers(cut)
            places = self.cuts.places(halo)
            self._sources[halo, size] = tuple(
                feeds.from_cube(
                    *(places[part], data[part], masks[part], self.device),
                    tries=compute.max_attempts(),
                    beside=[each[part] for each in beside],
                )
                for part in cut_bundles(len(self), size)
            )
        return self._sources[halo, size]

    def _converted(self, given: tuple[Feed, ...]) -> tuple[Feed, ...]:
        """Return the feeds of a derived view from those of its parent."""
        assert self._derivation is not None
        _, fn, shared, _ = self._derivation
        return tuple(feeds.derived(feed, fn, shared, self.device) for feed in given)

    @cached_property
    def _readers(self) -> list[list[Reader]] | None:
        """Of each cube a reader of each block, or None where blocks share tasks and cannot be read separately."""
        found = [separate_readers(self.key("common"), self.cuts.cut(each.data)) for each in self.cuts.cubes]
        readers = [each for each in found if each is not None]
        return readers if len(readers) == len(found) else None

    def align(self, values: xr.DataArray, *, hold: bool = False) -> Pixels:
        """Make a handle of maps over the cube's pixels.

        Parameters
        ----------
        values : xarray.DataArray
            Its dims are the cube's pixel dims and any others, which become the columns of the rows in their order.
        hold : bool, default False
            True: the rows are loaded into the workers' memory now, and stay there as long as the handle exists. False:
            they are cut from the maps in every pass.

        Returns
        -------
        Pixels
            The rows of the used pixels.

        Raises
        ------
        InputError
            When the maps have other pixels than the cube.
        """
        rows = self._rows(values, 0, self.blocks_per_task)
        if hold:
            with compute.no_large_graph_warning():
                rows = graph.one_layer(self.key("aligned"), dask.persist(*rows, retries=compute.RETRIES))
        return Pixels(self.cuts, rows, self.blocks_per_task)

    def _rows(self, values: xr.DataArray, halo: int, size: int) -> tuple[Delayed, ...]:
        """Return the rows of maps in bundles of ``size`` blocks, with ``halo`` pixels around each block."""
        dims = navigation_dims(self.cube)
        want = dict(zip(dims, self.shape, strict=True))
        if {d: values.sizes.get(d) for d in dims} != want:
            raise InputError(f"maps over the pixels {want} are expected, got {dict(values.sizes)}")
        maps = self.cuts.cut(values.transpose(*dims, ...).data, halo)
        masks = None if halo else self.cuts.masks()
        read = partial(tiles.rows_of_maps, len(self.grid), self.device)
        calls = []
        for part in cut_bundles(len(self), size):
            if masks is None:
                calls.append((partial(feeds.bundle_rows, read, None), maps[part]))
            else:
                calls.append((partial(feeds.bundle_rows, read, part.stop - part.start), (*maps[part], *masks[part])))
        return graph.tasks(self.key("align"), calls)

    def aligned(self, given: Pixels | xr.DataArray, halo: int, size: int) -> tuple[Delayed, ...]:
        """Return the rows of a handle or of maps in bundles of ``size`` blocks, for the pixels of tiles with a halo."""
        if not isinstance(given, Pixels):
            return self._rows(given, halo, size)
        if halo:
            raise InputError(
                "with a halo an aligned array is a DataArray over pixel dims; type handle.to_dataarray(...)"
            )
        if given.view.grid != self.grid:
            raise InputError(
                "the handle comes from a cube cut into other blocks; open the cube once and use its blocks for both "
                "passes, or type handle.to_dataarray(...)"
            )
        return given.bundled(size)


def branch(view: Blocks, name: str, make: Callable[[], Blocks]) -> Blocks:
    """Return the view that belongs to ``view`` under ``name``; the first call makes it by ``make``.

    Parameters
    ----------
    view : Blocks
        The branch exists as long as this view.
    name : str
        Key in ``view.branches``.
    make : callable
        Takes no argument and returns the branch.

    Returns
    -------
    Blocks
        The branch, which reports to the same function as ``view``.
    """
    if name not in view.branches:
        view.branches[name] = make()
    found = view.branches[name]
    found.report = view.report
    return found
