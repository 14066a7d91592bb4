"""Move the tasks that read a block out of the Dask graph, so that one task can read many blocks one after another.

Dask would run the reading of each block as a task of its own and keep its result until the task that needs it runs. For
a task that works on many blocks, all of them would be in memory at once. So the tasks that only one block needs are
taken out of the graph, and the task that works on the block runs them when its turn comes.
"""

from __future__ import annotations

import itertools
from collections import ChainMap, Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import dask.array as da
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import GraphNode, Task, TaskRef

from scalehsi.blocks import tile as tiles

T = TypeVar("T")


class Reader(NamedTuple):
    """How a task reads the values of a block: a callable, and the delayed values that it takes by position."""

    read: Callable[..., Any]
    takes: tuple[Delayed, ...]


@dataclass(frozen=True)
class TaskChain:
    """Tasks of a graph in an order in which they can run; calling it runs them and returns the last one's value.

    Attributes
    ----------
    steps : tuple of (task, keys)
        Each task with the keys whose values no later task needs.
    inputs : tuple of keys
        Keys of the values that the call takes by position.
    """

    steps: tuple[tuple[GraphNode, tuple[Hashable, ...]], ...]
    inputs: tuple[Hashable, ...]

    def __call__(self, *given: Any) -> Any:
        values: dict[Any, Any] = dict(zip(self.inputs, given, strict=True))
        for task, unused in self.steps:
            values[task.key] = task(values)
            for key in unused:
                del values[key]
        return values[self.steps[-1][0].key]


def separate_readers(name: str, parts: Sequence[Delayed]) -> list[Reader] | None:
    """Return a reader of each part that runs the part's own tasks, or None where the parts share some tasks.

    Tasks that all parts need (a dark reference, an opened file) stay tasks, in a graph called ``name``. Tasks that some
    of the parts share (a stored chunk larger than a block, the overlap of a filter) would run again for each of them,
    and a value that is on a worker already (a future) cannot be moved into a reader: for both the answer is None.
    """
    graph: dict[Any, Any] = {}
    for once in {id(part.dask): part.dask for part in parts}.values():
        graph.update(once)
    orders = []
    for part in parts:
        if (order := _needed_keys(graph, part.key)) is None:
            return None
        orders.append(order)
    users = Counter(key for order in orders for key in order)
    common = {key for key, n in users.items() if n > 1}
    if any(users[key] < len(parts) for key in common):
        return None
    whole = HighLevelGraph.from_collections(name, {key: graph[key] for key in common})
    return [_reader(graph, order, common, whole, name) for order in orders]


def window_readers(name: str, data: da.Array, windows: Sequence[tuple[slice, ...]]) -> list[Reader] | None:
    """Return a reader of each window of an array, which may overlap: each runs again what another one also needs.

    A graph in which windows share tasks keeps whatever waits for a neighbour, and grows with the width of the array.
    Here a window needs the memory of itself and of one chunk. The answer is None where values are on workers already.

    ``name`` is that of the graph of what all windows need; ``windows`` are slices of all dims but the last, which is
    one chunk.
    """
    parts = data.to_delayed()
    graph = dict(parts.flat[0].dask)
    orders = {part.key: _needed_keys(graph, part.key) for part in parts.flat}
    users: Counter[Any] = Counter()
    for order in orders.values():
        if order is None:
            return None
        users.update(order)
    common = {key for key, n in users.items() if n == len(orders) and (n > 1 or not graph[key].dependencies)}
    whole = HighLevelGraph.from_collections(name, {key: graph[key] for key in common})
    edges = [[0, *itertools.accumulate(sizes)] for sizes in data.chunks[:-1]]
    readers = []
    for window in windows:
        spans = [tiles.overlaps(edge, part.start, part.stop) for edge, part in zip(edges, window, strict=True)]
        own: dict[Any, GraphNode] = {}
        needed: dict[Any, None] = {}
        targets = []
        for cells in itertools.product(*spans):
            chunk = parts[(*(cell for cell, _, _ in cells), 0)].key
            needed.update(dict.fromkeys(orders[chunk] or ()))
            key = f"crop-{len(own)}"
            own[key] = Task(key, partial(tiles.crop, tuple(part for _, part, _ in cells)), TaskRef(chunk))
            needed[key] = None
            targets.append(tuple(target for _, _, target in cells))
        shape = tuple(part.stop - part.start for part in window)
        own["join"] = Task("join", partial(tiles.join, shape, targets), *(TaskRef(key) for key in own))
        readers.append(_reader(ChainMap(own, graph), [*needed, "join"], common, whole, name))
    return readers


def task_readers(parts: Sequence[Delayed]) -> list[Reader]:
    """Return readers that leave the reading of each part to tasks of its own."""
    return [Reader(identity, (part,)) for part in parts]


def _needed_keys(graph: Mapping[Any, Any], last: Any) -> list[Any] | None:
    """Return the keys that ``last`` needs and ``last``, in an order of execution; None where one is not a task."""
    order: dict[Any, None] = {}
    stack = [(last, False)]
    while stack:
        key, ready = stack.pop()
        if ready:
            order[key] = None
        elif key not in order:
            node = graph.get(key)
            if not isinstance(node, GraphNode):
                return None
            stack.append((key, True))
            stack.extend((need, False) for need in node.dependencies if need not in order)
    return list(order)


def _reader(graph: Mapping[Any, Any], order: list[Any], common: set[Any], whole: HighLevelGraph, name: str) -> Reader:
    """Return the reader of one part.

    ``order`` are the keys that it needs, from ``graph``; those in ``common`` stay tasks, in the graph ``whole`` whose
    layer is called ``name``.
    """
    own = [graph[key] for key in order if key not in common]
    last_use = {need: i for i, task in enumerate(own) for need in task.dependencies}
    unused: list[list[Any]] = [[] for _ in own]
    for key, i in last_use.items():
        unused[i].append(key)
    inputs = [key for key in last_use if key in common] if own else order[-1:]
    takes = tuple(Delayed(key, whole, layer=name) for key in inputs)
    if not own:  # several parts are the same task
        return Reader(identity, takes)
    steps = tuple((task, tuple(keys)) for task, keys in zip(own, unused, strict=True))
    return Reader(TaskChain(steps, tuple(inputs)), takes)


def identity(value: Any) -> Any:
    """The value, which another task has read."""
    return value


def prefetched(calls: Sequence[Callable[[], T]]) -> Iterator[T]:
    """Iterate over the results of the calls; each call runs in a thread while the result before it is used.

    At most two results are in memory at a time.
    """
    if len(calls) < 2:
        yield from (call() for call in calls)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="scalehsi-read") as pool:
        next_result = pool.submit(calls[0])
        for call in calls[1:]:
            result = next_result.result()
            next_result = pool.submit(call)
            yield result
            del result
        yield next_result.result()
