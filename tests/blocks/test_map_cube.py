"""A function of neighbours on a lazy cube: blocks read what they need themselves, and no whole map is in a task."""

from __future__ import annotations

import sys
from typing import Any

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from scalehsi.blocks import map_cube, map_fold, open_blocks
from scalehsi.blocks.reading import separate_readers
from scalehsi.cube import make_cube

MODULE = sys.modules["scalehsi.blocks.map_cube"]  # the package has the function under this name
SIDE = 40
HALO = {"y": 1, "x": 2}


def neighbours(x: Any, m: Any) -> Any:
    """The sum of a pixel and the ones beside it, as far as these are in the cube, times a map."""
    padded = np.pad(x, ((1, 1), (2, 2), (0, 0)))
    parts = [padded[1 + a : 1 + a + x.shape[0], 2 + b : 2 + b + x.shape[1]] for a in (-1, 0, 1) for b in (-2, 0, 2)]
    return np.sum(parts, axis=0) * m[..., None]


def lazy_cube(chunks: tuple[int, int, int]) -> tuple[xr.DataArray, np.ndarray[Any, Any]]:
    values = np.random.default_rng(0).poisson(5, (SIDE, SIDE, 6)).astype(np.int64)
    return make_cube(da.from_array(values, chunks=chunks), energy=range(6), energy_units="eV"), values


@pytest.mark.parametrize("chunks", [(40, 40, 6), (7, 40, 6), (1, 3, 6), (16, 16, 2)])
def test_values_are_those_of_the_whole_cube_for_any_chunks(chunks: tuple[int, int, int], monkeypatch: Any) -> None:
    monkeypatch.setattr(MODULE, "HALO_BLOCK_BYTES", 10_000)
    cube, values = lazy_cube(chunks)
    factor = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    expected = neighbours(values, factor)
    for m in (factor, da.from_array(factor, chunks=9)):
        made = map_cube(neighbours, cube, m, halo=HALO)
        np.testing.assert_array_equal(made.values, expected)
        np.testing.assert_array_equal(made[5:7, 3].values, expected[5:7, 3])
    twice = map_cube(neighbours, map_cube(neighbours, cube, factor, halo=HALO), factor, halo=HALO)
    np.testing.assert_array_equal(twice.values, neighbours(expected, factor))
    kept = cube.persist()
    np.testing.assert_array_equal(map_cube(neighbours, kept, factor, halo=HALO).values, expected)


def test_a_block_waits_for_no_neighbour() -> None:
    """One task a block: in a graph that shares tasks, chunks pile up in memory until their neighbours are read."""
    reads = []

    def chunk(block_info: Any = None) -> np.ndarray[Any, Any]:
        place = block_info[None]["chunk-location"]
        reads.append(place)
        return np.full((10, 10, 6), place[0] * 4 + place[1])

    data = da.map_blocks(chunk, chunks=((10,) * 4, (10,) * 4, (6,)), dtype=int, meta=np.empty((0, 0, 0), int))
    cube = make_cube(data, energy=range(6), energy_units="eV")
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(MODULE, "HALO_BLOCK_BYTES", 1)
        made = map_cube(neighbours, cube, np.ones((SIDE, SIDE), int), halo=HALO)
        view = open_blocks(made, resident=False, block_bytes=10 * 10 * 6 * 8)
        assert len(view) == 16
        assert separate_readers("all", view.cuts.cut(made.data)) is not None
        _, sums = map_fold(lambda x: ({}, {"total": x.sum()}), view, name="sum")
    assert int(sums["total"]) == int(
        neighbours(data.compute(scheduler="synchronous"), np.ones((SIDE, SIDE), int)).sum()
    )
    assert reads[:-16].count((1, 1, 0)) == 9, "the chunk is read for its own block and for its eight neighbours"


@pytest.mark.parametrize("halo", [None, {"y": 1, "x": 1}])
def test_a_task_carries_its_own_part_of_a_map(halo: dict[str, int] | None) -> None:
    cube = make_cube(da.ones((SIDE, SIDE, 6), chunks=(5, 5, 6)), energy=range(6), energy_units="eV")
    factor = np.random.default_rng(0).random((SIDE, SIDE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "HALO_BLOCK_BYTES", 1)
        made = map_cube(lambda x, m: x * m[..., None], cube, factor, halo=halo)
    largest = max(len(cloudpickle.dumps(task)) for task in dict(made.data.__dask_graph__()).values())
    assert largest < factor.nbytes
