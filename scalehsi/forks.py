"""Let a process that was forked from this one compute: by threads of its own, apart from its parent's cluster.

A fork has the memory of its parent and none of its threads. Dask would give tasks to the parent's pool, or to a cluster
whose client is such a thread, and wait for them without an end; at its end the fork would stop its parent's workers.
"""

from __future__ import annotations

import atexit
import multiprocessing.process
import os
import sys
import threading
from typing import Any


def _after_fork() -> None:
    """In the child: a new pool of threads, and no cluster. Modules that the parent did not use are left out."""
    if (pools := sys.modules.get("dask.threaded")) is not None:
        vars(pools).update(default_pool=None, main_thread=threading.current_thread(), pools_lock=threading.Lock())
        pools.pools.clear()
    clients: Any = sys.modules.get("distributed.client")
    if clients is not None and (known := list(clients.Client._instances)):
        _leave(clients, known)


def _leave(clients: Any, known: list[Any]) -> None:
    """Take the connections of the parent as closed, whoever made them. clients: the module. known: its clients."""
    import dask

    for client in known:
        client.status = "closed"
        if client.cluster is not None:
            client.cluster.status = type(client.cluster.status).closed
            client.cluster.close = _do_nothing  # a `with` block of the parent ends in the child too
    clients._current_client.set(None)
    dask.config.set(scheduler=None)
    multiprocessing.process._children.clear()  # type: ignore[attr-defined] # or its end would stop the parent's
    atexit._clear()  # as Python's multiprocessing does


def _do_nothing(*_: Any, **__: Any) -> None:
    pass


os.register_at_fork(after_in_child=_after_fork)
