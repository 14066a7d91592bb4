"""An acquisition is followed block by block, through all that can happen to a store that is being written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import scalehsi as hsi
from scalehsi.io.growing_store import REPORT_SECONDS, GrowingCube
from scalehsi.models.live import Watch
from scalehsi.schema import InputError

SIZE = 8


@pytest.fixture(scope="module")
def cube() -> xr.DataArray:
    return hsi.simulate.chequerboard((24, 24), n_channels=48, counts_per_pixel=300, seed=4)[0].compute()


@pytest.fixture(scope="module")
def result(cube: xr.DataArray) -> xr.Dataset:
    return hsi.fit(cube, hsi.NMF(4, loss="poisson", max_iter=30), seed=0)


def chunk_file(store: Path, i: int, j: int) -> Path:
    return store / "counts" / "c" / str(i) / str(j) / "0"


def acquired(cube: xr.DataArray, store: Path) -> Path:
    for _ in hsi.simulate.acquire(cube, store, block=SIZE):
        pass
    return store


def test_every_block_is_projected_as_it_is_written(cube: xr.DataArray, result: xr.Dataset, tmp_path: Path) -> None:
    following = Watch(tmp_path / "scan.zarr", hsi.name_components(result, ["a", "b", "c", "d"]))
    assert following.look(0.0) is None
    assert "is not there yet" in following.store.waiting
    whole = hsi.project(result, cube).values
    seen = np.zeros((24, 24), dtype=bool)
    for now, window in enumerate(hsi.simulate.acquire(cube, tmp_path / "scan.zarr", block=SIZE, order="serpentine")):
        live = following.look(float(now))
        seen[window] = True
        assert (live.blocks, live.expected, live.restarted, live.alarm) == (now + 1, 9, False, "")
        assert live.new == (", ".join(f"{part.start}:{part.stop}" for part in window),)
        np.testing.assert_array_equal(live.result["mask"].values, seen)
        np.testing.assert_allclose(live.result["abundances"].values[:, seen], whole[:, seen], rtol=1e-5, atol=1e-5)
        assert np.isnan(live.result["abundances"].values[:, ~seen]).all()
        assert following.look(float(now)) is None
        assert not live.complete
    last = following.look(99.0)
    assert (last.complete, last.new) == (True, ())
    np.testing.assert_allclose(last.result["residual"].values, result["residual"].values, rtol=1e-3)
    assert last.result.attrs["components"] == "a, b, c, d"
    assert hsi.open_result(hsi.save(last.result, tmp_path / "maps.zarr"))["mask"].all()
    xr.testing.assert_equal(hsi.open_cube(tmp_path / "scan.zarr").compute(), cube)


def test_torn_chunks_are_tried_again_and_reported(cube: xr.DataArray, result: xr.Dataset, tmp_path: Path) -> None:
    store = acquired(cube, tmp_path / "scan.zarr")
    torn, empty = chunk_file(store, 1, 1), chunk_file(store, 2, 0)
    contents = {file: file.read_bytes() for file in (torn, empty)}
    torn.write_bytes(contents[torn][: len(contents[torn]) // 2])
    empty.write_bytes(b"")
    following = Watch(store, result)
    assert following.look(0.0).blocks == 7
    assert [following.look(now) for now in (0.1, 0.25, 0.3, 0.8, 2.0, REPORT_SECONDS - 0.1)] == [None] * 6
    live = following.look(REPORT_SECONDS + 2)
    assert len(live.troubles) == 2
    assert "the block 8:16, 8:16 cannot be read for 12 s (" in live.troubles[0]
    assert following.look(REPORT_SECONDS + 4) is None  # said once
    for file, content in contents.items():
        file.write_bytes(content)
    live = following.look(REPORT_SECONDS + 6)
    assert (live.blocks, live.complete) == (9, True)
    np.testing.assert_allclose(live.result["abundances"], hsi.project(result, cube), rtol=1e-5, atol=1e-5)


def test_a_chunk_that_is_written_while_it_is_read_waits(cube: xr.DataArray, tmp_path: Path) -> None:
    store = acquired(cube, tmp_path / "scan.zarr")
    growing = GrowingCube(store)
    assert growing.look()
    array, file = growing._array, chunk_file(store, 0, 0)

    class Rewritten:
        def __getitem__(self, window: Any) -> Any:
            content = file.read_bytes()
            file.unlink()
            file.write_bytes(content)
            return array[window]

    growing._array = Rewritten()
    first = next(growing.new_blocks(0.0, []))
    assert first[0] == (slice(0, 8), slice(8, 16))
    growing._array = array
    growing.look()
    assert next(growing.new_blocks(0.0, []))[0] == (slice(0, 8), slice(0, 8))


def test_blocks_that_are_written_again_are_projected_again(
    cube: xr.DataArray, result: xr.Dataset, tmp_path: Path
) -> None:
    store = acquired(cube, tmp_path / "scan.zarr")
    following = Watch(store, result)
    before = following.look(0.0).result["abundances"].values
    brighter = cube.values[8:16, 16:24].astype(np.uint16) * 2
    zarr.open_array(store / "counts", mode="r+")[8:16, 16:24] = brighter.astype(cube.dtype)
    live = following.look(1.0)
    assert live.new == ("8:16, 16:24",)
    after = live.result["abundances"].values
    np.testing.assert_allclose(after[:, 8:16, 16:24], 2 * before[:, 8:16, 16:24], rtol=0.05, atol=0.05)
    np.testing.assert_array_equal(after[:, :8], before[:, :8])


def test_a_store_that_grows_keeps_its_maps(cube: xr.DataArray, result: xr.Dataset, tmp_path: Path) -> None:
    store = tmp_path / "scan.zarr"
    data = cube.to_dataset(name="counts").drop_attrs()
    encoding = {"counts": {"chunks": (SIZE, SIZE, 48)}}
    data.isel(y=slice(12)).to_zarr(store, encoding=encoding, zarr_format=3, consolidated=False)
    following = Watch(store, result)
    first = following.look(0.0)
    assert (first.blocks, first.expected) == (6, 6)
    data.isel(y=slice(12, 24)).to_zarr(store, append_dim="y", zarr_format=3, consolidated=False)
    live = following.look(1.0)
    assert (live.blocks, live.expected, live.restarted) == (9, 9, False)
    assert "0:8, 0:8" not in live.new  # the first row of blocks was complete
    np.testing.assert_allclose(live.result["abundances"], hsi.project(result, cube), rtol=1e-5, atol=1e-5)
    assert live.result["y"].equals(cube["y"])


def test_a_store_that_is_replaced_begins_anew(cube: xr.DataArray, result: xr.Dataset, tmp_path: Path) -> None:
    store = acquired(cube, tmp_path / "scan.zarr")
    following = Watch(store, result)
    assert following.look(0.0).blocks == 9
    shutil.rmtree(store)
    assert following.look(1.0) is None
    assert "is not there yet" in following.store.waiting
    writer = hsi.simulate.acquire(cube[:16], store, block=SIZE)
    next(writer)
    live = following.look(2.0)
    assert (live.restarted, live.blocks, live.expected) == (True, 1, 6)
    assert np.isnan(live.result["abundances"].values[:, :, 8:]).all()
    # Replaced between two looks.
    next(writer)
    assert not following.look(3.0).restarted
    shutil.rmtree(store)
    next(hsi.simulate.acquire(cube[:16], store, block=SIZE))
    live = following.look(4.0)
    assert (live.restarted, live.blocks) == (True, 1)


@pytest.mark.parametrize("version", [2, 3])
def test_other_writers_and_chunked_energies(
    cube: xr.DataArray, result: xr.Dataset, tmp_path: Path, version: int
) -> None:
    store = tmp_path / "scan.zarr"
    frame = cube.chunk(y=SIZE, x=SIZE, energy=20).to_dataset(name="counts").drop_attrs()
    frame.to_zarr(store, zarr_format=version, consolidated=False, compute=False)
    following = Watch(store, result)
    assert following.look(0.0) is None
    assert following.store.waiting == ""
    array = zarr.open_array(store / "counts", mode="r+")
    with zarr.config.set({"array.write_empty_chunks": True}):
        array[:8, :8, :20] = cube.values[:8, :8, :20]
        assert following.look(1.0) is None
        array[:8, :8, 20:] = cube.values[:8, :8, 20:]
    live = following.look(2.0)
    assert live.new == ("0:8, 0:8",)
    want = hsi.project(result, cube[:8, :8])
    np.testing.assert_allclose(live.result["abundances"][:, :8, :8], want, rtol=1e-5, atol=1e-5)


def test_frames_and_masks(cube: xr.DataArray, result: xr.Dataset, tmp_path: Path) -> None:
    used = np.ones((2, 8, 16), dtype=bool)
    used[:, 2:5, 3:9] = False
    series = xr.concat([cube[:8, :16], cube[8:16, :16]], dim="frame", join="override")
    series = series.assign_coords(mask=(("frame", "y", "x"), used))
    live = Watch(acquired(series, tmp_path / "scan.zarr"), result).look(0.0)
    assert live.expected == 4
    np.testing.assert_array_equal(np.isfinite(live.result["residual"]), used)
    np.testing.assert_allclose(live.result["abundances"], hsi.project(result, series), rtol=1e-5, atol=1e-5)


def test_the_alarm_is_raised_after_three_blocks_that_do_not_fit(
    cube: xr.DataArray, result: xr.Dataset, tmp_path: Path
) -> None:
    other = cube.copy()
    energy = np.arange(48)
    line = 12.0 * np.exp(-0.5 * ((energy - 24) / 1.5) ** 2)
    other[8:16] = other[8:16] + np.random.default_rng(0).poisson(line, (8, 24, 48)).astype(cube.dtype)
    other[16:24, 8:] = other[16:24, 8:] + np.random.default_rng(1).poisson(line, (8, 16, 48)).astype(cube.dtype)
    following, alarms = Watch(tmp_path / "scan.zarr", result), {}
    for now, _ in enumerate(hsi.simulate.acquire(other, tmp_path / "scan.zarr", block=SIZE)):
        alarms[now] = following.look(float(now)).alarm
    # Blocks 3 to 5 have a line that the fit does not know, 6 has not, 7 and 8 have: too few for a second alarm.
    assert [now for now, words in alarms.items() if words] == [5]
    assert "in 3 blocks running" in alarms[5]
    assert "the last at pixels y 8:16, x 16:24: the model lacks a spectrum" in alarms[5]


def test_no_alarm_without_counts(cube: xr.DataArray, tmp_path: Path) -> None:
    signed = hsi.fit(cube, hsi.PCA(2), seed=0)
    live = Watch(acquired(cube * 3, tmp_path / "scan.zarr"), signed).look(0.0)
    assert (live.blocks, live.alarm) == (9, "")


def test_a_fit_starts_from_the_result_and_the_pixels_so_far(
    cube: xr.DataArray, result: xr.Dataset, tmp_path: Path
) -> None:
    following = Watch(tmp_path / "scan.zarr", result)
    writer = hsi.simulate.acquire(cube, tmp_path / "scan.zarr", block=SIZE)
    for _ in range(5):
        next(writer)
    mask = following.look(0.0).result["mask"]
    part = hsi.open_cube(tmp_path / "scan.zarr").assign_coords(mask=mask)
    refined = hsi.fit(part, hsi.NMF(4), seed=0, start=hsi.name_components(result, ["a", "b", "c", "d"]))
    assert refined.attrs["components"] == "a, b, c, d"
    angles = np.degrees(hsi.metrics.spectral_angle(refined["endmembers"].values, result["endmembers"].values))
    assert angles.max() < 30  # few pixels, but the order of the components is kept
    again = hsi.fit(cube, hsi.NMF(4, loss="poisson", max_iter=1), seed=1, start=result)
    first, last = result["objective"].values[[0, -1]]
    assert again["objective"].values[0] - last < 0.01 * (first - last)  # where the first fit stood
    with pytest.raises(InputError, match="PCA does not start from a result; NMF and the networks do"):
        hsi.fit(part, hsi.PCA(2), start=result)


def test_bad_input_is_refused_at_the_start(cube: xr.DataArray, result: xr.Dataset, tmp_path: Path) -> None:
    store = acquired(cube, tmp_path / "scan.zarr")
    moved = result.assign_coords(energy=result["energy"] * 1.5)
    with pytest.raises(InputError, match=r"the result runs from .*, the cube from"):
        Watch(store, moved).look(0.0)
    with pytest.raises(InputError, match="the result has 40 channels, the cube 48"):
        Watch(store, result.isel(energy=slice(40))).look(0.0)
    stack = json.dumps({"n_components": 4})
    with pytest.raises(InputError, match="CPD looks at more than a pixel at a time"):
        Watch(store, result.assign_attrs(model="CPD", settings=stack))
    (tmp_path / "scan.dm4").write_bytes(b"x")
    with pytest.raises(InputError, match="is a file; a scan is followed in a Zarr store"):
        Watch(tmp_path / "scan.dm4", result)
    hsi.simulate.acquire(cube, tmp_path / "new.zarr")  # nothing is written before the first block
    assert not (tmp_path / "new.zarr").exists()
    with pytest.raises(InputError, match="exists already"):
        hsi.simulate.acquire(cube, store)
    for name, value in (("interval", 0), ("until_idle", -1)):
        with pytest.raises(InputError, match=f"{name} is a time in s above 0"):
            hsi.watch(store, result, **{name: value})
    sharded = tmp_path / "sharded.zarr"
    encoding = {"counts": {"chunks": (4, 4, 48), "shards": (8, 8, 48)}}
    cube.to_dataset(name="counts").drop_attrs().to_zarr(sharded, encoding=encoding, consolidated=False)
    with pytest.raises(InputError, match="has shards, files of many blocks"):
        Watch(sharded, result).look(0.0)


def test_watch_waits_and_ends_when_nothing_comes(
    cube: xr.DataArray, result: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is a number, and each sleep lets the microscope write a block."""
    clock = {"now": 0.0}
    writer: Iterator[Any] = hsi.simulate.acquire(cube, tmp_path / "scan.zarr", block=SIZE)

    def sleep(seconds: float) -> None:
        clock["now"] += seconds
        if 2.0 < clock["now"] < 5.5:
            next(writer)

    monkeypatch.setattr("scalehsi.models.live.time", SimpleNamespace(monotonic=lambda: clock["now"], sleep=sleep))
    reasons: list[str] = []
    looks = list(hsi.watch(tmp_path / "scan.zarr", result, interval=1.0, until_idle=4.0, waiting=reasons.append))
    assert [live.blocks for live in looks] == [1, 2, 3]
    assert clock["now"] == 9.0  # the third block came at 5
    assert len(reasons) == 1
    assert not looks[-1].complete
