"""Read an archive of plain arrays (.npz) of any origin: nothing is unpickled, and no array is larger than the file."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from scalehsi.chunks import MiB

ARCHIVE_BYTES: Final = 768 * MiB
MOST_ARRAYS: Final = 1000
MOST_DIMS: Final = 16
HEADER_BYTES: Final = 10_000
KINDS: Final = "biufU"
"""Kinds of values: numbers and texts."""


def read_archive(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an archive that `numpy.savez` wrote, without compression.

    Raises
    ------
    ValueError
        When it is no such archive, or holds more than it may.
    OSError
        When the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(folder + "/a.npz", a=np.arange(3))
    ...     read_archive(Path(folder) / "a.npz")["a"].tolist()
    [0, 1, 2]
    """
    size = path.stat().st_size
    if not path.is_file():
        raise ValueError("it is no file")
    if size > ARCHIVE_BYTES:
        raise ValueError(f"it has {size:,} bytes, at most {ARCHIVE_BYTES:,} are read")
    with _zip_errors_explained(), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_ARRAYS:
            raise ValueError(f"it holds {len(entries):,} arrays, at most {MOST_ARRAYS} are read")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its arrays are compressed, which scalehsi does not do")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its arrays claim more bytes than it has")
        found = {}
        for entry in entries:
            with archive.open(entry) as file:
                found[entry.filename.removesuffix(".npy")] = _array(file, entry.file_size)
    return found


@contextlib.contextmanager
def _zip_errors_explained() -> Iterator[None]:
    """Turn what a damaged archive raises into a `ValueError`."""
    try:
        yield
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, KeyError, UnicodeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _array(file: Any, size: int) -> np.ndarray[Any, Any]:
    """An array from an entry of this many bytes."""
    shape, fortran, dtype = _header(file)
    whole = isinstance(shape, tuple) and len(shape) <= MOST_DIMS and all(type(n) is int and n >= 0 for n in shape)
    if not whole or not isinstance(dtype, np.dtype) or dtype.kind not in KINDS or dtype.itemsize == 0:
        raise ValueError(f"an array in it is of the kind {ascii(dtype)[:60]} and the shape {ascii(shape)[:60]}")
    left = size - file.tell()
    if math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"an array in it claims the shape {shape} in {left} bytes")
    flat = np.frombuffer(file.read(), dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C").copy()


def _header(file: BinaryIO) -> tuple[Any, Any, Any]:
    """Shape, order and dtype of an array."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        found: tuple[Any, Any, Any] = read(file, max_header_size=HEADER_BYTES)
    # The header is a Python literal; one of many brackets exhausts the parser, which raises a MemoryError.
    except Exception as error:
        raise ValueError("an array in it has no header") from error
    return found
