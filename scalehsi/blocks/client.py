"""The distributed client that Dask would use.

No cluster software is imported here: a client is recognised by the ``get`` function that Dask itself would use.
"""

from __future__ import annotations

from typing import Any

from dask.base import get_scheduler

from scalehsi import forks as forks  # a fork computes by its own threads


def current_client() -> Any:
    """The distributed client that Dask would use, or None."""
    owner = getattr(get_scheduler(), "__self__", None)
    return owner if owner is not None and hasattr(owner, "scheduler_info") else None
