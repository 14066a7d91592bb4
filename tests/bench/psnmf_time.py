"""Measure time and memory of PSNMF in a separate process on one thread, also against espm."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import psnmf_scenes
from tests.bench.psnmf_scenes import PAPER_BIN, PHASES, Scene, slashed

Row = dict[str, object]

ALONE = """
import dask, sys, time
import numpy as np
from threadpoolctl import threadpool_limits
import scalehsi as hsi
stored, settings, repeats = np.load(sys.argv[1]), eval(sys.argv[2]), int(sys.argv[3])
cube = hsi.make_cube(stored["counts"], energy=stored["energy"], energy_units="keV", signal="EDS")
del stored
with dask.config.set(scheduler="synchronous"), threadpool_limits(1):
    hsi.fit(cube[:60, :60], hsi.PSNMF(3, **{**settings, "bin_factor": 6}), seed=0)
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        result = hsi.fit(cube, hsi.PSNMF(3, **settings), seed=0)
        print(time.process_time() - cpu, time.perf_counter() - wall, flush=True)
np.save(sys.argv[1] + ".spectra.npy", result["endmembers"].values)
# Not getrusage: its peak includes that of the parent when it started this process.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak", int(peak.split()[1]) / 1024)
"""


def alone(scene: Scene, settings: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Return the least CPU and wall seconds, peak MiB and angles of fits in a separate process on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scene.npz"
        np.savez(file, counts=scene.cube.values, energy=scene.cube["energy"].values)
        one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        command = [sys.executable, "-c", ALONE, str(file), repr(settings), str(repeats)]
        *runs, last = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, **one}
        ).stdout.splitlines()
        seconds = np.array([line.split() for line in runs], dtype=float).min(axis=0)
        spectra = np.load(f"{file}.spectra.npy")
    return {
        "cpu": seconds[0],
        "wall": seconds[1],
        "peak": float(last.split()[1]),
        "angles": psnmf_scenes.angles(scene.spectra, spectra)[0],
    }


def clock(scenes: list[Scene], repeats: int) -> list[Row]:
    """Measure our settings at each dose, with target values."""
    rows: list[Row] = []
    for scene in scenes:
        dose = scene.dose
        for name, settings, asked in (
            ("paper", {"settings": "paper", "bin_factor": PAPER_BIN[dose]}, "<= 6 s"),
            ("default", {}, "<= 8 s"),
        ):
            found = alone(scene, settings, repeats)
            rows.append(
                {
                    "counts": dose,
                    "settings": name,
                    "CPU s": f"{found['cpu']:.2f}",
                    "wall s": f"{found['wall']:.2f}",
                    "asked": asked if dose == 147 else "",
                    "peak MiB": f"{found['peak']:.0f}",
                    "asked ": "< 1024",
                    "load of the machine": f"{os.getloadavg()[0]:.1f}",
                }
            )
    return rows


def espm(scenes: list[Scene], repeats: int) -> list[Row]:
    """Compare espm's SmoothNMF on bins of six pixels with PSNMF: each in a separate process on one thread."""
    python = os.environ.get("SCALEHSI_ESPM_PYTHON")
    if not python:
        return [{"espm": "not measured: set SCALEHSI_ESPM_PYTHON to a Python that can import espm"}]
    rows: list[Row] = []
    for scene in scenes:
        dose = scene.dose
        peer, ours = psnmf_scenes.espm_fit(scene, python, iterations={147: 150, 18: 100}[dose]), {}
        given = {
            "paper": {"settings": "paper", "bin_factor": PAPER_BIN[dose]},
            "bins of 6, given as to espm": {"bin_factor": 6},
            "default, which looks for its bins": {},
        }
        for name, settings in given.items():
            ours[name] = alone(scene, settings, repeats)
        for name, found in (("espm SmoothNMF", peer), *((f"PSNMF {k}", v) for k, v in ours.items())):
            rows.append(
                {
                    "counts": dose,
                    "": name,
                    "/".join(PHASES): slashed(found["angles"]),
                    "mean": f"{found['angles'].mean():.2f}",
                    "CPU s": f"{found['cpu']:.2f}",
                    "times faster": f"{peer['cpu'] / found['cpu']:.1f}",
                    "asked": "" if found is peer else ">= 10 at no larger angles",
                }
            )
    return rows
