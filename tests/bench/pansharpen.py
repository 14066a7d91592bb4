"""Compare pansharpening with other methods: relative error of the cube, and angles of the spectra.

Run with: python -m tests.bench.pansharpen [--sets 5]
The development pair is in shared/data/psnmf_eels_dev beside the checkout; without it only simulated pairs are used. In
drifted pairs the spectral acquisition is displaced by 1.3 and -0.9 spatial pixels. scikit-learn is needed for its NMF.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.ndimage import map_coordinates, shift
from scipy.optimize import linear_sum_assignment

import scalehsi as hsi
from scalehsi.kernels import least_squares, poisson
from tests.bench.machine import markdown
from tests.paths import DATA

PAIR = DATA / "psnmf_eels_dev"
DRIFT = (1.3, -0.9)
RAW, BILINEAR = "spatial cube as it is", "spectral cube, bilinear"
PLAIN, WEIGHTED = "PCA(4) of the spatial cube", "PCA(4) of it, Poisson-weighted"
SKLEARN, TRUE = "scikit-learn NMF of the spectral cube, NNLS", "true spectra, Poisson likelihood"
ALONE, JOINT, AUTO = "PanSharpen(4, prior=0)", "PanSharpen(4, prior=0.1)", "PanSharpen(4)"
IMAGE = "PanSharpen(4) with the image"


class Pair(NamedTuple):
    """Two acquisitions, sometimes an image, and the cube (y, x, E) and spectra (K, E) without noise."""

    data: dict[str, xr.DataArray]
    cube: np.ndarray
    spectra: np.ndarray

    def error(self, found: np.ndarray) -> float:
        return float(np.linalg.norm(found - self.cube) / np.linalg.norm(self.cube))

    def product(self, maps: np.ndarray, spectra: np.ndarray) -> float:
        return self.error((np.asarray(maps, dtype=float) @ spectra).reshape(self.cube.shape))

    def angles(self, found: np.ndarray) -> np.ndarray:
        """Return the angles to the true spectra in degrees, in their order."""
        a, b = (s / np.linalg.norm(s, axis=1, keepdims=True) for s in (self.spectra, found))
        table = np.degrees(np.arccos(np.clip(a @ b.T, -1.0, 1.0)))
        return table[linear_sum_assignment(table)]


def simulated(seed: int, drift: tuple[float, float] = (0.0, 0.0), *, image: float = 100.0, size: int = 96) -> Pair:
    made = hsi.simulate.acquisitions((size, size), seed=seed, drift=drift, image_counts=image)
    truth = made.truth.compute()
    spectra = truth["endmembers"].values
    cube = np.moveaxis(truth["abundances"].values.astype(float), 0, -1) @ spectra
    return Pair({name: each.compute() for name, each in made.cubes.items()}, cube, spectra)


def development(drift: tuple[float, float] | None = None) -> Pair:
    """Load the development pair; with a drift its spectral cube is drawn again from the true maps."""
    fine, coarse, truth = (np.load(PAIR / f"{name}.npz") for name in ("hr", "hs", "truth"))
    maps, spectra, counts = truth["maps"].astype(float), truth["spectra"], coarse["counts"]
    if drift is not None:
        moved = [shift(m, (-drift[0], -drift[1]), order=1, mode="nearest") for m in np.moveaxis(maps, -1, 0)]
        rows, columns = counts.shape[:2]
        means = np.stack(moved, axis=-1).reshape(rows, maps.shape[0] // rows, columns, -1, maps.shape[-1])
        light = int(coarse["dwell_ratio"]) * means.mean(axis=(1, 3)) @ spectra
        counts = np.random.default_rng(5).poisson(light).astype("u4")
    how = {"energy": fine["energy"], "energy_units": "eV", "signal": "EELS"}
    step = float(coarse["b"])
    wide = hsi.make_cube(counts, pixel_size=step, **how)
    wide = wide.assign_coords({d: (d, wide[d].values + (step - 1) / 2, wide[d].attrs) for d in ("y", "x")})
    return Pair({"spatial": hsi.make_cube(fine["counts"], **how), "spectral": wide}, maps @ spectra, spectra)


def bilinear(pair: Pair) -> np.ndarray:
    """Interpolate the spectral cube to the pixels of the spatial one, and scale it to the same dose."""
    fine, coarse = pair.data["spatial"], pair.data["spectral"]
    at = [(fine[d].values - float(coarse[d][0])) / float(coarse[d][1] - coarse[d][0]) for d in ("y", "x")]
    places = np.stack(np.meshgrid(*at, indexing="ij"))
    planes = [
        map_coordinates(p, places, order=1, mode="nearest") for p in np.moveaxis(coarse.values.astype(float), -1, 0)
    ]
    return np.stack(planes, axis=-1) * float(fine.mean()) / float(coarse.mean())


def peers(pair: Pair) -> Iterator[tuple[str, float, np.ndarray | None]]:
    """Iterate over the errors of other methods, and the angles of those with spectra."""
    fine, coarse = pair.data["spatial"], pair.data["spectral"]
    yield RAW, pair.error(fine.values), None
    yield BILINEAR, pair.error(bilinear(pair)), None
    for name, weighting in ((PLAIN, None), (WEIGHTED, "poisson")):
        yield name, pair.error(hsi.reconstruct(hsi.fit(fine, hsi.PCA(4, weighting=weighting))).values), None
    from sklearn.decomposition import NMF

    pixels = fine.values.reshape(-1, fine.shape[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that 200 iterations were not enough
        s = NMF(len(pair.spectra)).fit(coarse.values.reshape(-1, coarse.shape[-1]).astype(float)).components_
    maps = least_squares.abundances(pixels, s=s, residual=False)[0]["abundances"]
    yield SKLEARN, pair.product(maps, s), pair.angles(s)
    maps = poisson.abundances(pixels, s=pair.spectra, residual=False)[0]["abundances"]
    yield TRUE, pair.product(maps, pair.spectra), None


def ours(pair: Pair) -> Iterator[tuple[str, float, np.ndarray | None]]:
    both = {name: pair.data[name] for name in ("spatial", "spectral")}
    ways = [(ALONE, both, {"prior": 0}), (JOINT, both, {"prior": 0.1}), (AUTO, both, {})]
    if "image" in pair.data:
        ways.append((IMAGE, pair.data, {}))
    for name, data, settings in ways:
        result = hsi.fit(data, hsi.PanSharpen(4, **settings), seed=0)
        yield name, pair.error(hsi.reconstruct(result).values), pair.angles(result["endmembers"].values)


def table(pairs: dict[str, list[Pair]]) -> list[dict[str, object]]:
    """Return a row for each method: for each kind of pair the mean error and the largest angles."""
    rows: dict[str, dict[str, object]] = {}
    for kind, several in pairs.items():
        found: dict[str, list[tuple[float, np.ndarray | None]]] = {}
        for pair in several:
            for name, error, angles in (*peers(pair), *ours(pair)):
                found.setdefault(name, []).append((error, angles))
        for name, values in found.items():
            row = rows.setdefault(name, {"method": name})
            row[f"{kind}: error"] = f"{np.mean([error for error, _ in values]):.4f}"
            every = [angles for _, angles in values if angles is not None]
            if every:
                row[f"{kind}: angles"] = "/".join(f"{a:.1f}" for a in np.max(every, axis=0))
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=5, help="simulated pairs")
    sets = parser.parse_args().sets
    pairs = {}
    if PAIR.is_dir():
        pairs = {"development": [development()], "the same, drifted": [development(DRIFT)]}
    pairs["simulated"] = [simulated(seed) for seed in range(1, sets + 1)]
    pairs["simulated, drifted"] = [simulated(seed, DRIFT) for seed in range(1, sets + 1)]
    print(markdown(table(pairs)))
    pair = pairs["simulated"][0]
    began = time.process_time()
    hsi.fit({name: pair.data[name] for name in ("spatial", "spectral")}, hsi.PanSharpen(4), seed=0)
    print(f"\nA fit takes {time.process_time() - began:.1f} s of one core.")


if __name__ == "__main__":
    main()
