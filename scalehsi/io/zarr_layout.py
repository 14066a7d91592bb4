"""How the variables of a Dataset lie in a store: chunks, shards, compression, and attributes that JSON can hold.

A lazy variable is stored on the grid of its dask blocks where that grid allows it, so that saving computes every block
once and holds few of them.
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
    dense EELS map 1.8x at 2.3 GB/s, noisy float32 1.5x at 2.4 GB/s; Zstandard gives 25x, 1.9x and 1.4x at half that
    speed or less, and an iterative fit reads a cube many times. The checksum costs less than one part in fifty, and
    without it LZ4 gives numbers back from a chunk that was cut short.
    """
    from zarr.codecs import BloscCodec, Crc32cCodec

    return BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()


def laid_out(dataset: xr.Dataset, *, chunk_bytes: int) -> tuple[xr.Dataset, dict[Hashable, dict[str, Any]]]:
    """Cut lazy variables along the files that they will fill, and give the encoding of every variable.

    A task then writes whole files, so that no two tasks touch the same one.
    """
    # A slash in a name would be a folder to Zarr, which xarray does not look into.
    slashed = {name: quote(str(name), safe="") for name in dataset.variables if "/" in str(name)}
    out = dataset.drop_encoding().rename(slashed)
    out.attrs = plain_attrs(dataset.attrs)
    encoding: dict[Hashable, dict[str, Any]] = {}
    for name, variable in list(out.variables.items()):
        variable.attrs = plain_attrs(variable.attrs, of=str(name))
        if variable.dtype.kind not in "biuf" and isinstance(variable.data, da.Array):
            variable.data = variable.data.compute()  # text and times take little room and are encoded as a whole
        if variable.dtype.kind in "OUST":
            # Text of fixed length has no settled place in Zarr v3; text of any length has.
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
    """Storage chunks of a variable by what its dims are, on the grid of its dask blocks where there is one.

    Parameters
    ----------
    dims, shape
        Of the variable: a cube, maps of components, maps, or anything else.
    itemsize, chunk_bytes : int
    blocks : tuple of tuple of int, optional
    """
    layout = _free_layout(dims, shape, itemsize, chunk_bytes)
    if not blocks or 0 in shape or (dims[-1] == ENERGY and len(blocks[-1]) > 1):
        return layout
    block = tuple(sizes[0] for sizes in blocks)
    block_bytes = math.prod(block) * itemsize
    # Blocks are joined whole, or cut in themselves: to make compact tiles of long slabs would need many slabs at once.
    if 2 * block_bytes >= chunk_bytes:
        goal = _free_layout(dims, block, itemsize, chunk_bytes).chunks
    else:
        counts = tuple(len(sizes) for sizes in blocks)
        together = storage_layout((*counts, 1), block_bytes, chunk_bytes=chunk_bytes).chunks
        goal = tuple(n if c == 1 else b * t for n, c, b, t in zip(shape, counts, block, together, strict=False))
    return _aligned(layout, blocks, goal)


def _free_layout(dims: tuple[str, ...], shape: tuple[int, ...], itemsize: int, chunk_bytes: int) -> StorageLayout:
    if not shape or 0 in shape:
        return StorageLayout(tuple(max(1, n) for n in shape), None)
    if dims[-3:] == (Y, X, ENERGY):
        return storage_layout(shape, itemsize, chunk_bytes=chunk_bytes)
    if dims[-2:] == (Y, X):
        # All components of a pixel lie together, as they are used together; one map of ten costs ten times its bytes.
        depth = shape[:1] if dims[0] == COMPONENT else ()
        pixels = storage_layout((*shape[len(depth) :], *(depth or (1,))), itemsize, chunk_bytes=chunk_bytes)
        shards = None if pixels.shards is None else (*depth, *pixels.shards[:-1])
        return StorageLayout((*depth, *pixels.chunks[:-1]), shards)
    row = math.prod(shape[1:]) * itemsize
    return StorageLayout((min(shape[0], max(1, chunk_bytes // row)), *shape[1:]), None)


def _aligned(layout: StorageLayout, blocks: Blocks, goal: tuple[int, ...]) -> StorageLayout:
    """The layout with chunks near ``goal`` that are parts of one block each or several whole blocks.

    Where the blocks are irregular, or their sizes have no fitting part, the layout stays as it is.

    Examples
    --------
    >>> _aligned(StorageLayout((45, 45, 99), None), ((64, 64, 64), (10,) * 20, (99,)), (45, 45, 99))
    StorageLayout(chunks=(32, 40, 99), shards=None)
    """
    chunks, shards = [], []
    for axis, (sizes, wanted) in enumerate(zip(blocks, goal, strict=True)):
        chunk = _fitting(sizes, wanted)
        if chunk is None:
            return layout
        chunks.append(chunk)
        if layout.shards is not None:
            together = max(1, layout.shards[axis] // chunk)
            shards.append(chunk * _nested(together, sizes[0] // chunk if len(sizes) > 1 else 0))
    return StorageLayout(tuple(chunks), tuple(shards) if shards else None)


def _fitting(sizes: tuple[int, ...], wanted: int) -> int | None:
    """The chunk nearest to ``wanted``, from half of it on, that divides a block or is whole blocks."""
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


def _nested(chunks: int, inside: int) -> int:
    """The most chunks a shard, up to ``chunks``, that divide the chunks of a block or are whole blocks."""
    if inside < 2:
        return chunks
    return next(n for n in range(chunks, 0, -1) if inside % n == 0 or n % inside == 0)


def write_blocks(layout: StorageLayout, blocks: Blocks) -> tuple[int, ...]:
    """The blocks in which a dask array is written: whole files each, and no smaller than they already are."""
    files = layout.shards or layout.chunks
    return tuple(
        sizes[0] if len(sizes) > 1 and sizes[0] % file == 0 else min(file, sum(sizes))
        for sizes, file in zip(blocks, files, strict=True)
    )


def plain_attrs(attrs: Any, *, of: str = "") -> dict[str, Any]:
    """Attributes as JSON can hold them: text, numbers, true and false, nothing, lists and dicts of these."""
    return {str(k): _plain(v, f"{of} attrs[{str(k)!r}]".strip()) for k, v in attrs.items()}


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist(), where)
    if isinstance(value, dict):
        return {str(k): _plain(v, f"{where}[{str(k)!r}]") for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v, where) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise InputError(
        f"{where} holds a {type(value).__name__}, a store keeps text, numbers, lists and dicts; "
        "replace it, or remove it with del"
    )
