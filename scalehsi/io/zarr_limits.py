"""Check the documents of a Zarr store before anything opens it: sizes, names, codecs, and that its files are files.

A store may come from anyone. Its documents say how large its arrays are, which code decodes them and under which names
they are found; what is allowed is in the tables below, far above what a microscope writes.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from scalehsi.chunks import MiB
from scalehsi.schema import COMPONENT, ITERATION, MASK, InputError

DOCUMENT_BYTES: Final = 16 * MiB
ATTRIBUTE_BYTES: Final = 4 * MiB
DEPTH: Final = 64
"""Lists and objects inside each other in a document."""
MEMBERS: Final = 1000
NAME_BYTES: Final = 255
DIMS: Final = 16
VALUES: Final = 2**44
CHUNKS: Final = 10**6
CHUNK_BYTES: Final = 1024 * MiB
AXIS_VALUES: Final = 10**7
TEXT_VALUES: Final = 10**6
MASK_VALUES: Final = 2**29
SIZES: Final = {COMPONENT: 4096, ITERATION: 10**6}
"""The largest sizes of some dims."""
CLAIM_VALUES: Final = 2**28
CLAIM_FILES: Final = 10**4
PRESENT: Final = 1000
"""Of an array of this many values or chunk files, at least one in a thousand files must be there."""

COMPRESSORS: Final = {"blosc", "zstd", "gzip", "zlib", "bz2", "lz4", "lzma"}
CHECKSUMS: Final = {"crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3"}
OTHERS: Final = {"bytes", "endian", "transpose", "vlen-utf8", "vlen-bytes", "shuffle", "delta", "fixedscaleoffset"}
CODECS: Final = COMPRESSORS | CHECKSUMS | OTHERS | {"astype", "bitround", "quantize", "packbits"}
SHARDS: Final = "sharding_indexed"
MOST_CODECS: Final = 8

ROOT_V3: Final = "zarr.json"


class StoredArray(NamedTuple):
    """What the document of an array says.

    Attributes
    ----------
    shape : tuple of int
    files : tuple of int
        Shape of a chunk file.
    dims : tuple of str or None
        None where the store does not name them.
    """

    shape: tuple[int, ...]
    files: tuple[int, ...]
    dims: tuple[str | None, ...] | None

    @property
    def file_count(self) -> int:
        return math.prod(math.ceil(n / c) for n, c in zip(self.shape, self.files, strict=True))


class Layout(NamedTuple):
    """The checked documents of a store: attributes of the root, or an array alone, and the arrays below it by name."""

    attrs: dict[str, Any]
    bare: StoredArray | None
    arrays: dict[str, StoredArray]
    groups: tuple[str, ...]


def read_layout(path: Path) -> Layout:
    """Read and check the documents of a store.

    Raises
    ------
    InputError
        When a document is no file, is no JSON, or says what is not allowed.
    """
    found = _node(path, "", str(path))
    if found is None:
        raise InputError(f"{str(path)!r} is no Zarr store")
    attrs, bare = found
    arrays: dict[str, StoredArray] = {}
    groups = []
    for name in _members(path):
        below = _node(path / name, name, str(path))
        if below is not None and below[1] is not None:
            arrays[name] = below[1]
        elif below is not None:
            groups.append(name)
    names = [unquote(name) for name in arrays]
    twice = next((name for name in names if names.count(name) > 1), None)
    _require(twice is None, path, f"two of its variables have the name {twice!r}")
    for name, array in arrays.items():
        _check_presence(path, name, array)
    return Layout(attrs, bare, arrays, tuple(sorted(groups)))


def is_group(path: Path) -> bool:
    """Whether a folder inside a store is a group, and not an array."""
    found = _node(path, path.name, str(path))
    return found is not None and found[1] is None


def _require(condition: bool, path: Path | str, what: str, repair: str = "copy or write it again") -> None:  # noqa: FBT001
    """Refuse a store. condition: what must hold. path: of the store. what: is wrong otherwise. repair: what to do."""
    if not condition:
        raise InputError(f"the store {str(path)!r} cannot be opened: {what}; {repair}")


def _members(path: Path) -> list[str]:
    """Names of the folders in a store."""
    found: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                found.append(entry.name)
                _require(len(found) <= MEMBERS, path, f"it has more than {MEMBERS} variables")
    return sorted(found)


# Documents -----------------------------------------------------------------------------------------------------------


def _node(folder: Path, name: str, store: str) -> tuple[dict[str, Any], StoredArray | None] | None:
    """Attributes and array of a folder: the array is None for a group. None for a folder that is neither.

    Parameters
    ----------
    folder : Path
    name : str
        Of the array, or "" for the root.
    store : str
        For messages.
    """
    document = _read(folder / ROOT_V3, store)
    if document is not None:
        kind, attrs = document.get("node_type"), document.get("attributes", {})
        _require(
            document.get("zarr_format") == 3, store, f"{_of(name)} has the format {document.get('zarr_format')!r}"[:200]
        )
        _require(kind in ("array", "group"), store, f"{_of(name)} is no array and no group")
        array = _array_v3(document, name, store) if kind == "array" else None
    else:
        document, attrs = _read(folder / ".zarray", store), _read(folder / ".zattrs", store) or {}
        group = _read(folder / ".zgroup", store) if document is None else None
        if document is None and group is None and not (folder / ".zmetadata").is_file():
            return None
        array = None if document is None else _array_v2(document, attrs, name, store)
    _require(isinstance(attrs, dict), store, f"the attributes of {_of(name)} are no JSON object")
    if array is not None and name:
        _check_name(name, store)
    return attrs, array


def _of(name: str) -> str:
    return f"the variable {name!r}" if name else "its root"


def _read(file: Path, store: str) -> dict[str, Any] | None:
    """A JSON object from a file of limited size, or None when there is no file. ``store`` is for messages."""
    try:
        found = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        _require(error.errno != errno.ELOOP, store, f"{file.name!r} in it is no file")
        raise
    _require(stat.S_ISREG(found.st_mode), store, f"{file.name!r} in it is no file")
    _require(found.st_size <= DOCUMENT_BYTES, store, f"{file.name!r} in it has {found.st_size:,} bytes")
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise InputError(f"the store {store!r} is damaged (its metadata are no JSON); copy or write it again") from None
    _require(isinstance(document, dict), store, f"{file.name!r} in it is no JSON object")
    _require(_depth(document) <= DEPTH, store, f"{file.name!r} in it has values inside each other in {DEPTH} levels")
    attrs = document if file.name == ".zattrs" else document.get("attributes")
    if found.st_size > ATTRIBUTE_BYTES:
        size = len(json.dumps(attrs))
        _require(size <= ATTRIBUTE_BYTES, store, f"the attributes in {file.name!r} have {size:,} bytes")
    return document


def _depth(document: Any) -> int:
    """Lists and objects inside each other, counted up to one more than is allowed."""
    level, depth = [document], 0
    while level and depth <= DEPTH:
        inside = [v for each in level for v in (each.values() if isinstance(each, dict) else each)]
        level, depth = [v for v in inside if isinstance(v, dict | list)], depth + 1
    return depth


def _check_name(name: Any, store: str) -> None:
    """Refuse a name of a variable or a dim that leaves its folder, or that no terminal can show."""
    readable = isinstance(name, str) and name.isprintable()
    _require(readable, store, f"it has a name with signs that are no letters: {ascii(name)[:100]}")
    _require(len(name.encode()) <= NAME_BYTES, store, f"it has a name of {len(name)} letters")
    plain = unquote(name)
    parts = plain.replace("\\", "/").split("/")
    good = bool(name) and plain.isprintable() and not {".", "..", ""} & set(parts) and not {*plain} & {"\0", "\ufffd"}
    _require(good, store, f"it has a name that is no name of a variable: {ascii(name)[:100]}")


# Arrays --------------------------------------------------------------------------------------------------------------


def _array_v3(document: Mapping[str, Any], name: str, store: str) -> StoredArray:
    grid = document.get("chunk_grid")
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    chunks = configuration.get("chunk_shape") if isinstance(configuration, dict) else None
    dims = document.get("dimension_names")
    encoding = document.get("chunk_key_encoding")
    separator = (encoding.get("configuration") or {}).get("separator", "/") if isinstance(encoding, dict) else "/"
    _require(separator in ("/", "."), store, f"{_of(name)} has chunks with other names than / and . separate")
    array = _array(name, store, document.get("shape"), chunks, dims)
    inner, itemsize = array.files, _itemsize(document.get("data_type"))
    codecs = document.get("codecs")
    for each in _codecs(codecs, name, store):
        if each.get("name") == SHARDS:
            within = each.get("configuration")
            within = within if isinstance(within, dict) else {}
            inner = _sizes(within.get("chunk_shape"), name, store, least=1)
            for part in ("codecs", "index_codecs"):
                listed = [c.get("name") for c in _codecs(within.get(part, []), name, store)]
                _require(SHARDS not in listed, store, f"{_of(name)} has shards inside shards")
    _check_sizes(name, store, array, inner, itemsize)
    return array


def _array_v2(document: Mapping[str, Any], attrs: Any, name: str, store: str) -> StoredArray:
    dims = attrs.get("_ARRAY_DIMENSIONS") if isinstance(attrs, dict) else None
    _require(document.get("zarr_format") == 2, store, f"{_of(name)} has another format than 2 and 3")
    separator = document.get("dimension_separator", ".")
    _require(separator in ("/", "."), store, f"{_of(name)} has chunks with other names than / and . separate")
    array = _array(name, store, document.get("shape"), document.get("chunks"), dims)
    compressor, filters = document.get("compressor"), document.get("filters")
    listed = [*(filters if isinstance(filters, list) else []), *([compressor] if compressor is not None else [])]
    listed = _codecs([{"name": c.get("id")} if isinstance(c, dict) else c for c in listed], name, store)
    _require(compressor is None or listed[-1]["name"] in COMPRESSORS, store, f"{_of(name)} has no known compressor")
    _check_sizes(name, store, array, array.files, _itemsize(document.get("dtype")))
    return array


def _array(name: str, store: str, shape: Any, chunks: Any, dims: Any) -> StoredArray:
    """An array, from what its document says of its shape, chunks and dims."""
    sizes = _sizes(shape, name, store)
    files = _sizes(chunks, name, store, least=1)
    _require(len(files) == len(sizes), store, f"{_of(name)} has {len(sizes)} dims and chunks of {len(files)}")
    if dims is None or not isinstance(dims, list) or all(d is None for d in dims):
        _require(dims is None or isinstance(dims, list), store, f"the names of the dims of {_of(name)} are no list")
        return StoredArray(sizes, files, None)
    _require(len(dims) == len(sizes), store, f"{_of(name)} has {len(sizes)} dims and {len(dims)} names of dims")
    for dim in dims:
        if dim is not None:
            _check_name(dim, store)
    _require(len(set(dims)) == len(dims), store, f"{_of(name)} has a dim twice: {', '.join(map(str, dims))}")
    return StoredArray(sizes, files, tuple(dims))


def _sizes(given: Any, name: str, store: str, *, least: int = 0) -> tuple[int, ...]:
    """A shape: whole numbers of at least ``least``. The other arguments are for messages."""
    good = isinstance(given, list) and all(type(n) is int and n >= least for n in given)
    _require(good, store, f"{_of(name)} has the shape or the chunks {ascii(given)[:60]}")
    _require(len(given) <= DIMS, store, f"{_of(name)} has {len(given)} dims")
    return tuple(given)


def _codecs(given: Any, name: str, store: str) -> list[dict[str, Any]]:
    """The codecs of an array, which must be known: others could run code, or hold objects."""
    good = isinstance(given, list) and all(isinstance(c, dict) and isinstance(c.get("name"), str) for c in given)
    _require(good and len(given) <= MOST_CODECS, store, f"{_of(name)} has no list of up to {MOST_CODECS} codecs")
    names = [c["name"].removeprefix("numcodecs.") for c in given]
    unknown = [n for n in names if n not in CODECS | {SHARDS}]
    _require(not unknown, store, f"{_of(name)} has the codec {unknown[:1]}, allowed are {', '.join(sorted(CODECS))}")
    _require(sum(n in COMPRESSORS for n in names) <= 1, store, f"{_of(name)} is compressed more than once")
    return [{**c, "name": n} for c, n in zip(given, names, strict=True)]


def _itemsize(dtype: Any) -> int:
    """Bytes of a value, at least where the dtype says so; 16 for others, such as text of variable length."""
    if isinstance(dtype, dict):
        configuration = dtype.get("configuration")
        size = configuration.get("length_bytes") if isinstance(configuration, dict) else None
        return size if type(size) is int and size > 0 else 16
    if isinstance(dtype, list):
        return sum(_itemsize(field[1]) for field in dtype if isinstance(field, list) and len(field) > 1) or 16
    found = re.fullmatch(r"([<>|=]?)([A-Za-z]+)(\d{1,18})", dtype) if isinstance(dtype, str) else None
    if found is None:
        return 1 if dtype == "bool" else 16
    of_numpy, kind, number = found[1], found[2], int(found[3])
    return number * (4 if kind == "U" else 1) if of_numpy else max(1, number // 8)


def _check_sizes(name: str, store: str, array: StoredArray, chunks: Sequence[int], itemsize: int) -> None:
    """Refuse an array that is too large, or has too many or too large chunks. chunks: as they are decompressed."""
    values = math.prod(array.shape)
    _require(values <= VALUES, store, f"{_of(name)} claims {values:.3g} values, at most {VALUES:.3g} are read")
    if len(array.shape) == 1:
        _require(
            values <= AXIS_VALUES,
            store,
            f"the axis {name!r} has {values:.3g} values, at most {AXIS_VALUES:.3g} are read",
        )
    _require(
        len(chunks) == len(array.shape), store, f"{_of(name)} has {len(array.shape)} dims, its chunks {len(chunks)}"
    )
    count = math.prod(math.ceil(n / c) for n, c in zip(array.shape, chunks, strict=True))
    anew = f"store it anew: xarray.open_zarr({store!r}, chunks={{...}}).drop_encoding().to_zarr(...)"
    _require(count <= CHUNKS, store, f"{_of(name)} has {count:.3g} chunks, at most {CHUNKS:,} are read", anew)
    size = math.prod(chunks) * itemsize
    large = f"{_of(name)} has chunks of {size / 1e9:.3g} GB, at most {CHUNK_BYTES / 1e9:.3g} GB are read at once"
    _require(size <= CHUNK_BYTES, store, large, anew)
    if unquote(name) == MASK:
        _require(values <= MASK_VALUES, store, f"its mask has {values:.3g} values, at most {MASK_VALUES:.3g} are read")
    for dim, n in zip(array.dims or (), array.shape, strict=False):
        most = SIZES.get(str(dim), n)
        _require(n <= most, store, f"{_of(name)} has {n:.3g} along {dim!r}, at most {most:,} are read")


def _check_presence(path: Path, name: str, array: StoredArray) -> None:
    """Refuse a large array nearly all of whose chunk files are missing: a store may leave out some empty ones."""
    large = max(math.prod(array.shape), math.prod(array.files)) >= CLAIM_VALUES
    if not large and array.file_count < CLAIM_FILES:
        return
    wanted = max(1, array.file_count // PRESENT)
    for count, _ in enumerate(_files(path / name), start=1):
        if count >= wanted:
            return
    raise InputError(
        f"the store {str(path)!r} is truncated: {_of(name)} claims {math.prod(array.shape):.3g} values in "
        f"{array.file_count:,} chunk files, and nearly all are missing; copy or write it again"
    )


def _files(folder: Path) -> Iterator[str]:
    """Chunk files of an array."""
    for _, _, names in os.walk(folder):
        yield from (n for n in names if n not in (ROOT_V3, ".zarray", ".zattrs"))
