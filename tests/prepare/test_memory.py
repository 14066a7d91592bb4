"""The usual order, spikes, background, fit, of a cube four times the memory of the worker, within what was planned."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

LIMIT = 512 * 2**20

SCRIPT = textwrap.dedent("""
    import json, os, sys

    import dask.array as da
    import numpy as np

    import scalehsi as hsi


    def block(block_info=None):
        # Two phases on power laws, one with an edge in the middle of the axis; mixtures are smooth.
        (y0, y1), (x0, x1), (_, channels) = block_info[None]["array-location"]
        y, x = np.mgrid[y0:y1, x0:x1]
        e = 400.0 + np.arange(channels)
        law = 60 * (e / 400) ** -3
        edge = 20 * (e > 900) * (e / 900) ** -4.0
        share = (0.5 + 0.5 * np.sin(y / 40) * np.cos(x / 50))[..., None]
        mean = (law + share * edge).astype("f4")
        rng = np.random.default_rng([y0, x0])
        return np.maximum(np.rint(mean + np.sqrt(mean) * rng.standard_normal(mean.shape, dtype="f4")), 0).astype("u2")


    def write(store, side):
        chunks = tuple((64,) * (side // 64) for _ in range(2)) + ((1024,),)
        data = da.map_blocks(block, chunks=chunks, dtype="u2", meta=np.empty((0, 0, 0), "u2"))
        hsi.save(hsi.make_cube(data, energy=400 + np.arange(1024.0), energy_units="eV", signal="EELS"), store)


    def peak_rss(dask_worker=None):
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


    if __name__ == "__main__":
        store, limit, side = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        if not os.path.exists(store):
            write(store, side)
            raise SystemExit
        with hsi.connect("local", workers=1, memory=limit) as cluster:
            before = max(cluster.client.run(peak_rss).values())
            raw = hsi.open_cube(store)
            cube = hsi.prepare.remove_spikes(raw, gain=1.0, readout=0.0)
            cube = hsi.prepare.remove_background(cube, (600, 890), gain=1.0, window_gain=1.0)
            cube = hsi.prepare.crop(cube, energy=(880, 1423))
            model = hsi.NMF(2, loss="frobenius", max_iter=2, tol=0)
            plan = hsi.plan(cube, model)
            result = hsi.fit(cube, model, seed=0)
            peaks = list(cluster.client.run(peak_rss).values())
        print(json.dumps({
            "raw": raw.nbytes, "worker": max(peaks), "before": before, "client": peak_rss(),
            "resident": plan.resident, "planned": plan.worker_bytes, "status": result.attrs["status"],
            "history": list(result.attrs["history"]) if not isinstance(result.attrs["history"], str)
            else result.attrs["history"].splitlines(),
        }))
""")


@pytest.mark.cluster
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_prepare_and_fit_of_a_cube_four_times_the_limit_stay_within_the_plan(tmp_path: Path) -> None:
    script = tmp_path / "fit.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "big.zarr"), str(LIMIT), "1024"]
    subprocess.run(command, check=True, timeout=600)  # writes the store, in a process of its own
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    print(figures)
    assert figures["raw"] >= 4 * LIMIT
    assert not figures["resident"]
    assert figures["worker"] < LIMIT
    assert figures["client"] < 500 * 2**20
    assert figures["status"] == "max_iter"
