"""A fit is of the data it was given: files that change end it, a checkpoint is of the same values and mask."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.blocks import map_fold, open_blocks
from scalehsi.fitting.checkpoint import FILE, Checkpoint
from scalehsi.fitting.survey import read_fingerprint
from scalehsi.kernels.pixel_rows.sparse_counts import Counts
from scalehsi.kernels.statistics.fingerprint import fingerprint
from scalehsi.schema import DataChanged, InputError

MODEL = hsi.NMF(2, loss="poisson", bin_factor=1, max_iter=6, tol=0)


def counts(shape: tuple[int, ...] = (16, 16), seed: int = 0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.dirichlet(np.ones(2), shape) @ rng.random((2, 24)) * 9).astype("u2")
    return hsi.make_cube(x, energy=np.arange(24.0), energy_units="eV")


@pytest.fixture
def stored(tmp_path: Path) -> xr.DataArray:
    """A cube of many chunk files."""
    hsi.save(counts(), tmp_path / "map.zarr", chunk_mb=0.0007)
    return hsi.open_cube(tmp_path / "map.zarr")


def chunk_files(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "counts" / "c").rglob("*") if p.is_file())


def removed(folder: Path) -> None:
    chunk_files(folder)[-1].unlink()


def touched(folder: Path) -> None:
    os.utime(chunk_files(folder)[3])


def rewritten(folder: Path) -> None:
    hsi.save(counts(seed=1), folder, overwrite=True, chunk_mb=0.0007)


@pytest.mark.parametrize(("change", "word"), [(removed, "missing"), (touched, "changed"), (rewritten, "changed")])
@pytest.mark.parametrize("resident", [False, True])
def test_files_that_change_before_they_are_read_end_a_pass(
    tmp_path: Path, stored: xr.DataArray, change: Any, word: str, resident: bool
) -> None:
    view = open_blocks(stored, resident=resident)
    change(tmp_path / "map.zarr")
    with pytest.raises(DataChanged, match=rf"changed while they were read.* {word}"):
        map_fold(lambda x: ({}, {"sum": x.sum()}), view)


def test_files_that_do_not_change_are_read_as_often_as_wanted(stored: xr.DataArray) -> None:
    view = open_blocks(stored, resident=False)
    sums = [int(map_fold(lambda x: ({}, {"sum": x.sum()}), view)[1]["sum"]) for _ in range(3)]
    assert sums == [int(counts().sum())] * 3


def test_a_resident_cube_does_not_need_its_files_any_more(tmp_path: Path, stored: xr.DataArray) -> None:
    view = open_blocks(stored, resident=True)
    map_fold(lambda x: ({}, {"sum": x.sum()}), view)
    removed(tmp_path / "map.zarr")
    assert map_fold(lambda x: ({}, {"sum": x.sum()}), view)[1]["sum"] == int(counts().sum())


def test_a_streamed_fit_whose_files_vanish_ends_with_its_checkpoint(
    tmp_path: Path, stored: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalehsi.fitting.fit.open_blocks", lambda cube, **_: open_blocks(cube, resident=False))

    files = len(chunk_files(tmp_path / "map.zarr"))

    def vanish(progress: Any) -> None:
        if progress.iteration == 3 and len(chunk_files(tmp_path / "map.zarr")) == files:
            removed(tmp_path / "map.zarr")

    with pytest.raises(DataChanged, match=r"1 missing.*the state before is in .*run"):
        hsi.fit(stored, MODEL, checkpoint=tmp_path / "run", progress=vanish)
    assert (tmp_path / "run" / FILE).is_file()


# Fingerprints.


def test_a_fingerprint_does_not_depend_on_chunks_or_dtype() -> None:
    cube = counts((13, 11))
    prints = {read_fingerprint(open_blocks(cube.chunk(y=n).astype(t))) for n in (13, 4) for t in ("u2", "f4", "f8")}
    assert len(prints) == 1
    x = cube.values.reshape(-1, 24)
    index = np.arange(len(x))
    np.testing.assert_array_equal(fingerprint(Counts.from_dense(x), index=index), fingerprint(x, index=index))


@pytest.mark.parametrize("seed", range(5))
def test_one_other_voxel_or_place_is_another_fingerprint(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cube = counts(seed=seed)
    known = {read_fingerprint(open_blocks(cube))}
    for _ in range(10):
        other = cube.copy()
        other.values[tuple(rng.integers(0, cube.shape))] += rng.integers(1, 4)
        known.add(read_fingerprint(open_blocks(other)))
    used = np.ones((16, 16), bool)
    used[tuple(rng.integers(0, 16, 2))] = False
    known.add(read_fingerprint(open_blocks(cube.assign_coords(mask=(("y", "x"), used)))))
    known.add(read_fingerprint(open_blocks(cube.copy(data=cube.values[::-1].copy()))))
    known.add(read_fingerprint(open_blocks(cube.copy(data=cube.values[..., ::-1].copy()))))
    assert len(known) == 14


def masked(cube: xr.DataArray) -> xr.DataArray:
    used = np.ones((16, 16), bool)
    used[2, 3] = False
    return cube.assign_coords(mask=(("y", "x"), used))


@pytest.mark.parametrize("other", [lambda cube: cube + np.uint16(1), masked], ids=["values", "mask"])
@pytest.mark.parametrize("model", [MODEL, hsi.PSNMF(2, max_iter=5), hsi.NMF(2, smoothness=0.1, max_iter=4)], ids=str)
def test_a_checkpoint_is_not_taken_up_for_other_data(tmp_path: Path, other: Any, model: Any) -> None:
    cube = counts()
    hsi.fit(cube, model, checkpoint=tmp_path / "run")
    with pytest.raises(InputError, match=r"is of other data.*values or its mask"):
        hsi.fit(other(cube), model, checkpoint=tmp_path / "run", resume=True)
    again = hsi.fit(cube.chunk(y=5), model, checkpoint=tmp_path / "run", resume=True)
    assert again.sizes["component"] == 2


def test_a_checkpoint_of_two_cubes_knows_both(tmp_path: Path) -> None:
    model = hsi.PanSharpen(2, max_iter=3)
    pair = {"spatial": counts((16, 16)), "spectral": counts((4, 4), seed=1)}
    pair["spectral"] = pair["spectral"].assign_coords({d: (d, np.arange(4) * 4 + 1.5, {"units": "nm"}) for d in "yx"})
    hsi.fit(pair, model, checkpoint=tmp_path / "run")
    other = {**pair, "spectral": pair["spectral"] + np.uint16(1)}
    with pytest.raises(InputError, match="is of other data: shape and dtype of the spectral"):
        hsi.fit(other, model, checkpoint=tmp_path / "run", resume=True)


# One process at a time.


def test_two_fits_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    from scalehsi.fitting.sources import select_inputs

    first = Checkpoint(tmp_path / "run", model=MODEL, seed=0, inputs=select_inputs(counts(), MODEL))
    first.prepare(resume=False)
    with pytest.raises(InputError, match="in use by another fit"):
        hsi.fit(counts(), MODEL, checkpoint=tmp_path / "run")
    first.release()
    assert not (tmp_path / "run").exists()
    hsi.fit(counts(), MODEL, checkpoint=tmp_path / "run")


def test_the_lock_of_a_killed_process_ends_with_it(tmp_path: Path) -> None:
    code = (
        "import fcntl, os, time, pathlib\n"
        f"folder = pathlib.Path({str(tmp_path / 'run')!r}); folder.mkdir()\n"
        "lock = os.open(folder / '.lock', os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "(folder / '.state.npz.1-1-abc.partial').write_text('half')\n"
        "print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "held"
    with pytest.raises(InputError, match="in use by another fit"):
        hsi.fit(counts(), MODEL, checkpoint=tmp_path / "run")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    hsi.fit(counts(), MODEL, checkpoint=tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".lock", FILE]


def test_a_signal_inside_the_writer_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    savez, sent = np.savez, []

    def interrupted(file: Any, **arrays: Any) -> None:
        if not sent:
            sent.append(True)
            signal.raise_signal(signal.SIGINT)
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(hsi.Interrupted, match="after 1 iterations; the state is in"):
        hsi.fit(counts(), MODEL, checkpoint=tmp_path / "run")
    monkeypatch.undo()
    assert len(hsi.fit(counts(), MODEL, checkpoint=tmp_path / "run", resume=True)["objective"]) == 6
