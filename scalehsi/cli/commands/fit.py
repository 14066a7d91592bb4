"""The command that fits, and the one that reports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi.cli.commands.report import check_report_folder
from scalehsi.cli.console import duration, several
from scalehsi.cli.model_arguments import make_model, open_data
from scalehsi.cli.run_fit import STATUS, run_fit
from scalehsi.cli.session import Session
from scalehsi.fitting.checkpoint import FILE
from scalehsi.result import component_share
from scalehsi.schema import COMPONENT, ENDMEMBERS, OBJECTIVE, InputError, Interrupted


def fit(
    session: Session,
    cube: Path,
    result: Path,
    *,
    model: str,
    components: int | None,
    settings: dict[str, Any],
    seed: int,
    checkpoint: Path | None,
    checkpoint_every: int,
    resume: bool,
    overwrite: bool,
    report: Path | None,
    dataset: str | None,
    spectral: Path | None,
    image: Path | None,
) -> dict[str, Any]:
    """Fit a model to a cube and write the result."""
    chosen = make_model(model, components, settings)
    if resume and checkpoint is None:
        raise InputError("--resume goes on from a checkpoint, and none is named; add --checkpoint DIR")
    target = session.destination(result, overwrite=overwrite, source=cube)
    if report is not None:
        check_report_folder(report, overwrite=overwrite)
    data = open_data(session, cube, chosen, dataset=dataset, spectral=spectral, image=image)
    chosen.sources(data)
    with session.connected():
        needs = hsi.plan(data, chosen)
        held = "kept in memory" if needs.resident else "read again in each pass"
        session.console.remark(f"{cube.name}: {several(needs.blocks, 'block')} of data, {held}")
        with _kept(checkpoint):
            fitted, seconds = run_fit(
                session,
                data,
                chosen,
                seed=seed,
                checkpoint=checkpoint,
                checkpoint_every=checkpoint_every,
                resume=resume,
            )
            with session.computing(f"writing {result.name}"):
                hsi.save(fitted, target, overwrite=overwrite)
        made = hsi.open_result(target)
        found = {"result": str(result), **summary(made), "seconds": round(seconds, 3), "report": None}
        tell_summary(session, found)
        if report is not None:
            with session.console.busy("drawing the report"):
                found["report"] = str(hsi.report(made, report, overwrite=overwrite))
            session.console.say(f"report: {found['report']}")
    if report is None:
        session.console.say(f"next: scalehsi report {result} {result.with_name(result.stem + '_report')}")
    return found


@contextlib.contextmanager
def _kept(checkpoint: Path | None) -> Iterator[None]:
    """Say where the state is when something goes wrong after or in the middle of a fit."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as stop:
        where = _state_in(checkpoint)
        raise Interrupted("stopped while the result was written", checkpoint=where) from stop
    except OSError as error:
        if where := _state_in(checkpoint):
            error.add_note(f"the state of the fit is in {where!r}: type the same with --resume when this is mended")
        raise


def _state_in(checkpoint: Path | None) -> str | None:
    return str(checkpoint) if checkpoint is not None and (checkpoint / FILE).is_file() else None


def summary(result: xr.Dataset) -> dict[str, Any]:
    """What a fit came to, in plain values."""
    found: dict[str, Any] = {
        "model": result.attrs["model"],
        "status": result.attrs["status"],
        "advice": result.attrs["advice"],
        "iterations": result.sizes.get("iteration", 0),
        "objective": float(result[OBJECTIVE][-1]) if result[OBJECTIVE].size else None,
        "components": result.sizes[COMPONENT],
    }
    if "explained_variance_ratio" in result:
        count = found["components"]
        found["explained_variance"] = [float(v) for v in result["explained_variance_ratio"].values[:count]]
    elif np.all(result[ENDMEMBERS].values >= 0):
        found["signal_share"] = [float(v) for v in component_share(result).values]
    return found


def tell_summary(session: Session, found: dict[str, Any]) -> None:
    """The same in words."""
    after = f"{several(found['iterations'], 'iteration')}, {duration(found['seconds'])}"
    session.console.say(f"{found['model']}: {STATUS[found['status']]} after {after}. {found['advice']}")
    for key, words in (("signal_share", "of the signal"), ("explained_variance", "of the variance")):
        parts = [f"component {n}: {100 * v:.1f} %" for n, v in enumerate(found.get(key, []), start=1)]
        if parts:
            session.console.say(f"share {words}: {', '.join(parts)}")
    session.console.say(f"result: {found['result']}")
