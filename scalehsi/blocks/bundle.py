"""Group consecutive blocks into bundles, one for each task, and add up their statistics in a fixed tree.

A task costs Dask the same whether it runs for a millisecond or for a second. So a task works on a bundle of blocks, and
each thread gets a few bundles.

The number of blocks in a bundle depends on the workers, but a sum must not: floats added in another order give other
bits. So the blocks alone fix the tree. The statistics of four blocks are added, from left to right, to one node; four
nodes are added to a node of the next level, and so on. The number of blocks in a bundle is a power of two, so a bundle
covers one node of the tree or two: it does the additions below these nodes and returns the nodes. Whether a task or a
bundle adds two dicts of statistics, the order of the additions is the same.
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
"""Dicts of sums that are added to one node. All of them are in one worker's memory: with 16 matrices of 2048 x 2048
channels a worker of 600 MiB dies and one of 1 GiB takes four times as long."""
MIN_RESIDENT_BUNDLES_PER_THREAD: Final = 2
"""For bundles kept by the workers of a cluster. They do not move, so more of them would not balance the load better."""
MIN_STREAMED_BUNDLES_PER_THREAD: Final = 3
"""For bundles that any free thread may take. While the last one is computed, the other threads wait."""
MAX_BUNDLE_BYTES: Final = 256 * MiB
"""A pass over this much data takes at least 50 ms, so a task's cost of 1 to 2 ms is small. A larger bundle would take
long to transfer to another worker, and long to compute again when its worker dies."""
TASK_SECONDS: Final = 0.0015
"""Time that a worker of a cluster spends on each task besides its computation."""
KERNEL_BYTES_PER_SECOND: Final = 5e9
"""Rate at which a fast kernel works through data."""


@dataclass(frozen=True)
class Bundle:
    """The values of consecutive blocks, one for each block."""

    values: tuple[Any, ...]

    def __sizeof__(self) -> int:
        return int(sum(map(sizeof, self.values)))


def bundle_size(blocks: int, *, threads: int, block_bytes: int, resident: bool) -> int:
    """Choose the number of blocks in a bundle: the power of two with which a pass is fastest.

    Parameters
    ----------
    blocks, threads : int
        Blocks of the cube, and threads of all workers.
    block_bytes : int
        Bytes of the largest block.
    resident : bool
        True where the workers of a cluster keep the bundles in memory. False where any free thread takes the next
        bundle and reads its blocks.

    Returns
    -------
    int
        Blocks in a bundle, at least one.

    Examples
    --------
    >>> [bundle_size(64, threads=n, block_bytes=2**24, resident=True) for n in (2, 5, 7, 40)]
    [16, 2, 2, 1]
    >>> [bundle_size(64, threads=2, block_bytes=n, resident=False) for n in (2**24, 2**27, 2**30)]
    [8, 2, 1]
    """
    threads = max(1, threads)
    per_thread = MIN_RESIDENT_BUNDLES_PER_THREAD if resident else MIN_STREAMED_BUNDLES_PER_THREAD
    largest = min(blocks // (per_thread * threads), MAX_BUNDLE_BYTES // max(1, block_bytes))
    sizes = [1 << i for i in range(max(1, largest).bit_length())]

    def seconds(size: int) -> float:
        rounds = math.ceil(math.ceil(blocks / size) / threads)
        # The thread waits while the first block of a streamed bundle is read.
        block_times = size if resident else size + 1
        return rounds * (block_times * block_bytes / KERNEL_BYTES_PER_SECOND + TASK_SECONDS)

    return min(reversed(sizes), key=seconds)


def cut_bundles(blocks: int, size: int) -> list[slice]:
    """Return the range of blocks of each bundle, for ``blocks`` blocks in bundles of ``size``."""
    return [slice(start, min(start + size, blocks)) for start in range(0, blocks, size)]


def nodes_of(size: int) -> tuple[int, int]:
    """Return the number of tree nodes that a bundle of ``size`` blocks covers (one or two), and their height.

    Examples
    --------
    >>> [nodes_of(size) for size in (1, 2, 4, 8, 16)]
    [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2)]
    """
    height = (size.bit_length() - 1) // 2
    return size // FAN_IN**height, height


def fold_bundle(sums: Iterator[Sums | None], size: int, combine: Combine) -> Nodes:
    """Add up the statistics of a bundle in the order of the tree.

    ``sums`` yields the dict of each block (None for a block without a used pixel), ``size`` is the number of blocks,
    and ``combine`` adds two dicts. At most one dict for each level of the tree is in memory, and the next one.
    """
    count, height = nodes_of(size)
    return tuple(_node(sums, height, combine) for _ in range(count))


def _node(sums: Iterator[Sums | None], height: int, combine: Combine) -> Sums | None:
    if not height:
        return next(sums, None)
    total: Sums | None = None
    for _ in range(FAN_IN):
        total = add_nodes(combine, total, _node(sums, height - 1, combine))
    return total


def add_nodes(combine: Combine, left: Sums | None, right: Sums | None) -> Sums | None:
    """Add two dicts by ``combine``. None stands for blocks without a used pixel, {} for blocks without statistics."""
    if not left:
        return left if right is None else right
    return combine(left, right) if right else left


def reduce_nodes(combine: Combine, *bundles: Nodes) -> Nodes:
    """Add at most `FAN_IN` nodes, given as tuples of nodes, to the node above them."""
    total: Sums | None = None
    for node in (node for nodes in bundles for node in nodes):
        total = add_nodes(combine, total, node)
    return (total,)


def reduction_tasks(bundles: Sequence[Delayed], size: int, combine: Combine, key: str) -> Delayed:
    """Build the part of the tree above the bundles as tasks, and return the task of the top node.

    ``bundles`` are the delayed nodes of each bundle of ``size`` blocks, ``combine`` adds two dicts, and ``key`` begins
    the names of the tasks.
    """
    level, fan_in, depth = list(bundles), FAN_IN // nodes_of(size)[0], 0
    while depth == 0 or len(level) > 1:
        groups = [level[i : i + fan_in] for i in range(0, len(level), fan_in)]
        level = list(tasks(f"{key}-{depth}", [(partial(reduce_nodes, combine), group) for group in groups]))
        fan_in, depth = FAN_IN, depth + 1
    return level[0]


def fold_nodes(bundles: Sequence[Nodes], combine: Combine) -> Sums | None:
    """Compute the part of the tree above the bundles in this process; None where no pixel is used."""
    level = [node for nodes in bundles for node in nodes]
    while len(level) > 1:
        level = [reduce_nodes(combine, tuple(level[i : i + FAN_IN]))[0] for i in range(0, len(level), FAN_IN)]
    return level[0]
