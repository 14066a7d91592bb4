"""Make scenes of three minerals at two doses with their truth, and measure the errors of an estimate."""

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
    """Counts and their truth: the expectation of pixel p is ``maps[p] @ spectra``."""

    name: str
    dose: int
    cube: xr.DataArray
    maps: Float
    spectra: Float

    @property
    def x(self) -> np.ndarray[Any, Any]:
        return np.asarray(self.cube.values).reshape(-1, self.cube.shape[-1])


def developers(dose: int) -> Scene | None:
    """Load the scene in the shared data beside the checkout; None where it is missing."""
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
    # The spectra in the file have unit sum.
    spectra = truth["phases"] * truth["densities"][:, None] * info[DOSES[dose]]["N"]
    return Scene("dev", dose, cube, truth["maps"].reshape(-1, 3).astype(float), spectra)


def simulated(seed: int, dose: int, size: int = 180) -> Scene:
    cube, truth = hsi.simulate.phases((size, size), counts_per_pixel=float(dose), seed=seed)
    maps = np.moveaxis(truth["abundances"].values, 0, -1).reshape(-1, 3).astype(float)
    return Scene(f"seed {seed}", dose, cube.compute(), maps, np.asarray(truth["endmembers"].values))


def five(dose: int, size: int = 180, *, many: int = 5) -> Iterator[Scene]:
    """Iterate over the developers' scene (a simulated one where it is missing or has another size) and seeds 1 to 4."""
    first = developers(dose) if size == 180 else None
    yield first or simulated(5, dose, size)
    for seed in range(1, many):
        yield simulated(seed, dose, size)


def with_particles(scene: Scene, number: int = 150, seed: int = 0) -> tuple[Scene, np.ndarray[Any, Any]]:
    """Add spots of 2 x 2 pixels of the third phase, and draw the counts again; also return the pixels of spots (P,)."""
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
    """Return the angles to the true spectra in degrees, and the position of each true spectrum in the estimate."""
    found = np.degrees(np.asarray(hsi.metrics.spectral_angle(truth[:, None], np.asarray(estimate)[None])))
    rows, columns = linear_sum_assignment(np.nan_to_num(found, nan=180.0))
    return found[rows, columns], columns


def map_errors(scene: Scene, maps: Float) -> Float:
    """Return the mean squared error of each map, (K,)."""
    return np.asarray(((maps - scene.maps) ** 2).mean(axis=0))


def cube_error(scene: Scene, maps: Float, spectra: Float) -> float:
    """Return the relative error of ``maps @ spectra`` (Frobenius norm), from Gram matrices of the factors."""
    a, b = np.hstack([maps, -scene.maps]), np.vstack([spectra, scene.spectra])
    error = np.sum((a.T @ a) * (b @ b.T))
    size = np.sum((scene.maps.T @ scene.maps) * (scene.spectra @ scene.spectra.T))
    return float(np.sqrt(max(error, 0.0) / size))


def line_correlation(scene: Scene, maps: Float, spectra: Float) -> float:
    """Return the correlation of the map of the Nd line with the true one."""
    middle, half = ND_KEV
    window = np.abs(scene.cube["energy"].values - middle) <= half
    return float(
        np.corrcoef(maps @ spectra[:, window].sum(axis=1), scene.maps @ scene.spectra[:, window].sum(axis=1))[0, 1]
    )


def known_maps(scene: Scene) -> Float:
    """Return the spectra of maximum likelihood for the true maps, a lower bound of the error; channel by channel."""
    few = Counts.from_dense(np.ascontiguousarray(scene.x.T))
    return np.asarray(poisson.abundances(few, s=np.ascontiguousarray(scene.maps.T), residual=False)[0]["abundances"]).T


def known_spectra(scene: Scene, spectra: Float) -> Float:
    """Return the maps of maximum likelihood on the simplex, pixel by pixel."""
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
    """Return CPU seconds and angles of espm's SmoothNMF on bins, on one thread of a separate Python."""
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
