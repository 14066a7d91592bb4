"""The main job on a scene whose truth is known: cube, unmix, report."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import xarray as xr

import scalehsi as hsi
from scalehsi.commands.console import duration, number, several, size
from scalehsi.commands.fitting import STATUS, run_fit
from scalehsi.commands.look import disk_bytes, score_rows, tell_scores
from scalehsi.commands.make import save_scene, truth_beside
from scalehsi.commands.session import Session
from scalehsi.cube import pixel_size_nm
from scalehsi.io import open_dataset
from scalehsi.schema import InputError

MARK: Final = "demo.json"
"""The file that says that the demo made a folder, and with which settings."""
CUBE: Final = "minerals.zarr"
RESULT: Final = "result.zarr"
REPORT: Final = "report"
NAMES: Final = {"Brg": "Brg (bridgmanite)", "Fp": "Fp (ferropericlase)", "CaPv": "CaPv (Ca-perovskite)"}
COMPONENTS: Final = len(NAMES)


def demo(session: Session, folder: Path, *, pixels: int, counts: float, seed: int, overwrite: bool) -> dict[str, Any]:
    """Simulate an EDX map of three minerals, unmix it, and report."""
    scene = hsi.simulate.phases((pixels, pixels), counts_per_pixel=counts, seed=seed)
    settings = {"size": pixels, "counts": counts, "seed": seed}
    place = session.path(folder)
    with session.connected(), _own_folder(place, settings, overwrite=overwrite):
        _make_cube(session, scene, place)
        result, seconds = _unmix(session, place, seed=seed)
        rows, page = _report(session, place, result)
    shown = {"cube": CUBE, "truth": truth_beside(Path(CUBE)).name, "result": RESULT, "report": page}
    return {
        **{name: str(folder / file) for name, file in shown.items()},
        "status": result.attrs["status"],
        "iterations": result.sizes["iteration"],
        "seconds": round(seconds, 3),
        "components": rows,
        "largest_angle_deg": max(row["spectral_angle_deg"] for row in rows),
    }


def _make_cube(session: Session, scene: Any, folder: Path) -> None:
    cube, out = scene.cube, session.console
    energy = cube.energy
    out.say("1. Cube: an EDX map of a rock from the Earth's mantle is simulated, so that the truth is known")
    out.say(
        f"   {cube.sizes['y']} x {cube.sizes['x']} pixels of {number(pixel_size_nm(cube) or 0)} nm, {energy.size:,} "
        f"channels from {float(energy[0]):g} to {float(energy[-1]):g} {energy.attrs['units']}, "
        f"{number(cube.attrs['counts_per_pixel'])} counts a pixel"
    )
    save_scene(session, scene, folder / CUBE, overwrite=True)
    out.say(f"   {folder / CUBE}: {size(cube.nbytes)} of counts, {size(disk_bytes(folder / CUBE))} on disk")


def _unmix(session: Session, folder: Path, *, seed: int) -> tuple[xr.Dataset, float]:
    out = session.console
    out.say(f"2. Unmix: which {COMPONENTS} spectra explain every pixel, and how much of each is in it?")
    model = hsi.NMF(COMPONENTS, loss="poisson")
    # The Poisson likelihood runs on the CPU; nobody needs to choose.
    device = "cpu" if session.device == "auto" else session.device
    fitted, seconds = run_fit(session, hsi.open_cube(folder / CUBE), model, seed=seed, device=device)
    with session.computing("writing the result"):
        hsi.save(fitted, folder / RESULT, overwrite=True)
    ended = f"{STATUS[fitted.attrs['status']]} after {several(fitted.sizes['iteration'], 'iteration')}"
    out.say(f"   NMF with the Poisson likelihood of counts: {ended}, {duration(seconds)}")
    out.say(f"   {folder / RESULT}")
    return hsi.open_result(folder / RESULT), seconds


def _report(session: Session, folder: Path, result: xr.Dataset) -> tuple[list[dict[str, Any]], str]:
    out = session.console
    truth = open_dataset(truth_beside(folder / CUBE))
    out.say("3. Report: spectra with their lines, maps, quality of the fit, and how near the truth is")
    with session.console.busy("drawing the report"):
        rows = score_rows(result, truth)
        page = hsi.report(result, folder / REPORT, truth=truth, overwrite=True)
    out.answer()
    tell_scores(session, rows, names=NAMES)
    out.say()
    out.say("Spectral angle: 0° for a spectrum of the true shape. Map correlation: 1 for a perfect map.")
    out.say("The report opens in any browser:")
    out.answer(str(page))
    return rows, str(page.relative_to(folder))


@contextlib.contextmanager
def _own_folder(folder: Path, settings: dict[str, Any], *, overwrite: bool) -> Iterator[None]:
    """A folder that holds nothing of anybody else; what a first run leaves when it fails is removed."""
    ours = (CUBE, truth_beside(Path(CUBE)).name, RESULT, REPORT)
    if not folder.parent.is_dir():
        raise InputError(f"the folder {str(folder.parent)!r} does not exist; make it first, or give another")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file; give the demo a folder: scalehsi demo DIR")
    before = _made_by_demo(folder / MARK)
    taken = [name for name in ours if (folder / name).exists()]
    if taken and not before:
        raise InputError(f"{str(folder)!r} holds {taken[0]!r}, which the demo did not make; type scalehsi demo DIR")
    if before and not overwrite:
        raise InputError(
            f"{str(folder)!r} holds an earlier demo (its report: {str(folder / REPORT / 'index.html')!r}); "
            "make it anew with --overwrite, or give another folder: scalehsi demo DIR"
        )
    fresh = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        (folder / MARK).write_text(json.dumps({"made_by": "scalehsi demo", **settings}) + "\n")
        yield
    except BaseException:
        if not before:
            for name in (*ours, MARK):
                _remove(folder / name)
        if fresh and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _made_by_demo(mark: Path) -> bool:
    try:
        found = json.loads(mark.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("made_by") == "scalehsi demo"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
