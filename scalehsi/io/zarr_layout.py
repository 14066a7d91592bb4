"""Layout of a Dataset in a Zarr store: chunks, shards, compression, and attributes as JSON.

The storage chunks of a lazy variable follow its dask blocks where they are regular, so that saving computes every block
once and keeps few of them in memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable
from typing import Any
from urllib.parse import quote

import dask.array as da
import numpy as np
import xarray as xr

from scalehsi.chunks import StorageLayout, storage_layout
from scalehsi.schema import COMPONENT, ENERGY, InputError, X, Y

Blocks = tuple[tuple[int, ...], ...]


def compressors() -> tuple[Any, ...]:
    """LZ4 after a bit shuffle, with a checksum.

    Measured on one core (16 MB chunks): sparse uint8 counts shrink 16x and are read at 1.9 GB/s, uint16 counts of a
    dense EELS map 1.8x at 2.3 GB/s, noisy float32 1.5x at 2.4 GB/s; Zstandard reaches 25x, 1.9x and 1.4x at half that
    speed or less, and an iterative fit reads a cube many times. The checksum costs less than 2 %; without it LZ4
    decompresses a truncated chunk to wrong numbers.
    """
    from zarr.codecs import BloscCodec, Crc32cCodec

    return BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()


def with_layout(dataset: xr.Dataset, *, chunk_bytes: int) -> tuple[xr.Dataset, dict[Hashable, dict[str, Any]]]:
    """Return the Dataset, ready to be written, and the Zarr encoding of every variable.

    Lazy variables are rechunked to whole files, so that no two tasks write to the same file. ``chunk_bytes`` is the
    intended size of a storage chunk before compression.
    """
    # Zarr takes a slash in a name for a folder, which xarray does not read.
    slashed = {name: quote(str(name), safe="") for name in dataset.variables if "/" in str(name)}
    out = dataset.drop_encoding().rename(slashed)
    out.attrs = json_attrs(dataset.attrs)
    encoding: dict[Hashable, dict[str, Any]] = {}
    for name, variable in list(out.variables.items()):
        variable.attrs = json_attrs(variable.attrs, of=str(name))
        if variable.dtype.kind not in "biuf" and isinstance(variable.data, da.Array):
            variable.data = variable.data.compute()  # text and times are small and are encoded whole
        if variable.dtype.kind in "OUST":
            # Zarr v3 specifies text of variable length, but not yet of fixed length.
            encoding[name] = {"dtype": object}
            continue
        dims, itemsize = tuple(map(str, variable.dims)), variable.dtype.itemsize
        layout = layout_of(dims, variable.shape, itemsize, chunk_bytes, blocks=variable.chunks)
        encoding[name] = {"chunks": layout.chunks, "shards": layout.shards, "compressors": compressors()}
        if variable.dtype.kind == "f":
            encoding[name]["_FillValue"] = None
        if isinstance(variable.data, da.Array):
            variable.data = variable.data.rechunk(write_blocks(layout, variable.data.chunks))
    return out, encoding


def layout_of(
    dims: tuple[str, ...], shape: tuple[int, ...], itemsize: int, chunk_bytes: int, *, blocks: Blocks | None = None
) -> StorageLayout:
    """Choose the storage chunks of a variable by its dims, aligned with its dask blocks where they are regular.

    Parameters
    ----------
    dims, shape : tuple
        Of the variable: a cube, maps of components, single maps, or others.
    itemsize : int
        Bytes of a value.
    chunk_bytes : int
        Intended size of a storage chunk before compression.
    blocks : tuple of tuple of int, optional
        Sizes of the dask blocks along each dim.
    """
    layout = _default_layout(dims, shape, itemsize, chunk_bytes)
    if not blocks or 0 in shape or (dims[-1] == ENERGY and len(blocks[-1]) > 1):
        return layout
    block = tuple(sizes[0] for sizes in blocks)
    block_bytes = math.prod(block) * itemsize
    # Small blocks are joined whole, large ones divided: square chunks across slabs would need many slabs in memory.
    if 2 * block_bytes >= chunk_bytes:
        goal = _default_layout(dims, block, itemsize, chunk_bytes).chunks
    else:
        counts = tuple(len(sizes) for sizes in blocks)
        joined = storage_layout((*counts, 1), block_bytes, chunk_bytes=chunk_bytes).chunks
        goal = tuple(n if c == 1 else b * j for n, c, b, j in zip(shape, counts, block, joined, strict=False))
    return _aligned_to_blocks(layout, blocks, goal)


def _default_layout(dims: tuple[str, ...], shape: tuple[int, ...], itemsize: int, chunk_bytes: int) -> StorageLayout:
    """The layout without regard to dask blocks; the arguments are those of `layout_of`."""
    if not shape or 0 in shape:
        return StorageLayout(tuple(max(1, n) for n in shape), None)
    if dims[-3:] == (Y, X, ENERGY):
        return storage_layout(shape, itemsize, chunk_bytes=chunk_bytes)
    if dims[-2:] == (Y, X):
        # A chunk holds all components of its pixels, which are used together; one map alone costs reading all of them.
        depth = shape[:1] if dims[0] == COMPONENT else ()
        pixels = storage_layout((*shape[len(depth) :], *(depth or (1,))), itemsize, chunk_bytes=chunk_bytes)
        shards = None if pixels.shards is None else (*depth, *pixels.shards[:-1])
        return StorageLayout((*depth, *pixels.chunks[:-1]), shards)
    row = math.prod(shape[1:]) * itemsize
    return StorageLayout((min(shape[0], max(1, chunk_bytes // row)), *shape[1:]), None)


def _aligned_to_blocks(layout: StorageLayout, blocks: Blocks, goal: tuple[int, ...]) -> StorageLayout:
    """The layout with chunks near the ``goal`` that are parts of one block or several whole blocks.

    Unchanged when the blocks are irregular or have no suitable divisor.

    Examples
    --------
    >>> _aligned_to_blocks(StorageLayout((45, 45, 99), None), ((64, 64, 64), (10,) * 20, (99,)), (45, 45, 99))
    StorageLayout(chunks=(32, 40, 99), shards=None)
    """
    chunks, shards = [], []
    for axis, (sizes, wanted) in enumerate(zip(blocks, goal, strict=True)):
        chunk = _chunk_size(sizes, wanted)
        if chunk is None:
            return layout
        chunks.append(chunk)
        if layout.shards is not None:
            most = max(1, layout.shards[axis] // chunk)
            shards.append(chunk * _chunks_per_shard(most, sizes[0] // chunk if len(sizes) > 1 else 0))
    return StorageLayout(tuple(chunks), tuple(shards) if shards else None)


def _chunk_size(sizes: tuple[int, ...], wanted: int) -> int | None:
    """The largest chunk up to ``wanted``, and at least half of it, that divides a block or is whole blocks, or None.

    ``sizes`` are those of the blocks along one dim.
    """
    block = sizes[0]
    if len(sizes) == 1:
        return wanted
    if any(n != block for n in sizes[:-1]) or sizes[-1] > block:
        return None
    if block <= wanted:
        return wanted // block * block
    first = math.ceil(block / wanted)
    parts = [block // n for n in range(first, 2 * first + 1) if block % n == 0]
    return parts[0] if parts and 2 * parts[0] >= wanted else None


def _chunks_per_shard(most: int, per_block: int) -> int:
    """The largest number of chunks, up to ``most``, that divides the chunks of a block or makes whole blocks."""
    if per_block < 2:
        return most
    return next(n for n in range(most, 0, -1) if per_block % n == 0 or n % per_block == 0)


def write_blocks(layout: StorageLayout, blocks: Blocks) -> tuple[int, ...]:
    """The blocks in which a dask array is written: its own where they are whole files, otherwise one file each."""
    files = layout.shards or layout.chunks
    return tuple(
        sizes[0] if len(sizes) > 1 and sizes[0] % file == 0 else min(file, sum(sizes))
        for sizes, file in zip(blocks, files, strict=True)
    )


def json_attrs(attrs: Any, *, of: str = "") -> dict[str, Any]:
    """Attributes as JSON values: text, numbers, booleans, None, lists and dicts of these. ``of`` is the variable."""
    return {str(k): _json_value(v, f"{of} attrs[{str(k)!r}]".strip()) for k, v in attrs.items()}


def _json_value(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return _json_value(value.tolist(), where)
    if isinstance(value, dict):
        return {str(k): _json_value(v, f"{where}[{str(k)!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_json_value(v, where) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise InputError(
        f"{where} holds a {type(value).__name__}, a store keeps text, numbers, lists and dicts; "
        "replace it, or remove it with del"
    )
