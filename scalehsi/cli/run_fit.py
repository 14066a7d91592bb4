"""Run a fit from the command line, with its progress and its status in words."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import xarray as xr

import scalehsi as hsi
from scalehsi.cli.console import several
from scalehsi.cli.session import Session
from scalehsi.fitting.checkpoint import FILE
from scalehsi.fitting.model import Model
from scalehsi.result import advice_alone

STATUS: Final = {
    "converged": "converged",
    "max_iter": "stopped at the iteration limit",
    "stagnated": "stopped improving",
    "nonfinite": "broke down",
    "interrupted": "interrupted",
}
"""The status of a fit in words."""


def run_fit(
    session: Session,
    data: Any,
    model: Model,
    target: Path,
    *,
    overwrite: bool,
    elements: list[str] | None = None,
    device: str | None = None,
    **how: Any,
) -> tuple[xr.Dataset, float]:
    """Fit with a progress bar, write the result, and return it with the seconds that the fit took.

    Where `quiet` leaves out the summary of the fit, a status other than "converged" still gets its line.

    Parameters
    ----------
    session : Session
    data : DataArray, Dataset or mapping
        What `scalehsi.fit` takes.
    model : Model
    target : Path
        The store of the result.
    overwrite : bool
        Whether a store there may be replaced.
    elements : list of str, optional
        Of the sample, for the result.
    device : str, optional
        By default that of the session.
    **how
        Further arguments of `scalehsi.fit`.
    """
    begin = time.perf_counter()
    progress = session.console.fit_listener()
    fitted = hsi.fit(data, model, device=device or session.device, progress=progress, **how)
    seconds = time.perf_counter() - begin
    if elements is not None:
        fitted.attrs["elements"] = ", ".join(elements)
    with session.computing(f"writing {target.name}"):
        hsi.save(fitted, target, overwrite=overwrite)
    session.written.append(str(target))
    if session.console.quiet and fitted.attrs["status"] != "converged":
        session.console.warn(f"{fitted.attrs['model']}: {status_of(fitted)}. {session.translate(advice_alone(fitted))}")
    return hsi.open_result(target), seconds


def state_in(checkpoint: Path | None) -> str | None:
    """The name of the checkpoint's folder if it holds a state."""
    return str(checkpoint) if checkpoint is not None and (checkpoint / FILE).is_file() else None


def status_of(result: xr.Dataset) -> str:
    """The status of a fit in words, with the iterations where there were several."""
    iterations = result.sizes.get("iteration", 0)
    after = f" after {several(iterations, 'iteration')}" if iterations > 1 else ""
    return STATUS[result.attrs["status"]] + after
