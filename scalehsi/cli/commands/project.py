"""Find the spectra of a result, or of files of references, in an image.

SPECTRA is a store that scalehsi fit wrote, or a file of references: .msa and others, or .csv with a first line such as
energy (eV),Cu,Zn. OUT is a result too, with the maps of the image: report and reconstruct take it.

\b
scalehsi project result.zarr other.zarr maps.zarr
scalehsi project references.csv map.zarr maps.zarr --constraint fcls --resample
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import xarray as xr
from typer import Argument, Option

import scalehsi as hsi
from scalehsi.cli.arguments import Cube, Dataset, Out, Overwrite, dataset_of
from scalehsi.cli.console import several
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.cube import history_of
from scalehsi.io.reference_spectra import STORES
from scalehsi.models.apply import projected_result
from scalehsi.models.references import on_axis, spectra_of
from scalehsi.result import make_result, plain_attrs
from scalehsi.schema import ABUNDANCES, COMPONENT, ENDMEMBERS, ENERGY

Spectra = Annotated[Path, Argument(metavar="SPECTRA", help="A store that scalehsi fit wrote, or a file of references.")]
Constraint = Annotated[
    str | None,
    Option(
        metavar="WORD", help="nnls, fcls (sum of one), poisson or ls; by default the method of the result, or nnls."
    ),
]
Resample = Annotated[bool, Option("--resample", help="Bring spectra of another energy axis onto that of the image.")]


@command
def run(
    session: Session,
    spectra: Spectra,
    cube: Cube,
    out: Out,
    *,
    constraint: Constraint = None,
    resample: Resample = False,
    dataset: Dataset = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    target = session.destination(out, overwrite=overwrite, source=spectra)
    session.destination(out, overwrite=overwrite, source=cube)
    source = session.path(spectra)
    fitted = hsi.open_result(source) if source.suffix.lower() in STORES else None
    given = spectra_of(source) if fitted is None else fitted
    other = hsi.open_cube(session.path(cube), dataset=dataset_of(dataset))
    with session.connected():
        maps = hsi.project(given, other, constraint=constraint, resample=resample)
        if fitted is not None and "constraint" not in maps.attrs:
            projected = projected_result(fitted, maps, other, origin=spectra.name)
        else:
            rows = spectra_of(given)
            projected = _of_spectra(on_axis(rows, other, resample=resample), maps, other, origin=spectra.name)
        with session.computing(f"solving {cube.name}"):
            hsi.save(projected, target, overwrite=overwrite)
    count = projected.sizes[COMPONENT]
    session.console.say(f"{out}: maps of {several(count, 'component')} in {cube.name}")
    warnings = session.console.show_warnings(projected, session.translate)
    return {"written": str(out), "model": projected.attrs["model"], "components": count, "warnings": warnings}


def _of_spectra(s: np.ndarray[Any, Any], maps: xr.DataArray, cube: xr.DataArray, *, origin: str) -> xr.Dataset:
    """A result with given spectra and their maps.

    s (K, E): spectra on the channels of the cube. maps: (component, ..., y, x). cube: the image. origin: name of the
    file, for the history.
    """
    constraint = str(maps.attrs["constraint"])
    variables = {ENDMEMBERS: xr.DataArray(s, dims=(COMPONENT, ENERGY)), ABUNDANCES: maps.drop_vars(COMPONENT)}
    given = {"constraint": constraint}
    model = {"cube": cube, "model": constraint.upper(), "settings": given, "seed": 0, "objective": []}
    made = make_result(variables, **model, status="converged", advice="The spectra were given.")
    line = f"project: spectra of {origin}, {constraint}, maps of {cube.attrs.get('source') or 'this cube'}"
    made.attrs = plain_attrs({**made.attrs, "history": [*history_of(cube.attrs), line]})
    return made.drop_vars("objective")
