"""Stores keep everything, and a store that is not complete is refused."""

from __future__ import annotations

import errno
import json
import shutil
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
from scalehsi.io.zarr_store import STORE_ATTRIBUTE, cube_of_store, read_store, write_store
from scalehsi.schema import InputError

pytestmark = pytest.mark.long


def cube_of(shape: tuple[int, ...] = (6, 8, 10), dtype: str = "u2", **options: Any) -> xr.DataArray:
    data = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
    options = {"signal": "EDS", "attrs": {"elements": ["Fe", "O"], "history": ["one", "two"]}, **options}
    return make_cube(data, energy=0.1 + 0.01 * np.arange(shape[-1]), energy_units="keV", pixel_size=0.5, **options)


def stored(cube: xr.DataArray, path: Path, **options: Any) -> Path:
    options = {"kind": "cube", "overwrite": False, **options}
    return write_store(cube.to_dataset(name="counts"), path, **options)


@given(
    shape=st.lists(st.integers(1, 9), min_size=3, max_size=5).map(tuple),
    dtype=st.sampled_from(["u1", "u2", "u4", "i2", "f4", "f8"]),
    chunk_bytes=st.integers(50, 4000),
    block=st.integers(1, 9) | st.none(),
    masked=st.booleans(),
)
def test_a_cube_comes_back_as_it_was(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, chunk_bytes: int, block: int | None, masked: bool
) -> None:
    mask = np.arange(np.prod(shape[:-1])).reshape(shape[:-1]) % 3 < 2
    cube = cube_of(shape, dtype, mask=mask if masked else None)
    given_cube = cube if block is None else cube.chunk(block)
    path = stored(given_cube, tmp_path / "a.zarr", overwrite=True, chunk_bytes=chunk_bytes)
    back = cube_of_store(path)
    assert back.dtype == cube.dtype
    assert isinstance(back.data, da.Array)
    assert back.data.numblocks[-1] == 1
    del back.attrs["source"]
    xr.testing.assert_identical(back.compute(), cube)
    assert [back[d].attrs["units"] for d in ("y", "x", "energy")] == ["nm", "nm", "keV"]
    if masked:
        assert back["mask"].dtype == bool
        assert isinstance(back["mask"].data, np.ndarray)


def test_a_store_of_nothing_but_zeros_is_whole(tmp_path: Path) -> None:
    zeros = cube_of((16, 16, 10)) * np.uint16(0)
    for number, cube in enumerate((zeros, zeros.chunk(y=4))):
        path = stored(cube, tmp_path / f"{number}.zarr", chunk_bytes=400)
        assert sum(1 for f in (path / "counts" / "c").rglob("*") if f.is_file()) > 4
        assert int(cube_of_store(path).sum()) == 0


def test_shards_hold_several_chunks_and_are_counted(tmp_path: Path) -> None:
    cube = cube_of((64, 64, 4), "u1")
    path = stored(cube, tmp_path / "a.zarr", chunk_bytes=8)
    array = zarr.open_array(path / "counts", mode="r")
    assert array.shards is not None
    np.testing.assert_array_equal(cube_of_store(path).values, cube.values)
    next(f for f in (path / "counts" / "c").rglob("*") if f.is_file()).unlink()
    with pytest.raises(InputError, match=r"truncated: 1 of \d+ chunk files of 'counts' are missing"):
        read_store(path)


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    result = xr.Dataset(
        {
            "endmembers": (("component", "energy"), rng.random((2, 5)), {"units": "counts"}),
            "abundances": (("component", "y", "x"), da.from_array(rng.random((2, 6, 7)), chunks=(2, 2, 7))),
            "residual": (("y", "x"), np.full((6, 7), np.nan)),
            "objective": ("iteration", np.array([3.0, 2.0])),
            "weights/layer 1/kernel": (("a", "b"), rng.random((3, 3)).astype("f4")),
            "counts": ((), np.int64(7)),
            "labels": (("y", "x"), rng.integers(0, 3, (6, 7)).astype("u1")),
            "empty": ("nothing", np.empty(0)),
        },
        coords={
            "component": ("component", ["core", "shell"], {"long_name": "component"}),
            "energy": ("energy", np.arange(5.0), {"units": "keV"}),
            "time": ("time", np.arange(3.0), {"units": "seconds"}),
        },
        attrs={
            "model": "NMF",
            "settings": json.dumps({"loss": "poisson", "n": [1, 2]}),
            "seed": np.int64(3),
            "history": ["open: x", "fit: y"],
            "nothing": None,
        },
    )
    path = write_store(result, tmp_path / "r.zarr", kind="result", overwrite=False)
    back, info = read_store(path)
    assert info is not None
    assert info.kind == "result"
    assert isinstance(back["abundances"].data, da.Array)
    assert back["component"].dtype == result["component"].dtype
    assert json.loads(back.attrs["settings"])["n"] == [1, 2]
    xr.testing.assert_identical(back.compute(), result)


def test_text_and_times_are_kept_however_large_or_lazy(tmp_path: Path) -> None:
    names, days = np.array(["a", "bcd"] * 50), np.arange(100).astype("M8[D]").astype("M8[ns]")
    data = xr.Dataset({"names": ("n", names), "lazy": ("n", da.from_array(names, chunks=9)), "days": ("n", days)})
    back, _ = read_store(write_store(data, tmp_path / "a.zarr", kind="dataset", overwrite=False, chunk_bytes=50))
    for name in ("names", "lazy"):
        np.testing.assert_array_equal(back[name].values, names)
    np.testing.assert_array_equal(back["days"].values, np.arange(100))
    assert back["days"].attrs["units"].startswith("days since")


def test_variables_are_computed_once_and_together(tmp_path: Path) -> None:
    calls = []

    def count(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        calls.append(1)
        return block

    shared = da.zeros((8, 8), chunks=4).map_blocks(count, dtype="f8", meta=np.empty((0, 0)))
    data = xr.Dataset({"a": (("y", "x"), shared + 1), "b": (("y", "x"), shared + 2)})
    with dask.config.set(scheduler="sync"):
        write_store(data, tmp_path / "a.zarr", kind="dataset", overwrite=False)
    assert len(calls) == 4


def test_opening_reads_no_chunk_of_the_data(tmp_path: Path) -> None:
    path = stored(cube_of(mask=np.ones((6, 8), bool)), tmp_path / "a.zarr")
    for chunk in (path / "counts" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"not a chunk")
    assert cube_of_store(path).shape == (6, 8, 10)


# Damage ------------------------------------------------------------------------------------------------------------


def test_a_missing_chunk_is_found_when_the_store_is_opened(tmp_path: Path) -> None:
    path = stored(cube_of((32, 32, 10)), tmp_path / "a.zarr", chunk_bytes=2000)
    chunks = [f for f in (path / "counts" / "c").rglob("*") if f.is_file()]
    for chunk in chunks[:2]:
        chunk.unlink()
    message = rf"a\.zarr' is truncated: 2 of {len(chunks)} chunk files of 'counts' are missing; copy or write it again"
    with pytest.raises(InputError, match=message):
        cube_of_store(path)


@pytest.mark.parametrize("variable", ["counts", "energy", "mask"])
def test_a_missing_variable_is_found(tmp_path: Path, variable: str) -> None:
    path = stored(cube_of(mask=np.ones((6, 8), bool)), tmp_path / "a.zarr")
    shutil.rmtree(path / variable)
    with pytest.raises(InputError, match=rf"truncated: the variable '{variable}' is missing"):
        cube_of_store(path)


@pytest.mark.parametrize("part", ["zarr.json", "counts/zarr.json"])
@pytest.mark.parametrize("keep", [0, 40])
def test_truncated_metadata_are_found(tmp_path: Path, part: str, keep: int) -> None:
    path = stored(cube_of(), tmp_path / "a.zarr")
    file = path / part
    file.write_text(file.read_text()[:keep])
    with pytest.raises(InputError, match=r"a\.zarr' is damaged \(its metadata are no JSON\); copy or write it again"):
        cube_of_store(path)


def test_a_missing_root_is_reported_as_truncation(tmp_path: Path) -> None:
    path = stored(cube_of(), tmp_path / "a.zarr")
    (path / "zarr.json").unlink()
    with pytest.raises(InputError, match=r"truncated: its zarr\.json is missing"):
        cube_of_store(path)


@pytest.mark.parametrize("keep", [0, 5, -1])
def test_a_chunk_cut_short_is_an_error_and_never_numbers(tmp_path: Path, keep: int) -> None:
    path = stored(cube_of(), tmp_path / "a.zarr")
    (chunk,) = (f for f in (path / "counts" / "c").rglob("*") if f.is_file())
    chunk.write_bytes(chunk.read_bytes()[:keep])
    cube = cube_of_store(path)
    with pytest.raises(ValueError, match="checksum"):
        cube.compute()


def test_a_chunk_with_one_wrong_bit_is_an_error(tmp_path: Path) -> None:
    path = stored(cube_of(), tmp_path / "a.zarr")
    (chunk,) = (f for f in (path / "counts" / "c").rglob("*") if f.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        cube_of_store(path).compute()


def test_a_failing_write_leaves_nothing(tmp_path: Path) -> None:
    def fail(_: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raise OSError(errno.ENOSPC, "from the depths")

    broken = cube_of().chunk(y=2)
    broken.data = broken.data.map_blocks(fail, dtype=broken.dtype, meta=np.empty((0, 0, 0), "u2"))
    with pytest.raises(OSError, match="the disk is full"):
        stored(broken, tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


# Stores of others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_that_xarray_wrote_open_with_their_integers(tmp_path: Path, zarr_format: int) -> None:
    cube = cube_of()
    cube.to_dataset(name="si").to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=False)
    back = cube_of_store(tmp_path / "a.zarr")
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back.values, cube.values)
    assert read_store(tmp_path / "a.zarr")[1] is None


def test_packed_values_of_others_are_unpacked(tmp_path: Path) -> None:
    cube = cube_of(dtype="f8")
    packed = {"si": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1}}
    cube.to_dataset(name="si").to_zarr(tmp_path / "a.zarr", encoding=packed, consolidated=False)
    np.testing.assert_allclose(cube_of_store(tmp_path / "a.zarr").values, cube.values)


def test_a_bare_array_says_how_to_wrap_it(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(2, 2, 2), dtype="u1")
    with pytest.raises(InputError, match=r"bare Zarr array without axes; wrap it with scalehsi\.make_cube\(dask"):
        read_store(tmp_path / "a.zarr")


def test_a_folder_of_stores_names_them(tmp_path: Path) -> None:
    stored(cube_of(), tmp_path / "a.zarr")
    with pytest.raises(InputError, match=r"no Zarr store \(it has no zarr\.json\); it holds the stores a\.zarr"):
        read_store(tmp_path)


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = stored(cube_of(), tmp_path / "a.zarr")
    root = zarr.open_group(path, mode="r+")
    root.attrs[STORE_ATTRIBUTE] = {**root.attrs[STORE_ATTRIBUTE], "format": 99}
    with pytest.raises(InputError, match=r"newer scalehsi \(store format 99\)"):
        read_store(path)


# Which variable is the cube ----------------------------------------------------------------------------------------


@pytest.fixture
def two_cubes(tmp_path: Path) -> Path:
    small = cube_of((2, 3, 4)).rename({"y": "y2", "x": "x2", "energy": "energy2"})
    data = xr.Dataset({"image": cube_of().sum("energy"), "counts": cube_of(), "wrong": small})
    return write_store(data, tmp_path / "two.zarr", kind="dataset", overwrite=False)


def test_the_cube_is_found_among_other_variables(two_cubes: Path) -> None:
    assert cube_of_store(two_cubes).name == "counts"
    assert cube_of_store(two_cubes, dataset="counts").shape == (6, 8, 10)
    assert cube_of_store(two_cubes, dataset=1).shape == (6, 8, 10)


def test_what_is_no_cube_says_what_is_there(two_cubes: Path) -> None:
    with pytest.raises(InputError, match=r"no dataset 'spectra' in '.*two\.zarr'; it holds 0 'image'.*1 'counts'"):
        cube_of_store(two_cubes, dataset="spectra")
    with pytest.raises(InputError, match=r"two\.zarr': the cube has no 'energy' axis"):
        cube_of_store(two_cubes, dataset="wrong")


def test_a_store_without_a_cube(tmp_path: Path) -> None:
    data = xr.Dataset({"a": ("y", [1.0]), "b": ("x", [1.0])})
    path = write_store(data, tmp_path / "a.zarr", kind="dataset", overwrite=False)
    with pytest.raises(InputError, match=r"holds no cube, a variable of dims .*; it holds 0 'a' .*1 'b'"):
        cube_of_store(path)


def test_the_signal_can_be_said_where_the_store_does_not(tmp_path: Path) -> None:
    path = stored(cube_of(signal=""), tmp_path / "a.zarr")
    assert cube_of_store(path, signal="EELS").attrs["signal"] == "EELS"
    known = stored(cube_of(signal="EDS"), tmp_path / "b.zarr")
    assert cube_of_store(known, signal="EELS").attrs["signal"] == "EDS"
