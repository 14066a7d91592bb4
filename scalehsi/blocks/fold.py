"""One pass over a cube: run a function on every block, keep what is per pixel, add up the rest."""

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
from scalehsi.blocks.bundle import Bundle, Combine, Sums, cut_bundles, fold_bundle, fold_nodes, tree
from scalehsi.blocks.compute import Report, attempts, on_cluster, run
from scalehsi.blocks.feed import Feed, attempt, to_device
from scalehsi.blocks.graph import tasks
from scalehsi.blocks.pixels import Pixels
from scalehsi.blocks.tile import Tile
from scalehsi.blocks.view import Blocks, open_blocks
from scalehsi.chunks import MiB
from scalehsi.schema import InputError

HOME_BYTES: Final = 8 * MiB
"""Sums of all bundles that may come home as they are: adding them up in tasks costs a cluster 6 ms a level of the tree.
How large the sums are is known from the pass of that name before; the first one does without."""
LITERAL_SHARED: Final = 2 * MiB
"""What is shared travels inside each task up to so much in all tasks: from a task of its own it comes 6 ms later."""

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
    """Run a function on every block, keep what is per pixel, and add up the rest: one pass over the cube.

    Parameters
    ----------
    fn : callable
        ``fn(x, *aligned, **shared) -> (pixels, sums)``, see the module's text. It must be pure: a block may be computed
        twice when a worker dies.
    cube : Blocks or xarray.DataArray
        A DataArray is opened for this one pass.
    *aligned : Pixels or xarray.DataArray
        What goes along block by block: handles of an earlier pass, or maps over the pixel dims. On a cluster a handle
        keeps the tasks of all the passes that it came from, so that a lost block can be computed again: an iteration
        that hands its rows on grows by these, one whose state is in ``shared`` does not.
    shared : mapping, optional
        Keyword arguments of every call (endmembers, weights). They travel once to each worker as one task, so they
        outlive the worker that holds them.
    keep : sequence of str
        Names in ``pixels`` to keep in the workers' memory and to give back as handles. What is not named is dropped.
    combine : callable, optional
        How two dicts of sums become one; it must be associative. Default: addition, name by name.
    halo : int, default 0
        Pixels read along on each side in y and x. With a halo ``x`` holds every pixel of the tile, masked ones too;
        what ``fn`` gives per pixel is cut back to the core; ``sums`` must count ``tile.core`` alone.
    tile : bool, default False
        True: ``fn`` also gets the keyword ``tile``, a `Tile` with pixel numbers, shape and core.
    name : str
        What the dashboard shows. Letters and hyphens.
    report : callable, optional
        Called as ``report(done, total)`` when a block is done.

    Returns
    -------
    handles : dict of str to Pixels
        As named in ``keep``.
    sums : dict of str to number or numpy array
        On the host; floats added in float64, integers in int64.

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
    step = 1 if halo else view.step
    job = _Job(fn, tuple(keep), view.device, tile=tile, step=step, tries=attempts(), combine=combine or add)
    bundles = _tasks(job, view, view.feeds(halo), aligned, shared=shared, halo=halo, name=name)
    leaves = _take(bundles, 0, view.key(f"{name}-sums")) if keep else bundles
    # The same tree, so the same bits, whether its top is made of tasks or here.
    home = view.sums_bytes.get(name, HOME_BYTES) * len(leaves) < HOME_BYTES
    root = leaves if home else tree(leaves, step, job.combine, view.key(f"{name}-reduce"))
    kept = {k: _take(bundles, i, view.key(f"{name}-{k}")) for i, k in enumerate(keep, start=1)}
    counts = [part.stop - part.start for part in cut_bundles(len(view), step)]
    found, held = run(root, kept, leaves, report or view.report, counts=counts)
    sums = fold_nodes(found, job.combine) if home else found[0]
    view.sums_bytes[name] = sizeof(sums)
    if sums is None:
        raise InputError(
            "the mask leaves no pixel (True = use); turn it round with cube.assign_coords(mask=~cube.mask)"
        )
    return {k: Pixels(view.cuts, parts, step) for k, parts in held.items()}, sums


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
    """The lazy half of `map_fold`: handles of what is per pixel, computed when somebody asks, sums dropped.

    Parameters
    ----------
    fn, cube, aligned, shared, keep, halo, tile, name
        As in `map_fold`.

    Returns
    -------
    dict of str to Pixels
    """
    view = cube if isinstance(cube, Blocks) else open_blocks(cube, resident=False)
    job = _Job(fn, tuple(keep), view.device, tile=tile, step=1, tries=attempts(), combine=add)
    blocks = _tasks(job, view, view.lazy_feeds(halo), aligned, shared=shared, halo=halo, name=name)
    return {
        k: Pixels(view.cuts, tasks(view.key(f"{name}-{k}"), [(partial(_row_of, i), (block,)) for block in blocks]))
        for i, k in enumerate(keep, start=1)
    }


def add(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Add two dicts of statistics name by name; a name that one lacks is the other's.

    Examples
    --------
    >>> add({"n": 1, "s": 2.0}, {"n": 3})
    {'n': 4, 's': 2.0}
    """
    return {k: left[k] + right[k] if k in left and k in right else left.get(k, right.get(k)) for k in {**left, **right}}


@dataclass(frozen=True)
class _Job:
    """What one task does to each of its blocks."""

    fn: BlockFunction
    keep: tuple[str, ...]
    device: arrays.Device
    tile: bool
    step: int
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
    """One task a bundle, which gives its nodes of the tree, or (nodes, rows of the first name, ...)."""
    key = view.key(name)
    values = dict(shared or {})
    if on_cluster() and sizeof(values) * len(feeds) > LITERAL_SHARED:
        # A task, not data: a worker that dies takes its copy along, and the scheduler makes another from the graph.
        common, make = tasks(view.key(f"{name}-shared"), [(partial(dict, values), ())]), partial(_work_shared, job)
    else:
        common, make = (), partial(_work, job, values)
    columns = [view.aligned(a, halo, job.step) for a in aligned]
    calls = []
    for feed, *rows in zip(feeds, *columns, strict=True):
        calls.append((partial(make, feed.make, len(rows)), (*common, *rows, *feed.takes)))
    return tasks(key, calls)


def _take(bundles: Sequence[Delayed], position: int, key: str) -> tuple[Delayed, ...]:
    return tasks(key, [(itemgetter(position), (bundle,)) for bundle in bundles])


# What runs inside the tasks.


def _row_of(position: int, found: tuple[Any, ...]) -> Any:
    """The rows of the only block of a bundle."""
    return found[position].values[0]


def _work_shared(
    job: _Job, make: Callable[..., Iterator[Tile]], n_aligned: int, shared: dict[str, Any], *given: Any
) -> Any:
    return _work(job, shared, make, n_aligned, *given)


def _work(job: _Job, shared: dict[str, Any], make: Callable[..., Iterator[Tile]], n_aligned: int, *given: Any) -> Any:
    """The nodes of a bundle, or (nodes, rows, ...) when something is kept."""
    here = to_device(shared, job.device)
    columns = [bundle.values for bundle in given[:n_aligned]]
    kept: tuple[list[Any], ...] = tuple([] for _ in job.keep)

    def sums() -> Iterator[Sums | None]:
        for i, part in enumerate(make(*given[n_aligned:])):
            home, *rows = attempt(job.tries, partial(_block, job, part, [column[i] for column in columns], here))
            for name, values in zip(kept, rows, strict=True):
                name.append(values)
            yield home

    with one_blas_thread():
        nodes = fold_bundle(sums(), job.step, job.combine)
    return (nodes, *(Bundle(tuple(name)) for name in kept)) if kept else nodes


def _block(job: _Job, part: Tile, rows: Sequence[Any], shared: dict[str, Any]) -> tuple[Any, ...]:
    """The sums of a block and the rows to keep; None for all where no pixel is used."""
    if not part.core.any():
        return (None,) * (1 + len(job.keep))
    extra = {"tile": part} if job.tile else {}
    pixels, sums = job.fn(part.x, *rows, **shared, **extra)
    home = {k: _widen(v) for k, v in sums.items()}
    cut = [pixels[k] if part.core.all() else pixels[k][part.core] for k in job.keep]
    return home, *map(_own, cut)


def _own(value: Any) -> Any:
    """A copy of what is a window on something larger: kept, a few columns of ``x`` would hold all of ``x``."""
    base = getattr(value, "base", None)
    return value.copy() if base is not None and getattr(base, "nbytes", 0) > value.nbytes else value


def _widen(value: Any) -> Any:
    """A statistic on the host, in a type whose sums neither overflow nor round away; lists are put end to end."""
    if isinstance(value, (list, tuple)):
        return value
    host = arrays.to_host(value)
    wide = {"b": np.int64, "u": np.int64, "i": np.int64, "f": np.float64, "c": np.complex128}.get(host.dtype.kind)
    return (host if wide is None else host.astype(wide))[()]
