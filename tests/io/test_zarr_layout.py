"""Chunks of a store, on the grid of the dask blocks that fill it."""

from __future__ import annotations

import math
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.chunks import MiB, StorageLayout
from scalehsi.io.zarr_layout import json_attrs, layout_of, with_layout, write_blocks
from scalehsi.schema import InputError

CUBE = ("y", "x", "energy")


@st.composite
def regular_blocks(draw: Any) -> tuple[tuple[int, ...], ...]:
    """Blocks of one size along each pixel axis, the last one shorter; energy whole."""
    axes = []
    for _ in range(2):
        block, count = draw(st.integers(1, 40)), draw(st.integers(1, 8))
        last = draw(st.integers(1, block)) if count > 1 else block
        axes.append((block,) * (count - 1) + (last,))
    return (*axes, (draw(st.integers(1, 300)),))


@given(blocks=regular_blocks(), chunk_bytes=st.integers(500, 200_000), itemsize=st.sampled_from([1, 2, 8]))
def test_no_block_is_written_by_two_tasks_or_into_part_of_a_file(
    blocks: tuple[tuple[int, ...], ...], chunk_bytes: int, itemsize: int
) -> None:
    shape = tuple(map(sum, blocks))
    layout = layout_of(CUBE, shape, itemsize, chunk_bytes, blocks=blocks)
    assert layout.chunks[-1] == shape[-1]
    files = layout.shards or layout.chunks
    assert all(f % c == 0 for f, c in zip(files, layout.chunks, strict=True))
    written = write_blocks(layout, blocks)
    for size, file, write in zip(shape, files, written, strict=True):
        assert write == size or write % file == 0


@given(blocks=regular_blocks(), chunk_bytes=st.integers(500, 200_000))
def test_chunks_stay_near_the_size_that_was_asked_for(blocks: tuple[tuple[int, ...], ...], chunk_bytes: int) -> None:
    shape = tuple(map(sum, blocks))
    got = math.prod(layout_of(CUBE, shape, 1, chunk_bytes, blocks=blocks).chunks)
    assert got <= max(chunk_bytes, shape[-1])


def test_blocks_of_rows_are_joined_and_never_cut() -> None:
    rows = ((4,) * 100, (400,), (1000,))
    layout = layout_of(CUBE, (400, 400, 1000), 1, 16 * MiB, blocks=rows)
    assert layout.chunks[1] == 400
    assert layout.chunks[0] % 4 == 0
    assert 8 * MiB < math.prod(layout.chunks) <= 16 * MiB


def test_irregular_blocks_are_rechunked() -> None:
    free = layout_of(CUBE, (90, 90, 1000), 1, MiB)
    assert layout_of(CUBE, (90, 90, 1000), 1, MiB, blocks=((30, 50, 10), (90,), (1000,))) == free
    assert layout_of(CUBE, (90, 90, 1000), 1, MiB, blocks=((90,), (90,), (500, 500))) == free


def test_shards_are_whole_blocks_or_parts_of_one() -> None:
    shape, blocks = (4096, 4096, 512), ((128,) * 32, (128,) * 32, (512,))
    layout = layout_of(CUBE, shape, 2, 4 * MiB, blocks=blocks)
    assert layout.shards is not None
    for shard, chunk in zip(layout.shards[:2], layout.chunks[:2], strict=True):
        assert shard % chunk == 0
        assert shard % 128 == 0 or 128 % shard == 0


def test_maps_keep_all_components_of_a_pixel_together() -> None:
    layout = layout_of(("component", "y", "x"), (4, 3000, 3000), 4, 16 * MiB)
    assert layout.chunks[0] == 4
    assert math.prod(layout.chunks) * 4 <= 16 * MiB
    assert layout_of(("component", "frame", "y", "x"), (4, 2, 10, 10), 4, MiB).chunks == (4, 2, 10, 10)


@pytest.mark.parametrize(
    ("dims", "shape", "chunks"),
    [
        (("y", "x"), (10, 10), (10, 10)),
        (("component", "energy"), (3, 100), (3, 100)),
        (("iteration",), (7,), (7,)),
        (("iteration",), (0,), (1,)),
        ((), (), ()),
        (("a", "b"), (1000, 2 * MiB), (1, 2 * MiB)),
    ],
)
def test_other_variables(dims: tuple[str, ...], shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    assert layout_of(dims, shape, 8, MiB) == StorageLayout(chunks, None)


def test_laying_out_leaves_the_dataset_alone() -> None:
    data = xr.Dataset({"a/b": (("y", "x"), da.zeros((6, 6), chunks=2))}, attrs={"when": np.float32(1.5)})
    data["a/b"].attrs["n"] = np.int64(3)
    data["a/b"].encoding["chunks"] = (6, 1)
    ready, encoding = with_layout(data, chunk_bytes=MiB)
    assert list(ready.data_vars) == ["a%2Fb"]
    assert ready.attrs == {"when": 1.5}
    assert encoding["a%2Fb"]["chunks"] == (6, 6)
    assert data["a/b"].chunks == ((2, 2, 2), (2, 2, 2))
    assert data["a/b"].encoding == {"chunks": (6, 1)}
    assert isinstance(data["a/b"].attrs["n"], np.int64)


def test_attributes_become_what_json_holds() -> None:
    attrs = {
        "list": ["a", ("b", np.int16(2))],
        "array": np.array([[1, 2], [3, 4]]),
        "dict": {"k": {1: None}},
        "flag": np.bool_(True),
    }
    plain = json_attrs(attrs)
    assert plain == {"list": ["a", ["b", 2]], "array": [[1, 2], [3, 4]], "dict": {"k": {"1": None}}, "flag": True}
    assert type(plain["flag"]) is bool


def test_an_attribute_that_cannot_be_stored_is_named() -> None:
    with pytest.raises(InputError, match=r"attrs\['microscope'\]\['gun'\] holds a object, .*remove it with del"):
        json_attrs({"microscope": {"gun": object()}})
