"""Folders of one run that only its user can read: removed at its end, or by a later run after a kill -9.

Nobody else can read or replace a file in such a folder, so it is the place for the certificate of a cluster and for the
data that workers move to the disk and load again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scalehsi.schema import InputError

NAME: Final = ".scalehsi-run-"
LOCK: Final = "lock"


@contextlib.contextmanager
def private_folder(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """Make a folder in ``parent`` and remove it at the end; first remove those whose owners are dead.

    Raises
    ------
    InputError
        When ``parent`` cannot be written, or is a place where others can rename the folder.
    """
    _check_parent(parent)
    for left in _folders(parent, f"{NAME}{socket.gethostname()}-"):
        _remove_if_dead(left)
    owner = os.getpid()
    folder, lock = _make(parent)
    try:
        yield folder
    finally:
        if os.getpid() == owner:  # not a fork that ends inside the block
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def own_folders(parent: str | os.PathLike[str]) -> list[Path]:
    """The folders of this user's runs in ``parent``, on all machines that share it."""
    return _folders(parent, NAME)


def _check_parent(parent: str | os.PathLike[str]) -> None:
    try:
        mode = os.stat(parent).st_mode  # noqa: PTH116 - text or path
        writable = os.access(parent, os.W_OK | os.X_OK)
    except OSError as problem:
        raise InputError(f"no private folder can be made in {os.fspath(parent)!r} ({problem.strerror})") from None
    if not writable:
        raise InputError(f"no private folder can be made in {os.fspath(parent)!r}, which you cannot write to")
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise InputError(
            f"anybody can replace files in {os.fspath(parent)!r}, so no certificate or data of a worker is safe there; "
            f"type chmod +t {os.fspath(parent)}, or give another folder"
        )


def _make(parent: str | os.PathLike[str]) -> tuple[Path, int]:
    """A new folder (mode 0700), and the open file whose lock says that its owner lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{NAME}{socket.gethostname()}-", dir=parent))
        lock = _open_lock(folder)
        if lock is None:
            continue
        with contextlib.suppress(OSError):  # a file system without locks: nobody will call the owner dead
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return folder, lock
        os.close(lock)  # another run took the new folder for one of a dead owner, before it was locked


def _open_lock(folder: Path) -> int | None:
    with contextlib.suppress(OSError):
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return None


def _folders(parent: str | os.PathLike[str], prefix: str) -> list[Path]:
    """This user's folders whose names begin so, no links."""
    found = []
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.getuid():
                        found.append(Path(entry.path))
    return found


def _remove_if_dead(folder: Path) -> None:
    lock = _open_lock(folder)
    if lock is None:
        return
    with contextlib.closing(os.fdopen(lock, "r+b")), contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
