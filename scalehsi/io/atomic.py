"""Write a store, folder or file in one step: under a hidden name beside its destination, then renamed."""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from scalehsi.checks import hyperspy_hint
from scalehsi.interrupt import uninterrupted
from scalehsi.schema import InputError

ZARR_ROOT_FILES: Final = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_NOT_PERMITTED: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
LONGEST_STEM: Final = 120
"""Bytes of a name that its hidden name repeats."""
_RETRY_SECONDS: Final = (0.01, 0.05, 0.2, 0.5, 1.0)
"""Pauses between attempts to remove a partly written folder."""


def local_path(given: str | os.PathLike[str]) -> Path:
    """A path on a file system of this machine, with ``~`` expanded.

    Raises
    ------
    InputError
        For what is no path, an address such as ``s3://bucket/scan.zarr``, and a name that is too long.
    """
    if not isinstance(given, str | os.PathLike):
        repair = hyperspy_hint(given, "type the name of a file or folder, such as 'scan.zarr'")
        raise InputError(f"a path is expected, got {type(given).__name__}; {repair}")
    text = os.fspath(given)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise InputError(
            f"{text!r} is an address; files and folders are opened here. Open it with "
            f"xarray.open_zarr({text!r}), and give one of its variables to scalehsi"
        )
    path = Path(given).expanduser()
    try:
        path.is_symlink()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise InputError(f"the name {path.name!r} is too long for this file system; give a shorter one") from None
    return path


@contextlib.contextmanager
def replacing(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a hidden folder to write a store in, and rename it to ``path`` when the block ends without an error.

    After an error the destination is unchanged and the hidden folder is removed. The hidden folder of a killed process
    is removed by the next writer of the same name.

    Raises
    ------
    InputError
        When the destination may not be written, or exists and may not be replaced.
    OSError
        When the disk or the quota is full.
    """
    if path.parent.is_dir():
        remove_abandoned(path)  # first, because it may restore what an interrupted overwrite moved aside
    check_destination(path, overwrite=overwrite)
    # Checked again at the end: something may have appeared there meanwhile.
    with replacing_folder(path, check=partial(check_destination, path, overwrite=overwrite)) as hidden:
        yield hidden


@contextlib.contextmanager
def replacing_folder(path: Path, *, check: Callable[[], None]) -> Iterator[Path]:
    """As `replacing`, for any folder. An old folder is moved aside, and deleted when the new one is in place.

    ``check`` raises an error when what is at the path, or has appeared there meanwhile, may not be replaced.
    """
    hidden, aside = _hidden_names(path)
    with _os_errors_explained(path):
        try:
            hidden.mkdir()
            yield hidden
            check()
            _move_into_place(hidden, path, aside)
        finally:
            _remove(hidden)


def write_file(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a small file in one step, such as a table or a figure.

    Raises
    ------
    InputError
        When the file exists and may not be replaced, or its folder does not exist.
    OSError
        When the disk or the quota is full.
    """
    check_file(path, overwrite=overwrite)
    hidden, _ = _hidden_names(path)
    with _os_errors_explained(path):
        with uninterrupted():  # the content is small
            try:
                hidden.write_bytes(content)
                if overwrite:
                    hidden.replace(path)
                else:
                    _link(hidden, path)
            finally:
                hidden.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> None:
    """Give a file a second name, unless something else has that name."""
    try:
        os.link(source, path)
    except FileExistsError:
        raise InputError(_taken(path)) from None
    except OSError:  # a file system without links
        check_file(path, overwrite=False)
        source.replace(path)


def _hidden_names(path: Path) -> tuple[Path, Path]:
    """Names beside the path for the new content, and for the old content while it is replaced."""
    token = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    stem = _hidden_stem(path)
    return path.with_name(f"{stem}.{token}.partial"), path.with_name(f"{stem}.{token}.old")


def _hidden_stem(path: Path) -> str:
    """The beginning of a hidden name; long names are shortened, as file systems allow 255 bytes."""
    name = path.name.encode()
    if len(name) <= LONGEST_STEM:
        return f".{path.name}"
    return f".{name[:40].decode(errors='ignore')}~{hashlib.sha256(name).hexdigest()[:16]}"


@contextlib.contextmanager
def _os_errors_explained(path: Path) -> Iterator[None]:
    """Say what to do when the disk is full or the folder may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            what = "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up"
            raise OSError(
                error.errno,
                f"{what}; the partly written data are removed, nothing else was changed; "
                "free some space or write elsewhere",
                str(path),
            ) from error
        if error.errno in _NOT_PERMITTED:
            raise InputError(f"cannot write {str(path)!r} ({error.strerror}); give another folder") from error
        raise


def _move_into_place(hidden: Path, path: Path, aside: Path) -> None:
    """Rename the new folder to its path; an old folder waits under ``aside`` until the new one is in place."""
    with uninterrupted():
        replaced = path.exists()
        if replaced:
            path.rename(aside)
        try:
            # Takes the name, or fails where something else has just taken it. A rename replaces an empty folder.
            path.mkdir()
            hidden.rename(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                path.rmdir()
            if replaced and not path.exists():
                aside.rename(path)
            if error.errno in _TAKEN:
                raise InputError(_taken(path)) from None
            raise
        if replaced:
            shutil.rmtree(aside, ignore_errors=True)


def _taken(path: Path) -> str:
    return f"{str(path)!r} exists already: it appeared while the data were written; give another name"


def _remove(folder: Path) -> None:
    """Remove a folder; after a failure, threads of the computation may still write into it for a moment."""
    with uninterrupted():
        for pause in _RETRY_SECONDS:
            if not folder.exists():
                return
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(pause)


def check_file(path: Path, *, overwrite: bool) -> None:
    """Refuse a path where no file can be written; write nothing.

    Raises
    ------
    InputError
        When the folder does not exist, the path is a folder, or the file exists and may not be replaced.
    """
    _check_parent(path)
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder and is left alone; give another name")
    if path.exists() and not overwrite:
        raise InputError(f"{str(path)!r} exists already; give another name, or replace it with --overwrite")


def check_destination(path: Path, *, overwrite: bool) -> None:
    """Refuse a path that exists, unless it is a store and may be overwritten; write nothing.

    Raises
    ------
    InputError
        When the folder does not exist, or the path may not be replaced.
    """
    _check_parent(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is a file and is left alone; a store is a folder, give another name")
    if not is_store(path):
        raise InputError(
            f"{str(path)!r} exists already; it is a folder but no Zarr store and is left alone; give another name"
        )
    if not overwrite:
        raise InputError(
            f"{str(path)!r} exists already; give another name, or replace it with overwrite=True (--overwrite)"
        )


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"the folder {str(path.parent)!r} does not exist; make it first, or give another destination")


def remove_abandoned(path: Path) -> None:
    """Remove the hidden folders of killed writers of this path; restore a store that one of them had moved aside."""
    stem = re.escape(_hidden_stem(path))
    pattern = re.compile(rf"{stem}\.(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{{8}}\.(?P<kind>partial|old)")
    for sibling in path.parent.iterdir():
        found = pattern.fullmatch(sibling.name)
        # Whether a writer on another machine still runs cannot be found out.
        if not found or found["host"] != socket.gethostname() or psutil.pid_exists(int(found["pid"])):
            continue
        if found["kind"] == "old" and not path.exists():
            sibling.rename(path)
        else:
            shutil.rmtree(sibling, ignore_errors=True)


def is_store(path: Path) -> bool:
    """Whether a folder has a Zarr root."""
    return any((path / name).is_file() for name in ZARR_ROOT_FILES)


def check_exists(path: Path) -> None:
    """Refuse a path that does not exist, and name similar ones.

    Raises
    ------
    InputError
        With the nearest names, or the name of a store that was moved aside by a killed writer.
    """
    if path.exists():
        return
    if not path.parent.is_dir():
        raise InputError(f"there is no {str(path)!r}: the folder {str(path.parent)!r} does not exist")
    siblings = [p.name for p in path.parent.iterdir()]
    aside = [n for n in siblings if n.startswith(f"{_hidden_stem(path)}.") and n.endswith(".old")]
    if aside:
        raise InputError(
            f"there is no {str(path)!r}: it was being overwritten when the writer was killed; "
            f"the earlier store is whole under {str(path.with_name(aside[0]))!r}, rename it back"
        )
    near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise InputError(f"there is no {str(path)!r}{hint}")
