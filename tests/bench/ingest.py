"""Event streams to stores: MB of the stream for each second of processor time, and peak memory, beside RosettaSciIO.

``python -m tests.bench.ingest`` makes a Velox file of 2 GB (512 x 512 pixels, 4096 channels, 100 frames, 2 detectors),
converts it, and reads it with RosettaSciIO, each in a process of its own. RosettaSciIO stores nothing; ours includes
the store. ``--mb`` makes a smaller file, ``--folder`` keeps it for the next run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 512
CHANNELS = 4096
WAYS = {
    "scalehsi": {},
    "scalehsi, energy joined by 4": {"bin": {"energy": 4}},
    "RosettaSciIO, no store": None,
}


def make_stream(path: Path, *, megabytes: float, side: int = SIDE, frames: int = 100, detectors: int = 2) -> int:
    """Write a Velox file with a background, six peaks and a wave over the map; returns the number of X-rays."""
    import h5py

    from tests.io.event_files import END, STREAM, write_velox

    rng = np.random.default_rng(0)
    write_velox(path, (side, side), [np.zeros(0, "u2")] * detectors, frames=frames, channels=CHANNELS)
    energies = np.arange(CHANNELS)
    spectrum = np.exp(-energies / 900.0) * (energies > 110)
    for place, height in ((152, 9), (192, 5), (248, 7), (568, 3), (740, 12), (1330, 2)):
        spectrum += height * np.exp(-(((energies - place) / 6.0) ** 2) / 2)
    steps = np.cumsum(spectrum) / spectrum.sum()
    channel_of = np.searchsorted(steps, (np.arange(65536) + 0.5) / 65536).astype("u2")
    y, x = np.mgrid[:side, :side]
    wave = (1 + 0.5 * np.sin(x / 40) * np.cos(y / 55)).ravel()
    mean = max(0.01, megabytes * 1e6 / 2 / frames / detectors / side**2 - 1)
    total = 0
    with h5py.File(path, "r+") as file:
        starts = np.zeros((detectors, frames), "u8")
        for frame in range(frames):
            for detector in range(detectors):
                events = rng.poisson(mean * wave)
                ends = np.cumsum(events + 1) - 1
                words = channel_of[rng.integers(0, 65536, int(ends[-1]) + 1, dtype="u2")]
                words[ends] = END
                data = file[f"{STREAM}/c{detector}/Data"]
                first = data.shape[0]
                data.resize(first + words.size, axis=0)
                data[first:, 0] = words
                starts[detector, frame] = first
                total += int(events.sum())
        for detector in range(detectors):
            file[f"{STREAM}/c{detector}/FrameLocationTable"] = starts[detector][:, None]
    return total


def measure(way: str, path: Path, folder: Path) -> dict[str, Any]:
    """Read the file in one way: seconds, seconds of the processor, peak memory in MB, and the sum of the counts."""
    if WAYS[way] is None:
        from rsciio.emd import file_reader

        begin, cpu = time.perf_counter(), time.process_time()
        (signal,) = (s for s in file_reader(str(path)) if s["data"].ndim == 3)
        counts = signal["data"]
    else:
        import scalehsi as hsi

        hsi.open_cube(path)  # imports
        begin, cpu = time.perf_counter(), time.process_time()
        hsi.convert(path, folder / "map.zarr", overwrite=True, **WAYS[way])
        counts = None
    took = {"wall": time.perf_counter() - begin, "cpu": time.process_time() - cpu}
    took["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    if counts is None:
        counts = hsi.open_cube(folder / "map.zarr").data
        took["stored_mb"] = sum(p.stat().st_size for p in (folder / "map.zarr").rglob("*") if p.is_file()) / 1e6
        return took | {"counts": int(counts.sum(dtype="u8").compute()), "dtype": str(counts.dtype)}
    return took | {"counts": int(counts.sum(dtype="u8")), "dtype": str(counts.dtype)}


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=float, default=2000, help="size of the stream")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of a side of the map")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--detectors", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the file is made, or is already")
    parser.add_argument("--way", help="only this one, here: for the processes that are measured")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        path = folder / "stream.emd"
        if given.way:
            print(json.dumps(measure(given.way, path, Path(scratch))))
            return []
        if not path.exists():
            begin = time.perf_counter()
            made = make_stream(
                path, megabytes=given.mb, side=given.side, frames=given.frames, detectors=given.detectors
            )
            print(f"{path.stat().st_size / 1e6:.0f} MB, {made} X-rays, made in {time.perf_counter() - begin:.0f} s")
        size = path.stat().st_size / 1e6
        rows = []
        print("| way | wall s | CPU s | MB per CPU s | peak RSS MB | store MB | counts |")
        print("|---|---|---|---|---|---|---|")
        for way in WAYS:
            command = [sys.executable, "-m", "tests.bench.ingest", "--folder", str(folder), "--way", way]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row = json.loads(done.stdout.splitlines()[-1]) | {"way": way}
            rows.append(row)
            print(
                f"| {way} | {row['wall']:.1f} | {row['cpu']:.1f} | {size / row['cpu']:.0f} | {row['rss_mb']:.0f} "
                f"| {row.get('stored_mb', 0):.0f} | {row['counts']} {row['dtype']} |"
            )
        return rows


if __name__ == "__main__":
    main()
