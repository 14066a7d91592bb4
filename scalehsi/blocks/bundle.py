"""Bundles: consecutive blocks that one task works on, and the tree in which their statistics are added.

A task costs Dask the same whether it works for a millisecond or for a second. So a task takes a bundle of blocks, a few
bundles for each thread.

How many blocks a bundle has depends on the workers, and a sum must not: floats added in another order give other bits.
So the tree is fixed by the blocks alone. Four blocks meet in a node, left to right, four nodes in the next one, and so
on. A bundle is a power of two of blocks, which is one node of that tree or two: it adds up inside what the tree adds up
there, and gives these nodes. Whether a task adds them or a bundle did, the additions are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from dask.delayed import Delayed
from dask.sizeof import sizeof

from scalehsi.blocks.graph import tasks
from scalehsi.chunks import MiB

Sums = dict[str, Any]
Nodes = tuple[Sums | None, ...]
Combine = Callable[[Sums, Sums], Sums]

FAN_IN: Final = 4
"""Dicts of sums that meet in one node. They meet in one worker's memory too: with 16 matrices of 2048 x 2048 channels a
worker of 600 MiB dies and one of 1 GiB takes four times as long."""
HELD_A_THREAD: Final = 2
"""Bundles a thread, at least, that a cluster holds: they are where they are, so that more would not balance better."""
READ_A_THREAD: Final = 3
"""Bundles a thread, at least, that go to whoever is free: the last of them keeps one thread busy and others waiting."""
BUNDLE_BYTES: Final = 256 * MiB
"""A pass over so much takes 50 ms and more, beside which a task's cost of 1 to 2 ms is little; and more than that one
worker neither hands over to another nor loses lightly."""
TASK_SECONDS: Final = 0.0015
"""Of a worker, for each task of a cluster."""
PASS_BYTES: Final = 5e9
"""A fast kernel goes through so many bytes a second."""


@dataclass(frozen=True)
class Bundle:
    """A value for each of some consecutive blocks, kept together."""

    values: tuple[Any, ...]

    def __sizeof__(self) -> int:
        return int(sum(map(sizeof, self.values)))


def bundle_size(blocks: int, *, threads: int, block_bytes: int, held: bool) -> int:
    """Blocks in a bundle: the power of two with which a pass takes least time.

    Parameters
    ----------
    blocks, threads, block_bytes : int
    held : bool
        True where workers of a cluster hold the bundles; False where who is free takes one, and reads its blocks.

    Examples
    --------
    >>> [bundle_size(64, threads=n, block_bytes=2**24, held=True) for n in (2, 5, 7, 40)]
    [16, 2, 2, 1]
    >>> [bundle_size(64, threads=2, block_bytes=n, held=False) for n in (2**24, 2**27, 2**30)]
    [8, 2, 1]
    """
    threads = max(1, threads)
    most = min(blocks // ((HELD_A_THREAD if held else READ_A_THREAD) * threads), BUNDLE_BYTES // max(1, block_bytes))
    sizes = [1 << i for i in range(max(1, most).bit_length())]

    def seconds(size: int) -> float:
        rounds = math.ceil(math.ceil(blocks / size) / threads)
        # Nobody works while the first block of a bundle is read.
        worked = size if held else size + 1
        return rounds * (worked * block_bytes / PASS_BYTES + TASK_SECONDS)

    return min(reversed(sizes), key=seconds)


def cut_bundles(blocks: int, size: int) -> list[slice]:
    """Which blocks each bundle has."""
    return [slice(start, min(start + size, blocks)) for start in range(0, blocks, size)]


def nodes_of(size: int) -> tuple[int, int]:
    """Nodes of the tree in a bundle, one or two, and their height.

    Examples
    --------
    >>> [nodes_of(size) for size in (1, 2, 4, 8, 16)]
    [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2)]
    """
    height = (size.bit_length() - 1) // 2
    return size // FAN_IN**height, height


def fold_bundle(sums: Iterator[Sums | None], size: int, combine: Combine) -> Nodes:
    """Add up a bundle as the tree does. Holds one dict for each level of the tree, and the one that comes."""
    count, height = nodes_of(size)
    return tuple(_node(sums, height, combine) for _ in range(count))


def _node(sums: Iterator[Sums | None], height: int, combine: Combine) -> Sums | None:
    if not height:
        return next(sums, None)
    total: Sums | None = None
    for _ in range(FAN_IN):
        total = join(combine, total, _node(sums, height - 1, combine))
    return total


def join(combine: Combine, left: Sums | None, right: Sums | None) -> Sums | None:
    """The sum of two; None stands for blocks without a used pixel, an empty dict for blocks without statistics."""
    if not left:
        return left if right is None else right
    return combine(left, right) if right else left


def reduce_nodes(combine: Combine, *bundles: Nodes) -> Nodes:
    """One node of the tree from the nodes below it, at most `FAN_IN`."""
    total: Sums | None = None
    for node in (node for nodes in bundles for node in nodes):
        total = join(combine, total, node)
    return (total,)


def tree(bundles: Sequence[Delayed], size: int, combine: Combine, key: str) -> Delayed:
    """The rest of the tree, above the bundles, as tasks; the last one gives the node at its top."""
    level, fan_in, depth = list(bundles), FAN_IN // nodes_of(size)[0], 0
    while depth == 0 or len(level) > 1:
        groups = [level[i : i + fan_in] for i in range(0, len(level), fan_in)]
        level = list(tasks(f"{key}-{depth}", [(partial(reduce_nodes, combine), group) for group in groups]))
        fan_in, depth = FAN_IN, depth + 1
    return level[0]


def fold_nodes(bundles: Sequence[Nodes], combine: Combine) -> Sums | None:
    """The rest of the tree, above the bundles, here and now."""
    level = [node for nodes in bundles for node in nodes]
    while len(level) > 1:
        level = [reduce_nodes(combine, tuple(level[i : i + FAN_IN]))[0] for i in range(0, len(level), FAN_IN)]
    return level[0]
