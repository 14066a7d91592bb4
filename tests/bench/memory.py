"""Memory of a worker that fits, planned and measured: every model, dtype and layout of a store.

    python -m tests.bench.memory [--models NMF-poisson,PCA] [--dtypes uint16] [--layouts pixels] [--megabytes 64]

A worker of a local cluster gets a memory limit. Before each fit its freed memory is returned to the system and its
peak is set to zero; the peak after the fit, less the memory before it, is compared with the figure of `scalehsi.plan`.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
ENDINGS: Final = ("converged", "max_iter", "stagnated")


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
        "PanSharpen": lambda cube: (_pair(cube), hsi.PanSharpen(3, loss=counts, **few)),
        "ParallelGP": lambda cube: (_maps(cube), hsi.ParallelGP()),
    }


def _alone(model: Any, cube: xr.DataArray) -> tuple[xr.DataArray, Any]:
    """A model of one cube."""
    return cube, model


def _pair(cube: xr.DataArray) -> dict[str, xr.DataArray]:
    """Two acquisitions: all pixels of every fourth channel, and bins of pixels of all channels."""
    return {"spatial": cube, "spectral": hsi.prepare.bin(cube, y=4, x=4)}


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
    """One row of the table; the bytes are those of a worker."""

    model: str
    dtype: str
    layout: str
    planned: int
    peak: int
    before: int
    ended: str

    def row(self) -> dict[str, object]:
        ratio = f"{self.peak / self.planned:.2f}" if self.planned and self.peak else ""
        return {
            "model": self.model,
            "dtype": self.dtype,
            "chunks": self.layout,
            "planned MiB": round(self.planned / MiB) or "",
            "peak MiB": round(self.peak / MiB) if self.peak else "",
            "peak / planned": ratio,
            "process MiB": round(self.before / MiB) if self.peak else "",
            "ended": self.ended,
        }


def prepare_worker() -> int:
    """Return freed memory to the system, set the peak to zero and return the resident bytes; runs in the worker."""
    import gc

    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")


def status_bytes(name: str) -> int:
    """A figure of this process, such as its peak ``VmHWM``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure(client: Any, name: str, dtype: str, kind: str, path: Path, *, before: int) -> Case:
    """Plan a fit, fit, and read the worker's peak. before: bytes of the worker after its first fit."""
    data, model = models(dtype)[name](hsi.open_cube(path))
    try:
        planned = hsi.plan(data, model).worker_bytes
    except InputError as error:
        return Case(name, dtype, kind, 0, 0, 0, f"refused: {error}")
    client.run(prepare_worker)
    try:
        ended = str(hsi.fit(data, model, seed=0).attrs["status"])
    except Exception as error:
        ended = f"{type(error).__name__}: {error}"[:150]
    peak = max(client.run(status_bytes, "VmHWM").values())
    return Case(name, dtype, kind, planned, peak - before, before, ended)


def warm_up(name: str, dtype: str) -> None:
    """Fit a small cube, so that the kernels are loaded before the memory is measured."""
    cube = hsi.make_cube(counts(dtype, 64), energy=ENERGY, energy_units="eV", signal="EELS")
    hsi.fit(*models(dtype)[name](cube.chunk({"y": 16})), seed=0)


def cases(
    folder: Path, wanted: list[str], dtypes: list[str], layouts: list[str], *, megabytes: int, threads: int, kill: bool
) -> Iterator[Case]:
    """Measure every case; ``kill`` lets the nanny end a worker above its limit, as it does for users."""
    with dask.config.set({"distributed.worker.memory.terminate": 0.95 if kill else False}):
        for name in wanted:
            for dtype in dtypes:
                warm_up(name, dtype)  # compiles what no earlier run did, which takes more memory than a worker has
            with hsi.connect("local", workers=1, threads=threads, memory=LIMIT, dashboard=False) as cluster:
                for dtype in dtypes:
                    warm_up(name, dtype)
                    before = max(cluster.client.run(prepare_worker).values())
                    for kind in layouts:
                        path = write(folder, dtype, kind, megabytes)
                        yield measure(cluster.client, name, dtype, kind, path, before=before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(models("uint8")))
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--layouts", default=",".join(LAYOUTS))
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keeps the stores for the next run")
    parser.add_argument("--kill", action="store_true", help="end workers above 95 % of the limit, as for users")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        rows = []
        for case in cases(
            folder,
            *(text.split(",") for text in (given.models, given.dtypes, given.layouts)),
            megabytes=given.megabytes,
            threads=given.threads,
            kill=given.kill,
        ):
            rows.append(case.row())
            print(*rows[-1].values(), sep=" | ", flush=True)
    print("\n" + markdown(rows))


if __name__ == "__main__":
    main()
