"""Memory of a worker that fits, planned and measured: every model, dtype and layout of a store.

    python -m tests.bench.memory [--models NMF-poisson,PCA] [--dtypes uint16] [--layouts pixels] [--megabytes 64]
                                 [--threads 2] [--log FILE]

A worker of a local cluster gets a memory limit. It first fits a small store, which loads the libraries and compiled
kernels of the method; what the process fills then is its fixed part, for which `scalehsi.blocks.compute.PROCESS_BYTES`
is kept free. Before each fit freed memory is returned to the system and the peak is set to zero. The peak after the
fit, less the fixed part, is compared with the figure of `scalehsi.plan`. With ``--log`` every row is noted in a file,
and rows that it has already are not measured again.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import dask
import numpy as np
import xarray as xr

import scalehsi as hsi
from scalehsi.chunks import MiB
from scalehsi.schema import InputError
from tests.bench.machine import markdown

LIMIT: Final = 450 * MiB
CHANNELS: Final = 1024
ENERGY: Final = 200.0 + np.arange(CHANNELS)
DTYPES: Final = ("uint8", "uint16", "int64", "float32")
LAYOUTS: Final = ("pixels", "one", "energy", "tiny")
ENERGY_CHUNKS: Final = 64
WARM_UP_MEGABYTES: Final = 8
TENSOR: Final = ["frame", ("y", "x"), "energy"]


def models(dtype: str) -> dict[str, Callable[[xr.DataArray], tuple[Any, Any]]]:
    """The fits by name: each makes the data of the fit and the model from a cube."""
    few: dict[str, Any] = {"max_iter": 2, "tol": 0}
    short: dict[str, Any] = {"pretrain": 1, "epochs": 1, "n_samples": 2000}
    counts = "frobenius" if dtype == "float32" else "poisson"
    alone: dict[str, Any] = {
        "NMF-frobenius": hsi.NMF(4, loss="frobenius", **few),
        "NMF-poisson": hsi.NMF(4, loss="poisson", **few),
        "NMF-weighted": hsi.NMF(4, weighting="poisson", **few),
        "NMF-auto": hsi.NMF(4, **few),
        "PCA": hsi.PCA(4),
        "ICA": hsi.ICA(4),
        "VCA": hsi.VCA(4),
        "NFINDR": hsi.NFINDR(4),
        "SSS": hsi.SSS(4),
        "BLU": hsi.BLU(4, sweeps=20, burn_in=5),
        "PSNMF": hsi.PSNMF(4, bin_factor=8, loss=counts, **few),
        "BackgroundNMF": hsi.BackgroundNMF(3, onset=300.0, **few),
        "DAEU": hsi.DAEU(4, **short),
        "MTAEU": hsi.MTAEU(4, **short),
        "CNNAEU": hsi.CNNAEU(4, **(short | {"n_samples": 5})),
        "UDAS": hsi.UDAS(4, n_samples=2000, max_iter=1),
        "LatentAE": hsi.LatentAE(4, epochs=1, n_samples=2000),
    }
    return {name: partial(_alone, model) for name, model in alone.items()} | {
        "CPD": lambda cube: (_frames(cube), hsi.CPD(4, modes=TENSOR, **few)),
        "Tucker": lambda cube: (_frames(cube), hsi.Tucker((2, 4, 4), modes=TENSOR, **few)),
        "CoupledNMF": lambda cube: (_coupled(cube), hsi.CoupledNMF(3, **few)),
        "PanSharpen": lambda cube: (_pair(cube), hsi.PanSharpen(3, loss=counts, **few)),
        "ParallelGP": lambda cube: (_maps(cube), hsi.ParallelGP()),
    }


def _alone(model: Any, cube: xr.DataArray) -> tuple[xr.DataArray, Any]:
    """A model of one cube."""
    return cube, model


def _pair(cube: xr.DataArray) -> dict[str, xr.DataArray]:
    """Two acquisitions: the store, and bins of its pixels, a small cube in the client's memory."""
    return {"spatial": cube, "spectral": hsi.prepare.bin(cube, y=4, x=4).compute()}


def _coupled(cube: xr.DataArray) -> dict[str, xr.DataArray]:
    """Two signals of one scan: all channels, and the first quarter of them."""
    few = cube.isel(energy=slice(0, CHANNELS // 4))
    return {"EELS": cube.assign_attrs(signal="EELS"), "EDS": few.assign_attrs(signal="EDS")}


def _frames(cube: xr.DataArray) -> xr.DataArray:
    """Two frames, the upper and the lower half of the map."""
    half = cube.sizes["y"] // 2
    upper, lower = cube.isel(y=slice(0, half)), cube.isel(y=slice(half, 2 * half))
    return xr.concat([upper, lower.assign_coords(y=upper["y"])], "frame")


def _maps(cube: xr.DataArray) -> xr.DataArray:
    """Maps of the store's first channels."""
    return cube.isel(energy=slice(0, 4)).rename(energy="component").transpose("component", "y", "x")


def counts(dtype: str, side: int, *, seed: int = 0) -> np.ndarray[Any, Any]:
    """Spectra of four phases, (side, side, CHANNELS): sparse in bytes, dense in all others."""
    rng = np.random.default_rng(seed)
    level = 0.05 if dtype == "uint8" else 20.0
    energy, background = np.linspace(0, 1, CHANNELS), 2 * (ENERGY / ENERGY[0]) ** -3.0
    s = np.stack([np.exp(-((energy - m) ** 2) / 0.005) + background for m in (0.2, 0.4, 0.6, 0.8)])
    tile = rng.poisson(level * rng.dirichlet(np.ones(4), 4096) @ s).astype(dtype)
    pixels = rng.integers(0, len(tile), side * side)
    return tile[pixels].reshape(side, side, CHANNELS)


def layout(kind: str, side: int, itemsize: int) -> tuple[int, int, int]:
    """Stored chunks: 4 MiB of pixels, everything, 64 pieces of the energy axis, or 8 x 8 pixels."""
    pixels = math.isqrt(4 * MiB // (CHANNELS * itemsize))
    return {
        "pixels": (min(side, pixels), min(side, pixels), CHANNELS),
        "one": (side, side, CHANNELS),
        "energy": (side, side, CHANNELS // ENERGY_CHUNKS),
        "tiny": (8, 8, CHANNELS),
    }[kind]


def write(folder: Path, dtype: str, kind: str, megabytes: int) -> Path:
    """Write a store of another program, with chunks of any shape, once."""
    path = folder / f"{dtype}-{kind}-{megabytes}.zarr"
    if path.exists():
        return path
    itemsize = np.dtype(dtype).itemsize
    side = math.isqrt(megabytes * MiB // (CHANNELS * itemsize)) // 8 * 8
    cube = hsi.make_cube(counts(dtype, side), energy=ENERGY, energy_units="eV", signal="EELS")
    encoding = {"cube": {"chunks": layout(kind, side, itemsize)}}
    cube.rename("cube").to_dataset().to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)
    return path


@dataclass(frozen=True)
class Case:
    """One row of the table; the bytes are those of a worker. stages: the peak of each stage of the fit."""

    model: str
    dtype: str
    layout: str
    planned: int
    peak: int
    before: int
    ended: str
    stages: dict[str, int]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.model, self.dtype, self.layout

    def row(self) -> dict[str, object]:
        measured = bool(self.peak)
        return {
            "model": self.model,
            "dtype": self.dtype,
            "chunks": self.layout,
            "planned MiB": round(self.planned / MiB) or "",
            "peak MiB": round(self.peak / MiB) if measured else "",
            "peak / planned": f"{self.peak / self.planned:.2f}" if measured else "",
            "start / iterate / maps": " / ".join(str(round(n / MiB)) for n in self.stages.values()),
            "process MiB": round(self.before / MiB) if measured else "",
            "ended": self.ended,
        }


def prepare_worker() -> int:
    """Return freed memory to the system, set the peak to zero and return the resident bytes; runs in the worker."""
    import gc

    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return status_bytes("VmRSS") if read_peak() else 0


def read_peak() -> int:
    """The peak of this process, which is set to the present value."""
    peak = status_bytes("VmHWM")
    Path("/proc/self/clear_refs").write_text("5")
    return peak


def status_bytes(name: str) -> int:
    """A figure of this process, such as its peak ``VmHWM``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


class Stages:
    """Peak of the worker in each stage of a fit; an instance is the ``progress`` of a fit."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.stage = ""
        self.peaks: dict[str, int] = {}

    def __call__(self, record: Any) -> None:
        if record.stage != self.stage:
            self.end()
            self.stage = record.stage

    def end(self) -> None:
        """Read the peak of the stage that ends now."""
        peak = max(self.client.run(read_peak).values())
        self.peaks[self.stage] = max(peak, self.peaks.get(self.stage, 0))


def measure(client: Any, name: str, dtype: str, kind: str, path: Path, *, before: int) -> Case:
    """Plan a fit, fit, and read the worker's peak. before: bytes of the worker after its first fit."""
    data, model = models(dtype)[name](hsi.open_cube(path))
    try:
        planned = hsi.plan(data, model).worker_bytes
    except InputError as error:
        return Case(name, dtype, kind, 0, 0, 0, refusal(str(error)), {})
    client.run(prepare_worker)
    stages = Stages(client)
    try:
        ended = str(hsi.fit(data, model, seed=0, progress=stages).attrs["status"])
    except Exception as error:
        ended = f"{type(error).__name__}: {error}"[:150]
    stages.end()
    peaks = {stage: peak - before for stage, peak in stages.peaks.items() if stage}
    return Case(name, dtype, kind, planned, max(stages.peaks.values()) - before, before, ended, peaks)


def refusal(message: str) -> str:
    """The refusal in short: what the fit needs, and the chunks of the conversion that repairs it, or the memory."""
    needs = re.search(r"needs ([\d.]+ \w+) a worker", message)
    repair = re.search(r"convert \S+ \S+ --chunk-mb \d+", message) or re.search(r"give each worker \d+ MiB", message)
    if not needs or not repair:
        return f"refused: {message}"
    words = repair[0].split()
    return f"refused ({needs[1]}): {' '.join(words[-2:]) if words[0] == 'convert' else repair[0]}"


def warm_up(name: str, dtype: str, folder: Path) -> None:
    """Fit a small store, so that libraries and kernels are loaded before the memory is measured."""
    hsi.fit(*models(dtype)[name](hsi.open_cube(write(folder, dtype, "tiny", WARM_UP_MEGABYTES))), seed=0)


def cases(
    folder: Path, wanted: list[tuple[str, str, str]], *, megabytes: int, threads: int, kill: bool
) -> Iterator[Case]:
    """Measure (model, dtype, layout); ``kill`` lets the nanny end a worker above its limit, as it does for users."""
    with dask.config.set({"distributed.worker.memory.terminate": 0.95 if kill else False}):
        for name in dict.fromkeys(name for name, *_ in wanted):
            dtypes = dict.fromkeys(dtype for model, dtype, _ in wanted if model == name)
            for dtype in dtypes:
                warm_up(name, dtype, folder)  # compiles what no earlier run did, for which a worker has no memory
            with hsi.connect("local", workers=1, threads=threads, memory=LIMIT, dashboard=False) as cluster:
                for dtype in dtypes:
                    warm_up(name, dtype, folder)
                    before = max(cluster.client.run(prepare_worker).values())
                    for kind in (layout for model, d, layout in wanted if (model, d) == (name, dtype)):
                        path = write(folder, dtype, kind, megabytes)
                        yield measure(cluster.client, name, dtype, kind, path, before=before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(models("uint8")))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keeps the stores for the next run")
    parser.add_argument("--log", type=Path, help="keeps the rows; those that it has are not measured again")
    parser.add_argument("--kill", action="store_true", help="end workers above 95 %% of the limit, as for users")
    given = parser.parse_args()
    wanted = list(itertools.product(*(text.split(",") for text in (given.models, given.dtypes, given.layouts))))
    lines = given.log.read_text().splitlines() if given.log and given.log.exists() else []
    done = {case.key: case for case in (Case(**json.loads(line)) for line in lines)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        left = [key for key in wanted if key not in done]
        for case in cases(folder, left, megabytes=given.megabytes, threads=given.threads, kill=given.kill):
            done[case.key] = case
            print(*case.row().values(), sep=" | ", flush=True)
            if given.log:
                with given.log.open("a") as log:
                    log.write(json.dumps(asdict(case)) + "\n")
    print("\n" + markdown([done[key].row() for key in wanted if key in done]))


if __name__ == "__main__":
    main()
