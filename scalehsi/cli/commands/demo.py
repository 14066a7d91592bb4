"""Run the whole way once: cube, unmix, report.

Simulates an EDX map of three mantle minerals, unmixes it by PSNMF and, to compare, by NMF with three losses and by
PCA, and says how near to the truth each came. The last line is the path of the report.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import xarray as xr
from dask.utils import format_bytes
from typer import Argument, Option

import scalehsi as hsi
from scalehsi.cli.arguments import Seed
from scalehsi.cli.commands.compare import score_rows, show_scores
from scalehsi.cli.commands.simulate import save_scene, truth_beside
from scalehsi.cli.console import duration, number, several
from scalehsi.cli.disk import disk_bytes
from scalehsi.cli.run_fit import run_fit, status_of
from scalehsi.cli.runner import command
from scalehsi.cli.session import Session
from scalehsi.cube import pixel_size_nm
from scalehsi.io import open_dataset
from scalehsi.result import result_warnings
from scalehsi.schema import InputError

MARK: Final = "demo.json"
"""The file that says that the demo made a folder, and with which settings."""
CUBE: Final = "minerals.zarr"
RESULT: Final = "result.zarr"
REPORT: Final = "report"
NAMES: Final = {"Brg": "Brg (bridgmanite)", "Fp": "Fp (ferropericlase)", "CaPv": "CaPv (Ca-perovskite)"}
COMPONENTS: Final = len(NAMES)
OTHERS: Final = {
    "NMF (least squares)": "nmf_least_squares.zarr",
    "NMF (weighted)": "nmf_weighted.zarr",
    "NMF (Poisson)": "nmf_poisson.zarr",
    "PCA (weighted)": "pca.zarr",
}
"""What PSNMF is compared with, by the names of the report, and their stores."""
LINE: Final = "Nd La"
"""A trace of 0.1 % in the matrix and 1 % in the rare phase: what the counts of a single pixel cannot show."""


@command
def run(
    session: Session,
    folder: Annotated[Path, Argument(metavar="DIR", help="Folder to make.")] = Path("scalehsi-demo"),
    *,
    size: Annotated[int, Option(metavar="N", help="Pixels along y and x.")] = 180,
    counts: Annotated[float, Option(metavar="N", help="Counts per pixel.")] = 147.0,
    seed: Seed = 0,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an earlier demo.")] = False,
) -> dict[str, Any]:
    scene = hsi.simulate.phases((size, size), counts_per_pixel=counts, seed=seed)
    settings = {"size": size, "counts": counts, "seed": seed}
    place = session.path(folder)
    with session.connected(), _own_folder(place, settings, overwrite=overwrite):
        _make_cube(session, scene, place)
        seconds = _unmix(session, place, seed=seed)
        result = hsi.open_result(place / RESULT)
        judged, page = _report(session, place, result)
    shown = {"cube": CUBE, "truth": truth_beside(Path(CUBE)).name, "result": RESULT, "report": page}
    shown |= {Path(file).stem: file for file in OTHERS.values()}
    return {
        **{name: str(folder / file) for name, file in shown.items()},
        "status": result.attrs["status"],
        "warnings": [each._asdict() for each in result_warnings(result)],
        "iterations": result.sizes["iteration"],
        "seconds": round(seconds, 3),
        "bin_factor": result["bin_factor"].values.tolist(),
        **judged,
        "largest_angle_deg": max(row["spectral_angle_deg"] for row in judged["components"]),
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
    disk = format_bytes(disk_bytes(folder / CUBE))
    out.say(f"   {folder / CUBE}: {format_bytes(cube.nbytes)} of counts, {disk} on disk")


def _unmix(session: Session, folder: Path, *, seed: int) -> float:
    """Fit every method and write the results; return the seconds of PSNMF."""
    out = session.console
    out.say(f"2. Unmix: which {COMPONENTS} spectra explain every pixel, and how much of each is in it?")
    plain, weighted, poisson, pca = OTHERS.values()
    models = {
        plain: ("NMF by plain least squares, to compare", hsi.NMF(COMPONENTS, loss="frobenius")),
        weighted: (
            "NMF by least squares weighted for counts, to compare",
            hsi.NMF(COMPONENTS, loss="frobenius", weighting="poisson"),
        ),
        poisson: ("NMF by the likelihood of counts, to compare", hsi.NMF(COMPONENTS, loss="poisson")),
        pca: ("PCA weighted for counts, to compare", hsi.PCA(COMPONENTS, solver="randomized")),
        RESULT: ("PSNMF: spectra from bins of pixels, maps from single pixels", hsi.PSNMF(COMPONENTS)),
    }
    seconds = 0.0
    cube = hsi.open_cube(folder / CUBE)
    for file, (words, model) in models.items():
        # PSNMF runs on the CPU; nobody needs to choose, and the others are no faster elsewhere at this size.
        device = "cpu" if session.device == "auto" else session.device
        fitted, seconds = run_fit(session, cube, model, folder / file, overwrite=True, seed=seed, device=device)
        count = len(result_warnings(fitted))
        noted = f", {several(count, 'warning')} (scalehsi info {folder / file})" if count and file != RESULT else ""
        out.say(f"   {words}: {status_of(fitted)}, {duration(seconds)}{noted}")
        if file == RESULT:
            rows, columns = fitted["bin_factor"].values
            out.say(f"   bins of {rows} x {columns} pixels, as the data chose")
    out.say(f"   {folder / RESULT}")
    out.show_warnings(fitted, session.translate)
    return seconds


def _report(session: Session, folder: Path, result: xr.Dataset) -> tuple[dict[str, Any], str]:
    """Score the results in a folder and write the report of one; return the scores and the page."""
    out = session.console
    cube, truth = hsi.open_cube(folder / CUBE), open_dataset(truth_beside(folder / CUBE))
    others = {name: hsi.open_result(folder / file) for name, file in OTHERS.items()}
    out.say("3. Report: spectra with their lines, maps, how near the truth is, and what denoising brings")
    with session.console.busy("drawing the report"):
        rows = score_rows(result, truth)
        scores = {name: score_rows(other, truth) for name, other in others.items() if other.attrs["model"] == "NMF"}
        denoised = hsi.metrics.denoise_report(cube, {**others, "PSNMF": result}, lines=[LINE], truth=truth)
        page = hsi.report(result, folder / REPORT, truth=truth, others=others, cube=cube, line=LINE, overwrite=True)
    out.answer()
    show_scores(session, rows, names=NAMES)
    out.answer()
    judged = _judged(denoised, {**scores, "PSNMF": rows})
    out.table(
        ["Method", *(f"{name}, angle" for name in NAMES), "Nd map correlation", "Error of the cube"],
        [_line(row) for row in judged],
    )
    out.say()
    out.say("Spectral angle: 0° for a spectrum of the true shape. Map correlation: 1 for a perfect map.")
    out.say("The report opens in any browser:")
    out.answer(str(page))
    return {"components": rows, "methods": judged}, str(page.relative_to(folder))


def _judged(denoised: xr.Dataset, scores: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each method: angles where it has spectra of phases, and the error of its cube."""
    rows = []
    for name in denoised["method"].values.tolist():
        here = denoised.sel({"method": name})
        rows.append(
            {
                "name": name,
                "spectral_angles_deg": {row["name"]: row["spectral_angle_deg"] for row in scores.get(name, [])},
                "nd_correlation": float(here["correlation"][0]),
                "cube_error": float(here["cube_error"]),
            }
        )
    return rows


def _line(row: dict[str, Any]) -> list[str]:
    angles = [f"{row['spectral_angles_deg'][name]:.2f}°" if row["spectral_angles_deg"] else "" for name in NAMES]
    name = "As measured" if row["name"] == "raw" else row["name"]
    return [name, *angles, f"{row['nd_correlation']:.3f}", f"{100 * row['cube_error']:.1f} %"]


@contextlib.contextmanager
def _own_folder(folder: Path, settings: dict[str, Any], *, overwrite: bool) -> Iterator[None]:
    """Make the folder of the demo, or refuse one with files of others; remove what a first run that fails has written.

    Parameters
    ----------
    folder : Path
    settings : dict
        What `MARK` will say of the demo.
    overwrite : bool
        Whether an earlier demo may be replaced.
    """
    ours = (CUBE, truth_beside(Path(CUBE)).name, RESULT, *OTHERS.values(), REPORT)
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
            "replace it with --overwrite, or give another folder: scalehsi demo DIR"
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
