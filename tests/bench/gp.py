"""Compare Gaussian processes with a dense reference: agreement, time, memory, large maps, seams of tiles, and stores.

Run with: python -m tests.bench.gp [--only agreement speed memory size seams store] [--steps 3] [--big 4096]

Timed fits run in a separate process on one thread. The reference is gpytorch with a kernel of the distance, as in the
paper (extra ``gp``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

import scalehsi as hsi
from scalehsi.kernels.gaussian_process import likelihood, posterior
from scalehsi.metrics import similarities
from scalehsi.models.gp import dense
from tests.bench.machine import markdown

Row = dict[str, object]

NOISES = (0.03, 0.1, 0.3, 1.0)
PAPER_STEPS = 200
ALONE = """
import json, os, sys, time
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
import dask, numpy, scalehsi as hsi
from tests.bench.gp import peak
shape, components, noise, model, seed = json.loads(sys.argv[1])
scene = hsi.simulate.maps(shape, n_components=components, noise=noise, seed=seed)
with dask.config.set(scheduler="synchronous"):
    maps = scene.maps.compute()
    hsi.fit(maps[:1, :8, :8], hsi.ParallelGP())  # compiles and imports
    before, cpu, wall = peak(), time.process_time(), time.perf_counter()
    result = hsi.fit(maps, hsi.ParallelGP(**model)).compute()
    cpu, wall, after = time.process_time() - cpu, time.perf_counter() - wall, peak()
step = model.get("upsample", 1)
there = result["abundances"].values
found = [float("nan")]
if step == 1:
    truth = scene.truth.values
    found = [float(numpy.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(truth, there)]
print(json.dumps({"cpu": cpu, "wall": wall, "before": before, "peak": after, "similarity": found}))
"""


def peak() -> float:
    """Return the peak memory of this process in GiB."""
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**20


def alone(
    shape: tuple[int, int], components: int, *, noise: float = 0.3, seed: int = 0, **model: Any
) -> dict[str, Any]:
    """Return time, memory and similarities of a fit in a separate process."""
    given = json.dumps([shape, components, noise, model, seed])
    done = subprocess.run([sys.executable, "-c", ALONE, given], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def scenes(shape: tuple[int, int], noise: float, seed: int) -> Iterator[tuple[str, Any]]:
    yield "smooth", hsi.simulate.maps(shape, noise=noise, seed=seed)
    yield "sines", hsi.simulate.sines(shape, noise=noise, seed=seed)


def agreement(steps: int, sides: Sequence[int], seeds: int) -> Iterator[Row]:
    """Compare the structured engine with dense gpytorch: similarity to the truth, mean over seeds, and evidence."""
    for side in sides:
        for noise in NOISES:
            found: dict[str, list[list[Any]]] = {}
            for seed in range(seeds):
                for name, scene in scenes((side, side), noise, seed):
                    truth, maps = scene.truth.compute(), scene.maps.compute()
                    ours = hsi.fit(maps, hsi.ParallelGP())
                    reference = hsi.fit(maps, hsi.ParallelGP("matern52-radial", engine="dense", max_iter=steps))
                    found.setdefault(name, []).append(
                        [
                            similarities(truth, ours["abundances"]).values,
                            similarities(truth, reference["abundances"]).values,
                            float(ours["evidence"] - reference["evidence"]),
                        ]
                    )
            for name, values in found.items():
                a, b = (np.mean([v[i] for v in values], axis=0) for i in (0, 1))
                yield {
                    "scene": f"{name} {side} x {side}",
                    "noise": noise,
                    "structured": " ".join(f"{v:.4f}" for v in a),
                    "dense": " ".join(f"{v:.4f}" for v in b),
                    "largest difference of a map": f"{np.abs(a - b).max():.4f}",
                    "goal": 0.01,
                    "of a single seed": f"{max(np.abs(v[0] - v[1]).max() for v in values):.4f}",
                    "evidence, ours over dense (nats)": " ".join(f"{v[2]:.1f}" for v in values),
                }


def equality() -> Iterator[Row]:
    """Compare the structured engine with the dense one, for the same separable kernel and hyperparameters."""
    for side in (16, 24):
        y = np.ascontiguousarray(np.moveaxis(hsi.simulate.maps((side, side)).maps.values, 0, -1), dtype=np.float64)
        hyper = likelihood.fit([y])
        for upsample in (1, 2):
            ours = posterior.predict(y, hyper, upsample=upsample)
            theirs = dense.predict(y, None, hyper, upsample=upsample)
            off = [float(np.abs(a / b - 1).max()) for a, b in zip(ours, theirs, strict=True)]
            scale = float(np.abs(ours[0] - theirs[0]).max() / np.abs(theirs[0]).max())
            yield {
                "case": f"{side} x {side} x 3, {upsample} points a pixel",
                "mean, relative to its largest": f"{scale:.1e}",
                "deviation, relative": f"{off[1]:.1e}",
                "goal": 1e-6,
            }


def speed(steps: int) -> Iterator[Row]:
    """Compare the time of a whole fit with that of gpytorch's steps, in CPU seconds of one thread."""
    for side, count in ((24, max(steps, 10)), (48, steps)):
        maps = hsi.simulate.maps((side, side), noise=0.3).maps.compute()
        y = np.ascontiguousarray(np.moveaxis(maps.values, 0, -1), dtype=np.float64)
        with threadpool_limits(1):
            dense.fit(y[:8, :8], steps=1)
            begin = time.process_time()
            dense.fit(y, steps=count)
            step = (time.process_time() - begin) / (count + 1)
        ours = [alone((side, side), 3) for _ in range(3)]
        cpu = min(each["cpu"] for each in ours)
        yield {
            "case": f"{side} x {side} x 3",
            "ours (CPU s)": f"{cpu:.3f}",
            "a step of gpytorch (CPU s)": f"{step:.3f}",
            f"{PAPER_STEPS} steps / ours": f"{PAPER_STEPS * step / cpu:.0f}",
            "goal": 2000 if side == 48 else 50,
            "peak of ours (GiB)": f"{ours[0]['peak']:.2f}",
            "limit": 0.35,
        }


def memory() -> Iterator[Row]:
    """Measure the memory for finer grids, where the dense reference needs more than 10 GB."""
    for upsample in (1, 2, 4):
        found = alone((48, 48), 6, upsample=upsample)
        yield {
            "case": f"48 x 48 x 6, {upsample} points a pixel",
            "CPU s": f"{found['cpu']:.2f}",
            "above import (GiB)": f"{found['peak'] - found['before']:.3f}",
            "limit": 0.3,
        }


def size() -> Iterator[Row]:
    """Measure large maps in memory, with hyperparameters from windows."""
    for side, seconds, gibibytes in ((512, 6, 0.6), (1024, 12, 1.5)):
        found = alone((side, side), 8)
        yield {
            "case": f"{side} x {side} x 8",
            "CPU s": f"{found['cpu']:.2f}",
            "goal (s)": seconds,
            "peak (GiB)": f"{found['peak']:.2f}",
            "limit (GiB)": gibibytes,
            "similarity": " ".join(f"{v:.3f}" for v in found["similarity"]),
        }


def seams() -> Iterator[Row]:
    """Compare tiles of 64 pixels with the whole map, for several halos, in standard deviations of the posterior."""
    for noise in (0.03, 0.3):
        maps = hsi.simulate.maps((256, 256), n_components=4, noise=noise).maps.compute().astype(np.float64)
        whole = hsi.fit(maps, hsi.ParallelGP(tile=None))
        for halo in (0, 0.5, 1, 1.5, 2, "auto", 4):
            tiled = hsi.fit(maps, hsi.ParallelGP(tile=64, halo=halo))
            off = abs(tiled["abundances"] - whole["abundances"]) / whole["abundances_std"]
            std = abs(tiled["abundances_std"] / whole["abundances_std"] - 1)
            yield {
                "noise": noise,
                "halo (lengths)": halo,
                "largest (%)": f"{100 * float(off.max()):.3g}",
                "mean (%)": f"{100 * float(off.mean()):.3g}",
                "deviation, largest (%)": f"{100 * float(std.max()):.2g}",
                "goal (%)": "1, 0.1" if halo == "auto" else "",
            }


def store(big: int) -> Iterator[Row]:
    """Measure a fit from Zarr to Zarr by tiles, on two workers of 2 GB."""
    sides = [side for side in (1024, 2048, 4096) if side <= big]
    seconds: list[float] = []
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            scene = hsi.simulate.maps((side, side), n_components=8, noise=0.3, chunk=512)
            source = hsi.save(scene.maps, Path(folder) / "maps.zarr")
            with hsi.connect("local", workers=2, memory="2GB", dashboard=False) as cluster:
                begin = time.perf_counter()
                result = hsi.fit(xr.open_zarr(source, consolidated=False)["abundances"], hsi.ParallelGP())
                hsi.save(result, Path(folder) / "smooth.zarr")
                seconds.append(time.perf_counter() - begin)
                highest = max(cluster.client.run(peak).values())
            found = hsi.open_result(Path(folder) / "smooth.zarr")
            at = {"y": slice(0, 512), "x": slice(0, 512)}
            close = similarities(scene.truth.isel(at), found["abundances"].isel(at)).values
        row: Row = {"case": f"{side} x {side} x 8", "wall s": f"{seconds[-1]:.1f}"}
        row |= {"worker's peak (GiB)": f"{highest:.2f}", "limit (GiB)": 1.86, "client's peak (GiB)": f"{peak():.2f}"}
        exponent = np.log(seconds[-1] / seconds[0]) / np.log((side / sides[0]) ** 2) if len(seconds) > 1 else np.nan
        yield {**row, "exponent": f"{exponent:.2f}", "goal": 1.1, "least similarity": f"{close.min():.3f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts: dict[str, Callable[[argparse.Namespace], list[Iterator[Row]]]] = {
        "agreement": lambda a: [equality(), agreement(a.training, a.sides, a.seeds)],
        "speed": lambda a: [speed(a.steps)],
        "memory": lambda _: [memory()],
        "size": lambda _: [size()],
        "seams": lambda _: [seams()],
        "store": lambda a: [store(a.big)],
    }
    parser.add_argument("--only", nargs="*", choices=parts, default=list(parts))
    parser.add_argument("--steps", type=int, default=3, help="Number of gpytorch's steps timed at 48 x 48.")
    parser.add_argument(
        "--training", type=int, default=PAPER_STEPS, help="Number of gpytorch's steps for the agreement."
    )
    parser.add_argument("--sides", type=int, nargs="*", default=[24, 32], help="Sides of the maps for the agreement.")
    parser.add_argument("--seeds", type=int, default=1, help="Number of scenes of each kind for the agreement.")
    parser.add_argument("--big", type=int, default=4096, help="Side of the largest maps from a store.")
    given = parser.parse_args()
    for name in given.only:
        for rows in parts[name](given):
            print(f"\n## {name}\n\n{markdown(list(rows))}", flush=True)


if __name__ == "__main__":
    main()
