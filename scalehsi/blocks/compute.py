"""Ask the current Dask scheduler for its workers, threads and memory, and run a pass on it."""

from __future__ import annotations

import contextlib
import itertools
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

from scalehsi.blocks.client import current_client
from scalehsi.blocks.graph import one_layer
from scalehsi.blocks.lost_workers import wait_for_a_worker

Report = Callable[[int, int], None]
"""Called with the number of blocks done and the number of blocks in the pass."""

PROCESS_BYTES: Final = 320 * 2**20
"""Memory of a worker process before it loads any data: Python, numpy, numba and their compiled kernels; 287 to 325 MiB
were measured."""
WORKER_SHARE: Final = 0.95
"""Of its memory limit, that a worker may fill before it is killed."""
MAX_INLINE_CUBE_BYTES: Final = 2**30
"""Largest cube in the client's memory that is sent to worker processes: inside the graph, which the scheduler keeps."""
RETRIES: Final = 2
"""How often a cluster repeats a task that raised an error, for file systems that fail now and then."""


@dataclass(frozen=True)
class Capacity:
    """Workers, threads and memory of the current scheduler.

    Attributes
    ----------
    workers, threads : int
        Number of processes, and of the threads in all of them.
    memory : int
        Bytes that data may fill in all workers together.
    remote : bool
        True when the workers are other processes than the client.
    """

    workers: int
    threads: int
    memory: int
    remote: bool

    @property
    def block_limit(self) -> int:
        """Largest block in bytes, such that each thread has a block, its copy and the next block in half the memory."""
        per_worker = self.memory // max(1, self.workers)
        per_thread = max(1, self.threads // max(1, self.workers))
        return max(1, per_worker // (2 * 3 * per_thread))


def capacity() -> Capacity:
    """Ask the scheduler that Dask would use now for its workers, threads and memory.

    Returns
    -------
    Capacity
        Of a cluster without workers, that of the first worker to come; the call waits for it.

    Examples
    --------
    >>> with dask.config.set(scheduler="synchronous"):
    ...     capacity().threads
    1
    """
    client = current_client()
    if client is not None:
        while not (workers := client.scheduler_info(n_workers=-1)["workers"]):
            wait_for_a_worker(client)
        return _cluster_capacity(workers)
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
    """Return the bytes that this process may still fill: free in the machine and within its batch job or container."""
    free = int(psutil.virtual_memory().available)
    limits = _memory_limits()
    return max(0, min(free, min(limits) - psutil.Process().memory_info().rss)) if limits else free


def _memory_limits(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Read the memory limits that Linux control groups (Slurm jobs, containers) set for this process, in bytes.

    This is done by hand because psutil knows no control groups, and distributed reads only the root of their tree: that
    is the limit of a container, while a Slurm job is a branch of the tree. ``groups`` is the file that names the groups
    of this process, ``root`` the folder of the tree.
    """
    limits: list[int] = []
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, name = line.split(":", 2)
        version_2 = controllers == ""  # has one tree for all controllers; version 1 has one for memory alone
        if not version_2 and "memory" not in controllers.split(","):
            continue
        top = root if version_2 else root / "memory"
        group = top / name.strip("/")
        for folder in (group, *group.parents):
            file = folder / ("memory.max" if version_2 else "memory.limit_in_bytes")
            if file.exists() and (text := file.read_text().strip()).isdigit():
                limits.append(int(text))
            if folder == top:
                break
    return limits


def _cluster_capacity(workers: Mapping[str, Any]) -> Capacity:
    machine = int(psutil.virtual_memory().total)
    limits = [int(w["memory_limit"] or machine // len(workers)) for w in workers.values()]
    # The smallest worker sets the size of blocks: any block may land on it.
    usable = max(int(WORKER_SHARE * min(limits)) - PROCESS_BYTES, min(limits) // 4)
    return Capacity(len(workers), sum(int(w["nthreads"]) for w in workers.values()), usable * len(workers), remote=True)


def on_cluster() -> bool:
    """Return True when tasks run on the workers of a cluster."""
    return current_client() is not None


def max_attempts() -> int:
    """Return how often a block is tried before its error is raised: once in this process, more often on a cluster."""
    return 1 + RETRIES if on_cluster() else 1


def run(
    root: Delayed | Sequence[Delayed],
    kept: Mapping[str, Sequence[Delayed]],
    leaves: Sequence[Delayed],
    report: Report | None = None,
    *,
    counts: Sequence[int] | None = None,
) -> tuple[Any, dict[str, tuple[Delayed, ...]]]:
    """Compute small results for the client, and large ones that stay with the workers, in one graph.

    Parameters
    ----------
    root : Delayed, or sequence of Delayed
        Its value is brought to the client.
    kept : mapping of str to sequence of Delayed
        These values stay where they were computed. Their graph is kept, so that a lost value is computed again.
    leaves : sequence of Delayed
        The tasks that ``report`` counts.
    report : callable, optional
        Called as ``report(done, total)`` when a block is done.
    counts : sequence of int, optional
        Number of blocks that each leaf works on; one by default.

    Returns
    -------
    value : any, or tuple
        The computed root, or the tuple of them.
    handles : dict of str to tuple of Delayed
        The kept values under their names.
    """
    client = current_client()
    roots = [root] if isinstance(root, Delayed) else list(root)
    flat = [part for parts in kept.values() for part in parts]
    blocks = dict(zip((leaf.key for leaf in leaves), counts or itertools.repeat(1), strict=False))
    with no_large_graph_warning(), _watch(blocks, report if client is None else None):
        if client is not None and report is not None:
            persisted = list(dask.persist(*roots, *flat, *leaves, retries=RETRIES))
            watched = persisted[len(roots) + len(flat) :]
            del persisted[len(roots) + len(flat) :]
            _report_finished(watched, blocks, report)
            roots, flat = persisted[: len(roots)], persisted[len(roots) :]
        elif flat:
            persisted = list(dask.persist(*roots, *flat, retries=RETRIES))
            roots, flat = persisted[: len(roots)], persisted[len(roots) :]
        values = dask.compute(*roots, retries=RETRIES)
    computed = iter(flat)
    handles = {k: one_layer(f"kept-{parts[0].key}", [next(computed) for _ in parts]) for k, parts in kept.items()}
    return values[0] if isinstance(root, Delayed) else values, handles


def _report_finished(leaves: list[Delayed], blocks: Mapping[Any, int], report: Report) -> None:
    """Report the blocks of ``leaves`` as these tasks finish, without bringing their results to the client.

    ``blocks`` is the number of blocks of each task, by its key. The list ``leaves`` is emptied, because no reference to
    a finished leaf may remain: the sums of a thousand blocks, each a channels-by-channels matrix, are larger than the
    workers' memory, and they are released only when nothing but the reduction uses them.
    """
    from distributed import as_completed, futures_of

    finished = _key_reporter(blocks, report)
    waiting = as_completed(futures_of(leaves))
    leaves.clear()
    for key in (future.key for future in waiting):
        finished(key)


def _key_reporter(blocks: Mapping[Any, int], report: Report) -> Callable[[Any], None]:
    """Return a function that takes the key of a finished task and reports its blocks; other keys are ignored."""
    total, done = sum(blocks.values()), 0

    def finished(key: Any) -> None:
        nonlocal done
        for _ in range(blocks.get(key, 0)):
            done += 1
            report(done, total)

    return finished


def no_large_graph_warning() -> contextlib.AbstractContextManager[Any]:
    """Return a context without distributed's warning of large graphs: cubes in the client's memory travel in them."""
    return dask.config.set({"distributed.admin.large-graph-warning-threshold": MAX_INLINE_CUBE_BYTES})


@contextlib.contextmanager
def _watch(blocks: Mapping[Any, int], report: Report | None) -> Iterator[None]:
    """Report the blocks of the tasks that a scheduler of this process finishes; ``blocks`` as in `_report_finished`."""
    if report is None:
        yield
        return
    finished = _key_reporter(blocks, report)
    with Callback(posttask=lambda key, *_: finished(key)):
        yield
