"""Unmix a spectrum image into spectra and their maps.

For EDX counts, and for EELS with its background removed:

\b
scalehsi fit map.zarr result.zarr -k 3 --set loss=poisson
scalehsi fit map.zarr result.zarr -k 3 --model psnmf --elements Mg,Si,O
scalehsi fit map.zarr result.zarr -k 4 --checkpoint run.ckpt
scalehsi fit fine.zarr result.zarr -k 4 --model pansharpen --spectral coarse.zarr
scalehsi fit result.zarr -k 3 --model coupled --input eels=a.zarr --input edx=b.zarr

The methods: scalehsi models. The settings of one, for --set: scalehsi models NAME.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xarray as xr
from typer import Argument, Option

import scalehsi as hsi
from scalehsi.cli.arguments import (
    Components,
    Cube,
    Dataset,
    Elements,
    Inputs,
    ModelName,
    Overwrite,
    ReportFolder,
    Seed,
    Settings,
    Spectral,
    elements_of,
    settings_of,
)
from scalehsi.cli.commands.report import check_report_folder, suggest_report, write_report
from scalehsi.cli.console import duration, several
from scalehsi.cli.model_arguments import make_model, open_data, signals_of
from scalehsi.cli.run_fit import run_fit, state_in, status_of
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.result import advice_alone, component_share
from scalehsi.schema import COMPONENT, ENDMEMBERS, OBJECTIVE, InputError, Interrupted, WorkersLost


@command
def run(
    session: Session,
    cube: Cube,
    result: Annotated[
        Path | None, Argument(metavar="RESULT", help="The store to make, such as result.zarr; alone with --input.")
    ] = None,
    *,
    inputs: Inputs = None,
    model: ModelName = "nmf",
    n_components: Components = None,
    assignments: Settings = None,
    elements: Elements = None,
    start: Annotated[
        Path | None, Option(metavar="RESULT", help="Go on from this result, such as of a part of the scan.")
    ] = None,
    seed: Seed = 0,
    checkpoint: Annotated[Path | None, Option(metavar="DIR", help="Keep the state of the fit here.")] = None,
    checkpoint_every: Annotated[int, Option(min=1, metavar="N", help="Iterations between two states.")] = 1,
    resume: Annotated[bool, Option("--resume", help="Go on from the checkpoint.")] = False,
    report: ReportFolder = None,
    dataset: Dataset = None,
    spectral: Spectral = None,
    image: Annotated[Path | None, Option(metavar="IMAGE", help="For pansharpen: an image, such as HAADF.")] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    signals = signals_of(inputs)
    source: Path | None = cube
    if signals and result is None:
        result, source = cube, None
    if result is None:
        raise InputError("Missing argument 'RESULT'; type scalehsi fit --help")
    chosen, named = make_model(model, n_components, settings_of(assignments)), elements_of(elements)
    if resume and checkpoint is None:
        raise InputError("--resume goes on from a checkpoint, and none is named; add --checkpoint DIR")
    target = session.destination(result, overwrite=overwrite, source=next(iter(signals.values()), cube))
    if report is not None:
        check_report_folder(report, overwrite=overwrite)
    how: dict[str, Any] = {
        "seed": seed,
        "checkpoint": checkpoint,
        "checkpoint_every": checkpoint_every,
        "resume": resume,
    }
    if start is not None:
        how["start"] = hsi.open_result(session.path(start))
    data = open_data(session, source, chosen, dataset=dataset, signals=signals, spectral=spectral, image=image)
    chosen.select_inputs(data)
    with session.connected():
        needs = hsi.plan(data, chosen)
        place = "kept in memory" if needs.resident else "read again in each pass"
        session.console.remark(f"{', '.join(signals) or cube.name}: {several(needs.blocks, 'block')} of data, {place}")
        with _keeping(checkpoint):
            made, seconds = run_fit(session, data, chosen, target, overwrite=overwrite, elements=named, **how)
        found = {"result": str(result), **_summary(made), "seconds": round(seconds, 3), "report": None}
        _show(session, found, f"{status_of(made)}, {duration(seconds)}. {session.translate(advice_alone(made))}")
        found["warnings"] = session.console.show_warnings(made, session.translate)
        if report is not None:
            found["report"] = write_report(session, made, report, overwrite=overwrite)
    if report is None:
        suggest_report(session, result)
    return found


@contextlib.contextmanager
def _keeping(checkpoint: Path | None) -> Iterator[None]:
    """Name the checkpoint in the error when a fit, or the writing of its result, fails."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt as stop:
        where = state_in(checkpoint)
        raise Interrupted("stopped while the result was written", checkpoint=where) from stop
    except (OSError, WorkersLost) as error:
        if (where := state_in(checkpoint)) and where not in str(error):
            error.add_note(f"the state of the fit is in {where!r}: type the same with --resume when this is mended")
        raise


def _summary(result: xr.Dataset) -> dict[str, Any]:
    """Status and size of a fit, and the share of each component, in plain values."""
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


def _show(session: Session, found: dict[str, Any], ended: str) -> None:
    """Show the values of `_summary` in words, after how the fit ended."""
    session.console.say(f"{found['model']}: {ended}")
    for key, words in (("signal_share", "of the signal"), ("explained_variance", "of the variance")):
        parts = [f"component {n}: {100 * v:.1f} %" for n, v in enumerate(found.get(key, []), start=1)]
        if parts:
            session.console.say(f"share {words}: {', '.join(parts)}")
    session.console.say(f"result: {found['result']}")
