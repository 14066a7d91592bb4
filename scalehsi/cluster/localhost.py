"""What runs and listens on this machine: local worker processes, the dashboard's address, the environment of workers.

`scalehsi.cluster.connect` and `scalehsi.cluster.batch_queues` use this module, nothing else does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any, Final

import dask
import psutil
from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes

from scalehsi.schema import InputError, suggest

LOOPBACK: Final = "127.0.0.1"
DASHBOARD_PORT: Final = 8787
MIN_WORKER_BYTES: Final = 2**30
"""A worker is not started for less unless the user says so: Python and its libraries alone take a quarter of it."""

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""What tells BLAS and numba how many threads of their own they may start."""

# What distributed writes into the environment of the process that starts workers.
_LEAKS: Final = (*THREAD_VARIABLES, "MALLOC_TRIM_THRESHOLD_", "PYTHONHASHSEED")


@contextlib.contextmanager
def start(
    *, workers: int | None, threads: int | None, memory: int | None, pages: dict[str, Any], spill: str | None
) -> Iterator[tuple[Any, int]]:
    """Run worker processes and their scheduler on loopback; leaving stops them.

    Parameters
    ----------
    workers, threads, memory
        As `scalehsi.cluster.connect` has them; memory in bytes.
    pages : dict
        From `dashboard`.
    spill : str or None
        Folder for what does not fit in memory.

    Yields
    ------
    cluster : distributed.LocalCluster
    workers : int
        How many there are.

    Raises
    ------
    InputError
        When the workers do not fit in the machine's memory or do not start.
    """
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    if multiprocessing.current_process().daemon:
        raise InputError(
            "connect('local') was called by a worker process that imports the script which started it; "
            'put the call under: if __name__ == "__main__":'
        )
    threads = threads or 1
    workers, limit = _shares(workers, threads, memory, machine=int(MEMORY_LIMIT))
    limits = thread_limits(CPU_COUNT // (workers * threads))
    # A nanny that restarts a worker writes into our environment again: what was found comes back at the end too.
    with _kept_environment():
        with _kept_environment():
            os.environ.update(limits)
            try:
                with _no_interrupts():
                    cluster = LocalCluster(
                        n_workers=workers,
                        threads_per_worker=threads,
                        processes=True,
                        host=LOOPBACK,
                        dashboard_address=pages["dashboard_address"],
                        worker_dashboard_address=None,  # plain pages listen where the worker does
                        scheduler_kwargs={"dashboard": pages["dashboard"]},
                        memory_limit=limit,
                        local_directory=spill,
                        env=limits,
                    )
            except RuntimeError as problem:
                raise InputError(
                    f"the local workers did not start ({problem}); in a script, put the call of connect under "
                    'if __name__ == "__main__":, and look at the messages above'
                ) from problem
        try:
            yield cluster, workers
        finally:
            cluster.close()


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Start threads and processes that a terminal's Ctrl-C does not reach: it is this thread that shall stop them.

    What is started inherits the mask of signals, and so do workers that take the place of lost ones later. A Ctrl-C
    that comes meanwhile is delivered afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # when it starts, it lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shares(workers: int | None, threads: int, memory: int | None, *, machine: int) -> tuple[int, int]:
    """Number of workers, and bytes of each, within what this machine has and what is free now."""
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


def dashboard(wanted: bool | int | str | None) -> dict[str, Any]:  # noqa: FBT001 - the user's own argument, as it came
    """Where the scheduler's web pages listen, in the words of `distributed.Scheduler`.

    Parameters
    ----------
    wanted : bool, int, str or None
        As `scalehsi.cluster.connect` has it.

    Examples
    --------
    >>> dashboard(False)
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
    if not 0 <= port < 65536:
        raise InputError(f"dashboard={wanted!r}: a port is expected from 0 to 65535; type dashboard=8787")
    if wanted is None or wanted is False or importlib.util.find_spec("bokeh") is None:
        # The scheduler serves its plain pages (health, metrics) in any case: at a free port of loopback.
        return {"dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    if port and not can_listen(host, port):
        if fixed:
            raise InputError(f"dashboard={wanted!r}: that address is taken or not of this machine; type dashboard=True")
        port = 0
    return {"dashboard": True, "dashboard_address": f"{host}:{port}"}


def can_listen(host: str, port: int = 0) -> bool:
    """True when the address is one of this machine and the port is free (0: any port).

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
    """Give a memory size in bytes.

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
    """True when what listens at that address, or else on that network interface, is reachable from this machine alone.

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
    """The environment that holds BLAS and numba to a share of the cores, or to less where the user's own says so."""
    said = {name: os.environ.get(name, "") for name in THREAD_VARIABLES}
    share = max(1, share)
    return {name: str(min(share, int(n)) if n.isdecimal() and int(n) else share) for name, n in said.items()}


@contextlib.contextmanager
def _kept_environment() -> Iterator[None]:
    """Put back what Dask changes in this process's environment for the sake of its workers."""
    names = {*_LEAKS, *(dask.config.get("distributed.nanny.pre-spawn-environ", None) or {})}
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
