"""Connect to workers: local processes, jobs of a batch queue, or those of a running Dask scheduler.

`connect` makes its Dask client the current one, and every computation until `Cluster.close` uses it, except within the
``with distributed.Client(...)`` of another that is opened later. Without `connect` the threads of this process compute,
with the same numbers. No other part of the library depends on the cluster.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from dask.utils import format_bytes

from scalehsi.cluster import batch_queues, localhost
from scalehsi.cluster.join import ADDRESS, CERTIFICATE_FILES, CONNECT_SECONDS, current, join_scheduler
from scalehsi.schema import InputError, suggest

_PLANNED_KINDS: Final = ("mpi", "kubernetes", "cuda")
_KINDS: Final = ("local", *batch_queues.QUEUES, "tcp://host:port", "tls://host:port")


class Worker(NamedTuple):
    """One worker process: its name, address, number of threads, and memory limit in bytes (0: no limit)."""

    name: str
    address: str
    threads: int
    memory: int


@dataclass(frozen=True, repr=False, eq=False)
class Cluster:
    """Workers that compute, from `connect` until `close`; for use in a ``with`` statement.

    Attributes
    ----------
    kind : str
        The first argument of `connect`.
    script : str or None
        The job script, for workers that are jobs of a queue.
    dashboard : str or None
        URL of the dashboard, if there is one.
    """

    kind: str
    script: str | None = None
    dashboard: str | None = None
    _client: Any = None
    _expected: int = 1
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        if self._client is not None:
            atexit.register(self.close)

    @property
    def client(self) -> Any:
        """The `distributed.Client`; InputError after `close` and in a dry run."""
        if self._client is None:
            raise InputError(
                "a dry run starts nothing: print(cluster.script), and connect again without dry_run=True to compute"
            )
        if self._client.status in {"closed", "closing"}:
            raise InputError("this cluster is closed; call connect(...) again")
        return self._client

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers that are connected now, by name, without jobs that wait in the queue."""
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        made = (Worker(str(w["name"]), a, int(w["nthreads"]), int(w["memory_limit"] or 0)) for a, w in found.items())
        return tuple(sorted(made))

    def wait(self, n: int | None = None, *, timeout: float | None = None) -> None:
        """Wait until workers are connected. A fit does not need it: it begins with the first worker.

        Parameters
        ----------
        n : int, optional
            Number of workers. Default: all that were requested; one for the scheduler at an address.
        timeout : float, optional
            Seconds. Default: no limit.

        Raises
        ------
        TimeoutError
            When fewer workers are connected after this time.
        """
        n = self._expected if n is None else n
        try:
            self.client.wait_for_workers(n, timeout=timeout)
        except TimeoutError:
            raise TimeoutError(
                f"{len(self.workers)} of {n} workers came within {timeout:g} s; the jobs may still wait in the queue, "
                "or have failed: look at the queue and at the jobs' output files"
            ) from None

    def close(self) -> None:
        """Close the client, stop the workers and jobs that `connect` started, and restore Dask's earlier scheduler.

        Further calls have no effect. A cluster that is not closed is closed when Python ends.
        """
        atexit.unregister(self.close)
        self._stack.close()

    def __enter__(self) -> Self:
        self.client  # noqa: B018 - refuses a dry run and a closed cluster
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._client is None:
            return f"<Cluster {self.kind!r}, dry run>"
        if self._client.status in {"closed", "closing"}:
            return f"<Cluster {self.kind!r}, closed>"
        workers = self.workers
        memory = format_bytes(sum(w.memory for w in workers))
        threads = sum(w.threads for w in workers)
        return (
            f"<Cluster {self.kind!r}: {len(workers)} workers, {threads} threads, {memory}, dashboard {self.dashboard}>"
        )


def connect(
    kind: str = "local",
    *,
    workers: int | None = None,
    threads: int | None = None,
    memory: int | str | None = None,
    dashboard: bool | int | str | None = True,
    dry_run: bool = False,
    local_directory: str | os.PathLike[str] | None = None,
    wait: bool | float = False,
    **options: Any,
) -> Cluster:
    """Connect to workers, which compute everything until the end of the ``with`` block or `Cluster.close`.

    Parameters
    ----------
    kind : str, default "local"
        - ``"local"``: worker processes on this machine. They take a second to start; compared with the threads that
          compute without `connect`, they have a hard memory limit, and a crash of one is survived.
        - ``"slurm"``, ``"sge"``, ``"pbs"``, ``"lsf"``: worker jobs in a batch queue, submitted from this machine. The
          scheduler lives in this process. A job that is lost is replaced.
        - ``"tcp://host:port"``, ``"tls://host:port"``: a running scheduler, which keeps running after `Cluster.close`.
    workers : int, optional
        Number of worker processes (local; default: one for each core, each with at least 1 GiB) or of jobs (queues;
        default: 1), from 1.
    threads : int, optional
        Number of blocks that a worker computes at the same time, one on each core, from 1. Each needs memory for its
        block. Default: 1 (local), the cores of the job (queues).
    memory : int or str, optional
        Bytes, or text such as ``"2GiB"``: of a worker (local; default: an equal share of the available memory) or of a
        job (queues; default: dask's configuration). A worker that exceeds it is restarted.
    dashboard : bool, int or str, default True
        True: port 8787 of loopback, or a free port if that is taken. A number: this port. ``"address:port"``, of
        loopback. False, or without the package bokeh: no web pages. They are not encrypted: other users of this machine
        can read them, and change nothing. Reach them through ssh from other machines.
    dry_run : bool, default False
        Queues: start nothing; the `Cluster` only has the job script.
    local_directory : path, optional
        Folder for data that do not fit in a worker's memory, on a fast local disk.
    wait : bool or float, default False
        Queues: True waits for all workers, a number waits at most this many seconds. Otherwise `connect` returns
        immediately, and a computation begins with the first worker.
    **options
        Queues: the options of dask-jobqueue (``queue`` or ``partition``, ``account``, ``walltime``, ``cores``,
        ``interface``, ``job_extra_directives``, ``job_script_prologue``, ``log_directory``, ...), and

        - ``host``: address of this machine at which the scheduler listens; ``interface`` names the network interface
          instead, also for the jobs.
        - ``shared_temp_directory``: folder in which the jobs find the certificate. Default: the working directory.
        - ``security``: your own `distributed.Security`; False for no encryption, on a network you trust.
        - ``lost_worker_timeout``: default ``"10s"``. Raise it if Python takes longer to start.

        An address: ``security``, or the files ``tls_ca_file``, ``tls_client_cert`` and ``tls_client_key``. The address
        of a local cluster that another program of yours has started needs neither.

    Returns
    -------
    Cluster
        Its client is the current one, also within the ``with distributed.Client(...)`` of another. Such a ``with`` that
        is opened later computes on its own cluster, until it ends.

    Raises
    ------
    InputError
        When the kind or an option is unknown, the workers do not fit on this machine, the scheduler does not answer
        within 10 s, the queue refuses the job, or a package is missing.
    WorkersLost
        When local workers do not start, or end before they are connected.
    TimeoutError
        When ``wait`` is a number and fewer workers are connected after this time.

    Notes
    -----
    With a wall time (an argument, or dask's configuration, where it is 30 minutes by default) workers stop up to ten
    minutes before it, a few at a time. They hand their data to the others, and are replaced.

    For ``"local"`` the scheduler, the workers and the web pages listen on loopback. For queues the web pages listen on
    loopback, the scheduler at one address of this machine, and the workers at that of ``interface``, or without it at
    all of theirs. A connection requires the certificate of the run, which is in a folder that only you can read. This
    costs processor time (two shared cores, arrays of 64 MB): 6 ms for each MB that a worker sends to the client, 3 ms
    for each MB between workers, and 0.3 s for the start.

    Examples
    --------
    >>> job = connect("slurm", workers=4, cores=8, memory="16GiB", walltime="02:00:00", dry_run=True)
    >>> [line for line in job.script.splitlines() if "cpus" in line or "--mem" in line or "-t" in line][:2]
    ['#SBATCH --cpus-per-task=8', '#SBATCH --mem=16G']

    In a script, under ``if __name__ == "__main__":``, because local workers import the script::

        with scalehsi.connect("local", workers=2) as cluster:
            result = scalehsi.fit(cube, scalehsi.NMF(n_components=3), seed=0)
    """
    _check_kind(kind)
    for name, value in {"workers": workers, "threads": threads}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name}={value!r} is expected to be a whole number from 1; type {name}=2")
    size = None if memory is None else localhost.memory_bytes(memory)
    directory = None if local_directory is None else os.fspath(local_directory)
    common: dict[str, Any] = {"workers": workers, "threads": threads, "local_directory": directory}
    if kind in batch_queues.QUEUES:
        address = localhost.dashboard_options(dashboard)
        request = batch_queues.prepare(kind, **common, memory=memory, dashboard=address, options=options)
        if dry_run:
            return Cluster(kind, script=batch_queues.script(request))
        return _wait_for_workers(_start_queue(request), wait)
    if dry_run:
        raise InputError(f"dry_run=True shows the job script of a queue; {kind!r} has none; leave it out")
    if kind == "local":
        _check_options(kind, options, ())
        return _start_local(**common, memory=size, dashboard=localhost.dashboard_options(dashboard))
    for name, given in {**common, "memory": memory}.items():
        if given is not None:
            raise InputError(f"{name}= has no meaning for {kind!r}, whose workers are running; leave it out")
    _check_options(kind, options, ("security", *CERTIFICATE_FILES))
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(current(join_scheduler(kind, options)))
        return _wait_for_workers(Cluster(kind, None, client.dashboard_link or None, client, 1, stack.pop_all()), wait)


def _check_kind(kind: str) -> None:
    if not isinstance(kind, str):
        raise InputError(f"the kind of cluster is expected as text, got {type(kind).__name__}; type connect('local')")
    if kind == "local" or kind in batch_queues.QUEUES or ADDRESS.fullmatch(kind):
        return
    if kind in _PLANNED_KINDS:
        raise InputError(
            f"connect({kind!r}) does not work yet; type one of {', '.join(_KINDS)}. "
            "Workers that you start yourself are joined at the address of their scheduler"
        )
    if "://" in kind or re.fullmatch(r"[\w.-]+:\d+", kind):
        host = kind.rpartition("://")[2] or "host:8786"
        host = host if ":" in host else f"{host}:8786"
        raise InputError(f"{kind!r} is no address of a scheduler; type for example 'tcp://{host}'")
    raise InputError(f"unknown kind of cluster {kind!r}; {suggest(kind, _KINDS)}")


def _check_options(kind: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse options of this kind of cluster that are not among those known."""
    for name in options:
        if name not in known:
            hint = suggest(name, (*batch_queues.COMMON_OPTIONS, *known))
            raise InputError(f"unknown option {name!r} for connect({kind!r}); {hint}")


def _start_local(*, dashboard: dict[str, Any], **options: Any) -> Cluster:
    from distributed import Client

    with contextlib.ExitStack() as stack:
        cluster, workers = stack.enter_context(localhost.start(dashboard=dashboard, **options))
        client = stack.enter_context(current(Client(cluster, timeout=CONNECT_SECONDS)))
        return Cluster("local", None, _dashboard_url(client, dashboard), client, workers, stack.pop_all())


def _start_queue(request: batch_queues.Request) -> Cluster:
    from distributed import Client

    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(batch_queues.start(request))
        client = stack.enter_context(current(Client(cluster, timeout=CONNECT_SECONDS)))
        script = cluster.job_script().replace("dummy-name", "scalehsi-<number>")
        url = _dashboard_url(client, request.scheduler)
        return Cluster(request.kind, script, url, client, request.jobs, stack.pop_all())


def _wait_for_workers(cluster: Cluster, wait: bool | float) -> Cluster:  # noqa: FBT001 - the argument of connect
    """Wait as the argument of `connect` says; close the cluster when the workers do not come in time."""
    if wait is not False:
        with contextlib.ExitStack() as stack:
            stack.callback(cluster.close)
            cluster.wait(timeout=None if wait is True else float(wait))
            stack.pop_all()
    return cluster


def _dashboard_url(client: Any, dashboard: Mapping[str, Any]) -> str | None:
    from distributed.utils import format_dashboard_link

    if not dashboard["dashboard"]:
        return None
    host = str(dashboard["dashboard_address"]).rpartition(":")[0] or localhost.LOOPBACK
    return str(format_dashboard_link(host, client.scheduler_info(n_workers=0)["services"]["dashboard"]))
