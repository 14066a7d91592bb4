"""A real Slurm of three node daemons on this machine: lost jobs are replaced, and no number changes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest

import scalehsi as hsi
from scalehsi.cluster import batch_queues
from tests.cluster.waiting import until
from tests.paths import ROOT

SCRIPT = ROOT / "deploy" / "slurm" / "local_slurm.sh"
SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

pytest.importorskip("dask_jobqueue", reason='the queues need dask-jobqueue: pip install "scalehsi[cluster]"')
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        shutil.which("slurmctld", path=SYSTEM_PATH) is None,
        reason="Slurm is not installed: apt-get install -y --no-install-recommends slurm-wlm",
    ),
]

JOB = {"workers": 3, "cores": 1, "memory": "1GiB", "walltime": "00:30:00", "lost_worker_timeout": "1s"}
LOOPBACK = {"host": "127.0.0.1", "dashboard": False}


def local_slurm(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def slurm(*command: str) -> list[str]:
    """The lines that a command of Slurm prints."""
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split("\n")[:-1]


def running_jobs() -> set[str]:
    return set(slurm("squeue", "--noheader", "--states=RUNNING", "--format=%i"))


def ours(folder: Path) -> list[psutil.Process]:
    """The daemons of the Slurm in a folder, and the processes of its jobs."""
    found = []
    for process in psutil.process_iter():
        try:
            in_job = (
                process.environ().get("SLURM_CONF") == f"{folder}/slurm.conf" and "SLURM_JOB_ID" in process.environ()
            )
            if in_job or any(f"{folder}/" in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:  # it ended, or belongs to another user
            continue
    return [p for p in found if p.pid != os.getpid() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Path]:
    """Three nodes in a folder with a short path (for sockets), removed with all their processes at the end."""
    folder = Path(tempfile.mkdtemp(prefix="scalehsi-slurm-", dir="/tmp"))
    (folder / "work").mkdir()
    try:
        done = local_slurm("up", folder, "--nodes", 3, "--cpus", 2, "--memory", 4000)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"export SLURM_CONF={folder}/slurm.conf\n"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", f"{folder}/slurm.conf")
            patch.setenv("PATH", SYSTEM_PATH)
            # The jobs must find this checkout, which need not be installed.
            patch.setenv(
                "PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
            )
            patch.chdir(folder / "work")
            yield folder
    finally:
        local_slurm("down", folder)
        for process in ours(folder):
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def test_the_script_of_the_project_shows_its_nodes_and_listens_on_loopback(nodes):
    shown = local_slurm("status", nodes)
    assert shown.returncode == 0, shown.stderr
    assert re.findall(r"^ *(n\d) +(\w+) +(\d+) +(\d+)$", shown.stdout, flags=re.MULTILINE) == [
        (f"n{i}", "idle", "2", "4000") for i in (1, 2, 3)
    ]
    again = local_slurm("up", nodes)
    assert again.returncode == 2
    assert "a Slurm is up in" in again.stderr
    addresses = {
        (p.name(), c.laddr.ip) for p in ours(nodes) for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN
    }
    assert addresses == {("slurmctld", "127.0.0.1"), ("slurmd", "127.0.0.1")}


def test_jobs_compute_and_everything_they_open_is_on_loopback_over_tls(nodes):
    pytest.importorskip("cryptography", reason="certificates of our own need the package cryptography")
    with hsi.connect("slurm", **{**JOB, **LOOPBACK}, security=True, wait=60) as cluster:
        assert [(w.threads, w.memory) for w in cluster.workers] == [(1, 2**30)] * 3
        assert all(w.address.startswith("tls://127.0.0.1:") for w in cluster.workers)
        seen = cluster.client.run(lambda names: [os.environ[n] for n in names], list(batch_queues.THREAD_VARIABLES))
        assert list(seen.values()) == [["1"] * len(batch_queues.THREAD_VARIABLES)] * 3
        listening = {
            c.laddr.ip
            for p in [psutil.Process(), *ours(nodes)]
            for c in p.net_connections("inet")
            if c.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        assert set(slurm("squeue", "--noheader", "--format=%j %N")) == {f"scalehsi n{i}" for i in (1, 2, 3)}
    until(lambda: not slurm("squeue", "--noheader"))
    assert dask.delayed(os.getpid, pure=False)().compute() == os.getpid()


def test_a_fit_survives_the_loss_of_a_job(nodes):
    cube, _ = hsi.simulate.phases((128, 128), n_channels=1024, seed=1, chunk=64)
    model = hsi.NMF(n_components=3, max_iter=8, tol=0.0)
    expected = hsi.fit(cube, model, seed=0)
    lost: dict[str, int] = {}

    def cancel(step) -> None:
        """After the third iteration, once: cancel the job that holds most of the cube."""
        if step.iteration < 3 or lost:
            return
        job_of = cluster.client.run(lambda: os.environ["SLURM_JOB_ID"])
        blocks = {job_of[address]: len(keys) for address, keys in cluster.client.has_what().items()}
        job = max(blocks, key=lambda job: blocks[job])
        slurm("scancel", job)
        until(lambda: len(cluster.workers) == 2)
        lost[job] = blocks[job]

    with hsi.connect("slurm", **{**JOB, **LOOPBACK}, wait=60) as cluster:
        before = running_jobs()
        result = hsi.fit(cube, model, seed=0, progress=cancel)
        assert min(lost.values()) >= 1, "the cancelled job had no data, so nothing was lost"
        until(lambda: len(running_jobs()) == 3 and len(cluster.workers) == 3)
        assert before - running_jobs() == set(lost)
        assert len(running_jobs() - before) == 1
    assert result.attrs["status"] == expected.attrs["status"] == "max_iter"
    for name in ("endmembers", "abundances", "objective"):
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_a_client_that_is_killed_leaves_no_job_behind(nodes):
    code = (
        "import os, signal, scalehsi as hsi\n"
        "if __name__ == '__main__':\n"
        f"    with hsi.connect('slurm', **{ {**JOB, **LOOPBACK}!r}, wait=60):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -9, done.stderr
    until(lambda: not slurm("squeue", "--noheader"))


def daemons(folder: Path, name: str) -> list[psutil.Process]:
    return [p for p in ours(folder) if p.name() == name]


@pytest.mark.parametrize("how", ["scancel", pytest.param("wall time", marks=pytest.mark.slow)])
def test_a_command_in_a_job_that_ends_keeps_its_state(how: str, nodes: Path) -> None:
    side, k = (96, 3) if how == "scancel" else (384, 8)  # a fit that would take minutes
    cube, _ = hsi.simulate.phases((side, side), n_channels=512, seed=1, chunk=96)
    hsi.save(cube, "map.zarr", overwrite=True)
    fit = (
        f"fit map.zarr r.zarr -k {k} --set loss=poisson --set bin_factor=1 --set tol=0 --set max_iter=1000000 "
        "--overwrite"
    )
    state, log = Path(f"{how[:4]}.ckpt"), Path(f"{how[:4]}.log")
    wrap = f"exec {sys.executable} -m scalehsi {fit} --checkpoint {state} --quiet"
    job = slurm("sbatch", "--parsable", "--time=1", f"--output={log}", "--wrap", wrap)[0]
    until(lambda: (state / "state.npz").exists())
    if how == "scancel":
        slurm("scancel", job)
    until(lambda: not slurm("squeue", "--noheader"), seconds=240)
    said = [line for line in log.read_text().splitlines() if "slurmstepd" not in line]
    assert said[0].startswith("stopping: waits for what is being written and ends with the state of the last complete")
    assert "stopped by SIGTERM after" in said[1]
    assert f"the state is in '{state}', go on with: scalehsi fit" in said[1]
    assert not Path("r.zarr").exists()


def test_a_fit_does_not_need_the_queue_once_its_jobs_run(nodes: Path) -> None:
    cube, _ = hsi.simulate.phases((64, 64), n_channels=256, seed=1, chunk=32)
    model = hsi.NMF(n_components=3, max_iter=8, tol=0.0)
    expected = hsi.fit(cube, model, seed=0)

    def kill(step) -> None:
        for controller in daemons(nodes, "slurmctld") if step.iteration == 3 else ():
            controller.kill()

    with hsi.connect("slurm", **{**JOB, **LOOPBACK}, wait=60):
        result = hsi.fit(cube, model, seed=0, progress=kill)
        assert not daemons(nodes, "slurmctld")
        subprocess.run(["slurmctld", "-f", f"{nodes}/slurm.conf"], check=True, timeout=60)
        until(lambda: daemons(nodes, "slurmctld"))
    np.testing.assert_allclose(result["objective"], expected["objective"], rtol=1e-5)
    until(lambda: not slurm("squeue", "--noheader"))
    # A controller that is started again learns late that a node is free, and jobs would wait for it.
    until(lambda: set(slurm("sinfo", "--noheader", "--Node", "--format=%t")) == {"idle"}, seconds=180)


def test_a_fit_whose_nodes_are_all_lost_ends_with_its_checkpoint(nodes: Path) -> None:
    cube, _ = hsi.simulate.phases((64, 64), n_channels=256, seed=1, chunk=32)
    model = hsi.NMF(n_components=3, loss="poisson", max_iter=1000000, tol=0.0)
    killed: list[float] = []

    def kill(step) -> None:
        if step.iteration == 3 and not killed:
            for process in ours(nodes):
                if process.name() not in ("slurmctld", "munged"):
                    process.kill()
            killed.append(time.monotonic())

    try:
        with hsi.connect("slurm", **{**JOB, **LOOPBACK}, wait=60):
            with pytest.raises(hsi.WorkersLost, match=r"all workers of the cluster are gone.*state is in lost.ckpt"):
                hsi.fit(cube, model, seed=0, progress=kill, checkpoint="lost.ckpt")
            assert time.monotonic() - killed[0] < 60
    finally:
        for words in (("down",), ("up", "--nodes", 3, "--cpus", 2, "--memory", 4000)):
            done = local_slurm(words[0], nodes, *words[1:])
            assert done.returncode == 0, done.stderr


def test_down_leaves_nothing_running(nodes):
    slurm("sbatch", "--output=/dev/null", "--wrap", "(setsid sleep 300 &) ; sleep 300")
    until(running_jobs)
    done = local_slurm("down", nodes)
    assert done.returncode == 0, done.stderr
    until(lambda: ours(nodes) == [])  # the kernel removes a killed process a moment later
    status = local_slurm("status", nodes)
    assert (status.returncode, status.stderr) == (3, "local_slurm: down\n")
