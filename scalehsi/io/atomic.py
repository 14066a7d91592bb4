"""A store or a file that appears in one step: written under a hidden name beside its place, then renamed."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from scalehsi.schema import InputError

ROOT_FILES: Final = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_FULL_DISK: Final = (errno.ENOSPC, errno.EDQUOT)
_PATIENCE: Final = (0.01, 0.05, 0.2, 0.5, 1.0)
"""Seconds to wait between attempts to remove what is half written."""
_NOT_OURS: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a hidden folder beside ``path`` to write in, and put it in the place of ``path`` when the block ends well.

    Whatever goes wrong inside, the destination is as it was and the hidden folder is gone. A process that is killed
    leaves the hidden folder, which the next writer of the same name removes. With ``overwrite`` the old store is moved
    aside, the new one in, and only then the old one deleted.

    Raises
    ------
    InputError
        When the destination may not be written.
    OSError
        When the disk or the quota is full, in so many words.
    """
    if path.parent.is_dir():
        clean_leftovers(path)  # first: this may put back what an interrupted overwrite moved aside
    check_destination(path, overwrite=overwrite)
    token = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    partial = path.with_name(f".{path.name}.{token}.partial")
    try:
        partial.mkdir()
        yield partial
        _put(partial, path, path.with_name(f".{path.name}.{token}.old"))
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise OSError(error.errno, _full(error.errno), str(path)) from error
        if error.errno in _NOT_OURS:
            raise InputError(f"cannot write {str(path)!r} ({error.strerror}); give another folder") from error
        raise
    finally:
        _remove(partial)


def write_file(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a small file in one step, such as a table or a picture.

    Raises
    ------
    InputError
        When the file exists and may not be replaced, or its folder does not exist.
    """
    check_file(path, overwrite=overwrite)
    token = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    partial = path.with_name(f".{path.name}.{token}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise OSError(error.errno, _full(error.errno), str(path)) from error
        if error.errno in _NOT_OURS:
            raise InputError(f"cannot write {str(path)!r} ({error.strerror}); give another folder") from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def check_file(path: Path, *, overwrite: bool) -> None:
    """Refuse a place where no file can be written; writes nothing.

    Raises
    ------
    InputError
    """
    _check_parent(path)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder and is left alone; give another name")
    if path.exists() and not overwrite:
        raise InputError(f"{str(path)!r} exists already; give another name, or replace it with --overwrite")


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"the folder {str(path.parent)!r} does not exist; make it first, or give another destination")


def _put(partial: Path, path: Path, aside: Path) -> None:
    if not path.exists():
        partial.rename(path)
        return
    path.rename(aside)
    try:
        partial.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove a folder into which threads that a failure left behind may still write for a moment."""
    for pause in _PATIENCE:
        if not folder.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(pause)


def _full(number: int) -> str:
    what = "the disk is full" if number == errno.ENOSPC else "the disk quota is used up"
    return f"{what}; what was half written is removed, nothing else was changed; free some space or write elsewhere"


def check_destination(path: Path, *, overwrite: bool) -> None:
    """Refuse a destination that exists, unless it is a store and may be overwritten.

    Raises
    ------
    InputError
    """
    _check_parent(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is a file and is left alone; a store is a folder, give another name")
    if not is_store(path):
        raise InputError(f"{str(path)!r} is a folder but no Zarr store and is left alone; give another name")
    if not overwrite:
        raise InputError(
            f"{str(path)!r} exists already; give another name, or replace it with overwrite=True (--overwrite)"
        )


def clean_leftovers(path: Path) -> None:
    """Remove what writers of this name left when they were killed; put back a store that one had just moved aside."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{{8}}\.(?P<what>partial|old)")
    for sibling in path.parent.iterdir():
        found = pattern.fullmatch(sibling.name)
        # A writer on another machine cannot be asked whether it lives.
        if not found or found["host"] != socket.gethostname() or psutil.pid_exists(int(found["pid"])):
            continue
        if found["what"] == "old" and not path.exists():
            sibling.rename(path)
        else:
            shutil.rmtree(sibling, ignore_errors=True)


def is_store(path: Path) -> bool:
    """Whether a folder has a Zarr root."""
    return any((path / name).is_file() for name in ROOT_FILES)


def check_exists(path: Path) -> None:
    """Refuse a path that leads nowhere, naming what is like it.

    Raises
    ------
    InputError
    """
    if path.exists():
        return
    if not path.parent.is_dir():
        raise InputError(f"there is no {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    siblings = [p.name for p in path.parent.iterdir()]
    aside = [n for n in siblings if n.startswith(f".{path.name}.") and n.endswith(".old")]
    if aside:
        raise InputError(
            f"there is no {str(path)!r}: it was being overwritten when the writer was killed; "
            f"the store that was there is whole under {str(path.with_name(aside[0]))!r}, rename it back"
        )
    near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise InputError(f"there is no {str(path)!r}{hint}")
