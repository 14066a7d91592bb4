"""The command ``scalehsi simulate``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import xarray as xr

import scalehsi as hsi
from scalehsi.cli.disk import tell_written
from scalehsi.cli.session import Session, check_known
from scalehsi.io.atomic import replacing
from scalehsi.schema import ENERGY, InputError, suggest
from scalehsi.simulate import KINDS, Maps


def simulate(
    session: Session, kind: str, destination: Path, *, settings: dict[str, Any], overwrite: bool
) -> dict[str, Any]:
    """Make a cube or maps with a known truth, which is stored beside."""
    if kind not in KINDS:
        raise InputError(f"there is no kind of scene {kind!r}; {suggest(kind, KINDS)}")
    check_known(f"the scene {kind!r}", settings, list(inspect.signature(KINDS[kind]).parameters))
    target = session.destination(destination, overwrite=overwrite)
    beside = truth_beside(destination)
    session.destination(beside, overwrite=overwrite)
    scene = KINDS[kind](**settings)
    others = {name: data for name, data in getattr(scene, "cubes", {}).items() if data is not _data(scene)}
    places = {name: destination.with_name(f"{destination.stem}_{name}.zarr") for name in others}
    found = {name: session.destination(place, overwrite=overwrite) for name, place in places.items()}
    with session.connected():
        for name, data in others.items():
            with session.computing(f"simulating {places[name].name}"):
                hsi.save(data if ENERGY in data.dims else data.to_dataset(), found[name], overwrite=overwrite)
        save_scene(session, scene, target, overwrite=overwrite)
    answer = {**tell_written(session, destination, _data(scene)), "truth": str(beside)}
    for name, place in places.items():
        session.console.say(f"{place}: the {name} acquisition of the same region")
    of = "the maps without noise" if isinstance(scene, Maps) else "the spectra and maps that the cube was made from"
    session.console.say(f"{beside}: the truth, {of}")
    return {**answer, **{name: str(place) for name, place in places.items()}}


def truth_beside(cube: Path) -> Path:
    """Where the truth of a simulated cube lies."""
    return cube.with_name(f"{cube.stem}_truth.zarr")


def save_scene(session: Session, scene: Any, target: Path, *, overwrite: bool) -> None:
    """Store a cube or maps and the truth, both or neither."""
    data, truth = _data(scene), scene.truth
    with replacing(truth_beside(target), overwrite=overwrite) as partial:
        partial.rmdir()
        with session.computing("writing the truth"):
            hsi.save(truth, partial)
        with session.computing(f"simulating {target.name}"):
            hsi.save(data, target, overwrite=overwrite)


def _data(scene: Any) -> xr.DataArray:
    """What was simulated: a cube, the first of several, or maps."""
    made: xr.DataArray = scene.maps if isinstance(scene, Maps) else scene.cube
    return made
