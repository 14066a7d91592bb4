"""End a computation whose scheduler or workers are gone for good; Dask itself would wait for them without an end.

A scheduler that is lost cancels the futures of its client, which Dask does within the client's timeout. For workers
Dask has a limit of its own (``distributed.scheduler.no-workers-timeout``), but it is a setting of the scheduler, which
may run elsewhere, and does not see workers that die and are restarted again and again. So the client looks here.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import dask
from dask.utils import parse_timedelta

from scalehsi.blocks.client import current_client
from scalehsi.schema import WorkersLost

log = logging.getLogger("scalehsi")

TIMEOUT_SETTING: Final = "scalehsi.workers-gone-timeout"
"""Dask's configuration; as an environment variable DASK_SCALEHSI__WORKERS_GONE_TIMEOUT."""
TIMEOUT: Final = "30s"
POLL_SECONDS: Final = 2.0
LASTING_SECONDS: Final = 8.0
"""A worker that lives longer is no worker that dies at its start."""
_CANCELLED: Final = ("CancelledError", "FutureCancelledError", "FuturesCancelledError", "CommClosedError")


class _Watch:
    """Looks at the workers of a client while a block of `workers_watched` runs.

    Attributes
    ----------
    client : distributed.Client
    blocks : int
        Blocks that run now.
    reason : str
        What was lost; empty while nothing is.
    """

    def __init__(self, client: Any) -> None:
        self.client, self.blocks, self.reason = client, 0, ""
        self.limit = float(parse_timedelta(dask.config.get(TIMEOUT_SETTING, TIMEOUT)))
        self._done = threading.Event()
        self._born: dict[str, float] = {}
        self._lasted: float | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="scalehsi workers", daemon=True).start()

    def stop(self) -> None:
        self._done.set()

    def _run(self) -> None:
        # The first look is at once: workers that are lost within the first seconds must have been seen.
        wait = 0.0
        while not self._done.wait(wait):
            wait = POLL_SECONDS
            try:
                self._look(time.monotonic())
            except Exception as error:  # no answer: the client notices that its scheduler is gone
                log.debug("no answer from the scheduler: %s", error)

    def _look(self, now: float) -> None:
        """Compare the workers with those of before, and cancel what waits for workers that do not come back."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        # A restarted worker has another identity, mostly also another address.
        names = {f"{address} {info.get('id')}" for address, info in workers.items()}
        self._born = {name: self._born.get(name, now) for name in names}
        if self._lasted is None:
            # A queue may take hours until the first worker comes.
            self._lasted = now if names else None
        elif any(now - born >= LASTING_SECONDS for born in self._born.values()):
            self._lasted = now
        elif now - self._lasted > self.limit:
            what = "die again and again" if names else "are gone"
            self.reason = f"all workers of the cluster {what}, for {self.limit:g} s now"
            self._cancel()

    def _cancel(self) -> None:
        from distributed import Future

        self.client.cancel([Future(key, client=self.client) for key in list(self.client.futures)], force=True)

    def explain(self, error: BaseException) -> str:
        """Why a computation failed, where scheduler or workers are the cause; otherwise empty."""
        kind = type(error).__name__
        if kind == "KilledWorker":
            return "workers died again and again on the same block; give them more memory (--memory)"
        if self.reason:
            return self.reason
        if kind in _CANCELLED or self.client.status not in ("running", "closing"):
            return "the connection to the cluster's scheduler is lost"
        return ""


_watches: list[_Watch] = []
_lock = threading.Lock()


@contextlib.contextmanager
def workers_watched() -> Iterator[None]:
    """Raise `WorkersLost` when the scheduler, or all workers for 30 s, are lost while the block computes."""
    client = current_client()
    if client is None:
        yield
        return
    with _lock:
        watch = next((each for each in _watches if each.client is client), None)
        if watch is None:
            watch = _Watch(client)
            _watches.append(watch)
            watch.start()
        watch.blocks += 1
    try:
        yield
    except WorkersLost:
        raise
    except Exception as error:
        if reason := watch.explain(error):
            raise WorkersLost(reason) from error
        raise
    except BaseException as error:
        # asyncio's CancelledError is no Exception.
        if type(error).__name__ == "CancelledError":
            raise WorkersLost(watch.explain(error)) from error
        raise
    finally:
        with _lock:
            watch.blocks -= 1
            if not watch.blocks:
                watch.stop()
                _watches.remove(watch)


def wait_for_a_worker(client: Any) -> None:
    """Wait for the first worker of a client; raise `WorkersLost` where all were lost."""
    if not client.scheduler_info()["workers"]:
        log.warning("the cluster has no worker yet; waiting for the first one (interrupt to give up)")
    while True:
        with contextlib.suppress(TimeoutError):
            client.wait_for_workers(1, timeout=POLL_SECONDS)
            return
        for watch in list(_watches):
            if watch.client is client and watch.reason:
                raise WorkersLost(watch.reason)
