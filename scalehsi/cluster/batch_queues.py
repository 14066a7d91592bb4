"""Worker jobs in the batch queues Slurm, SGE, PBS and LSF through dask-jobqueue (optional: extra ``cluster``).

`prepare` checks the user's arguments and returns a `Request`; `script` returns the job script; `start` runs a scheduler
in this process and submits the jobs. Only `scalehsi.cluster.connect` uses this module.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dask

from scalehsi.cluster import certificate
from scalehsi.cluster.localhost import (
    LOOPBACK,
    THREAD_VARIABLES,
    can_listen,
    is_loopback,
    memory_bytes,
    page_settings,
)
from scalehsi.cluster.private_folder import NAME, private_folder
from scalehsi.cluster.walltime import lifetime, walltime_seconds
from scalehsi.schema import InputError, suggest

logger = logging.getLogger(__name__)

QUEUES: Final = {"slurm": "SLURMCluster", "sge": "SGECluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
"""Kinds of queue, and the class of dask-jobqueue for each."""

RETRY_SECONDS: Final = 60
LOST_WORKER_TIMEOUT: Final = "10s"
"""A job whose worker is lost for this long is cancelled and replaced; the restart of a worker takes less."""

# Arguments of dask-jobqueue that this module sets, and old names of others.
_SET_HERE: Final = {"self", "scheduler", "name", "args", "kwargs", "base_class_kwargs", "protocol", "processes"}
_OLD_NAMES: Final = {"extra", "job_extra", "env_extra", "header_skip"}
COMMON_OPTIONS: Final = ("workers", "threads", "memory", "dashboard", "dry_run", "local_directory", "wait")
"""Arguments of `scalehsi.cluster.connect` for every kind of cluster."""

_SCALEHSI_OPTIONS: Final = ("host", "lost_worker_timeout", "scheduler_options", "security", "shared_temp_directory")


@dataclass(frozen=True)
class Request:
    """Jobs to be submitted to a queue; nothing has been started.

    Attributes
    ----------
    kind : str
        A key of `QUEUES`.
    jobs : int
        Their number, with one worker process in each.
    job : dict
        Keyword arguments of dask-jobqueue's job class.
    scheduler : dict
        Keyword arguments of the scheduler that runs in this process.
    security : distributed.Security or False or None
        The user's; None lets `start` make a certificate.
    encrypted : bool
        True when the connections use TLS.
    shared : str
        Folder for the certificate, which the jobs can read.
    lost_worker_timeout : str
        Time after which a lost worker's job is replaced.
    """

    kind: str
    jobs: int
    job: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    security: Any
    encrypted: bool
    shared: str
    lost_worker_timeout: str


def prepare(
    kind: str,
    *,
    workers: int | None,
    threads: int | None,
    memory: int | str | None,
    dashboard: Mapping[str, Any],
    local_directory: str | None,
    options: Mapping[str, Any],
) -> Request:
    """Check the user's arguments and complete them from dask's configuration; start and contact nothing.

    Parameters
    ----------
    kind, workers, threads, memory, local_directory, options
        As for `scalehsi.cluster.connect`.
    dashboard : mapping
        From `scalehsi.cluster.localhost.dashboard_options`.

    Raises
    ------
    InputError
        When an option is unknown, contradicts another, or a needed one is missing.
    """
    job_class = _cluster_class(kind).job_cls
    given = _options(kind, job_class, options)
    config = f"jobqueue.{given.get('config_name') or kind}"

    def setting(name: str) -> Any:
        value = given.get(name)
        return dask.config.get(f"{config}.{name.replace('_', '-')}", None) if value is None else value

    cores = _cores(given.get("cores"), threads) or setting("cores")
    memory = memory if memory is not None else setting("memory")
    for name, value in {"cores": cores, "memory": memory}.items():
        if value is None:
            raise InputError(
                f"a {kind} job needs a number of cores and a memory size, got no {name}; type connect({kind!r}, "
                f"cores=8, memory='16GiB', ...) or set {config}.{name} in Dask's configuration"
            )
    memory_bytes(memory)
    host = given.get("host")
    scheduler = {**dashboard, **({"host": host} if host else {}), **(setting("scheduler_options") or {})}
    pages = str(scheduler["dashboard_address"]).rpartition(":")[0]
    if scheduler.get("jupyter") or not is_loopback(pages or LOOPBACK):
        raise InputError(
            "scheduler_options: the web pages stay on loopback and run no code; leave out jupyter, and type "
            "dashboard=8787 instead of dashboard_address"
        )
    security = given.get("security")
    interface = setting("interface")
    loopback = is_loopback(scheduler.get("host"), scheduler.get("interface") or interface)
    encrypted = security is not False
    shared = str(setting("shared_temp_directory") or Path.cwd())
    if encrypted and re.search(r"\s", shared):
        raise InputError(f"shared_temp_directory {shared!r} contains a space, which a job script cannot pass on")

    job = {k: v for k, v in given.items() if k not in _SCALEHSI_OPTIONS}
    # One process in each job, independent of the configuration: see _options.
    job |= {"cores": int(cores), "memory": str(memory), "processes": 1}
    if interface:
        job["interface"] = interface
    if local_directory:
        job["local_directory"] = local_directory
    if setting("job_name") is None and setting("name") == "dask-worker":
        job["job_name"] = "scalehsi"
    arguments = _worker_arguments(kind, [str(a) for a in setting("worker_extra_args") or []], setting("walltime"))
    # Workers with a nanny would listen at every address; with a scheduler on loopback all are on this machine.
    job["worker_extra_args"] = arguments + (["--host", LOOPBACK] if loopback and not interface else [])
    exports = [f"export {name}=1" for name in THREAD_VARIABLES]
    exports.append("export DASK_DISTRIBUTED__WORKER__HTTP__ROUTES='[]'")  # no web pages
    job["job_script_prologue"] = [*exports, *(setting("job_script_prologue") or [])]
    return Request(
        kind=kind,
        jobs=workers or 1,
        job=job,
        scheduler=scheduler,
        security=None if security is True else security,
        encrypted=encrypted,
        shared=shared,
        lost_worker_timeout=str(given.get("lost_worker_timeout") or LOST_WORKER_TIMEOUT),
    )


def script(request: Request) -> str:
    """Return the script of one job, with placeholders for the scheduler's address and the certificate."""
    security = request.security or None
    if request.encrypted and not security:
        security = certificate.in_folder(Path(request.shared, f"{NAME}<random>"))
    protocol = "tls://" if request.encrypted else None
    host = request.scheduler.get("host", "<this-machine>")
    job = _cluster_class(request.kind).job_cls(
        f"{'tls' if request.encrypted else 'tcp'}://{host}:<port>",
        name="scalehsi-<number>",
        protocol=protocol,
        security=security,
        **request.job,
    )
    return str(job.job_script())


@contextlib.contextmanager
def start(request: Request) -> Iterator[Any]:
    """Run the scheduler here, submit the jobs and replace lost ones; leaving cancels them.

    Yields
    ------
    dask_jobqueue.JobQueueCluster

    Raises
    ------
    InputError
        When this machine cannot submit jobs, the queue refuses them, or the scheduler cannot listen as asked.
    """
    cluster_class = _cluster_class(request.kind)
    submit = cluster_class.job_cls.submit_command
    if shutil.which(submit) is None:
        raise InputError(
            f"{submit!r} is not on this machine's PATH, so no {request.kind} job can be submitted from here; "
            f"run this on a login node, or type connect({request.kind!r}, ..., dry_run=True) to see the job script"
        )
    with contextlib.ExitStack() as stack:
        # dask reads this setting on another thread whenever a worker is lost, so it is set for the whole process.
        timeout = {"distributed.deploy.lost-worker-timeout": request.lost_worker_timeout}
        stack.enter_context(dask.config.set({**timeout, **page_settings(request.scheduler)}))
        security = request.security
        if request.encrypted and not security:
            security = certificate.make(stack.enter_context(private_folder(request.shared)))
        refusals: list[str] = []
        later = False

        def refused(name: str, reason: str) -> None:
            refusals.append(reason)
            if later:
                logger.warning("%s refused a job, next try in %d s: %s", request.kind, RETRY_SECONDS, reason)
            # The cluster submits a job that it has forgotten again.
            cluster.loop.call_later(RETRY_SECONDS, cluster.workers.pop, name, None)

        cluster = _start_scheduler(cluster_class, request, security, refused)
        stack.callback(cluster.close)
        _submit(cluster, request.jobs)
        if refusals:  # a job that is refused immediately would be refused again
            raise InputError(
                f"{request.kind} refused the job: {refusals[0]}; compare the options with the site's rules, and look "
                f"at the script with connect({request.kind!r}, ..., dry_run=True).script"
            )
        later = True
        # scale(n) would never replace a lost job; adapt with equal bounds does.
        cluster.adapt(minimum_jobs=request.jobs, maximum_jobs=request.jobs)
        yield cluster


def _cluster_class(kind: str) -> Any:
    try:
        import dask_jobqueue
    except ImportError:
        raise InputError(
            f'connect({kind!r}) needs dask-jobqueue, which is not installed; type pip install "scalehsi[cluster]"'
        ) from None
    return getattr(dask_jobqueue, QUEUES[kind])


def _options(kind: str, job_class: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options under the names of dask-jobqueue; refuse unknown ones. ``job_class`` is that of the queue."""
    taken = {name for base in job_class.__mro__ for name in inspect.signature(base.__init__).parameters}
    known = {*(taken - _SET_HERE - _OLD_NAMES), *_SCALEHSI_OPTIONS, *COMMON_OPTIONS}
    if "account" in taken:  # 'project' is its old name in dask-jobqueue
        known -= {"project"}
    if kind == "slurm":
        known |= {"partition"}
    if "processes" in options:
        # Measured: dask-jobqueue never replaces a lost job whose workers have names other than the job's.
        raise InputError(
            "processes= is no option: a job is one worker process, because a lost job of several is never replaced; "
            "type workers=... for more jobs, and cores=... for the threads of each"
        )
    for name in options:
        if name not in known:
            raise InputError(f"unknown option {name!r} for connect({kind!r}); {suggest(name, known)}")
    given = dict(options)
    if "partition" in given:
        if "queue" in given:
            raise InputError("partition= and queue= both name the queue; leave one out")
        given["queue"] = given.pop("partition")
    return given


def _cores(cores: int | None, threads: int | None) -> int | None:
    """The cores of a job, from either argument; None when neither is given."""
    if cores is not None and (isinstance(cores, bool) or not isinstance(cores, int) or cores < 1):
        raise InputError(f"cores={cores!r} is expected to be a whole number from 1; type cores=8")
    if cores is not None and threads is not None and cores != threads:
        raise InputError(
            f"cores={cores} and threads={threads} disagree: a job computes a block on each core; leave one out"
        )
    return cores if threads is None else threads


def _worker_arguments(kind: str, extra: list[str], walltime: Any) -> list[str]:
    """Arguments of the worker's command: web pages on loopback, and a stop before the wall time.

    ``extra`` are the user's own arguments, which come first and take precedence.
    """
    arguments = list(extra)
    if not any(a.startswith("--dashboard-address") for a in arguments):
        arguments += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    seconds = None if walltime is None else walltime_seconds(kind, walltime)
    if seconds and not any(a.startswith("--lifetime") for a in arguments):
        end, stagger = lifetime(seconds)
        arguments += ["--lifetime", f"{end}s", "--lifetime-stagger", f"{stagger}s"]
    return arguments


def _start_scheduler(cluster_class: Any, request: Request, security: Any, refused: Callable[[str, str], None]) -> Any:
    """Start the scheduler at one address of this machine, without jobs.

    ``cluster_class`` is that of dask-jobqueue; ``refused`` is called with the name and the reason of a refused job.
    """
    from distributed.utils import get_ip

    scheduler = dict(request.scheduler)
    if not scheduler.get("host") and not scheduler.get("interface") and not request.job.get("interface"):
        # One address and not all: the one by which other machines reach this one.
        scheduler["host"] = get_ip()
    host = scheduler.get("host")
    if host and not can_listen(host, int(scheduler.get("port") or 0)):
        raise InputError(
            f"the scheduler cannot listen at {host!r}, which is not an address of this machine (or the port is taken); "
            "type host='an address of this machine', or interface='the name of its network interface'"
        )
    return cluster_class(
        n_workers=0,
        job_cls=_reporting_refusals(cluster_class.job_cls, refused),
        name="scalehsi",
        protocol="tls://" if request.encrypted else None,
        security=security,
        scheduler_options=scheduler,
        shared_temp_directory=request.shared,
        **request.job,
    )


def _reporting_refusals(job_class: Any, refused: Callable[[str, str], None]) -> Any:
    """A job class that calls ``refused`` when the queue refuses a job.

    dask-jobqueue would count a refused job as one that waits, without limit: after a full queue or a restart of the
    queue's controller a long run would have no workers.
    """
    from distributed.core import Status

    class RefusalReportingJob(job_class):  # type: ignore[misc] # the class is known when it runs
        async def start(self) -> None:
            try:
                await super().start()
            except (RuntimeError, OSError, ValueError) as problem:
                answer = re.search(r"stderr:\n(.*)", str(problem), flags=re.DOTALL)
                self.status = Status.running
                refused(self.name, " ".join((answer.group(1) if answer else str(problem)).split()))

    return RefusalReportingJob


def _submit(cluster: Any, jobs: int) -> None:
    """Submit this number of jobs and wait for the queue's answer."""

    async def submit() -> None:
        cluster.scale(jobs=jobs)
        await cluster

    cluster.sync(submit)
