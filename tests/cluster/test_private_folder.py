"""Folders that only their user can read, and what happens to them when their owner ends or is killed."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scalehsi.cluster import certificate, private_folder
from scalehsi.schema import InputError
from tests.cluster.strangers import STRANGER, as_root

OWNER = """
import os, signal, sys
from scalehsi.cluster.private_folder import private_folder

with private_folder(sys.argv[1]) as folder:
    print(folder, flush=True)
    {then}
"""


def owner(parent: Path, then: str) -> subprocess.Popen[str]:
    """A process that has made a private folder, and then does what the text says."""
    command = [sys.executable, "-c", OWNER.format(then=then), str(parent)]
    path = os.pathsep.join(p for p in sys.path if p)
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_private_folder_is_for_its_user_and_its_run_alone(tmp_path):
    with private_folder.private_folder(tmp_path) as folder:
        certificate.make(folder)
        certificate.note_address(folder, "tls://127.0.0.1:1234")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}
        assert len(list(folder.iterdir())) == 4
        with private_folder.private_folder(tmp_path) as second:
            assert second != folder
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_the_next_run_removes_the_folder_of_a_killed_one_and_no_other(tmp_path):
    killed = owner(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    left = Path(killed.communicate(timeout=60)[0].strip())
    assert killed.returncode == -signal.SIGKILL
    living = owner(tmp_path, "sys.stdin.readline()")
    kept = Path(living.stdout.readline().strip())
    elsewhere = tmp_path / f"{private_folder.NAME}another-machine-x"
    elsewhere.mkdir()
    mine = tmp_path / "mine"
    mine.mkdir()
    link = tmp_path / f"{private_folder.NAME}{socket.gethostname()}-link"
    link.symlink_to(mine)
    assert not left.exists()  # the living one has removed it
    with private_folder.private_folder(tmp_path) as folder:
        assert set(tmp_path.iterdir()) == {folder, kept, elsewhere, mine, link}
    living.communicate("\n", timeout=60)
    assert living.returncode == 0
    assert set(tmp_path.iterdir()) == {elsewhere, mine, link}


def test_a_fork_that_ends_inside_the_block_leaves_the_folder(tmp_path):
    with private_folder.private_folder(tmp_path) as folder:
        pass
    forking = owner(
        tmp_path,
        "child = os.fork()\n    if not child: sys.exit()\n    os.waitpid(child, 0)\n    print(folder.exists())",
    )
    answers = forking.communicate(timeout=60)[0].split()
    assert answers[-1] == "True"
    assert not Path(answers[0]).exists()
    assert folder != Path(answers[0])


def test_places_where_others_can_replace_the_folder_are_refused(tmp_path):
    tmp_path.chmod(0o777)
    with (
        pytest.raises(InputError, match=r"anybody can replace files in .*; type chmod \+t"),
        private_folder.private_folder(tmp_path),
    ):
        pass
    tmp_path.chmod(0o1777)
    with private_folder.private_folder(tmp_path):
        pass
    with (
        pytest.raises(InputError, match=r"no private folder can be made in .*\(No such file"),
        private_folder.private_folder(tmp_path / "nowhere"),
    ):
        pass


def test_a_new_folder_that_another_run_takes_for_a_dead_ones_is_made_again(tmp_path, monkeypatch):
    made = []
    real = private_folder.tempfile.mkdtemp

    def mkdtemp(**how):
        made.append(Path(real(**how)))
        if len(made) == 1:  # another run comes before the lock
            private_folder._remove_if_dead(made[0])
        return str(made[-1])

    monkeypatch.setattr(private_folder.tempfile, "mkdtemp", mkdtemp)
    with private_folder.private_folder(tmp_path) as folder:
        assert [m.exists() for m in made] == [False, True]
        assert folder == made[1]


def test_a_cluster_is_found_by_its_address(tmp_path, monkeypatch):
    monkeypatch.setattr(private_folder.tempfile, "tempdir", str(tmp_path))
    assert certificate.find("tls://127.0.0.1:1234") is None
    with private_folder.private_folder(tmp_path) as folder:
        certificate.make(folder)
        certificate.note_address(folder, "tls://127.0.0.1:1234")
        assert certificate.find("tls://127.0.0.1:1234/").tls_client_key == str(folder / "key.pem")
        assert certificate.find("tls://127.0.0.1:123") is None


@as_root
def test_a_folder_that_another_user_planted_is_neither_believed_nor_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(private_folder.tempfile, "tempdir", str(tmp_path))
    planted = tmp_path / f"{private_folder.NAME}{socket.gethostname()}-planted"
    planted.mkdir()
    certificate.make(planted)
    certificate.note_address(planted, "tls://127.0.0.1:1234")
    os.chown(planted, STRANGER, STRANGER)
    assert certificate.find("tls://127.0.0.1:1234") is None
    with private_folder.private_folder(tmp_path):
        assert planted.exists()
