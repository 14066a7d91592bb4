"""Opening: cubes and results are lazy, energy chunks are joined, and wrong paths are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from scalehsi.cube import make_cube
from scalehsi.io import convert, open_cube, open_dataset, open_result, save
from scalehsi.schema import InputError
from tests.helpers import raise_if_dask_computes
from tests.io.cubes import counts_of, result_of
from tests.paths import DATA


def test_opening_is_lazy(tmp_path: Path) -> None:
    path = save(counts_of(mask=np.ones((12, 14), bool)), tmp_path / "a.zarr")
    result = save(result_of(counts_of()), tmp_path / "r.zarr")
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


@pytest.fixture
def energy_cut(tmp_path: Path) -> Path:
    """A store as another program may write it: whole planes, few channels a chunk."""
    cube = counts_of((16, 18, 40))
    path = tmp_path / "planes.zarr"
    chunks = {"counts": {"chunks": (16, 18, 8)}}
    cube.to_dataset(name="counts").to_zarr(path, encoding=chunks, consolidated=False, zarr_format=3)
    return path


def test_an_energy_axis_is_joined_without_moving_the_cube_through_all_workers(energy_cut: Path) -> None:
    with dask.config.set({"array.rechunk.method": "p2p"}):  # what Dask takes on a cluster
        layers = open_cube(energy_cut).data.dask.layers
    assert any("rechunk" in name for name in layers)
    assert not any("p2p" in name for name in layers)


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


def test_cubes_and_results_are_distinguished(tmp_path: Path) -> None:
    cube, result = save(counts_of(), tmp_path / "c.zarr"), save(result_of(counts_of()), tmp_path / "r.zarr")
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


@pytest.mark.cluster
def test_workers_read_hdf5_files(tmp_path: Path, client: Any) -> None:
    pytest.importorskip("rsciio", reason="the extra io is not installed")
    folder = DATA / "edx_FePt"
    if not folder.is_dir():
        pytest.skip("no test data beside the repository")
    total = int(open_cube(folder / "core_shell.hspy").sum())
    path = convert(folder / "core_shell.hspy", tmp_path / "a.zarr")
    assert int(open_cube(path).sum()) == total > 0
