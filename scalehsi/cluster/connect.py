"""Workers to compute with: `connect` starts them on this machine, asks a batch queue for them, or joins a scheduler.

Nothing in the library asks which cluster runs. `connect` makes its Dask client the current one, and whatever computes
from then on uses it; without `connect` the threads of this process do the work, with the same numbers.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from dask.utils import format_bytes

from scalehsi.cluster import batch_queues, localhost
from scalehsi.schema import InputError, suggest

CONNECT_SECONDS: Final = 10
SILENCE_SECONDS: Final = 0.3

_ADDRESS: Final = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})/?")
_LATER: Final = ("mpi", "kubernetes", "cuda")
_KINDS: Final = ("local", *batch_queues.QUEUES, "tcp://host:port", "tls://host:port")


class Worker(NamedTuple):
    """One worker process: its name, address, number of threads, and memory limit in bytes (0: no limit)."""

    name: str
    address: str
    threads: int
    memory: int


@dataclass(frozen=True, repr=False, eq=False)
class Cluster:
    """Workers that are being computed with, from `connect` until `close`; use it in a ``with`` statement.

    Attributes
    ----------
    kind : str
        What `connect` was asked for.
    script : str or None
        The job script, where the workers are jobs of a queue.
    dashboard : str or None
        URL of the dashboard, where there is one.
    """

    kind: str
    script: str | None = None
    dashboard: str | None = None
    _client: Any = None
    _expected: int = 1
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

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
        """The workers that are there now, by name. Jobs that wait in the queue are not among them."""
        found = self.client.scheduler_info(n_workers=-1)["workers"]
        made = (Worker(str(w["name"]), a, int(w["nthreads"]), int(w["memory_limit"] or 0)) for a, w in found.items())
        return tuple(sorted(made))

    def wait(self, n: int | None = None, *, timeout: float | None = None) -> None:
        """Wait until workers are there. A fit does not need it: it begins with the first worker.

        Parameters
        ----------
        n : int, optional
            How many. Default: all that were asked for; one for the scheduler at an address.
        timeout : float, optional
            Seconds. Default: for ever.

        Raises
        ------
        TimeoutError
            When fewer are there by then.
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
        """Close the client, stop what was started (jobs too), and let Dask compute as it did before. Twice is fine."""
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
    """Give a cluster whose client is the current one until the ``with`` block or `Cluster.close` ends.

    Parameters
    ----------
    kind : str, default "local"
        - ``"local"``: worker processes on this machine. They take a second to start; against the threads that work
          without any `connect`, they give a hard memory limit and survive a crash.
        - ``"slurm"``, ``"sge"``, ``"pbs"``, ``"lsf"``: worker jobs in a batch queue, submitted from this machine. The
          scheduler lives in this process. A job that is lost is replaced.
        - ``"tcp://host:port"``, ``"tls://host:port"``: a scheduler that runs already. Closing leaves it running.
    workers : int, optional
        Number of worker processes (local; default: one for each core, but none with less than 1 GiB) or of jobs
        (queues; default: 1).
    threads : int, optional
        Blocks that a worker computes at once, a core each. Each needs memory for its block. Default: 1 (local), the
        cores of the job (queues).
    memory : int or str, optional
        Bytes, or text such as ``"2GiB"``: of a worker (local; default: an even share of what is available) or of a job
        (queues; default: dask's configuration). A worker that grows beyond it is restarted.
    dashboard : bool, int or str, default True
        True: at port 8787 of loopback, or at a free one. A port, or ``"address:port"``. False: none. Without bokeh
        there is none either. It is never encrypted: reach it through ssh from elsewhere.
    dry_run : bool, default False
        Queues: give a `Cluster` that has the job script and started nothing.
    local_directory : path, optional
        Where workers put what does not fit in memory; a fast local disk.
    wait : bool or float, default False
        Queues: True waits for all the workers, a number waits so many seconds at most. Otherwise `connect` returns at
        once and computing begins with the first worker.
    **options
        Queues: what dask-jobqueue takes (``queue`` or ``partition``, ``account``, ``walltime``, ``cores``,
        ``interface``, ``job_extra_directives``, ``job_script_prologue``, ``log_directory``, ...), and

        - ``host``: the address of this machine that the scheduler listens at; ``interface`` says it by name, for the
          jobs too. Beyond loopback the connections run over TLS with a certificate made for this run.
        - ``shared_temp_directory``: where the jobs find the certificate. Default: the working directory.
        - ``security``: a `distributed.Security` of your own; False for no encryption, on a network you trust.
        - ``lost_worker_timeout``: default ``"10s"``. Raise it where Python takes longer to start.

        An address: ``security``, or the files ``tls_ca_file``, ``tls_client_cert`` and ``tls_client_key``.

    Returns
    -------
    Cluster

    Raises
    ------
    InputError
        An unknown kind or option, what does not fit on this machine, a scheduler that does not answer within 10 s, a
        queue that refuses the job, a missing package.

    Notes
    -----
    With a wall time (an argument, or dask's configuration, where it is 30 minutes by default) workers leave by
    themselves up to ten minutes before it, a few at a time, hand what they hold to the others, and are replaced.

    For ``"local"`` everything listens on loopback. For queues every web page does, the scheduler listens at one address
    of this machine, and the workers at that of ``interface``, or at all of theirs without it; nobody without the
    certificate gets in.

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
    spill = None if local_directory is None else os.fspath(local_directory)
    if kind in batch_queues.QUEUES:
        request = batch_queues.prepare(
            kind,
            workers=workers,
            threads=threads,
            memory=memory,
            pages=localhost.dashboard(dashboard),
            local_directory=spill,
            options=options,
        )
        return Cluster(kind, script=batch_queues.script(request)) if dry_run else _waited(_queue(request), wait)
    if dry_run:
        raise InputError(f"dry_run=True shows the job script of a queue; {kind!r} has none; leave it out")
    if kind == "local":
        _refuse(kind, options, ())
        return _local(workers=workers, threads=threads, memory=size, pages=localhost.dashboard(dashboard), spill=spill)
    for name, given in {"workers": workers, "threads": threads, "memory": memory, "local_directory": spill}.items():
        if given is not None:
            raise InputError(f"{name}= has no meaning for {kind!r}, whose workers run already; leave it out")
    return _waited(_address(kind, options), wait)


def _check_kind(kind: str) -> None:
    if not isinstance(kind, str):
        raise InputError(f"the kind of cluster is expected as text, got {type(kind).__name__}; type connect('local')")
    if kind == "local" or kind in batch_queues.QUEUES or _ADDRESS.fullmatch(kind):
        return
    if kind in _LATER:
        raise InputError(
            f"connect({kind!r}) does not work yet; what works now: {', '.join(_KINDS)}. "
            "Workers that you start yourself there can be joined at their scheduler's address"
        )
    if "://" in kind or re.fullmatch(r"[\w.-]+:\d+", kind):
        host = kind.rpartition("://")[2] or "host:8786"
        host = host if ":" in host else f"{host}:8786"
        raise InputError(f"{kind!r} is no address of a scheduler; type for example 'tcp://{host}'")
    raise InputError(f"unknown kind of cluster {kind!r}; {suggest(kind, _KINDS)}")


def _refuse(kind: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    for name in options:
        if name not in known:
            raise InputError(
                f"unknown option {name!r} for connect({kind!r}); {suggest(name, (*batch_queues.COMMON, *known))}"
            )


def _local(*, pages: dict[str, Any], **how: Any) -> Cluster:
    from distributed import Client

    with contextlib.ExitStack() as stack:
        cluster, workers = stack.enter_context(localhost.start(pages=pages, **how))
        client = stack.enter_context(contextlib.closing(Client(cluster, timeout=CONNECT_SECONDS)))
        return Cluster("local", None, _url(client, pages), client, workers, stack.pop_all())


def _queue(request: batch_queues.Request) -> Cluster:
    from distributed import Client

    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(batch_queues.start(request))
        client = stack.enter_context(contextlib.closing(Client(cluster, timeout=CONNECT_SECONDS)))
        script = cluster.job_script().replace("dummy-name", "scalehsi-<number>")
        return Cluster(request.kind, script, _url(client, request.scheduler), client, request.jobs, stack.pop_all())


def _address(address: str, options: Mapping[str, Any]) -> Cluster:
    from distributed import Client, Security

    files = ("tls_ca_file", "tls_client_cert", "tls_client_key")
    _refuse(address, options, ("security", *files))
    given = {name: os.fspath(value) for name, value in options.items() if name in files}
    for name, path in given.items():
        if not Path(path).is_file():
            raise InputError(f"{name}: there is no file {path!r}")
    security: Any = options.get("security") or Security(require_encryption=address.startswith("tls"), **given)
    if address.startswith("tls") and not (security.tls_ca_file and security.tls_client_cert):
        raise InputError(
            f"{address!r} needs certificates; type tls_ca_file=..., tls_client_cert=..., tls_client_key=..., or "
            "security=distributed.Security(...), or set distributed.comm.tls in Dask's configuration"
        )
    _check_answer(address)
    with contextlib.ExitStack() as stack:
        try:
            client = Client(address, security=security, timeout=CONNECT_SECONDS)
        except (OSError, TypeError, ValueError) as problem:
            raise _no_scheduler(address, str(problem)) from problem
        stack.enter_context(contextlib.closing(client))
        return Cluster(address, None, client.dashboard_link or None, client, 1, stack.pop_all())


def _check_answer(address: str) -> None:
    """Refuse at once where nobody listens, and after a while where nobody speaks.

    Dask itself tries again in the first case, until its time is over, and waits for ever in the second.
    """
    protocol, host, port = _ADDRESS.fullmatch(address).groups()  # type: ignore[union-attr] # _check_kind matched it
    try:
        line = socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS)
    except OSError as problem:
        raise InputError(
            f"no scheduler answers at {address!r} ({problem.strerror or problem}); start one with "
            f"'dask scheduler --host {host} --port {port}', or look its address up in its log"
        ) from None
    with line:
        # A scheduler speaks first; over TLS it waits for us.
        line.settimeout(CONNECT_SECONDS if protocol == "tcp" else SILENCE_SECONDS)
        try:
            first = line.recv(1)
        except TimeoutError:
            first = b""
        if bool(first) != (protocol == "tcp"):
            raise _no_scheduler(address, "it speaks without TLS" if first else f"silent for {line.gettimeout():g} s")


def _no_scheduler(address: str, reason: str) -> InputError:
    other = "tcp" if address.startswith("tls") else "tls"
    return InputError(
        f"something listens at {address!r} but does not answer as a Dask scheduler ({reason}); is it '{other}://' "
        "there, are the certificates those of the cluster, is the port the scheduler's?"
    )


def _waited(cluster: Cluster, wait: bool | float) -> Cluster:  # noqa: FBT001 - the user's own argument, as it came
    """The cluster, closed again if the workers that the user wants to wait for do not come."""
    if wait is not False:
        with contextlib.ExitStack() as stack:
            stack.callback(cluster.close)
            cluster.wait(timeout=None if wait is True else float(wait))
            stack.pop_all()
    return cluster


def _url(client: Any, pages: Mapping[str, Any]) -> str | None:
    from distributed.utils import format_dashboard_link

    if not pages["dashboard"]:
        return None
    host = str(pages["dashboard_address"]).rpartition(":")[0] or localhost.LOOPBACK
    return str(format_dashboard_link(host, client.scheduler_info(n_workers=0)["services"]["dashboard"]))
