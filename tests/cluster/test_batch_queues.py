"""Job scripts for the queues, and what is refused before a job is submitted. A real queue runs in test_slurm.py."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import dask
import pytest

from scalehsi.cluster import batch_queues, connect
from scalehsi.cluster.walltime import lifetime, walltime_seconds
from scalehsi.schema import InputError
from tests.cluster.waiting import until

pytest.importorskip("dask_jobqueue", reason='the queues need dask-jobqueue: pip install "scalehsi[cluster]"')

JOB = {"cores": 4, "memory": "8GiB"}


@pytest.fixture(autouse=True)
def _plain_configuration(tmp_path, monkeypatch):
    """No site configuration, and an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    with dask.config.set(
        {f"jobqueue.{kind}.{n}": None for kind in batch_queues.QUEUES for n in ("cores", "memory", "queue")}
    ):
        yield


def script_of(kind: str = "slurm", **options) -> str:
    text = connect(kind, dry_run=True, **{**JOB, **options}).script
    assert text is not None
    return text


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        ("slurm", ["#SBATCH -J scalehsi", "#SBATCH -p fast", "#SBATCH --cpus-per-task=4", "#SBATCH --mem=8G"]),
        ("sge", ["#$ -N scalehsi", "#$ -q fast", "#$ -l h_rt=02:00:00"]),
        (
            "pbs",
            ["#PBS -N scalehsi", "#PBS -q fast", "#PBS -l select=1:ncpus=4:mem=8192MB", "#PBS -l walltime=02:00:00"],
        ),
        ("lsf", ["#BSUB -J scalehsi", "#BSUB -q fast", "#BSUB -n 4", "#BSUB -W 02:00"]),
    ],
)
def test_scripts_of_every_queue(kind, header, tmp_path):
    walltime = "02:00" if kind == "lsf" else "02:00:00"
    text = script_of(kind, queue="fast", walltime=walltime)
    lines = text.splitlines()
    assert set(header) <= set(lines)
    assert lines.index("export OMP_NUM_THREADS=1") < lines.index("export NUMBA_NUM_THREADS=1") < len(lines) - 1
    command = lines[-1]
    assert (
        " -m distributed.cli.dask_worker tls://<this-machine>:<port> --name scalehsi-<number> --nthreads 4 " in command
    )
    assert "--memory-limit 8.00GiB --nanny" in command
    # The web pages of a worker are not visible from outside, and it stops before the queue would kill it.
    assert "--no-dashboard --dashboard-address 127.0.0.1:0" in command
    assert "--lifetime 6600s --lifetime-stagger 450s" in command
    assert f"--protocol tls:// --tls-ca-file {tmp_path}/.scalehsi-run-<random>/cert.pem" in command
    assert list(tmp_path.iterdir()) == []


def test_options_travel_to_the_script():
    text = script_of(
        partition="gpu",
        account="p123",
        threads=4,
        walltime="1-00:00:00",
        job_name="mine",
        local_directory="/scratch/$USER",
        job_script_prologue=["module load python"],
        job_extra_directives=["--constraint=avx512"],
        worker_extra_args=["--lifetime", "55m"],
    )
    lines = text.splitlines()
    wanted = {"#SBATCH -p gpu", "#SBATCH -A p123", "#SBATCH -J mine", "#SBATCH -t 1-00:00:00", "module load python"}
    assert wanted | {"#SBATCH --constraint=avx512"} <= set(lines)
    assert "--local-directory /scratch/$USER --lifetime 55m --no-dashboard" in lines[-1]
    assert "--lifetime-stagger" not in lines[-1]


@pytest.mark.parametrize(
    ("options", "encrypted", "listens"),
    [
        ({}, True, "tls://<this-machine>"),
        ({"host": "192.0.2.7"}, True, "tls://192.0.2.7"),
        ({"host": "127.0.0.1"}, True, "tls://127.0.0.1"),
        ({"interface": "lo"}, True, "tls://<this-machine>"),
        ({"host": "192.0.2.7", "security": True}, True, "tls://192.0.2.7"),
        ({"host": "192.0.2.7", "security": False}, False, "tcp://192.0.2.7"),
    ],
)
def test_connections_are_encrypted_unless_the_user_says_no(options, encrypted, listens):
    if "interface" in options and not Path("/sys/class/net/lo").exists():
        pytest.skip("the loopback interface has another name on this system")
    command = script_of(**options).splitlines()[-1]
    assert ("--tls-key" in command) is encrypted
    assert f" {listens}:<port> " in command
    on_loopback = options.get("host") == "127.0.0.1" or options.get("interface") == "lo"
    assert (command.endswith("--host 127.0.0.1") or "--interface lo" in command or "--host 127.0.0.1 " in command) is (
        on_loopback
    )


def test_a_site_configuration_is_read():
    site = {"cores": 16, "memory": "64GB", "walltime": "08:00:00", "processes": 4, "name": "site", "queue": "long"}
    with dask.config.set({f"jobqueue.slurm.{k}": v for k, v in site.items()}):
        lines = connect("slurm", dry_run=True).script.splitlines()
        assert {"#SBATCH -J site", "#SBATCH -p long", "#SBATCH --cpus-per-task=16", "#SBATCH -t 08:00:00"} <= set(lines)
        # One process in each job, independent of the site: a lost job of several would not be replaced.
        assert "--nthreads 16 --memory-limit 59.60GiB --nanny" in lines[-1]
        assert "--lifetime 28200s --lifetime-stagger 450s" in lines[-1]
        assert "#SBATCH --cpus-per-task=2" in connect("slurm", threads=2, dry_run=True).script


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cores": 4}, "needs a number of cores and a memory size, got no memory; type connect.'slurm', cores=8"),
        ({"memory": "8GiB"}, "got no cores; .* or set jobqueue.slurm.cores in Dask's configuration"),
        ({**JOB, "memory": "much"}, "memory='much' is no memory size"),
        ({**JOB, "cores": "four"}, "cores='four' is expected to be a whole number"),
        ({**JOB, "threads": 2}, "cores=4 and threads=2 disagree"),
        ({**JOB, "wall_time": "1:00"}, "unknown option 'wall_time' for connect.'slurm'.; did you mean 'walltime'"),
        ({**JOB, "memmory": "8GiB"}, "did you mean 'memory'"),
        ({**JOB, "project": "p"}, "unknown option 'project'"),
        ({**JOB, "processes": 2}, "processes= is no option: a job is one worker process"),
        ({**JOB, "walltime": "1h"}, "walltime '1h' is not what slurm reads; type for example '2-12:00:00'"),
        ({**JOB, "partition": "a", "queue": "b"}, "partition= and queue= both name the queue"),
        ({**JOB, "interface": "nope0"}, "this machine has no network interface 'nope0'"),
        ({**JOB, "shared_temp_directory": "/with a space"}, "contains a space"),
        ({**JOB, "scheduler_options": {"jupyter": True}}, "web pages stay on loopback and run no code"),
        ({**JOB, "scheduler_options": {"dashboard_address": "0.0.0.0:8787"}}, "instead of dashboard_address"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        connect("slurm", dry_run=True, **options)


def test_a_dry_run_computes_nothing():
    job = connect("slurm", dry_run=True, **JOB)
    assert repr(job) == "<Cluster 'slurm', dry run>"
    with pytest.raises(InputError, match="a dry run starts nothing: print"), job:
        pass
    job.close()


def test_a_machine_that_cannot_submit_is_refused_with_the_repair(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"'bsub' is not on this machine's PATH.*run this on a login node"):
        connect("lsf", **JOB)


def test_without_dask_jobqueue_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(InputError, match=r'needs dask-jobqueue.*pip install "scalehsi\[cluster\]"'):
        connect("slurm", dry_run=True, **JOB)


@pytest.mark.parametrize(
    ("kind", "walltime", "seconds"),
    [
        ("slurm", "90", 5400),
        ("slurm", "30:15", 1815),
        ("slurm", "02:30:00", 9000),
        ("slurm", "1-0", 86400),
        ("slurm", "2-12:30", 217800),
        ("slurm", "1-02:03:04", 93784),
        ("slurm", "UNLIMITED", None),
        ("pbs", "3600", 3600),
        ("pbs", "24:00:00", 86400),
        ("sge", "0:20:00", 1200),
        ("lsf", "45", 2700),
        ("lsf", "8:30/host", 30600),
    ],
)
def test_wall_times_are_read_as_the_queue_reads_them(kind, walltime, seconds):
    assert walltime_seconds(kind, walltime) == seconds


@pytest.mark.parametrize(
    ("kind", "walltime"), [("slurm", "2h"), ("slurm", ""), ("pbs", "1-00:00:00"), ("lsf", "1:2:3:4"), ("slurm", "x-1")]
)
def test_other_wall_times_are_refused(kind, walltime):
    with pytest.raises(InputError, match=rf"is not what {kind} reads; type for example"):
        walltime_seconds(kind, walltime)


@pytest.mark.parametrize("walltime", [1, 2, 10, 60, 119, 600, 3600, 28800, 10**6])
def test_a_worker_stops_before_its_wall_time_whatever_the_stagger(walltime):
    end, stagger = lifetime(walltime)
    assert 0 <= stagger <= end
    assert end + stagger <= walltime
    assert walltime < 600 or end - stagger >= 0.8 * walltime


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Replace sbatch, which then keeps the script and gives the chosen answer, and scancel: no queue is needed."""

    def answer(text: str, code: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        kept = tmp_path / "submitted"
        (folder / "sbatch").write_text(
            f'#!/bin/sh\ncat "$1" >> {kept}\nls -la {tmp_path}/.scalehsi-run-* >> {kept} 2>&1\n'
            f"echo '{text}' >&2\necho '{text}'\nexit {code}\n",
            encoding="utf-8",
        )
        (folder / "scancel").write_text(f'#!/bin/sh\necho cancelled "$@" >> {kept}\n', encoding="utf-8")
        for tool in folder.iterdir():
            tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return kept

    return answer


@pytest.mark.cluster
def test_a_refused_job_is_an_error_with_the_words_of_the_queue(sbatch, tmp_path):
    sbatch("sbatch: error: invalid account or partition", code=1)
    with pytest.raises(
        InputError, match=r"slurm refused the job: sbatch: error: invalid account or partition; compare"
    ):
        connect("slurm", workers=2, host="127.0.0.1", **JOB)
    assert dask.config.get("scheduler", None) is None


@pytest.mark.cluster
def test_an_address_that_is_not_of_this_machine_is_refused(sbatch):
    sbatch("Submitted batch job 1")
    with pytest.raises(InputError, match=r"cannot listen at '192\.0\.2\.99', which is not an address of this machine"):
        connect("slurm", host="192.0.2.99", security=False, **JOB)


@pytest.mark.cluster
def test_the_certificate_is_private_and_goes_with_the_cluster(sbatch, tmp_path):
    kept = sbatch("Submitted batch job 77")
    with connect("slurm", workers=2, host="127.0.0.1", security=True, dashboard=False, **JOB) as cluster:
        assert cluster.client.scheduler.address.startswith("tls://127.0.0.1:")
        (folder,) = tmp_path.glob(".scalehsi-run-*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
        assert f"--tls-key {folder}/key.pem" in cluster.script
        assert cluster.workers == ()
        with pytest.raises(TimeoutError, match=r"0 of 2 workers came within 0\.1 s; the jobs may still wait"):
            cluster.wait(timeout=0.1)
        submitted = kept.read_text(encoding="utf-8")
        assert submitted.count("#SBATCH -J scalehsi") == 2
        assert "BEGIN" not in submitted
    assert not folder.exists()
    assert "cancelled 77" in kept.read_text(encoding="utf-8")


@pytest.mark.cluster
def test_a_job_refused_later_is_offered_again(sbatch, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(batch_queues, "RETRY_SECONDS", 0.5)
    kept = sbatch("Submitted batch job 5")
    with connect("slurm", workers=1, host="127.0.0.1", dashboard=False, **JOB) as cluster:
        assert kept.read_text(encoding="utf-8").count("#SBATCH -J") == 1
        # The worker's entry is removed, as after the loss of its job, while the queue does not work.
        tool = tmp_path / "bin" / "sbatch"
        good = tool.read_text(encoding="utf-8")
        tool.write_text("#!/bin/sh\necho 'controller is down' >&2\nexit 1\n", encoding="utf-8")
        running = cluster.client.cluster
        running.loop.add_callback(running.workers.clear)
        until(lambda: "slurm refused a job, next try in 0 s: controller is down" in caplog.text)
        tool.write_text(good, encoding="utf-8")
        until(lambda: kept.read_text(encoding="utf-8").count("#SBATCH -J") == 2)
    assert dask.config.get("distributed.deploy.lost-worker-timeout") != batch_queues.LOST_WORKER_TIMEOUT
