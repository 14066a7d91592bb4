"""Compare PSNMF with the methods in use, by the truth and by time, as Markdown tables with target values.

Run with: python -m tests.bench.psnmf [--only angles maps composition particles bins time espm scale ...] [--quick]

The part "espm" needs the environment variable SCALEHSI_ESPM_PYTHON, the path of a Python that can import espm (which is
under the GPL, and no dependency of ours). "scale" makes a cube of 8.6 GB in --folder, 0.2 GB on disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
from sklearn.decomposition import NMF as SklearnNMF
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

import scalehsi as hsi
from scalehsi.blocks import open_blocks
from scalehsi.fitting.loop import run_loop
from scalehsi.kernels.quadratic.nnls import nnls
from scalehsi.schema import X, Y
from tests.bench import psnmf_composition, psnmf_scale, psnmf_scenes, psnmf_time
from tests.bench.machine import markdown
from tests.bench.psnmf_scenes import PAPER_BIN, PHASES, Float, Scene, slashed

PARTS = ("angles", "maps", "composition", "particles", "bins", "time", "espm", "scale")
Row = dict[str, object]

# Target values at 147 and at 18 counts: of the mean angle over all scenes, and of the worst angle of each phase.
ANGLES = {
    "scikit-learn NMF, pixels": {147: ">= 25 each", 18: ">= 45 each"},
    "PSNMF paper": {147: "<= 1.3", 18: "<= 3.3"},
    "PSNMF": {147: "<= 0.65; worst 0.35/0.8/1.3", 18: "<= 1.8; worst 0.75/3.2/3.2"},
    "PSNMF, not smoothed": {147: "<= 0.9", 18: "<= 2.6"},
}
MAPS = {147: "<= .0018/.0015/.0004", 18: "<= .007/.006/.0015"}
LINE = {147: ">= 0.99", 18: ">= 0.97"}
CUBE = {147: "<= 0.027", 18: "<= 0.055"}
PARTICLES = {147: ">= 0.75", 18: ">= 0.5"}
COMPOSITION = {
    "true spectra": {147: "<= 0.05", 18: "<= 0.05"},
    "PSNMF": {147: "<= 0.15/0.35/0.5", 18: "<= 0.3/0.9/1.1"},
}
TRACE = {147: "0.100 +- 0.010", 18: "0.100 +- 0.020"}
BINS = {147: "within 0.4", 18: "within 0.6"}


class Fits:
    """The fits of a scene, each computed once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._made: dict[str, Any] = {}

    def of(self, name: str) -> Any:
        if name not in self._made:
            model = {
                "PSNMF": hsi.PSNMF(3),
                "PSNMF paper": hsi.PSNMF(3, settings="paper", bin_factor=PAPER_BIN[self.scene.dose]),
                "Poisson-weighted NMF, pixels": hsi.NMF(3, weighting="poisson", start="nndsvd"),
                "Poisson-weighted PCA(3)": hsi.PCA(3, weighting="poisson"),
            }[name]
            self._made[name] = hsi.fit(self.scene.cube, model, seed=0)
        return self._made[name]

    def product(self, name: str) -> tuple[Float, Float]:
        """Return maps (P, K) and spectra (K, E) of a fit, in the order of the truth except for PCA."""
        result = self.of(name)
        maps = np.moveaxis(result["abundances"].values, 0, -1).reshape(-1, result.sizes["component"]).astype(float)
        spectra = np.asarray(result["endmembers"].values, dtype=float)
        if name.endswith("PCA(3)"):
            return maps, spectra
        _, order = psnmf_scenes.angles(self.scene.spectra, spectra)
        return maps[:, order], spectra[order]


def spectra_of(fits: Fits) -> dict[str, Float]:
    scene, b = fits.scene, PAPER_BIN[fits.scene.dose]
    with warnings.catch_warnings():
        # scikit-learn warns that 200 iterations are not enough for single pixels.
        warnings.simplefilter("ignore", ConvergenceWarning)
        pixels = SklearnNMF(3, random_state=0).fit(scene.x.astype("f4"))
    default = fits.of("PSNMF")
    return {
        "scikit-learn NMF, pixels": pixels.components_,
        "Poisson-weighted NMF, pixels": fits.of("Poisson-weighted NMF, pixels")["endmembers"].values,
        f"scikit-learn NMF (nndsvd), bins of {b}": peer_spectra(scene),
        "PSNMF paper": fits.of("PSNMF paper")["endmembers"].values,
        "PSNMF": default["endmembers"].values,
        "PSNMF, not smoothed": default["unsmoothed_endmembers"].values,
        "with the true maps (Poisson)": psnmf_scenes.known_maps(scene),
    }


def peer_spectra(scene: Scene) -> Float:
    """Return spectra of scikit-learn's fit of the bins, scaled so that a pixel's fractions sum to about one."""
    b = PAPER_BIN[scene.dose]
    binned = hsi.prepare.bin(scene.cube, y=b, x=b).values.reshape(-1, scene.spectra.shape[1])
    model = SklearnNMF(3, init="nndsvd", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        maps = model.fit_transform(binned.astype("f4")).astype(float)
    scale = nnls(maps.T @ maps, maps.sum(axis=0)[None])[0]
    return np.asarray(model.components_ / np.maximum(scale, 1e-12)[:, None] / b**2, dtype=float)


def angles(scenes: dict[int, list[Fits]]) -> list[Row]:
    rows: list[Row] = []
    for dose, all_fits in scenes.items():
        found: dict[str, list[Float]] = defaultdict(list)
        for fits in all_fits:
            for name, spectra in spectra_of(fits).items():
                found[name].append(psnmf_scenes.angles(fits.scene.spectra, spectra)[0])
        for name, values in found.items():
            each = np.array(values)
            rows.append(
                {
                    "counts": dose,
                    "spectra from": name,
                    "/".join(PHASES): slashed(each.mean(axis=0)),
                    "mean": f"{each.mean():.2f}",
                    "scenes": " ".join(f"{v:.2f}" for v in each.mean(axis=1)),
                    "worst": slashed(each.max(axis=0)),
                    "asked for": ANGLES.get(name, {}).get(dose, ""),
                }
            )
    return rows


def maps(scenes: dict[int, list[Fits]]) -> list[Row]:
    rows: list[Row] = []
    for dose, all_fits in scenes.items():
        errors, lines, cubes = defaultdict(list), defaultdict(list), defaultdict(list)
        for fits in all_fits:
            scene, peer = fits.scene, peer_spectra(fits.scene)
            peer = peer[psnmf_scenes.angles(scene.spectra, peer)[1]]
            products = {name: fits.product(name) for name in ("Poisson-weighted PCA(3)", "PSNMF paper", "PSNMF")}
            products["scikit-learn on bins, Poisson maps"] = psnmf_scenes.known_spectra(scene, peer), peer
            products["true spectra, Poisson maps"] = psnmf_scenes.known_spectra(scene, scene.spectra), scene.spectra
            for name, (c, s) in products.items():
                lines[name].append(psnmf_scenes.line_correlation(scene, c, s))
                cubes[name].append(psnmf_scenes.cube_error(scene, c, s))
                if not name.endswith("PCA(3)"):
                    errors[name].append(psnmf_scenes.map_errors(scene, c))
        for name in lines:
            worst = slashed(np.max(errors[name], axis=0), 4) if errors[name] else ""
            ours = name == "PSNMF"
            rows.append(
                {
                    "counts": dose,
                    "maps from": name,
                    "squared error, worst scene": worst,
                    "asked": MAPS[dose] if ours else "",
                    "r of the Nd map": f"{np.mean(lines[name]):.3f} (least {min(lines[name]):.3f})",
                    "asked ": LINE[dose] if ours else "",
                    "error of the cube": f"{np.mean(cubes[name]):.3f} (most {max(cubes[name]):.3f})",
                    "asked  ": CUBE[dose] if ours else "",
                }
            )
    return rows


def composition(scenes: dict[int, list[Fits]]) -> list[Row]:
    """Measure the largest error of each phase's composition: mean of the scenes, with target values, and worst."""
    rows: list[Row] = []
    for dose, all_fits in scenes.items():
        errors, traces = defaultdict(list), defaultdict(list)
        for fits in all_fits:
            scene = fits.scene
            spectra = {
                "true spectra": scene.spectra,
                "spectra with the true maps (Poisson)": psnmf_scenes.known_maps(scene),
                "PSNMF paper": fits.product("PSNMF paper")[1],
                "PSNMF": fits.product("PSNMF")[1],
            }
            for name, s in spectra.items():
                found = psnmf_composition.composition(scene, s)
                errors[name].append(psnmf_composition.largest(found))
                traces[name].append(psnmf_composition.element_of(found, "Brg", "Nd"))
        for name, each in errors.items():
            rows.append(
                {
                    "counts": dose,
                    "composition of": name,
                    "largest error, at%": slashed(np.mean(each, axis=0)),
                    "asked": COMPOSITION.get(name, {}).get(dose, ""),
                    "worst scene": slashed(np.max(each, axis=0)),
                    "Nd in Brg": f"{min(traces[name]):.3f} to {max(traces[name]):.3f}",
                    "asked ": TRACE[dose] if name == "PSNMF" else "",
                }
            )
    return rows


def particles(scenes: dict[int, list[Fits]]) -> list[Row]:
    rows: list[Row] = []
    for dose, all_fits in scenes.items():
        scene, where = psnmf_scenes.with_particles(all_fits[-1].scene)
        fits = Fits(scene)
        found = fits.product("PSNMF")[0]
        alone = psnmf_scenes.known_spectra(scene, scene.spectra)
        rows.append(
            {
                "counts": dose,
                "scene": scene.name,
                "particles' mean CaPv": f"{found[where, 2].mean():.3f}",
                "asked": PARTICLES[dose],
                "above one half": f"{(found[where, 2] > 0.5).mean():.2f}",
                "true spectra, pixel by pixel": f"{alone[where, 2].mean():.3f}",
                "squared error": slashed(psnmf_scenes.map_errors(scene, found), 4),
            }
        )
    return rows


def bins(scenes: dict[int, list[Fits]]) -> list[Row]:
    """Compare the automatic bin size with all others, by the mean angle of the first stage."""
    rows: list[Row] = []
    for dose, all_fits in scenes.items():
        for fits in all_fits:
            scan = hsi.scan_bins(fits.scene.cube, n_components=3)
            chosen = int(fits.of("PSNMF")["bin_factor"].values[0])
            found = {int(b): first_stage(fits.scene, int(b)) for b in {*scan["bin"].values, chosen}}
            best = min(found, key=lambda b, found=found: found[b])
            rows.append(
                {
                    "counts": dose,
                    "scene": fits.scene.name,
                    "components": hsi.scan_bins(fits.scene.cube).attrs["rank"],
                    "scan": scan.attrs["chosen"],
                    "PSNMF took": chosen,
                    "mean angle there": f"{found[chosen]:.2f}",
                    "best bin": best,
                    "there": f"{found[best]:.2f}",
                    "behind": f"{found[chosen] - found[best]:.2f}",
                    "asked": BINS[dose],
                    "all": " ".join(f"{b}: {found[b]:.2f}" for b in sorted(found)),
                }
            )
    return rows


def first_stage(scene: Scene, size: int) -> float:
    view = open_blocks(hsi.prepare.bin(scene.cube, **{Y: size, X: size}))
    state = run_loop(view, hsi.PSNMF(3).coarse, 0).state
    return float(psnmf_scenes.angles(scene.spectra, state["kept"])[0].mean())


def first(scenes: dict[int, list[Fits]]) -> list[Scene]:
    return [all_fits[0].scene for all_fits in scenes.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true", help="two small scenes, and a small cube for scale")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for the large cube")
    args = parser.parse_args()
    size, many, repeats = (90, 2, 1) if args.quick else (180, 5, 5)
    side = 256 if args.quick else 2048
    made: dict[int, list[Fits]] = {}
    parts: dict[str, Callable[[dict[int, list[Fits]]], list[Row]]] = {
        "angles": angles,
        "maps": maps,
        "composition": composition,
        "particles": particles,
        "bins": bins,
        "time": lambda scenes: psnmf_time.clock(first(scenes), repeats),
        "espm": lambda scenes: psnmf_time.espm(first(scenes), repeats),
    }
    for name in args.only:
        start = time.perf_counter()
        if name == "scale":
            rows = psnmf_scale.table(args.folder, side=side)
        else:
            made = made or {d: [Fits(s) for s in psnmf_scenes.five(d, size, many=many)] for d in psnmf_scenes.DOSES}
            with dask.config.set(scheduler="synchronous"), threadpool_limits(1):
                rows = parts[name](made)
        print(f"## {name}\n\n{markdown(rows)}\n\n{time.perf_counter() - start:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
