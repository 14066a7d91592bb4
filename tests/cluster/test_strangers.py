"""Who else is on the machine: nobody can connect to a local cluster, read its files, or change it by a web page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import distributed  # before its settings are set: dask.config.set would remove all of them at its end
import psutil
import pytest

import scalehsi as hsi
from scalehsi.cluster import Cluster, connect, localhost
from tests.cluster import strangers
from tests.cluster.strangers import STRANGER, as_root
from tests.cluster.test_connect import MEMORY, listening, run_script
from tests.cluster.waiting import until
from tests.scenes import smooth_scene

pytestmark = [pytest.mark.cluster, pytest.mark.long]

OPENED_UP = {
    "distributed.scheduler.http.routes": ["distributed.http.scheduler.api", "distributed.http.proxy"],
    "distributed.worker.http.routes": ["distributed.http.worker.prometheus", "distributed.http.health"],
}
"""A user's configuration that serves more than we promise."""


EARLIER: set[int] = set()
"""Ports of clusters of other files of tests in this process."""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Iterator[Path]:
    """The folder for temporary files of the cluster."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def local(run_folder) -> Iterator[Cluster]:
    EARLIER.update(port for _, _, port in listening(psutil.Process()))
    with dask.config.set(OPENED_UP), connect("local", workers=2, memory=MEMORY) as cluster:
        yield cluster


def page_ports(cluster: Cluster) -> set[int]:
    """The ports of web pages: of the scheduler and of the workers."""
    info = cluster.client.scheduler_info(n_workers=-1)
    return {one["services"]["dashboard"] for one in (info, *info["workers"].values())}


def attempts(cluster: Cluster, folder: Path, uid: int) -> dict[str, Any]:
    """What a stranger gets from each port but those of pages, and from the files of the run."""
    ports = sorted({port for _, _, port in listening(psutil.Process())} - page_ports(cluster) - EARLIER)
    files = [str(f) for f in folder.rglob("*") if f.is_file()]
    assert {Path(f).name for f in files} >= {"cert.pem", "key.pem", "address"}
    command = [sys.executable, "-m", "tests.cluster.strangers", str(uid), json.dumps(ports), json.dumps(files)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("uid") == uid
    assert len(found) == 1 + len(ports) == 1 + 5  # files; scheduler, two nannies, two workers
    return found


@as_root
def test_another_user_is_refused_on_every_port(local, run_folder):
    found = attempts(local, run_folder, STRANGER)
    assert {how for how in found.pop("files").values()} == {"refused: PermissionError"}
    for port, ways in found.items():
        assert len(ways) == 7
        for way, answer in ways.items():
            assert answer.startswith("refused"), (port, way, answer)
    assert len(local.workers) == 2
    assert dask.delayed(sum)([1, 2]).compute() == 3


def test_the_owner_gets_in_by_the_same_ways(local):
    """So the answers above can be others."""
    assert strangers.client(local.client.scheduler.address, local.client.security) == f"ran code as {os.getuid()}"
    page = local.client.scheduler_info()["services"]["dashboard"]
    assert strangers.plain(page).startswith("says b'HTTP/1.1")


def test_no_key_is_on_a_command_line_or_in_the_environment(local):
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        seen = " ".join([*process.cmdline(), *process.environ().values()])
        assert "PRIVATE KEY" not in seen


def test_data_that_a_worker_moves_to_the_disk_are_in_the_private_folder(local, run_folder, tmp_path):
    (folder,) = run_folder.iterdir()
    for place in local.client.run(lambda dask_worker: dask_worker.local_directory).values():
        assert Path(place).is_relative_to(folder)
    with connect("local", workers=1, memory=MEMORY, dashboard=False, local_directory=tmp_path / "mine") as cluster:
        (place,) = cluster.client.run(lambda dask_worker: dask_worker.local_directory).values()
        (private,) = (tmp_path / "mine").iterdir()
        assert Path(place).is_relative_to(private)
        assert private.stat().st_mode & 0o077 == 0
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_program_of_the_same_user_joins_by_the_address_alone(local, run_folder, tmp_path):
    script = f"""
        import tempfile
        tempfile.tempdir = {str(run_folder)!r}
        from scalehsi.cluster import connect
        with connect({local.client.scheduler.address!r}) as joined:
            print(len(joined.workers))
    """
    done = run_script(script, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


# Web pages.


def ask(port: int, path: str, method: str = "GET") -> int:
    """The HTTP status of an answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{path}", method=method, data=b"{}" if method == "POST" else None
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def served(application: Any) -> list[tuple[str, type]]:
    """Paths and handlers of a web application, those of its parts included."""
    found = []
    for router in (application.default_router, application.wildcard_router):
        for rule in router.rules:
            if isinstance(rule.target, type):
                found.append((rule.matcher.regex.pattern, rule.target))
            else:  # the rules of a host
                found += [(one.matcher.regex.pattern, one.target) for one in rule.target.rules]
    for part in getattr(application, "applications", []):
        if hasattr(part, "default_router"):
            found += served(part)
    return found


def test_no_web_page_takes_anything_but_questions(local):
    from tornado.web import RequestHandler

    pages = served(local.client.cluster.scheduler.http_application)
    assert len(pages) > 20
    for path, handler in pages:
        for method in ("post", "put", "patch", "delete"):
            assert getattr(handler, method) is getattr(RequestHandler, method), (path, method)


@pytest.mark.parametrize(
    "path",
    [
        "api/v1",
        "api/v1/retire_workers",
        "api/v1/adaptive_target",
        "proxy/8787/127.0.0.1/status",
        "jupyter/lab",
        "eventstream",
        "hardware",
        "hardware/ws",
        "hardware/autoload.js",
    ],
)
def test_pages_that_act_are_off_whatever_the_configuration_says(local, path):
    page = local.client.scheduler_info()["services"]["dashboard"]
    workers = local.workers
    assert ask(page, path) == 404
    assert ask(page, path, "POST") in {403, 404, 405}
    assert local.workers == workers


def test_pages_that_show_answer(local):
    page = local.client.scheduler_info()["services"]["dashboard"]
    pytest.importorskip("bokeh", reason="without bokeh there is no dashboard")
    assert [ask(page, path) for path in ("status", "workers", "health", "info/main/workers.html")] == [200] * 4


def test_workers_have_no_pages_and_a_dashboard_can_be_switched_off(local):
    (page,) = {local.client.scheduler_info()["services"]["dashboard"]}
    for port in page_ports(local) - {page}:
        assert [ask(port, path) for path in ("", "health", "metrics", "status", "statics/css/base.css")] == [404] * 5
    with dask.config.set(OPENED_UP), connect("local", workers=1, memory=MEMORY, dashboard=False) as cluster:
        assert cluster.dashboard is None
        for port in page_ports(cluster):
            for path in ("", "status", "health", "metrics", "info", "json/identity.json", "api/v1"):
                assert ask(port, path) == 404, path


# Which cluster computes.


def test_the_innermost_with_decides_which_cluster_computes(local):
    where = dask.delayed(os.getpid, pure=False)
    mine, ours = os.getpid(), set(local.client.run(os.getpid).values())
    address = local.client.scheduler.address
    loopback = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, **loopback) as other:
        assert where().compute() == mine
        with connect(address):
            assert where().compute() in ours
            with distributed.Client(other.scheduler.address):
                assert where().compute() == mine
            peek = distributed.Client(other.scheduler.address)  # without a with it is not current
            assert where().compute() in ours
            peek.close()
            assert where().compute() in ours
        assert where().compute() == mine
        first, second = connect(address), connect(address)
        assert where().compute() in ours
        first.close()
        assert where().compute() in ours
        second.close()
        assert where().compute() == mine
    assert where().compute() in ours


def test_a_fit_within_another_client_uses_the_connected_cluster(local):
    cube, _ = smooth_scene(2, counts=1e3)
    loopback = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=1, **loopback) as other:
        with connect(local.client.scheduler.address):
            hsi.fit(cube, hsi.PCA(n_components=2), seed=0)
        assert other.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter) == 0


# Ends.


def test_a_cluster_that_nobody_closes_leaves_nothing(tmp_path):
    script = f"""
        import tempfile
        tempfile.tempdir = {str(tmp_path)!r}
        from scalehsi.cluster import connect

        if __name__ == "__main__":
            connect("local", workers=1, memory="600MiB", dashboard=False)
            import dask, os
            print(dask.delayed(os.getpid)().compute() != os.getpid())
    """
    done = run_script(script, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
    assert [f.name for f in tmp_path.iterdir()] == ["script.py"]


def test_the_next_run_removes_what_a_killed_one_left(tmp_path):
    script = f"""
        import os, signal, sys, tempfile
        tempfile.tempdir = {str(tmp_path)!r}
        from scalehsi.cluster import connect

        if __name__ == "__main__":
            with connect("local", workers=1, memory="600MiB", dashboard=False) as cluster:
                print(len(list(os.scandir(tempfile.tempdir))), *cluster.client.run(os.getpid).values(), flush=True)
                if not sys.argv[1:]:
                    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = run_script(script, tmp_path)
    assert done.returncode == -signal.SIGKILL
    count, worker = map(int, done.stdout.split())
    assert count == len(list(tmp_path.iterdir())) == 2  # the script, and the folder of the run
    again = run_script(script, tmp_path, words=["end"])
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.split()[0] == "2"
    until(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE)
    assert [f.name for f in tmp_path.iterdir()] == ["script.py"]


def test_localhost_is_where_pages_stay():
    assert localhost.dashboard_options("localhost:0")["dashboard_address"] == "localhost:0"
