"""Run a function on every block of a cube in one pass, keep its rows for each pixel, and add up its statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any, Final

import numpy as np
import xarray as xr
from dask.delayed import Delayed
from dask.sizeof import sizeof

from scalehsi import arrays
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.blocks.bundle import Bundle, Combine, Sums, cut_bundles, fold_bundle, fold_nodes, reduction_tasks
from scalehsi.blocks.compute import Report, max_attempts, on_cluster, run
from scalehsi.blocks.feed import Feed, call_with_retries, to_device
from scalehsi.blocks.graph import tasks
from scalehsi.blocks.opening import open_blocks
from scalehsi.blocks.pixels import Pixels
from scalehsi.blocks.tile import Tile
from scalehsi.blocks.view import Blocks
from scalehsi.chunks import MiB
from scalehsi.schema import InputError

MAX_CLIENT_SUMS_BYTES: Final = 8 * MiB
"""Up to this size the sums of all bundles are added up on the client: in tasks this costs a cluster 6 ms for each level
of the tree. The size is that in the previous pass of the same name; the sums of a first pass are added up in tasks."""
MAX_INLINE_SHARED_BYTES: Final = 2 * MiB
"""Up to this size over all tasks, shared arguments are sent inside each task; a task of their own takes 6 ms more."""

Pair = tuple[dict[str, Any], dict[str, Any]]
BlockFunction = Callable[..., Pair]


def map_fold(
    fn: BlockFunction,
    cube: Blocks | xr.DataArray,
    *aligned: Pixels | xr.DataArray,
    shared: Mapping[str, Any] | None = None,
    keep: Sequence[str] = (),
    combine: Combine | None = None,
    halo: int = 0,
    tile: bool = False,
    name: str = "map-fold",
    report: Report | None = None,
) -> tuple[dict[str, Pixels], dict[str, Any]]:
    """Run a function on every block in one pass; keep its rows for each pixel, and add up its statistics.

    Parameters
    ----------
    fn : callable
        ``fn(x, *aligned, **shared) -> (pixels, sums)``, as described in `scalehsi.blocks`. It must be pure: a block is
        computed a second time when its worker dies.
    cube : Blocks or xarray.DataArray
        A DataArray is opened for this one pass.
    *aligned : Pixels or xarray.DataArray
        Values aligned with the pixels, cut into the same blocks: handles of an earlier pass, or maps over the pixel
        dims. On a cluster a handle keeps the tasks of all the passes that it came from, so that a lost block can be
        computed again. The graph of an iteration that passes its rows on therefore grows; that of an iteration whose
        state is in ``shared`` does not.
    shared : mapping, optional
        Keyword arguments of every call (endmembers, weights). Large ones are sent once to each worker, as the result of
        a task, so that they are not lost with a worker.
    keep : sequence of str
        Names in ``pixels`` that stay in the workers' memory and are returned as handles. All other names are dropped.
    combine : callable, optional
        Combines two dicts of sums to one; it must be associative. By default the sums are added, name by name.
    halo : int, default 0
        Pixels around each block, along y and x, that ``fn`` receives too. With a halo ``x`` has every pixel of the
        tile, masked ones included. The rows that ``fn`` returns are cut to the core; ``sums`` must include only the
        pixels of ``tile.core``.
    tile : bool, default False
        True: ``fn`` also gets the keyword ``tile``, a `Tile` with pixel numbers, shape and core.
    name : str
        Name of the tasks on the dashboard: letters and hyphens.
    report : callable, optional
        Called as ``report(done, total)`` when a block is done.

    Returns
    -------
    handles : dict of str to Pixels
        The rows named in ``keep``.
    sums : dict of str to number or numpy array
        On the client; floats are added in float64, integers in int64.

    Raises
    ------
    InputError
        When the mask leaves out every pixel, and when aligned values have other pixels or blocks than the cube.

    Examples
    --------
    >>> from scalehsi.cube import make_cube
    >>> cube = make_cube(np.ones((4, 5, 3), "u1"), energy=[1, 2, 3], energy_units="keV")
    >>> def count(x):
    ...     return {"total": x.sum(axis=1)}, {"spectrum": x.sum(axis=0), "pixels": x.shape[0]}
    >>> handles, sums = map_fold(count, cube, keep=["total"])
    >>> sums["spectrum"].tolist(), int(sums["pixels"]), handles["total"].to_dataarray().sizes["x"]
    ([20, 20, 20], 20, 5)
    """
    view = cube if isinstance(cube, Blocks) else open_blocks(cube)
    size = 1 if halo else view.blocks_per_task
    job = _Job(fn, tuple(keep), view.device, tile=tile, bundle_size=size, tries=max_attempts(), combine=combine or add)
    bundles = _tasks(job, view, view.feeds(halo), aligned, shared=shared, halo=halo, name=name)
    leaves = _elements(bundles, 0, view.key(f"{name}-sums")) if keep else bundles
    # The tree is the same, and so are the bits, whether its top is added up in tasks or on the client.
    on_client = view.sums_bytes.get(name, MAX_CLIENT_SUMS_BYTES) * len(leaves) < MAX_CLIENT_SUMS_BYTES
    root = leaves if on_client else reduction_tasks(leaves, size, job.combine, view.key(f"{name}-reduce"))
    kept = {k: _elements(bundles, i, view.key(f"{name}-{k}")) for i, k in enumerate(keep, start=1)}
    counts = [part.stop - part.start for part in cut_bundles(len(view), size)]
    nodes, rows = run(root, kept, leaves, report or view.report, counts=counts)
    view.files.check()
    sums = fold_nodes(nodes, job.combine) if on_client else nodes[0]
    view.sums_bytes[name] = sizeof(sums)
    if sums is None:
        raise InputError("the mask leaves no pixel (True = use); invert it with cube.assign_coords(mask=~cube.mask)")
    return {k: Pixels(view.cuts, delayed, size) for k, delayed in rows.items()}, sums


def map_pixels(
    fn: BlockFunction,
    cube: Blocks | xr.DataArray,
    *aligned: Pixels | xr.DataArray,
    shared: Mapping[str, Any] | None = None,
    keep: Sequence[str],
    halo: int = 0,
    tile: bool = False,
    name: str = "map-pixels",
) -> dict[str, Pixels]:
    """Do the lazy part of `map_fold`: return handles whose rows are computed on request, and drop the sums.

    Parameters
    ----------
    fn, cube, *aligned, shared, keep, halo, tile, name : as in `map_fold`
        The arguments of `map_fold`.

    Returns
    -------
    dict of str to Pixels
        The rows named in ``keep``.
    """
    view = cube if isinstance(cube, Blocks) else open_blocks(cube, resident=False)
    job = _Job(fn, tuple(keep), view.device, tile=tile, bundle_size=1, tries=max_attempts(), combine=add)
    blocks = _tasks(job, view, view.lazy_feeds(halo), aligned, shared=shared, halo=halo, name=name)
    return {
        k: Pixels(
            view.cuts, tasks(view.key(f"{name}-{k}"), [(partial(_rows_of_block, i), (block,)) for block in blocks])
        )
        for i, k in enumerate(keep, start=1)
    }


def add(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Add two dicts of statistics name by name; a name in only one of them keeps its value.

    Parameters
    ----------
    left, right : dict of str to number or array
        Statistics of different blocks.

    Returns
    -------
    dict of str to number or array
        The sums of both.

    Examples
    --------
    >>> add({"n": 1, "s": 2.0}, {"n": 3})
    {'n': 4, 's': 2.0}
    """
    return {k: left[k] + right[k] if k in left and k in right else left.get(k, right.get(k)) for k in {**left, **right}}


@dataclass(frozen=True)
class _Job:
    """What one task does with each of its blocks; the fields are named as the arguments of `map_fold`."""

    fn: BlockFunction
    keep: tuple[str, ...]
    device: arrays.Device
    tile: bool
    bundle_size: int
    tries: int
    combine: Combine


def _tasks(
    job: _Job,
    view: Blocks,
    feeds: Sequence[Feed],
    aligned: Sequence[Pixels | xr.DataArray],
    *,
    shared: Mapping[str, Any] | None,
    halo: int,
    name: str,
) -> tuple[Delayed, ...]:
    """Make one task for each feed; its result is (nodes of the tree, rows of the first kept name, ...), or the nodes.

    ``job`` is done to each tile of each of the ``feeds`` of ``view``; ``aligned``, ``shared``, ``halo`` and ``name``
    are those of `map_fold`.
    """
    key = view.key(name)
    values = dict(shared or {})
    if on_cluster() and sizeof(values) * len(feeds) > MAX_INLINE_SHARED_BYTES:
        # As the result of a task: when a worker dies with its copy, the scheduler makes another from the graph.
        common, make = tasks(view.key(f"{name}-shared"), [(partial(dict, values), ())]), partial(_work_shared, job)
    else:
        common, make = (), partial(_work, job, values)
    columns = [view.aligned(a, halo, job.bundle_size) for a in aligned]
    calls = []
    for feed, *rows in zip(feeds, *columns, strict=True):
        calls.append((partial(make, feed.make, len(rows)), (*common, *rows, *feed.takes)))
    return tasks(key, calls)


def _elements(bundles: Sequence[Delayed], position: int, key: str) -> tuple[Delayed, ...]:
    """Return the element at ``position`` of each bundle's result, as tasks whose names begin with ``key``."""
    return tasks(key, [(itemgetter(position), (bundle,)) for bundle in bundles])


# Functions that run inside the tasks.


def _rows_of_block(position: int, result: tuple[Any, ...]) -> Any:
    """Return the rows at ``position`` of the result of a bundle of one block."""
    return result[position].values[0]


def _work_shared(
    job: _Job, make: Callable[..., Iterator[Tile]], n_aligned: int, shared: dict[str, Any], *given: Any
) -> Any:
    """Call `_work` with the shared arguments from another task."""
    return _work(job, shared, make, n_aligned, *given)


def _work(job: _Job, shared: dict[str, Any], make: Callable[..., Iterator[Tile]], n_aligned: int, *given: Any) -> Any:
    """Return the nodes of a bundle, or (nodes, rows, ...) when ``job`` keeps some rows.

    ``shared`` are the keyword arguments of each block's call. ``given`` are ``n_aligned`` bundles of aligned rows, then
    the arguments of ``make``, which returns the tiles.
    """
    shared = to_device(shared, job.device)
    columns = [bundle.values for bundle in given[:n_aligned]]
    kept: tuple[list[Any], ...] = tuple([] for _ in job.keep)

    def sums() -> Iterator[Sums | None]:
        for i, part in enumerate(make(*given[n_aligned:])):
            call = partial(_block, job, part, [column[i] for column in columns], shared)
            statistics, *rows = call_with_retries(job.tries, call)
            for name, values in zip(kept, rows, strict=True):
                name.append(values)
            yield statistics

    with one_blas_thread():
        nodes = fold_bundle(sums(), job.bundle_size, job.combine)
    return (nodes, *(Bundle(tuple(name)) for name in kept)) if kept else nodes


def _block(job: _Job, part: Tile, rows: Sequence[Any], shared: dict[str, Any]) -> tuple[Any, ...]:
    """Return the sums of the tile ``part`` and the rows to keep; None for all of them where no pixel is used."""
    if not part.core.any():
        return (None,) * (1 + len(job.keep))
    extra = {"tile": part} if job.tile else {}
    pixels, sums = job.fn(part.x, *part.beside, *rows, **shared, **extra)
    kept = [pixels[k] if part.core.all() else pixels[k][part.core] for k in job.keep]
    return {k: _widen(v) for k, v in sums.items()}, *map(_without_base, kept)


def _without_base(value: Any) -> Any:
    """Copy a view of a larger array: a few kept columns of ``x`` would keep all of ``x`` in memory."""
    base = getattr(value, "base", None)
    return value.copy() if base is not None and getattr(base, "nbytes", 0) > value.nbytes else value


def _widen(value: Any) -> Any:
    """Bring a statistic to the host, in a type that neither overflows nor loses digits when added; lists stay lists."""
    if isinstance(value, (list, tuple)):
        return value
    host = arrays.to_host(value)
    wide = {"b": np.int64, "u": np.int64, "i": np.int64, "f": np.float64, "c": np.complex128}.get(host.dtype.kind)
    return (host if wide is None else host.astype(wide))[()]
