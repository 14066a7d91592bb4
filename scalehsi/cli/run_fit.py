"""Run a fit from the command line, with progress and status in words."""

from __future__ import annotations

import time
from typing import Any, Final

import xarray as xr

import scalehsi as hsi
from scalehsi.cli.session import Session
from scalehsi.fitting.model import Model

STATUS: Final = {
    "converged": "converged",
    "max_iter": "stopped at the iteration limit",
    "stagnated": "stopped improving",
    "nonfinite": "broke down",
    "interrupted": "interrupted",
}
"""The status of a fit in words."""


def run_fit(
    session: Session, data: Any, chosen: Model, *, seed: int, device: str | None = None, **how: Any
) -> tuple[xr.Dataset, float]:
    """Fit with a bar or remarks; give the result and the seconds it took."""
    begin = time.perf_counter()
    fitted = hsi.fit(
        data, chosen, seed=seed, device=device or session.device, progress=session.console.fit_listener(), **how
    )
    return fitted, time.perf_counter() - begin
