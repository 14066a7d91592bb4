"""The command ``scalehsi project``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xarray as xr

import scalehsi as hsi
from scalehsi.cli.console import several
from scalehsi.cli.session import Session, dataset_of
from scalehsi.cube import history_of
from scalehsi.result import map_dims
from scalehsi.schema import ABUNDANCES, ENDMEMBERS


def project(
    session: Session, result: Path, cube: Path, out: Path, *, overwrite: bool, dataset: str | None
) -> dict[str, Any]:
    """Write the maps of another acquisition on the spectra of a result, as a result of its own."""
    target = session.destination(out, overwrite=overwrite, source=result)
    session.destination(out, overwrite=overwrite, source=cube)
    fitted = hsi.open_result(session.path(result))
    other = hsi.open_cube(session.path(cube), dataset=dataset_of(dataset))
    with session.connected():
        projected = _projected(fitted, hsi.project(fitted, other), other, origin=result.name)
        with session.computing(f"solving {cube.name}"):
            hsi.save(projected, target, overwrite=overwrite)
    session.console.say(f"{out}: maps of {several(fitted.sizes['component'], 'component')} in {cube.name}")
    return {"written": str(out), "model": fitted.attrs["model"], "components": fitted.sizes["component"]}


def _projected(fitted: xr.Dataset, maps: xr.DataArray, cube: xr.DataArray, *, origin: str) -> xr.Dataset:
    """A result whose spectra come from one acquisition and whose maps come from another."""
    known = [
        name for name, v in fitted.data_vars.items() if name == ENDMEMBERS or not set(map_dims(fitted)) & {*v.dims}
    ]
    # What tells of the fit's own data says nothing of this cube.
    kept = [name for name in known if name not in ("objective", "residual_spectrum", "mean_spectrum")]
    made = fitted[kept].drop_vars(map_dims(fitted), errors="ignore")
    made[ABUNDANCES] = maps
    line = f"project: spectra of {origin} ({fitted.attrs['model']}), maps of {cube.attrs.get('source') or 'this cube'}"
    carried = {k: cube.attrs[k] for k in ("title", "source") if k in cube.attrs}
    made.attrs = {**fitted.attrs, **carried, "history": [*history_of(cube.attrs), line]}
    return made
