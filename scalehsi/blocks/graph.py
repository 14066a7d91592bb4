"""Write many tasks of one kind, such as one for each block, as a single layer of a Dask graph.

`dask.delayed` makes a layer for every task, and searches every argument that is a list or a dataclass for tasks. Dask's
work on the layers grows with the square of their number (measured: 12 ms a block at 4000 blocks, where one layer costs
0.7 ms). So the tasks are listed one by one here, and every argument that is not another task's result is bound inside
the callable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dask
import dask.array as da
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import DataNode, GraphNode, Task, TaskRef

Call = tuple[Callable[..., Any], Sequence[Delayed]]
"""A callable, and the delayed values that it takes by position."""


def tasks(name: str, calls: Iterable[Call]) -> tuple[Delayed, ...]:
    """Make one task of each call; its key is the name and a number.

    Parameters
    ----------
    name : str
        Unique name of the layer.
    calls : iterable of (callable, sequence of Delayed)
        What each task calls, and the delayed values that it takes by position.

    Returns
    -------
    tuple of Delayed
        The results, in the order of the calls.

    Examples
    --------
    >>> two, three = tasks("number", [(lambda: 2, ()), (lambda: 3, ())])
    >>> (six,) = tasks("product", [(lambda a, b: a * b, (two, three))])
    >>> six.key, six.compute(scheduler="synchronous")
    ('product-0', 6)
    """
    named = {f"{name}-{i}": call for i, call in enumerate(calls)}
    graph = layer_of_tasks(name, named)
    return tuple(Delayed(key, graph, layer=name) for key in named)


def values(name: str, given: Iterable[Any]) -> tuple[Delayed, ...]:
    """Wrap values that are in memory as delayed values, in one layer called ``name``."""
    layer: dict[Any, Any] = {f"{name}-{i}": DataNode(f"{name}-{i}", value) for i, value in enumerate(given)}
    graph = HighLevelGraph.from_collections(name, layer)
    return tuple(Delayed(key, graph, layer=name) for key in layer)


def one_layer(name: str, parts: Sequence[Delayed]) -> tuple[Delayed, ...]:
    """Join persisted values, each with a graph of its own, in one layer called ``name``; their keys stay."""
    layer: dict[Any, Any] = {}
    for part in parts:
        for key, value in dict(part.__dask_graph__()).items():
            # On a cluster the value is a reference to a future, and stays one.
            is_node = isinstance(value, GraphNode | TaskRef)
            layer[key] = value if is_node else DataNode(key, value)
    graph = HighLevelGraph.from_collections(name, layer)
    return tuple(Delayed(part.key, graph, layer=name) for part in parts)


def rechunked(data: da.Array, chunks: Any) -> da.Array:
    """Rechunk by tasks that each make one chunk.

    On a cluster Dask would move the data through files of all workers in place of that: a block could then not be read
    before the whole cube was, and small workers hang.
    """
    with dask.config.set({"array.rechunk.method": "tasks"}):
        out: da.Array = data.rechunk(chunks)
    return out


def layer_of_tasks(name: str, calls: Mapping[Any, Call]) -> HighLevelGraph:
    """Return a graph whose last layer, ``name``, has a task for each key, above the graphs of the tasks' arguments."""
    layer = {key: Task(key, fn, *(TaskRef(part.key) for part in parts)) for key, (fn, parts) in calls.items()}
    once: dict[int, Any] = {id(part.dask): part for _, parts in calls.values() for part in parts}
    return HighLevelGraph.from_collections(name, layer, dependencies=list(once.values()))
