"""Choose the storage chunks of a cube on disk, and the blocks in which it is computed.

A *storage chunk* is decompressed by one read: about 16 MB, the whole energy axis of a compact tile of pixels. A *work
block* is computed by one task: a rectangle of whole storage chunks of about 64 MB, because few large blocks cost the
scheduler less than many small ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from scalehsi.schema import InputError

MiB: Final = 2**20
STORAGE_CHUNK_BYTES: Final = 16 * MiB
"""Chunks below 1 MB are read 1.5x to 2.5x slower than those of 16 MB (Zarr v3, zstd or lz4)."""
WORK_BLOCK_BYTES: Final = 64 * MiB
MAX_SHARD_BYTES: Final = 256 * MiB
MAX_CHUNKS_PER_SHARD: Final = 16
"""A shard is written from memory as a whole, so it has few chunks."""
MIN_CHUNKS_FOR_SHARDS: Final = 1024
"""Below this number of chunks, one file for each chunk suits parallel writers and partial copies better than shards."""


@dataclass(frozen=True)
class StorageLayout:
    """Chunks and files of a cube in a Zarr store.

    Attributes
    ----------
    chunks : tuple of int
        Values along each dim in one chunk; the last (energy) is always whole.
    shards : tuple of int or None
        Values along each dim in one file, a multiple of ``chunks``; None for one file for each chunk.
    """

    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None


def storage_layout(shape: Sequence[int], itemsize: int, *, chunk_bytes: int = STORAGE_CHUNK_BYTES) -> StorageLayout:
    """Choose storage chunks, and shards when one file for each chunk would be too many for a parallel file system.

    Parameters
    ----------
    shape : sequence of int
        The cube's shape ``(..., y, x, energy)``.
    itemsize : int
        Bytes of a value.
    chunk_bytes : int, default 16 MiB
        Intended size before compression. The smallest possible chunk is the spectrum of one pixel.

    Returns
    -------
    StorageLayout

    Examples
    --------
    >>> storage_layout((180, 180, 1980), 1)
    StorageLayout(chunks=(90, 90, 1980), shards=None)
    >>> storage_layout((4096, 4096, 2048), 2).shards is not None
    True
    """
    *navigation, channels = _checked_shape(shape)
    pixels = max(1, chunk_bytes // (channels * itemsize))
    tile = _compact_tile(navigation, pixels)
    chunks = (*tile, channels)
    counts = [math.ceil(n / t) for n, t in zip(navigation, tile, strict=True)]
    if math.prod(counts) < MIN_CHUNKS_FOR_SHARDS:
        return StorageLayout(chunks, None)
    per_shard = max(1, min(MAX_CHUNKS_PER_SHARD, MAX_SHARD_BYTES // max(1, math.prod(chunks) * itemsize)))
    factors = _compact_tile(counts, per_shard, even=False)
    return StorageLayout(chunks, (*(t * f for t, f in zip(tile, factors, strict=True)), channels))


def work_chunks(
    shape: Sequence[int],
    itemsize: int,
    *,
    storage: Sequence[int | Sequence[int]] | None = None,
    block_bytes: int = WORK_BLOCK_BYTES,
    min_blocks: int = 1,
    compact: bool = False,
) -> tuple[tuple[int, ...], ...]:
    """Cut the pixels of a cube into blocks, one for each task.

    Parameters
    ----------
    shape : sequence of int
        The cube's shape ``(..., y, x, energy)``.
    itemsize : int
        Bytes of a value.
    storage : sequence of int, or of sequences of int, optional
        Pixels along each navigation dim of one stored chunk (or shard), or of each if they differ (a cropped cube).
        Blocks consist of whole stored chunks, so that no chunk is decompressed twice, unless one chunk alone exceeds
        ``4 * block_bytes`` and must be divided. Without it (a cube in memory) blocks are slabs of whole rows, which
        need no copy.
    block_bytes : int, default 64 MiB
        Intended upper limit of the size.
    min_blocks : int, default 1
        Make at least this many blocks, if there are enough pixels or stored chunks.
    compact : bool, default False
        Nearly square blocks, with short borders, in place of slabs of whole rows.

    Returns
    -------
    tuple of tuple of int
        Block sizes along each navigation dim, in the form of dask's chunks.

    Examples
    --------
    >>> work_chunks((100, 80, 1000), 2, block_bytes=4_000_000)
    ((25, 25, 25, 25), (80,))
    >>> work_chunks((100, 80, 1000), 2, storage=(10, 40), block_bytes=4_000_000)
    ((20, 20, 20, 20, 20), (80,))
    >>> work_chunks((95, 80, 1000), 2, storage=((5, 30, 30, 30), (80,)), block_bytes=10_000_000)
    ((35, 60), (80,))
    """
    *navigation, channels = _checked_shape(shape)
    pixel_bytes = channels * itemsize
    total = math.prod(navigation) * pixel_bytes
    goal = max(pixel_bytes, min(block_bytes, total // max(1, min_blocks)))
    shaped = _compact_tile if compact else _slab
    if storage is None:
        tile = shaped(navigation, max(1, goal // pixel_bytes))
        return tuple(_cut(n, t) for n, t in zip(navigation, tile, strict=True))
    stored = [_cut(n, s) if isinstance(s, int) else tuple(s) for n, s in zip(navigation, storage, strict=True)]
    unit = [max(sizes) for sizes in stored]
    unit_bytes = math.prod(unit) * pixel_bytes
    if unit_bytes > 4 * block_bytes:
        tile = _compact_tile(unit, max(1, block_bytes // pixel_bytes))
    else:
        counts = [math.ceil(n / u) for n, u in zip(navigation, unit, strict=True)]
        factors = shaped(counts, max(1, goal // unit_bytes))
        tile = tuple(u * f for u, f in zip(unit, factors, strict=True))
    return tuple(_joined_chunks(sizes, t) for sizes, t in zip(stored, tile, strict=True))


def smallest_unsigned(largest: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned integer dtype that holds counts up to ``largest``.

    Examples
    --------
    >>> smallest_unsigned(255), smallest_unsigned(256)
    (dtype('uint8'), dtype('uint16'))
    """
    if largest < 0:
        raise InputError(f"counts must not be negative, got a largest value of {largest}")
    return np.dtype(np.min_scalar_type(int(largest)))


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) < 2 or any(int(n) < 1 for n in shape):
        raise InputError(f"a cube's shape is (..., y, x, energy) with every size at least 1, got {tuple(shape)}")
    return tuple(int(n) for n in shape)


def _cut(size: int, step: int) -> tuple[int, ...]:
    full, rest = divmod(size, step)
    return (step,) * full + ((rest,) if rest else ())


def _joined_chunks(stored: Sequence[int], most: int) -> tuple[int, ...]:
    """Sizes of blocks of whole stored chunks, up to ``most`` pixels each; a larger chunk is divided by itself."""
    sizes: list[int] = []
    room = 0
    for chunk in stored:
        if chunk <= room:
            sizes[-1] += chunk
            room -= chunk
        else:
            sizes.extend(_cut(chunk, min(chunk, most)))
            room = most - chunk
    return tuple(sizes)


def _compact_tile(sizes: Sequence[int], most: int, *, even: bool = True) -> tuple[int, ...]:
    """A tile of at most ``most`` cells of a grid of these ``sizes``, nearly square in the last two dims.

    It extends into leading dims only when the last two are whole. With ``even`` its sides divide the sizes into nearly
    equal parts.
    """
    tile = [1] * len(sizes)
    left = max(1, most)
    plane = list(range(len(sizes)))[-2:]
    # Shorter sides first: the cells that they do not use remain for the longer ones.
    for position, axis in enumerate(sorted(plane, key=lambda a: sizes[a])):
        share = left if position == len(plane) - 1 else max(1, math.isqrt(left))
        tile[axis] = min(sizes[axis], share)
        left = max(1, left // tile[axis])
    if all(tile[a] == sizes[a] for a in plane):
        for axis in reversed(range(len(sizes) - len(plane))):
            tile[axis] = min(sizes[axis], left)
            left = max(1, left // tile[axis])
            if tile[axis] < sizes[axis]:
                break
    if even:
        tile = [math.ceil(n / math.ceil(n / t)) for n, t in zip(sizes, tile, strict=True)]
    return tuple(tile)


def _slab(sizes: Sequence[int], most: int) -> tuple[int, ...]:
    """A tile of at most ``most`` cells, filled from the last dim backwards: a slab that is contiguous in C order."""
    tile = [1] * len(sizes)
    left = max(1, most)
    for axis in reversed(range(len(sizes))):
        tile[axis] = min(sizes[axis], left)
        if tile[axis] < sizes[axis]:
            tile[axis] = math.ceil(sizes[axis] / math.ceil(sizes[axis] / tile[axis]))
            break
        left = max(1, left // tile[axis])
    return tuple(tile)
