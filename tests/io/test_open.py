"""Open, convert, save: the way of a cube to disk and back, whatever is in the way."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.cube import make_cube
from scalehsi.io import convert, open_cube, open_dataset, open_result, save
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes
from tests.paths import DATA


def counts_of(
    shape: tuple[int, ...] = (12, 14, 20), dtype: str = "u2", most: int = 200, **options: Any
) -> xr.DataArray:
    data = np.random.default_rng(2).integers(0, most, shape).astype(dtype)
    options = {"signal": "EELS", "attrs": {"beam_energy_keV": 200.0}, **options}
    return make_cube(data, energy=500 + 0.5 * np.arange(shape[-1]), energy_units="eV", **options)


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def make_result(cube: xr.DataArray) -> xr.Dataset:
    shape = (2, *cube.shape[:-1])
    return xr.Dataset(
        {
            "endmembers": (("component", "energy"), np.ones((2, cube.sizes["energy"]))),
            "abundances": (("component", *map(str, cube.dims[:-1])), da.ones(shape, chunks=(2, 5, 5))),
        },
        coords={"energy": cube.energy},
        attrs={"model": "NMF", "settings": "{}", "history": ["fit"], "status": "converged"},
    )


# There and back ----------------------------------------------------------------------------------------------------


@given(
    shape=st.lists(st.integers(1, 8), min_size=3, max_size=5).map(tuple),
    dtype=st.sampled_from(["u1", "u2", "f4"]),
    block=st.integers(1, 8) | st.none(),
    masked=st.booleans(),
    chunk_mb=st.sampled_from([16, 1e-4, 1e-3]),
)
def test_open_save_open_convert_keep_everything(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, block: int | None, masked: bool, chunk_mb: float
) -> None:
    mask = np.arange(np.prod(shape[:-1])).reshape(shape[:-1]) % 2 == 0
    cube = counts_of(shape, dtype, mask=mask if masked else None)
    cube = cube + cube.dtype.type(0) if dtype != "f4" else (cube + np.float32(0.25)).assign_attrs(cube.attrs)
    cube.attrs |= {"signal": "EELS", "history": ["made"]}
    first = save(cube if block is None else cube.chunk(block), tmp_path / "a.zarr", overwrite=True, chunk_mb=chunk_mb)
    opened = open_cube(first)
    second = convert(opened if block else first, tmp_path / "b.zarr", overwrite=True, chunk_mb=chunk_mb)
    third = open_cube(save(open_cube(second), tmp_path / "c.zarr", overwrite=True, chunk_mb=chunk_mb))
    narrow = "u1" if dtype == "u2" else dtype
    assert (opened.dtype, third.dtype) == (np.dtype(dtype), np.dtype(narrow))
    np.testing.assert_array_equal(third.values, cube.values)
    for dim in cube.dims:
        xr.testing.assert_identical(
            third[dim].drop_vars("mask", errors="ignore"), cube[dim].drop_vars("mask", errors="ignore")
        )
    if masked:
        np.testing.assert_array_equal(third["mask"].values, mask)
        assert third["mask"].dims == cube.dims[:-1]
    assert third.attrs["history"][0] == "made"
    assert third.attrs["beam_energy_keV"] == 200.0


def test_opening_is_lazy(tmp_path: Path) -> None:
    path = save(counts_of(mask=np.ones((12, 14), bool)), tmp_path / "a.zarr")
    result = save(make_result(counts_of()), tmp_path / "r.zarr")
    with raise_if_dask_computes(max_computes=1):  # one: the mask
        cube = open_cube(path)
    with raise_if_dask_computes():
        opened = open_result(result)
    assert isinstance(cube.data, da.Array)
    assert isinstance(opened["abundances"].data, da.Array)


def test_storage_chunks_become_dask_chunks(tmp_path: Path) -> None:
    path = save(counts_of((40, 40, 30)), tmp_path / "a.zarr", chunk_mb=0.02)
    stored = zarr.open_array(path / "counts", mode="r").chunks
    assert stored[2] == 30
    assert tuple(c[0] for c in open_cube(path).data.chunks) == stored


def test_a_result_goes_there_and_back(tmp_path: Path) -> None:
    result = make_result(counts_of())
    back = open_result(save(result, tmp_path / "r.zarr"))
    xr.testing.assert_identical(back.compute(), result.compute())


def test_a_cube_in_memory_is_converted_to_its_smallest_integers(tmp_path: Path) -> None:
    cube = counts_of(dtype="f4", most=1000)
    back = open_cube(convert(cube, tmp_path / "a.zarr"))
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back.values, cube.values)
    assert back.attrs["history"] == ["convert: float32 to uint16, all values are whole and not negative"]
    assert cube.attrs["history"] == []


def test_saving_leaves_the_cube_alone_and_keeps_its_dtype(tmp_path: Path) -> None:
    cube = counts_of(dtype="f4").chunk(y=5)
    before = cube.copy(deep=True)
    assert open_cube(save(cube, tmp_path / "a.zarr")).dtype == np.float32
    xr.testing.assert_identical(cube, before)
    assert cube.chunks == before.chunks


def test_convert_tells_its_progress(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    cube = counts_of((60, 60, 30))
    convert(cube, tmp_path / "b.zarr", chunk_mb=0.001, progress=lambda done, total: told.append((done, total)))
    done = [d for d, _ in told]
    assert done == sorted(done)
    assert len(done) > 20
    assert {total for _, total in told} == {2 * 60 * 60}
    assert done[-1] == 2 * 60 * 60


def test_a_store_may_be_saved_over_itself(tmp_path: Path) -> None:
    path = save(counts_of(), tmp_path / "a.zarr")
    doubled = open_cube(path) * 2
    save(doubled, path, overwrite=True)
    np.testing.assert_array_equal(open_cube(path).values, counts_of().values * 2)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target = save(counts_of(), tmp_path / "real.zarr")
    (tmp_path / "link.zarr").symlink_to(target)
    save(counts_of((3, 3, 4)), tmp_path / "link.zarr", overwrite=True)
    assert (tmp_path / "link.zarr").is_symlink()
    assert open_cube(target).shape == (3, 3, 4)


# Stores that are cut along the energy axis -------------------------------------------------------------------------


@pytest.fixture
def energy_cut(tmp_path: Path) -> Path:
    """A store as another program may write it: whole planes, few channels a chunk."""
    cube = counts_of((16, 18, 40))
    path = tmp_path / "planes.zarr"
    chunks = {"counts": {"chunks": (16, 18, 8)}}
    cube.to_dataset(name="counts").to_zarr(path, encoding=chunks, consolidated=False, zarr_format=3)
    return path


def test_an_energy_axis_in_chunks_is_joined_and_not_cut_short(energy_cut: Path, tmp_path: Path) -> None:
    cube = open_cube(energy_cut)
    assert cube.data.numblocks[-1] == 1
    assert cube.attrs["history"] == ["open: energy axis joined from 5 chunks; scalehsi.convert stores it whole"]
    np.testing.assert_array_equal(cube.values, counts_of((16, 18, 40)).values)
    for number, path in enumerate((convert(energy_cut, tmp_path / "a.zarr"), save(cube, tmp_path / "b.zarr"))):
        assert zarr.open_array(path / "counts", mode="r").chunks[-1] == 40
        back = open_cube(path)
        np.testing.assert_array_equal(back.values, cube.values)
        assert sum("joined" in line for line in back.attrs["history"]) == number


def test_large_planes_are_cut_into_tiles_when_they_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "planes.zarr"
    planes = make_cube(
        da.zeros((600, 700, 200), chunks=(600, 700, 10), dtype="u1"), energy=np.arange(200.0), energy_units="eV"
    )
    planes.to_dataset(name="counts").to_zarr(path, consolidated=False, zarr_format=3)
    cube = open_cube(path)
    assert cube.data.numblocks[-1] == 1
    assert np.prod([max(c) for c in cube.data.chunks]) <= 16 * 2**20


# Memory ------------------------------------------------------------------------------------------------------------


def peak_of(work: Any) -> int:
    """The most bytes that Python held at once during some work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


CHUNK_MB = 4


def noisy(shape: tuple[int, ...], chunks: tuple[int, ...]) -> xr.DataArray:
    def block(block_info: Any = None) -> np.ndarray[Any, Any]:
        place = block_info[None]["array-location"]
        sizes = [b - a for a, b in place]
        return np.random.default_rng(place[0][0] * 7 + place[1][0]).integers(0, 200, sizes, dtype="u2")

    blocks = da.core.normalize_chunks(chunks, shape)
    data = da.map_blocks(block, chunks=blocks, dtype="u2", meta=np.empty((0, 0, 0), "u2"))
    return make_cube(data, energy=np.arange(shape[-1]), energy_units="eV")


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [(32, 64, 1024), (4, 450, 1024)])
def test_a_lazy_cube_of_400_mb_is_written_in_the_memory_of_a_few_chunks(
    tmp_path: Path, chunks: tuple[int, ...]
) -> None:
    cube = noisy((450, 450, 1024), chunks)
    assert cube.nbytes > 400e6
    save(counts_of(), tmp_path / "imports.zarr")
    with dask.config.set(scheduler="threads", num_workers=2):
        for write in (convert, save):
            path = tmp_path / f"{write.__name__}.zarr"
            peak = peak_of(lambda write=write, path=path: write(cube, path, chunk_mb=CHUNK_MB))
            assert peak < 12 * CHUNK_MB * 2**20
            corner = {"y": slice(440, 450), "x": slice(0, 70)}
            np.testing.assert_array_equal(open_cube(path).isel(corner).values, cube.isel(corner).values)


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


def test_what_has_to_be_read_whole_says_what_it_costs(
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
    monkeypatch.setattr("scalehsi.io.open.LARGE_PIECE_BYTES", 100)
    with caplog.at_level(logging.WARNING, logger="scalehsi"):
        open_cube(tmp_path / "whole.bcf")
    assert "whole.bcf comes in blocks of 0.0 GB, each of which has to be held in memory whole" in caplog.text


# Wrong input -------------------------------------------------------------------------------------------------------


def test_a_missing_file_names_what_is_like_it(tmp_path: Path) -> None:
    save(counts_of(), tmp_path / "sample.zarr")
    for opener in (open_cube, open_result, open_dataset):
        with pytest.raises(InputError, match=r"there is no '.*sampel\.zarr'; did you mean 'sample\.zarr'\?"):
            opener(tmp_path / "sampel.zarr")
    with pytest.raises(InputError, match="there is no"):
        convert(tmp_path / "sampel.zarr", tmp_path / "b.zarr")


def test_a_folder_that_is_no_store(tmp_path: Path) -> None:
    for opener in (open_cube, open_result):
        with pytest.raises(InputError, match=r"is a folder but no Zarr store \(it has no zarr\.json\)"):
            opener(tmp_path)


def test_cubes_and_results_are_told_apart(tmp_path: Path) -> None:
    cube, result = save(counts_of(), tmp_path / "c.zarr"), save(make_result(counts_of()), tmp_path / "r.zarr")
    with pytest.raises(InputError, match=r"r\.zarr' is a result, no cube; open it with scalehsi\.open_result"):
        open_cube(result)
    with pytest.raises(InputError, match=r"c\.zarr' is a cube, no result; open it with scalehsi\.open_cube"):
        open_result(cube)
    other = save(xr.Dataset({"a": ("b", [1.0])}), tmp_path / "o.zarr")
    with pytest.raises(InputError, match=r"o\.zarr': this Dataset is no result of scalehsi: it lacks abundances"):
        open_result(other)
    assert list(open_dataset(other).data_vars) == ["a"]
    file = tmp_path / "a.hspy"
    file.write_bytes(b"x")
    with pytest.raises(
        InputError, match=r"is a file, a store is a folder; open a spectrum image with scalehsi\.open_cub"
    ):
        open_result(file)


@pytest.mark.parametrize("write", [save, convert])
def test_destinations_that_are_refused(tmp_path: Path, write: Any) -> None:
    cube, old = counts_of(), save(counts_of((2, 2, 3)), tmp_path / "old.zarr")
    with pytest.raises(InputError, match=r"exists already; .*overwrite=True \(--overwrite\)"):
        write(cube, old)
    (tmp_path / "thesis").mkdir()
    with pytest.raises(InputError, match="no Zarr store and is left alone"):
        write(cube, tmp_path / "thesis", overwrite=True)
    with pytest.raises(InputError, match=r"nowhere' does not exist; make it first"):
        write(cube, tmp_path / "nowhere" / "a.zarr")
    with pytest.raises(InputError, match=r"writes Zarr stores, not \.hspy files; type '.*a\.zarr'"):
        write(cube, tmp_path / "a.hspy")
    with pytest.raises(InputError, match=r"chunk_mb is a size in MiB above 0, got 0; the default is 16"):
        write(cube, tmp_path / "a.zarr", chunk_mb=0)
    with pytest.raises(InputError, match="a cube ends in the dims"):
        write(cube.transpose("energy", "y", "x"), tmp_path / "a.zarr")
    assert open_cube(old).shape == (2, 2, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old.zarr", "thesis"]


def test_a_refused_destination_is_told_before_the_reading(tmp_path: Path) -> None:
    source = save(counts_of(), tmp_path / "a.zarr")
    with raise_if_dask_computes(), pytest.raises(InputError, match="exists already"):
        convert(source, source)


# Interrupted, killed, out of space ---------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [save, convert])
@pytest.mark.parametrize("error", [RuntimeError("bang"), KeyboardInterrupt("bang")])
def test_a_failure_half_way_leaves_the_old_store(tmp_path: Path, write: Any, error: BaseException) -> None:
    old = save(counts_of((2, 2, 3)), tmp_path / "a.zarr")
    calls = []

    def fail(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        calls.append(1)
        if len(calls) > 15:
            raise error
        return block

    broken = counts_of((24, 14, 20)).chunk(y=1)
    broken.data = broken.data.map_blocks(fail, dtype="u2", meta=np.empty((0, 0, 0), "u2"))
    with dask.config.set(scheduler="sync"), pytest.raises(type(error), match="bang"):
        write(broken, old, overwrite=True)
    assert open_cube(old).shape == (2, 2, 3)
    assert hidden(tmp_path) == []


SLOW_SAVE = """
import os, sys, time
import numpy as np, dask.array as da
from scalehsi.cube import make_cube
from scalehsi.io import {write}

def slow(block):
    os.write(1, b"block\\n")  # in one piece, from any thread
    time.sleep(0.05)
    return block

data = da.ones((400, 4, 8), chunks=(1, 4, 8)).map_blocks(slow, dtype="f8", meta=np.empty((0, 0, 0)))
cube = make_cube(data + 0.5, energy=range(8), energy_units="eV")
{write}(cube, sys.argv[1], overwrite=True, chunk_mb=1e-4)
"""


@pytest.mark.parametrize("write", ["save", "convert"])
@pytest.mark.parametrize("old", [True, False])
def test_a_killed_write_leaves_no_half_store(tmp_path: Path, write: str, old: bool) -> None:
    path = tmp_path / "a.zarr"
    if old:
        save(counts_of((2, 2, 3)), path)
    script = SLOW_SAVE.format(write=write)
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        for _ in range(30):
            assert process.stdout.readline() == "block\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert len(hidden(tmp_path)) == 1
    if old:
        assert open_cube(path).shape == (2, 2, 3)
    else:
        with pytest.raises(InputError, match="there is no"):
            open_cube(path)
    save(counts_of(), path, overwrite=True)
    assert hidden(tmp_path) == []
    np.testing.assert_array_equal(open_cube(path).values, counts_of().values)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, where this user may make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and os.name == "posix" and os.geteuid() == 0
    if not made or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("write", [save, convert])
@pytest.mark.parametrize("is_lazy", [True, False])
def test_a_disk_that_is_really_full(small_disk: Path, write: Any, is_lazy: bool) -> None:
    old = save(counts_of(), small_disk / "old.zarr")
    cube = make_cube(np.random.default_rng(0).random((64, 64, 100)), energy=range(100), energy_units="eV")
    with pytest.raises(OSError, match=r"the disk is full; the partly written data are removed") as caught:
        write(cube.chunk(y=8) if is_lazy else cube, small_disk / "a.zarr", chunk_mb=0.1)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in small_disk.iterdir()] == ["old.zarr"]
    assert open_cube(old).shape == (12, 14, 20)


# Workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.cluster
def test_workers_write_the_same_stores(tmp_path: Path, client: Any) -> None:
    lazy = noisy((64, 64, 32), (16, 16, 32))
    lazy.data = da.where(lazy.data > 150, lazy.data, 0)
    zeros = lazy * 0
    for number, cube in enumerate((lazy, zeros, counts_of(mask=np.eye(12, 14, dtype=bool)))):
        for write in (save, convert):
            path = write(cube, tmp_path / f"{write.__name__}{number}.zarr", chunk_mb=0.01)
            with dask.config.set(scheduler="sync"):
                np.testing.assert_array_equal(open_cube(path).values, cube.values)
    path = convert(tmp_path / "save0.zarr", tmp_path / "again.zarr")
    assert int(open_cube(path).sum()) == int(lazy.sum())
    save(make_result(lazy), tmp_path / "r.zarr")
    assert float(open_result(tmp_path / "r.zarr")["abundances"].sum()) == 2 * 64 * 64


@pytest.mark.cluster
def test_workers_read_hdf5_files(tmp_path: Path, client: Any) -> None:
    pytest.importorskip("rsciio", reason="the extra io is not installed")
    folder = DATA / "edx_FePt"
    if not folder.is_dir():
        pytest.skip("no test data beside the repository")
    total = int(open_cube(folder / "core_shell.hspy").sum())
    path = convert(folder / "core_shell.hspy", tmp_path / "a.zarr")
    assert int(open_cube(path).sum()) == total > 0
