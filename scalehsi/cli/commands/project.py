"""Find the spectra of a result in another image.

OUT is a result too, with the maps of the other image: report and reconstruct take it.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

import scalehsi as hsi
from scalehsi.cli.arguments import Cube, Dataset, Out, Overwrite, Result, dataset_of
from scalehsi.cli.console import several
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.cube import history_of
from scalehsi.result import advice_alone, map_dims, plain_attrs, result_warnings, warnings_text
from scalehsi.schema import ABUNDANCES, ENDMEMBERS


@command
def run(
    session: Session, result: Result, cube: Cube, out: Out, *, dataset: Dataset = None, overwrite: Overwrite = False
) -> dict[str, Any]:
    target = session.destination(out, overwrite=overwrite, source=result)
    session.destination(out, overwrite=overwrite, source=cube)
    fitted = hsi.open_result(session.path(result))
    other = hsi.open_cube(session.path(cube), dataset=dataset_of(dataset))
    with session.connected():
        projected = _projected(fitted, hsi.project(fitted, other), other, origin=result.name)
        with session.computing(f"solving {cube.name}"):
            hsi.save(projected, target, overwrite=overwrite)
    count = fitted.sizes["component"]
    session.console.say(f"{out}: maps of {several(count, 'component')} in {cube.name}")
    warnings = session.console.show_warnings(projected, session.translate)
    return {"written": str(out), "model": fitted.attrs["model"], "components": count, "warnings": warnings}


def _projected(fitted: xr.Dataset, maps: xr.DataArray, cube: xr.DataArray, *, origin: str) -> xr.Dataset:
    """A result with the spectra of one acquisition and the maps of another.

    Parameters
    ----------
    fitted : Dataset
        The result with the spectra.
    maps : DataArray
        Their maps in the cube, dims (component, ..., y, x).
    cube : DataArray
    origin : str
        Name of the result, for the history.
    """
    known = [
        name for name, v in fitted.data_vars.items() if name == ENDMEMBERS or not set(map_dims(fitted)) & {*v.dims}
    ]
    # What describes the data of the fit does not describe this cube.
    kept = [name for name in known if name not in ("objective", "residual_spectrum", "mean_spectrum")]
    made = fitted[kept].drop_vars(map_dims(fitted), errors="ignore")
    made[ABUNDANCES] = maps
    line = f"project: spectra of {origin} ({fitted.attrs['model']}), maps of {cube.attrs.get('source') or 'this cube'}"
    carried = {k: cube.attrs[k] for k in ("title", "source") if k in cube.attrs}
    made.attrs = plain_attrs({**fitted.attrs, **carried, "history": [*history_of(cube.attrs), line]})
    # The spectra are those of the fit, and so are its warnings; their pixels are not those of this cube.
    earlier = [each._replace(text=f"When the spectra were fitted: {each.text}") for each in result_warnings(fitted)]
    made.attrs |= {"advice": advice_alone(fitted), "warnings": warnings_text(earlier)}
    return made
