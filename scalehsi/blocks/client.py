"""The distributed client that Dask would use, and what a process that was forked needs to compute.

No cluster software is imported here: a client is recognised by the ``get`` function that Dask itself would use.
"""

from __future__ import annotations

import multiprocessing.process
import os
import sys
import threading
from typing import Any

import dask.threaded
from dask.base import get_scheduler

from scalehsi.schema import InputError

_parents: list[Any] = []
"""Clients of the process from which this one was forked."""


def current_client() -> Any:
    """The distributed client that Dask would use, or None.

    Raises
    ------
    InputError
        In a process that was forked from the one that is connected: a connection does not survive that.
    """
    client = _found_client()
    if any(client is each for each in _parents):
        raise InputError(
            "this process was forked from one that is connected to a cluster, and the connection does not work here; "
            "call connect(...) here, or start the process with multiprocessing.get_context('spawn')"
        )
    return client


def _found_client() -> Any:
    owner = getattr(get_scheduler(), "__self__", None)
    return owner if owner is not None and hasattr(owner, "scheduler_info") else None


def _after_fork() -> None:
    """Let a forked process start threads of its own, because those of its parent do not exist in it.

    Dask would give its tasks to the pool of the parent, and wait for them without an end.
    """
    pools: Any = dask.threaded
    pools.default_pool, pools.main_thread, pools.pools_lock = None, threading.current_thread(), threading.Lock()
    pools.pools.clear()
    if "distributed" in sys.modules and (client := _found_client()) is not None:
        _parents.append(client)
        # Their end would wait for threads of the parent; its workers are not ours to stop.
        multiprocessing.process._children.clear()  # type: ignore[attr-defined] # or its end would stop them
        for each in (client, client.cluster):
            if each is not None:
                each.close = lambda *_, **__: None


os.register_at_fork(after_in_child=_after_fork)
