"""Tests of derived views: computed once from one reading, aligned with the cube, and again when a worker dies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given

from scalehsi.blocks import Blocks, map_fold, map_pixels, open_blocks
from scalehsi.cube import make_cube
from scalehsi.schema import InputError
from tests.helpers import (
    CountingStore,
    KillWorker,
    assert_same,
    counts_cube,
    moments,
    raise_if_dask_computes,
    random_mask,
    update,
)
from tests.strategies import Case, cases


@dataclass(frozen=True)
class Sparse:
    """Stands for a sparse container: the positions and values of the entries that are not zero."""

    shape: tuple[int, int]
    at: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]

    @property
    def nbytes(self) -> int:
        return int(self.at.nbytes + self.values.nbytes)


def sparse(x: Any) -> Sparse:
    at = np.flatnonzero(x)
    return Sparse(x.shape, at, x.reshape(-1)[at])


def dense_moments(x: Sparse, *aligned: Any) -> Any:
    assert isinstance(x, Sparse)
    values = np.zeros(x.shape[0] * x.shape[1], x.values.dtype)
    values[x.at] = x.values
    return moments(values.reshape(x.shape), *aligned)


def compressed(x: Any, *, q: Any) -> Any:
    return x.astype(np.float32) @ q


def of_store(resident: bool, **options: Any) -> tuple[CountingStore, Blocks]:
    store = CountingStore(counts_cube((8, 4, 6)).values)
    lazy = dask.array.from_array(store, chunks=(2, 4, 6), name=f"derive-{id(store)}", meta=store.values[:0])
    cube = make_cube(lazy, energy=range(6), energy_units="eV")
    return store, open_blocks(cube, resident=resident, block_bytes=48, **options)


@given(case=cases())
def test_a_derived_view_gives_the_sums_and_maps_of_the_cube(case: Case) -> None:
    with dask.config.set(scheduler="synchronous"):
        view = open_blocks(case.cube, **case.options)
        other = view.derive(sparse, name="sparse")
        want_handles, want = map_fold(moments, view, keep=["total"])
        handles, got = map_fold(dense_moments, other, want_handles["total"], keep=["total"])
        assert_same({k: got[k] for k in want}, want)
        # Handles of one view are aligned with the other, and give the same maps.
        _, back = map_fold(moments, view, handles["total"])
        assert back["aligned_0"] == got["aligned_0"]
        lazy = map_pixels(dense_moments, other, keep=["total"])["total"]
        maps = [h.to_dataarray(dtype="f8").values for h in (want_handles["total"], handles["total"], lazy)]
    np.testing.assert_array_equal(maps[1], maps[0])
    np.testing.assert_array_equal(maps[2], maps[0])


def test_tiles_keep_their_pixel_numbers(small_cube: xr.DataArray) -> None:
    def look(x: Any, *, tile: Any) -> Any:
        assert tile.x is x
        return {}, {"index": tile.index.tolist(), "shape": [tile.shape], "core": int(tile.core.sum())}

    def joined(a: Any, b: Any) -> Any:
        return {k: a[k] + b[k] for k in a}

    view = open_blocks(small_cube.chunk(y=5, x=4), block_bytes=160)
    other = view.derive(sparse, name="sparse")
    found = [map_fold(look, v, tile=True, combine=joined)[1] for v in (view, other)]
    assert found[0] == found[1]


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("resident", [True, False])
def test_the_cube_is_read_once_for_it(resident: bool, loaded: bool, scheduler: str) -> None:
    with dask.config.set(scheduler=scheduler):
        store, view = of_store(resident)
        if loaded:
            map_fold(moments, view)
        before = view.reads
        other = view.derive(sparse, name="sparse")
        assert set(store.reads.values()) <= {before}
        for _ in range(3):
            map_fold(dense_moments, other)
    extra = 0 if resident and loaded else 1
    assert view.reads == other.reads == before + extra
    assert set(store.reads.values()) == {view.reads}
    assert other.resident


def test_deriving_from_a_view_that_is_not_loaded_does_not_load_it() -> None:
    store, view = of_store(resident=True)
    map_fold(dense_moments, view.derive(sparse, name="sparse"))
    assert not view._loaded
    map_fold(moments, view)
    assert view.reads == 2
    assert set(store.reads.values()) == {2}


def test_a_view_may_be_released_once_another_is_derived() -> None:
    store, view = of_store(resident=True)
    map_fold(moments, view)
    other = view.derive(sparse, name="sparse")
    _, want = map_fold(dense_moments, other)
    view.release()
    _, got = map_fold(dense_moments, other)
    assert_same(got, want)
    assert view.reads == 1
    other.release()
    map_fold(dense_moments, other)
    assert set(store.reads.values()) == {2}


def test_columns_shared_values_and_chains() -> None:
    _, view = of_store(resident=False)
    q = np.linspace(0, 1, 12, dtype=np.float32).reshape(6, 2)
    other = view.derive(compressed, shared={"q": q}, name="compress")
    again = other.derive(lambda x: x[:, :1], name="first")
    assert (view.n_energies, other.n_energies, again.n_energies) == (6, 2, 1)
    assert other.grid == view.grid
    assert len(other) == len(view)
    _, sums = map_fold(lambda x: ({}, {"s": x.sum(axis=0, dtype=float)}), other)
    x = view.cube.values.reshape(-1, 6).astype(np.float32)
    np.testing.assert_allclose(sums["s"], (x @ q).sum(axis=0), rtol=1e-6)
    _, first = map_fold(lambda x: ({}, {"s": x.sum(axis=0, dtype=float)}), again)
    assert first["s"] == sums["s"][:1]
    # The view in the middle is in memory, so the cube was read once.
    assert view.reads == again.reads == 1


def test_deriving_and_its_lazy_maps_start_nothing() -> None:
    store, view = of_store(resident=True)
    with raise_if_dask_computes(0):
        other = view.derive(sparse, name="sparse")
        maps = map_pixels(dense_moments, other, keep=["total"])["total"].to_dataarray()
    assert not store.reads
    np.testing.assert_array_equal(maps[:1].values, store.values[:1].sum(axis=-1))
    assert len(store.reads) == 1


def test_a_halo_and_a_wrong_number_of_rows_are_refused(small_cube: xr.DataArray) -> None:
    view = open_blocks(small_cube, block_bytes=160)
    with pytest.raises(InputError, match=r"a derived view has no halo; pass the halo to a pass over the cube"):
        map_fold(moments, view.derive(sparse, name="sparse"), halo=1)
    with pytest.raises(InputError, match=r"has 12 rows, one for each pixel; got 1|has \d+ rows.*got 1"):
        map_fold(moments, view.derive(lambda x: x[:1], name="short"))


def test_blocks_without_a_used_pixel_are_skipped() -> None:
    mask = np.zeros((6, 4), dtype=bool)
    mask[2] = True
    view = open_blocks(counts_cube((6, 4, 3), mask=mask), block_bytes=12)

    def never_empty(x: Any) -> Sparse:
        assert x.shape[0] > 0
        return sparse(x)

    other = view.derive(never_empty, name="sparse")
    _, sums = map_fold(dense_moments, other)
    assert sums["n"] == 4
    assert other.n_energies == 3


def test_its_task_has_its_name(small_cube: xr.DataArray) -> None:
    names: set[str] = set()
    with (
        dask.config.set(scheduler="synchronous"),
        dask.callbacks.Callback(posttask=lambda key, *_: names.add(dask.utils.key_split(key))),
    ):
        map_fold(dense_moments, open_blocks(small_cube, block_bytes=160).derive(sparse, name="nmf-sparse"))
    assert "nmf-sparse" in names
    assert "load" not in names


# On worker processes.


@pytest.mark.cluster
@pytest.mark.parametrize("resident", [True, False])
def test_a_killed_worker_changes_nothing(client: Any, resident: bool, tmp_path: Path) -> None:
    cube = counts_cube((24, 10, 8), mask=random_mask((24, 10))).chunk(y=4, x=5)
    view = open_blocks(cube, resident=resident, block_bytes=160)
    assert len(view) == 12
    other = view.derive(lambda x, *, q: x @ q, shared={"q": np.eye(8)[:, 2:]}, name="narrow")
    given = {"s": np.linspace(0, 1, 18).reshape(3, 6)}
    kill = KillWorker(tmp_path, at_call=18)
    found = [map_fold(kill, other, shared=given, tile=True)[1] for _ in range(3)]
    assert (tmp_path / "killed").exists()
    client.wait_for_workers(2, timeout=300)
    with dask.config.set(scheduler="synchronous"):
        _, want = map_fold(update, open_blocks(cube[..., 2:], block_bytes=120), shared=given)
    for sums in found:
        assert_same(sums, want)
    assert view.reads == 1
    assert other.n_energies == 6
