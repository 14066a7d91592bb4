"""The command that reconstructs maps by a Gaussian process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

import scalehsi as hsi
from scalehsi.cli.commands.report import check_report_folder
from scalehsi.cli.console import number
from scalehsi.cli.run_fit import STATUS, run_fit
from scalehsi.cli.session import Session, literal
from scalehsi.io import open_dataset, open_maps
from scalehsi.result import map_dims
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, InputError


def gp(
    session: Session,
    source: Path,
    out: Path,
    *,
    upsample: str,
    kernel: str,
    lengthscale: str | None,
    settings: dict[str, Any],
    seed: int,
    scan: bool,
    report: Path | None,
    overwrite: bool,
) -> dict[str, Any]:
    """Smooth the maps of a result, or maps alone, and store what comes out as a result."""
    interval = None if lengthscale is None else _interval(lengthscale)
    chosen = hsi.ParallelGP.from_settings(
        {"kernel": kernel, "lengthscale": interval, "upsample": literal(upsample), **settings},
    )
    target = session.destination(out, overwrite=overwrite, source=source)
    maps = _open(session.path(source))
    if report is not None:
        check_report_folder(report, overwrite=overwrite)
        if isinstance(maps, xr.DataArray) or ENDMEMBERS not in maps:
            raise InputError(f"--report shows spectra, and {str(source)!r} holds maps alone; leave --report out")
    with session.connected():
        scanned = _scan(session, maps, kernel, seed) if scan else None
        fitted, seconds = run_fit(session, maps, chosen, seed=seed)
        with session.computing(f"writing {out.name}"):
            hsi.save(fitted, target, overwrite=overwrite)
    made = hsi.open_result(target)
    found = {**_summary(made), "result": str(out), "seconds": round(seconds, 3), "report": None}
    if scanned is not None:
        found["recommended"] = [float(v) for v in scanned["recommended"].values]
    _tell(session, found)
    if report is not None:
        with session.console.busy("drawing the report"):
            found["report"] = str(hsi.report(made, report, scan=scanned, overwrite=overwrite))
        session.console.say(f"report: {found['report']}")
    elif ENDMEMBERS in made:
        session.console.say(f"next: scalehsi report {out} {out.with_name(out.stem + '_report')}")
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
    """Which lengths the maps show; says which interval is recommended."""
    with session.computing("looking at lengths"):
        found = hsi.lengthscale_scan(maps, kernel=kernel, seed=seed)
    session.console.say(str(found.attrs.get("advice", "")))
    return found


def _interval(text: str) -> tuple[float, ...]:
    """Two lengths, such as ``2:5``."""
    low, colon, high = text.partition(":")
    values = (literal(low), literal(high))
    if not colon or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise InputError(f"--lengthscale {text!r} is no interval; type the limits in pixels, such as --lengthscale 2:5")
    return values


def _summary(result: xr.Dataset) -> dict[str, Any]:
    """What was learned, in plain values."""
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


def _tell(session: Session, found: dict[str, Any]) -> None:
    """The same in words."""
    session.console.say(f"{found['model']}: {STATUS[found['status']]}. {found['advice']}")
    y, x = found["lengthscale"]
    nm = found["lengthscale_nm"]
    more = f" ({number(nm[0])} and {number(nm[1])} nm)" if nm else ""
    session.console.say(f"length along y and x: {number(y)} and {number(x)} pixels{more}")
    parts = [f"component {n}: {number(v)}" for n, v in enumerate(found["noise_std"], start=1)]
    session.console.say(f"noise: {', '.join(parts)}")
    session.console.say(f"result: {found['result']}")
