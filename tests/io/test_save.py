"""Saving: everything is kept, memory is bounded, and a store appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scalehsi.cube import make_cube
from scalehsi.io import convert, open_cube, open_result, save
from scalehsi.io.rosettasciio import extensions
from scalehsi.io.save import OTHER_FORMATS, check_store_name
from scalehsi.schema import InputError
from tests.io.cubes import CHUNK_MB, counts_of, hidden, noisy, peak_of, result_of

pytestmark = pytest.mark.long

# Names of stores ---------------------------------------------------------------------------------------------------


def test_endings_of_all_readers_are_refused() -> None:
    pytest.importorskip("rsciio", reason="the extra io is not installed")
    assert set(extensions()) - {".zarr"} <= OTHER_FORMATS


@pytest.mark.parametrize("name", ["a.dm4", "A.DM3", "a.bcf", "a.msa", "a.zspy", "a.b.npz"])
def test_a_store_is_not_named_like_a_file_of_another_program(tmp_path, name: str) -> None:
    with pytest.raises(InputError, match=r"writes Zarr stores, not \.\w+ files; type '.*\.zarr'"):
        save(counts_of((2, 2, 3)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.zarr", "a", "scan 2.5 nm", "a.v2", ".hidden"])
def test_other_names_are_free(name: str) -> None:
    check_store_name(name)


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


def test_a_result_goes_there_and_back(tmp_path: Path) -> None:
    result = result_of(counts_of())
    back = open_result(save(result, tmp_path / "r.zarr"))
    xr.testing.assert_identical(back.compute(), result.compute())


def test_saving_leaves_the_cube_alone_and_keeps_its_dtype(tmp_path: Path) -> None:
    cube = counts_of(dtype="f4").chunk(y=5)
    before = cube.copy(deep=True)
    assert open_cube(save(cube, tmp_path / "a.zarr")).dtype == np.float32
    xr.testing.assert_identical(cube, before)
    assert cube.chunks == before.chunks


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


# Refused, interrupted, killed, out of space ------------------------------------------------------------------------


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


@pytest.mark.parametrize("write", [save, convert])
@pytest.mark.parametrize("error", [RuntimeError("bang"), KeyboardInterrupt("bang")])
def test_a_failure_while_writing_keeps_the_old_store(tmp_path: Path, write: Any, error: BaseException) -> None:
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
def test_a_killed_write_leaves_no_partial_store(tmp_path: Path, write: str, old: bool) -> None:
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
    save(result_of(lazy), tmp_path / "r.zarr")
    assert float(open_result(tmp_path / "r.zarr")["abundances"].sum()) == 2 * 64 * 64
