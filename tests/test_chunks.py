"""Storage chunks and work blocks."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.chunks import (
    MAX_SHARD_BYTES,
    MIN_CHUNKS_FOR_SHARDS,
    STORAGE_CHUNK_BYTES,
    MiB,
    smallest_unsigned,
    storage_layout,
    work_chunks,
)
from scalehsi.schema import InputError
from tests.strategies import partitions

shapes = st.lists(st.integers(1, 600), min_size=2, max_size=5)
itemsizes = st.sampled_from([1, 2, 4, 8])


def edges(sizes: tuple[int, ...]) -> set[int]:
    return {0, *accumulate(sizes)}


# Storage.


@given(shape=shapes, itemsize=itemsizes, chunk_bytes=st.integers(1, 2**22))
def test_a_storage_chunk_holds_whole_spectra_and_stays_within_its_bytes(
    shape: list[int], itemsize: int, chunk_bytes: int
) -> None:
    layout = storage_layout(shape, itemsize, chunk_bytes=chunk_bytes)
    assert layout.chunks[-1] == shape[-1]
    assert all(1 <= c <= n for c, n in zip(layout.chunks, shape, strict=True))
    spectrum = shape[-1] * itemsize
    assert math.prod(layout.chunks) * itemsize <= max(spectrum, chunk_bytes)
    counts = [math.ceil(n / c) for n, c in zip(shape, layout.chunks, strict=True)]
    if layout.shards is None:
        assert math.prod(counts) < MIN_CHUNKS_FOR_SHARDS
    else:
        assert math.prod(counts) >= MIN_CHUNKS_FOR_SHARDS
        assert all(s % c == 0 for s, c in zip(layout.shards, layout.chunks, strict=True))
        assert math.prod(layout.shards) * itemsize <= max(MAX_SHARD_BYTES, math.prod(layout.chunks) * itemsize)


@pytest.mark.parametrize(
    ("shape", "itemsize"),
    [((180, 180, 1980), 1), ((4096, 4096, 2048), 2), ((512, 512, 1024), 4), ((60, 256, 256, 2048), 1)],
)
def test_common_cubes_get_compact_tiles_of_some_16_mb(shape: tuple[int, ...], itemsize: int) -> None:
    *_, y, x, _ = storage_layout(shape, itemsize).chunks
    nbytes = math.prod(storage_layout(shape, itemsize).chunks) * itemsize
    assert STORAGE_CHUNK_BYTES / 2.5 < nbytes <= STORAGE_CHUNK_BYTES
    assert max(y, x) <= 2 * min(y, x)


def test_files_of_a_terabyte_stay_few() -> None:
    shape = (16384, 16384, 2048)
    layout = storage_layout(shape, 2)
    assert layout.shards is not None
    files = math.prod(math.ceil(n / s) for n, s in zip(shape, layout.shards, strict=True))
    assert files < 10_000


# Work.


@given(shape=shapes, itemsize=itemsizes, block_bytes=st.integers(1, 2**22), min_blocks=st.integers(1, 40))
def test_blocks_of_a_cube_in_memory(shape: list[int], itemsize: int, block_bytes: int, min_blocks: int) -> None:
    grid = work_chunks(shape, itemsize, block_bytes=block_bytes, min_blocks=min_blocks)
    assert [sum(sizes) for sizes in grid] == shape[:-1]
    spectrum = shape[-1] * itemsize
    total = math.prod(shape) * itemsize
    largest = math.prod(max(sizes) for sizes in grid) * spectrum
    assert largest <= max(spectrum, min(block_bytes, total // min_blocks))
    assert math.prod(map(len, grid)) >= min(min_blocks, math.prod(shape[:-1]))
    # A slab is contiguous in memory: one pixel along the dims before the cut one, whole dims after it.
    cut = [axis for axis, sizes in enumerate(grid) if len(sizes) > 1]
    if cut:
        assert all(max(sizes) == 1 for sizes in grid[: cut[-1]])


@given(data=st.data(), itemsize=itemsizes, channels=st.integers(1, 50), block_bytes=st.integers(1, 20_000))
def test_blocks_are_whole_stored_chunks_or_parts_of_one(
    data: st.DataObject, itemsize: int, channels: int, block_bytes: int
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=2, max_size=3))
    stored = [data.draw(partitions(n)) for n in sizes]
    grid = work_chunks((*sizes, channels), itemsize, storage=stored, block_bytes=block_bytes)
    assert [sum(block) for block in grid] == sizes
    pixel = channels * itemsize
    unit = math.prod(max(s) for s in stored) * pixel
    assert math.prod(max(block) for block in grid) * pixel <= max(pixel, block_bytes, min(unit, 4 * block_bytes))
    for block, chunk in zip(grid, stored, strict=True):
        # Every border of a block is one of a chunk, or lies inside a chunk that had to be cut.
        inside = edges(block) - edges(chunk)
        assert not inside or unit > 4 * block_bytes
        for start, stop in zip(sorted(edges(chunk)), sorted(edges(chunk))[1:], strict=False):
            cuts = inside & set(range(start, stop))
            assert not cuts or {start, stop} <= edges(block)


@given(sizes=st.lists(st.integers(1, 60), min_size=2, max_size=3), data=st.data())
def test_stored_sizes_may_be_given_as_numbers(sizes: list[int], data: st.DataObject) -> None:
    unit = [data.draw(st.integers(1, n)) for n in sizes]
    parts = [(u,) * (n // u) + ((n % u,) if n % u else ()) for u, n in zip(unit, sizes, strict=True)]
    options = {"block_bytes": data.draw(st.integers(1, 5000)), "min_blocks": data.draw(st.integers(1, 9))}
    assert work_chunks((*sizes, 7), 2, storage=unit, **options) == work_chunks((*sizes, 7), 2, storage=parts, **options)


def test_small_stored_chunks_are_joined_to_blocks() -> None:
    grid = work_chunks((1024, 1024, 2048), 2, storage=(64, 64))
    nbytes = math.prod(max(sizes) for sizes in grid) * 2048 * 2
    assert 32 * MiB <= nbytes <= 64 * MiB
    assert all(size % 64 == 0 for sizes in grid for size in sizes)


def test_a_stored_chunk_is_cut_only_when_it_is_four_times_too_large() -> None:
    assert work_chunks((64, 64, 1024), 1, storage=(64, 64), block_bytes=MiB) == ((64,), (64,))
    grid = work_chunks((64, 64, 1024), 1, storage=(64, 64), block_bytes=MiB - 1)
    assert math.prod(map(len, grid)) > 4


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (3, 0, 5), (3, 3, -1)])
def test_impossible_shapes_are_refused(shape: tuple[int, ...]) -> None:
    for make in (storage_layout, work_chunks):
        with pytest.raises(InputError, match=r"\(\.\.\., y, x, energy\) with every size at least 1, got"):
            make(shape, 1)


# Counts.


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(0, "u1"), (255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4"), (2**32 - 1, "u4"), (2**32, "u8")],
)
def test_counts_get_the_smallest_type_that_holds_them(largest: int, dtype: str) -> None:
    assert smallest_unsigned(largest) == np.dtype(dtype)
    assert smallest_unsigned(np.uint64(largest)) == np.dtype(dtype)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(InputError, match=r"must not be negative, got a largest value of -3"):
        smallest_unsigned(-3)
