"""Stores of one chunk, of energy chunks and of 64-bit integers: every method fits them, or names the repair."""

from __future__ import annotations

import math
import re
from pathlib import Path

import dask.array as da
import pytest
import xarray as xr

import scalehsi as hsi
from scalehsi.blocks import Capacity
from scalehsi.blocks.compute import PROCESS_BYTES, WORKER_SHARE
from scalehsi.chunks import MiB, storage_layout
from scalehsi.schema import InputError
from tests.bench import memory

pytestmark = pytest.mark.long

HERE = Capacity(1, 1, int(WORKER_SHARE * memory.LIMIT) - PROCESS_BYTES, remote=True)
"""A worker of 450 MiB."""
MODELS = [name for name in memory.models("uint8") if name not in ("PanSharpen", "ParallelGP")]  # they take other data
FRAMES = {"CPD", "Tucker"}
SAMPLES_OF_IMAGES = {"MTAEU", "CNNAEU"}
"""Need more than others for their training samples, which are pieces of the map."""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("scalehsi.blocks.opening.capacity", "scalehsi.fitting.plan.capacity"):
        monkeypatch.setattr(place, lambda: HERE)


def unwritten(folder: Path, dtype: str, kind: str, megabytes: int = 64) -> Path:
    """A store with the metadata alone, which is all that a plan reads."""
    itemsize = int(dtype.lstrip("uintfloa")) // 8
    side = math.isqrt(megabytes * MiB // (memory.CHANNELS * itemsize)) // 8 * 8
    values = da.zeros((side, side, memory.CHANNELS), chunks=memory.layout(kind, side, itemsize), dtype=dtype)
    cube = hsi.make_cube(values, energy=memory.ENERGY, energy_units="eV", signal="EELS").rename("cube")
    cube.to_dataset().to_zarr(folder / f"{kind}.zarr", zarr_format=3, consolidated=False, compute=False)
    return folder / f"{kind}.zarr"


def refusal(cube: xr.DataArray, name: str, dtype: str) -> str:
    """The message with which a fit is refused; empty where it is planned."""
    data, model = memory.models(dtype)[name](cube)
    try:
        assert hsi.plan(data, model).worker_bytes <= HERE.memory
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("dtype", memory.DTYPES)
@pytest.mark.usefixtures("worker")
def test_chunks_that_do_not_fit_are_refused_with_a_conversion_that_fits(tmp_path: Path, dtype: str) -> None:
    for kind in ("one", "energy"):
        cube = hsi.open_cube(unwritten(tmp_path, dtype, kind))
        for name in MODELS:
            message = refusal(cube, name, dtype)
            assert "to decode and join its stored chunks" in message, name
            found = re.search(r"; type scalehsi convert \S+ \S+ --chunk-mb (\d+) and fit that", message)
            assert found, (name, message)
            assert len(message.splitlines()) == 1
            layout = storage_layout(cube.shape, cube.dtype.itemsize, chunk_bytes=int(found[1]) * MiB)
            converted = cube.copy(data=da.zeros(cube.shape, chunks=layout.chunks, dtype=dtype))
            # Frames that are cut from a converted map share its chunks.
            assert name in FRAMES or not refusal(converted, name, dtype), name


@pytest.mark.parametrize("dtype", memory.DTYPES)
@pytest.mark.usefixtures("worker")
def test_every_method_fits_chunks_of_pixels_in_a_small_worker(tmp_path: Path, dtype: str) -> None:
    cubes = [hsi.open_cube(unwritten(tmp_path, dtype, kind)) for kind in ("pixels", "tiny")]
    assert {name for name in MODELS for cube in cubes if refusal(cube, name, dtype)} <= SAMPLES_OF_IMAGES


@pytest.mark.usefixtures("worker")
def test_counts_are_kept_only_where_a_pass_with_a_halo_fits_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cube = hsi.open_cube(unwritten(tmp_path, "uint16", "pixels"))
    for megabytes in (20, 30, 40, 62):
        monkeypatch.setattr("scalehsi.fitting.plan._Needs._counts_bytes", lambda *_, n=megabytes: n * MiB)
        assert not refusal(cube, "PSNMF", "uint16")
