"""What the current Dask scheduler offers, and how a pass is run on it.

It imports no cluster software: a distributed client is recognised by the ``get`` function that Dask itself would use.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dask
import psutil
from dask.base import get_scheduler
from dask.callbacks import Callback
from dask.delayed import Delayed
from dask.system import CPU_COUNT

from scalehsi.blocks.graph import gathered

Report = Callable[[int, int], None]
"""Called with the number of blocks done and the number of blocks in the pass."""

log = logging.getLogger("scalehsi")

PROCESS_BYTES: Final = 256 * 2**20
"""What a worker process holds before any data: Python, numpy, numba and their compiled kernels."""
LITERAL_LIMIT: Final = 2**30
"""A cube in the client's memory travels inside the graph, which the scheduler keeps: not for more than this."""
RETRIES: Final = 2
"""How often a cluster repeats a task that raised, for file systems that hiccup."""


@dataclass(frozen=True)
class Capacity:
    """What the current scheduler offers.

    Attributes
    ----------
    workers, threads : int
        Processes, and threads in all of them.
    memory : int
        Bytes that data may fill in all workers together.
    remote : bool
        True when workers are other processes.
    """

    workers: int
    threads: int
    memory: int
    remote: bool

    @property
    def block_limit(self) -> int:
        """Largest block in bytes: a thread holds one, its copy and the next, and half the memory stays free."""
        per_worker = self.memory // max(1, self.workers)
        per_thread = max(1, self.threads // max(1, self.workers))
        return max(1, per_worker // (2 * 3 * per_thread))


def capacity() -> Capacity:
    """Ask the scheduler that Dask would use now.

    Examples
    --------
    >>> with dask.config.set(scheduler="synchronous"):
    ...     capacity().threads
    1
    """
    client = _client()
    if client is not None:
        if not client.scheduler_info()["workers"]:
            log.warning("the cluster has no worker yet; waiting for the first one (interrupt to give up)")
        client.wait_for_workers(1)
        return _cluster_capacity(client.scheduler_info(n_workers=-1)["workers"])
    free = free_memory()
    get = get_scheduler()
    module = "" if get is None else get.__module__
    if get is not None and getattr(get, "__name__", "") == "get_sync":
        return Capacity(1, 1, free, remote=False)
    threads = int(dask.config.get("num_workers", None) or CPU_COUNT)
    if module == "dask.multiprocessing":
        return Capacity(threads, threads, free, remote=True)
    return Capacity(1, threads, free, remote=False)


def free_memory() -> int:
    """Bytes that this process may still fill: the machine's free memory, or what its batch job or container leaves."""
    free = int(psutil.virtual_memory().available)
    limits = _memory_limits()
    return max(0, min(free, min(limits) - psutil.Process().memory_info().rss)) if limits else free


def _memory_limits(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """The limits that Linux control groups (Slurm jobs, containers) set to this process, in bytes."""
    limits: list[int] = []
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, name = line.split(":", 2)
        first = controllers == ""  # version 2 has one tree; in version 1 memory has its own
        if not first and "memory" not in controllers.split(","):
            continue
        top = root if first else root / "memory"
        folder = top / name.strip("/")
        for place in (folder, *folder.parents):
            file = place / ("memory.max" if first else "memory.limit_in_bytes")
            if file.exists() and (text := file.read_text().strip()).isdigit():
                limits.append(int(text))
            if place == top:
                break
    return limits


def _cluster_capacity(workers: Mapping[str, Any]) -> Capacity:
    machine = int(psutil.virtual_memory().total)
    limits = [int(w["memory_limit"] or machine // len(workers)) for w in workers.values()]
    # The smallest worker sets the size of blocks: any block may land on it.
    usable = max(min(limits) - PROCESS_BYTES, min(limits) // 4)
    return Capacity(len(workers), sum(int(w["nthreads"]) for w in workers.values()), usable * len(workers), remote=True)


def _client() -> Any:
    """The distributed client that Dask would use, or None."""
    owner = getattr(get_scheduler(), "__self__", None)
    return owner if owner is not None and hasattr(owner, "scheduler_info") else None


def on_cluster() -> bool:
    """True when tasks travel to a cluster's workers."""
    return _client() is not None


def attempts() -> int:
    """How often a block may be tried where a cluster computes it; once in this process, where nothing hiccups."""
    return 1 + RETRIES if on_cluster() else 1


def run(
    root: Delayed | Sequence[Delayed],
    kept: Mapping[str, Sequence[Delayed]],
    leaves: Sequence[Delayed],
    report: Report | None = None,
    *,
    counts: Sequence[int] | None = None,
) -> tuple[Any, dict[str, tuple[Delayed, ...]]]:
    """Compute one small result, or some, and what shall stay with the workers, in one graph.

    Parameters
    ----------
    root : Delayed, or sequence of Delayed
        Comes home.
    kept : mapping of str to sequence of Delayed
        Stay where they were computed; their lineage lets a lost one be computed again.
    leaves : sequence of Delayed
        The tasks that ``report`` counts.
    report : callable, optional
    counts : sequence of int, optional
        How many blocks each leaf stands for; one by default.

    Returns
    -------
    value : the computed root, or a tuple of them
    handles : dict of str to tuple of Delayed
    """
    client = _client()
    roots = [root] if isinstance(root, Delayed) else list(root)
    flat = [part for parts in kept.values() for part in parts]
    blocks = dict(zip((leaf.key for leaf in leaves), counts or itertools.repeat(1), strict=False))
    with quiet_graphs(), _watch(blocks, report if client is None else None):
        if client is not None and report is not None:
            held = list(dask.persist(*roots, *flat, *leaves, retries=RETRIES))
            watched = held[len(roots) + len(flat) :]
            del held[len(roots) + len(flat) :]
            _count(watched, blocks, report)
            roots, flat = held[: len(roots)], held[len(roots) :]
        elif flat:
            held = list(dask.persist(*roots, *flat, retries=RETRIES))
            roots, flat = held[: len(roots)], held[len(roots) :]
        values = dask.compute(*roots, retries=RETRIES)
    done = iter(flat)
    handles = {k: gathered(f"kept-{parts[0].key}", [next(done) for _ in parts]) for k, parts in kept.items()}
    return values[0] if isinstance(root, Delayed) else values, handles


def _count(leaves: list[Delayed], blocks: Mapping[Any, int], report: Report) -> None:
    """Report the blocks of tasks as these finish, without bringing their results here. Empties the list.

    Nothing may hold a finished leaf: the sums of a thousand blocks, each a channels-by-channels matrix, are more than
    the workers have, and the reduction lets them go only when nobody else wants them.
    """
    from distributed import as_completed, futures_of

    tell = _teller(blocks, report)
    waiting = as_completed(futures_of(leaves))
    leaves.clear()
    for key in (future.key for future in waiting):
        tell(key)


def _teller(blocks: Mapping[Any, int], report: Report) -> Callable[[Any], None]:
    """Turns the keys of finished tasks into reports, one for each block; other keys are passed over."""
    total, done = sum(blocks.values()), 0

    def finished(key: Any) -> None:
        nonlocal done
        for _ in range(blocks.get(key, 0)):
            done += 1
            report(done, total)

    return finished


def quiet_graphs() -> contextlib.AbstractContextManager[Any]:
    """No warning for a graph that carries data on purpose, up to the size that `open_blocks` allows."""
    return dask.config.set({"distributed.admin.large-graph-warning-threshold": LITERAL_LIMIT})


@contextlib.contextmanager
def _watch(blocks: Mapping[Any, int], report: Report | None) -> Iterator[None]:
    """Count the blocks of the leaf tasks that a scheduler of this process finishes."""
    if report is None:
        yield
        return
    tell = _teller(blocks, report)
    with Callback(posttask=lambda key, *_: tell(key)):
        yield
