"""Make a spectrum image, or maps of components, whose truth is known.

A chequerboard is an EELS or EDX map, phases an EDX map of minerals, acquisitions are two EELS maps of one region,
coupled is EELS and EDX of one region, tensor_stack a series of EELS maps under the beam; maps and sines have no
spectra. The truth goes beside it: scene.zarr gets scene_truth.zarr. For example:

\b
scalehsi simulate chequerboard scene.zarr --set shape=64,64 --set n_channels=512

A scene of two acquisitions is fine.zarr and fine_spectral.zarr, and fine_image.zarr with --set image_counts=100; one
of two signals is eels.zarr and eels_edx.zarr.

--live plays an acquisition, which scalehsi watch follows in another terminal.
"""

from __future__ import annotations

import inspect
import math
import time
from pathlib import Path
from typing import Annotated, Any, Final

import xarray as xr
from typer import Argument, Option

import scalehsi as hsi
from scalehsi.cli.arguments import Destination, Overwrite, settings_of
from scalehsi.cli.disk import show_written
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.io.atomic import replacing
from scalehsi.schema import ENERGY, InputError, suggest
from scalehsi.simulate import KINDS, Maps, acquire

BLOCK: Final = 16
"""Pixels of a block that is acquired at once, along y and x."""


@command
def run(
    session: Session,
    kind: Annotated[str, Argument(metavar="KIND", help="chequerboard, phases, coupled, tensor_stack ...")],
    destination: Destination,
    *,
    assignments: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Of the scene, such as shape=64,64; may be repeated."),
    ] = None,
    live: Annotated[
        float | None,
        Option(min=0.0, metavar="S", help="Write a block of 16 x 16 pixels every S seconds, for scalehsi watch."),
    ] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    settings = settings_of(assignments)
    if kind not in KINDS:
        raise InputError(f"there is no kind of scene {kind!r}; {suggest(kind, KINDS)}")
    known = inspect.signature(KINDS[kind]).parameters
    for name in settings:
        if name not in known:
            raise InputError(f"the scene {kind!r} has no setting {name!r}; {suggest(name, known)}")
    if live is not None and (overwrite or kind in ("maps", "sines")):
        wrong = (
            "--overwrite: a store that is replaced is no new acquisition" if overwrite else f"{kind}: it has no spectra"
        )
        raise InputError(f"--live does not go with {wrong}; give a new DST and a scene with spectra")
    target = session.destination(destination, overwrite=overwrite)
    beside = truth_beside(destination)
    session.destination(beside, overwrite=overwrite)
    scene = KINDS[kind](**settings)
    others = {name: data for name, data in getattr(scene, "cubes", {}).items() if data is not _data(scene)}
    places = {name: destination.with_name(f"{destination.stem}_{name}.zarr") for name in others}
    targets = {name: session.destination(place, overwrite=overwrite) for name, place in places.items()}
    with session.connected():
        for name, data in others.items():
            with session.computing(f"simulating {places[name].name}"):
                hsi.save(data if ENERGY in data.dims else data.to_dataset(), targets[name], overwrite=overwrite)
        if live is None:
            save_scene(session, scene, target, overwrite=overwrite)
        else:
            hsi.save(scene.truth, session.path(beside), overwrite=overwrite)
            _acquire(session, _data(scene), target, seconds=live)
    answer = {**show_written(session, destination, _data(scene)), "truth": str(beside)}
    for name, place in places.items():
        session.console.say(f"{place}: the {name} acquisition of the same region")
    of = "the maps without noise" if isinstance(scene, Maps) else "the spectra and maps that the cube was made from"
    session.console.say(f"{beside}: the truth, {of}")
    return {**answer, **{name: str(place) for name, place in places.items()}}


def _acquire(session: Session, cube: xr.DataArray, target: Path, *, seconds: float) -> None:
    """Write a cube block by block, with a pause behind each."""
    blocks = math.prod(-(-n // BLOCK) for n in cube.shape[-3:-1]) * math.prod(cube.shape[:-3])
    with session.console.bar(f"acquiring {target.name}") as done:
        for number, _ in enumerate(acquire(cube, target, block=BLOCK), start=1):
            done(number, blocks)
            time.sleep(seconds)


def truth_beside(cube: Path) -> Path:
    """The path of the truth of a simulated cube."""
    return cube.with_name(f"{cube.stem}_truth.zarr")


def save_scene(session: Session, scene: Any, target: Path, *, overwrite: bool) -> None:
    """Store the cube or maps of a scene at ``target`` and its truth beside, both or neither."""
    with replacing(truth_beside(target), overwrite=overwrite) as partial:
        partial.rmdir()
        with session.computing("writing the truth"):
            hsi.save(scene.truth, partial)
        with session.computing(f"simulating {target.name}"):
            hsi.save(_data(scene), target, overwrite=overwrite)


def _data(scene: Any) -> xr.DataArray:
    """The simulated cube, the first of several, or the maps."""
    made: xr.DataArray = scene.maps if isinstance(scene, Maps) else scene.cube
    return made
