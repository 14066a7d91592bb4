"""Measure PSNMF of a cube larger than a worker's memory on a local cluster, against plain readings of the cube."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import zarr
from distributed import Client, LocalCluster

import scalehsi as hsi
from scalehsi.metrics import spectral_angle

WORKERS = 2
MEMORY = "4GB"


def table(folder: Path, *, side: int = 2048, counts: float = 20.0) -> list[dict[str, object]]:
    """Make the cube where it is missing, read it, fit it, and read it again; return a row for each figure."""
    store = folder / f"psnmf-{side}.zarr"
    cube, truth = hsi.simulate.phases((side, side), n_channels=2048, counts_per_pixel=counts, seed=1)
    rows = []
    if not store.exists():
        start = time.perf_counter()
        hsi.save(cube, store)
        rows.append({"what": "making and saving the cube", "value": f"{time.perf_counter() - start:.0f} s"})
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, memory_limit=MEMORY, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        # Imports and compilation in the workers are not counted.
        small, _ = hsi.simulate.phases((96, 96), n_channels=2048, counts_per_pixel=counts)
        hsi.fit(small, hsi.PSNMF(3, bin_factor=8), seed=0)
        watched = Watched([psutil.Process(), *map(psutil.Process, client.run(os.getpid).values())])
        readings_of = [watched.timed(lambda: read(client, store)) for _ in range(2)]
        results = []
        with watched:
            wall, cpu = watched.timed(lambda: results.append(hsi.fit(hsi.open_cube(store), hsi.PSNMF(3), seed=0)))
        readings_of.append(watched.timed(lambda: read(client, store)))
    result = results[0]
    reading = np.min(readings_of, axis=0)
    readings = int(result.attrs["readings"])
    angles = np.degrees(
        [spectral_angle(a, b) for a, b in zip(truth["endmembers"].values, result["endmembers"].values, strict=True)]
    )
    rows += [
        {"what": "cube", "value": f"{side} x {side} x 2048, {counts:g} counts a pixel"},
        {"what": "a reading, wall / CPU of both workers", "value": f"{reading[0]:.1f} / {reading[1]:.1f} s"},
        {"what": "PSNMF, wall / CPU of both workers", "value": f"{wall:.1f} / {cpu:.1f} s"},
        {"what": "readings of the cube in it", "value": readings},
        {
            "what": "over as many readings, wall / CPU",
            "value": f"{wall / readings / reading[0]:.2f} / {cpu / readings / reading[1]:.2f}",
            "asked": "<= 3",
        },
        {
            "what": "peak of the workers",
            "value": " ".join(f"{m:.0f} MiB" for m in watched.peaks[1:]),
            "asked": "< 4 GB",
        },
        {"what": "peak of the client", "value": f"{watched.peaks[0]:.0f} MiB"},
        {"what": "bins", "value": f"{result['bin_factor'].values[0]}, {result['fine_bin_factor'].values[0]}"},
        {"what": "angles, degrees", "value": "/".join(f"{a:.2f}" for a in angles)},
        {"what": "load of the machine", "value": f"{os.getloadavg()[0]:.1f}"},
    ]
    return rows


def read(client: Client, store: Path) -> None:
    """Read every stored chunk once, without Dask arrays; each worker reads its share."""
    for done in [client.submit(_read, str(store), i, pure=False) for i in range(WORKERS)]:
        done.result()


def _read(store: str, part: int) -> None:
    values = zarr.open_group(store, mode="r")["counts"]
    corners = itertools.product(*(range(0, n, step) for n, step in zip(values.shape[:2], values.chunks, strict=False)))
    rows, columns = values.chunks[:2]
    for y, x in itertools.islice(corners, part, None, WORKERS):
        values[y : y + rows, x : x + columns]


class Watched:
    """Processes, the client first, with their peak memory inside a ``with`` block and the time of a call."""

    def __init__(self, processes: list[psutil.Process]) -> None:
        self.processes = processes
        self.peaks = [0.0] * len(processes)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def timed(self, call: Callable[[], object]) -> tuple[float, float]:
        """Return wall seconds, and CPU seconds of all processes but the client."""
        wall, cpu = time.perf_counter(), self._cpu()
        call()
        return time.perf_counter() - wall, self._cpu() - cpu

    def _cpu(self) -> float:
        return float(sum(sum(process.cpu_times()[:2]) for process in self.processes[1:]))

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for i, process in enumerate(self.processes):
                self.peaks[i] = max(self.peaks[i], process.memory_info().rss / 2**20)
