"""The distributed client that Dask would use.

No cluster software is imported here: a client is recognised by the ``get`` function that Dask itself would use.
"""

from __future__ import annotations

import sys
from typing import Any

from dask.base import get_scheduler

from scalehsi import forks as forks  # a fork computes by its own threads


def current_client() -> Any:
    """The distributed client that Dask would use, or None."""
    if "distributed" not in sys.modules:
        return None  # nobody has made a client; Dask would import distributed, for 0.1 s, to find that out
    owner = getattr(get_scheduler(), "__self__", None)
    return owner if owner is not None and hasattr(owner, "scheduler_info") else None
