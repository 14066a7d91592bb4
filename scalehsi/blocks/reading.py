"""How a block is read, closed inside a callable, so that one task can read many blocks one after another.

Dask would run the reading of each block as a task of its own and hold what it read until the task that wants it runs:
for a task that works on many blocks that is all of them at once. So the tasks that belong to one block alone are taken
out of the graph, and run by whoever works on the block, when it comes to that block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.task_spec import GraphNode

T = TypeVar("T")


class Piece(NamedTuple):
    """A value that comes with its block: what to call, and the delayed values that it takes by position."""

    read: Callable[..., Any]
    takes: tuple[Delayed, ...]


@dataclass(frozen=True)
class Reading:
    """Some tasks of a graph in an order in which they can run; the last one gives the value.

    Attributes
    ----------
    steps : tuple of (task, keys)
        Each with the keys that nobody wants after it.
    wants : tuple of keys
        Whose values come from outside, in the order of the call's arguments.
    """

    steps: tuple[tuple[GraphNode, tuple[Hashable, ...]], ...]
    wants: tuple[Hashable, ...]

    def __call__(self, *given: Any) -> Any:
        values: dict[Any, Any] = dict(zip(self.wants, given, strict=True))
        for task, spent in self.steps:
            values[task.key] = task(values)
            for key in spent:
                del values[key]
        return values[self.steps[-1][0].key]


def closed(name: str, parts: Sequence[Delayed]) -> list[Piece] | None:
    """The reading of each part as a piece, or None where the parts cannot be read apart from each other.

    Tasks of one part alone are closed inside; tasks that all parts need (a dark reference, an opened file) stay tasks.
    What some of the parts share (a stored chunk larger than a block, the overlap of a filter) would be computed again
    for each of them, and what lives on a worker already (a future) cannot be closed inside: then None.
    """
    graph: dict[Any, Any] = {}
    for once in {id(part.dask): part.dask for part in parts}.values():
        graph.update(once)
    orders = []
    for part in parts:
        if (order := _before(graph, part.key)) is None:
            return None
        orders.append(order)
    users = Counter(key for order in orders for key in order)
    common = {key for key, n in users.items() if n > 1}
    if any(users[key] < len(parts) for key in common):
        return None
    whole = HighLevelGraph.from_collections(name, {key: graph[key] for key in common})
    return [_piece(graph, order, common, whole, name) for order in orders]


def apart(parts: Sequence[Delayed]) -> list[Piece]:
    """The parts as they are, tasks of their own."""
    return [Piece(_itself, (part,)) for part in parts]


def _before(graph: Mapping[Any, Any], last: Any) -> list[Any] | None:
    """All keys that ``last`` needs, itself included, each after what it needs; None where one is not a task."""
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


def _piece(graph: Mapping[Any, Any], order: list[Any], common: set[Any], whole: HighLevelGraph, name: str) -> Piece:
    own = [graph[key] for key in order if key not in common]
    last_use = {need: i for i, task in enumerate(own) for need in task.dependencies}
    spent: list[list[Any]] = [[] for _ in own]
    for key, i in last_use.items():
        spent[i].append(key)
    wants = [key for key in last_use if key in common] if own else order[-1:]
    takes = tuple(Delayed(key, whole, layer=name) for key in wants)
    if not own:  # parts that are one and the same
        return Piece(_itself, takes)
    return Piece(
        Reading(tuple((task, tuple(keys)) for task, keys in zip(own, spent, strict=True)), tuple(wants)), takes
    )


def _itself(value: Any) -> Any:
    return value


def ahead(calls: Sequence[Callable[[], T]]) -> Iterator[T]:
    """The results of the calls in their order; each is made while the consumer works on the one before.

    Two results are there at a time, never more.
    """
    if len(calls) < 2:
        yield from (call() for call in calls)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="scalehsi-read") as pool:
        coming = pool.submit(calls[0])
        for call in calls[1:]:
            result = coming.result()
            coming = pool.submit(call)
            yield result
            del result
        yield coming.result()
