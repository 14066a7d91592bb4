"""One run of a command: the cluster or the threads that compute, the console, and the paths."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dask
import dask.threaded
from dask.base import get_scheduler
from dask.callbacks import Callback

import scalehsi as hsi
from scalehsi.arrays import resolve_device
from scalehsi.blocks.lost_workers import workers_watched
from scalehsi.cli.console import Console, Listener
from scalehsi.interrupt import uninterrupted
from scalehsi.io.atomic import check_destination, local_path
from scalehsi.io.save import check_store_name
from scalehsi.schema import InputError

POLL_SECONDS: Final = 0.5
LOG_LEVEL_VARIABLE: Final = "DASK_LOGGING__DISTRIBUTED"
FOLLOWER_SECONDS: Final = 2.0
PENDING_STATES: Final = ("waiting", "queued", "no-worker", "processing")


@dataclass(frozen=True)
class Session:
    """One run of a command.

    Attributes
    ----------
    console : Console
    cluster : str or None
        The kind of cluster for `scalehsi.connect`; None for the threads of this process.
    workers : int or None
        Processes or jobs of the cluster, or else threads.
    memory : str or None
        Of a worker.
    no_dashboard : bool
        True: the cluster has no web pages.
    device : {"auto", "cpu", "cuda"}
    translate : callable
        Turns a message of the library into words of the command line.
    """

    console: Console = field(default_factory=Console)
    cluster: str | None = None
    workers: int | None = None
    memory: str | None = None
    no_dashboard: bool = False
    device: str = "auto"
    translate: Callable[[str], str] = str
    written: list[str] = field(default_factory=list)
    """Results that are complete, for the message of a command that is stopped."""

    def check(self) -> None:
        """Refuse options that do not go together, before anything is opened."""
        if self.device != "auto":
            resolve_device(self.device)
        if self.memory and not self.cluster:
            raise InputError("--memory is the memory of a worker process, and there is none; add --cluster local")

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Compute on the cluster, or with the threads, of the session."""
        if self.cluster is None:
            chosen: dict[str, Any] = {} if self.workers is None else {"num_workers": self.workers}
            if "distributed" not in sys.modules and dask.config.get("scheduler", None) is None:
                # Dask would import distributed to see whether there is a client: 0.1 s of every command, and 30 MiB.
                chosen["scheduler"] = dask.threaded.get
            with dask.config.set(chosen):
                yield
            return
        with _quiet_workers(), contextlib.ExitStack() as stack:
            # Half a cluster is closed by nobody, so a signal waits until the workers run, and until they are closed.
            with uninterrupted():
                cluster = hsi.connect(
                    self.cluster, workers=self.workers, memory=self.memory, dashboard=not self.no_dashboard
                )
                stack.callback(_close, cluster)
            dashboard = f", dashboard {cluster.dashboard}" if cluster.dashboard else ""
            self.console.remark(f"computing on {self.cluster!r}{dashboard}")
            with workers_watched():
                yield

    @contextlib.contextmanager
    def computing(self, words: str) -> Iterator[None]:
        """Show the progress of the Dask computations of this block."""
        with self.console.bar(words) as listener, _followed(listener):
            yield

    def path(self, given: str | Path) -> Path:
        """A path that holds for workers too, whose working directory may be another."""
        path = local_path(given)
        return path if self.cluster is None else path.absolute()

    def destination(self, given: str | Path, *, overwrite: bool, source: str | Path | None = None) -> Path:
        """Check a path for a store before anything is computed, and return it.

        Parameters
        ----------
        given : path
            What the user typed.
        overwrite : bool
            Whether a store there may be replaced.
        source : path, optional
            What is read, and so is never replaced.
        """
        path = self.path(given)
        read = None if source is None else self.path(source)
        if read is not None and read.exists() and path.exists() and path.samefile(read):
            raise InputError(f"{str(given)!r} is what is read and would be replaced; give another destination")
        check_store_name(given)
        check_destination(path, overwrite=overwrite)
        return path


def _close(cluster: Any) -> None:
    with uninterrupted():
        cluster.close()


@contextlib.contextmanager
def _quiet_workers() -> Iterator[None]:
    """Keep Dask's own log short: workers write the whole stack of a failed task, which comes back as an error anyway.

    Worker processes read the level from the environment, before any configuration can reach them.
    """
    before = os.environ.get(LOG_LEVEL_VARIABLE)
    os.environ.setdefault(LOG_LEVEL_VARIABLE, "critical")
    # What these say when a signal cuts a connection is no news, and may come after the end of this block.
    for name in ("asyncio", "distributed.comm.tcp"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with dask.config.set({"logging": {"distributed": "error", "distributed.client": "critical"}}):
            yield
    finally:
        if before is None:
            del os.environ[LOG_LEVEL_VARIABLE]


@contextlib.contextmanager
def _followed(listener: Listener) -> Iterator[None]:
    """Report the tasks of the scheduler that is current."""
    client: Any = getattr(get_scheduler(), "__self__", None)
    if client is None or not hasattr(client, "run_on_scheduler"):
        with _tasks(listener):
            yield
        return
    done = threading.Event()
    follower = threading.Thread(target=_poll, args=(client, listener, done), daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join(FOLLOWER_SECONDS)  # it waits for a scheduler that is lost


def _tasks(listener: Listener) -> Any:
    """A Dask callback that counts the tasks of a computation in this process."""

    def count(key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:
        finished = len(state["finished"])
        listener(finished, finished + sum(len(state[k]) for k in ("ready", "waiting", "running")))

    make: Any = Callback
    return make(posttask=count)


def _poll(client: Any, listener: Listener, done: threading.Event) -> None:
    """Report the tasks of a client's scheduler to a listener, until an event is set."""
    most = 0
    while not done.wait(POLL_SECONDS):
        try:
            left = client.run_on_scheduler(pending_tasks)
        except Exception:  # the computation itself says what is wrong with the scheduler
            return
        most = max(most, left)
        if most:
            listener(most - left, most)


def pending_tasks(dask_scheduler: Any) -> int:
    """Number of tasks that a Dask scheduler has still to do; runs in the scheduler."""
    return sum(group.states[state] for group in dask_scheduler.task_groups.values() for state in PENDING_STATES)
