"""Write any spectrum image as a chunked Zarr store.

Counts become the smallest integers that hold them; memory stays bounded where the format can be read in parts.
"""

from __future__ import annotations

from typing import Annotated, Any

from typer import Option

import scalehsi as hsi
from scalehsi.cli.arguments import Dataset, Destination, Overwrite, Source, dataset_of, settings_of
from scalehsi.cli.disk import show_written
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session


@command
def run(
    session: Session,
    source: Source,
    destination: Destination,
    *,
    chunk_mb: Annotated[float, Option(metavar="N", help="Size of a chunk in MiB.")] = 16.0,
    dataset: Dataset = None,
    assignments: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="For the file's reader, such as sum_frames=false.")
    ] = None,
    axes: Annotated[
        str | None, Option(metavar="NAMES", help="Of a store without them, in its order, such as energy,y,x.")
    ] = None,
    energy: Annotated[
        str | None, Option(metavar="UNIT|FIRST:STEP:UNIT", help="Of a file without it, such as eV or 0:0.01:keV.")
    ] = None,
    pixel: Annotated[str | None, Option(metavar="STEP:UNIT", help="Size of a pixel, such as 0.5:nm.")] = None,
    mask: Annotated[str | None, Option(metavar="ignore|invert", help="What to do with the mask of the file.")] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    options = settings_of(assignments)
    target = session.destination(destination, overwrite=overwrite, source=source)
    with session.connected(), session.console.bar(f"converting {source.name}") as listener:
        how = {"dataset": dataset_of(dataset), "reader_options": options, "progress": listener}
        how |= {"axes": axes, "energy": energy, "pixel": pixel, "mask": mask}
        hsi.convert(session.path(source), target, chunk_mb=chunk_mb, overwrite=overwrite, **how)
    return show_written(session, destination, hsi.open_cube(target))
