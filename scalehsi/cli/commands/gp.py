"""Smooth the maps of a result by a Gaussian process, with their uncertainty.

All maps together, at the pixels or between them; pixels that were not measured are filled:

\b
scalehsi gp result.zarr smooth.zarr
scalehsi gp result.zarr fine.zarr --upsample 2 --lengthscale 2:5 --report fine_report

Further settings, for --set: scalehsi models parallelgp.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import xarray as xr
from typer import Option

import scalehsi as hsi
from scalehsi.cli.arguments import Out, Overwrite, ReportFolder, Result, Seed, Settings, literal, settings_of
from scalehsi.cli.commands.report import check_report_folder, suggest_report, write_report
from scalehsi.cli.console import number
from scalehsi.cli.run_fit import STATUS, run_fit
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.io import open_dataset, open_maps
from scalehsi.result import advice_alone, map_dims
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, InputError


@command
def run(
    session: Session,
    result: Result,
    out: Out,
    *,
    upsample: Annotated[str, Option(metavar="N", help="Points a pixel, such as 2.5, or 2,3 along y and x.")] = "1",
    kernel: Annotated[
        str, Option(metavar="NAME", help="Of the covariance; see scalehsi models parallelgp.")
    ] = "matern52",
    lengthscale: Annotated[str | None, Option(metavar="LOW:HIGH", help="Interval for the length, in pixels.")] = None,
    assignments: Settings = None,
    seed: Seed = 0,
    scan: Annotated[bool, Option("--scan", help="Also find the lengths that the maps show.")] = False,
    report: ReportFolder = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    interval = None if lengthscale is None else _interval(lengthscale)
    chosen = hsi.ParallelGP.from_settings(
        {"kernel": kernel, "lengthscale": interval, "upsample": literal(upsample), **settings_of(assignments)}
    )
    target = session.destination(out, overwrite=overwrite, source=result)
    maps = _open(session.path(result))
    if report is not None:
        check_report_folder(report, overwrite=overwrite)
        if isinstance(maps, xr.DataArray) or ENDMEMBERS not in maps:
            raise InputError(f"--report shows spectra, and {str(result)!r} holds maps alone; leave --report out")
    with session.connected():
        scanned = _scan(session, maps, kernel, seed) if scan else None
        made, seconds = run_fit(session, maps, chosen, target, overwrite=overwrite, seed=seed)
    found = {**_summary(made), "result": str(out), "seconds": round(seconds, 3), "report": None}
    if scanned is not None:
        found["recommended"] = [float(v) for v in scanned["recommended"].values]
    _show(session, found, f"{STATUS[found['status']]}. {session.translate(advice_alone(made))}")
    found["warnings"] = session.console.show_warnings(made, session.translate)
    if report is not None:
        found["report"] = write_report(session, made, report, scan=scanned, overwrite=overwrite)
    elif ENDMEMBERS in made:
        suggest_report(session, out)
    return found


def _open(path: Path) -> xr.Dataset | xr.DataArray:
    """A result, or maps alone.

    Raises
    ------
    InputError
        When the store holds neither.
    """
    data = open_dataset(path)
    return data if "model" in data.attrs and ABUNDANCES in data else open_maps(path)


def _scan(session: Session, maps: xr.Dataset | xr.DataArray, kernel: str, seed: int) -> xr.Dataset:
    """Scan the lengths of these maps with a kernel, and show the recommended interval."""
    with session.computing("scanning lengths"):
        found = hsi.lengthscale_scan(maps, kernel=kernel, seed=seed)
    session.console.say(session.translate(str(found.attrs.get("advice", ""))))
    return found


def _interval(text: str) -> tuple[float, ...]:
    """Two lengths, such as ``2:5``."""
    low, colon, high = text.partition(":")
    values = (literal(low), literal(high))
    if not colon or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise InputError(f"--lengthscale {text!r} is no interval; type the limits in pixels, such as --lengthscale 2:5")
    return values


def _summary(result: xr.Dataset) -> dict[str, Any]:
    """Status, lengths and noise of a fit, in plain values."""
    return {
        "model": result.attrs["model"],
        "status": result.attrs["status"],
        "advice": result.attrs["advice"],
        "components": result.sizes[COMPONENT],
        "sizes": {d: result[ABUNDANCES].sizes[d] for d in map_dims(result)},
        "lengthscale": [float(v) for v in result["lengthscale"].values],
        "lengthscale_nm": [float(v) for v in result["lengthscale_nm"].values] if "lengthscale_nm" in result else None,
        "noise_std": [float(v) for v in result["noise_std"].values],
        "evidence": float(result["evidence"]),
    }


def _show(session: Session, found: dict[str, Any], ended: str) -> None:
    """Show the values of `_summary` in words, after how the fit ended."""
    session.console.say(f"{found['model']}: {ended}")
    y, x = found["lengthscale"]
    nm = found["lengthscale_nm"]
    more = f" ({number(nm[0])} and {number(nm[1])} nm)" if nm else ""
    session.console.say(f"length along y and x: {number(y)} and {number(x)} pixels{more}")
    parts = [f"component {n}: {number(v)}" for n, v in enumerate(found["noise_std"], start=1)]
    session.console.say(f"noise: {', '.join(parts)}")
    session.console.say(f"result: {found['result']}")
