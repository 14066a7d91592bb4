"""Tasks of one kind, a task a block, as one layer of a Dask graph.

`dask.delayed` makes a layer for every task, and looks for tasks inside every argument that is a list or a dataclass:
what Dask then does with the layers grows with the square of their number (12 ms a block at 4000 blocks, measured, where
one layer costs 0.7 ms). So the tasks are written down one by one, and everything that is not another task's result lies
closed inside the callable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import DataNode, GraphNode, Task, TaskRef

Call = tuple[Callable[..., Any], Sequence[Delayed]]
"""What to call, and the delayed values that it takes by position."""


def tasks(name: str, calls: Iterable[Call]) -> tuple[Delayed, ...]:
    """One task a call; their keys are the name and a number.

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
    """What is there already, as delayed values."""
    layer: dict[Any, Any] = {f"{name}-{i}": DataNode(f"{name}-{i}", value) for i, value in enumerate(given)}
    graph = HighLevelGraph.from_collections(name, layer)
    return tuple(Delayed(key, graph, layer=name) for key in layer)


def gathered(name: str, parts: Sequence[Delayed]) -> tuple[Delayed, ...]:
    """Persisted parts, each a graph of its own, as one layer under their own keys."""
    layer: dict[Any, Any] = {}
    for part in parts:
        for key, value in dict(part.__dask_graph__()).items():
            # A cluster's future is a reference by itself.
            known = isinstance(value, GraphNode | TaskRef)
            layer[key] = value if known else DataNode(key, value)
    graph = HighLevelGraph.from_collections(name, layer)
    return tuple(Delayed(part.key, graph, layer=name) for part in parts)


def layer_of_tasks(name: str, calls: Mapping[Any, Call]) -> HighLevelGraph:
    """A layer with a task for each key, on top of the graphs of what the tasks take."""
    layer = {key: Task(key, fn, *(TaskRef(part.key) for part in parts)) for key, (fn, parts) in calls.items()}
    once: dict[int, Any] = {id(part.dask): part for _, parts in calls.values() for part in parts}
    return HighLevelGraph.from_collections(name, layer, dependencies=list(once.values()))
