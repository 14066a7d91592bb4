"""Time from a written block to its maps: a scan of 64 x 64 x 1024 counts, followed as it is acquired.

Processor times on one thread, after the kernels are compiled and the store is open, reading and decoding included.
Exits with 1 where the whole scan takes more than 0.1 s.

Run with: python -m tests.bench.live [--size 64] [--channels 1024] [--components 5]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import scalehsi as hsi
from scalehsi.models.live import Watch
from tests.bench.machine import seconds

LIMIT_SECONDS = 0.1
BLOCK = 16


def table(size: int = 64, channels: int = 1024, components: int = 5) -> list[dict[str, Any]]:
    """A row for each way to get the maps of the scan."""
    # The first row of blocks opens the store and compiles.
    lazy, _ = hsi.simulate.chequerboard((BLOCK + size, size), n_channels=channels, counts_per_pixel=300, seed=1)
    cube = lazy.compute().astype(np.uint8)
    result = hsi.fit(cube, hsi.NMF(components, loss="poisson", max_iter=20), seed=0)
    want = hsi.project(result, cube)
    rows = []
    for way, together in (("a look at one new block", 1), ("one look at the whole scan", (size // BLOCK) ** 2)):
        with tempfile.TemporaryDirectory() as folder:
            following, times = Watch(Path(folder, "scan.zarr"), result), []
            for number, _ in enumerate(hsi.simulate.acquire(cube, Path(folder, "scan.zarr"), block=BLOCK), start=1):
                behind = number - size // BLOCK
                if behind <= 0 or behind % together == 0:
                    begin = time.process_time()
                    live = following.look(float(number))
                    times += [time.process_time() - begin] if behind > 0 else []
            off = float(abs(live.result["abundances"] - want).max())
            rows.append({"way": way, "blocks": together, "ms": f"{1e3 * np.median(times):.1f}", "off": off})
    cube = cube[BLOCK:]
    rows.append({"way": "hsi.project(...).compute(), in memory", "blocks": "", "off": 0.0})
    rows[-1]["ms"] = f"{1e3 * seconds(lambda: hsi.project(result, cube).compute()):.1f}"
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--components", type=int, default=5)
    given = parser.parse_args()
    rows = table(given.size, given.channels, given.components)
    print("| way | blocks | processor ms | largest difference |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['way']} | {row['blocks']} | {row['ms']} | {row['off']:.1g} |")
    return int(float(rows[1]["ms"]) > 1e3 * LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
