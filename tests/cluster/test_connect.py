"""`connect`: refusals, local workers, and running schedulers. The queues are in test_batch_queues.py."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import psutil
import pytest

from scalehsi.cli.runner import explain
from scalehsi.cluster import Cluster, connect, localhost
from scalehsi.schema import InputError, WorkersLost
from tests.cluster.waiting import until

MEMORY = "600MiB"
CERTIFICATE_FILES = ("tls_ca_file", "tls_client_cert", "tls_client_key")


def listening(process: psutil.Process) -> set[tuple[int, str, int]]:
    """(process, address, port) of all that a process and its children listen at."""
    found = set()
    for one in [process, *process.children(recursive=True)]:
        found |= {(one.pid, c.laddr.ip, c.laddr.port) for c in one.net_connections() if c.status == psutil.CONN_LISTEN}
    return found


# What is refused, before anything is started.


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("slrum", r"unknown kind of cluster 'slrum'; did you mean 'slurm'\? Known: local, lsf"),
        ("mpi", r"connect\('mpi'\) does not work yet; type one of local, slurm"),
        ("kubernetes", "does not work yet; type one of"),
        ("cuda", "does not work yet; type one of"),
        ("localhost:8786", "no address of a scheduler; type for example 'tcp://localhost:8786'"),
        ("tcp://localhost", "type for example 'tcp://localhost:8786'"),
        ("ucx://10.0.0.1:8786", "type for example 'tcp://10.0.0.1:8786'"),
        (None, r"expected as text, got NoneType; type connect\('local'\)"),
    ],
)
def test_unknown_kinds_are_refused(kind, message):
    with pytest.raises(InputError, match=message):
        connect(kind)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wokers": 2}, "unknown option 'wokers'.*did you mean 'workers'"),
        ({"walltime": "01:00:00"}, "unknown option 'walltime' for connect.'local'"),
        ({"workers": 0}, "workers=0 is expected to be a whole number from 1; type workers=2"),
        ({"workers": True}, "workers=True is expected to be a whole number"),
        ({"threads": 1.5}, "threads=1.5 is expected to be a whole number"),
        ({"memory": "lots"}, "memory='lots' is no memory size; type memory='2GiB'"),
        ({"memory": 12}, "memory=12 is no memory size"),
        ({"workers": 2, "memory": "999TiB"}, "2 workers of .* are more than this machine's .*type memory='[0-9]+MiB'"),
        ({"dashboard": "here"}, "dashboard='here' is no address; type dashboard='127.0.0.1:8787'"),
        ({"dashboard": "0.0.0.0:8787"}, "web pages are not encrypted, so they stay on loopback; type dashboard=8787"),
        ({"dashboard": 99999}, "a port is expected from 0 to 65535"),
        ({"dry_run": True}, "dry_run=True shows the job script of a queue; 'local' has none"),
    ],
)
def test_wrong_local_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        connect("local", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2}, "workers= has no meaning for .*whose workers are running"),
        ({"memory": "2GiB"}, "memory= has no meaning"),
        ({"cores": 2}, "unknown option 'cores'"),
        ({"tls_ca_file": "/nowhere/ca.pem"}, "tls_ca_file: there is no file '/nowhere/ca.pem'"),
    ],
)
def test_wrong_address_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        connect("tcp://127.0.0.1:8786", **options)


def test_tls_without_certificates_is_refused():
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(InputError, match="needs certificates; type tls_ca_file="),
    ):
        connect(f"tls://127.0.0.1:{other.getsockname()[1]}")


def test_an_address_without_a_listener_is_refused_before_dask_retries(monkeypatch):
    monkeypatch.setattr("distributed.Client", pytest.fail)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=f"no scheduler answers at .*dask scheduler --host 127.0.0.1 --port {port}"):
        connect(f"tcp://127.0.0.1:{port}")


def test_workers_that_end_before_they_are_connected_are_lost_and_no_wrong_input(monkeypatch):
    def ended(**options):
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("distributed.LocalCluster", ended)
    with pytest.raises(WorkersLost, match=r"the local workers did not start \(Nanny failed to start\.\)") as caught:
        connect("local", workers=1, memory=MEMORY)
    assert explain(caught.value, [])[0] == 1


# Where the dashboard goes, and the environment of workers.


def test_dashboard_takes_another_port_when_its_own_is_taken(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(localhost, "DASHBOARD_PORT", port)
        assert localhost.dashboard_options(True) == {"dashboard": True, "dashboard_address": "127.0.0.1:0"}
        with pytest.raises(InputError, match=f"dashboard={port}: this address is taken"):
            localhost.dashboard_options(port)
    assert localhost.dashboard_options(port)["dashboard_address"] == f"127.0.0.1:{port}"
    assert localhost.dashboard_options(f":{port}")["dashboard_address"] == f"127.0.0.1:{port}"
    assert localhost.dashboard_options(None) == {"dashboard": False, "dashboard_address": "127.0.0.1:0"}


def test_no_dashboard_without_bokeh(monkeypatch):
    monkeypatch.setitem(sys.modules, "bokeh", None)
    assert localhost.dashboard_options(True) == {"dashboard": False, "dashboard_address": "127.0.0.1:0"}


def test_thread_limits_keep_what_the_user_set_lower(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "64")
    monkeypatch.setenv("MKL_NUM_THREADS", "many")
    limits = localhost.thread_limits(8)
    assert (limits["OMP_NUM_THREADS"], limits["OPENBLAS_NUM_THREADS"], limits["MKL_NUM_THREADS"]) == ("3", "8", "8")
    assert set(localhost.thread_limits(0).values()) == {"1"}


def test_workers_share_the_free_memory(monkeypatch):
    machine, free = 4 * 2**30, 3 * 2**30
    monkeypatch.setattr(localhost.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    workers, limit = localhost.worker_memory(None, 1, None, machine=machine)
    assert 1 <= workers <= 3
    assert limit == free // workers
    assert localhost.worker_memory(3, 1, 2**30, machine=machine) == (3, 2**30)


# Local workers.


@pytest.fixture(scope="module")
def local() -> Iterator[Cluster]:
    before = {name: os.environ.get(name) for name in localhost.CHANGED_VARIABLES}
    with connect("local", workers=2, memory=MEMORY) as cluster:
        assert {name: os.environ.get(name) for name in localhost.CHANGED_VARIABLES} == before
        yield cluster
    assert {name: os.environ.get(name) for name in localhost.CHANGED_VARIABLES} == before


@pytest.mark.cluster
def test_local_workers_are_as_asked(local):
    assert [(w.name, w.threads, w.memory) for w in local.workers] == [("0", 1, 600 * 2**20), ("1", 1, 600 * 2**20)]
    assert local.kind == "local"
    assert local.script is None
    assert "2 workers, 2 threads, 1.17 GiB" in repr(local)
    local.wait(timeout=30)
    with pytest.raises(TimeoutError, match=r"2 of 3 workers came within 0\.2 s"):
        local.wait(3, timeout=0.2)


@pytest.mark.cluster
def test_local_cluster_listens_on_loopback_alone(local):
    found = listening(psutil.Process())
    ports = {port for _, _, port in found}
    assert {int(w.address.rpartition(":")[2]) for w in local.workers} <= ports
    assert {ip for _, ip, _ in found} == {"127.0.0.1"}


@pytest.mark.cluster
def test_local_dashboard_answers_at_its_url(local):
    if local.dashboard is None:
        pytest.skip("bokeh is not installed, so there is no dashboard")
    host, _, port = local.dashboard.removeprefix("http://").removesuffix("/status").rpartition(":")
    assert host == "127.0.0.1"
    with socket.create_connection((host, int(port)), timeout=30) as page:
        page.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert page.recv(64).startswith(b"HTTP/1.1 200")


@pytest.mark.cluster
def test_local_workers_limit_blas_and_numba_to_their_share(local):
    share = localhost.thread_limits(localhost.CPU_COUNT // 2)
    seen = local.client.run(lambda names: {n: os.environ.get(n) for n in names}, list(localhost.THREAD_VARIABLES))
    assert list(seen.values()) == [share, share]


@pytest.mark.cluster
def test_computing_uses_the_innermost_cluster_and_then_the_one_before(local):
    where = dask.delayed(os.getpid, pure=False)
    mine = os.getpid()
    outer = set(local.client.run(os.getpid).values())
    assert where().compute() in outer
    with connect("local", workers=1, memory=MEMORY, dashboard=False) as inner:
        assert inner.dashboard is None
        assert where().compute() not in outer | {mine}
    assert where().compute() in outer
    with pytest.raises(InputError, match="this cluster is closed; call connect"):
        _ = inner.workers
    inner.close()
    assert repr(inner) == "<Cluster 'local', closed>"


@pytest.mark.cluster
def test_after_the_cluster_the_threads_of_this_process_compute():
    with connect("local", workers=1, memory=MEMORY, dashboard=False) as cluster:
        children = psutil.Process().children(recursive=True)
        worker = next(iter(cluster.client.run(os.getpid).values()))
    until(lambda: worker not in {p.pid for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE})
    if dask.config.get("scheduler", None) is None:  # unless the fixture's cluster is still there
        assert dask.delayed(os.getpid, pure=False)().compute() == os.getpid()


@pytest.mark.cluster
def test_a_killed_worker_comes_back_and_changes_no_result(local):
    def block(i: int) -> np.ndarray:
        return np.random.default_rng(i).random((50, 8))

    blocks = dask.persist(*[dask.delayed(block)(i) for i in range(8)])
    total = dask.delayed(lambda parts: sum(p.sum() for p in parts))
    before = total(list(blocks)).compute()
    pids = local.client.run(os.getpid)
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    assert total(list(blocks)).compute() == before

    def back() -> bool:
        # Asked while it comes back, a worker may hang up.
        with contextlib.suppress(OSError):
            return len(set(local.client.run(os.getpid).values()) - set(pids.values())) == 1
        return False

    until(back)
    paused_at = local.client.run(lambda dask_worker: dask_worker.memory_manager.memory_pause_fraction)
    assert set(paused_at.values()) == {False}, "a worker that comes back has the settings of the first ones"
    assert {name for _, name, _ in listening(psutil.Process())} == {"127.0.0.1"}


def run_script(text: str, folder: Path, *, words: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a script with these words in a process of its own, warnings being errors."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-W", "error", str(path), *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, cwd=folder, check=False
    )


@pytest.mark.cluster
def test_connecting_and_closing_cause_no_warning_even_without_bokeh_and_with_a_taken_port(tmp_path):
    done = run_script(
        """
        import socket, sys

        sys.modules["bokeh"] = None
        from scalehsi.cluster import connect, localhost

        if __name__ == "__main__":
            with socket.create_server(("127.0.0.1", 0)) as taken:
                localhost.DASHBOARD_PORT = taken.getsockname()[1]
                with connect("local", workers=1, memory="600MiB") as cluster:
                    print(cluster.dashboard, len(cluster.workers))
                del sys.modules["bokeh"]
                with connect("local", workers=1, memory="600MiB") as cluster:
                    print(f":{localhost.DASHBOARD_PORT}/" not in str(cluster.dashboard))
        """,
        tmp_path,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["None", "1", "True"], "")


@pytest.mark.cluster
def test_a_script_without_a_main_guard_is_refused_with_the_repair(tmp_path):
    done = run_script(
        """
        from scalehsi.cluster import connect

        with connect("local", workers=1, memory="600MiB"):
            print("never")
        """,
        tmp_path,
    )
    assert done.returncode != 0
    assert "never" not in done.stdout
    assert 'put the call of connect under if __name__ == "__main__":' in done.stderr.splitlines()[-1]


# A scheduler that runs already.


@pytest.mark.cluster
def test_joining_a_scheduler_leaves_it_running(local):
    address = local.client.scheduler.address
    with connect(address) as joined:
        assert joined.workers == local.workers
        assert dask.delayed(sum)([1, 2]).compute() == 3
    assert len(local.workers) == 2
    assert joined.kind == address


@pytest.mark.cluster
def test_joining_over_tls(tmp_path):
    from distributed import LocalCluster, Security

    security = Security.temporary()
    files = {}
    for name in CERTIFICATE_FILES:
        files[name] = tmp_path / name
        files[name].write_text(getattr(security, name), encoding="ascii")
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        security=security,
        protocol="tls://",
    ) as running:
        address = running.scheduler_address
        assert address.startswith("tls://127.0.0.1:")
        with connect(address, **files) as joined:
            assert dask.delayed(sum)([1, 2]).compute() == 3
            assert len(joined.workers) == 1
        with connect(address, security=security) as joined:
            assert len(joined.workers) == 1


def test_a_program_that_does_not_answer_is_refused(monkeypatch):
    monkeypatch.setattr(sys.modules["scalehsi.cluster.join"], "CONNECT_SECONDS", 0.5)
    message = r"a program listens at .* does not answer as a Dask scheduler \(silent for 0\.5 s\)"
    with socket.create_server(("127.0.0.1", 0)) as mute, pytest.raises(InputError, match=message):
        connect(f"tcp://127.0.0.1:{mute.getsockname()[1]}")


@pytest.mark.cluster
def test_the_wrong_protocol_or_port_is_refused(local, monkeypatch):
    monkeypatch.setattr(sys.modules["scalehsi.cluster.join"], "CONNECT_SECONDS", 1)
    from distributed import Security

    address = local.client.scheduler.address
    with pytest.raises(
        InputError, match=r"\(certificate verify failed\); .* are the certificates those of the cluster"
    ):
        connect(address, security=Security.temporary())
    with pytest.raises(InputError, match=r"\(silent for 1 s\); is the protocol 'tls://'"):
        connect(address.replace("tls://", "tcp://"))
    page = local.client.scheduler_info()["services"]["dashboard"]
    with pytest.raises(InputError, match=r"a program listens at .*is the port the scheduler's"):
        connect(f"tcp://127.0.0.1:{page}")
    assert len(local.workers) == 2


def test_a_scheduler_without_tls_is_refused_under_a_tls_address():
    from distributed import Security

    with socket.create_server(("127.0.0.1", 0)) as plain:

        def speak() -> None:
            line, _ = plain.accept()
            with line:
                line.sendall(bytes(64))
                line.recv(1)

        speaker = threading.Thread(target=speak)
        speaker.start()
        with pytest.raises(InputError, match=r"\(wrong version number\); is the protocol 'tcp://'"):
            connect(f"tls://127.0.0.1:{plain.getsockname()[1]}", security=Security.temporary())
        speaker.join()
