"""A store appears whole or not at all, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scalehsi.io.atomic import check_exists, remove_abandoned, replacing, write_file
from scalehsi.schema import InputError


def make_store(path: Path, text: str = "old") -> Path:
    path.mkdir()
    (path / "zarr.json").write_text(text)
    return path


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def dead_pid() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_new_folder_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with replacing(path, overwrite=False) as partial:
        (partial / "zarr.json").write_text("new")
        assert partial.parent == tmp_path
        assert partial.name.startswith(".a.zarr.")
        assert partial.name.endswith(".partial")
        assert not path.exists()
    assert (path / "zarr.json").read_text() == "new"
    assert hidden(tmp_path) == []


def fail(path: Path, error: BaseException) -> None:
    with replacing(path, overwrite=True) as partial:
        (partial / "half").write_text("x")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("bang"), KeyboardInterrupt("bang"), OSError(errno.EIO, "bang")])
def test_a_failure_leaves_the_old_store_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = make_store(tmp_path / "a.zarr")
    with pytest.raises(type(error), match="bang"):
        fail(path, error)
    assert (path / "zarr.json").read_text() == "old"
    assert hidden(tmp_path) == []


def test_overwrite_replaces_the_whole_store(tmp_path: Path) -> None:
    path = make_store(tmp_path / "a.zarr")
    (path / "extra").write_text("x")
    with replacing(path, overwrite=True) as partial:
        (partial / "zarr.json").write_text("new")
    assert sorted(p.name for p in path.iterdir()) == ["zarr.json"]
    assert (path / "zarr.json").read_text() == "new"
    assert hidden(tmp_path) == []


def test_a_failing_rename_puts_the_old_store_back(tmp_path: Path) -> None:
    path = make_store(tmp_path / "a.zarr")
    with pytest.raises(FileNotFoundError, match="partial"), replacing(path, overwrite=True) as partial:
        partial.rmdir()
    assert (path / "zarr.json").read_text() == "old"
    assert hidden(tmp_path) == []


def test_an_existing_store_needs_overwrite(tmp_path: Path) -> None:
    path = make_store(tmp_path / "a.zarr")
    with pytest.raises(InputError, match=r"exists already.*overwrite=True \(--overwrite\)"):
        with replacing(path, overwrite=False):
            pass
    assert (path / "zarr.json").read_text() == "old"


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_store_is_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.tex").write_text("x")
    with (
        pytest.raises(InputError, match="no Zarr store and is left alone"),
        replacing(folder, overwrite=overwrite),
    ):
        pass
    file = tmp_path / "notes.zarr"
    file.write_text("x")
    with pytest.raises(InputError, match="is a file and is left alone"), replacing(file, overwrite=overwrite):
        pass
    assert (folder / "chapter.tex").read_text() == "x"
    assert file.read_text() == "x"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"nowhere' does not exist; make it first"),
        replacing(tmp_path / "nowhere" / "a.zarr", overwrite=False),
    ):
        pass


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "no way")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"cannot write '.*a\.zarr' \(no way\); give another folder"):
        fail(tmp_path / "a.zarr", RuntimeError("not reached"))


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk quota is used up")]
)
def test_a_full_disk_says_so(tmp_path: Path, number: int, words: str) -> None:
    path = tmp_path / "a.zarr"
    with pytest.raises(OSError, match=rf"{words}.*removed.*free some space") as caught:
        fail(path, OSError(number, "zarr's own words"))
    assert caught.value.errno == number
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_folders_of_killed_writers_are_removed_and_those_of_running_ones_stay(tmp_path: Path) -> None:
    here = socket.gethostname()
    dead = make_store(tmp_path / f".a.zarr.{here}-{dead_pid()}-0123abcd.partial")
    alive = make_store(tmp_path / f".a.zarr.{here}-{os.getpid()}-0123abcd.partial")
    elsewhere = make_store(tmp_path / f".a.zarr.another-host-{dead_pid()}-0123abcd.partial")
    other_name = make_store(tmp_path / f".b.zarr.{here}-{dead_pid()}-0123abcd.partial")
    remove_abandoned(tmp_path / "a.zarr")
    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()
    assert other_name.exists()


def test_an_interrupted_overwrite_is_undone_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    aside = make_store(tmp_path / f".a.zarr.{socket.gethostname()}-{dead_pid()}-0123abcd.old", "precious")
    with pytest.raises(InputError, match=rf"being overwritten.*{aside.name}.*rename it back"):
        check_exists(path)
    with pytest.raises(InputError, match="exists already"), replacing(path, overwrite=False):
        pass
    assert (path / "zarr.json").read_text() == "precious"


def test_a_missing_path_names_what_is_like_it(tmp_path: Path) -> None:
    make_store(tmp_path / "sample_map.zarr")
    with pytest.raises(InputError, match=r"did you mean 'sample_map\.zarr'"):
        check_exists(tmp_path / "sampel_map.zarr")
    with pytest.raises(InputError, match=r"the folder '.*nowhere' does not exist"):
        check_exists(tmp_path / "nowhere" / "a.zarr")


WRITER = """
import sys, time
from pathlib import Path
from scalehsi.io.atomic import replacing

with replacing(Path(sys.argv[1]), overwrite=True) as partial:
    (partial / "zarr.json").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_the_old_store(tmp_path: Path) -> None:
    path = make_store(tmp_path / "a.zarr")
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert (path / "zarr.json").read_text() == "old"
    assert len(hidden(tmp_path)) == 1
    with replacing(path, overwrite=True) as partial:
        (partial / "zarr.json").write_text("new")
    assert hidden(tmp_path) == []
    assert (path / "zarr.json").read_text() == "new"


def test_a_file_appears_whole_and_is_replaced_only_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    write_file(path, b"one", overwrite=False)
    with pytest.raises(InputError, match="exists already; give another name, or replace it with --overwrite"):
        write_file(path, b"two", overwrite=False)
    assert path.read_bytes() == b"one"

    def fail(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_file(path, b"three", overwrite=True)
    monkeypatch.undo()
    assert path.read_bytes() == b"one"
    write_file(path, b"four", overwrite=True)
    assert path.read_bytes() == b"four"
    assert hidden(tmp_path) == []
    for wrong, words in ((tmp_path, "is a folder"), (tmp_path / "no" / "t.csv", "does not exist; make it first")):
        with pytest.raises(InputError, match=words):
            write_file(wrong, b"", overwrite=True)
