"""Prepare a spectrum image: crop, bin, mask, and correct what the detector and the microscope added.

The steps are dark, gain, spikes, align, crop, bin, mask, background, normalise and anscombe. They are done in the order
given, which should be this one; ranges are in the units of the axis, and each step is a line of the history:

\b
scalehsi prepare map.zarr small.zarr --step crop:energy=0.5:10 --step bin:y=2,x=2
scalehsi prepare map.zarr used.zarr --step mask:min_counts=20
scalehsi prepare eels.zarr net.zarr --step spikes --step align:low_loss=zlp.zarr --step background:fit=780:916
"""

from __future__ import annotations

from typing import Annotated, Any

from typer import Option

import scalehsi as hsi
from scalehsi.cli.arguments import Dataset, Destination, Overwrite, Source, dataset_of
from scalehsi.cli.disk import show_written
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.cube import check_cube, history_of
from scalehsi.prepare import apply_step
from scalehsi.schema import MASK


@command
def run(
    session: Session,
    source: Source,
    destination: Destination,
    *,
    steps: Annotated[
        list[str], Option("--step", metavar="STEP", help="A step, such as crop:energy=0.5:10; may be repeated.")
    ],
    dataset: Dataset = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    target = session.destination(destination, overwrite=overwrite, source=source)
    cube = hsi.open_cube(session.path(source), dataset=dataset_of(dataset))
    before = len(history_of(cube.attrs))
    with session.connected():
        for step in steps:
            cube = apply_step(cube, step)
        if MASK in cube.coords:
            with session.computing("making the mask"):
                # Checked before anything is written: a mask may leave no pixel.
                cube = check_cube(cube.assign_coords({MASK: cube[MASK].compute()}))
        with session.computing(f"preparing {source.name}"):
            hsi.save(cube, target, overwrite=overwrite)
    for line in history_of(cube.attrs)[before:]:
        session.console.say(f"did {line}")
    return {**show_written(session, destination, cube), "steps": list(steps)}
