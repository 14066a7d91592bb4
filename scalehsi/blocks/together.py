"""Compute several lazy answers about one cube in one pass, which reads each block of the cube once for all of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import dask
import dask.array as da
import xarray as xr
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import Task, TaskRef

from scalehsi.blocks import compute
from scalehsi.blocks.feed import TileReader
from scalehsi.blocks.reading import Reader, TaskChain, identity
from scalehsi.schema import InputError


def compute_together(*lazy: Any) -> tuple[Any, ...]:
    """Compute lazy maps of a cube in one pass, so that each chunk of the cube is read and decoded once.

    Computed one after another, each would read the cube. So type
    ``maps, edges, composition = scalehsi.compute_together(scalehsi.project(result, cube), ...)``.

    Parameters
    ----------
    *lazy : xarray.DataArray or xarray.Dataset
        `scalehsi.project`, ``scalehsi.quantify.edge_maps(cube, ..., lazy=True)``,
        ``scalehsi.quantify(cube, ..., maps=True)``, sums and windows of the cube such as ``cube.sum("energy")``, and
        others over one cube, which they were given as the same object or opened from the same store. What is in
        memory is returned as it is.

    Returns
    -------
    tuple of xarray.DataArray or xarray.Dataset
        The same with their values in memory, in the order given.

    Raises
    ------
    InputError
        When nothing is given, or what is given is neither a DataArray nor a Dataset.

    Examples
    --------
    >>> import scalehsi as hsi
    >>> cube, truth = hsi.simulate.chequerboard((16, 16), n_channels=64)
    >>> maps, total = hsi.compute_together(hsi.project(truth.endmembers, cube.chunk(y=8)), cube.sum("energy"))
    >>> maps.chunks is None, total.shape
    (True, (16, 16))
    """
    wrong = [type(each).__name__ for each in lazy if not isinstance(each, xr.DataArray | xr.Dataset)]
    if wrong or not lazy:
        given = f"a {wrong[0]}" if wrong else "nothing"
        raise InputError(f"compute_together takes lazy maps (DataArray or Dataset), got {given}; type project(...)")
    with compute.no_large_graph_warning():
        # One call, in which Dask joins tasks of the same name.
        found: tuple[Any, ...] = dask.compute(*map(_with_reading_tasks, lazy))
    return found


def _with_reading_tasks(lazy: Any) -> Any:
    """The same values, whose blocks are read by tasks of their own."""
    if isinstance(lazy, xr.Dataset):
        return lazy.assign({name: _with_reading_tasks(v) for name, v in lazy.data_vars.items()})
    if not isinstance(lazy.data, da.Array):
        return lazy
    array, graph = lazy.data, dict(lazy.data.dask)
    for key, task in list(graph.items()):
        _separate(graph, key, task)
    whole = HighLevelGraph.from_collections(array.name, graph)
    return lazy.copy(data=da.Array(whole, array.name, chunks=array.chunks, dtype=array.dtype))


def _separate(graph: dict[Any, Any], key: Any, task: Any) -> None:
    """Turn the reading inside a task on one block into tasks, whose names follow from the data that they read."""
    work = getattr(task, "func", None)
    # What `scalehsi.blocks.fold` binds: the job, shared arguments where they are inline, the reader, a number.
    at = next((i for i, arg in enumerate(getattr(work, "args", ())) if isinstance(arg, TileReader)), None)
    if not isinstance(work, partial) or at is None:
        return
    reader: TileReader = work.args[at]
    first = len(task.args) - sum(reader.counts)
    rest = iter(task.args[first:])
    takes: list[Any] = []
    loads, counts = [], []
    for load, count in zip(reader.loads, reader.counts, strict=True):
        given = iter([next(rest) for _ in range(count)])
        readers = []
        begin = len(takes)
        for read, needs in load.readers:
            refs = [next(given) for _ in needs]
            if not isinstance(read, TaskChain) or not _as_tasks(graph, read, refs):
                readers.append(Reader(read, needs))
                takes += refs
                continue
            readers.append(Reader(identity, _ONE))
            takes.append(TaskRef(read.steps[-1][0].key))
        loads.append(replace(load, readers=tuple(readers)))
        counts.append(len(takes) - begin)
    bound = [*work.args[:at], TileReader(tuple(loads), tuple(counts)), *work.args[at + 1 :]]
    graph[key] = Task(key, partial(work.func, *bound, **work.keywords), *task.args[:first], *takes)


_ONE: tuple[Any, ...] = (None,)
"""A reader that takes one value; `TileReader` counts them and does not look at them."""


def _as_tasks(graph: dict[Any, Any], chain: TaskChain, refs: list[Any]) -> bool:
    """Put the steps of a chain into a graph; False where the values that it takes have other names there."""
    if [getattr(ref, "key", None) for ref in refs] != list(chain.inputs):
        return False
    graph.update({task.key: task for task, _ in chain.steps})
    return True
