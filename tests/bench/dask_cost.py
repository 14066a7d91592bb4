"""Measure the cost of Dask in a pass: against a plain loop over the same blocks, and against reading alone.

Resident: a pass of `map_fold` is compared with a loop that calls the kernel on the blocks in the workers' memory, on
all workers at once. Streamed: a pass is compared with reading and decompressing alone (zarr, no Dask), and with a loop
that reads a chunk and calls the kernel. Both sides are measured alternately, and the fastest run of each is used. On a
machine that is busy with other programs, the ratio of CPU seconds is more reliable than that of wall seconds.

Run with: python -m tests.bench.dask_cost [--quick] [--repeats 9]
"""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from distributed import Client, LocalCluster
from zarr.codecs import ZstdCodec

import scalehsi as hsi
from scalehsi.blocks import Blocks, map_fold, open_blocks
from scalehsi.kernels import least_squares

MiB = 2**20
CHANNELS = 1024
COMPONENTS = 6
RESIDENT_CASES = ((64, 16.0), (1024, 0.25), (16, 64.0))
"""Number of blocks, and MiB of a block."""
CHUNK_PIXELS = (64, 64)
"""Pixels of a stored chunk along y and x: 16 MiB of float32, 8 MiB of 16-bit counts."""
STREAMED_CASES = (("zstd", "uint16"), ("zstd", "float32"), ("own", "uint16"), ("own", "float32"))
"""Compression of the cube (zstd as by default in zarr, or "own" as in `scalehsi.save`), and its dtype."""
KERNEL_SETTINGS: dict[str, Any] = {"norm": False}
"""As in a fit, where only the first pass computes the norm of the data."""


class Work(NamedTuple):
    """The two sides of a comparison: functions that return their seconds."""

    bare: Callable[[], float]
    ours: Callable[[], float]


def spectra() -> np.ndarray:
    e = np.linspace(0, 1, CHANNELS)
    peaks = [np.exp(-((e - m) ** 2) / 0.01) + 0.05 for m in np.linspace(0.1, 0.9, COMPONENTS)]
    return np.stack([peak / peak.sum() for peak in peaks])


def mixtures(block_info: Any = None, *, counts: bool) -> np.ndarray:
    """Make a block of noisy mixtures: float32 intensities, or 16-bit counts with 3000 in a pixel."""
    place, shape = block_info[None]["array-location"], block_info[None]["chunk-shape"]
    rng = np.random.default_rng([start for start, _ in place])
    c = rng.random((math.prod(shape[:-1]), COMPONENTS), dtype=np.float32) ** 3
    x = 3000 * c @ spectra().astype(np.float32)
    x = rng.poisson(x).astype(np.uint16) if counts else x + np.sqrt(x) * rng.standard_normal(x.shape, dtype=np.float32)
    return x.reshape(shape)


def cube_of(chunks: tuple[tuple[int, ...], ...], *, counts: bool) -> xr.DataArray:
    dtype = np.dtype(np.uint16 if counts else np.float32)
    data = da.map_blocks(
        mixtures, chunks=(*chunks, (CHANNELS,)), dtype=dtype, meta=np.empty((0, 0, 0), dtype), counts=counts
    )
    return hsi.make_cube(data, energy=np.arange(float(CHANNELS)), energy_units="eV")


@contextlib.contextmanager
def scheduler(where: str) -> Iterator[Client | None]:
    """Use two threads of this process, or two worker processes of one thread each."""
    if where == "threads":
        with dask.config.set(scheduler="threads", num_workers=2):
            yield None
        return
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "3GiB", "dashboard_address": None}
    with LocalCluster(host="127.0.0.1", **options) as cluster, Client(cluster) as client:
        yield client


def timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def with_cpu(call: Callable[[], float], client: Client | None) -> tuple[float, float]:
    """Return the seconds that a call returns, and the CPU seconds of the computing processes."""

    def cpu() -> float:
        return time.process_time() if client is None else sum(client.run(time.process_time).values())

    begin = cpu()
    seconds = call()
    return seconds, cpu() - begin


def compare(work: Work, repeats: int) -> tuple[float, float]:
    """Return the fastest seconds of each side, measured alternately; the first run of each is not used."""
    turns = [(work.bare(), work.ours()) for _ in range(repeats + 1)][1:]
    return min(bare for bare, _ in turns), min(ours for _, ours in turns)


# Resident.


def loop(tiles: Sequence[Any], s: np.ndarray) -> float:
    return timed(lambda: [least_squares.update(tile.x, s=s, **KERNEL_SETTINGS) for tile in tiles])


def loop_of_worker(s: np.ndarray, dask_worker: Any = None) -> tuple[float, int]:
    """Run the plain loop over the tiles in this worker's memory; return its seconds and the number of tiles."""
    tiles = [tile for bundle in list(dask_worker.data.values()) for tile in getattr(bundle, "values", ())]
    return loop(tiles, s), len(tiles)


def tiles_of(view: Blocks) -> list[Any]:
    """Return the tiles in the memory of this process."""
    tiles: list[Any] = []

    def look(x: Any, *, tile: Any) -> Any:
        tiles.append(tile)
        return {}, {"n": 1}

    map_fold(look, view, tile=True)
    return tiles


def resident(blocks: int, mebibytes: float, where: str, *, repeats: int = 9) -> dict[str, Any]:
    """Measure a pass over blocks in memory, and the plain loop over them."""
    pixels = max(1, int(mebibytes * MiB) // (4 * CHANNELS))
    s = spectra()
    with scheduler(where) as client, ThreadPoolExecutor(2) as pool:
        cube = cube_of(((1,) * blocks, (pixels,)), counts=False)
        view = open_blocks(cube, resident=True, block_bytes=4 * CHANNELS * pixels)
        assert len(view) == blocks

        def ours() -> float:
            return timed(
                lambda: map_fold(least_squares.update, view, shared={"s": s, **KERNEL_SETTINGS}, name="nmf-frobenius")
            )

        if client is None:
            tiles = tiles_of(view)
            halves = tiles[: blocks // 2], tiles[blocks // 2 :]
            bare = partial_timed(pool, halves, s)
        else:
            map_fold(least_squares.update, view, shared={"s": s, **KERNEL_SETTINGS})

            def bare() -> float:
                found = client.run(loop_of_worker, s).values()
                assert sum(n for _, n in found) == blocks
                return max(seconds for seconds, _ in found)

        cpu = time.process_time()
        bare_s, ours_s = compare(Work(bare, ours), repeats)
        cpu = (time.process_time() - cpu) / (repeats + 1)
    return {
        "kind": "resident",
        "where": where,
        "blocks": blocks,
        "block_mib": mebibytes,
        "bundle": view.blocks_per_task,
        "bare_ms": 1e3 * bare_s,
        "dask_ms": 1e3 * ours_s,
        "overhead_ms_a_block": 1e3 * (ours_s - bare_s) / blocks,
        # With worker processes, this process is only the client and the scheduler.
        "scheduler_ms_a_block": math.nan if client is None else 1e3 * cpu / blocks,
        "ratio": ours_s / bare_s,
    }


def partial_timed(pool: ThreadPoolExecutor, halves: Sequence[Any], s: np.ndarray) -> Callable[[], float]:
    return lambda: timed(lambda: list(pool.map(lambda half: loop(half, s), halves)))


# Streamed.


def store(path: Path, codec: str, dtype: str, side: int) -> xr.DataArray:
    """Save a cube and open it."""
    chunks = (*[CHUNK_PIXELS[0]] * (side // CHUNK_PIXELS[0]),)
    cube = cube_of((chunks, chunks), counts=dtype == "uint16")
    if codec == "own":
        hsi.save(cube, path)
    else:
        encoding = {"counts": {"compressors": (ZstdCodec(level=3),), "chunks": (*CHUNK_PIXELS, CHANNELS)}}
        plain = cube.drop_attrs().rename("counts").to_dataset()
        plain["energy"].attrs["units"] = "eV"
        plain.to_zarr(path, encoding=encoding, zarr_format=3, consolidated=False)
    return hsi.open_cube(path)


def read(path: Path, part: int, parts: int, s: np.ndarray | None = None) -> float:
    """Read and decompress one of ``parts`` shares of the chunks; call the kernel on each if endmembers are given."""
    array = zarr.open_group(path, mode="r")["counts"]
    corners = [
        (y, x) for y in range(0, array.shape[0], array.chunks[0]) for x in range(0, array.shape[1], array.chunks[1])
    ]
    begin = time.perf_counter()
    for y, x in corners[part::parts]:
        block = array[y : y + array.chunks[0], x : x + array.chunks[1]]
        if s is not None:
            least_squares.update(block.reshape(-1, CHANNELS), s=s, **KERNEL_SETTINGS)
    return time.perf_counter() - begin


def read_of_worker(path: Path, s: np.ndarray | None, dask_worker: Any = None) -> float:
    return read(path, int(dask_worker.name), 2, s)


def streamed(
    codec: str, dtype: str, where: str, *, side: int = 512, repeats: int = 5, **options: Any
) -> dict[str, Any]:
    """Measure a pass that reads the cube, reading alone, and a loop that reads and calls the kernel."""
    s = spectra()
    with tempfile.TemporaryDirectory() as folder, scheduler(where) as client, ThreadPoolExecutor(2) as pool:
        path = Path(folder) / "cube.zarr"
        cube = store(path, codec, dtype, side)
        view = open_blocks(cube, resident=False, **options)

        def alone(ends: np.ndarray | None) -> float:
            if client is not None:
                return max(client.run(read_of_worker, path, ends).values())
            return timed(lambda: list(pool.map(lambda part: read(path, part, 2, ends), range(2))))

        def ours() -> float:
            return timed(
                lambda: map_fold(least_squares.update, view, shared={"s": s, **KERNEL_SETTINGS}, name="nmf-frobenius")
            )

        reads: list[tuple[float, float]] = []
        passes: list[tuple[float, float]] = []

        def bare() -> float:
            reads.append(with_cpu(lambda: alone(None), client))
            return alone(s)

        def whole() -> float:
            passes.append(with_cpu(ours, client))
            return passes[-1][0]

        loop_s, ours_s = compare(Work(bare, whole), repeats)
        pure_s, pure_cpu = map(min, zip(*reads[1:], strict=True))
        ours_cpu = min(cpu for _, cpu in passes[1:])
        stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    rate = cube.nbytes / 1e6
    return {
        "kind": "streamed",
        "where": where,
        "codec": codec,
        "dtype": dtype,
        "blocks": len(view),
        "block_mib": view.block_bytes / MiB,
        "bundle": view.blocks_per_task,
        "compression": cube.nbytes / stored,
        "read_mb_s": rate / pure_s,
        "loop_mb_s": rate / loop_s,
        "dask_mb_s": rate / ours_s,
        "ratio_to_read": pure_s / ours_s,
        "ratio_to_loop": loop_s / ours_s,
        "cpu_ratio_to_read": pure_cpu / ours_cpu,
    }


# The table.


def table(
    *,
    cases: Sequence[tuple[int, float]] = RESIDENT_CASES,
    stores: Sequence[tuple[str, str]] = STREAMED_CASES,
    where: Sequence[str] = ("threads", "cluster"),
    side: int = 512,
    repeats: int = 9,
) -> list[dict[str, Any]]:
    """Return one dict for each measurement; at most 1 GiB of data is in memory."""
    rows = [resident(*case, place, repeats=repeats) for place in where for case in cases]
    return rows + [streamed(*kind, place, side=side, repeats=repeats) for place in where for kind in stores]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows as Markdown, one table for each kind."""
    tables = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        ours = [{k: v for k, v in row.items() if k != "kind"} for row in rows if row["kind"] == kind]
        lines = [f"| {kind}: " + " | ".join(ours[0]) + " |", "|---" * len(ours[0]) + "|"]
        lines += ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in ours]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _cell(value: Any) -> str:
    return (
        ("-" if math.isnan(value) else f"{value:.3g}" if value < 100 else f"{value:.0f}")
        if isinstance(value, float)
        else str(value)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few MiB, to test that it runs")
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    options: dict[str, Any] = {"cases": ((8, 1.0),), "side": 2 * CHUNK_PIXELS[0]} if given.quick else {}
    print(markdown(table(repeats=1 if given.quick else given.repeats, **options)))


if __name__ == "__main__":
    main()
