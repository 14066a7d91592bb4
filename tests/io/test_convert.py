"""Conversion: the smallest integers that hold the counts, in the memory of a few chunks."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import dask
import numpy as np
import pytest

from scalehsi.io import convert, open_cube, save
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes
from tests.io.cubes import CHUNK_MB, counts_of, peak_of

pytestmark = pytest.mark.long


def test_a_cube_in_memory_is_converted_to_its_smallest_integers(tmp_path: Path) -> None:
    cube = counts_of(dtype="f4", most=1000)
    back = open_cube(convert(cube, tmp_path / "a.zarr"))
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back.values, cube.values)
    assert back.attrs["history"] == ["convert: float32 to uint16, all values are whole and not negative"]
    assert cube.attrs["history"] == []


def test_convert_reports_its_progress(tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    cube = counts_of((60, 60, 30))
    convert(cube, tmp_path / "b.zarr", chunk_mb=0.001, progress=lambda done, total: reported.append((done, total)))
    done = [d for d, _ in reported]
    assert done == sorted(done)
    assert len(done) > 20
    assert {total for _, total in reported} == {2 * 60 * 60}
    assert done[-1] == 2 * 60 * 60


def test_a_large_file_is_converted_in_the_memory_of_a_few_chunks(tmp_path: Path) -> None:
    pytest.importorskip("rsciio", reason="the extra io is not installed")
    shape = (450, 450, 1024)
    header = {"width": 450, "height": 450, "depth": 1024, "offset": 0, "data-length": 2}
    words = {"data-type": "unsigned", "byte-order": "little-endian", "record-by": "vector", **header}
    (tmp_path / "a.rpl").write_text("key\tvalue\n" + "".join(f"{k}\t{v}\n" for k, v in words.items()))
    with (tmp_path / "a.raw").open("wb") as raw:
        raw.truncate(int(np.prod(shape)) * 2)  # a hole: it reads as zeros and takes no room
        for pixel in (0, 100_000, 450 * 450 - 1):
            raw.seek(pixel * 1024 * 2)
            raw.write(np.arange(1024, dtype="u2").tobytes())
    save(counts_of(), tmp_path / "imports.zarr")
    open_cube(tmp_path / "a.rpl")
    with dask.config.set(scheduler="threads", num_workers=2):
        peak = peak_of(lambda: convert(tmp_path / "a.rpl", tmp_path / "a.zarr", chunk_mb=CHUNK_MB))
    assert peak < 12 * CHUNK_MB * 2**20
    cube = open_cube(tmp_path / "a.zarr")
    assert cube.dtype == np.uint16
    assert cube.shape == shape
    np.testing.assert_array_equal(cube[-1, -1].values, np.arange(1024))
    np.testing.assert_array_equal(cube[222, 100].values, np.arange(1024))
    assert int(cube[300:302].sum()) == 0


def test_the_cost_of_blocks_that_are_read_whole_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one_block = counts_of((12, 14, 20)).chunk(-1)
    read = []
    one_block.data = one_block.data.map_blocks(
        lambda b: read.append(1) or b, dtype="u2", meta=np.empty((0, 0, 0), "u2")
    )
    for module in ("open", "convert"):
        monkeypatch.setattr(sys.modules[f"scalehsi.io.{module}"], "open_raw", lambda *_, **__: one_block)
    with caplog.at_level(logging.INFO, logger="scalehsi"):
        convert(tmp_path / "whole.bcf", tmp_path / "a.zarr", chunk_mb=1e-4)
    assert "whole.bcf cannot be read in parts: converting it needs 0.0 MB of memory" in caplog.text
    assert len(read) == 1
    monkeypatch.setattr("scalehsi.io.open.LARGE_BLOCK_BYTES", 100)
    with caplog.at_level(logging.WARNING, logger="scalehsi"):
        open_cube(tmp_path / "whole.bcf")
    assert "whole.bcf is read in blocks of 0.0 GB, each of which must fit in memory" in caplog.text


def test_a_destination_is_refused_before_the_reading(tmp_path: Path) -> None:
    source = save(counts_of(), tmp_path / "a.zarr")
    with raise_if_dask_computes(), pytest.raises(InputError, match="exists already"):
        convert(source, source)
