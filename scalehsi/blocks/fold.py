"""One pass over a cube: run a function on every block, keep what is per pixel, add up the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final

import numpy as np
import xarray as xr
from dask.delayed import Delayed

from scalehsi import arrays
from scalehsi.blocks.blas import one_blas_thread
from scalehsi.blocks.compute import Report, run
from scalehsi.blocks.graph import tasks
from scalehsi.blocks.tile import Tile
from scalehsi.blocks.view import Blocks, Pixels, open_blocks
from scalehsi.schema import InputError

Pair = tuple[dict[str, Any], dict[str, Any]]
BlockFunction = Callable[..., Pair]
Combine = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]

FAN_IN: Final = 4
"""Dicts of sums that meet in one task. They meet in one worker's memory too: with 16 matrices of 2048 x 2048 channels a
worker of 600 MiB dies and one of 1 GiB takes four times as long; for small sums the extra tasks cost little."""


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
    blocks = _tasks(fn, view, aligned, shared=shared, keep=keep, halo=halo, tile=tile, name=name)
    leaves = _take(blocks, 0, view.key(f"{name}-sums")) if keep else blocks
    root = _tree(leaves, combine or add, view.key(f"{name}-reduce"))
    handles = _handles(blocks, view, keep, name)
    sums, kept = run(root, {k: h.parts for k, h in handles.items()}, leaves, report or view.report)
    if sums is None:
        raise InputError(
            "the mask leaves no pixel (True = use); turn it round with cube.assign_coords(mask=~cube.mask)"
        )
    return {k: Pixels(view, parts) for k, parts in kept.items()}, sums


def map_pixels(
    fn: BlockFunction,
    cube: Blocks | xr.DataArray,
    *aligned: Pixels | xr.DataArray,
    shared: Mapping[str, Any] | None = None,
    keep: Sequence[str],
    name: str = "map-pixels",
) -> dict[str, Pixels]:
    """The lazy half of `map_fold`: handles of what is per pixel, computed when somebody asks, sums dropped.

    Parameters
    ----------
    fn, cube, aligned, shared, keep, name
        As in `map_fold`.

    Returns
    -------
    dict of str to Pixels
    """
    view = cube if isinstance(cube, Blocks) else open_blocks(cube, resident=False)
    blocks = _tasks(fn, view, aligned, shared=shared, keep=keep, halo=0, tile=False, name=name, load=False)
    return _handles(blocks, view, keep, name)


def add(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """Add two dicts of statistics name by name; a name that one lacks is the other's.

    Examples
    --------
    >>> add({"n": 1, "s": 2.0}, {"n": 3})
    {'n': 4, 's': 2.0}
    """
    return {k: left[k] + right[k] if k in left and k in right else left.get(k, right.get(k)) for k in {**left, **right}}


def _tasks(
    fn: BlockFunction,
    view: Blocks,
    aligned: Sequence[Pixels | xr.DataArray],
    *,
    shared: Mapping[str, Any] | None,
    keep: Sequence[str],
    halo: int,
    tile: bool,
    name: str,
    load: bool = True,
) -> tuple[Delayed, ...]:
    """One task a block, which gives its sums, or (sums, rows of the first name, ...) when something is kept."""
    key = view.key(name)
    # A task, not data: a worker that dies takes its copy along, and the scheduler makes another from the graph.
    common = tasks(view.key(f"{name}-shared"), [(partial(dict, shared or {}), ())])
    columns = [view.aligned(a, halo) for a in aligned]
    call = partial(_call, fn, tuple(keep), tile, view.device)
    return tasks(key, [(call, (*common, *parts)) for parts in zip(view.tiles(halo, load=load), *columns, strict=True)])


def _take(blocks: Sequence[Delayed], position: int, key: str) -> tuple[Delayed, ...]:
    return tasks(key, [(itemgetter(position), (block,)) for block in blocks])


def _handles(blocks: Sequence[Delayed], view: Blocks, keep: Sequence[str], name: str) -> dict[str, Pixels]:
    return {k: Pixels(view, _take(blocks, i, view.key(f"{name}-{k}"))) for i, k in enumerate(keep, start=1)}


def _tree(leaves: Sequence[Delayed], combine: Combine, key: str) -> Delayed:
    """Add up in a tree of fixed shape, so that neither scheduler nor timing changes a rounding."""
    level, depth = list(leaves), 0
    while True:
        groups = [level[i : i + FAN_IN] for i in range(0, len(level), FAN_IN)]
        level = list(tasks(f"{key}-{depth}", [(partial(_fold, combine), group) for group in groups]))
        depth += 1
        if len(level) == 1:
            return level[0]


# What runs inside the tasks.


def _call(
    fn: BlockFunction,
    keep: tuple[str, ...],
    tile: bool,  # noqa: FBT001 - a task takes its arguments by position
    device: arrays.Device,
    shared: dict[str, Any],
    part: Tile,
    *rows: Any,
) -> Any:
    """The sums of a block, or (sums, rows, ...) when something is kept; None for all where no pixel is used."""
    if not part.core.any():
        return (None,) * (1 + len(keep)) if keep else None
    here = {k: arrays.to_device(v, device) if isinstance(v, np.ndarray) else v for k, v in shared.items()}
    extra = {"tile": part} if tile else {}
    with one_blas_thread():
        pixels, sums = fn(part.x, *rows, **here, **extra)
    home = {k: _widen(v) for k, v in sums.items()}
    if not keep:
        return home
    cut = [pixels[k] if part.core.all() else pixels[k][part.core] for k in keep]
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


def _fold(combine: Combine, *parts: dict[str, Any] | None) -> dict[str, Any] | None:
    """The sum of some blocks' sums; None where none of them had a used pixel."""
    seen = [p for p in parts if p is not None]
    filled = [p for p in seen if p]
    if not filled:
        return {} if seen else None
    total = filled[0]
    for part in filled[1:]:
        total = combine(total, part)
    return total
