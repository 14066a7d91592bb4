"""What every command is told: where to compute, where to show things, and how paths and settings are read."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dask
from dask.base import get_scheduler
from dask.callbacks import Callback

import scalehsi as hsi
from scalehsi.arrays import resolve_device
from scalehsi.cli.console import Console, Listener
from scalehsi.io.atomic import check_destination
from scalehsi.schema import InputError, suggest

POLL_SECONDS: Final = 0.5
_LEVEL: Final = "DASK_LOGGING__DISTRIBUTED"
_PENDING: Final = ("waiting", "queued", "no-worker", "processing")
_FILES: Final = (
    ".hspy",
    ".h5",
    ".hdf5",
    ".nc",
    ".npz",
    ".npy",
    ".tif",
    ".tiff",
    ".emd",
    ".zip",
    ".bcf",
    ".dm3",
    ".dm4",
)


@dataclass(frozen=True)
class Session:
    """One run of a command.

    Attributes
    ----------
    console : Console
    cluster : str or None
        What `scalehsi.connect` is asked for; None for this process's threads.
    workers : int or None
        Processes or jobs of the cluster, or else threads.
    memory : str or None
        Of a worker.
    device : {"auto", "cpu", "cuda"}
    """

    console: Console = field(default_factory=Console)
    cluster: str | None = None
    workers: int | None = None
    memory: str | None = None
    device: str = "auto"

    def check(self) -> None:
        """Refuse options that do not go together, before anything is opened."""
        if self.device != "auto":
            resolve_device(self.device)
        if self.memory and not self.cluster:
            raise InputError("--memory is the memory of a worker process, and there is none; add --cluster local")

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Compute on what the user asked for."""
        if self.cluster is None:
            with dask.config.set({} if self.workers is None else {"num_workers": self.workers}):
                yield
            return
        with _quiet_workers():
            cluster = hsi.connect(self.cluster, workers=self.workers, memory=self.memory)
            with cluster:
                told = f", dashboard {cluster.dashboard}" if cluster.dashboard else ""
                self.console.remark(f"computing on {self.cluster!r}{told}")
                yield

    @contextlib.contextmanager
    def computing(self, words: str) -> Iterator[None]:
        """Show how far the Dask computations of this block are."""
        with self.console.bar(words) as tell, _followed(tell):
            yield

    def path(self, given: str | Path) -> Path:
        """A path as workers find it too, whose working directory may be another."""
        path = Path(given).expanduser()
        return path if self.cluster is None else path.absolute()

    def destination(self, given: str | Path, *, overwrite: bool, source: str | Path | None = None) -> Path:
        """A path where a store may be written, checked before anything is computed; never the source itself."""
        path = self.path(given)
        read = None if source is None else self.path(source)
        if read is not None and read.exists() and path.exists() and path.samefile(read):
            raise InputError(f"{str(given)!r} is what is read and would be replaced; give another destination")
        if path.suffix.lower() in _FILES:
            raise InputError(
                f"scalehsi writes Zarr stores, no {path.suffix} files; type {str(Path(given).with_suffix('.zarr'))!r}"
            )
        check_destination(path, overwrite=overwrite)
        return path


@contextlib.contextmanager
def _quiet_workers() -> Iterator[None]:
    """Keep Dask's own log short: workers write the whole stack of a failed task, which comes back as an error anyway.

    Worker processes read the level from the environment, before any configuration can reach them.
    """
    before = os.environ.get(_LEVEL)
    os.environ.setdefault(_LEVEL, "critical")
    try:
        with dask.config.set({"logging": {"distributed": "error"}}):
            yield
    finally:
        if before is None:
            del os.environ[_LEVEL]


@contextlib.contextmanager
def _followed(tell: Listener) -> Iterator[None]:
    """Report the tasks of whatever scheduler is current."""
    client: Any = getattr(get_scheduler(), "__self__", None)
    if client is None or not hasattr(client, "run_on_scheduler"):
        with _tasks(tell):
            yield
        return
    done = threading.Event()
    follower = threading.Thread(target=_poll, args=(client, tell, done), daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()


def _tasks(tell: Listener) -> Any:
    """A Dask callback that counts the tasks of a computation in this process."""

    def count(key: Any, result: Any, graph: Any, state: Any, worker: Any) -> None:
        finished = len(state["finished"])
        tell(finished, finished + sum(len(state[k]) for k in ("ready", "waiting", "running")))

    make: Any = Callback
    return make(posttask=count)


def _poll(client: Any, tell: Listener, done: threading.Event) -> None:
    most = 0
    while not done.wait(POLL_SECONDS):
        left = client.run_on_scheduler(pending_tasks)
        most = max(most, left)
        if most:
            tell(most - left, most)


def pending_tasks(dask_scheduler: Any) -> int:
    """How many tasks a Dask scheduler has still to do; it runs there."""
    return sum(group.states[state] for group in dask_scheduler.task_groups.values() for state in _PENDING)


def settings_of(pairs: Sequence[str], *, option: str = "--set loss=poisson") -> dict[str, Any]:
    """Read ``key=value`` words; a value is JSON or a Python literal, and text otherwise.

    Examples
    --------
    >>> settings_of(["loss=poisson", "tol=1e-6", "weighting=null", "shape=(16, 16)"])
    {'loss': 'poisson', 'tol': 1e-06, 'weighting': None, 'shape': (16, 16)}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise InputError(f"{option.split()[0]} {pair!r}: key=value is expected, for example {option}")
        if key in found:
            raise InputError(f"{option.split()[0]} gives {key!r} twice; leave one out")
        found[key] = literal(value.strip())
    return found


def literal(text: str) -> Any:
    """The value that a word stands for.

    Examples
    --------
    >>> literal("true"), literal("16,16"), literal("poisson")
    (True, (16, 16), 'poisson')
    """
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def check_known(what: str, settings: dict[str, Any], known: Sequence[str]) -> None:
    """Refuse a setting that is not known, with the nearest one."""
    for name in settings:
        if name not in known:
            raise InputError(f"{what} has no setting {name!r}; {suggest(name, known)}")


def dataset_of(given: str | None) -> int | str | None:
    """A dataset by its number or its name, as `scalehsi.open_cube` takes it."""
    return int(given) if given is not None and given.isdecimal() else given
