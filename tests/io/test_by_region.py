"""A cube cut into regions, its range, and its progress."""

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
from scalehsi.io.by_region import MAX_REGION_BYTES, PixelProgress, regions_of, smallest_dtype
from scalehsi.io.zarr_layout import layout_of


def lazy(shape: tuple[int, ...], dtype: str = "u1") -> xr.DataArray:
    dims = ("frame", "y", "x", "energy")[-len(shape) :]
    return xr.DataArray(da.zeros(shape, dtype=dtype, chunks=-1), dims=dims)


def silent(total: int = 8) -> PixelProgress:
    return PixelProgress(None, total)


@given(
    shape=st.lists(st.integers(1, 20), min_size=3, max_size=4).map(tuple),
    chunk_bytes=st.integers(10, 5000),
    blocks=st.lists(st.integers(1, 20), min_size=4, max_size=4) | st.none(),
)
def test_regions_cover_every_value_once_in_whole_files(
    shape: tuple[int, ...], chunk_bytes: int, blocks: list[int] | None
) -> None:
    cube = lazy(shape)
    layout = layout_of(tuple(map(str, cube.dims)), shape, 1, chunk_bytes)
    regions = regions_of(cube, layout, blocks=None if blocks is None else blocks[-len(shape) :])
    seen = np.zeros(shape, int)
    for region in regions:
        seen[region] += 1
    assert (seen == 1).all()
    for axis, file in enumerate(layout.shards or layout.chunks):
        assert all(r[axis].start % file == 0 for r in regions)


def test_a_region_is_a_few_chunks() -> None:
    cube = lazy((512, 512, 1024), "u2")
    layout = layout_of(("y", "x", "energy"), cube.shape, 2, 4 * MiB)
    sizes = [math.prod(s.stop - s.start for s in r) * 2 for r in regions_of(cube, layout, blocks=None)]
    assert max(sizes) <= 8 * MiB
    assert sum(sizes) == cube.nbytes


def test_a_region_spans_whole_blocks_until_it_is_too_large() -> None:
    cube = lazy((1024, 1024, 1024), "u2")
    layout = StorageLayout((32, 32, 1024), None)
    regions = regions_of(cube, layout, blocks=(100, 1024, 1024))
    assert all(r[0].start % 128 == 0 for r in regions)
    huge = regions_of(cube, layout, blocks=(1024, 1024, 8))
    sizes = [math.prod(s.stop - s.start for s in r) * 2 for r in huge]
    assert MAX_REGION_BYTES / 4 < max(sizes) <= MAX_REGION_BYTES


VALUES: list[tuple[str, Any, str]] = [
    ("u1", [0, 255], "u1"),
    ("u2", [0, 255], "u1"),
    ("u2", [0, 256], "u2"),
    ("u4", [0, 65535], "u2"),
    ("u8", [0, 2**64 - 1], "u8"),
    ("i2", [0, 300], "u2"),
    ("i4", [0, 0], "u1"),
    ("i4", [-1, 300], "i4"),
    ("f4", [0, 12], "u1"),
    ("f4", [0, 70000], "u4"),
    ("f4", [0, 0.5], "f4"),
    ("f4", [-1, 3], "f4"),
    ("f4", [0, np.nan], "f4"),
    ("f4", [0, np.inf], "f4"),
    ("f4", [0, 2.0**24], "u4"),
    ("f4", [0, 2.0**25], "f4"),
    ("f8", [0, 2.0**53], "u8"),
    ("f8", [0, 2.0**54], "f8"),
    ("f2", [0, 2048], "u2"),
]


@pytest.mark.parametrize("is_lazy", [True, False])
@pytest.mark.parametrize(("dtype", "extremes", "wanted"), VALUES)
def test_the_smallest_dtype_without_loss(dtype: str, extremes: list[float], wanted: str, is_lazy: bool) -> None:
    data = np.zeros((4, 6, 5), dtype)
    data[3, 5, 4], data[1, 1, 1] = extremes
    regions = [(slice(i, i + 1), slice(0, 6), slice(0, 5)) for i in range(4)]
    progress = silent()
    got = smallest_dtype(da.from_array(data, chunks=(1, 4, 5)) if is_lazy else data, regions, progress)
    assert got == np.dtype(wanted)
    assert progress.done == 4
    np.testing.assert_array_equal(data.astype(got).astype(dtype), data)


def test_the_first_fraction_ends_the_reading() -> None:
    read = []

    def block(block_info: Any = None) -> np.ndarray[Any, Any]:
        read.append(block_info)
        return np.full((1, 4, 5), 0.5)

    data = da.map_blocks(block, chunks=((1,) * 50, (4,), (5,)), dtype="f8", meta=np.empty((0, 0, 0)))
    assert smallest_dtype(data, [(slice(i, i + 1),) for i in range(50)], silent()) == np.float64
    assert len(read) <= 2


def test_progress_never_goes_back() -> None:
    reported: list[tuple[int, int]] = []
    progress = PixelProgress(lambda done, total: reported.append((done, total)), 10)
    for done in (1, 4, 3, 99):
        progress.to(done)
    progress.step(3)
    assert reported == [(1, 10), (4, 10), (4, 10), (10, 10), (10, 10)]
