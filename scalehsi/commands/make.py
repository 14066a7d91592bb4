"""Commands that make a store of a cube, of maps or of a simulation."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

import scalehsi as hsi
from scalehsi.commands.console import several, size
from scalehsi.commands.look import disk_bytes
from scalehsi.commands.session import Session, check_known, dataset_of
from scalehsi.cube import check_cube, history_of
from scalehsi.io.atomic import replacing
from scalehsi.prepare import apply_step
from scalehsi.result import map_dims
from scalehsi.schema import ABUNDANCES, ENDMEMBERS, ENERGY, MASK, InputError, suggest
from scalehsi.simulate import KINDS, Maps


def convert(
    session: Session,
    source: Path,
    destination: Path,
    *,
    chunk_mb: float,
    overwrite: bool,
    dataset: str | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Write any spectrum image as a chunked cube."""
    target = session.destination(destination, overwrite=overwrite, source=source)
    with session.connected(), session.console.bar(f"converting {source.name}") as tell:
        hsi.convert(
            session.path(source),
            target,
            chunk_mb=chunk_mb,
            overwrite=overwrite,
            dataset=dataset_of(dataset),
            reader_options=options,
            progress=tell,
        )
    return _written(session, destination, hsi.open_cube(target))


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
    answer = {**_written(session, destination, _data(scene)), "truth": str(beside)}
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
    return {**_written(session, destination, cube), "steps": list(steps)}


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


def reconstruct(session: Session, result: Path, out: Path, *, overwrite: bool) -> dict[str, Any]:
    """Write the denoised cube: maps times spectra."""
    target = session.destination(out, overwrite=overwrite, source=result)
    cube = hsi.reconstruct(hsi.open_result(session.path(result)))
    with session.connected(), session.computing(f"reconstructing {out.name}"):
        hsi.save(cube, target, overwrite=overwrite)
    return _written(session, out, cube)


def _written(session: Session, path: Path, cube: xr.DataArray) -> dict[str, Any]:
    shape = " x ".join(f"{n:,}" for n in cube.shape)
    disk = disk_bytes(session.path(path))
    session.console.say(f"{path}: {shape} {cube.dtype}, {size(cube.nbytes)} in memory, {size(disk)} on disk")
    return {"written": str(path), "shape": list(cube.shape), "dtype": str(cube.dtype), "disk_bytes": disk}
