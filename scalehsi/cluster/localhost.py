"""Local worker processes, the address of the dashboard, and the environment variables of workers.

Only `scalehsi.cluster.connect` and `scalehsi.cluster.batch_queues` use this module.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import ipaddress
import multiprocessing
import os
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from typing import Any, Final

import dask
import psutil
from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes

from scalehsi.cluster import certificate
from scalehsi.cluster.private_folder import private_folder
from scalehsi.schema import InputError, WorkersLost, suggest

LOOPBACK: Final = "127.0.0.1"
DASHBOARD_PORT: Final = 8787
PAGES: Final = "scalehsi.cluster.pages"
MIN_WORKER_BYTES: Final = 2**30
"""Least memory of a worker unless the user sets it: Python and its libraries alone take a quarter of this."""

FILLED_WORKERS: Final = {"distributed.worker.memory.pause": False, "distributed.worker.memory.spill": 0.9}
"""A plan fills workers up to the limit at which they are killed. Dask would pause them at 80 %, and a worker whose
memory is not of tasks (Python, compiled kernels) would stay paused without an end. At 70 % it would write
results to the disk that the plan has room for."""

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""Environment variables with the number of threads that BLAS and numba may start."""

# Variables that distributed changes in the environment of the process that starts workers.
CHANGED_VARIABLES: Final = (*THREAD_VARIABLES, "MALLOC_TRIM_THRESHOLD_", "PYTHONHASHSEED")


@contextlib.contextmanager
def start(
    *,
    workers: int | None,
    threads: int | None,
    memory: int | None,
    dashboard: dict[str, Any],
    local_directory: str | None,
) -> Iterator[tuple[Any, int]]:
    """Run worker processes and their scheduler on loopback, for this user alone; leaving stops them.

    Parameters
    ----------
    workers, threads, memory, local_directory
        As for `scalehsi.cluster.connect`; memory in bytes.
    dashboard : dict
        From `dashboard_options`.

    Yields
    ------
    cluster : distributed.LocalCluster
    workers : int
        Their number.

    Raises
    ------
    InputError
        When the workers do not fit in the machine's memory.
    WorkersLost
        When they do not start, or end before they are connected.
    """
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    if multiprocessing.current_process().daemon:
        raise InputError(
            "connect('local') was called by a worker process, which imports the script that started it; "
            'put the call under: if __name__ == "__main__":'
        )
    threads = threads or 1
    workers, limit = worker_memory(workers, threads, memory, machine=int(MEMORY_LIMIT))
    limits = thread_limits(CPU_COUNT // (workers * threads))
    # A nanny that restarts a worker changes our environment again, so it is also restored at the end.
    with contextlib.ExitStack() as stack, _restored_environment():
        folder = stack.enter_context(private_folder(tempfile.gettempdir()))
        scratch = local_directory or dask.config.get("temporary-directory", None)
        if scratch:
            os.makedirs(scratch, exist_ok=True)  # noqa: PTH103 - text
        security = certificate.make(folder)
        with _restored_environment():
            os.environ.update(limits)
            try:
                # The scheduler also makes a folder in the temporary directory.
                settings = {**page_settings(dashboard), **FILLED_WORKERS, "temporary-directory": str(folder)}
                with _interrupts_blocked(), dask.config.set(settings):
                    cluster = LocalCluster(
                        n_workers=workers,
                        threads_per_worker=threads,
                        processes=True,
                        host=LOOPBACK,
                        dashboard_address=dashboard["dashboard_address"],
                        worker_dashboard_address=None,  # the plain pages listen at the worker's address
                        scheduler_kwargs={"dashboard": dashboard["dashboard"]},
                        protocol="tls://",
                        security=security,
                        memory_limit=limit,
                        # Data that a worker moves to the disk is code to whoever can replace it: pickles.
                        local_directory=str(stack.enter_context(private_folder(scratch)) if scratch else folder),
                        env=limits,
                        config=copy.deepcopy(dask.config.config),  # of workers that are started again later, too
                    )
            except RuntimeError as problem:
                raise WorkersLost(
                    f"the local workers did not start ({problem}); in a script, put the call of connect under "
                    'if __name__ == "__main__":, and look at the messages above'
                ) from problem
        try:
            certificate.note_address(folder, cluster.scheduler_address)
            yield cluster, workers
        finally:
            cluster.close()


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start threads and processes that do not receive a terminal's Ctrl-C, because this thread stops them.

    New threads and processes inherit the signal mask, and so do workers that replace lost ones later. A Ctrl-C in this
    block is delivered after it.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker_memory(workers: int | None, threads: int, memory: int | None, *, machine: int) -> tuple[int, int]:
    """Number of workers and bytes of each, within the memory of this ``machine`` (bytes) and what is free now.

    ``workers``, ``threads`` and ``memory`` (bytes) are the arguments of `scalehsi.cluster.connect`.
    """
    free = min(int(psutil.virtual_memory().available), machine)
    if workers is None:
        workers = max(1, min(CPU_COUNT // threads, free // (memory or MIN_WORKER_BYTES)))
    limit = memory or free // workers
    if limit * workers > machine:
        raise InputError(
            f"{workers} workers of {format_bytes(limit)} are more than this machine's {format_bytes(machine)}; "
            f"type memory='{machine // workers // 2**20}MiB', or fewer workers"
        )
    return workers, limit


def dashboard_options(wanted: bool | int | str | None) -> dict[str, Any]:  # noqa: FBT001 - the argument of connect
    """Address of the scheduler's web pages, as arguments of `distributed.Scheduler`.

    Parameters
    ----------
    wanted : bool, int, str or None
        The argument ``dashboard`` of `scalehsi.cluster.connect`.

    Examples
    --------
    >>> dashboard_options(False)
    {'dashboard': False, 'dashboard_address': '127.0.0.1:0'}
    """
    host, port, fixed = LOOPBACK, DASHBOARD_PORT, False
    if isinstance(wanted, str):
        head, _, tail = wanted.rpartition(":")
        if not tail.isdecimal():
            raise InputError(f"dashboard={wanted!r} is no address; type dashboard='127.0.0.1:8787', a port, or False")
        host, port, fixed = head or LOOPBACK, int(tail), True
    elif isinstance(wanted, int) and not isinstance(wanted, bool):
        port, fixed = wanted, True
    if not is_loopback(host):
        raise InputError(
            f"dashboard={wanted!r}: web pages are not encrypted, so they stay on loopback; type dashboard={port}, and "
            f"reach it from another machine by ssh -L {port}:{LOOPBACK}:{port}"
        )
    if not 0 <= port < 65536:
        raise InputError(f"dashboard={wanted!r}: a port is expected from 0 to 65535; type dashboard=8787")
    if wanted is None or wanted is False or importlib.util.find_spec("bokeh") is None:
        # A scheduler always listens for requests of pages: here at a free port of loopback, and it has none.
        return {"dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    if port and not can_listen(host, port):
        if fixed:
            raise InputError(f"dashboard={wanted!r}: this address is taken or not of this machine; type dashboard=True")
        port = 0
    return {"dashboard": True, "dashboard_address": f"{host}:{port}"}


def page_settings(dashboard: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of Dask for a scheduler whose web pages show and do not act; workers have none.

    They apply to what starts under them, whatever the user's configuration says. ``dashboard`` is from
    `dashboard_options`; without a dashboard the scheduler's port for pages has none either.
    """
    pages = [PAGES] if dashboard["dashboard"] else []
    return {"distributed.scheduler.http.routes": pages, "distributed.worker.http.routes": []}


def can_listen(host: str, port: int = 0) -> bool:
    """True when the address is of this machine and the port is free (0: any port).

    Examples
    --------
    >>> can_listen("127.0.0.1"), can_listen("192.0.2.77")
    (True, False)
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        return False
    return True


def memory_bytes(memory: int | str) -> int:
    """Convert a memory size to bytes.

    Examples
    --------
    >>> memory_bytes("2GiB") == memory_bytes(2 * 2**30)
    True
    """
    try:
        size = 0 if isinstance(memory, bool) else int(parse_bytes(memory))
    except (ValueError, TypeError, AttributeError):
        size = 0
    if size < 2**20:
        raise InputError(f"memory={memory!r} is no memory size; type memory='2GiB', or a number of bytes")
    return size


def is_loopback(host: str | None, interface: str | None = None) -> bool:
    """True when an address, or without one a network interface, can be reached from this machine only.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("192.0.2.7"), is_loopback(None)
    (True, False, False)
    """
    if host:
        try:
            return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False
    if not interface:
        return False
    here = psutil.net_if_addrs()
    if interface not in here:
        raise InputError(f"this machine has no network interface {interface!r}; {suggest(interface, here)}")
    return all(is_loopback(a.address) for a in here[interface] if a.family in {socket.AF_INET, socket.AF_INET6})


def thread_limits(share: int) -> dict[str, str]:
    """Environment variables that limit BLAS and numba to ``share`` threads, or to fewer if the user has set fewer."""
    current = {name: os.environ.get(name, "") for name in THREAD_VARIABLES}
    share = max(1, share)
    return {name: str(min(share, int(n)) if n.isdecimal() and int(n) else share) for name, n in current.items()}


@contextlib.contextmanager
def _restored_environment() -> Iterator[None]:
    """Restore the environment variables of this process that Dask changes for its workers."""
    names = {*CHANGED_VARIABLES, *(dask.config.get("distributed.nanny.pre-spawn-environ", None) or {})}
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
