"""The published unmixing benchmark: every method of the package, and HyperSpy's NMF and ICA as users call them.

Chequerboard scenes of 3 and 4 components, mean spectral angle (SAD, rad) and mean NMSE of the maps, over realisations;
then harder scenes, as measured and after preparation. Prints Markdown, writes JSON and two bar charts when asked.

Run with: python -m tests.bench.unmixing [--seeds 20] [--doses 1e5 ...] [--only VCA ...] [--hyperspy PYTHON]
    [--json FILE] [--figures FOLDER] [--networks] [--readings SIDE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import dask.array as da
import matplotlib as mpl
import numpy as np

import scalehsi as hsi
from scalehsi.arrays import Float
from scalehsi.blocks import map_fold, open_blocks
from scalehsi.cube import make_cube
from scalehsi.kernels.quadratic.sum_to_one import map_moments, sum_to_one_scales
from scalehsi.models.catalogue import class_names
from scalehsi.prepare import apply_step
from tests.bench.machine import markdown
from tests.bench.unmixing_scenes import Truth, edx_scene, scene, scores

Pair = tuple[Float, Float]
HARD: Final = ("no pure", "thickness", "drift", "outliers")
PREPARED: Final = {"drift": "align:window=400:850", "outliers": "spikes"}
"""The step that repairs a scene."""
SLOW: Final = ("BLU", "BLU, uniform prior", "SSS", "SSS, spectra", "NMF", "DAEU", "UDAS", "MTAEU", "CNNAEU")
"""Methods that take seconds a scene: at most three realisations."""


def fitted(model: Any, *, gauge: bool = False, signed: bool = False) -> Callable[[Truth, int], Pair]:
    """A method: spectra (K, E) and maps (y, x, K) of a scene by a model; ``gauge``: scaled so that maps sum to one."""

    def run(truth: Truth, seed: int) -> Pair:
        result = hsi.fit(truth.cube, model, seed=seed, residual=False)
        s, a = result["endmembers"].values, result["abundances"].transpose("y", "x", "component").values
        if getattr(model, "constraint", "") == "nnls":
            return s, a / np.maximum(a.sum(axis=-1, keepdims=True), 1e-12)
        return scaled(s, a, signed=signed) if gauge else (s, a)

    return run


def refined(truth: Truth, seed: int) -> Pair:
    """Three steps of weighted NMF from the endmembers of VCA; more of them inflate the simplex."""
    k = truth.maps.shape[-1]
    start = hsi.fit(truth.cube, hsi.VCA(k), seed=seed, residual=False)
    model = hsi.NMF(k, loss="frobenius", weighting="poisson", start=start, max_iter=3, tol=0)
    return fitted(model, gauge=True)(truth, seed)


def scaled(s: Float, a: Float, *, signed: bool = False) -> Pair:
    """Spectra (K, E) and maps (y, x, K) with the scales for which the maps of a pixel sum to one.

    signed: maps may change their sign; spectra keep theirs, as a wrong sign counts as wrong.
    """
    scales = sum_to_one_scales(**map_moments(a.reshape(-1, a.shape[-1])), signed=signed)
    safe = np.where(np.abs(scales) > 1e-12, scales, 1.0)
    return s / np.abs(safe)[:, None], a * safe


def oracle(truth: Truth, seed: int) -> Pair:
    """Least-squares spectra of the true maps, and the best fractions for the true spectra: the limit of any method."""
    x, a = (
        truth.cube.values.reshape(-1, truth.cube.shape[-1]).astype(float),
        truth.maps.reshape(-1, truth.maps.shape[-1]),
    )
    maps = hsi.project(truth.spectra, truth.cube, constraint="fcls").transpose("y", "x", "component").values
    return np.linalg.lstsq(a, x, rcond=None)[0], maps


def methods(k: int, *, networks: bool) -> dict[str, Callable[[Truth, int], Pair]]:
    """All methods by name for k components; ``networks`` includes those that train."""
    public = {"weighting": None, "smooth": 0, "mode": "auto", "restarts": 1}
    found = {
        "oracle": oracle,
        "VCA": fitted(hsi.VCA(k)),
        "VCA, public options": fitted(hsi.VCA(k, **public)),
        "VCA, perspective": fitted(hsi.VCA(k, mode="perspective", constraint="nnls")),
        "NFINDR": fitted(hsi.NFINDR(k)),
        "SSS": fitted(hsi.SSS(k)),
        "BLU": fitted(hsi.BLU(k)),
        "BLU, uniform prior": fitted(hsi.BLU(k, concentration=1.0)),
        "NMF": fitted(hsi.NMF(k), gauge=True),
        "VCA, then 3 steps of NMF": refined,
        "ICA": fitted(hsi.ICA(k), gauge=True, signed=True),
    }
    if networks:
        known = [name for name in ("UDAS", "DAEU", "MTAEU", "CNNAEU") if name in class_names()]
        found |= {name: fitted(getattr(hsi, name)(k)) for name in known}
    return found


def measured(run: Callable[[Truth, int], Pair], truths: Sequence[Truth], *, name: str, case: str) -> dict[str, Any]:
    """Scores and processor time of a method on several realisations of a scene.

    run: the method. truths: the realisations. name, case: of the method and of the scene.
    """
    found, seconds = [], []
    for seed, truth in enumerate(truths):
        clock = time.process_time()
        s, a = run(truth, seed)
        seconds.append(time.process_time() - clock)
        found.append(scores(truth, s, a))
    return summary(name, case, found, seconds)


def summary(name: str, case: str, found: Sequence[tuple[float, float]], seconds: Sequence[float]) -> dict[str, Any]:
    """One row of the table. found: SAD and NMSE of each realisation."""
    sad, nmse = np.array(found).T
    return {
        "scene": case, "method": name, "n": len(found), "SAD": float(sad.mean()), "SAD std": float(sad.std()),
        "NMSE": float(nmse.mean()), "NMSE std": float(nmse.std()), "seconds": float(np.median(seconds)),
    }  # fmt: skip


def hyperspy(python: str, truths: Sequence[Truth], case: str) -> list[dict[str, Any]]:
    """Rows of HyperSpy's NMF and ICA, as returned and with the scale of the sum, by a process of its own.

    python: the interpreter that has HyperSpy. truths: realisations. case: name of the scene.
    """
    k = truths[0].maps.shape[-1]
    with tempfile.TemporaryDirectory() as folder:
        cubes, out = Path(folder) / "cubes.npz", Path(folder) / "out.npz"
        np.savez(cubes, **{f"{i}_{k}": t.cube.values for i, t in enumerate(truths)})
        script = Path(__file__).with_name("unmixing_hyperspy.py")
        try:
            subprocess.run([python, str(script), str(cubes), str(out)], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"HyperSpy is left out: {error}; {str(getattr(error, 'stderr', '')).strip()[-200:]}")
            return []
        got = np.load(out)
        rows = []
        for method in ("NMF", "ICA"):
            pairs = [(got[f"{i}_{k}:{method}:s"], got[f"{i}_{k}:{method}:a"]) for i in range(len(truths))]
            seconds = [float(got[f"{i}_{k}:{method}:seconds"]) for i in range(len(truths))]
            plain = [scores(t, *pair) for t, pair in zip(truths, pairs, strict=True)]
            both = [scores(t, *scaled(*p, signed=method == "ICA")) for t, p in zip(truths, pairs, strict=True)]
            rows.append(summary(f"HyperSpy {method}", case, plain, seconds))
            rows.append(summary(f"HyperSpy {method}, scaled", case, both, seconds))
    return rows


def prepared(truth: Truth, variant: str) -> Truth | None:
    """The scene after the step that repairs it, on the channels that this leaves; None where there is none."""
    if variant not in PREPARED:
        return None
    cube = apply_step(truth.cube, PREPARED[variant])
    energy = truth.cube["energy"].values
    spectra = np.stack([np.interp(cube["energy"].values, energy, row) for row in truth.spectra])
    return truth._replace(cube=cube, spectra=spectra)


def benchmark(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows of the published scenes."""
    rows = []
    for k in arguments.components:
        for dose in arguments.doses:
            truths = [scene(k, dose=dose, seed=seed) for seed in range(arguments.seeds)]
            case = f"{k} components, {dose:.0e} counts"
            for name, run in methods(k, networks=arguments.networks).items():
                if name == "VCA, perspective" or (arguments.only and name not in arguments.only):
                    continue
                some = truths[:3] if name in SLOW else truths
                rows.append(measured(run, some, name=name, case=case))
                print(shown(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
            if arguments.hyperspy:
                rows += hyperspy(arguments.hyperspy, truths, case)
            keep(arguments, published=rows)
    return rows


def keep(arguments: argparse.Namespace, **parts: Any) -> None:
    """Write the JSON file and the figures of what is measured so far: a long run may be stopped."""
    if arguments.json:
        arguments.json.write_text(json.dumps(parts, indent=1))
    if arguments.figures and parts.get("published"):
        charts(parts["published"], arguments.figures)


def harder(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the scenes that the paper asks for, as measured and after preparation, and of one without pure pixels."""
    rows = []
    seeds = range(min(3, arguments.seeds))
    names = ("VCA", "VCA, perspective", "NFINDR", "SSS")
    for variant in HARD:
        truths = [scene(3, seed=seed, variant=variant) for seed in seeds]
        after = [made for t in truths if (made := prepared(t, variant)) is not None]
        for name in names:
            run = methods(3, networks=False)[name]
            rows.append(measured(run, truths, name=name, case=variant))
            if after:
                rows.append(measured(run, after, name=name, case=f"{variant}, prepared"))
            print(shown(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    truths = [edx_scene(seed=seed) for seed in seeds]
    for name, model in (("VCA", hsi.VCA(3)), ("SSS, spectra", hsi.SSS(3, side="spectra")), ("SSS", hsi.SSS(3))):
        rows.append(measured(fitted(model), truths, name=name, case="EDX without pure pixels, 1e3 counts"))
    return rows


def readings(side: int, folder: Path) -> str:
    """The time of fractions of 8 endmembers that sum to one, over that of a reading, of a stored cube of 1024 channels.

    side: pixels along y and x. folder: for the cube.
    """
    k, energy = 8, 180.0 + np.arange(1024)
    bands = np.exp(-(((energy - np.linspace(250, 1100, k)[:, None]) / 60) ** 2))
    s = 100 * (energy / 180) ** -np.linspace(2.4, 3.2, k)[:, None] + 3 * bands

    def block(block_info: Any = None) -> Any:
        (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
        rng = np.random.default_rng([y0, x0])
        return rng.poisson(rng.dirichlet(np.full(k, 0.4), (y1 - y0, x1 - x0)) @ s).astype("u2")

    cut = tuple((64,) * (side // 64) for _ in range(2))
    made = da.map_blocks(block, chunks=(*cut, (1024,)), dtype="u2", meta=np.empty((0, 0, 0), "u2"))
    hsi.save(make_cube(made, energy=energy, energy_units="eV", signal="EELS"), folder / "cube.zarr")
    cube = hsi.open_cube(folder / "cube.zarr")
    jobs: dict[str, Callable[[], Any]] = {
        "reading": lambda: map_fold(_sums, open_blocks(cube, resident=False), name="reading"),
        "fractions": lambda: hsi.project(s, cube, constraint="fcls").compute(),
    }
    seconds = {}
    for name, job in jobs.items():
        times = []
        for _ in range(3):
            clock = time.process_time()
            job()
            times.append(time.process_time() - clock)
        seconds[name] = min(times)
    return (
        f"Fractions of {side} x {side} x 1024 and 8 endmembers: {seconds['fractions']:.2f} s of processor time; one "
        f"reading {seconds['reading']:.2f} s: {seconds['fractions'] / seconds['reading']:.2f} readings (asked: 2)."
    )


def _sums(x: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"spectrum": np.asarray(x).sum(axis=0, dtype=np.float64)}


def charts(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """The paper's two bar charts on a logarithmic scale: SAD and NMSE of each method, one colour a scene."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    cases = list(dict.fromkeys(row["scene"] for row in rows))
    names = list(dict.fromkeys(row["method"] for row in rows))
    width = 0.8 / len(cases)
    for key, unit in (("SAD", "mean spectral angle (rad)"), ("NMSE", "mean NMSE of the maps")):
        figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
        for i, case in enumerate(cases):
            own = {row["method"]: row for row in rows if row["scene"] == case}
            at = [(j + (i - (len(cases) - 1) / 2) * width, own[name]) for j, name in enumerate(names) if name in own]
            high = [row[f"{key} std"] for _, row in at]
            low = [min(row[f"{key} std"], 0.9 * row[key]) for _, row in at]
            axes.bar([x for x, _ in at], [row[key] for _, row in at], width, yerr=[low, high], label=case, capsize=2)
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
        axes.set(yscale="log", ylabel=unit)
        axes.grid(axis="y", which="major", alpha=0.4)
        axes.set_axisbelow(True)
        axes.legend(fontsize=8, ncols=2)
        figure.savefig(folder / f"unmixing_{key.lower()}.png", dpi=130)
        plt.close(figure)


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a Markdown table, with two digits."""
    short = [
        {"scene": row["scene"], "method": row["method"], "n": row["n"],
         "SAD": f"{row['SAD']:.4f} +- {row['SAD std']:.4f}",
         "NMSE": f"{row['NMSE']:.2g} +- {row['NMSE std']:.1g}", "s": f"{row['seconds']:.2f}"}
        for row in rows
    ]  # fmt: skip
    return markdown(short)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--doses", type=float, nargs="*", default=[1e4, 1e5, 1e6])
    parser.add_argument("--components", type=int, nargs="*", default=[3, 4])
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--networks", action="store_true", help="also methods that train")
    parser.add_argument("--hyperspy", default="", help="a Python that has HyperSpy")
    parser.add_argument("--no-harder", action="store_true", help="only the published scenes")
    parser.add_argument("--readings", type=int, default=512, metavar="SIDE", help="pixels of the timed cube; 0: none")
    parser.add_argument("--no-published", action="store_true", help="only the harder scenes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figures", type=Path)
    arguments = parser.parse_args(words)
    if not arguments.hyperspy:
        print("HyperSpy is left out: give --hyperspy PYTHON, an interpreter that has it.\n")
    rows = [] if arguments.no_published else benchmark(arguments)
    if rows:
        print("## Published scenes\n\n" + shown(rows))
    hard = [] if arguments.no_harder else harder(arguments)
    if hard:
        print("\n## Harder scenes of 3 components, 1e5 counts\n\n" + shown(hard))
    timed = ""
    if arguments.readings:
        with tempfile.TemporaryDirectory() as folder:
            timed = readings(arguments.readings, Path(folder))
        print(f"\n## Fractions of spectra that are known\n\n{timed}")
    keep(arguments, published=rows, harder=hard, readings=timed)


if __name__ == "__main__":
    main()
