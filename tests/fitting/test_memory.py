"""Fits and conversions under a real memory limit of the workers: they end right, or are refused before they read."""

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
    import xarray as xr

    import scalehsi as hsi


    def block(block_info=None):
        # Four spectra in smooth mixtures, whole blocks at once: quick to make, honest to fit.
        (y0, y1), (x0, x1), (_, channels) = block_info[None]["array-location"]
        y, x = np.mgrid[y0:y1, x0:x1]
        e = np.linspace(0, 1, channels)
        s = np.stack([np.exp(-((e - m) ** 2) / 0.005) for m in (0.2, 0.4, 0.6, 0.8)]) + 0.05
        c = np.stack([1 + np.sin(y / 40 + k) * np.cos(x / 50 - k) for k in range(4)], axis=-1)
        counts = np.float32(20) * (c.reshape(-1, 4).astype("f4") @ s.astype("f4"))
        return counts.astype("u2").reshape(y1 - y0, x1 - x0, channels)


    def write(store, side):
        chunks = tuple((64,) * (side // 64) for _ in range(2)) + ((1024,),)
        data = da.map_blocks(block, chunks=chunks, dtype="u2", meta=np.empty((0, 0, 0), "u2"))
        hsi.save(hsi.make_cube(data, energy=np.arange(1024.0), energy_units="eV"), store)


    def peak_rss(dask_worker=None):
        # VmHWM belongs to this program; ru_maxrss also counts what the process was before it became this program.
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


    if __name__ == "__main__":
        store, limit, side = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
        if not os.path.exists(store):
            write(store, side)
            raise SystemExit
        with hsi.connect("local", workers=1, memory=limit) as cluster:
            cube = hsi.open_cube(store)
            model = hsi.NMF(4, max_iter=2, tol=0)
            plan = hsi.plan(cube, model)
            result = hsi.fit(cube, model, seed=0)
            peaks = list(cluster.client.run(peak_rss).values())
        print(json.dumps({
            "cube": cube.nbytes, "worker": max(peaks), "client": peak_rss(), "resident": plan.resident,
            "planned": plan.worker_bytes, "status": result.attrs["status"],
            "residual": float(result.residual.max()), "signal": float(result.mean_spectrum.mean()),
        }))
""")


@pytest.mark.cluster
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(("times", "side"), [(4, 1024), pytest.param(8, 1472, marks=pytest.mark.slow)])
def test_a_cube_of_many_times_the_limit_is_fitted_under_it(tmp_path: Path, times: int, side: int) -> None:
    script = tmp_path / "fit.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "big.zarr"), str(LIMIT), str(side)]
    subprocess.run(command, check=True, timeout=300)  # writes the store, in a process of its own
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["cube"] >= times * LIMIT
    assert not figures["resident"]
    assert figures["worker"] < LIMIT
    assert figures["client"] < 500 * 2**20
    assert figures["status"] == "max_iter"
    # Worker restarts would leave a result of the same numbers but no peak to read; the fit itself must be right too.
    assert figures["residual"] < 0.2 * figures["signal"]


REPAIRED = textwrap.dedent("""
    import json, os, re, sys

    import numpy as np

    import scalehsi as hsi

    LIMIT = 450 * 2**20


    def write(store, dtype, channels, chunk, side):
        # Sparse counts: quick to write and to decode. Chunks as other programs choose them.
        tile = np.random.default_rng(0).poisson(0.1 + np.arange(channels) % 7 / 50, (side, channels)).astype(dtype)
        cube = hsi.make_cube(np.broadcast_to(tile, (side, side, channels)), energy=np.arange(float(channels)),
                             energy_units="eV")
        encoding = {"cube": {"chunks": tuple(min(c, n) for c, n in zip(chunk, cube.shape))}}
        cube.rename("cube").to_dataset().to_zarr(store, zarr_format=3, encoding=encoding, consolidated=False)


    def pid(dask_worker=None):
        return os.getpid()


    def status_bytes(name):
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


    if __name__ == "__main__":
        folder, dtype, chunks, model = sys.argv[1:]
        os.chdir(folder)
        if not os.path.exists("big.zarr"):
            write("big.zarr", dtype, 512, json.loads(chunks), 300)
            raise SystemExit
        model = {"nmf": hsi.NMF(3, max_iter=2, tol=0), "psnmf": hsi.PSNMF(3, bin_factor=25, max_iter=2, tol=0)}[model]
        found = {"message": ""}
        with hsi.connect("local", workers=1, memory=LIMIT) as cluster:
            workers = cluster.client.run(pid)
            cube = hsi.open_cube("big.zarr")
            found["cube"] = cube.nbytes
            records = []
            try:
                result = hsi.fit(cube, model, seed=0, progress=records.append)
            except hsi.InputError as error:
                found["message"] = str(error)
                typed = re.search(r"scalehsi convert (\\S+) (\\S+) --chunk-mb (\\d+)", found["message"])
                source, target, mb = typed.groups()
                found["blocks"] = len(records)
                with open("/proc/self/clear_refs", "w") as peak:
                    peak.write("5")  # sets it to what is filled now
                before = status_bytes("VmRSS")
                path = hsi.convert(source, target, chunk_mb=float(mb))
                found["converting"] = status_bytes("VmHWM") - before
                result = hsi.fit(hsi.open_cube(path), model, seed=0)
            found["status"] = result.attrs["status"]
            found["same workers"] = cluster.client.run(pid) == workers
            found["finite"] = bool(np.isfinite(result["endmembers"].values).all())
        print(json.dumps(found))
""")


def repaired(tmp_path: Path, dtype: str, chunks: tuple[int, ...], model: str) -> dict[str, object]:
    """Fit a store of these chunks on a worker of 450 MiB; if that is refused, convert as the message says, and fit."""
    script = tmp_path / "repaired.py"
    script.write_text(REPAIRED)
    command = [sys.executable, str(script), str(tmp_path), dtype, json.dumps(chunks), model]
    subprocess.run(command, check=True, timeout=300)  # writes the store
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("chunks", "copies"), [((300, 300, 512), 2.5), ((300, 300, 8), 0.5)], ids=["one chunk", "energy chunks"]
)
def test_chunks_that_would_kill_a_worker_are_refused_and_the_convert_repairs_them(
    tmp_path: Path, chunks: tuple[int, ...], copies: float
) -> None:
    found = repaired(tmp_path, "float32", chunks, "nmf")
    assert found["cube"] == 300 * 300 * 512 * 4
    assert "to decode and join its stored chunks" in str(found["message"])
    assert found["blocks"] == 0  # nothing was read
    # A chunk larger than a worker's share is decoded in this process, others in the worker.
    assert float(str(found["converting"])) < copies * 300 * 300 * 512 * 4
    assert found["status"] == "max_iter"
    assert found["same workers"]  # none was killed
    assert found["finite"]


@pytest.mark.slow
@pytest.mark.cluster
def test_a_mixture_of_dense_counts_stays_within_the_memory(tmp_path: Path) -> None:
    found = repaired(tmp_path, "uint16", (64, 64, 512), "psnmf")
    assert found["status"] == "max_iter"
    assert found["same workers"]
    assert found["finite"]
