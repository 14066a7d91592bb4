"""The command ``scalehsi prepare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scalehsi as hsi
from scalehsi.cli.disk import tell_written
from scalehsi.cli.session import Session, dataset_of
from scalehsi.cube import check_cube, history_of
from scalehsi.prepare import apply_step
from scalehsi.schema import MASK


def prepare(
    session: Session, source: Path, destination: Path, *, steps: Sequence[str], overwrite: bool, dataset: str | None
) -> dict[str, Any]:
    """Do steps one after the other, and write what comes out."""
    target = session.destination(destination, overwrite=overwrite, source=source)
    cube = hsi.open_cube(session.path(source), dataset=dataset_of(dataset))
    before = len(history_of(cube.attrs))
    with session.connected():
        for step in steps:
            cube = apply_step(cube, step)
        if MASK in cube.coords:
            with session.computing("making the mask"):
                # Known before anything is written: a mask may leave nothing.
                cube = check_cube(cube.assign_coords({MASK: cube[MASK].compute()}))
        with session.computing(f"preparing {source.name}"):
            hsi.save(cube, target, overwrite=overwrite)
    for line in history_of(cube.attrs)[before:]:
        session.console.say(f"did {line}")
    return {**tell_written(session, destination, cube), "steps": list(steps)}
