"""Scenes of three minerals at two doses with their truth, and how far an estimate is from it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import xarray as xr
from scipy.optimize import linear_sum_assignment

import scalehsi as hsi
from scalehsi.arrays import Float
from scalehsi.kernels import poisson
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from tests.paths import DATA

DEVELOPMENT = DATA / "psnmf_dev"
PHASES = ("Brg", "Fp", "CaPv")
DOSES = {147: "medium", 18: "low"}
ND_KEV = (5.228, 0.06)
PAPER_BIN = {147: 12, 18: 15}


@dataclass(frozen=True)
class Scene:
    """Counts and what they were drawn from: the expectation of pixel p is ``maps[p] @ spectra``."""

    name: str
    dose: int
    cube: xr.DataArray
    maps: Float
    spectra: Float

    @property
    def x(self) -> np.ndarray[Any, Any]:
        return np.asarray(self.cube.values).reshape(-1, self.cube.shape[-1])


def developers(dose: int) -> Scene | None:
    """The scene beside the checkout, None where it is not."""
    if not DEVELOPMENT.is_dir():
        return None
    info = json.loads((DEVELOPMENT / "info.json").read_text())
    truth, stored = np.load(DEVELOPMENT / "truth.npz"), np.load(DEVELOPMENT / f"{DOSES[dose]}.npz")
    rows, columns = info["shape"]
    counts = sp.csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape=tuple(stored["shape"]))
    cube = hsi.make_cube(
        counts.toarray().astype("u1").reshape(rows, columns, -1),
        energy=truth["energy"],
        energy_units="keV",
        signal="EDS",
    )
    # The spectra of the file have unit sum.
    spectra = truth["phases"] * truth["densities"][:, None] * info[DOSES[dose]]["N"]
    return Scene("dev", dose, cube, truth["maps"].reshape(-1, 3).astype(float), spectra)


def simulated(seed: int, dose: int, size: int = 180) -> Scene:
    cube, truth = hsi.simulate.phases((size, size), counts_per_pixel=float(dose), seed=seed)
    maps = np.moveaxis(truth["abundances"].values, 0, -1).reshape(-1, 3).astype(float)
    return Scene(f"seed {seed}", dose, cube.compute(), maps, np.asarray(truth["endmembers"].values))


def five(dose: int, size: int = 180, *, many: int = 5) -> Iterator[Scene]:
    """The developers' scene (a simulated one where it is missing, or for another size) and those of seeds 1 to 4."""
    first = developers(dose) if size == 180 else None
    yield first or simulated(5, dose, size)
    for seed in range(1, many):
        yield simulated(seed, dose, size)


def with_particles(scene: Scene, number: int = 150, seed: int = 0) -> tuple[Scene, np.ndarray[Any, Any]]:
    """The scene with spots of 2 x 2 pixels that are all of the third phase, drawn anew, and where they are (P,)."""
    rng = np.random.default_rng(seed)
    rows, columns, channels = scene.cube.shape
    maps = scene.maps.reshape(rows, columns, 3).copy()
    inside = np.zeros((rows, columns), dtype=bool)
    # On a grid, so that no spot touches another.
    cells = rng.permutation((rows // 6) * (columns // 6))[:number]
    for y, x in zip(*np.divmod(cells, columns // 6), strict=True):
        spot = slice(6 * y + 2, 6 * y + 4), slice(6 * x + 2, 6 * x + 4)
        maps[spot], inside[spot] = (0.0, 0.0, 1.0), True
    flat = maps.reshape(-1, 3)
    drawn = rng.poisson(flat @ scene.spectra).astype("u1").reshape(rows, columns, channels)
    return replace(scene, name=f"{scene.name} with particles", cube=scene.cube.copy(data=drawn), maps=flat), (
        inside.reshape(-1)
    )


def angles(truth: Float, estimate: Float) -> tuple[Float, np.ndarray[Any, Any]]:
    """Degrees between the true spectra and theirs, and which of the estimate belongs to which of the truth."""
    found = np.degrees(np.asarray(hsi.metrics.spectral_angle(truth[:, None], np.asarray(estimate)[None])))
    rows, columns = linear_sum_assignment(np.nan_to_num(found, nan=180.0))
    return found[rows, columns], columns


def map_errors(scene: Scene, maps: Float) -> Float:
    """Mean squared error of each map, (K,)."""
    return np.asarray(((maps - scene.maps) ** 2).mean(axis=0))


def cube_error(scene: Scene, maps: Float, spectra: Float) -> float:
    """Root of the squared error of ``maps @ spectra`` relative to the expectation; nothing of that size is made."""
    a, b = np.hstack([maps, -scene.maps]), np.vstack([spectra, scene.spectra])
    error = np.sum((a.T @ a) * (b @ b.T))
    size = np.sum((scene.maps.T @ scene.maps) * (scene.spectra @ scene.spectra.T))
    return float(np.sqrt(max(error, 0.0) / size))


def line_correlation(scene: Scene, maps: Float, spectra: Float) -> float:
    """Correlation of the map of the Nd line with the true one."""
    middle, half = ND_KEV
    window = np.abs(scene.cube["energy"].values - middle) <= half
    return float(
        np.corrcoef(maps @ spectra[:, window].sum(axis=1), scene.maps @ scene.spectra[:, window].sum(axis=1))[0, 1]
    )


def known_maps(scene: Scene) -> Float:
    """The floor: spectra by maximum likelihood with the true maps; each channel is a problem of its own."""
    few = Counts.from_dense(np.ascontiguousarray(scene.x.T))
    return np.asarray(poisson.abundances(few, s=np.ascontiguousarray(scene.maps.T), residual=False)[0]["abundances"]).T


def known_spectra(scene: Scene, spectra: Float) -> Float:
    """Maps by maximum likelihood on the simplex, pixel by pixel."""
    found = poisson.abundances(Counts.from_dense(scene.x), s=spectra, residual=False, simplex=True)[0]["abundances"]
    return np.asarray(found, dtype=float)


ESPM = """
import sys, time
import numpy as np
from espm.estimators import SmoothNMF
x = np.load(sys.argv[1])
model = SmoothNMF(
    n_components=3, G=None, simplex_H=True, simplex_W=False, init="nndsvdar", random_state=0,
    max_iter=int(sys.argv[2]), no_stop_criterion=True, verbose=0,
)
begin = time.process_time()
spectra = model.fit_transform(x)
print("seconds", time.process_time() - begin)
np.save(sys.argv[1] + ".spectra.npy", np.asarray(spectra).T)
"""


def espm_fit(scene: Scene, python: str, *, iterations: int, size: int = 6) -> dict[str, Any]:
    """CPU seconds and angles of espm's SmoothNMF on bins, on one thread of a Python of its own."""
    binned = hsi.prepare.bin(scene.cube, y=size, x=size).values.reshape(-1, scene.spectra.shape[1])
    keep = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bins.npy"
        np.save(file, np.ascontiguousarray(binned.T, dtype=np.float64))
        command = [python, "-c", ESPM, str(file), str(iterations)]
        said = subprocess.run(command, check=True, capture_output=True, text=True, env={**keep, **one}).stdout
        spectra = np.load(f"{file}.spectra.npy")
    seconds = next(float(line.split()[1]) for line in said.splitlines() if line.startswith("seconds"))
    return {"cpu": seconds, "angles": angles(scene.spectra, spectra)[0]}


def slashed(values: Any, digits: int = 2) -> str:
    return "/".join(f"{v:.{digits}f}" for v in values)
