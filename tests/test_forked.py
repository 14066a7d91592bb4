"""A process that is forked after a fit computes by its own threads, ends, and leaves its parent's workers alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

SCRIPT = """
import contextlib, multiprocessing, os, sys, warnings
warnings.simplefilter("ignore")  # Python 3.12 warns of a fork with threads
import distributed
import scalehsi as hsi

def objective(seed=0):
    cube, _ = hsi.simulate.chequerboard((16, 16), n_channels=64, seed=3)
    return float(hsi.fit(cube, hsi.NMF(3, max_iter=4), seed=seed)["objective"][-1])

def forked():
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, str(objective()).encode())
        sys.exit(0)  # out of the with block of the parent, and through what runs at the end of Python
    os.close(writing)
    assert os.waitpid(pid, 0)[1] == 0
    return float(os.read(reading, 1000))

PLACES = {
    "threads": contextlib.nullcontext,
    "connect": lambda: hsi.connect("local", workers=1, memory="700MiB", dashboard=False),
    "client": lambda: distributed.Client(n_workers=1, threads_per_worker=1, dashboard_address=None),
    "client in this process": lambda: distributed.Client(processes=False, dashboard_address=None),
}

if __name__ == "__main__":
    right = objective()
    assert forked() == right
    with PLACES[sys.argv[1]]() as place:
        there = objective()
        assert forked() == right
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map_async(objective, [0, 0]).get(120) == [right, right]
        assert objective() == there  # the workers of the parent still work
    assert forked() == objective() == right
"""


@pytest.mark.parametrize(
    "where",
    [
        "threads",
        *(pytest.param(n, marks=pytest.mark.cluster) for n in ("connect", "client", "client in this process")),
    ],
)
def test_a_forked_process_computes_and_ends(where: str, tmp_path: Path) -> None:
    script = tmp_path / "forked.py"
    script.write_text(SCRIPT)
    words = [sys.executable, str(script), where]
    done = subprocess.run(words, check=False, timeout=400, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
