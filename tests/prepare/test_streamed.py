"""A cube of four times the workers' memory: prepared and fitted in one go, block by block, within the plan."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from scalehsi.blocks.compute import PROCESS_BYTES

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc"),
]

LIMIT = 512 * 2**20

SCRIPT = textwrap.dedent("""
    import json, os, sys, warnings

    import dask.array as da
    import numpy as np

    import scalehsi as hsi

    ENERGY = 400.0 + 0.5 * np.arange(1024)


    def block(block_info=None):
        # Two edges, at 550 and 720 eV, on a power law; the energy axis drifts by a few channels over the scan.
        (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
        y, x = np.mgrid[y0:y1, x0:x1]
        share = (0.5 + 0.5 * np.sin(y / 90)).astype("f4")[..., None]
        first = np.where(ENERGY > 550, (ENERGY / 550) ** -3.0, 0).astype("f4")
        second = np.where(ENERGY > 720, (ENERGY / 720) ** -3.0, 0).astype("f4")
        counts = 4000 * (ENERGY / 400).astype("f4") ** -3 + 400 * (share * first + (1 - share) * second)
        rng = np.random.default_rng([y0, x0])
        counts = counts + np.sqrt(counts) * rng.standard_normal(counts.shape, dtype="f4")
        counts[::37, ::41, 300] += 20000  # spikes
        return np.maximum(counts, 0).astype("u2")


    def write(store, side):
        chunks = tuple((64,) * (side // 64) for _ in range(2)) + ((1024,),)
        data = da.map_blocks(block, chunks=chunks, dtype="u2", meta=np.empty((0, 0, 0), "u2"))
        hsi.save(hsi.make_cube(data, energy=ENERGY, energy_units="eV", signal="EELS"), store)


    def peak_rss(dask_worker=None):
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


    if __name__ == "__main__":
        store, limit, side = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        if not os.path.exists(store):
            write(store, side)
            raise SystemExit
        with hsi.connect("local", workers=1, memory=limit) as cluster:
            cube = hsi.prepare.remove_spikes(hsi.open_cube(store))
            cube = hsi.prepare.remove_background(cube, (450, 540))
            model = hsi.NMF(2, max_iter=3, tol=0)
            plan = hsi.plan(cube, model)
            result = hsi.fit(cube, model, seed=0)
            peaks = list(cluster.client.run(peak_rss).values())
            spectra = result["endmembers"].values
        at = [float(abs(s[100:290]).max() / s.max()) for s in spectra]
        print(json.dumps({
            "cube": cube.nbytes, "stored": hsi.open_cube(store).nbytes, "worker": max(peaks), "client": peak_rss(),
            "resident": plan.resident, "planned": plan.worker_bytes, "before_edges": max(at),
            "spike": float((spectra[:, 300] / spectra[:, 310]).max()),
        }))
""")


def test_a_prepared_cube_of_four_times_the_memory_is_fitted_within_the_plan(tmp_path: Path) -> None:
    script = tmp_path / "prepare_and_fit.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "big.zarr"), str(LIMIT), "1024"]
    subprocess.run(command, check=True, timeout=300)  # writes the store, in a process of its own
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["stored"] >= 4 * LIMIT
    assert not figures["resident"]
    assert figures["worker"] < LIMIT
    assert figures["worker"] <= 1.2 * (figures["planned"] + PROCESS_BYTES)
    assert figures["before_edges"] < 0.1, "the background is gone before the first edge"
    assert figures["spike"] < 1.2, "no needle is left where the spikes were"
